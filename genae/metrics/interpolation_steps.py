"""How images change on the straight line between two codes: `interpolation-step` and `midpoint-overlay`.

Yoo et al. (2019, Sec. 4.2, Fig. 5) interpolate linearly between test images of one domain and of two, and say of the pictures
that only one autoencoder changes shapes continuously, and that another, half-way between a shoe and a face, overlays the two.
Both are counted here, over pairs of test images and by the root mean squared difference of pixels in [-1, 1]:

    interpolation-step = max_i |x_i+1 - x_i| / mean_i |x_i+1 - x_i|,     x_i what the line decodes to at its i-th of n steps
    midpoint-overlay   = |x_1/2 - (x_0 + x_1) / 2| / (|x_1 - x_0| / 2)

The first is 1 where every step changes as much, and n where all of the change is one jump. The second is 0 where the middle is
the average of the two ends, as a linear decoder's is, and 1 where it is as far from that as the ends themselves are, one of
which it may be.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.latent import line
from genae.metrics.images import another, real_images
from genae.metrics.metric import NOISE_INPUTS, Metric, NotDefined
from genae.models.autoencoder import Autoencoder
from genae.registry import METRICS

Pairs = Literal["any", "within-first", "within-second", "across"]
WORDS = {"within-first": "within the first domain", "within-second": "within the second domain", "across": "across domains"}


@dataclass(kw_only=True)
class InterpolationMetric(Metric):
    """A number per pair of test images, averaged over the pairs whose ends do not decode to the same picture.

    Detail: `still`, the share of the pairs that do, and are left out.

    pairs: of any test images; of two from the first domain or the second; or of one from each (`across`). Which domain an image
        is of is the factor `domain` of its data set, 0 or 1.
    num_pairs: drawn.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode"})
    pairs: Pairs = "any"
    num_pairs: Annotated[int, Ge(1)] = 500

    def positions(self) -> list[float]:
        """Where on the line to look, from 0 to 1."""
        raise NotImplementedError

    def score(self, path: Tensor) -> Tensor:
        """The number of each of P pairs, not finite where it has none. path: [T, P, C, H, W], what was decoded."""
        raise NotImplementedError

    def measure(self, model: Autoencoder, data: Splits, context: Context) -> dict[str, float]:
        scores = torch.cat([self.score(path.double()) for path in self._paths(model, data, context)])
        counted = scores[scores.isfinite()]
        if not len(counted):
            raise NotDefined("the ends of every pair decode to the same picture")
        return {self.name: counted.mean().item(), "still": 1 - len(counted) / len(scores)}

    def _paths(self, model: Autoencoder, data: Splits, context: Context) -> Iterator[Tensor]:
        """What the line between each pair decodes to, [T, P, C, H, W] for a few pairs at a time."""
        start, end = pairs_of(data.test, self.pairs, self.num_pairs, context.generator("pairs"))
        codes = torch.cat([model.encode(images) for images in real_images(data.test, context)])
        positions = self.positions()
        at_once = max(1, context.batch_size // len(positions))
        for rows in torch.stack([start, end]).split(at_once, 1):
            a, b = codes[rows[0]], codes[rows[1]]
            along = torch.cat([line(a, b, t) for t in positions])  # [T P, D]
            yield model.decode(along).clamp(-1, 1).unflatten(0, (len(positions), len(a)))

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        return super().protocol(data, context) | {
            "images": {"split": data.test.split, "digest": data.test.digest, "count": len(data.test)},
            "path": "straight line",
            "range": [-1, 1],
            "clipped": True,
            "rounded": False,
            "noise": NOISE_INPUTS,
            "dtype": {"images": "float32", "distances": "float64"},
            "seed": context.seed,
        }

    def notes(self) -> list[str]:
        return super().notes() + ([] if self.pairs == "any" else [WORDS[self.pairs]])


@METRICS.add("interpolation-step", small={"num_pairs": 6, "num_steps": 4})
@dataclass(kw_only=True)
class InterpolationStep(InterpolationMetric):
    """The largest step of an interpolation over its mean step, from 1 (even) to the number of steps (one jump).

    num_steps: of equal length in latent space.
    """

    name: ClassVar[str] = "interpolation-step"
    num_steps: Annotated[int, Ge(2)] = 10

    def positions(self) -> list[float]:
        return [step / self.num_steps for step in range(self.num_steps + 1)]

    def score(self, path: Tensor) -> Tensor:
        steps = apart(path[1:], path[:-1])  # [T - 1, P]
        return steps.amax(0) / steps.mean(0)

    def notes(self) -> list[str]:
        return super().notes() + ([] if self.num_steps == InterpolationStep.num_steps else [f"{self.num_steps} steps"])


@METRICS.add("midpoint-overlay", small={"num_pairs": 6})
@dataclass(kw_only=True)
class MidpointOverlay(InterpolationMetric):
    """How far the middle of an interpolation is from the overlay of its ends, in units of how far the ends are from it."""

    name: ClassVar[str] = "midpoint-overlay"
    direction: ClassVar[str] = "max"

    def positions(self) -> list[float]:
        return [0.0, 0.5, 1.0]

    def score(self, path: Tensor) -> Tensor:
        first, middle, last = path
        return apart(middle, (first + last) / 2) / (apart(first, last) / 2)


def pairs_of(data: Dataset, pairs: Pairs, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The rows of `count` pairs of different images, drawn: [count] each. Raises NotDefined where the data have none."""
    if pairs == "any":
        first = second = torch.arange(len(data))
    else:
        if "domain" not in data.factors:
            raise NotDefined(f"{data.name} is not of two domains: it has no factor `domain`")
        rows = [torch.from_numpy(np.flatnonzero(np.asarray(data.factors["domain"]) == domain)) for domain in (0, 1)]
        first, second = {"within-first": (rows[0], rows[0]), "within-second": (rows[1], rows[1]), "across": rows}[pairs]
    if len(first) < 2 or len(second) < 2:
        raise NotDefined(f"{data.name} has {len(first)} and {len(second)} images to pair; it takes at least 2")
    start = torch.randint(len(first), (count,), generator=generator)
    if pairs == "across":
        end = torch.randint(len(second), (count,), generator=generator)
    else:
        end = another(start, len(second), generator)
    return first[start], second[end]


def apart(a: Tensor, b: Tensor) -> Tensor:
    """The root mean squared difference of images [..., C, H, W] -> [...]."""
    return (a - b).square().mean((-3, -2, -1)).sqrt()
