"""The factor metrics on models that do exactly one thing: every score is known without measuring.

A toy face is a picture of 4 pixels, one per factor; its code is the picture; layer k of its decoder paints the pixels it owns
from its own code. The regressor is replaced by one that reads pixels, so nothing here is learned.
"""

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genae.context import Context
from genae.data.dataset import Dataset, Factor, Splits
from genae.latent import Gaussian
from genae.metrics import factors
from genae.metrics.factor_conditional import FactorConditional, spread
from genae.metrics.factor_invariance import FactorInvariance
from genae.metrics.factor_mixing import FactorMixing
from genae.metrics.metric import NotDefined
from genae.models.autoencoder import Autoencoder

FACTORS = (
    Factor("azimuth", "coarse", "a number", -1, 1),
    Factor("hair_style", "coarse", "a choice", choices=("short", "long", "curly")),
    Factor("hair_color", "fine", "a choice", choices=("black", "brown", "red", "blond", "grey", "blue")),
    Factor("skin_tone", "fine", "a number"),
)
LAYERS, COUNT = 3, 600


class Pixels:
    """Reads each factor off its own pixel: a number as it is, a choice as index / 10."""

    factors = FACTORS

    def read(self, images: Iterable[Tensor]) -> dict[str, Tensor]:
        pixels = torch.cat([batch.flatten(1) for batch in images])
        return {
            factor.name: (pixels[:, index] * 10).round().long() if factor.choices else pixels[:, index]
            for index, factor in enumerate(FACTORS)
        }


class Prior(Gaussian):
    """Codes are faces drawn as the data are."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return painted(drawn_factors(n, generator))

    def project(self, codes: Tensor) -> Tensor:
        return codes


class Encoder(nn.Module):
    def forward(self, images: Tensor, growth: object) -> Tensor:
        return images.flatten(1)


class Decoder(nn.Module):
    """Pixel k of the picture is pixel k of the code of layer `owners[k]`, counted from 1; None: always `blank`."""

    num_layers, layer_resolutions = LAYERS, (4, 8, 16)

    def __init__(self, owners: tuple[int | None, ...], blank: float = 0.0) -> None:
        super().__init__()
        self.owners, self.blank, self.anchor = owners, blank, nn.Parameter(torch.zeros(()))

    def forward(self, codes: Tensor, growth: object) -> Tensor:
        layered = codes[:, None].expand(-1, LAYERS, -1) if codes.ndim == 2 else codes
        pixels = [
            torch.full_like(layered[:, 0, 0], self.blank) if owner is None else layered[:, owner - 1, index]
            for index, owner in enumerate(self.owners)
        ]
        return torch.stack(pixels, 1).reshape(-1, 1, 2, 2)


def drawn_factors(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    uniform = torch.rand(len(FACTORS), count, generator=generator)
    return {
        factor.name: (u * len(factor.choices)).long() if factor.choices else factor.low + (factor.high - factor.low) * u
        for factor, u in zip(FACTORS, uniform, strict=True)
    }


def painted(values: dict[str, Tensor]) -> Tensor:
    """Factors -> pixels [N, 4]."""
    return torch.stack([values[f.name] / 10 if f.choices else values[f.name] for f in FACTORS], 1)


def model(*owners: int | None) -> Autoencoder:
    return Autoencoder(Prior(4), Encoder(), Decoder(owners)).eval()


PERFECT = model(1, 1, 3, 3)


@pytest.fixture(autouse=True)
def toy_faces(monkeypatch):
    """Images are stored with their factors, and read exactly: 8 bits would round them."""
    monkeypatch.setattr(factors, "factor_regressor", lambda train, device: Pixels())
    monkeypatch.setattr(factors, "real_images", lambda dataset, context: iter(torch.tensor(dataset.images).split(100)))


def splits(count: int = COUNT) -> Splits:
    def open_split(name: str) -> Dataset:
        values = drawn_factors(count, torch.Generator().manual_seed(len(name)))
        images = painted(values).reshape(-1, 1, 2, 2).numpy()
        return Dataset("toy", name, images, name, {key: value.numpy() for key, value in values.items()}, FACTORS)

    return Splits(open_split)


@torch.inference_mode()
def measured(metric: factors.FactorMetric, of: Autoencoder, **context: object) -> dict[str, float | str]:
    return metric.measure(of, splits(), Context(**context))


# Mixing.


def test_a_decoder_of_coarse_and_fine_layers_mixes_perfectly():
    found = measured(FactorMixing(), PERFECT)
    assert [found[key] for key in ("factor-mixing", "j1", "j2", "ceiling", "coarse", "fine")] == [1.0] * 6


@pytest.mark.parametrize(("layer", "coarse", "fine"), [(1, 1.0, 0.0), (3, 0.0, 1.0)])
def test_a_decoder_that_heeds_one_face_alone_has_one_half(layer, coarse, fine):
    found = measured(FactorMixing(), model(*[layer] * 4))
    assert (found["factor-mixing"], found["coarse"], found["fine"]) == (0.5, coarse, fine)


def test_every_split_has_its_own_score():
    found = measured(FactorMixing(), model(2, 2, 3, 3))  # coarse factors in the layer that is B's at j = 1
    assert (found["j1"], found["j2"], found["factor-mixing"]) == (0.5, 1.0, 0.75)
    assert (found["azimuth.j1"], found["azimuth.j2"], found["hair_color.j1"]) == (0.0, 1.0, 1.0)


def test_chance_is_what_an_unrelated_face_would_score():
    found = measured(FactorMixing(num_pairs=40_000), PERFECT)
    # A choice of k, independent of A: 1/k. A number: by symmetry of A and B, 1/2. Each scale has one of each.
    expected = ((1 / 3 + 1 / 2) / 2 + (1 / 6 + 1 / 2) / 2) / 2
    assert found["chance"] == pytest.approx(expected, abs=0.02)


def test_a_factor_that_reconstructions_lose_is_not_scored_and_is_said():
    found = measured(FactorMixing(), model(1, None, 3, 3))
    assert (found["carried"], found["not_carried"]) == ("azimuth, hair_color, skin_tone", "hair_style")
    assert found["factor-mixing"] == 1.0
    assert found["hair_style.reconstructed"] == pytest.approx(1 / 3, abs=0.06)  # always the first choice
    assert found["hair_style.drawn"] == 1.0


def test_where_a_whole_scale_is_lost_there_is_no_score():
    with pytest.raises(NotDefined, match="no fine factor is read back from reconstructions; carried are: azimuth, hair_style"):
        measured(FactorMixing(), model(1, 1, None, None))


def test_an_untrained_decoder_is_measured_beside_the_trained_one():
    found = measured(FactorMixing(), PERFECT, untrained=lambda: model(1, 1, 1, 1))
    assert (found["factor-mixing"], found["untrained"], found["fine.untrained"]) == (1.0, 0.5, 0.0)
    assert "untrained" not in measured(FactorMixing(), PERFECT)


def test_a_decoder_of_one_layer_mixes_nothing():
    with pytest.raises(NotDefined, match="one layer"):
        FactorMixing().splits(1)


def test_the_regressor_must_not_have_seen_the_images_it_reads():
    same = splits().test
    with pytest.raises(ValueError, match="here they are the same"):
        FactorMixing().measure(PERFECT, Splits(lambda split: same), Context())


@pytest.mark.parametrize("factor", FACTORS, ids=[factor.name for factor in FACTORS])
def test_following_is_counted_pair_by_pair(factor):
    generator = torch.Generator().manual_seed(0)
    truth, read = drawn_factors(40, generator)[factor.name], drawn_factors(90, generator)[factor.name]
    own, other = torch.randint(40, (2, 90), generator=generator)
    counted = []
    for reading, mine, others in zip(read.tolist(), truth[own].tolist(), truth[other].tolist(), strict=True):
        if factor.choices and mine != others:
            counted.append(reading == mine)
        elif not factor.choices and abs(mine - others) >= (factor.high - factor.low) / 4:
            counted.append(abs(reading - mine) < abs(reading - others))
    assert 0 < len(counted) < 90
    assert factors.follows(factor, read, truth, own, other) == pytest.approx(sum(counted) / len(counted))


# Invariance.


def test_the_pose_of_the_driver_and_all_else_of_the_source_is_perfect():
    found = measured(FactorInvariance(), model(1, 3, 3, 3))
    assert [found[key] for key in ("factor-invariance", "pose", "identity", "ceiling")] == [1.0] * 4


def test_what_the_driver_takes_along_counts_against_identity():
    found = measured(FactorInvariance(), model(2, 1, 3, 3))  # layers 1 and 2 carry the pose, and the hair style with it
    assert (found["pose"], found["identity"]) == (1.0, pytest.approx(2 / 3))
    assert found["factor-invariance"] == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("layer", [1, 3])
def test_ignoring_the_driver_or_the_source_has_one_half(layer):
    assert measured(FactorInvariance(), model(*[layer] * 4))["factor-invariance"] == 0.5


def test_invariance_needs_a_layer_for_the_source():
    with pytest.raises(NotDefined, match="3 layers, and 3 of them"):
        FactorInvariance(layers=3).splits(LAYERS)


def test_without_the_pose_there_is_no_invariance_to_speak_of():
    with pytest.raises(NotDefined, match="no azimuth is read back"):
        measured(FactorInvariance(), model(None, 3, 3, 3))


# Conditional samples.


def test_samples_that_keep_coarse_and_redraw_fine_factors_are_near_perfect():
    found = measured(FactorConditional(num_faces=300), PERFECT)
    assert found["kept"] == 1.0
    assert found["varied"] == pytest.approx(1.0, abs=0.05)  # the prior is the data's distribution
    assert found["factor-conditional"] == pytest.approx(found["kept"] * found["varied"])


def test_samples_that_ignore_the_drawn_layers_have_nothing():
    found = measured(FactorConditional(), model(1, 1, 1, 1))
    assert (found["factor-conditional"], found["kept"], found["varied"]) == (0.0, 1.0, 0.0)


def test_samples_that_ignore_the_face_have_chance():
    found = measured(FactorConditional(), model(3, 3, 3, 3))
    assert found["factor-conditional"] == pytest.approx(found["chance"])
    assert found["kept"] == pytest.approx((1 / 3 + 1 / 2) / 2, abs=0.05)


def test_a_factor_that_varies_half_as_much_says_so():
    class Half(Prior):
        def sample(self, n: int, generator: torch.Generator) -> Tensor:
            codes = super().sample(n, generator)
            codes[:, 3] = 0.5 + (codes[:, 3] - 0.5) * 0.5**0.5  # half the variance
            return codes

    found = measured(FactorConditional(num_faces=600), Autoencoder(Half(4), Encoder(), Decoder((1, 1, 3, 3))).eval())
    assert found["skin_tone.j1"] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("factor", [FACTORS[0], FACTORS[2]], ids=["number", "choice"])
def test_spread_is_the_mean_over_pairs_of_one_group(factor):
    readings = drawn_factors(12, torch.Generator().manual_seed(3))[factor.name].reshape(3, 4)
    pairs = [pair for group in readings.tolist() for pair in itertools.combinations(group, 2)]
    expected = np.mean([a != b if factor.choices else (a - b) ** 2 / 2 for a, b in pairs])
    assert spread(factor, readings) == pytest.approx(expected)
