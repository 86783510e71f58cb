"""The networks of AE, IAE and AAE: their sizes, where they start, and what leaves them."""

import pytest
import torch
from torch import Tensor, nn

from genae.networks.dcgan import decoder, encoder


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("size", "maps"),
    [
        (8, [4]),
        (16, [8, 4]),
        (28, [14, 7]),
        (32, [16, 8, 4]),
        (48, [24, 12, 6]),
        (64, [32, 16, 8, 4]),
        (128, [64, 32, 16, 8, 4]),
    ],
)
def test_each_convolution_halves_the_map_down_to_one_that_the_last_covers(size, maps):
    network, sizes = encoder((1, size, size), 3, width=2), []
    for layer in network.layers:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, x, y: sizes.append(y.shape[-1]))
    codes = network(noise(2, 1, size, size))
    assert sizes == [*maps, 1]
    assert codes.shape == (2, 3)
    images = decoder(3, (1, size, size), width=2)(codes)
    assert images.shape == (2, 1, size, size)


@pytest.mark.parametrize(("height", "size"), [(4, 4), (30, 30), (6, 6), (32, 16)])
def test_sizes_that_do_not_halve_evenly_to_a_small_map_are_refused(height, size):
    for build in (lambda: encoder((1, height, size), 3), lambda: decoder(3, (1, height, size))):
        with pytest.raises(ValueError, match=f"halve evenly.*8, 16, 28.*not {height}x{size}"):
            build()


def test_a_network_without_channels_is_refused():
    for width in (0, 32):
        with pytest.raises(ValueError, match=f"width must be at least 1 and at most max_width .16., not {width}"):
            encoder((1, 16, 16), 3, width=width, max_width=16)


def test_the_networks_for_mnist_have_as_many_weights_as_counted_by_hand():
    # 28 -> 14 -> 7 -> code of 8, with 64 and 128 channels, in 4x4 and 7x7 convolutions.
    first, second, last = 1 * 64 * 16 + 64, 64 * 128 * 16 + 2 * 128, 128 * 8 * 49 + 8
    assert weights(encoder((1, 28, 28), 8)) == first + second + last == 182_600
    # And back; the first map has a bias and nothing after it.
    first, second, last = 8 * 128 * 49 + 128, 128 * 64 * 16 + 2 * 64, 64 * 1 * 16 + 1
    assert weights(decoder(8, (1, 28, 28))) == first + second + last == 182_529


def test_channels_double_with_every_halving_up_to_the_most_there_may_be():
    sizes = {"width": 4, "max_width": 32}
    network, mirror = encoder((3, 128, 128), 200, **sizes), decoder(200, (3, 128, 128), **sizes)
    assert [layer.out_channels for layer in network.layers if isinstance(layer, nn.Conv2d)] == [4, 8, 16, 32, 32, 200]
    turned = [layer for layer in mirror.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in turned] == [32, 32, 16, 8, 4, 3]
    assert turned[0].kernel_size == (4, 4)


def test_all_but_the_outermost_layers_are_normalised():
    kinds = [type(layer).__name__ for layer in encoder((3, 32, 32), 5, width=2).layers]
    block = ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds == ["Conv2d", "LeakyReLU", *block, *block, "Conv2d"]
    kinds = [type(layer).__name__ for layer in decoder(5, (3, 32, 32), width=2).layers]
    block = ["ConvTranspose2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds == ["ConvTranspose2d", *block, *block, "ConvTranspose2d", "Tanh"]


@pytest.mark.parametrize("output", ["tanh", "sigmoid"])
def test_images_are_squashed_into_the_range_of_pixels(output):
    network = decoder(5, (1, 16, 16), width=4, output=output, norm_scale_mean=1.0)
    images = network(1000 * noise(4, 5))
    assert images.min() < -0.5
    assert images.max() > 0.5
    assert images.abs().max() <= 1


def test_a_sigmoid_and_a_tanh_of_twice_as_much_are_the_same_image():
    one, other = (decoder(5, (1, 16, 16), width=4, output=output) for output in ("sigmoid", "tanh"))
    other.load_state_dict(one.state_dict())
    with torch.no_grad():  # 2 sigmoid(x) - 1 = tanh(x / 2)
        last = other.layers[-2]
        last.weight /= 2
        last.bias /= 2
    torch.testing.assert_close(one(noise(3, 5)), other(noise(3, 5)))


def test_weights_start_orthogonal():
    for network in (encoder((1, 16, 16), 5, width=4), decoder(5, (1, 16, 16), width=4)):
        for layer in network.layers:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                rows = layer.weight.flatten(1)
                rows = rows if rows.shape[0] <= rows.shape[1] else rows.T
                torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)
                assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_scales_of_batch_normalisation_start_about_the_mean_that_is_set(mean):
    network = encoder((1, 32, 32), 5, width=128, norm_scale_mean=mean)
    scales = torch.cat([layer.weight for layer in network.layers if isinstance(layer, nn.BatchNorm2d)])
    # 768 draws from N(mean, 0.02^2): their mean is within 5 standard errors, 0.02 / sqrt(768) each.
    assert scales.mean().item() == pytest.approx(mean, abs=5 * 0.02 / 768**0.5)
    assert scales.std().item() == pytest.approx(0.02, rel=0.2)
