"""THE CONTRACT of feature extractors: a frozen network that turns images into numbers, and which weights it holds.

A registered factory takes keyword-only settings and returns an Extractor, or a Distance. Both are in eval mode, take float
images [N, 1 or 3, H, W] nominally in [-1, 1], of any size unless they say otherwise, and give per image what they would give it
alone.
"""

import contextlib
import pickle
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.features import weights


class Extractor(nn.Module):
    """Images -> one vector each.

    dims: length of the vector.  digest: sha256 of the weights used.  published: they are the published ones.
    resize: to what it resizes images, and how, in the words of a protocol.
    revision: of the code around the weights; raised when the same weights come to give other features, so that nothing cached
        of the old ones is read again.
    """

    dims: int
    digest: str
    published: bool = True
    resize: str = "none"
    revision: int = 1

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, dims]."""
        raise NotImplementedError


class MapExtractor(Extractor):
    """An extractor that shows its intermediate maps too."""

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """[N, C, H, W] -> one map [N, C_k, H_k, W_k] per layer looked at, finest first."""
        raise NotImplementedError


class Distance(nn.Module):
    """Two batches of images -> how far apart each pair looks. digest and published: as of an Extractor."""

    digest: str
    published: bool = True

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """[N, C, H, W] twice -> [N]."""
        raise NotImplementedError


class MapDistance(Distance):
    """The mean over layers of the squared distance between unit-normalised features, averaged over positions.

    d(a, b) = 1/K sum_k 1/(H_k W_k) sum_hw || f_k(a)_hw / |f_k(a)_hw|  -  f_k(b)_hw / |f_k(b)_hw| ||^2

    That is LPIPS (Zhang et al., 2018, Eq. 1) with every learned channel weight 1, and the mean of layers for the sum; it lies
    in [0, 4].
    """

    def __init__(self, extractor: MapExtractor) -> None:
        super().__init__()
        self.extractor = extractor
        self.digest, self.published = extractor.digest, extractor.published
        frozen(self)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        maps = self.extractor.maps(torch.cat([a, b]))
        halves = [layer.chunk(2) for layer in maps]
        return unit_distance([half[0] for half in halves], [half[1] for half in halves])


def unit_distance(maps_a: Sequence[Tensor], maps_b: Sequence[Tensor], eps: float = 1e-10) -> Tensor:
    """The distance of MapDistance between two sets of maps, [N]."""
    layers = [
        (F.normalize(a, dim=1, eps=eps) - F.normalize(b, dim=1, eps=eps)).square().sum(1).mean((1, 2))
        for a, b in zip(maps_a, maps_b, strict=True)
    ]
    return torch.stack(layers).mean(0)


@contextlib.contextmanager
def tensors_of(name: str) -> Iterator[dict[str, Tensor]]:
    """The tensors of weights `name`, to be put into a network within. Raises MissingWeights where there is no file.

    The user's own file may hold anything: where it cannot be read or does not fit, a ValueError names it.
    """
    path = weights.find(name)
    try:
        yield torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        if "alloc" in str(error):  # the machine's fault, not the file's
            raise
        lines = str(error).splitlines() or ["it ends too soon"]
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else lines[0]
        raise ValueError(
            f"{path} does not hold the weights {name!r} ({reason}). Remove it, then: genae weights fetch {name}"
        ) from error


def frozen(network: nn.Module) -> None:
    """Put a network into eval mode, and take gradients off its weights: the last line of every extractor's constructor."""
    network.eval().requires_grad_(False)
