"""StyleGAN: the parts that make the method (Karras et al., 2019), each against its definition."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.experiment import import_modules, project_root
from genae.models.adversarial import AdversarialGenerator
from genae.networks.blocks import Blur, EqualizedConv2d, EqualizedLinear, Noise
from genae.registry import MODELS
from genae.schedule import Growth

import_modules(["baselines.stylegan"], project_root(Path(__file__)))


def small(**settings) -> AdversarialGenerator:
    torch.manual_seed(0)
    spec = {"name": "stylegan", "latent_dim": 5, "channels": [6, 6, 4], "mapping_layers": 3, **settings}
    model = MODELS.build(spec, (3, 16, 16)).eval()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, Noise):
                part.scale.normal_()  # they start at 0
    return model


def noises(model: AdversarialGenerator) -> list[Noise]:
    return [part for part in model.decoder.modules() if isinstance(part, Noise)]


# Mapping network.


def test_the_mapping_network_has_8_layers_at_a_hundredth_of_the_learning_rate():
    with torch.device("meta"):
        mapping = MODELS.build({"name": "stylegan"}, (3, 16, 16)).decoder.mapping
    linear = [part for part in mapping if isinstance(part, nn.Linear)]
    assert len(linear) == 8
    assert all(isinstance(part, EqualizedLinear) and part.weight.shape == (512, 512) for part in linear)
    assert {part.rate for part in linear} == {0.01}


def test_codes_are_normalised_then_mapped_by_layers_with_leaky_relu():
    model = small()
    z = torch.randn(4, 5)
    w = z / z.square().mean(1, keepdim=True).sqrt()
    for part in model.decoder.mapping:
        if isinstance(part, nn.Linear):
            # Stored 100 times as large, and used at He et al.'s spread sqrt(2 / fan_in).
            w = F.leaky_relu(F.linear(w, part.weight * 0.01 * math.sqrt(2 / 5), part.bias * 0.01), 0.2)
    torch.testing.assert_close(model.decoder.styles(z), w, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.decode(z), model.decode(2 * z), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_a_step_of_adam_moves_a_map_by_its_rate(rate):
    torch.manual_seed(0)
    part = EqualizedLinear(64, 80, rate=rate)

    def used() -> tuple[Tensor, Tensor]:
        bias = part(torch.zeros(1, 64))
        return (part(torch.eye(64)) - bias).detach(), bias.detach()

    weight, bias = used()
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.05)  # whatever the rate
    (part(torch.randn(7, 64)) * torch.randn(7, 80)).sum().backward()
    torch.optim.Adam(part.parameters(), lr=0.001, betas=(0.0, 0.99)).step()
    moved_weight, moved_bias = ((new - old).abs() for new, old in zip(used(), (weight, bias), strict=True))
    expected = 0.001 * rate
    torch.testing.assert_close(moved_bias, torch.full_like(bias, expected), rtol=1e-2, atol=1e-9)
    torch.testing.assert_close(moved_weight.mean(), torch.tensor(expected * math.sqrt(2 / 64)), rtol=1e-2, atol=1e-7)


# The synthesis network.


def test_the_input_is_a_learned_constant_that_no_code_reaches_but_through_styles():
    model = small()
    assert isinstance(model.decoder.synthesis.constant, nn.Parameter)
    assert model.decoder.synthesis.constant.shape == (1, 6, 4, 4)
    model.decode(torch.randn(3, 5)).square().sum().backward()
    assert model.decoder.synthesis.constant.grad.abs().max() > 0


def test_the_synthesis_network_is_the_papers_sequence_of_operations():
    """The whole forward pass once more, from the parameters, in plain operations."""
    model = small()
    codes = torch.randn(2, 5)
    w = model.decoder.styles(codes)
    synthesis = model.decoder.synthesis

    def finished(x: Tensor, noise: Noise, style: nn.Linear) -> Tensor:
        alone = noise(torch.zeros_like(x)) / noise.scale  # the map that eval mode adds
        assert torch.allclose(alone, alone[:, :1], atol=1e-6)  # one for all channels
        x = F.leaky_relu(x + noise.scale * alone[:, :1], 0.2)
        spread, mean = F.linear(w, style.weight / math.sqrt(5), style.bias).chunk(2, dim=1)
        std, centre = torch.std_mean(x, (2, 3), keepdim=True)
        return spread[..., None, None] * (x - centre) / std + mean[..., None, None]

    def convolved(x: Tensor, part: nn.Conv2d) -> Tensor:
        return F.conv2d(x, part.weight * math.sqrt(2 / part.weight[0].numel()), part.bias, padding=1)

    first = synthesis.blocks[0]
    x = finished(synthesis.constant.expand(2, -1, -1, -1), first.first.noise, first.first.style)
    x = finished(convolved(x, first.convolution), first.second.noise, first.second.style)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    for block in synthesis.blocks[1:]:
        x = convolved(x.repeat_interleave(2, 2).repeat_interleave(2, 3), block.first.convolution)
        x = F.conv2d(x, kernel.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])
        x = finished(x, block.first.noise, block.first.style)
        x = finished(convolved(x, block.second.convolution), block.second.noise, block.second.style)
    colours = synthesis.to_images.convolutions[-1]
    expected = F.conv2d(x, colours.weight * math.sqrt(1 / 4), colours.bias)
    torch.testing.assert_close(model.decode(codes), expected, atol=1e-4, rtol=1e-4)


def test_there_is_one_noise_input_for_the_constant_and_each_convolution_and_its_channels_share_a_map():
    model = small()
    convolutions = [part for part in model.decoder.synthesis.blocks.modules() if isinstance(part, EqualizedConv2d)]
    assert len(noises(model)) == 1 + len(convolutions) == 6  # two a resolution
    x = torch.zeros(3, 6, 4, 4)
    noise = Noise(6, "a layer", shared=True)
    nn.init.ones_(noise.scale)
    torch.manual_seed(0)
    drawn = noise.train()(x)
    assert torch.equal(drawn, drawn[:, :1].expand_as(x))  # by channels
    assert not torch.allclose(drawn[0], drawn[1])  # not by images
    assert drawn.std().item() == pytest.approx(1, abs=0.4)
    assert torch.equal(noise.eval()(x)[0], noise(x)[1])


def test_noise_reaches_every_layer_of_each_image_in_train_mode_and_repeats_in_eval_mode():
    model, codes = small(), torch.randn(1, 5).repeat(2, 1)
    torch.testing.assert_close(*model.decode(codes))
    one, other = model.train().decode(codes)
    assert not torch.allclose(one, other)
    for chosen in noises(model):  # and at the constant too, the images of a batch have noise of their own
        for part in noises(model):
            part.train(part is chosen)
        one, other = model.decode(codes)
        assert not torch.allclose(one, other)


def test_styles_start_at_spread_one_and_mean_zero_and_are_equalised():
    torch.manual_seed(0)
    model = MODELS.build({"name": "stylegan", "latent_dim": 5, "channels": [6, 6, 4]}, (3, 16, 16))
    assert torch.equal(model.decoder.synthesis.constant, torch.ones(1, 6, 4, 4))
    nn.init.normal_(model.decoder.synthesis.constant)  # a map of ones has no spread to speak of
    canvas = model.decoder.synthesis.canvas(torch.zeros(2, 5), 3)  # w = 0 leaves the biases
    torch.testing.assert_close(canvas.std((2, 3)), torch.ones(2, 4), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(canvas.mean((2, 3)), torch.zeros(2, 4), atol=1e-5, rtol=0)


def test_every_weight_of_both_networks_is_equalised():
    model = small()
    parts = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert all(isinstance(part, EqualizedConv2d | EqualizedLinear) for part in parts)


def test_activations_are_filtered_after_upsampling_and_before_halving():
    model = small()
    assert sum(isinstance(part, Blur) for part in model.decoder.modules()) == 2
    assert sum(isinstance(part, Blur) for part in model.discriminator.modules()) == 2


# Mixing, growing, truncation.


def test_a_code_per_layer_is_mapped_layer_by_layer():
    model = small()
    a, b = torch.randn(2, 3, 5)
    layered = torch.stack([a, a, b], dim=1)  # [3, 3, 5]
    torch.testing.assert_close(model.canvas(layered, 2), model.canvas(a, 2))
    assert not torch.allclose(model.decode(layered), model.decode(a))
    w = model.decoder.styles(layered)
    torch.testing.assert_close(w[:, 2], model.decoder.styles(b))


def test_both_networks_fade_a_new_resolution_in():
    model = small()
    codes, images = torch.randn(3, 5), torch.randn(3, 3, 8, 8)
    expected = 0.7 * F.interpolate(model.decode(codes, Growth(4)), scale_factor=2) + 0.3 * model.decode(codes, Growth(8))
    torch.testing.assert_close(model.decode(codes, Growth(8, 0.3)), expected)
    halved = F.avg_pool2d(images, 2)
    torch.testing.assert_close(model.discriminate(images, Growth(8, 0.0)), model.discriminate(halved, Growth(4)))


def test_truncation_is_off_by_default_and_draws_styles_to_their_running_mean():
    whole = small().train()
    torch.manual_seed(1)
    for _ in range(2000):
        whole.decoder.styles(torch.randn(16, 5))
    whole.eval()
    mean = whole.decoder.mapping(torch.randn(20_000, 5)).mean(0)
    torch.testing.assert_close(whole.decoder.mean, mean, atol=0.05, rtol=0)

    codes = torch.randn(4, 5)
    torch.testing.assert_close(whole.decoder.styles(codes), whole.decoder.mapping(codes))  # psi = 1
    half, none = small(truncation=0.5), small(truncation=0.0)
    for model in (half, none):
        model.load_state_dict(whole.state_dict())
    expected = whole.decoder.mean + 0.5 * (whole.decoder.mapping(codes) - whole.decoder.mean)
    torch.testing.assert_close(half.decoder.styles(codes), expected)
    assert torch.allclose(none.decode(codes), none.decode(codes)[:1].expand(4, -1, -1, -1), atol=1e-5)
    half.train()  # training sees all of w
    torch.testing.assert_close(half.decoder.styles(codes), half.decoder.mapping(codes))


@pytest.mark.parametrize("train", [True, False])
def test_styles_and_their_running_mean_keep_all_digits_under_autocast(train):
    model = small(truncation=0.5).train(train)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.decoder.styles(torch.randn(4, 5)).dtype == torch.float32
        assert model.decode(torch.randn(4, 5)).isfinite().all()
    assert model.decoder.mean.dtype == torch.float32
    assert bool(model.decoder.mean.any()) == train


def test_the_running_mean_of_styles_is_part_of_the_state():
    model = small().train()
    before = model.decoder.mean.clone()
    model.decode(torch.randn(4, 5))
    assert not torch.equal(model.decoder.mean, before)
    assert torch.equal(model.state_dict()["decoder.mean"], model.decoder.mean)
