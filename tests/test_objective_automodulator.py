"""Eq. 6 of Heljakka et al. (2020), term by term, and every setting where the released code departs from it.

What is expected is worked out here: nothing of genae.losses is imported.
"""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from genae.latent import Sphere
from genae.models.autoencoder import Autoencoder, Generator
from genae.objectives.automodulator import Automodulator
from genae.objectives.image_pool import ImagePool
from genae.randomness import on_host
from genae.registry import MODELS
from genae.schedule import Growth, Phase

DIM, SIZE, BATCH = 6, 16, 8


def build(noise: bool = False) -> Autoencoder:
    torch.manual_seed(0)
    settings = {"name": "automodulator", "latent_dim": DIM, "channels": [6, 6, 4], "noise": noise}
    return MODELS.build(settings, (3, SIZE, SIZE)).eval()  # eval: weights and noise stand still


def phase(resolution: int = SIZE, *, settled: bool = True, margin: float = 0.0, index: int = 0, fade: float = 1.0) -> Phase:
    return Phase(
        index=index,
        resolution=resolution,
        fade=fade,
        settled=settled,
        batch_size=BATCH,
        learning_rate=1e-3,
        margin=margin,
        images_seen=0,
        epoch=0.0,
    )


def images(resolution: int = SIZE) -> Tensor:
    return torch.rand(BATCH, 3, resolution, resolution, generator=torch.Generator().manual_seed(1)) * 2 - 1


def terms(model: Autoencoder, at: Phase, seed: int = 0, **settings) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The encoder's and the decoder's terms of a fresh objective, each from a fresh generator."""
    objective = Automodulator(**{"reconstruction": "l1", **settings})
    objective.updates(model)
    objective.enter(at)
    found = [update.terms(model, images(at.resolution), at, generator(seed)) for update in objective.updates(model)]
    return found[0], found[1]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(model: Autoencoder, num_mixed: int, last: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, int]:
    """What the objective draws from a fresh generator: plain codes, z_A, z_B, j."""
    draws = generator(seed)
    split = int(torch.randint(1, last + 1, (), generator=draws))
    plain, a, b = model.prior(BATCH + num_mixed, draws).split([BATCH - num_mixed, num_mixed, num_mixed])
    return plain, a, b, split


def by_layer(model: Autoencoder, a: Tensor, b: Tensor, split: int) -> Tensor:
    return torch.stack([a if layer < split else b for layer in range(model.num_layers)], dim=1)


def kl(codes: Tensor) -> Tensor:
    """KL of N(m, v) to N(0, 1), with m and v of each dimension over the batch: the mean over dimensions."""
    mean, variance = codes.mean(0), codes.var(0, unbiased=False)
    return (variance + mean**2 - 1 - variance.log()).mean() / 2


# The margin, and weights. What the terms are is in test_equations.py.


def gap_of(monkeypatch, kl_real: float, kl_fake: float, **settings) -> tuple[float, bool]:
    """The gap term for given divergences under a margin of 0.5, and whether it has a gradient."""
    values = iter([kl_real, kl_fake, 0.0])
    monkeypatch.setattr(
        "genae.objectives.automodulator.kl_of_moments", lambda codes: codes[0, 0] - codes[0, 0].detach() + next(values)
    )
    model = build()
    gap = terms(model, phase(margin=0.5), **settings)[0]["kl_gap"]
    (gradient,) = torch.autograd.grad(gap, model.encoder.last[2].weight)
    return gap.item(), bool(gradient.any())


@pytest.mark.parametrize(("kl_gap", "clamped"), [(-3.0, -0.5), (-0.2, -0.2), (0.3, 0.3), (4.0, 4.0)])
def test_the_margin_bounds_the_gap_from_below_only(monkeypatch, kl_gap, clamped):
    gap, moves = gap_of(monkeypatch, 2 + kl_gap, 2.0)
    assert gap == pytest.approx(clamped, abs=1e-6)
    assert moves == (kl_gap == clamped), "a clamped gap has no gradient"


@pytest.mark.parametrize("reconstruction", ["l1", "l2", "robust"])
def test_the_decoder_never_sees_the_images_and_so_no_reconstruction(reconstruction):
    objective, at, model = Automodulator(reconstruction=reconstruction), phase(), build()
    objective.updates(model)
    objective.enter(at)
    encoder_update, decoder_update = objective.updates(model)
    encoders, decoders = (
        [update.terms(model, pictures, at, generator()) for pictures in (images(), -images().roll(1, 3))]
        for update in (encoder_update, decoder_update)
    )
    assert encoders[0]["reconstruction"] != encoders[1]["reconstruction"]
    assert decoders[0] == decoders[1]
    assert {id(p) for p in decoder_update.parameters["decoder"]} == {id(p) for p in model.decoder.parameters()}


def test_the_encoder_moves_alphas_and_scales_as_a_group_of_their_own():
    objective, model = Automodulator(), build()
    objective.updates(model)
    objective.enter(phase())
    encoder_update = objective.updates(model)[0]
    assert list(encoder_update.parameters) == ["encoder", "robust"]
    assert [tuple(p.shape) for p in encoder_update.parameters["robust"]] == [(1, SIZE, SIZE), (1, SIZE, SIZE)]
    fixed = Automodulator(robust_scale="fixed")
    fixed.updates(model)
    fixed.enter(phase())
    assert len(fixed.updates(model)[0].parameters["robust"]) == 1


def test_a_reconstruction_counts_half_as_much_again_when_the_phase_has_settled():
    model = build()
    for reconstruction in ("l1", "l2", "robust"):
        young = terms(model, phase(settled=False), reconstruction=reconstruction)[0]["reconstruction"]
        settled = terms(model, phase(settled=True), reconstruction=reconstruction)[0]["reconstruction"]
        torch.testing.assert_close(settled, 1.5 * young)


def test_the_weights_of_l1_l2_and_robust_are_those_of_the_released_code_in_the_papers_units():
    model = build()
    residual = model.decode(model.encode(images())) - images()
    of = {name: terms(model, phase(settled=False), reconstruction=name)[0]["reconstruction"] for name in ("l1", "l2", "robust")}
    torch.testing.assert_close(of["l1"], 10 * residual.abs().mean())
    torch.testing.assert_close(of["l2"], 10 * residual.square().mean())
    log_z = 1.185636  # log(2 e K_1(1)), alpha = 1
    torch.testing.assert_close(of["robust"], 2 * (((residual.square() + 1).sqrt() - 1).mean() + log_z), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"reconstruction": "robust"},
        {"latent_distance": "per-element", "layer_distance": "mean-square"},
        {"reconstruction": "robust", "invariance": "added"},
        {"invariance": "replacing"},
    ],
)
def test_every_term_is_float32_under_autocast(settings):
    model = build().train()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.encoder(images(), None).dtype == torch.bfloat16  # the network does compute in half precision
        found = terms(model, phase(), **settings)
    assert {name: value.dtype for part in found for name, value in part.items()} == {
        name: torch.float32 for part in found for name in part
    }


# Where paper and code disagree.


def test_the_released_code_counts_the_divergence_of_real_images_twice():
    model = build()
    once, twice = (terms(model, phase(), kl_real_terms=number)[0] for number in (1, 2))
    torch.testing.assert_close(sum(twice.values()) - sum(once.values()), kl(model.encode(images())), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kl_gap", "clamped"), [(-3.0, -0.5), (0.2, 0.2), (4.0, 0.25)])
def test_the_released_code_bounds_the_gap_from_above_by_half_the_margin(monkeypatch, kl_gap, clamped):
    gap, moves = gap_of(monkeypatch, 2 + kl_gap, 2.0, margin_above=0.5)
    assert gap == pytest.approx(clamped, abs=1e-6)
    assert moves == (kl_gap == clamped)


def test_the_released_cosine_and_its_weight_go_together():
    model = build()
    plain = drawn(model, num_mixed=2, last=3)[0]
    again = model.encode(model.decode(plain))
    found = terms(model, phase(), latent_distance="per-element")[1]["cosine"]
    torch.testing.assert_close(found, 1000 * (2 - (again * plain).mean()))  # both of norm 1
    weighted = terms(model, phase(), latent_weight=7.0)[1]["cosine"]
    torch.testing.assert_close(weighted, 7 * (1 - (again * plain).sum(1).mean()), atol=1e-4, rtol=1e-4)


def test_the_released_layer_loss_and_its_weight_go_together():
    model = build()
    _, a, b, split = drawn(model, num_mixed=2, last=3)
    again = model.encode(model.decode(by_layer(model, a, b, split)))
    change = model.canvas(again, split) - model.canvas(a, split)
    found = terms(model, phase(), layer_distance="mean-square")[1]["layer"]
    torch.testing.assert_close(found, 10 * change.square().mean(), atol=1e-4, rtol=1e-4)


def test_without_weight_there_is_no_layer_loss():
    for mixed_fakes in ("direct", "re-encoded"):
        assert "layer" not in terms(build(), phase(), layer_weight=0.0, mixed_fakes=mixed_fakes)[1]


def test_the_released_mixes_are_decoded_directly():
    model = build()
    encoder_terms, decoder_terms = terms(model, phase(), mixed_fakes="direct")
    plain, a, b, split = drawn(model, num_mixed=2, last=3)
    codes = model.encode(torch.cat([model.decode(plain), model.decode(by_layer(model, a, b, split))]))
    torch.testing.assert_close(decoder_terms["kl_fake"], kl(codes), atol=1e-5, rtol=1e-4)
    gap = kl(model.encode(images())) - kl(codes)
    torch.testing.assert_close(encoder_terms["kl_gap"], gap, atol=1e-5, rtol=1e-4)
    # L_j is the same either way.
    torch.testing.assert_close(decoder_terms["layer"], terms(model, phase())[1]["layer"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("split_range", "expected"), [("1..N", {1, 2, 3}), ("1..N-1", {1, 2})])
def test_j_is_drawn_from_every_layer_grown_or_from_all_but_the_last(split_range, expected):
    objective, model = Automodulator(split_range=split_range), build()
    draws = generator()
    splits = [objective._codes(model, BATCH, 0.25, phase(), draws)[2] for _ in range(60)]
    assert set(splits) == expected
    halfway = [objective._codes(model, BATCH, 0.25, phase(8), draws)[2] for _ in range(30)]
    assert set(halfway) == {split for split in expected if split <= max(expected) - 1}


class _TwoLayersPerResolution(nn.Module):
    """Layers as a decoder has them that does not double the resolution in each: one at 4x4, two more at each doubling."""

    num_layers = 5

    def layers_at(self, growth: Growth) -> int:
        return {4: 1, 8: 3, 16: 5}[growth.resolution]


def test_j_is_drawn_from_the_layers_that_the_decoder_says_have_grown():
    objective, model, draws = Automodulator(), Generator(Sphere(DIM), _TwoLayersPerResolution()), generator()
    for resolution, expected in [(8, {1, 2, 3}), (16, {1, 2, 3, 4, 5})]:
        assert {objective._codes(model, BATCH, 0.25, phase(resolution), draws)[2] for _ in range(60)} == expected


def test_at_4x4_the_released_code_has_nothing_to_mix():
    model = build()
    assert "layer" in terms(model, phase(4))[1]
    assert "layer" not in terms(model, phase(4), split_range="1..N-1")[1]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_a_share_of_the_batch_is_mixed(share, expected):
    objective, model = Automodulator(), build()
    plain, layered, split = objective._codes(model, BATCH, share, phase(), generator())
    assert len(layered) == BATCH
    assert len(plain) == BATCH - expected
    assert torch.equal(layered[: len(plain)], plain[:, None].expand(-1, 3, -1))
    mixed = layered[len(plain) :]
    assert torch.equal(mixed[:, :split], mixed[:, :1].expand(-1, split, -1))
    assert torch.equal(mixed[:, split:], mixed[:, -1:].expand(-1, 3 - split, -1))


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("mixed_fakes", ["direct", "re-encoded"])
def test_all_or_nothing_may_be_mixed(share, mixed_fakes):
    found = terms(build(), phase(), mixed_share_encoder=share, mixed_share_decoder=share, mixed_fakes=mixed_fakes)
    assert all(value.isfinite() for value in [*found[0].values(), *found[1].values()])
    assert ("layer" in found[1]) == bool(share)
    assert ("cosine" in found[1]) != bool(share)


def test_a_share_outside_0_to_1_is_refused_by_name():
    with pytest.raises(ValueError, match="mixed_share_decoder"):
        Automodulator(mixed_share_decoder=1.5)


# Invariance.


def test_style_maps_have_a_learning_rate_of_their_own_where_the_encoders_update_moves_them():
    model = build()
    encoder_update, decoder_update = Automodulator(invariance="replacing").updates(model)
    assert list(encoder_update.parameters) == ["encoder", "styles"]
    styles = {key for key, value in model.named_parameters() if any(value is p for p in encoder_update.parameters["styles"])}
    assert styles == {key for key, _ in model.named_parameters() if ".style." in key}
    assert len(decoder_update.parameters["decoder"]) == len(list(model.decoder.parameters())), "the decoder's moves them too"
    assert list(Automodulator(invariance="added").updates(model)[0].parameters) == ["encoder"]


def test_of_an_odd_batch_one_image_is_left_out():
    model, objective = build(), Automodulator(reconstruction="l1", invariance="added")
    objective.updates(model)
    objective.enter(phase())
    encoder_update = objective.updates(model)[0]
    odd, even = (encoder_update.terms(model, images()[:count], phase(), generator()) for count in (7, 6))
    assert odd == even


@pytest.mark.parametrize("invariance", ["added", "replacing"])
def test_an_invariance_of_all_layers_is_refused_by_name(invariance):
    with pytest.raises(ValueError, match="invariance_layers must be below the decoder's 3 layers; not 3"):
        Automodulator(invariance=invariance, invariance_layers=3).updates(build())


def test_style_maps_that_are_not_there_cannot_be_trained():
    model = build()
    for part in [part for part in model.decoder.modules() if hasattr(part, "style")]:
        part.style = nn.Linear(part.style.in_features, part.style.out_features)  # what a decoder of one's own may have
    with pytest.raises(ValueError, match="this model's decoder has none"):
        Automodulator(invariance="replacing").updates(model)


# d_rho's maps.


def test_alphas_grow_with_the_resolution_and_stay_while_it_does():
    objective, model = Automodulator(), build()
    objective.updates(model)
    objective.enter(phase(4))
    alpha, scale = objective.updates(model)[0].parameters["robust"]
    with torch.no_grad():
        alpha.copy_(torch.randn(alpha.shape))
        scale.copy_(torch.randn(scale.shape))
    objective.enter(phase(4, index=1))
    assert objective.updates(model)[0].parameters["robust"][0] is alpha
    objective.enter(phase(16, index=2))
    grown_alpha, grown_scale = objective.updates(model)[0].parameters["robust"]
    for grown, values in ((grown_alpha, alpha), (grown_scale, scale)):  # each to the 4x4 pixels that cover its own
        assert torch.equal(grown, values.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2))


@pytest.mark.parametrize(("robust_maps", "channels"), [("pixel", 1), ("pixel-and-channel", 3)])
def test_an_alpha_and_a_scale_belong_to_a_pixel_or_to_each_of_its_channels(robust_maps, channels):
    objective, model = Automodulator(robust_maps=robust_maps), build()
    objective.updates(model)
    for index, resolution in enumerate([4, 8]):
        objective.enter(phase(resolution, index=index))
        encoder_update = objective.updates(model)[0]
        maps = encoder_update.parameters["robust"]
        assert [tuple(p.shape) for p in maps] == 2 * [(channels, resolution, resolution)]
        terms = encoder_update.terms(model, images(resolution), phase(resolution), generator())
        assert all(gradient.ndim == 3 for gradient in torch.autograd.grad(terms["reconstruction"], maps))

    other = Automodulator(robust_maps=robust_maps)
    other.updates(model)
    other.load_state_dict(objective.state_dict())
    assert all(map(torch.equal, other.updates(model)[0].parameters["robust"], maps))


def test_training_leaves_the_state_alone_that_was_loaded():
    objective, model = Automodulator(), build()
    objective.updates(model)
    objective.enter(phase())
    state = {key: value.clone() if isinstance(value, Tensor) else value for key, value in objective.state_dict().items()}
    other = Automodulator()
    other.updates(model)
    other.load_state_dict(state)
    with torch.no_grad():
        for parameter in other.updates(model)[0].parameters["robust"]:
            parameter.add_(1)
    assert torch.equal(state["robust.raw_alpha"], objective.state_dict()["robust.raw_alpha"])
    assert torch.equal(state["robust.raw_scale"], objective.state_dict()["robust.raw_scale"])


# The image pool.


def numbered(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None, None]


def test_a_pool_shows_what_it_is_given_until_it_is_full():
    pool = ImagePool(5)
    assert torch.equal(pool.swap(numbered(0, 1, 2), generator()), numbered(0, 1, 2))
    assert torch.equal(pool.swap(numbered(3, 4), generator()), numbered(3, 4))
    assert torch.equal(pool.images, numbered(0, 1, 2, 3, 4))


def test_a_full_pool_swaps_about_half_and_loses_nothing():
    pool, draws, swapped = ImagePool(50), generator(), 0
    pool.swap(numbered(*range(50)), draws)
    for start in range(50, 1050, 10):
        new = numbered(*range(start, start + 10))
        before = pool.images.clone()
        shown = pool.swap(new, draws)
        old = shown[shown < start]
        swapped += len(old)
        together = torch.cat([before.flatten(), new.flatten()]).sort().values
        assert torch.equal(torch.cat([pool.images.flatten(), shown.flatten()]).sort().values, together)
    assert swapped / 1000 == pytest.approx(0.5, abs=0.06)


def test_a_pool_smaller_than_the_batch_still_holds_its_size():
    pool, draws = ImagePool(3), generator()
    for start in range(0, 50, 10):
        assert pool.swap(numbered(*range(start, start + 10)), draws).shape == (10, 1, 1, 1)
        assert len(pool.images) == 3


def test_no_pool_shows_the_fakes_themselves():
    fakes = numbered(1, 2)
    assert ImagePool(0).swap(fakes, generator()) is fakes


def test_the_pool_is_used_only_once_settled_and_emptied_at_a_new_phase():
    objective, model = Automodulator(reconstruction="l1", pool_size=20), build()
    encoder_update = objective.updates(model)[0]
    objective.enter(phase())
    encoder_update.terms(model, images(), phase(settled=False), generator())
    assert "pool.images" not in objective.state_dict()
    encoder_update.terms(model, images(), phase(), generator())
    assert len(objective.state_dict()["pool.images"]) == BATCH
    objective.enter(phase(index=1))
    assert "pool.images" not in objective.state_dict()
    objective.enter(dataclasses.replace(phase(index=2), resolution=256))
    assert objective.state_dict()["pool.size"] == 10, "half as many from 256x256 on, as released"


# Randomness.


def test_a_cpu_generator_decides_by_itself():
    draws = generator()
    assert on_host(draws) is draws


def test_the_model_keeps_its_mode_and_its_state_while_it_is_looked_at():
    model = build(noise=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    Automodulator().updates(model)
    assert all(part.training for part in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_each_update_takes_one_power_iteration():
    model = build().train()
    objective = Automodulator(reconstruction="l1")
    updates = objective.updates(model)
    objective.enter(phase())
    for convolution in [part for part in model.modules() if hasattr(part, "left")]:
        convolution.left.copy_(nn.functional.normalize(torch.ones_like(convolution.left), dim=0))
    twin = build().train()
    twin.load_state_dict(model.state_dict())
    for update in updates:
        update.terms(model, images(), phase(), generator())
        for convolution in [part for part in twin.modules() if hasattr(part, "left")]:
            convolution.normalized_weight()
        assert all(torch.equal(value, twin.state_dict()[key]) for key, value in model.state_dict().items())
