"""Maximum likelihood: of continuous data, of pixels that are counts, in bits and in nats."""

import math

import pytest
import torch
from torch import Tensor, nn

from genae.densities.density import Density
from genae.latent import Gaussian
from genae.models.autoencoder import Generator
from genae.pixels import dequantize, from_uint8, to_uint8
from genae.registry import OBJECTIVES
from genae.schedule import Phase

PHASE = Phase(
    index=0, resolution=4, fade=1.0, settled=True, batch_size=6, learning_rate=1e-3, margin=0.0, images_seen=0, epoch=0.0
)


class Known(Generator):
    """A model whose density is given; it keeps the images that it was asked about."""

    def __init__(self, per_pixel: float) -> None:
        super().__init__(Gaussian(1), nn.Linear(1, 1))
        self.per_pixel = per_pixel

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"log_prob"}

    def log_prob(self, images: Tensor) -> Tensor:
        self.images = images
        return torch.full((len(images),), self.per_pixel * images[0].numel())


def loss(model: Generator, images: Tensor, **settings) -> float:
    objective = OBJECTIVES.build({"name": "likelihood", **settings})
    (value,) = objective.terms(model, images, PHASE, torch.Generator().manual_seed(0)).values()
    return float(value)


def bytes_of(n: int) -> Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_a_density_that_is_uniform_over_the_range_has_8_bits_per_pixel():
    # 256 steps of 2 / 255 in [-1, 1] span 512 / 255: a uniform density is 255 / 512 there, and each count has p = 1 / 256.
    model = Known(math.log(255 / 512))
    images = from_uint8(bytes_of(3))
    assert loss(model, images) == pytest.approx(8, abs=1e-5)
    assert loss(model, images, unit="nats") == pytest.approx(8 * math.log(2), abs=1e-5)
    assert loss(model, images, levels=32) == pytest.approx(5, abs=1e-5)  # Glow's 5-bit images


def test_what_is_continuous_is_taken_as_it_is():
    model, codes = Known(-1.25), torch.randn(5, 7)
    assert loss(model, codes, levels=None, unit="nats") == pytest.approx(1.25)
    assert model.images is codes
    assert loss(model, codes, levels=None, unit="bits") == pytest.approx(1.25 / math.log(2))


def test_noise_keeps_a_pixel_within_its_step_and_fills_the_step():
    counts = bytes_of(200)
    noisy = dequantize(from_uint8(counts), 256, torch.Generator().manual_seed(0))
    assert torch.equal(to_uint8(noisy), counts)
    within = (noisy + 1) * 127.5 - counts + 0.5  # [0, 1)
    assert within.min() > -1e-3
    assert within.max() < 1 + 1e-3
    assert within.mean().item() == pytest.approx(0.5, abs=0.01)
    assert within.std().item() == pytest.approx(1 / math.sqrt(12), abs=0.01)


@pytest.mark.parametrize("levels", [2, 32, 128])
def test_fewer_levels_join_neighbouring_counts(levels):
    counts = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    noisy = dequantize(from_uint8(counts), levels, torch.Generator().manual_seed(0))
    step = 256 // levels
    assert torch.equal(to_uint8(noisy).int() // step, counts.int() // step)
    centre = torch.stack([dequantize(from_uint8(counts), levels, torch.Generator().manual_seed(s)) for s in range(400)]).mean(0)
    expected = ((counts // step).double() * step + (step - 1) / 2) / 127.5 - 1  # the middle of the counts that are joined
    torch.testing.assert_close(centre.double(), expected, atol=0.2 * step / 127.5, rtol=0)


def test_noise_comes_from_the_generator_of_the_step():
    images = from_uint8(bytes_of(2))
    first, again, other = (dequantize(images, 256, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_pixels_between_counts_are_rounded_to_one():
    between = torch.full((1, 1, 2, 2), 100.4) / 127.5 - 1  # of a block that fades in
    noisy = dequantize(between, 256, torch.Generator().manual_seed(0))
    assert torch.equal(to_uint8(noisy), torch.full((1, 1, 2, 2), 100, dtype=torch.uint8))


@pytest.mark.parametrize("levels", [0, 1, 100, 512])
def test_levels_that_256_counts_cannot_be_joined_into_are_refused(levels):
    with pytest.raises(ValueError, match="levels must be a power of two from 2 to 256"):
        OBJECTIVES.build({"name": "likelihood", "levels": levels})


class KnownConditionals(Density):
    """A density whose conditionals are given."""

    def __init__(self, conditionals: Tensor) -> None:
        super().__init__(conditionals.shape[1])
        self.given = conditionals

    def conditionals(self, vectors: Tensor) -> Tensor:
        return self.given


def test_a_floor_caps_the_cost_of_each_dimension():
    # -log(p + 1e-12): at p = 1e-12 it is -log(2e-12), far below never more than 27.6 nats, and at p = 1 it is 0.
    given = torch.tensor([[math.log(1e-12), -1e30], [0.0, -math.inf]])
    found = loss(KnownConditionals(given), torch.zeros(2, 2), levels=None, unit="nats", floor=1e-12)
    cap = 12 * math.log(10)
    assert found == pytest.approx(((cap - math.log(2)) + cap + 0 + cap) / 4, rel=1e-6)


def test_a_floor_asks_for_conditionals_and_for_continuous_vectors():
    objective = OBJECTIVES.build({"name": "likelihood", "levels": None, "floor": 1e-12})
    assert objective.needs == {"log_prob", "conditionals"}
    assert OBJECTIVES.build({"name": "likelihood"}).needs == {"log_prob"}
    with pytest.raises(ValueError, match="levels must be null"):
        OBJECTIVES.build({"name": "likelihood", "floor": 1e-12})
    with pytest.raises(ValueError, match="floor must be a density"):
        OBJECTIVES.build({"name": "likelihood", "levels": None, "floor": -1.0})
