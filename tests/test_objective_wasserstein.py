"""WAE-MMD term by term, on autoencoders simple enough to compute by hand."""

import pytest
import torch
from torch import Tensor, nn

from genae.latent import Gaussian, Sphere
from genae.models.autoencoder import Autoencoder, Latent
from genae.objectives.wasserstein import Wasserstein
from genae.registry import MODELS
from genae.schedule import Growth, Phase

DIM, BATCH = 4, 6
PHASE = Phase(
    index=0, resolution=2, fade=1.0, settled=True, batch_size=BATCH, learning_rate=1e-3, margin=0.0, images_seen=0, epoch=0.0
)


class Pixels(nn.Module):
    """The pixels are the code."""

    def forward(self, images: Tensor, growth: Growth | None) -> Tensor:
        return images.flatten(1)


class Halves(nn.Module):
    """Decodes to half of the image that the code is."""

    def forward(self, codes: Tensor, growth: Growth | None) -> Tensor:
        return codes.reshape(-1, 1, 2, 2) / 2


def images(n: int = BATCH) -> Tensor:
    return torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def terms(latent: Latent | None = None, n: int = BATCH, **settings) -> dict[str, Tensor]:
    model = Autoencoder(latent or Gaussian(DIM), Pixels(), Halves())
    return Wasserstein(**settings).terms(model, images(n), PHASE, torch.Generator().manual_seed(1))


def slow_mmd(codes: Tensor, draws: Tensor, bandwidths: list[float], kernel: str = "imq", every: bool = False) -> float:
    """Pair by pair; every: with each point's pair with itself."""

    def similarity(a: Tensor, b: Tensor) -> float:
        d = (a - b).double().square().sum()
        return sum((c / (c + d) if kernel == "imq" else torch.exp(-d / c)).item() for c in bandwidths)

    def mean(left: Tensor, right: Tensor) -> float:
        same = left is right and not every
        values = [similarity(a, b) for i, a in enumerate(left) for j, b in enumerate(right) if not (same and i == j)]
        return sum(values) / len(values)

    return mean(codes, codes) + mean(draws, draws) - 2 * mean(codes, draws)


SCALES = (0.1, 0.2, 0.5, 1, 2, 5, 10)


@pytest.mark.parametrize("mmd_weight", [4.0, 2.0])
def test_the_discrepancy_is_of_the_codes_and_as_many_draws_from_the_prior(mmd_weight):
    draws = torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(1))
    expected = slow_mmd(images().flatten(1), draws, [2 * DIM * scale for scale in SCALES])  # E|z - z'|^2 = 2 D
    assert terms(mmd_weight=mmd_weight)["mmd"].item() == pytest.approx(mmd_weight * expected, abs=1e-5)


def test_by_default_the_weight_is_that_of_wae_adain():
    torch.testing.assert_close(terms()["mmd"], terms(mmd_weight=4.0)["mmd"])


def test_on_the_sphere_codes_and_draws_have_norm_1_and_scales_are_of_2():
    normals = torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(1))
    codes, draws = (vectors / vectors.norm(dim=1, keepdim=True) for vectors in (images().flatten(1), normals))
    expected = slow_mmd(codes, draws, [2 * scale for scale in SCALES])  # E|z - z'|^2 = 2 - 2 E z z' = 2
    assert terms(Sphere(DIM))["mmd"].item() == pytest.approx(4 * expected, abs=1e-5)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_kernel_scales_and_estimator_are_settings(kernel, estimator):
    draws = torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(1))
    expected = slow_mmd(images().flatten(1), draws, [2 * DIM * 0.3, 2 * DIM * 3.0], kernel, every=estimator == "biased")
    found = terms(kernel=kernel, estimator=estimator, scales=(0.3, 3.0), mmd_weight=1.0)["mmd"]
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_the_reconstruction_is_l2_or_l1_averaged_or_summed_over_pixels():
    half = images() / 2  # what decoding loses
    torch.testing.assert_close(terms()["reconstruction"], half.square().mean())
    torch.testing.assert_close(terms(distance="l1")["reconstruction"], half.abs().mean())
    torch.testing.assert_close(terms(pixels="sum")["reconstruction"], half.square().flatten(1).sum(1).mean())
    torch.testing.assert_close(terms(distance="l1", pixels="sum")["reconstruction"], half.abs().flatten(1).sum(1).mean())


def test_the_draws_are_the_given_generators():
    torch.testing.assert_close(terms(), terms())


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (-1.0,)])
def test_scales_that_are_not_positive_are_refused_by_name(scales):
    with pytest.raises(ValueError, match="scales must list"):
        Wasserstein(scales=scales)


# The two models.


def build(name: str, **settings) -> Autoencoder:
    torch.manual_seed(0)
    return MODELS.build({"name": name, "latent_dim": 6, "channels": [6, 6, 4], **settings}, (3, 16, 16)).train()


@pytest.mark.parametrize("name", ["wae-adain", "wae-classic"])
def test_reconstruction_reaches_both_networks_and_the_discrepancy_the_encoder_alone(name):
    model = build(name)
    with torch.no_grad():
        for parameter in model.parameters():  # off the start: noise inputs begin with a scale of 0
            parameter.add_(0.1 * torch.randn_like(parameter))
    phase = Phase(**{**vars(PHASE), "resolution": 16})
    pictures = torch.rand(BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    (update,) = Wasserstein().updates(model)
    assert set(update.parameters) == {"encoder", "decoder"}
    found = update.terms(model, pictures, phase, torch.Generator().manual_seed(0))
    reached = {}
    for term, value in found.items():
        gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, retain_graph=True)
        reached[term] = {
            key for (key, _), gradient in zip(model.named_parameters(), gradients, strict=True) if gradient is not None
        }
    grown = {key for key, _ in model.named_parameters() if "from_images.0" not in key and "from_images.1" not in key}
    grown -= {key for key in grown if "to_images.convolutions.0" in key or "to_images.convolutions.1" in key}
    assert reached["reconstruction"] == grown
    assert reached["mmd"] == {key for key in grown if key.startswith("encoder.")}


def test_the_defaults_are_codes_of_512_numbers_under_a_gaussian():
    with torch.device("meta"):
        assert {MODELS.build({"name": name}, (3, 32, 32)).latent for name in ("wae-adain", "wae-classic")} == {Gaussian(512)}


@pytest.mark.parametrize("name", ["wae-adain", "wae-classic"])
def test_the_prior_may_be_the_sphere(name):
    model = build(name, latent="sphere")
    assert model.latent == Sphere(6)
    torch.testing.assert_close(model.encode(torch.randn(3, 3, 16, 16)).norm(dim=1), torch.ones(3))


def test_they_have_the_decoders_of_the_automodulator_and_of_balanced_pioneer_and_an_encoder_of_one_code():
    with torch.device("meta"):
        models = {
            name: MODELS.build({"name": name}, (3, 64, 64))
            for name in ("wae-adain", "wae-classic", "automodulator", "pioneer", "vae-adain", "vae-classic")
        }

    def shapes(name: str, part: str) -> dict[str, torch.Size]:
        return {key: value.shape for key, value in getattr(models[name], part).named_parameters()}

    assert shapes("wae-adain", "decoder") == shapes("automodulator", "decoder") == shapes("vae-adain", "decoder")
    assert shapes("wae-classic", "decoder") == shapes("pioneer", "decoder") == shapes("vae-classic", "decoder")
    for name in ("wae-adain", "wae-classic", "pioneer"):
        assert shapes(name, "encoder") == shapes("automodulator", "encoder")
