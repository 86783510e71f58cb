"""Perceptual path length (Karras et al., 2019, section 4.1), on the latent space's own path: how evenly images change along it.

    PPL = E[ d(G(path(a, b, t)), G(path(a, b, t + eps))) / eps^2 ],  eps = 1e-4

a and b are drawn codes, path is spherical interpolation, t is uniform in [0, 1] (`full`) or 0 (`end`), and the smallest and
largest percent of the distances are left out before averaging. Images stay floats, unclipped, all the way into d: rounded to 8
bits, a step of 1e-4 drowns. Noise inputs are the same at both ends of a step, as eval mode has one fixed draw of them; both go
through the decoder in one batch, so that rounding too is alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Splits
from genae.features import lpips
from genae.features.extractor import Distance
from genae.metrics.images import draws
from genae.metrics.metric import NOISE_INPUTS, Metric, check_at_least, short_count, weights_notes
from genae.metrics.perceptual_distance import OverEfficientNet
from genae.models.autoencoder import Generator, Latent
from genae.pixels import face_crop, reduce
from genae.registry import FEATURES, METRICS

PUBLISHED_PAIRS = 100_000
LARGEST = 256  # pixels; StyleGAN averages larger images down to this before comparing them


@dataclass(kw_only=True)
class PathLengthMetric(Metric):
    """The mean squared perceptual length of small steps between drawn codes.

    num_pairs: steps measured; another count than 100,000 shows in the column's name.
    epsilon: the step. Of t along the path (`slerp`, StyleGAN's), or a length in latent space (`fixed-length`, the sentence of
        Heljakka et al., 2020), which is smaller by the path's length: (pi / 2)^2 in the result, on a sphere.
    sampling: steps from anywhere on the path (`full`), or from its first end.
    crop: `face` looks only at the half-size window about the face of an aligned portrait.
    trim_percent: left out at each end, at the order statistics just inside (the lower one below, the higher one above).
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"decode", "sample"})
    num_pairs: int = PUBLISHED_PAIRS
    epsilon: float = 1e-4
    step: Literal["slerp", "fixed-length"] = "slerp"
    sampling: Literal["full", "end"] = "full"
    crop: Literal["none", "face"] = "none"
    trim_percent: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(1, num_pairs=self.num_pairs)
        if self.epsilon <= 0:
            raise ValueError(f"epsilon must be positive, not {self.epsilon}")
        if not 0 <= self.trim_percent < 50:
            raise ValueError(f"trim_percent must be from 0 to 50, not {self.trim_percent}")

    def distance(self) -> Distance:
        """The perceptual distance of a step. Raises MissingWeights."""
        raise NotImplementedError

    def weights(self) -> dict[str, Any]:
        """The weights in use, as genae.features.weights.used gives them."""
        raise NotImplementedError

    def measure(self, model: Generator, data: Splits, context: Context) -> dict[str, float]:
        distance = self.distance().to(context.device)
        lengths = []
        for start, end in self._steps(model, context):
            images = model.decode(torch.cat([start, end]))
            if self.crop == "face":
                images = face_crop(images)
            if images.shape[-1] > LARGEST:
                images = reduce(images, LARGEST)
            lengths.append(distance(*images.chunk(2)).double().cpu() / self.epsilon**2)
        lengths = torch.cat(lengths).numpy()
        return {self.name: float(trimmed(lengths, self.trim_percent).mean()), "untrimmed": float(lengths.mean())}

    def _steps(self, model: Generator, context: Context) -> Iterator[tuple[Tensor, Tensor]]:
        """Both ends of every step, [n, D] each. The path too is walked on the CPU: the same codes on every device."""
        generator = context.generator("pairs")
        for num in draws(self.num_pairs):
            a, b = model.sample_codes(num, generator), model.sample_codes(num, generator)
            t = torch.rand(num, 1, generator=generator, dtype=torch.float64)
            if self.sampling == "end":
                t = torch.zeros_like(t)
            start, end = small_step(model.latent, a, b, t, self.epsilon, self.step)
            start, end = start.to(context.device), end.to(context.device)
            yield from zip(start.split(context.batch_size), end.split(context.batch_size), strict=True)

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        return super().protocol(data, context) | {
            "weights": self.weights(),
            "rounded": False,
            "clipped": False,
            "noise": NOISE_INPUTS,
            "dtype": {"codes": "float32", "images": "float32", "path": "float64"},
            "seed": context.seed,
        }

    def notes(self) -> list[str]:
        notes = super().notes()
        if self.epsilon != 1e-4:
            notes.append(f"epsilon {self.epsilon:g}")
        if self.trim_percent != 1:
            notes.append(f"{self.trim_percent:g} % trimmed")
        notes += [f"{self.step} steps"] if self.step != "slerp" else []
        notes += ["from path ends"] if self.sampling == "end" else []
        notes += ["face crop"] if self.crop == "face" else []
        return notes + weights_notes(self.weights())

    def label(self, name: str) -> str:
        counted = "" if self.num_pairs == PUBLISHED_PAIRS else f"-{short_count(self.num_pairs)}"
        return super().label(name + counted)


@METRICS.add("ppl", small={"num_pairs": 4})
@dataclass(kw_only=True)
class PerceptualPathLength(PathLengthMetric):
    """Perceptual path length, by LPIPS over VGG16."""

    name: ClassVar[str] = "ppl"
    net: Literal["alex", "vgg"] = "vgg"

    def distance(self) -> Distance:
        return FEATURES.build({"name": "lpips", "net": self.net})

    def weights(self) -> dict[str, Any]:
        return lpips.used(self.net)

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        return super().protocol(data, context) | {"resize": f"area average to {LARGEST}x{LARGEST} if larger"}

    def notes(self) -> list[str]:
        return super().notes() + lpips.notes(self.net) + ([] if self.net == "vgg" else [self.net])


@METRICS.add("ppl-efficientnet", small={"num_pairs": 4})
@dataclass(kw_only=True)
class PPLEfficientNet(OverEfficientNet, PathLengthMetric):
    """Path length by the distance of pd-efficientnet: needs no download, is not PPL."""

    name: ClassVar[str] = "ppl-efficientnet"


def small_step(latent: Latent, a: Tensor, b: Tensor, t: Tensor, epsilon: float, step: str) -> tuple[Tensor, Tensor]:
    """The codes at t on the path from a to b and a small step further. a, b: [N, D].  t: [N, 1], float64.

    The path is taken in float64: in float32 a step of 1e-4 keeps three digits.
    """
    wide_a, wide_b = a.double(), b.double()
    start, end = latent.interpolate(wide_a, wide_b, t), latent.interpolate(wide_a, wide_b, t + epsilon)
    if step == "fixed-length":
        speed = (end - start).norm(dim=-1, keepdim=True) / epsilon  # of the path at t, per unit of t
        end = latent.interpolate(wide_a, wide_b, t + epsilon / speed)
    return start.to(a.dtype), end.to(a.dtype)


def trimmed(values: np.ndarray, percent: float) -> np.ndarray:
    """The values without the smallest and largest `percent`: StyleGAN's rule, percentiles rounded outwards, ends kept."""
    low = np.quantile(values, percent / 100, method="lower")
    high = np.quantile(values, 1 - percent / 100, method="higher")
    return values[(values >= low) & (values <= high)]
