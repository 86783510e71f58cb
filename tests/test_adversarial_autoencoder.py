"""AAE: its priors, its three updates and whom each of them moves."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genae.latent import GaussianMixture
from genae.models.adversarial_autoencoder import AdversarialAutoencoder
from genae.objectives.adversarial_autoencoder import AdversarialAutoencoding
from genae.objectives.objective import Update
from genae.registry import MODELS
from genae.schedule import Phase

PHASE = Phase(
    index=0, resolution=8, fade=1.0, settled=True, batch_size=4, learning_rate=1e-3, margin=0.0, images_seen=0, epoch=0.0
)


def build(**settings) -> AdversarialAutoencoder:
    torch.manual_seed(0)
    return MODELS.build({"name": "aae", **MODELS["aae"].small, "latent_dim": 3, "norm_scale_mean": 1.0, **settings}, (1, 8, 8))


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def updates(model: AdversarialAutoencoder) -> dict[str, Update]:
    return {update.name: update for update in AdversarialAutoencoding(perceptual_weight=0.0).updates(model)}


def terms(model: AdversarialAutoencoder, name: str, seed: int = 1) -> dict[str, Tensor]:
    return updates(model)[name].terms(model, images(), PHASE, torch.Generator().manual_seed(seed))


def draws(means: tuple[float, ...], n: int = 20_000) -> Tensor:
    return GaussianMixture(2, means).sample(n, torch.Generator().manual_seed(0))


def test_each_draw_from_two_gaussians_is_of_one_of_them_in_every_dimension():
    codes = draws((-3.0, 3.0))
    right = codes.sum(1) > 0
    # Half of them each: within 5 standard deviations of a coin's, sqrt(1 / 4 / 20000).
    assert right.float().mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / 20_000))
    for side, mean in ((right, 3.0), (~right, -3.0)):
        assert codes[side].mean(0).tolist() == pytest.approx([mean, mean], abs=0.06)
        torch.testing.assert_close(codes[side].T.cov(), torch.eye(2), atol=0.08, rtol=0)


def test_a_mixture_of_one_is_that_gaussian():
    codes = draws((0.0,))
    assert codes.mean(0).tolist() == pytest.approx([0, 0], abs=0.04)
    torch.testing.assert_close(codes.T.cov(), torch.eye(2), atol=0.05, rtol=0)


@pytest.mark.parametrize(("prior", "means"), [("gaussian", (0.0,)), ("two-gaussians", (-3.0, 3.0))])
def test_codes_are_interpolated_along_straight_lines_whatever_the_prior(prior, means):
    latent = build(prior=prior).latent
    assert latent == GaussianMixture(3, means)
    a, b = torch.tensor([[3.0, 3.0, 0.0]]), torch.tensor([[-3.0, 1.0, 4.0]])
    assert torch.equal(latent.interpolate(a, b, 0.5), torch.tensor([[0.0, 2.0, 2.0]]))  # through the middle, not round it
    torch.testing.assert_close(latent.interpolate(a, b, torch.tensor([[0.25]])), torch.tensor([[1.5, 2.5, 1.0]]))


def test_the_code_discriminator_has_as_many_weights_as_counted_by_hand():
    count = sum(parameter.numel() for parameter in build(hidden=[1000, 1000]).code_discriminator.parameters())
    assert count == (3 * 1000 + 1000) + (1000 * 1000 + 1000) + (1000 + 1)


def test_each_update_moves_exactly_its_part():
    expected = {
        "reconstruct": {"encoder", "decoder"},
        "discriminate": {"code_discriminator"},
        "regularise": {"encoder"},
    }
    model = build()
    assert list(updates(model)) == list(expected)  # in this order
    for name, parts in expected.items():
        assert updates(model)[name].parameters.keys() == parts
        model.zero_grad(set_to_none=True)
        sum(terms(model, name).values()).backward()  # nothing frozen, unlike in training: what else would move shows
        reached = {key.split(".")[0] for key, value in model.named_parameters() if value.grad is not None}
        assert reached == (parts if name != "regularise" else parts | {"code_discriminator"})
        for key, value in model.named_parameters():
            assert key.split(".")[0] not in parts or value.grad.any(), key


def test_the_discriminators_loss_is_its_cross_entropy_on_draws_and_codes():
    model = build(prior="two-gaussians")
    drawn = model.discriminate_codes(model.prior(4, torch.Generator().manual_seed(1)))
    encoded = model.discriminate_codes(model.encode(images()))
    found = terms(model, "discriminate")
    torch.testing.assert_close(found["prior"], F.binary_cross_entropy_with_logits(drawn, torch.ones(4)))
    torch.testing.assert_close(found["codes"], F.binary_cross_entropy_with_logits(encoded, torch.zeros(4)))
    # The encoder wants its codes to be taken for draws.
    found = terms(model, "regularise")
    torch.testing.assert_close(found["codes"], F.binary_cross_entropy_with_logits(encoded, torch.ones(4)))


def test_reconstruction_is_the_mean_square_over_pixels():
    model = build()
    expected = (model.decode(model.encode(images())) - images()).square().mean()
    torch.testing.assert_close(terms(model, "reconstruct")["pixels"], expected)


def test_training_moves_codes_to_both_gaussians_of_the_prior():
    # Two kinds of picture; after training the codes are about as far out as draws from the prior, on both sides.
    torch.manual_seed(0)
    model = build(prior="two-gaussians", latent_dim=2, hidden=[32, 32])
    optimizers = {
        name: torch.optim.Adam([p for group in update.parameters.values() for p in group], lr=3e-3, betas=(0.5, 0.999))
        for name, update in updates(model).items()
    }
    generator = torch.Generator().manual_seed(2)
    for _ in range(250):
        kind = torch.randint(2, (32, 1, 1, 1), generator=generator) * 2.0 - 1
        batch = (0.7 * kind + 0.3 * torch.randn(32, 1, 8, 8, generator=generator)).clamp(-1, 1)
        for name, update in updates(model).items():
            model.zero_grad(set_to_none=True)
            sum(update.terms(model, batch, PHASE, generator).values()).backward()
            optimizers[name].step()
    codes = model.encode(batch).detach().mean(1)
    assert (codes > 1).any()
    assert (codes < -1).any()
    assert 1.5 < codes.abs().mean() < 4.5  # of the prior: 3.0
