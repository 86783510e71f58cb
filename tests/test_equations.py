"""Equations 1 to 11 of Heljakka et al. (2020), "Deep Automodulators", one after the other, each against an independent form.

The expected side is a closed form, a loop over single numbers, or the decoder's blocks applied one by one. Nothing here is
imported from genae.losses or genae.objectives; the objective under test comes out of the registry.
"""

import ast
import itertools
import math
import statistics
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scipy import special
from torch import Tensor, nn

from genae.latent import Gaussian
from genae.models.autoencoder import Autoencoder, mix
from genae.networks.blocks import adain
from genae.registry import MODELS, OBJECTIVES
from genae.schedule import Growth, Phase, PhaseSettings, Schedule
from genae.spec import StageSpec
from genae.training import Training

DIM, SIZE, BATCH = 6, 16, 8
LOG_Z_1 = math.log(2 * math.e * special.k1(1))  # the partition function of Barron's density at alpha = 1


def build(**settings) -> Autoencoder:
    """A small automodulator in eval mode, where weights and noise stand still."""
    torch.manual_seed(0)
    settings = {"name": "automodulator", "latent_dim": DIM, "channels": [6, 6, 4], "noise": False, **settings}
    return MODELS.build(settings, (3, SIZE, SIZE)).eval()


def phase(resolution: int = SIZE, *, index: int = 0, margin: float = 0.0, fade: float = 1.0) -> Phase:
    return Phase(
        index=index,
        resolution=resolution,
        fade=fade,
        settled=False,
        batch_size=BATCH,
        learning_rate=1e-3,
        margin=margin,
        images_seen=0,
        epoch=0.0,
    )


def pictures(resolution: int = SIZE, seed: int = 1) -> Tensor:
    return torch.rand(BATCH, 3, resolution, resolution, generator=generator(seed)) * 2 - 1


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def terms(model: Autoencoder, images: Tensor, at: Phase, seed: int = 0, **settings) -> list[dict[str, float]]:
    """What the encoder's and the decoder's update lower, each with a fresh generator."""
    objective = OBJECTIVES.build({"name": "automodulator", **settings})
    objective.updates(model)
    objective.enter(at)
    found = [update.terms(model, images, at, generator(seed)) for update in objective.updates(model)]
    return [{name: value.item() for name, value in part.items()} for part in found]


def drawn(model: Autoencoder, num_mixed: int, num_splits: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, int]:
    """What an update draws from a fresh generator: plain codes, z_A, z_B, j."""
    draws = generator(seed)
    split = int(torch.randint(1, num_splits + 1, (), generator=draws)) if num_mixed else 1
    plain, a, b = model.prior(BATCH + num_mixed, draws).split([BATCH - num_mixed, num_mixed, num_mixed])
    return plain, a, b, split


# The papers' pieces, slowly.


def canvases(model: Autoencoder, codes: list[Tensor]) -> list[Tensor]:
    """xi^(1), ..., xi^(N): the decoder's blocks one by one, from the constant, each with a code of its own."""
    found, x = [], model.decoder.constant
    for block, code in zip(model.decoder.blocks, codes, strict=False):
        x = block(x, code)
        found.append(x)
    return found


def image_of(model: Autoencoder, codes: list[Tensor]) -> Tensor:
    """theta_N(... theta_1(xi^(0), z_1) ..., z_N): the last canvas in colours."""
    canvas = canvases(model, codes)[-1]
    colours = model.decoder.to_images.convolutions[int(math.log2(canvas.shape[-1] / 4))]
    return F.conv2d(canvas, colours.weight, colours.bias)


def split_codes(model: Autoencoder, a: Tensor, b: Tensor, split: int) -> list[Tensor]:
    return [a if layer <= split else b for layer in range(1, model.num_layers + 1)]


def kl_to_unit(codes: Tensor) -> float:
    """KL of N(m, v) to N(0, 1), with m and v of each dimension over the batch: the mean over dimensions."""
    total = 0.0
    for values in codes.double().t().tolist():
        mean, variance = statistics.fmean(values), statistics.pvariance(values)
        total += (variance + mean**2 - 1 - math.log(variance)) / 2
    return total / codes.shape[1]


def cosine_distance(a: Tensor, b: Tensor) -> float:
    """1 - cos of the angle between each pair, averaged."""
    angles = []
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        product = math.fsum(p * q for p, q in zip(x, y, strict=True))
        angles.append(product / math.hypot(*x) / math.hypot(*y))
    return 1 - statistics.fmean(angles)


def layer_distance(a: Tensor, b: Tensor) -> float:
    """L2 norm of each pair's difference over the root of the number of features, averaged."""
    norms = [math.hypot(*(x - y).flatten().tolist()) / math.sqrt(x.numel()) for x, y in zip(a, b, strict=True)]
    return statistics.fmean(norms)


def pixel_distance(name: str, a: Tensor, b: Tensor) -> float:
    """d_X, a mean over all pixels and channels: L1, L2, or d_rho where its alphas and scales start, at 1."""
    residuals = (a - b).flatten().tolist()
    if name == "l1":
        return statistics.fmean(map(abs, residuals))
    if name == "l2":
        return statistics.fmean(r**2 for r in residuals)
    return statistics.fmean(math.sqrt(r**2 + 1) - 1 for r in residuals) + LOG_Z_1


def close(value: float) -> object:
    return pytest.approx(value, rel=2e-4, abs=2e-5)


def test_nothing_here_is_imported_from_what_is_tested():
    tree = ast.parse(Path(__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in modules if name.startswith(("genae.losses", "genae.objectives"))}


# A perfect pair: row i of a picture is what layer i was told, and the encoder reads every row.

LAYERS, COLUMNS = 4, 2


class PictureOfCodes(nn.Module):
    """Codes [N, 8] or [N, 4, 8] -> pictures [N, 1, 4, 2]; canvas j is what the first j layers have written."""

    num_layers = LAYERS

    def __init__(self) -> None:
        super().__init__()
        self.brightness = nn.Parameter(torch.ones(()))

    def layers_at(self, growth: Growth | None) -> int:
        return LAYERS

    def with_canvas(self, codes: Tensor, upto: int, growth: Growth | None) -> tuple[Tensor, Tensor]:
        if codes.ndim == 2:
            codes = codes[:, None].expand(-1, LAYERS, -1)
        rows = [codes[:, layer].unflatten(1, (LAYERS, COLUMNS))[:, layer] for layer in range(LAYERS)]
        picture = self.brightness * torch.stack(rows, dim=1)[:, None]
        return picture, picture[:, :, :upto]

    def canvas(self, codes: Tensor, upto: int, growth: Growth | None) -> Tensor:
        return self.with_canvas(codes, upto, growth)[1]

    def forward(self, codes: Tensor, growth: Growth | None) -> Tensor:
        return self.with_canvas(codes, 1, growth)[0]


class ReaderOfPictures(nn.Module):
    """Reads all rows. One that leaks takes `leak` of the last row for the first: what z_B said of it changes layer 1."""

    def __init__(self, leak: float) -> None:
        super().__init__()
        self.leak = leak

    def forward(self, pictures: Tensor, growth: Growth | None) -> Tensor:
        rows = pictures[:, 0]
        first = (1 - self.leak) * rows[:, :1] + self.leak * rows[:, -1:]
        return torch.cat([first, rows[:, 1:]], dim=1).flatten(1)


def pair(leak: float = 0.0) -> Autoencoder:
    return Autoencoder(Gaussian(LAYERS * COLUMNS), ReaderOfPictures(leak), PictureOfCodes())


# Sec. 3.1.


def test_equation_1_gives_every_map_the_spread_and_mean_that_the_code_says():
    x, style = torch.randn(2, 3, 4, 4, generator=generator()), torch.randn(2, 6, generator=generator(1))
    found = adain(x, style)
    for image, channel in itertools.product(range(2), range(3)):
        values = x[image, channel].flatten().tolist()
        mean, spread = statistics.fmean(values), statistics.stdev(values)
        sigma, mu = style[image, channel].item(), style[image, 3 + channel].item()
        expected = [sigma * (value - mean) / spread + mu for value in values]
        assert found[image, channel].flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_equation_1_holds_after_every_layer_with_an_affine_map_of_the_code_for_each():
    model = build()
    codes = model.prior(3, generator())
    for layer, block in enumerate(model.decoder.blocks, start=1):
        last = block if layer == 1 else block.second
        style = codes @ last.style.weight.t() + last.style.bias  # g_i
        sigma, mu = style.chunk(2, dim=1)
        canvas = model.canvas(codes, layer)
        assert sigma.shape == (3, canvas.shape[1])
        torch.testing.assert_close(canvas.mean((2, 3)), mu, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(canvas.std((2, 3)), sigma.abs(), atol=1e-4, rtol=1e-4)


# Sec. 3.2.


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_equation_2_is_what_both_lower_where_nothing_is_mixed(distance):
    model, images = build(), pictures()
    weights = {"reconstruction_weight": 3.0, "latent_weight": 2.0, "layer_weight": 0.0, "kl_weight": 0.5}
    unmixed = {"mixed_share_encoder": 0.0, "mixed_share_decoder": 0.0, "reconstruction": distance}
    encoder, decoder = terms(model, images, phase(), **weights, **unmixed)
    plain = drawn(model, 0, 3)[0]
    fakes = image_of(model, [plain] * 3)
    again = model.encode(fakes)
    kl_real, kl_fake = kl_to_unit(model.encode(images)), kl_to_unit(again)
    reconstruction = image_of(model, [model.encode(images)] * 3)
    expected = 0.5 * (kl_real - kl_fake) + 3 * pixel_distance(distance, images, reconstruction)
    assert sum(encoder.values()) == close(expected)
    assert sum(decoder.values()) == close(0.5 * kl_fake + 2 * cosine_distance(plain, again))


@pytest.mark.parametrize("extra_layer", [None, 8])
def test_equation_3_mixes_at_every_j_and_changes_no_canvas_up_to_it(extra_layer):
    model = build(extra_layer=extra_layer)
    a, b = model.prior(4, generator()).chunk(2)
    all_a = mix(a, a, 1, model.num_layers)
    for split in range(1, model.num_layers + 1):
        codes = split_codes(model, a, b, split)
        expected = model.encode(image_of(model, codes))  # z^_AB
        mixed = mix(a, b, split, model.num_layers)
        torch.testing.assert_close(model.encode(model.decode(mixed)), expected)
        for upto in range(1, model.num_layers + 1):
            canvas = model.canvas(mixed, upto)
            torch.testing.assert_close(canvas, canvases(model, codes)[upto - 1])
            assert torch.equal(canvas, model.canvas(all_a, upto)) == (upto <= split), "to the last bit"


def information(model: Autoencoder, split: int) -> float:
    """I[xi^(j) of the second pass; xi^(j) of the first] in nats, by counting, over all codes of -1 and 1 (one for each row)."""
    rows = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=LAYERS)))
    codes = rows.repeat_interleave(COLUMNS, dim=1)
    a, b = codes.repeat_interleave(len(codes), 0), codes.repeat(len(codes), 1)  # all pairs
    again = model.encode(model.decode(mix(a, b, split, LAYERS)))
    seen = [tuple(canvas) for canvas in model.canvas(a, split).flatten(1).tolist()]
    seen_again = [tuple(canvas) for canvas in model.canvas(again, split).flatten(1).tolist()]
    both, first, second = Counter(zip(seen, seen_again, strict=True)), Counter(seen), Counter(seen_again)
    n = len(seen)
    return sum(count / n * math.log(count * n / (first[x] * second[y])) for (x, y), count in both.items())


def test_equation_4_is_greatest_where_layers_are_not_entangled():
    for split in range(1, LAYERS):
        assert information(pair(), split) == pytest.approx(split * math.log(2))  # all that the first canvas has
    # With all of row 1 read off row N, which is z_B's, the second pass knows nothing of the first in layer 1.
    for split in range(1, LAYERS):
        assert information(pair(leak=1.0), split) == pytest.approx((split - 1) * math.log(2))


@pytest.mark.parametrize("mixed_fakes", ["re-encoded", "direct"])
@pytest.mark.parametrize("distance", ["norm", "mean-square"])
def test_equation_5_is_zero_for_a_perfect_pair_at_every_j(distance, mixed_fakes):
    settings = {"reconstruction": "l1", "layer_distance": distance, "mixed_fakes": mixed_fakes}
    seen = set()
    for seed in range(12):
        model = pair()
        seen.add(drawn(model, 2, LAYERS, seed)[3])
        _, decoder = terms(model, torch.zeros(BATCH, 1, LAYERS, COLUMNS), phase(), seed, **settings)
        assert decoder["layer"] == pytest.approx(0, abs=2e-6)  # the norm is rounded up at 0, for its gradient
        assert decoder["cosine"] == pytest.approx(0, abs=1e-6)
    assert seen == {1, 2, 3, 4}


@pytest.mark.parametrize("seed", range(4))
def test_equation_5_of_a_pair_that_leaks_is_what_it_lets_in(seed):
    # Row 1 comes back as (1 - leak) z_A + leak z_B: off by leak (z_B - z_A), among 2 j features. At j = N, row N is z_A's too.
    model, leak = pair(leak=0.3), 0.3
    _, a, b, split = drawn(model, 2, LAYERS, seed)
    of_a, of_last = a[:, :COLUMNS], (a if split == LAYERS else b)[:, -COLUMNS:]
    off = (leak * (of_last - of_a)).tolist()
    expected = statistics.fmean(math.hypot(*row) / math.sqrt(COLUMNS * split) for row in off)
    _, decoder = terms(model, torch.zeros(BATCH, 1, LAYERS, COLUMNS), phase(), seed, reconstruction="l1", layer_weight=7.0)
    assert decoder["layer"] == close(7 * expected)


@pytest.mark.parametrize("seed", range(3))
def test_equation_5_is_the_norm_of_what_the_second_pass_changed(seed):
    model = build()
    _, decoder = terms(model, pictures(), phase(), seed, reconstruction="l1")
    _, a, b, split = drawn(model, 2, 3, seed)
    again = model.encode(image_of(model, split_codes(model, a, b, split)))
    first, second = canvases(model, [a] * 3)[split - 1], canvases(model, [again] * 3)[split - 1]
    assert decoder["layer"] == close(layer_distance(first, second))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reconstruction", ["robust", "l1"])
def test_equation_6_is_the_whole_of_what_both_lower(reconstruction, seed):
    model, images = build(), pictures()
    plain, a, b, split = drawn(model, 2, 3, seed)  # 3 : 1 of a batch of 8
    again = model.encode(image_of(model, split_codes(model, a, b, split)))  # z^_AB
    fakes = torch.cat([image_of(model, [plain] * 3), image_of(model, [again] * 3)])
    codes = model.encode(fakes)
    gap = kl_to_unit(model.encode(images)) - kl_to_unit(codes)
    factor = 2 if reconstruction == "robust" else 10  # lambda_X = 10, a fifth of it for d_rho
    error = factor * pixel_distance(reconstruction, images, image_of(model, [model.encode(images)] * 3))
    for margin in (abs(gap) / 2, 2 * abs(gap)):
        encoder, decoder = terms(model, images, phase(margin=margin), seed, reconstruction=reconstruction)
        assert sum(encoder.values()) == close(max(-margin, gap) + error)
        conserved = layer_distance(*(canvases(model, [code] * 3)[split - 1] for code in (again, a)))
        latent = 1.95 * cosine_distance(plain, codes[: len(plain)])
        assert sum(decoder.values()) == close(kl_to_unit(codes) + latent + conserved)


@pytest.mark.parametrize("maps", ["pixel", "pixel-and-channel"])
def test_below_equation_6_alphas_grow_to_the_four_pixels_of_each_pixel(maps):
    before, after = grown("blocks", maps)
    for channel, y, x in itertools.product(range(len(before)), range(4), range(4)):
        for pixel in [(2 * y, 2 * x), (2 * y, 2 * x + 1), (2 * y + 1, 2 * x), (2 * y + 1, 2 * x + 1)]:
            assert after[channel][pixel] == before[channel][y, x]


def test_below_equation_6_the_released_code_scatters_alphas_along_rows():
    before, after = grown("released", "pixel-and-channel")
    flat, flat_after = before.flatten().tolist(), after.flatten().tolist()
    for index, value in enumerate(flat):  # new[offset::4] = old
        for offset in range(4):
            assert flat_after[4 * index + offset] == value
    right = [after[c, y, x] == before[c, y // 2, x // 2] for c, y, x in itertools.product(range(3), range(8), range(8))]
    assert sum(right) / len(right) == 1 / 4, "one in the old width is where the paper says"


def grown(how: str, maps: str) -> tuple[Tensor, Tensor]:
    """Alphas at 4x4, all different, and what the next phase begins with at 8x8."""
    model = build()
    objective = OBJECTIVES.build({"name": "automodulator", "alpha_growth": how, "robust_maps": maps})
    objective.updates(model)
    objective.enter(phase(4))
    alpha = objective.updates(model)[0].parameters["robust"][0]
    with torch.no_grad():
        alpha.copy_(torch.arange(alpha.numel()).reshape(alpha.shape))
    objective.enter(phase(8, index=1))
    return alpha.detach(), objective.updates(model)[0].parameters["robust"][0].detach()


# Sec. 3.3 and 4.3. A mirrored picture of the perfect pair differs in the rows that are not palindromes.


def rows_of_pictures(*rows: tuple[float, float]) -> Tensor:
    """A batch whose first half is this picture, at different strengths, and whose other half is never looked at."""
    picture = torch.tensor(rows)[None, None]
    strengths = torch.arange(1, BATCH // 2 + 1, dtype=torch.float32)[:, None, None, None]
    return torch.cat([strengths * picture, torch.full((BATCH // 2, 1, LAYERS, COLUMNS), 9.0)])


def halves(images: Tensor) -> tuple[Tensor, Tensor]:
    first = images[: BATCH // 2]
    return first, torch.stack([torch.stack([row.flip(-1) for row in image]) for image in first])


INVARIANT = rows_of_pictures((1.0, -1.0), (0.5, 2.0), (3.0, 3.0), (-1.0, -1.0))
NOT_INVARIANT = rows_of_pictures((1.0, -1.0), (0.5, 2.0), (3.0, 2.0), (-1.0, -1.0))  # row 3 knows left from right


def test_equation_7_holds_where_the_layers_j_to_k_say_the_same_of_both():
    model = pair()
    for images, holds in [(INVARIANT, True), (NOT_INVARIANT, False)]:
        code_1, code_2 = (model.encode(half) for half in halves(images))
        for j, k in [(3, 3), (3, 4)]:
            codes = [code_1 if j <= layer <= k else code_2 for layer in range(1, LAYERS + 1)]
            exchanged = model.decode(torch.stack(codes, dim=1))
            assert torch.equal(exchanged, model.decode(code_2)) == holds
            assert torch.equal(model.decode(code_2), halves(images)[1])


def test_equation_8_is_zero_where_7_holds_and_else_what_the_layers_say_differently():
    settings = {"reconstruction": "l1", "reconstruction_weight": 1.0, "invariance": "added"}
    encoder, _ = terms(pair(), INVARIANT, phase(), **settings)
    assert encoder["invariance"] == 0
    encoder, _ = terms(pair(), NOT_INVARIANT, phase(), **settings)
    # Row 3 is (3, 2) s for its strength s in 1, 2, 3, 4: two of eight pixels are off by s, in L_inv and in L'_inv.
    assert encoder["invariance"] == pytest.approx(2 * statistics.fmean([1, 2, 3, 4]) * 2 / 8)


def test_equation_9_compares_with_the_image_what_8_compares_with_its_reconstruction():
    # The leaking pair does not reconstruct row 1, and so the two differ.
    model = pair(leak=0.5)
    first, second = halves(NOT_INVARIANT)
    code_1, code_2 = model.encode(first), model.encode(second)
    exchanged = model.decode(mix(code_2, code_1, 2, LAYERS))
    exchanged_back = model.decode(mix(code_1, code_2, 2, LAYERS))
    expected = pixel_distance("l2", second, exchanged) + pixel_distance("l2", first, exchanged_back)
    of_reconstructions = pixel_distance("l2", model.decode(code_2), exchanged) + pixel_distance(
        "l2", model.decode(code_1), exchanged_back
    )
    settings = {"reconstruction": "l2", "reconstruction_weight": 1.0}
    encoder, _ = terms(model, NOT_INVARIANT, phase(), invariance="added", **settings)
    assert encoder["invariance"] == close(expected)
    assert encoder["invariance"] != close(of_reconstructions)


def test_equation_9_is_the_reconstruction_where_both_codes_are_one():
    model = build(extra_layer=8)
    images = pictures()
    images = images + images.flip(3)  # its own mirror image, so z_1 = z_2
    first = images[: BATCH // 2]
    reconstruction = 10 * pixel_distance("l1", first, image_of(model, [model.encode(first)] * 4))
    encoder, _ = terms(model, images, phase(), reconstruction="l1", invariance="added")
    assert encoder["invariance"] == close(2 * reconstruction)
    assert encoder["reconstruction"] == close(reconstruction)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("distance", ["robust", "l1", "l2"])
def test_equations_10_and_11_are_added_to_the_encoders_loss(distance, layers):
    model, images = build(extra_layer=8), pictures()
    settings = {"reconstruction": distance, "invariance_layers": layers}
    encoder, decoder = terms(model, images, phase(), invariance="added", **settings)
    first, second = halves(images)
    code_1, code_2 = model.encode(first), model.encode(second)
    factor = 2 if distance == "robust" else 10
    equation_10 = pixel_distance(distance, second, image_of(model, split_codes(model, code_2, code_1, layers)))
    equation_11 = pixel_distance(distance, first, image_of(model, split_codes(model, code_1, code_2, layers)))
    assert encoder["invariance"] == close(factor * (equation_10 + equation_11))

    both = torch.cat([first, second])
    without, decoder_without = terms(model, both, phase(), reconstruction=distance)
    assert {name: encoder[name] for name in without} == pytest.approx(without), "the rest of Eq. 6 is as it was"
    assert decoder == decoder_without


def test_equations_10_and_11_take_the_place_of_the_reconstruction_as_released():
    model, images = build(extra_layer=8), pictures()
    added, decoder_added = terms(model, images, phase(), reconstruction="l1", invariance="added")
    found, decoder = terms(model, images, phase(), reconstruction="l1", invariance="replacing")
    assert found.keys() == {"kl_gap", "invariance"}
    assert found["invariance"] == pytest.approx(added["invariance"])
    assert decoder == decoder_added
    first, second = (model.encode(half) for half in halves(images))
    change = (kl_to_unit(first) + kl_to_unit(second)) / 2 - kl_to_unit(torch.cat([first, second]))
    assert found["kl_gap"] - added["kl_gap"] == close(change)


@pytest.mark.parametrize(("resolution", "layers"), [(4, 2), (8, 3)])
def test_before_there_is_a_layer_to_exchange_10_and_11_are_reconstructions_if_anything(resolution, layers):
    model, images, growth = build(extra_layer=8), pictures(resolution), Growth(resolution)
    grown_layers = {4: 1, 8: 3}[resolution]
    each = []
    for half in halves(images):
        each.append(10 * pixel_distance("l1", half, image_of(model, [model.encode(half, growth)] * grown_layers)))
    settings = {"reconstruction": "l1", "invariance_layers": layers}
    added, _ = terms(model, images, phase(resolution), invariance="added", **settings)
    assert added.keys() == {"kl_gap", "reconstruction"}
    assert added["reconstruction"] == close(sum(each) / 2)
    replacing, _ = terms(model, images, phase(resolution), invariance="replacing", **settings)
    assert replacing.keys() == {"kl_gap", "invariance"}
    assert replacing["invariance"] == close(sum(each))


# What each update moves.


@pytest.mark.parametrize("resolution", [4, 8, SIZE])
@pytest.mark.parametrize("invariance", ["none", "added", "replacing"])
def test_gradients_of_each_update_reach_exactly_what_it_claims(invariance, resolution):
    model = build(extra_layer=8, noise=True)
    settled = PhaseSettings(resolution=resolution, batch_size=BATCH, learning_rate=1e-3, margin=100.0)
    stage = StageSpec(
        name="autoencoder",
        objective={"name": "automodulator"},
        schedule=Schedule(total_kimg=1, phases=(settled,)),
        optimizer={"name": "adam", "betas": (0.0, 0.99), "eps": 1e-8},
        average=None,
        identity="",
    )
    objective = OBJECTIVES.build({"name": "automodulator", "invariance": invariance})
    training, reached = Training(model, objective, stage, seed=0), {}
    training.step(pictures(resolution), stage.schedule.at(0))  # noise scales start at 0, where some gradients are 0
    maps = dict(zip(["alpha", "scale"], training.updates[0].parameters["robust"], strict=True))
    names = dict(model.named_parameters()) | maps

    for name, optimizer in training.optimizers.items():

        def seen(step=optimizer.step, name=name) -> None:
            reached[name] = {key for key, value in names.items() if value.grad is not None and value.grad.any()}
            step()

        optimizer.step = seen
    training.step(pictures(resolution), stage.schedule.at(BATCH))

    index, blocks = {4: (0, 1), 8: (1, 3), 16: (2, 4)}[resolution]
    of_encoder = ["encoder.last", f"encoder.from_images.{index}", *(f"encoder.blocks.{block}" for block in range(index))]
    of_decoder = [f"decoder.to_images.convolutions.{index}", *(f"decoder.blocks.{block}" for block in range(blocks))]
    encoder = {key for key in names if key.startswith(tuple(f"{part}." for part in of_encoder))}
    decoder = {key for key in names if key.startswith(tuple(f"{part}." for part in of_decoder))}
    styles = {key for key in decoder if ".style." in key} if invariance == "replacing" else set()
    assert len(styles) == (2 * (2 * blocks - 1) if invariance == "replacing" else 0)
    assert reached == {"encoder": encoder | {"alpha", "scale"} | styles, "decoder": decoder}
