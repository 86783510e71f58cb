"""`parzen`: the log likelihood of test images under a Gaussian kernel about each of 10,000 samples (Breuleux et al., 2011).

    log p(x) = log 1/M sum_j exp(-|x - s_j|^2 / (2 sigma^2)) - d log(sigma sqrt(2 pi))

in nats, of the d pixels of an image in [0, 1]; the bandwidth sigma is the one of a grid under which validation images are most
likely. It must agree with the sum as Goodfellow et al. (2014) and Yoo et al. (2019, Sec. 4.4) take it. All distances come from
one matrix product in float64, which serves every bandwidth of the grid.

Theis et al. (2016, Sec. 3.2) show that the number says little of a model: it is far from the model's own likelihood even with
millions of samples, ranks models otherwise, and is beaten by the centroids of k-means. A table that has it needs another beside
it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from genae.cache import cached_folder
from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.metrics.frechet import Statistics, statistics_of
from genae.metrics.images import real_images, samples
from genae.metrics.metric import NOISE_INPUTS, Metric, check_at_least, short_count
from genae.models.autoencoder import Generator
from genae.pixels import to_unit
from genae.registry import METRICS

PUBLISHED_COUNT = 10_000
DISTANCES_AT_ONCE = 4_000_000  # 32 MB of them
TRIED_BEYOND = 8  # bandwidths at a time, where the best of a grid is its first or last
LARGEST_RATIO = 1.25  # of one to the next there
MOST_BEYOND = 20  # such times: by a factor of 1e15


@dataclass(kw_only=True)
class Bandwidths:
    """The bandwidths to choose from: `num_sigmas` from `lowest` to `highest`, at equal steps (`linear`) or ratios (`log`).

    Where the best is at an end, the grid is carried on beyond it until it is not, in the ratio of the two bandwidths there (at
    most 1.25); the detail `grid` then says so.
    """

    lowest: float = 0.1
    highest: float = 0.29
    num_sigmas: int = 20
    spacing: Literal["linear", "log"] = "linear"

    def __post_init__(self) -> None:
        check_at_least(2, num_sigmas=self.num_sigmas)
        if not 0 < self.lowest < self.highest < math.inf:
            raise ValueError(f"lowest must be positive and below highest, not {self.lowest:g} against {self.highest:g}")

    def grid(self) -> list[float]:
        """The bandwidths, from the smallest."""
        shares = [index / (self.num_sigmas - 1) for index in range(self.num_sigmas)]
        if self.spacing == "linear":
            return [self.lowest + share * (self.highest - self.lowest) for share in shares]
        return [self.lowest * (self.highest / self.lowest) ** share for share in shares]


@METRICS.add(
    "parzen", small={"num_generated": 8, "num_test": 6, "num_validation": 4, "lowest": 0.2, "highest": 0.6, "num_sigmas": 3}
)
@dataclass(kw_only=True)
class Parzen(Bandwidths, Metric):
    """Mean Parzen-window log likelihood of test images, in nats.

    Details: `sigma`, the bandwidth; `standard_error` of the mean over test images (it knows nothing of another draw of samples,
    or of another bandwidth); `validation`, the mean that chose the bandwidth; `floor`, the same number of as many draws from a
    Gaussian with the mean and covariance of the training pixels, clipped to [0, 1], with a bandwidth of its own.

    num_generated: samples; another count than 10,000 shows in the column's name.
    num_validation, num_test: only the first so many images of the split; None for all.
    The grid's defaults are Yoo et al.'s for MNIST; for TFD they have 40 bandwidths from 0.001 to 0.196.
    """

    name: ClassVar[str] = "parzen"
    needs: ClassVar[frozenset[str]] = frozenset({"decode", "sample"})
    direction: ClassVar[str] = "max"
    num_generated: int = PUBLISHED_COUNT
    num_validation: int | None = None
    num_test: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, num_generated=self.num_generated)
        check_at_least(2, num_validation=self.num_validation, num_test=self.num_test)

    def measure(self, model: Generator, data: Splits, context: Context) -> dict[str, float | str]:
        centers = torch.cat([flat(images) for images in samples(model, self.num_generated, context, rounded=False)])
        broken = int((~centers.isfinite().all(1)).sum())
        if broken:
            raise ValueError(f"{broken} of {len(centers)} samples hold NaN")
        found = self._window(centers, data, context)
        floor = self._floor(data, context)
        return {self.name: found.pop("mean")} | found | {"floor": floor["mean"], "floor_sigma": floor["sigma"]}

    def _window(self, centers: Tensor, data: Splits, context: Context) -> dict[str, float | str]:
        """The mean over test images of a window about centers [M, d], and how its bandwidth was found."""
        validation, test = self._images(data)
        known = torch.cat([flat(images) for images in real_images(validation, context)])
        sigma, likelihood, grid = best_bandwidth(centers, known, self.grid())
        held_out = torch.cat([flat(images) for images in real_images(test, context)])
        nats = log_likelihoods(centers, held_out, [sigma])[0]
        return {
            "mean": nats.mean().item(),
            "standard_error": nats.std(correction=0).item() / math.sqrt(len(nats)),
            "sigma": sigma,
            "grid": grid,
            "validation": likelihood,
        }

    def _floor(self, data: Splits, context: Context) -> dict[str, float | str]:
        """The window about draws from a Gaussian fitted to the training pixels; the same for every model, so it is kept."""
        key = {
            "splits": [[part.digest, len(part)] for part in (data.train, *self._images(data))],
            "settings": asdict(self),
            "seed": context.seed,
            "device": context.device.type,
        }

        def build(folder: Path) -> None:
            pixels = statistics_of(flat(images) for images in real_images(data.train, context))
            draws = gaussian_draws(pixels, self.num_generated, context.generator("draws of the floor")).clamp(0, 1)
            (folder / "floor.json").write_text(json.dumps(self._window(draws, data, context)))

        return json.loads((cached_folder("parzen-floor", key, build) / "floor.json").read_text())

    def _images(self, data: Splits) -> tuple[Dataset, Dataset]:
        """Those that choose the bandwidth, and those that are measured."""
        if data.validation.digest == data.test.digest:
            raise ValueError("parzen chooses its bandwidth on other images than it measures; here they are the same")
        return data.validation.first(self.num_validation), data.test.first(self.num_test)

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        parts = zip(("validation", "images"), self._images(data), strict=True)
        return (
            super().protocol(data, context)
            | {use: {"split": part.split, "digest": part.digest, "count": len(part)} for use, part in parts}
            | {
                "range": [0, 1],
                "clipped": True,
                "rounded": False,
                "noise": NOISE_INPUTS,
                "dtype": "float64",
                "seed": context.seed,
            }
        )

    def notes(self) -> list[str]:
        return super().notes() + ([] if self.num_test is None else [f"{self.num_test} images"])

    def label(self, name: str) -> str:
        counted = "" if self.num_generated == PUBLISHED_COUNT else f"-{short_count(self.num_generated)}"
        return super().label(name + counted)


def flat(images: Tensor) -> Tensor:
    """Images [N, C, H, W] in [-1, 1] -> float64 [N, d] in [0, 1]."""
    return to_unit(images).flatten(1).double()


def log_likelihoods(centers: Tensor, points: Tensor, sigmas: Sequence[float]) -> Tensor:
    """log p(x) of points [N, d] under an equal mixture of Gaussians about centers [M, d], for each of S bandwidths: [S, N].

    All float64. The largest term of each sum is taken out of it, so nothing under- or overflows, and its distance is taken from
    the differences themselves: what the matrix product has lost to cancellation cannot reach it.
    """
    middle = centers.mean(0)  # small numbers lose fewer digits
    centers, points = centers - middle, points - middle
    count, dims = centers.shape
    lengths = centers.square().sum(1)  # [M]
    widths = torch.tensor(sigmas, dtype=torch.float64, device=points.device)[:, None]  # [S, 1]
    found = []
    for chunk in points.split(max(1, DISTANCES_AT_ONCE // count)):
        excess = torch.addmm(lengths, chunk, centers.T, alpha=-2)  # |x - s|^2 - |x|^2, [n, M]
        least, nearest = excess.min(1, keepdim=True)
        excess -= least
        terms = torch.empty_like(excess)
        sums = [torch.mul(excess, -0.5 / sigma**2, out=terms).exp_().sum(1) for sigma in sigmas]  # [n], in [1, M]
        distance = (chunk - centers[nearest[:, 0]]).square().sum(1)  # of the nearest, [n]
        found.append(torch.stack(sums).log() - distance / (2 * widths**2))
    return torch.cat(found, 1) - math.log(count) - dims * (widths * math.sqrt(2 * math.pi)).log()


def best_bandwidth(centers: Tensor, points: Tensor, grid: Sequence[float]) -> tuple[float, float, str]:
    """The bandwidth under which points [N, d] are most likely: (it, the mean log likelihood there, what became of the grid).

    Raises ValueError where there is none: the narrower the better, because every point is one of the centers.
    """

    def means(sigmas: Sequence[float]) -> list[tuple[float, float]]:
        return list(zip(sigmas, log_likelihoods(centers, points, sigmas).mean(1).tolist(), strict=True))

    tried, carried_on = means(grid), ""
    for _ in range(MOST_BEYOND):
        best = max(tried, key=lambda pair: pair[1])
        if best not in (tried[0], tried[-1]):
            return *best, f"{len(grid)} bandwidths{carried_on}"
        first = best == tried[0]
        carried_on = f", carried on from its {'first' if first else 'last'}, which was the best of them"
        if first:
            ratio = min(tried[1][0] / tried[0][0], LARGEST_RATIO)
            tried = means([best[0] / ratio**step for step in range(TRIED_BEYOND, 0, -1)]) + tried
        else:
            ratio = min(tried[-1][0] / tried[-2][0], LARGEST_RATIO)
            tried += means([best[0] * ratio**step for step in range(1, TRIED_BEYOND + 1)])
    raise ValueError(f"no bandwidth is the best: {best[0]:.2g} is better than any wider; are the samples copies of the images?")


def gaussian_draws(statistics: Statistics, count: int, generator: torch.Generator) -> Tensor:
    """Vectors [count, d] from the Gaussian with this mean and covariance, which may be singular."""
    root = statistics.root
    if root is None:
        values, vectors = torch.linalg.eigh(statistics.covariance)
        root = values.clamp(min=0).sqrt()[:, None] * vectors.T  # root^T root is the covariance
    noise = torch.randn(count, len(root), generator=generator, dtype=torch.float64).to(root.device)
    return statistics.mean + noise @ root
