"""Perceptual path length against closed forms, with decoders and distances in which a step's length can be written down."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genae.conformance.random_weights import write_random_weights
from genae.context import Context
from genae.data.dataset import Splits
from genae.features.extractor import Distance
from genae.latent import Gaussian, Sphere
from genae.metrics.perceptual_path_length import PathLengthMetric, PerceptualPathLength, PPLEfficientNet, small_step, trimmed
from genae.models.autoencoder import Generator, Latent

NO_DATA = Splits(lambda split: pytest.fail("a path length looks at no data"))


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory) -> Path:
    return write_random_weights(tmp_path_factory.mktemp("weights"), "vgg16").parent


@pytest.fixture
def with_weights(random_weights, monkeypatch) -> None:
    monkeypatch.setenv("GENAE_WEIGHTS", str(random_weights))


class Euclidean(Distance):
    """The squared distance between images."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a.double() - b.double()).square().sum((1, 2, 3))


@dataclass(kw_only=True)
class EuclideanPathLength(PathLengthMetric):
    name: ClassVar[str] = "path"

    def distance(self) -> Distance:
        return Euclidean()

    def weights(self) -> dict:
        return {"published": True}


class Scaled(nn.Module):
    """A decoder that shows the code, times a number, as a row of pixels, and keeps the sizes of the batches it saw."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor, self.batches = factor, []

    def forward(self, codes: Tensor, growth: None) -> Tensor:
        self.batches.append(len(codes))
        return self.factor * codes[:, None, None, :]


def path_length(latent: Latent, factor: float = 1.0, **settings: object) -> float:
    settings = {"num_pairs": 20_000, "trim_percent": 0.0} | settings
    return EuclideanPathLength(**settings).measure(Generator(latent, Scaled(factor)), NO_DATA, Context(batch_size=5000))["path"]


@pytest.mark.parametrize("sampling", ["full", "end"])
def test_on_a_sphere_it_is_the_mean_squared_angle(sampling):
    # two uniform points of the sphere in 3-d are at angle w with density sin(w) / 2, so E[w^2] = pi^2 / 2 - 2;
    # the standard error of 20,000 pairs is 0.015
    assert path_length(Sphere(3), sampling=sampling) == pytest.approx(math.pi**2 / 2 - 2, abs=0.06)


def test_in_many_dimensions_angles_are_right_and_it_is_a_quarter_of_pi_squared():
    assert path_length(Sphere(256), num_pairs=2000) == pytest.approx((math.pi / 2) ** 2, rel=0.01)


@pytest.mark.parametrize("latent", [Sphere(3), Sphere(64), Gaussian(8)])
def test_steps_of_fixed_length_have_that_length_in_every_latent_space(latent):
    assert path_length(latent, step="fixed-length", num_pairs=2000) == pytest.approx(1, rel=2e-3)


def test_it_goes_with_the_square_of_what_the_decoder_does_and_nothing_is_clipped():
    assert path_length(Sphere(3), 1000) == pytest.approx(1e6 * path_length(Sphere(3)), rel=1e-3)


@pytest.mark.parametrize(
    "metric", [PPLEfficientNet(num_pairs=20), PerceptualPathLength(num_pairs=20)], ids=["efficientnet", "ppl"]
)
@torch.inference_mode()
def test_movement_beyond_the_range_counts_in_the_networks_too(metric, with_weights):
    class Beyond(nn.Module):
        """Codes as smooth pictures, all of them brighter than white."""

        def forward(self, codes: Tensor, growth: None) -> Tensor:
            return 2.5 + nn.functional.interpolate(codes.reshape(-1, 3, 2, 2), 64, mode="bilinear")  # every pixel above 1.5

    values = metric.measure(Generator(Sphere(12), Beyond()), NO_DATA, Context())
    assert min(values.values()) > 1e-3
    assert metric.protocol(NO_DATA, Context())["clipped"] is False


def test_it_hardly_depends_on_a_small_epsilon():
    assert path_length(Sphere(3), epsilon=1e-3) == pytest.approx(path_length(Sphere(3), epsilon=1e-4), rel=1e-3)


def test_both_ends_of_a_step_are_decoded_in_one_batch():
    decoder = Scaled()
    EuclideanPathLength(num_pairs=1500).measure(Generator(Sphere(3), decoder), NO_DATA, Context(batch_size=600))
    assert decoder.batches == [1200, 800, 1000]  # both ends of 600, 400 (of the first thousand) and 500 steps


def test_it_does_not_depend_on_the_batch_size():
    model, metric = Generator(Sphere(3), Scaled()), EuclideanPathLength(num_pairs=1500)
    assert metric.measure(model, NO_DATA, Context(batch_size=7)) == metric.measure(model, NO_DATA, Context(batch_size=1500))


def test_the_step_keeps_its_digits():
    # the angle between codes is 90 degrees, so the end of a step from t = 0.3 is epsilon * pi / 2 further
    a, b = torch.eye(2)[:1], torch.eye(2)[1:]
    start, end = small_step(Sphere(2), a, b, torch.tensor([[0.3]], dtype=torch.float64), 1e-4, "slerp")
    assert start.dtype == torch.float32
    assert (end.double() - start.double()).norm().item() == pytest.approx(1e-4 * math.pi / 2, rel=1e-3)


def test_trimming_keeps_the_percentiles_rounded_outwards():
    # of 0..999 the first percentile lies at 9.99 and the last at 989.01
    assert trimmed(np.arange(1000), 1).tolist() == list(range(9, 991))
    assert trimmed(np.arange(1000), 0).tolist() == list(range(1000))
    assert trimmed(np.array([5.0, 1.0]), 1).tolist() == [5.0, 1.0]


def test_the_tails_are_left_out_of_the_value_and_kept_in_the_details():
    class Spike(Scaled):
        def forward(self, codes: Tensor, growth: None) -> Tensor:
            rare = codes[:, None, None, :1] > 0.998  # one code in a thousand; a step there is a hundred times longer
            return super().forward(codes, growth) * torch.where(rare, 100, 1)

    values = EuclideanPathLength(num_pairs=20_000).measure(Generator(Sphere(3), Spike()), NO_DATA, Context(batch_size=5000))
    assert values["untrimmed"] > 2 * values["path"]


def test_large_images_are_averaged_down_and_faces_cropped():
    sizes = []

    class Look(Euclidean):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            sizes.append(a.shape[-1])
            return super().forward(a, b)

    class Canvas(nn.Module):
        def forward(self, codes: Tensor, growth: None) -> Tensor:
            return torch.zeros(len(codes), 1, 1024, 1024)

    @dataclass(kw_only=True)
    class Looking(EuclideanPathLength):
        def distance(self) -> Distance:
            return Look()

    for crop in ("none", "face"):
        Looking(num_pairs=2, crop=crop).measure(Generator(Sphere(3), Canvas()), NO_DATA, Context())
    assert sizes == [256, 256]


def test_the_header_names_whatever_is_not_stylegans_protocol():
    assert PPLEfficientNet().label("ppl-efficientnet") == "ppl-efficientnet"
    other = PPLEfficientNet(num_pairs=1000, step="fixed-length", sampling="end", crop="face", epsilon=1e-3, trim_percent=0)
    assert (
        other.label("ppl-efficientnet")
        == "ppl-efficientnet-1k (epsilon 0.001, 0 % trimmed, fixed-length steps, from path ends, face crop)"
    )
    assert PerceptualPathLength(num_pairs=500).label("ppl").startswith("ppl-500")
