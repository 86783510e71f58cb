"""Codes of images by optimisation through a decoder, as for a GAN, which has no encoder (Abdal et al., 2019; Puzer, 2019).

    z = argmin d(G(z), x) + w mean (G(z) - x)^2

by Adam, every code brought back into its latent space after each step (on the sphere, to norm 1). Heljakka et al. (2020, A.6)
set the time that this takes against one pass of an encoder.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from genae.context import seconds_of
from genae.models.autoencoder import Generator

Comparison = Callable[[Tensor, Tensor], Tensor]  # images and decoded codes [N, C, H, W] -> [N]
MEAN_OF = 1000  # drawn codes, whose mean a search from the "prior-mean" starts at
BETAS = (0.9, 0.999)


class Point(NamedTuple):
    """Where a search is: mean seconds per image spent, and mean distance to the images, after so many iterations."""

    iterations: int
    seconds: float
    distance: float


@dataclass(kw_only=True)
class CodeSearch:
    """The settings of a search, for a metric or a figure to take over.

    iterations: steps of Adam.  learning_rate: that of Abdal et al. (2019).  start: from the mean of the prior, brought into the
    latent space; from a draw of it for each image; or from the encoder's code.  codes: one for the whole decoder, or one
    `per-layer` of it, as in the paper.  pixel_weight: w above.  batch_size: images searched for at a time.
    """

    iterations: int = 200
    learning_rate: float = 0.01
    start: Literal["prior-mean", "prior", "encode"] = "prior-mean"
    codes: Literal["one", "per-layer"] = "per-layer"
    pixel_weight: float = 0.0
    batch_size: int = 1

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.batch_size < 1:
            least = "iterations" if self.iterations < 1 else "batch_size"
            raise ValueError(f"{least} must be at least 1, not {getattr(self, least)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, not {self.learning_rate}")
        if self.pixel_weight < 0:
            raise ValueError(f"pixel_weight must not be negative, not {self.pixel_weight}")

    @property
    def needs(self) -> frozenset[str]:
        """What the model must provide: codes are drawn to start from, where the encoder's are not."""
        return frozenset({"decode", "encode"} if self.start == "encode" else {"decode", "sample"})

    def curve(
        self, model: Generator, batches: Iterable[Tensor], loss: Comparison, compare: Comparison, generator: torch.Generator
    ) -> list[Point]:
        """The search at each of `marks`, averaged over all images. The clock stands still while `compare` looks at it.

        loss: what is lowered, differentiable.  compare: what is measured.  generator: of the codes to start from.
        """
        found: list[list[tuple[int, float, float]]] = []
        count = 0
        for images in batches:
            if not count:  # a first step that does not count: it allocates
                for _ in self.search(model, images, loss, generator.clone_state(), marks=(0, 1)):
                    pass
            count += len(images)
            at_marks = []
            for iterations, seconds, codes in self.search(model, images, loss, generator, marks(self.iterations)):
                distance = compare(images, model.decode(codes).clamp(-1, 1))
                at_marks.append((iterations, seconds, distance.double().sum().item()))
            found.append(at_marks)
        return [
            Point(at[0][0], sum(seconds for _, seconds, _ in at) / count, sum(total for _, _, total in at) / count)
            for at in zip(*found, strict=True)
        ]

    def search(
        self, model: Generator, images: Tensor, loss: Comparison, generator: torch.Generator, marks: Iterable[int]
    ) -> Iterator[tuple[int, float, Tensor]]:
        """(iterations so far, seconds spent on them, codes [N, D] or [N, L, D]) at each mark, of which the first is 0.

        The codes are those that the search goes on with: look at them before the next. Works under inference mode too, which it
        leaves while it computes gradients.
        """
        with torch.inference_mode(False), torch.enable_grad():
            images = images.clone()  # one made under inference mode takes no part in a gradient
            codes = self._start(model, images, generator).clone().requires_grad_()
            adam = torch.optim.Adam([codes], lr=self.learning_rate, betas=BETAS)

        def step() -> None:
            decoded = model.decode(codes)
            # Summed over images, so that no code depends on its company.
            total = loss(images, decoded).sum()
            if self.pixel_weight:
                total = total + self.pixel_weight * (images - decoded).square().mean((1, 2, 3)).sum()
            (codes.grad,) = torch.autograd.grad(total, codes)
            adam.step()
            with torch.no_grad():
                codes.copy_(model.latent.project(codes))

        def steps(count: int) -> None:
            with torch.inference_mode(False), torch.enable_grad():
                for _ in range(count):
                    step()

        spent, marks = 0.0, list(marks)
        yield 0, spent, codes.detach()
        for before, mark in itertools.pairwise(marks):
            spent += seconds_of(lambda count=mark - before: steps(count), images.device)
            yield mark, spent, codes.detach()

    @torch.no_grad()
    def _start(self, model: Generator, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.start == "encode":
            if "encode" not in model.provides:
                raise ValueError("start must be prior-mean or prior: this model has no encoder to start from")
            codes = model.encode(images)
        elif self.start == "prior":
            codes = model.sample_codes(len(images), generator)
        else:
            mean = model.sample_codes(MEAN_OF, generator).mean(0, keepdim=True)
            codes = model.latent.project(mean).expand(len(images), -1)
        if self.codes == "per-layer" and "layers" in model.provides:  # another decoder has one layer
            codes = codes[:, None].expand(-1, model.num_layers, -1)  # [N, L, D]
        return codes.to(images.device)


def marks(iterations: int) -> list[int]:
    """Where a search of so many iterations is looked at: 0, 1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, ..., and its end."""
    tens = itertools.takewhile(lambda ten: ten < iterations, (10**power for power in itertools.count()))
    between = (digit * ten for ten in tens for digit in (1, 2, 3, 5, 7))
    return [0, *(mark for mark in between if mark < iterations), iterations]
