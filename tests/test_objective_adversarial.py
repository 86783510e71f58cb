"""The adversarial losses against their formulas, with networks small enough to differentiate by hand."""

import pytest
import torch
from torch import Tensor, nn

from genae.latent import Gaussian
from genae.models.adversarial import AdversarialGenerator
from genae.networks.adain import AdaInDecoder
from genae.networks.discriminator import Discriminator
from genae.registry import OBJECTIVES
from genae.schedule import Growth, Phase

PHASE = Phase(
    index=0, resolution=4, fade=1.0, settled=True, batch_size=6, learning_rate=1e-3, margin=0.0, images_seen=0, epoch=0.0
)
SHAPE = (2, 4, 4)


class Quadratic(nn.Module):
    """D(x) = sum of a x^2 / 2 + b x, whose gradient is a x + b."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.a = nn.Parameter(torch.randn(SHAPE, generator=generator, dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(SHAPE, generator=generator, dtype=torch.float64))

    def forward(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        return (self.a * images.square() / 2 + self.b * images).sum((1, 2, 3))


class Linear(nn.Module):
    """Images that are a linear map of codes."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 32, dtype=torch.float64)

    def forward(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
        return self.map(codes.double()).unflatten(1, SHAPE)


@pytest.fixture
def model() -> AdversarialGenerator:
    torch.manual_seed(0)
    return AdversarialGenerator(Gaussian(3), Linear(), Quadratic())


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2 - 1


def terms(objective: str, update: int, model: AdversarialGenerator, images: Tensor, **settings) -> dict[str, Tensor]:
    chosen = OBJECTIVES.build({"name": objective, **settings}).updates(model)[update]
    return chosen.terms(model, images, PHASE, torch.Generator().manual_seed(3))


def fakes_of(model: AdversarialGenerator, count: int) -> Tensor:
    """The images that a term's first draw makes."""
    return model.decode(torch.randn(count, 3, generator=torch.Generator().manual_seed(3))).detach()


@pytest.mark.parametrize("objective", ["wgan-gp", "non-saturating"])
def test_a_step_is_one_update_of_each_network_the_discriminators_first(objective, model):
    updates = OBJECTIVES.build({"name": objective}).updates(model)
    assert [update.name for update in updates] == ["discriminator", "generator"]
    moved = [{id(p) for group in update.parameters.values() for p in group} for update in updates]
    assert moved == [{id(p) for p in model.discriminator.parameters()}, {id(p) for p in model.decoder.parameters()}]


# WGAN-GP with drift.


def test_the_critic_lowers_fake_minus_real_and_the_drift_of_real(model, images):
    found = terms("wgan-gp", 0, model, images)
    a, b, fakes = model.discriminator.a, model.discriminator.b, fakes_of(model, 6)
    real = torch.stack([(a * x * x / 2 + b * x).sum() for x in images])
    fake = torch.stack([(a * x * x / 2 + b * x).sum() for x in fakes])
    torch.testing.assert_close(found["critic"], fake.mean() - real.mean())
    torch.testing.assert_close(found["drift"], 0.001 * (real**2).mean())  # epsilon_drift


def test_the_gradient_penalty_is_that_of_the_closed_form_between_real_and_fake(model, images):
    found = terms("wgan-gp", 0, model, images)["penalty"]
    a, b, fakes = model.discriminator.a, model.discriminator.b, fakes_of(model, 6)
    draws = torch.Generator().manual_seed(3)
    torch.randn(6, 3, generator=draws)  # the codes
    where = torch.rand(6, generator=draws, dtype=torch.float64)
    norms = []
    for t, real, fake in zip(where, images, fakes, strict=True):
        between = (1 - t) * real + t * fake
        norms.append((a * between + b).square().sum().sqrt())  # grad D = a x + b
    expected = 10 * (torch.stack(norms) - 1).square().mean()
    torch.testing.assert_close(found, expected)
    parameters = list(model.discriminator.parameters())  # and so is what it does to the critic, through two derivatives
    torch.testing.assert_close(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters))


def test_the_generator_of_wgan_raises_the_critics_value(model, images):
    found = terms("wgan-gp", 1, model, images)
    expected = -model.discriminate(fakes_of(model, 6)).mean()
    torch.testing.assert_close(found["critic"].detach(), expected.detach())
    assert set(found) == {"critic"}


def test_the_penalty_of_a_critic_that_is_flat_has_a_gradient(model, images):
    with torch.no_grad():
        model.discriminator.a.zero_(), model.discriminator.b.zero_()
    sum(terms("wgan-gp", 0, model, images).values()).backward()
    assert all(p.grad.isfinite().all() for p in model.discriminator.parameters())


@pytest.mark.parametrize("setting", ["penalty_weight", "r1_weight"])
def test_without_its_weight_a_penalty_is_left_out(setting, model, images):
    objective, term = {"penalty_weight": ("wgan-gp", "penalty"), "r1_weight": ("non-saturating", "r1")}[setting]
    assert term in terms(objective, 0, model, images)
    assert term not in terms(objective, 0, model, images, **{setting: 0.0})


# Non-saturating, with R1.


def test_the_discriminator_lowers_the_cross_entropy_of_real_and_fake(model, images):
    found = terms("non-saturating", 0, model, images)
    real, fake = model.discriminate(images), model.discriminate(fakes_of(model, 6))
    torch.testing.assert_close(found["real"], -torch.sigmoid(real).log().mean())
    torch.testing.assert_close(found["fake"], -(1 - torch.sigmoid(fake)).log().mean())


def test_r1_is_half_gamma_times_the_squared_gradient_at_real_images(model, images):
    found = terms("non-saturating", 0, model, images, r1_weight=10.0)["r1"]
    a, b = model.discriminator.a, model.discriminator.b
    expected = 10 / 2 * torch.stack([(a * x + b).square().sum() for x in images]).mean()
    torch.testing.assert_close(found, expected)
    parameters = list(model.discriminator.parameters())
    torch.testing.assert_close(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters))


def test_the_generator_lowers_minus_log_d_and_not_log_one_minus_d(model, images):
    found = terms("non-saturating", 1, model, images)
    expected = -torch.sigmoid(model.discriminate(fakes_of(model, 6))).log().mean()
    torch.testing.assert_close(found["fake"].detach(), expected.detach())


def test_a_logit_far_from_zero_is_no_infinite_loss(model, images):
    with torch.no_grad():
        model.discriminator.b.fill_(1e4)
    assert all(value.isfinite() for update in (0, 1) for value in terms("non-saturating", update, model, images).values())


# Style mixing.


class Recorder(nn.Module):
    """A decoder of `num_layers` layers that keeps the codes that it was given."""

    grows = True

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.weight = nn.Parameter(torch.ones(()))

    def layers_at(self, growth: Growth | None = None) -> int:
        return self.num_layers - 1  # the last is not grown yet

    def forward(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
        self.codes = codes
        return self.weight * torch.zeros(len(codes), *SHAPE, dtype=torch.float64)


def codes_for(share: float, num_layers: int = 5, count: int = 400) -> Tensor:
    model = AdversarialGenerator(Gaussian(3), Recorder(num_layers), Quadratic())
    images = torch.zeros(count, *SHAPE, dtype=torch.float64)
    terms("non-saturating", 1, model, images, style_mixing=share)
    return model.decoder.codes


def test_a_share_of_images_follows_two_codes_that_change_at_one_of_the_grown_layers():
    codes = codes_for(0.9)  # [400, 5, 3], four layers grown
    changes = (codes[:, 1:4] != codes[:, :3]).any(2)  # between grown layers
    assert set(changes.sum(1).tolist()) == {0, 1}
    share = changes.any(1).double().mean().item()
    assert share == pytest.approx(0.9, abs=3 * (0.9 * 0.1 / 400) ** 0.5)  # three standard errors
    assert changes.any(0).all()  # at every one of the three places


def test_mixing_of_none_and_of_a_single_layer_is_one_code_per_image():
    assert codes_for(0.0).shape == (400, 3)
    assert codes_for(0.9, num_layers=2).shape == (400, 3)  # one layer grown


def test_a_share_that_is_none_is_refused():
    with pytest.raises(ValueError, match="style_mixing is a share"):
        OBJECTIVES.build({"name": "non-saturating", "style_mixing": 1.5})


# The networks that they differentiate twice.


@pytest.mark.parametrize("blur", [False, True])
def test_the_discriminator_can_be_differentiated_twice(blur):
    torch.manual_seed(0)
    network = Discriminator((1, 8, 8), channels=[3, 2], blur=blur).double()

    def smooth(images: Tensor) -> Tensor:
        return network(images, Growth(8, 0.5))

    images = torch.randn(3, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(smooth, (images,))
    assert torch.autograd.gradgradcheck(smooth, (images,), eps=1e-7, atol=1e-4)


@pytest.mark.parametrize("objective", ["wgan-gp", "non-saturating"])
def test_penalties_are_float32_under_autocast(objective):
    torch.manual_seed(0)
    shape = (3, 8, 8)
    model = AdversarialGenerator(Gaussian(4), AdaInDecoder(4, shape, channels=[4]), Discriminator(shape, channels=[4]))
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    phase = Phase(**{**PHASE.__dict__, "resolution": 8})
    found = {}
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            update = OBJECTIVES.build({"name": objective}).updates(model)[0]
            found[enabled] = update.terms(model.eval(), images, phase, torch.Generator().manual_seed(0))
    assert all(value.dtype == torch.float32 for value in found[True].values())
    if objective == "non-saturating":  # of real images alone: not a digit is lost
        assert torch.equal(found[True]["r1"], found[False]["r1"])
    sum(found[True].values()).backward()
    assert all(p.grad.isfinite().all() for p in model.discriminator.parameters() if p.grad is not None)


def test_two_updates_teach_a_generator_a_shifted_gaussian():
    """The game as a whole: codes N(0, 1) in three dimensions must learn to be N(2, 0.5^2) of two pixels."""
    torch.manual_seed(0)

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

        def forward(self, images: Tensor, growth: Growth | None = None) -> Tensor:
            return self.net(images.flatten(1)).squeeze(1)

    class Make(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(3, 2)

        def forward(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
            return self.map(codes).reshape(-1, 1, 1, 2)

    model = AdversarialGenerator(Gaussian(3), Make(), Small())
    updates = OBJECTIVES.build({"name": "wgan-gp"}).updates(model)
    optimizers = [torch.optim.Adam(next(iter(u.parameters.values())), lr=5e-3, betas=(0.0, 0.99)) for u in updates]
    generator = torch.Generator().manual_seed(0)
    for _ in range(600):
        images = 2 + 0.5 * torch.randn(64, 1, 1, 2, generator=generator)
        for update, optimizer in zip(updates, optimizers, strict=True):
            model.zero_grad()
            sum(update.terms(model, images, PHASE, generator).values()).backward()
            optimizer.step()
    made = model.decode(model.prior(2000, generator)).flatten(1)
    torch.testing.assert_close(made.mean(0), torch.full((2,), 2.0), atol=0.5, rtol=0)  # the game circles about it
    torch.testing.assert_close(made.std(0), torch.full((2,), 0.5), atol=0.3, rtol=0)
