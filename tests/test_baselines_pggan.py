"""PGGAN: the parts that make the method (Karras et al., 2018), each against its definition."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genae.experiment import import_modules, project_root
from genae.models.adversarial import AdversarialGenerator
from genae.networks.blocks import EqualizedConv2d, EqualizedLinear, MinibatchStdDev, PixelNorm, SpectralConv2d
from genae.networks.discriminator import Discriminator
from genae.registry import MODELS
from genae.schedule import Growth

import_modules(["baselines.pggan"], project_root(Path(__file__)))


def small(**settings) -> AdversarialGenerator:
    torch.manual_seed(0)
    return MODELS.build({"name": "pggan", "latent_dim": 5, "channels": [6, 6, 4], **settings}, (3, 16, 16)).eval()


# Pixel norm.


def test_pixel_norm_gives_each_pixels_features_a_mean_square_of_one():
    x = 7 * torch.randn(3, 6, 4, 4) + 2
    y = PixelNorm()(x)
    torch.testing.assert_close(y.square().mean(1), torch.ones(3, 4, 4))
    torch.testing.assert_close(F.normalize(y, dim=1), F.normalize(x, dim=1))
    assert PixelNorm()(torch.zeros(1, 2, 1, 1)).isfinite().all()


def test_the_generator_normalises_its_codes_and_what_follows_every_leaky_relu():
    model = small()
    codes = torch.randn(4, 5)
    torch.testing.assert_close(model.decode(codes), model.decode(3 * codes), atol=1e-4, rtol=1e-4)  # their length is nothing
    for index, block in enumerate(model.decoder.blocks):
        kinds = [EqualizedConv2d, nn.LeakyReLU, PixelNorm] * 2
        assert [type(part) for part in block] == (kinds if index else [PixelNorm, *kinds])


def test_the_generator_is_the_papers_sequence_of_operations():
    """The whole forward pass once more, from the parameters, in plain operations."""
    model = small()
    codes = model.prior(2, torch.Generator().manual_seed(0))

    def normal(x):
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    def convolved(x, part, padding):
        fan_in = part.weight[0].numel()
        return normal(F.leaky_relu(F.conv2d(x, part.weight * math.sqrt(2 / fan_in), part.bias, padding=padding), 0.2))

    x = normal(codes)[:, :, None, None]
    for index, block in enumerate(model.decoder.blocks):
        first, second = (part for part in block if isinstance(part, nn.Conv2d))
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3) if index else x
        x = convolved(convolved(x, first, 1 if index else 3), second, 1)
    colours = model.decoder.to_images.convolutions[-1]
    expected = F.conv2d(x, colours.weight * math.sqrt(1 / 4), colours.bias)  # nothing follows: gain 1
    torch.testing.assert_close(model.decode(codes), expected, atol=1e-5, rtol=1e-5)


# Equalised learning rate.


def test_every_weight_of_both_networks_is_equalised_and_none_spectrally_normalised():
    model = small()
    assert not [part for part in model.modules() if isinstance(part, SpectralConv2d)]
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert all(isinstance(part, EqualizedConv2d | EqualizedLinear) for part in convolutions)
    covered = {id(p) for part in convolutions for p in part.parameters()}
    assert {id(p) for p in model.parameters()} == covered
    assert all(part.bias.abs().max() == 0 for part in convolutions)


@pytest.mark.parametrize("variance", [1.0, 2.0])
def test_a_step_of_adam_moves_an_equalised_weight_by_its_share_of_the_learning_rate(variance):
    torch.manual_seed(0)
    part = EqualizedConv2d(8, 50, 3, variance=variance)
    used = part.normalized_weight().detach()
    assert used.std().item() == pytest.approx(math.sqrt(variance / 72), rel=0.05)  # He et al.'s spread at the start
    optimizer = torch.optim.Adam(part.parameters(), lr=0.01, betas=(0.0, 0.99))
    (part.normalized_weight() * torch.randn_like(used)).sum().backward()
    optimizer.step()
    moved = (part.normalized_weight() - used).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.01 * math.sqrt(variance / 72)), rtol=1e-3, atol=0)


# Minibatch standard deviation.


def test_the_last_feature_map_is_the_mean_standard_deviation_over_the_batch():
    x = torch.randn(6, 3, 4, 4)
    y = MinibatchStdDev()(x)
    assert y.shape == (6, 4, 4, 4)
    assert torch.equal(y[:, :3], x)
    expected = x.std(0, unbiased=False).mean()
    torch.testing.assert_close(y[:, 3], expected.expand(6, 4, 4))


def test_in_groups_as_released_each_image_is_compared_with_its_group_only():
    x = torch.randn(8, 3, 4, 4)
    y = MinibatchStdDev(4)(x)
    for first in range(2):  # every second image is of one group
        torch.testing.assert_close(y[first::2, 3], x[first::2].std(0, unbiased=False).mean().expand(4, 4, 4))
    assert MinibatchStdDev(4)(x[:3]).shape == (3, 4, 4, 4)  # a batch smaller than a group is one
    with pytest.raises(ValueError, match="8 images cannot be parted into groups of 3"):
        MinibatchStdDev(3)(x)


def test_images_that_are_all_alike_have_no_spread_and_a_finite_gradient():
    x = torch.ones(4, 2, 4, 4, requires_grad=True)
    y = MinibatchStdDev()(x)
    assert y[:, 2].max() < 1e-3
    y.square().sum().backward()
    assert x.grad.isfinite().all()


def test_the_discriminator_sees_whether_a_batch_varies():
    torch.manual_seed(0)
    discriminator = Discriminator((3, 16, 16), channels=[6, 6, 4]).eval()
    assert isinstance(discriminator.last[0], MinibatchStdDev)
    image, others = torch.randn(1, 3, 16, 16), torch.randn(3, 3, 16, 16)
    alone = discriminator(image.repeat(4, 1, 1, 1))[0]
    assert discriminator(torch.cat([image, others]))[0] != alone
    # Blind to it, if it gives the map of spreads no weight.
    with torch.no_grad():
        discriminator.last[1].weight[:, -1] = 0
    torch.testing.assert_close(discriminator(torch.cat([image, others]))[0], discriminator(image.repeat(4, 1, 1, 1))[0])


@pytest.mark.parametrize("blur", [False, True])
def test_the_discriminator_is_the_papers_sequence_of_operations(blur):
    """The whole forward pass once more, from the parameters, in plain operations; StyleGAN's filters before it halves."""
    torch.manual_seed(0)
    discriminator = Discriminator((3, 16, 16), channels=[6, 6, 4], blur=blur)
    with torch.no_grad():
        for part in discriminator.modules():
            if isinstance(part, nn.Conv2d):
                part.bias.normal_()  # they start at 0

    def convolved(x, part, padding=0, gain=2):
        return F.conv2d(x, part.weight * math.sqrt(gain / part.weight[0].numel()), part.bias, padding=padding)

    def active(*arguments):
        return F.leaky_relu(convolved(*arguments), 0.2)

    images = torch.randn(4, 3, 16, 16)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    x = active(images, discriminator.from_images[2][0])  # at 16x16
    for block in (discriminator.blocks[1], discriminator.blocks[0]):  # to 8x8, to 4x4
        x = active(active(x, block.first, 1), block.second, 1)
        if blur:
            x = F.conv2d(x, kernel.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])
        x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    x = torch.cat([x, x.std(0, unbiased=False).mean().expand(4, 1, 4, 4)], dim=1)
    last = [part for part in discriminator.last if isinstance(part, nn.Conv2d)]
    x = active(active(x, last[0], 1), last[1])
    torch.testing.assert_close(discriminator(images), convolved(x, last[2], 0, 1).flatten(), atol=1e-4, rtol=1e-4)


# Growing.


def test_both_networks_fade_a_new_resolution_in():
    model = small()
    codes, images = model.prior(3, torch.Generator().manual_seed(0)), torch.randn(3, 3, 8, 8)
    halved = F.avg_pool2d(images, 2)
    coarse, fine = model.decode(codes, Growth(4)), model.decode(codes, Growth(8))
    expected = 0.7 * F.interpolate(coarse, scale_factor=2) + 0.3 * fine
    torch.testing.assert_close(model.decode(codes, Growth(8, 0.3)), expected)
    torch.testing.assert_close(model.discriminate(images, Growth(8, 0.0)), model.discriminate(halved, Growth(4)))
    assert not torch.allclose(model.discriminate(images, Growth(8)), model.discriminate(halved, Growth(4)))


def test_colours_go_on_learning_while_they_fade_out():
    model = small()
    model.decode(torch.randn(2, 5), Growth(8, 0.5)).sum().backward()
    old, new = model.decoder.to_images.convolutions[:2]
    assert old.weight.grad.abs().max() > 0
    assert new.weight.grad.abs().max() > 0


def test_parameters_at_256_are_those_of_the_papers_table_but_for_where_channels_double():
    # The paper's generator: "Conv 4x4, Conv 3x3" at 4x4, then two 3x3 a resolution, and a 1x1 to colours at the last.
    widths = [512, 512, 512, 512, 256, 128, 64]
    generator = 512 * 512 * 16 + 512 + 512 * 512 * 9 + 512
    for before, width in pairwise(widths):
        generator += before * width * 9 + width + width * width * 9 + width
    colours = [3 * width + 3 for width in widths]
    with torch.device("meta"):
        model = MODELS.build({"name": "pggan"}, (3, 256, 256))
    assert sum(p.numel() for p in model.decoder.parameters()) == generator + sum(colours)
    # The discriminator's: the spread is one channel more at 4x4, and two layers follow, of 512 and of 1.
    discriminator = 513 * 512 * 9 + 512 + 512 * 512 * 16 + 512 + 512 + 1
    for narrow, wide in pairwise(widths):
        discriminator += wide * narrow * 9 + narrow + narrow * narrow * 9 + narrow  # here the first convolution widens
    from_colours = [3 * width + width for width in widths]
    assert sum(p.numel() for p in model.discriminator.parameters()) == discriminator + sum(from_colours)
