"""The networks against the papers' sizes and the mathematics of their parts."""

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.latent import Sphere
from genae.models.autoencoder import Autoencoder, mix
from genae.networks import classic
from genae.networks.adain import AdaInDecoder
from genae.networks.blocks import Blur, EqualizedConv2d, Noise, SpectralConv2d, StyleMap, adain, fixed_weights, upsample
from genae.networks.progressive import ProgressiveDecoder, ProgressiveEncoder, block_channels, block_resolutions
from genae.registry import MODELS
from genae.schedule import Growth


def in_use(network: nn.Module, *inputs: Tensor) -> int:
    """The number of parameters that a fully grown network depends on."""
    total = network(*inputs).sum()
    gradients = torch.autograd.grad(total, list(network.parameters()), allow_unused=True)
    return sum(p.numel() for p, gradient in zip(network.parameters(), gradients, strict=True) if gradient is not None)


# The papers' sizes.


@pytest.mark.parametrize(
    ("size", "decoder_millions", "encoder_millions"), [(32, 20.200, 20.716), (64, 22.495, 24.254), (256, 23.44, 25.36)]
)
def test_parameter_counts_are_those_of_the_released_networks(size, decoder_millions, encoder_millions):
    with torch.device("meta"):
        model = MODELS.build({"name": "automodulator"}, (3, size, size))
        decoder, encoder = in_use(model.decoder, torch.zeros(1, 512)), in_use(model.encoder, torch.zeros(1, 3, size, size))
    half_digit = 0.0006 if size < 256 else 0.006
    assert decoder / 1e6 == pytest.approx(decoder_millions, abs=half_digit)
    assert encoder / 1e6 == pytest.approx(encoder_millions, abs=half_digit)


def test_the_papers_network_has_seven_layers_at_256():
    with torch.device("meta"):
        model = MODELS.build({"name": "automodulator"}, (3, 256, 256))
        assert model.num_layers == 7
        assert model.decode(torch.zeros(2, 7, 512)).shape == (2, 3, 256, 256)
        assert model.canvas(torch.zeros(2, 512), 7).shape == (2, 64, 256, 256)
        assert model.encode(torch.zeros(2, 3, 64, 64), Growth(64, 0.5)).shape == (2, 512)


AT_PAPER_SCALE = """
import resource
import torch
from genae.registry import MODELS, OBJECTIVES
from genae.schedule import PhaseSettings, Schedule
from genae.spec import StageSpec
from genae.training import Training

torch.set_num_threads(2)
model = MODELS.build({"name": "automodulator"}, (3, 256, 256)).to(memory_format=torch.channels_last)
before = PhaseSettings(resolution=128, batch_size=4, learning_rate=0.001, kimg=1)
phase = PhaseSettings(resolution=256, batch_size=4, learning_rate=0.001, fade_kimg=1200, margin=0.4)
stage = StageSpec(
    name="autoencoder",
    objective={"name": "automodulator"},
    schedule=Schedule(total_kimg=2000, phases=(before, phase)),
    optimizer={"name": "adam", "betas": (0.0, 0.99), "eps": 1e-8},
    average={"parts": ("decoder",), "decay_per_step": 0.999},
    identity="",
)
training = Training(model, OBJECTIVES.build({"name": "automodulator"}), stage, seed=0)
images = torch.rand(4, 3, 256, 256).to(memory_format=torch.channels_last) * 2 - 1
training.step(images, stage.schedule.at(601_000))
assert all(value.isfinite() for value in training.sums.values()), training.sums
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)  # kilobytes on Linux
"""


@pytest.mark.slow
def test_a_whole_step_at_the_papers_size_takes_less_than_12_gb():
    """256x256, half faded in, 512 channels and latents, batch 4, with optimisers and averages: minutes on two cores."""
    done = subprocess.run([sys.executable, "-c", AT_PAPER_SCALE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 12


def test_the_last_number_of_channels_holds_for_all_further_blocks():
    assert block_channels([8], 3) == [8, 8, 8]
    assert block_channels([8, 4], 4) == [8, 4, 4, 4]
    assert block_channels([8, 4, 2, 1], 2) == [8, 4]
    for wrong in ([], [8, 0]):
        with pytest.raises(ValueError, match="channels"):
            block_channels(wrong, 2)


def test_images_that_do_not_halve_down_to_4_are_refused():
    assert block_resolutions((3, 32, 32)) == [4, 8, 16, 32]
    for shape in [(3, 28, 28), (3, 16, 32), (1, 2, 2)]:
        with pytest.raises(ValueError, match="power of two"):
            block_resolutions(shape)


# Normalised weights.


def test_a_spectrally_normalised_weight_has_largest_singular_value_one():
    torch.manual_seed(0)
    convolution = SpectralConv2d(5, 7, 3, padding=1)
    for _ in range(100):
        convolution.normalized_weight()
    singular = torch.linalg.svdvals(convolution.normalized_weight().flatten(1))
    assert singular[0].item() == pytest.approx(1, abs=1e-4)


def test_spectral_norm_does_not_depend_on_the_memory_format():
    torch.manual_seed(0)
    convolution = SpectralConv2d(5, 7, 3).eval()
    before = convolution.normalized_weight()
    torch.testing.assert_close(convolution.to(memory_format=torch.channels_last).normalized_weight(), before)


def test_the_gradient_of_spectral_norm_takes_the_singular_vectors_as_constants():
    # W / sigma with sigma = u^T W v: d/dW of <G, W / sigma> = (G - <G, W / sigma> u v^T) / sigma (Miyato et al., Eq. 12).
    torch.manual_seed(0)
    convolution = SpectralConv2d(4, 3, 1).double().eval()
    matrix, direction = convolution.weight.detach().flatten(1), torch.randn(3, 4, dtype=torch.float64)
    right = F.normalize(matrix.t() @ convolution.left, dim=0)
    left = F.normalize(matrix @ right, dim=0)
    sigma = left @ matrix @ right
    expected = (direction - (direction * matrix / sigma).sum() * torch.outer(left, right)) / sigma
    (convolution.normalized_weight().flatten(1) * direction).sum().backward()
    torch.testing.assert_close(convolution.weight.grad.flatten(1), expected)


def test_the_gradient_of_the_released_spectral_norm_flows_through_the_iteration():
    # W / (u^T W v) with v = W^T u_0 / |W^T u_0| and u = W v / |W v|, differentiated numerically.
    torch.manual_seed(0)
    convolution = SpectralConv2d(4, 3, 1, vectors="differentiated").double()
    start, direction = convolution.left.clone(), torch.randn(3, 4, dtype=torch.float64)

    def normalised(matrix: Tensor) -> Tensor:
        right = matrix.t() @ start
        left = matrix @ (right / right.norm())
        return (matrix / left.norm() * direction).sum()  # u^T W v = |W v|

    weight = convolution.weight.detach().flatten(1)
    expected, step = torch.zeros(3, 4, dtype=torch.float64), 1e-6
    for row in range(3):
        for column in range(4):
            moved = torch.zeros(3, 4, dtype=torch.float64)
            moved[row, column] = step
            expected[row, column] = (normalised(weight + moved) - normalised(weight - moved)) / (2 * step)
    found = convolution.normalized_weight()  # in train mode, which moves the running vector before the gradient is taken
    assert not torch.equal(convolution.left, start)
    (found.flatten(1) * direction).sum().backward()
    torch.testing.assert_close(convolution.weight.grad.flatten(1), expected, atol=1e-7, rtol=1e-6)


def test_only_train_mode_moves_the_singular_vector():
    torch.manual_seed(0)
    convolution, x = SpectralConv2d(4, 6, 3), torch.randn(2, 4, 5, 5)
    convolution.left.copy_(F.normalize(torch.ones(6), dim=0))
    before = convolution.left.clone()
    convolution.eval()(x)
    assert torch.equal(convolution.left, before)
    convolution.train()(x)
    assert not torch.equal(convolution.left, before)


def test_fixed_weights_takes_one_power_iteration_however_many_passes():
    torch.manual_seed(0)
    once, often, x = SpectralConv2d(4, 6, 3), SpectralConv2d(4, 6, 3), torch.randn(2, 4, 5, 5)
    once.left.copy_(F.normalize(torch.ones(6), dim=0))
    often.load_state_dict(once.state_dict())
    expected = once(x)
    with fixed_weights(often), fixed_weights(often):
        with torch.no_grad():
            often(x)
        passes = [often(x) for _ in range(3)]
    assert all(torch.equal(found, expected) for found in passes)
    assert torch.equal(often.left, once.left)
    assert often.fixed is None


def test_gradients_of_all_passes_meet_in_the_parameter_that_fixed_weights_used():
    torch.manual_seed(0)
    convolution, x, y = EqualizedConv2d(2, 3, 3), torch.randn(1, 2, 5, 5), torch.randn(1, 2, 5, 5)
    (convolution(x).square().sum() + convolution(y).sum()).backward()
    expected = convolution.weight.grad.clone()
    convolution.zero_grad()
    with fixed_weights(convolution):
        total = convolution(x).square().sum() + convolution(y).sum()
    total.backward()
    torch.testing.assert_close(convolution.weight.grad, expected)


def test_an_equalised_convolution_keeps_the_variance_of_a_rectified_input():
    torch.manual_seed(0)
    convolution = EqualizedConv2d(64, 512, 3)
    y = convolution(F.relu(torch.randn(64, 64, 3, 3)))
    # E[relu(x)^2] = 1/2 and Var(w) = 2 / fan_in: the output's second moment is 1.
    assert y.square().mean().item() == pytest.approx(1, rel=0.1)
    assert convolution.weight.std().item() == pytest.approx(1, rel=0.01)


# Blur, resampling, noise.


def test_blur_spreads_a_point_binomially_and_loses_what_leaves_the_picture():
    point = torch.zeros(1, 2, 4, 4)
    point[0, 0, 1, 1], point[0, 1, 0, 0] = 16, 16
    found = Blur(2)(point)[0]
    assert torch.equal(found[0, :3, :3], torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]))
    assert torch.equal(found[1, :2, :2], torch.tensor([[4.0, 2], [2, 1]]))
    assert found.sum() == 16 + 9


def test_upsampling_repeats_pixels():
    assert torch.equal(upsample(torch.tensor([[[[1.0, 2]]]])), torch.tensor([[[[1.0, 1, 2, 2], [1, 1, 2, 2]]]]))


def test_noise_starts_off_and_is_fresh_in_training_only():
    noise, x = Noise(3, "8/0"), torch.zeros(2, 3, 8, 8)
    assert torch.equal(noise(x), x)
    nn.init.constant_(noise.scale, 2.0)
    first, second = noise(x), noise(x)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert first.std().item() == pytest.approx(2, rel=0.15)
    noise.eval()
    fixed = noise(x)
    assert torch.equal(fixed, noise(x))
    assert torch.equal(fixed[0], fixed[1])
    assert fixed.std().item() == pytest.approx(2, rel=0.15)


def test_each_layer_has_its_own_fixed_noise():
    x, found = torch.zeros(1, 3, 8, 8), []
    for layer in ("8/0", "8/1"):
        noise = Noise(3, layer).eval()
        nn.init.ones_(noise.scale)
        found.append(noise(x))
    assert not torch.allclose(*found)


def test_fixed_noise_first_drawn_in_inference_mode_serves_gradients_later():
    noise, x = Noise(3, "a layer of its own").eval(), torch.zeros(1, 3, 8, 8)
    with torch.inference_mode():
        noise(x)
    noise(x).sum().backward()
    assert noise.scale.grad.any()


# AdaIN.


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_adain_gives_each_map_the_mean_and_unbiased_spread_of_the_style(memory_format):
    torch.manual_seed(0)
    x, style = torch.randn(3, 4, 8, 8).contiguous(memory_format=memory_format) * 5 + 2, torch.randn(3, 8)
    y = adain(x, style)
    torch.testing.assert_close(y.mean((2, 3)), style[:, 4:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(y.std((2, 3)), style[:, :4].abs(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_adain_is_that_of_its_formula(memory_format):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    style, weight = torch.randn(2, 6, dtype=torch.float64, requires_grad=True), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(adain, (x, style))
    std, mean = torch.std_mean(x, (2, 3), keepdim=True)
    formula = style[:, :3, None, None] * (x - mean) / std + style[:, 3:, None, None]
    expected = torch.autograd.grad((formula * weight).sum(), (x, style))
    torch.testing.assert_close(
        torch.autograd.grad((adain(x, style) * weight).sum(), (x, style)), expected, rtol=1e-6, atol=1e-6
    )


def test_adain_keeps_the_mean_and_spread_of_the_style_under_autocast():
    torch.manual_seed(0)
    convolution, style_map, codes = nn.Conv2d(3, 4, 1), StyleMap(5, 4, bias=1.0), torch.randn(2, 5)
    with torch.autocast("cpu", torch.bfloat16):
        x, style = convolution(torch.randn(2, 3, 8, 8)) + 20, style_map(codes)  # far from 0, where bfloat16 is coarse
        assert x.dtype == style.dtype == torch.bfloat16
        y = adain(x, style)
    torch.testing.assert_close(y.mean((2, 3)), style[:, 4:].float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(y.std((2, 3)), style[:, :4].float().abs(), atol=1e-5, rtol=1e-5)
    (y * torch.randn(2, 4, 8, 8)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in [*convolution.parameters(), *style_map.parameters()])


def test_adain_of_a_constant_map_is_the_styles_mean():
    x, style = torch.full((1, 2, 4, 4), 3.7), torch.tensor([[5.0, 6, 0.5, -1]])
    x.requires_grad_()
    y = adain(x, style)
    # What rounding leaves of 3.7 - mean, some 1e-7, is magnified by at most 1 / sqrt(EPS) = 1e4 and the spread.
    torch.testing.assert_close(y.mean((2, 3)), torch.tensor([[0.5, -1]]), atol=0.05, rtol=0)
    torch.testing.assert_close(y, y.mean((2, 3), keepdim=True).expand_as(y))
    y.sum().backward()
    assert x.grad.isfinite().all()


# The decoder of the automodulator.


def small_decoder(**settings) -> AdaInDecoder:
    torch.manual_seed(0)
    return AdaInDecoder(5, (3, 16, 16), channels=[6, 6, 4], **settings).eval()


def test_styles_start_around_one_for_spreads_and_means_alike():
    for block in small_decoder().blocks[1:]:
        for part in (block.first, block.second):
            assert torch.equal(part.style.bias, torch.ones_like(part.style.bias))
    zero = torch.zeros(2, 5)  # a code of no direction leaves the biases
    canvas = small_decoder().canvas(zero, 3)
    torch.testing.assert_close(canvas.mean((2, 3)), torch.ones(2, 4))
    torch.testing.assert_close(canvas.std((2, 3)), torch.ones(2, 4), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("blur", [True, False])
def test_the_decoder_is_the_released_order_of_operations_or_as_its_settings_say(blur, residual):
    """The whole forward pass once more, from the parameters, in plain operations."""
    decoder = small_decoder(blur=blur, residual=residual)
    nn.init.normal_(decoder.blocks[1].first.noise.scale)
    codes = F.normalize(torch.randn(2, 5), dim=1)

    def equalised(x: Tensor, part: nn.Module) -> Tensor:
        conv = part.convolution
        return F.conv2d(x, conv.weight * math.sqrt(2 / (conv.in_channels * 9)), conv.bias, padding=1)

    def modulated(x: Tensor, part: nn.Module) -> Tensor:
        spread, mean = (codes @ part.style.weight.t() + part.style.bias).chunk(2, dim=1)
        x = F.leaky_relu(x, 0.2)
        std, centre = torch.std_mean(x, (2, 3), keepdim=True)
        return spread[..., None, None] * (x - centre) / std + mean[..., None, None]

    x = modulated(equalised(torch.ones(2, 6, 4, 4), decoder.blocks[0]), decoder.blocks[0])
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    for block in decoder.blocks[1:]:
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        y = equalised(x, block.first)
        if blur:
            y = F.conv2d(y, kernel.expand(y.shape[1], 1, 3, 3), padding=1, groups=y.shape[1])
        y = modulated(block.first.noise(y), block.first)
        if residual:  # h = x + f(x), x through a 1x1 convolution where the channels change (6 to 4 in the last block)
            if x.shape[1] != y.shape[1]:
                x = F.conv2d(x, block.skip.weight * math.sqrt(2 / 6), block.skip.bias)
            y = x + y
        x = modulated(equalised(y, block.second), block.second) + (y if residual else 0)
    last = decoder.to_images.convolutions[2]
    torch.testing.assert_close(decoder(codes), F.conv2d(x, last.weight, last.bias), atol=1e-5, rtol=1e-5)


def test_codes_mixed_at_j_share_the_canvas_of_the_first_up_to_j():
    decoder = small_decoder()
    model = Autoencoder(Sphere(5), ProgressiveEncoder((3, 16, 16), 5, channels=[4]), decoder)
    a, b = model.prior(2, torch.Generator().manual_seed(0)).split(1)
    mixed = mix(a, b, 2, model.num_layers)
    torch.testing.assert_close(model.canvas(mixed, 2), model.canvas(a, 2))
    assert not torch.allclose(model.canvas(mixed, 3), model.canvas(a, 3))


@pytest.mark.parametrize("trained", [False, True])
def test_the_colours_that_fade_out_learn_only_if_told(trained):
    decoder = small_decoder(train_previous=trained)
    decoder(torch.randn(2, 5), Growth(8, 0.5)).sum().backward()
    old, new = decoder.to_images.convolutions[:2]
    assert (old.weight.grad is not None) == trained
    assert new.weight.grad is not None


def test_a_learned_input_is_a_parameter_that_starts_as_the_released_ones():
    fixed, learned = small_decoder(), small_decoder(learned_input=True)
    assert set(dict(learned.named_parameters())) - set(dict(fixed.named_parameters())) == {"constant"}
    assert torch.equal(learned(torch.ones(1, 5)), fixed(torch.ones(1, 5)))


def test_styles_start_where_style_bias_says():
    half, one = small_decoder(style_bias=0.5), small_decoder()
    canvas = half.canvas(torch.zeros(2, 5), 3)  # a code of no direction leaves the biases
    torch.testing.assert_close(canvas.mean((2, 3)), torch.full((2, 4), 0.5))
    torch.testing.assert_close(canvas.std((2, 3)), torch.full((2, 4), 0.5), atol=1e-4, rtol=1e-4)
    codes = torch.randn(2, 5)
    assert not torch.allclose(half(codes), one(codes))
    half.load_state_dict(one.state_dict())  # it is a start, not a part of the function
    assert torch.equal(half(codes), one(codes))


def small_automodulator(**settings) -> Autoencoder:
    torch.manual_seed(0)
    return MODELS.build({"name": "automodulator", "latent_dim": 4, "channels": [6, 4], **settings}, (1, 16, 16)).eval()


@pytest.mark.parametrize(
    ("setting", "encodes_alike", "decodes_alike"),
    [
        ({"residual": True}, False, False),
        ({"encoder_blur": True}, False, True),
        ({"decoder_blur": False}, True, False),
        ({"style_bias": 0.5}, True, False),
        ({"learned_input": True}, True, True),
        ({"train_previous": True}, True, True),
        ({"spectral_vectors": "differentiated"}, True, True),
    ],
    ids=str,
)
def test_what_paper_and_code_disagree_about_changes_what_it_names_and_nothing_else(setting, encodes_alike, decodes_alike):
    default, switched = small_automodulator(), small_automodulator(**setting)
    start = {key: value for key, value in default.state_dict().items() if not ("style_bias" in setting and "style.bias" in key)}
    switched.load_state_dict(start, strict=False)  # the same weights where names agree
    codes = default.prior(3, torch.Generator().manual_seed(0))
    images = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    growth = Growth(16, 0.5)
    assert torch.allclose(switched.encode(images, growth), default.encode(images, growth), atol=1e-4) == encodes_alike
    assert torch.allclose(switched.decode(codes, growth), default.decode(codes, growth), atol=1e-4) == decodes_alike

    switched.decode(codes, growth).square().sum().backward()
    colours = switched.decoder.to_images.convolutions[1].weight  # of 8x8, fading out
    assert (colours.grad is not None) == ("train_previous" in setting)
    assert ("decoder.constant" in dict(switched.named_parameters())) == ("learned_input" in setting)


def test_the_wider_decoder_released_later_doubles_channels_from_64():
    wide = [512, 512, 512, 512, 512, 256, 128, 64, 32]
    with torch.device("meta"):
        model = MODELS.build({"name": "automodulator", "decoder_channels": wide}, (3, 128, 128))
        assert model.canvas(torch.zeros(1, 512), 5).shape[1] == 512
        assert model.canvas(torch.zeros(1, 512), 6).shape[1] == 256


# The extra layer of Sec. 4.3.


def test_an_extra_layer_stands_after_the_regular_one_of_its_resolution_and_does_not_upsample():
    decoder = AdaInDecoder(5, (3, 32, 32), channels=[6, 6, 4], extra_layer=8).eval()
    assert decoder.layer_resolutions == (4, 8, 8, 16, 32)
    assert decoder.num_layers == 5
    codes = torch.randn(2, 5)
    canvases = [decoder.canvas(codes, upto) for upto in range(1, 6)]
    assert [tuple(canvas.shape[1:]) for canvas in canvases] == [(6, 4, 4), (6, 8, 8), (6, 8, 8), (4, 16, 16), (4, 32, 32)]
    assert not torch.allclose(canvases[1], canvases[2])
    draws = []
    for block in decoder.blocks[1:3]:
        nn.init.ones_(block.first.noise.scale)
        draws.append(block.first.noise(torch.zeros(1, 6, 8, 8)))
    assert not torch.allclose(*draws), "two layers of one resolution have noise inputs of their own"


@pytest.mark.parametrize(("extra", "layers"), [(None, (1, 2, 3)), (4, (2, 3, 4)), (8, (1, 3, 4)), (16, (1, 2, 4))])
def test_an_extra_layer_has_grown_when_its_resolution_has(extra, layers):
    model = small_automodulator(extra_layer=extra)
    assert tuple(model.layers_at(Growth(resolution, 0.5)) for resolution in (4, 8, 16)) == layers
    assert model.layers_at() == model.num_layers == layers[-1]
    assert model.layer_resolutions == tuple(sorted([4, 8, 16, *([extra] if extra else [])]))


@pytest.mark.parametrize("extra", [4, 8, 16])
@pytest.mark.parametrize("resolution", [8, 16])
def test_around_an_extra_layer_blocks_fade_in_from_the_previous_resolution(extra, resolution):
    model = small_automodulator(extra_layer=extra)
    codes = model.prior(3, torch.Generator().manual_seed(0))
    coarse = model.decode(codes, Growth(resolution // 2)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    full = model.decode(codes, Growth(resolution))
    torch.testing.assert_close(model.decode(codes, Growth(resolution, 0.25)), 0.75 * coarse + 0.25 * full)
    last = model.layers_at(Growth(resolution))
    colours = model.decoder.to_images.convolutions[resolution // 8]
    canvas = model.canvas(codes, last, Growth(resolution))
    torch.testing.assert_close(full, F.conv2d(canvas, colours.weight, colours.bias))
    images, found = model.decode_with_canvas(codes, last, Growth(resolution))
    assert torch.equal(images, full)
    assert torch.equal(found, canvas)


def test_an_extra_layer_listens_to_its_own_code_and_no_earlier_canvas_does():
    model = small_automodulator(extra_layer=8)
    codes = model.prior(2, torch.Generator().manual_seed(0))
    layered = codes[:, None].repeat(1, 4, 1)
    other = layered.clone()
    other[:, 2] = model.prior(2, torch.Generator().manual_seed(1))
    assert torch.equal(model.canvas(other, 2), model.canvas(layered, 2))
    assert not torch.allclose(model.canvas(other, 3), model.canvas(layered, 3))
    assert not torch.allclose(model.decode(other), model.decode(layered))
    assert torch.equal(model.decode(other, Growth(4)), model.decode(layered, Growth(4)))


def test_an_extra_layer_at_a_resolution_without_a_block_is_refused():
    with pytest.raises(ValueError, match=r"extra_layer must be .* one of \[4, 8, 16\]; not 32"):
        small_automodulator(extra_layer=32)


# The encoder, and the decoder without modulation.


@pytest.mark.parametrize("channels", [[6, 4], [6, 6]])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("blur", [False, True])
def test_the_encoder_is_the_released_order_of_operations_or_as_its_settings_say(blur, residual, channels):
    torch.manual_seed(0)
    encoder = ProgressiveEncoder((3, 8, 8), 5, channels=channels, blur=blur, residual=residual).eval()
    block, x = encoder.blocks[0], torch.randn(2, 3, 8, 8)
    y = F.conv2d(x, encoder.from_images[1].weight, encoder.from_images[1].bias)
    for part in (block.first, block.second):
        before, y = y, F.leaky_relu(F.conv2d(y, part.normalized_weight(), part.bias, padding=1), 0.2)
        if residual:  # h = x + f(x), x through a 1x1 convolution where the channels change
            if before.shape[1] != 6:
                before = F.conv2d(before, block.skip.normalized_weight(), block.skip.bias)
            y = before + y
    if blur:
        kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
        y = F.conv2d(y, kernel.expand(6, 1, 3, 3), padding=1, groups=6)
    y = y.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
    y = F.leaky_relu(F.conv2d(y, encoder.last[0].normalized_weight(), encoder.last[0].bias, padding=1), 0.2)
    y = F.conv2d(y, encoder.last[2].normalized_weight(), encoder.last[2].bias)
    torch.testing.assert_close(encoder(x), y.flatten(1))


def test_images_of_another_resolution_than_the_growth_are_refused():
    encoder = ProgressiveEncoder((3, 16, 16), 5, channels=[4])
    with pytest.raises(ValueError, match="16 pixels; the images have 8"):
        encoder(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="8 pixels; the images have 16"):
        encoder(torch.zeros(1, 3, 16, 16), Growth(8))


def test_the_classic_decoder_spreads_its_code_over_4x4_and_has_no_style():
    torch.manual_seed(0)
    decoder = ProgressiveDecoder(5, (1, 16, 16), channels=[6, 4]).eval()
    assert decoder.blocks[0][0](torch.randn(2, 5, 1, 1)).shape == (2, 6, 4, 4)
    assert decoder(torch.randn(2, 5)).shape == (2, 1, 16, 16)
    assert not hasattr(decoder, "num_layers")


@pytest.mark.parametrize("size", [4, 8, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_fixed_size_networks_fit_every_power_of_two(size, channels):
    shape = (channels, size, size)
    codes = classic.encoder(shape, 7, width=8)(torch.zeros(2, *shape))
    assert codes.shape == (2, 7)
    assert classic.decoder(7, shape, width=8)(codes).shape == (2, *shape)
