"""The game of AGE and the PIONEERs, term by term and update by update; what is expected is worked out here, without losses."""

import pytest
import torch
from torch import Tensor, nn

from genae.latent import Gaussian, Sphere
from genae.models.autoencoder import Autoencoder
from genae.networks.blocks import EqualizedConv2d, PixelNorm, SpectralConv2d
from genae.objectives.pioneer import Pioneer
from genae.registry import MODELS, OBJECTIVES
from genae.schedule import Growth, Phase, PhaseSettings, Schedule
from genae.spec import StageSpec
from genae.training import Training

DIM, SIZE, BATCH = 6, 16, 8
AGE = {"kl_form": "age", "latent_distance": "per-element", "settled_factor": 1.0, "pool_size": 0}


def build(**settings) -> Autoencoder:
    torch.manual_seed(0)
    settings = {"name": "pioneer", "latent_dim": DIM, "channels": [6, 6, 4], **settings}
    return MODELS.build(settings, (3, SIZE, SIZE)).eval()  # eval: spectral norms stand still


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


def images(resolution: int = SIZE, seed: int = 1) -> Tensor:
    return torch.rand(BATCH, 3, resolution, resolution, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def terms(model: Autoencoder, at: Phase, pictures: Tensor | None = None, **settings) -> tuple[dict, dict]:
    """The encoder's and the decoder's terms of a fresh objective, each from a fresh generator."""
    objective = Pioneer(**settings)
    encoder, decoder = objective.updates(model)[:2]
    objective.enter(at)
    pictures = images(at.resolution) if pictures is None else pictures
    return tuple(update.terms(model, pictures, at, draws()) for update in (encoder, decoder))


def kl(codes: Tensor, form: str = "gaussian") -> Tensor:
    """From each dimension's mean and variance over the batch, averaged over dimensions."""
    each = []
    for column in codes.T:
        m = sum(column) / len(column)
        v = sum((value - m) ** 2 for value in column) / len(column)
        spread = v if form == "gaussian" else v**2  # the square of the standard deviation; AGE's code squares the variance
        log_spread = v.log() / 2 if form == "gaussian" else v.log()
        each.append((spread + m**2) / 2 - log_spread - 0.5)
    return sum(each) / len(each)


def cos(a: Tensor, b: Tensor) -> Tensor:
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()


# The terms.


@pytest.mark.parametrize("form", ["gaussian", "age"])
def test_the_encoder_lowers_the_gap_of_divergences_and_l1(form):
    model = build()
    found, _ = terms(model, phase(), kl_form=form, kl_weight=3.0)
    fakes = model.decode(model.prior(BATCH, draws()))
    error = (model.decode(model.encode(images())) - images()).abs().mean()
    assert found.keys() == {"kl_gap", "reconstruction"}
    expected = 3 * (kl(model.encode(images()), form) - kl(model.encode(fakes), form))
    torch.testing.assert_close(found["kl_gap"], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["reconstruction"], 15 * error)  # 10, half as much again once settled


@pytest.mark.parametrize("form", ["gaussian", "age"])
def test_the_decoder_lowers_the_divergence_of_fakes_and_the_distance_of_codes(form):
    model = build()
    _, found = terms(model, phase(), kl_form=form)
    codes = model.prior(BATCH, draws())
    again = model.encode(model.decode(codes))
    assert found.keys() == {"kl_fake", "latent"}
    torch.testing.assert_close(found["kl_fake"], kl(again, form), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["latent"], 1.95 * (1 - cos(again, codes)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("cosine", lambda a, b: 1.95 * (1 - cos(a, b))),
        ("per-element", lambda a, b: 1000 * (2 - cos(a, b) / DIM)),
        ("l2", lambda a, b: 500 * sum((x - y).square().sum() for x, y in zip(a, b, strict=True)) / (BATCH * DIM)),
    ],
)
def test_each_distance_of_codes_has_its_own_weight(distance, expected):
    model = build()
    codes = model.prior(BATCH, draws())
    found = terms(model, phase(), latent_distance=distance)[1]["latent"]
    torch.testing.assert_close(found, expected(model.encode(model.decode(codes)), codes), atol=1e-3, rtol=1e-5)
    weighted = terms(model, phase(), latent_distance=distance, latent_weight=7.0)[1]["latent"]
    torch.testing.assert_close(weighted, found * 7 / {"cosine": 1.95, "per-element": 1000, "l2": 500}[distance])


@pytest.mark.parametrize("dim", [8, 512])
def test_the_per_element_distance_and_l2_pull_alike_on_the_sphere_and_at_512_nearly_as_the_cosine(dim):
    # 1000 (2 - cos / D) against 500 * 2 (1 - cos) / D; and 1.95 is 1000 / 512.
    a, b = Sphere(dim).sample(4, draws()).split(2)
    weights = {"per-element": 1000.0, "l2": 500.0, "cosine": 1.95}
    model = Autoencoder(Sphere(dim), nn.Identity(), nn.Identity())

    def pull(name: str) -> Tensor:
        """The gradient along the sphere of the objective's own term, where decoding turns code b into `moved`."""
        moved = b.clone().requires_grad_()
        model.prior = lambda n, generator: a
        model.decode = lambda codes, growth: moved
        model.encode = lambda fakes, growth: nn.functional.normalize(fakes, dim=1)
        found = Pioneer(latent_distance=name)._decoder_terms(model, a, phase(), draws())["latent"]
        return torch.autograd.grad(found, moved)[0]

    torch.testing.assert_close(pull("per-element"), pull("l2"), atol=1e-4, rtol=1e-4)
    ratio = (pull("cosine").norm() / pull("l2").norm()).item()
    assert ratio == pytest.approx(weights["cosine"] * dim / 1000, rel=1e-3)


@pytest.mark.parametrize(("gap", "expected"), [(-3.0, -0.5), (-0.2, -0.2), (0.3, 0.3), (4.0, 4.0)])
def test_the_margin_bounds_the_gap_from_below_only(monkeypatch, gap, expected):
    values = iter([2.0 + gap, 2.0])
    monkeypatch.setattr(Pioneer, "_kl", lambda self, codes: codes[0, 0] - codes[0, 0].detach() + next(values))
    model = build()
    objective = Pioneer()
    update = objective.updates(model)[0]
    objective.enter(phase())
    found = update.terms(model, images(), phase(margin=0.5), draws())["kl_gap"]
    assert found.item() == pytest.approx(expected, abs=1e-6)
    (gradient,) = torch.autograd.grad(found, model.encoder.last[2].weight)
    assert bool(gradient.any()) == (gap == expected), "a clamped gap has no gradient"


def test_without_a_margin_as_in_pioneer_and_age_the_gap_is_unbounded(monkeypatch):
    values = iter([-98.0, 2.0, 0.0])
    monkeypatch.setattr(Pioneer, "_kl", lambda self, codes: codes.sum() * 0 + next(values))
    assert terms(build(), phase(margin=0.0))[0]["kl_gap"].item() == -100


def test_the_divergence_of_real_images_counts_once_or_twice():
    model = build()
    once, twice = (terms(model, phase(), kl_real_terms=number)[0] for number in (1, 2))
    torch.testing.assert_close(sum(twice.values()) - sum(once.values()), kl(model.encode(images())), atol=1e-5, rtol=1e-4)


def test_the_reconstruction_weighs_10_and_once_settled_15_but_10_throughout_in_age():
    model = build()
    error = (model.decode(model.encode(images())) - images()).abs().mean()
    for settings, weights in ({}, (10, 15)), (AGE, (10, 10)):
        found = [terms(model, phase(settled=settled), **settings)[0]["reconstruction"] for settled in (False, True)]
        torch.testing.assert_close(torch.stack(found), torch.tensor(weights) * error)
    square = terms(model, phase(settled=False), reconstruction="l2")[0]["reconstruction"]
    torch.testing.assert_close(square, 10 * (model.decode(model.encode(images())) - images()).square().mean())


def test_a_network_grows_with_the_phase():
    model, at = build(), phase(8, settled=False, fade=0.5, index=1)
    growth = Growth(8, 0.5)
    found = terms(model, at)
    error = (model.decode(model.encode(images(8), growth), growth) - images(8)).abs().mean()
    torch.testing.assert_close(found[0]["reconstruction"], 10 * error)
    codes = model.prior(BATCH, draws())
    torch.testing.assert_close(found[1]["kl_fake"], kl(model.encode(model.decode(codes, growth), growth)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, AGE, {"latent_distance": "l2"}])
def test_every_term_is_float32_under_autocast(settings):
    model = build().train()
    with torch.autocast("cpu", torch.bfloat16):
        found = terms(model, phase(), **settings)
    assert {value.dtype for part in found for value in part.values()} == {torch.float32}


# The updates.


def reached(model: Autoencoder, value: Tensor) -> set[str]:
    """The parameters that a term has a gradient for, among those that are not frozen."""
    live = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(value, list(live.values()), allow_unused=True, retain_graph=True)
    return {key for key, gradient in zip(live, gradients, strict=True) if gradient is not None}


def used(model: Autoencoder, part: str) -> set[str]:
    """The parameters of encoder or decoder that a fully grown network uses: of the images' convolutions, the last."""
    last = f".{len(model.decoder.resolutions) - 1}."
    keys = {key for key, _ in model.named_parameters() if key.startswith(f"{part}.")}
    return {key for key in keys if ("from_images" not in key and "to_images" not in key) or last in key}


def test_each_update_moves_one_network_and_every_term_of_it_reaches_all_of_that():
    model = build()
    encoder, decoder, again = Pioneer().updates(model)
    assert again is decoder
    for update, part in ((encoder, "encoder"), (decoder, "decoder")):
        assert list(update.parameters) == [part]
        assert [id(p) for p in update.parameters[part]] == [id(p) for p in getattr(model, part).parameters()]
        model.requires_grad_(False)  # all but what it moves, as the trainer does
        getattr(model, part).requires_grad_(True)
        for term, value in update.terms(model, images(), phase(), draws()).items():
            assert reached(model, value) == used(model, part), term


def test_the_encoders_update_has_no_way_back_through_the_fakes_to_the_decoder():
    model = build()
    assert reached(model, terms(model, phase())[0]["kl_gap"]) == used(model, "encoder")


def test_the_decoder_never_sees_the_images_and_so_no_reconstruction_of_them():
    model = build()
    (first, one), (second, other) = (terms(model, phase(), pictures) for pictures in (images(), images(seed=2)))
    assert first["reconstruction"] != second["reconstruction"]
    assert one == other


@pytest.mark.parametrize("decoder_updates", [1, 2, 3])
def test_a_step_takes_the_encoders_update_once_and_the_decoders_as_often_as_set(decoder_updates):
    model = build()
    stage = StageSpec(
        name="autoencoder",
        objective={"name": "pioneer"},
        schedule=Schedule(total_kimg=1, phases=(PhaseSettings(resolution=SIZE, batch_size=BATCH, learning_rate=1e-3),)),
        optimizer={"name": "adam", "betas": (0.0, 0.9), "eps": 1e-8, "weight_decay": 0.0},
        average=None,
        identity="",
    )
    objective, found = Pioneer(decoder_updates=decoder_updates), []
    decoder_terms = objective._decoder_terms
    objective._decoder_terms = lambda *given: found.append(decoder_terms(*given)) or found[-1]
    training = Training(model, objective, stage, seed=0)
    seen: list[Tensor] = []
    original = model.prior
    model.prior = lambda n, generator: seen.append(original(n, generator)) or seen[-1]
    training.step(images(), stage.schedule.at(0))
    assert list(training.optimizers) == ["encoder", "decoder"], "one optimiser for all of the decoder's updates"
    taken = {name: next(iter(optimizer.state.values()))["step"] for name, optimizer in training.optimizers.items()}
    assert taken == {"encoder": 1, "decoder": decoder_updates}
    assert len({codes.sum().item() for codes in seen}) == 1 + decoder_updates, "every update draws its codes anew"

    logged = training.means()
    assert logged.keys() == {"encoder/kl_gap", "encoder/reconstruction", "decoder/kl_fake", "decoder/latent"}
    for term in ("kl_fake", "latent"):
        assert logged[f"decoder/{term}"] == pytest.approx(sum(one[term].item() for one in found) / decoder_updates)


def test_no_update_of_the_decoder_is_refused_by_name():
    with pytest.raises(ValueError, match="decoder_updates must be at least 1, not 0"):
        Pioneer(decoder_updates=0)


@pytest.mark.parametrize("settings", [{"decoder_updates": 1}, {"decoder_updates": 3, **AGE}])
def test_the_settings_of_all_three_build(settings):
    objective = OBJECTIVES.build({"name": "pioneer", **settings})
    assert len(objective.updates(build())) == 1 + settings["decoder_updates"]


# The image pool.


def test_older_fakes_are_shown_once_settled_and_none_survives_a_phase():
    objective, model = Pioneer(pool_size=20), build()
    encoder = objective.updates(model)[0]
    objective.enter(phase())
    encoder.terms(model, images(), phase(settled=False), draws())
    assert "images" not in objective.state_dict()
    encoder.terms(model, images(), phase(), draws())
    assert len(objective.state_dict()["images"]) == BATCH
    objective.enter(phase(index=1))
    assert "images" not in objective.state_dict()


def test_the_pool_holds_half_as_many_from_256x256_on():
    objective = Pioneer()
    for resolution, size in ((128, 200), (256, 100)):
        objective.enter(phase(resolution))
        assert objective.state_dict()["size"] == size


def test_the_state_is_taken_up_again():
    objective, model = Pioneer(pool_size=20), build()
    encoder = objective.updates(model)[0]
    objective.enter(phase())
    encoder.terms(model, images(), phase(), draws())
    other = Pioneer(pool_size=20)
    other.updates(model)
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other.state_dict()["images"], objective.state_dict()["images"])


# The model.


def test_the_defaults_are_those_of_the_released_models():
    with torch.device("meta"):
        model = MODELS.build({"name": "pioneer"}, (3, 32, 32))
        gaussian = MODELS.build({"name": "pioneer", "latent": "gaussian"}, (3, 32, 32))
    assert (model.latent, gaussian.latent) == (Sphere(512), Gaussian(512))
    assert isinstance(model.encoder.last[-1], nn.LeakyReLU)
    assert {type(part) for part in model.decoder.blocks.modules() if isinstance(part, nn.Conv2d)} == {SpectralConv2d}
    assert model.provides >= {"encode", "growth"}
    assert "layers" not in model.provides


def test_the_last_activation_is_a_leaky_relu_before_codes_are_normalised():
    with_it, without = build(latent="gaussian"), build(latent="gaussian", last_activation=False)
    without.load_state_dict(with_it.state_dict())  # it has no parameters
    raw = without.encode(images())
    torch.testing.assert_close(with_it.encode(images()), torch.where(raw > 0, raw, 0.2 * raw))


def test_pioneers_decoder_has_pixel_norm_and_equalised_learning_rates_at_the_same_sizes():
    spectral, pixel = build(), build(decoder_norm="pixel")

    def shapes(model: Autoencoder) -> list[torch.Size]:
        return [parameter.shape for parameter in model.parameters()]

    assert shapes(pixel) == shapes(spectral)
    for block in pixel.decoder.blocks:
        assert [type(part) for part in block] == 2 * [EqualizedConv2d, PixelNorm, nn.LeakyReLU]
    features = pixel.decoder.blocks[0][:2](pixel.prior(3, draws())[:, :, None, None])
    torch.testing.assert_close(features.square().mean(1), torch.ones(3, 4, 4))


def test_encoder_and_decoder_may_differ_in_width():
    model = build(decoder_channels=[5, 4, 3])
    assert [convolution.in_channels for convolution in model.decoder.to_images.convolutions] == [5, 4, 3]
    assert [convolution.out_channels for convolution in model.encoder.from_images] == [6, 6, 4]
