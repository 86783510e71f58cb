"""Networks that take an image as one long vector, for baselines that have no convolutions (GAN, GMMN, deep GSN, eVAE).

Their papers have pixels in [0, 1], the last layer a sigmoid; images here are in [-1, 1]. Any size will do, and none but that.
"""

import math

from torch import Tensor, nn

from genae.pixels import from_unit, to_unit
from genae.schedule import Growth

Shape = tuple[int, int, int]


def as_vectors(images: Tensor, shape: Shape, growth: Growth | None = None) -> Tensor:
    """Images [N, *shape] in [-1, 1] -> pixels [N, C H W] in [0, 1]. Raises ValueError for any other size."""
    check_size(shape, growth)
    if tuple(images.shape[1:]) != tuple(shape):
        raise ValueError(f"this network does not grow: it takes images of {shape} only, not of {tuple(images.shape[1:])}")
    return to_unit(images).flatten(1)


def as_images(vectors: Tensor, shape: Shape, growth: Growth | None = None) -> Tensor:
    """Pixels [N, C H W] in [0, 1] -> images [N, *shape] in [-1, 1]."""
    check_size(shape, growth)
    return from_unit(vectors).unflatten(1, shape)


def check_size(shape: Shape, growth: Growth | None) -> None:
    """Raise ValueError where a network that does not grow is asked for less than its full size."""
    if growth is not None and (growth.resolution != shape[-1] or growth.fade < 1):
        raise ValueError(f"this network does not grow: it works at {shape[-1]} pixels only, not at {growth}")


class FromPixels(nn.Module):
    """Images [N, *shape] -> what the layers, a map of [N, C H W], make of their pixels in [0, 1]."""

    def __init__(self, shape: Shape, layers: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.layers = layers

    def forward(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        return self.layers(as_vectors(images, self.shape, growth))


class ToPixels(nn.Module):
    """Codes [N, D] -> images [N, *shape]: the layers end in the logits of the pixels, [N, C H W]."""

    def __init__(self, shape: Shape, layers: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.layers = layers

    def forward(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
        return as_images(self.pixels(codes), self.shape, growth)

    def pixels(self, codes: Tensor) -> Tensor:
        """[N, D] -> pixels [N, C H W] in [0, 1]."""
        return self.layers(codes).sigmoid()


def num_pixels(shape: Shape) -> int:
    """C H W."""
    return math.prod(shape)
