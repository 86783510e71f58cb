"""A small random network that is the same everywhere: for tests, and for metrics tried out before they are trusted."""

import hashlib
import itertools

import torch
from torch import Tensor, nn

from genae.features.extractor import MapExtractor, frozen
from genae.pixels import to_rgb
from genae.randomness import generator_for
from genae.registry import FEATURES


class Tiny(MapExtractor):
    """Three strided convolutions with He-normal weights. Vector: the means of the last `dims` channels. Maps: all three."""

    def __init__(self, dims: int, seed: int) -> None:
        super().__init__()
        self.dims = dims
        generator = generator_for("cpu", "tiny features", seed)
        channels = (3, 8, 16, dims)
        self.layers = nn.ModuleList()
        for before, after in itertools.pairwise(channels):
            layer = nn.Conv2d(before, after, 3, stride=2, padding=1)
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.normal_(layer.bias, generator=generator)
            self.layers.append(layer)
        self.digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in self.parameters())).hexdigest()
        frozen(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)[-1].mean((2, 3))

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        x, kept = to_rgb(images), []
        for layer in self.layers:
            x = torch.relu(layer(x))
            kept.append(x)
        return tuple(kept)


@FEATURES.add("tiny")
def tiny(*, dims: int = 32, seed: int = 0) -> MapExtractor:
    """A fixed random network of three convolutions, for tests."""
    return Tiny(dims, seed)
