"""The rows of a batch, where several processes compute its networks together.

Every process has the whole batch and computes every loss of it, with the same draws; so the statistics of a batch, the split j,
swaps in the image pool and noise are those of one process. Only the networks, where the time goes, share the work: `by_rows`
gives a network this process's rows of the batch and gathers what all processes made of theirs. With W processes and a loss L,

    scatter    forward: my rows of x                    backward: dL/dx = (the rows of all processes) / W
    gather     forward: the rows of all processes       backward: W * my rows of dL/dx

Between the two every process holds W times its rows' gradient, so what a parameter gets there, averaged over processes, is the
whole batch's gradient. A parameter that all use alike gets the same everywhere, and the average leaves it alone. Each backward
pass is the other's forward pass up to W, so gradients of gradients are right too.

Inside a network some layers look at the whole batch: `whole` and `own` lead there and back, `draw_rows` draws for it.
On one process all of this does nothing. How processes meet is in genae/parallel.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

MIXING = (_BatchNorm, _InstanceNorm, _DropoutNd, nn.RReLU)  # layers of torch that look at the whole batch or draw for it


@dataclass(frozen=True)
class _Share:
    """The part of a batch of `total` images that process `rank` of `size` has: as equal as can be, in their order."""

    total: int
    rank: int
    size: int

    def bounds(self, rank: int) -> tuple[int, int]:
        return rank * self.total // self.size, (rank + 1) * self.total // self.size

    def counts(self, each: int) -> list[int]:
        """The rows of each process, where an image has `each`."""
        return [each * (end - begin) for begin, end in map(self.bounds, range(self.size))]

    def of_total(self, count: int) -> slice:
        """This process's rows of `count`, which are those of all images."""
        each = self._each(count, self.total)
        begin, end = self.bounds(self.rank)
        return slice(each * begin, each * end)

    def each_of_mine(self, count: int) -> int:
        """How many of `count` rows, which are those of this process's images, an image has."""
        begin, end = self.bounds(self.rank)
        return self._each(count, end - begin)

    def _each(self, count: int, images: int) -> int:
        if count % images:
            raise RuntimeError(f"a layer that looks at a whole batch was given {count} rows, where there are {images} images")
        return count // images


_sharing: tuple[int, int] | None = None  # within a step of several processes: this one's number, and how many there are
_share: _Share | None = None  # within a network that computes its rows of a batch


@contextmanager
def sharing(rank: int, size: int) -> Iterator[None]:
    """While this lasts, `by_rows` shares work out between the `size` processes of torch's default group."""
    global _sharing, _gather, _scatter
    if _gather is _gather_rows:  # not before: it imports the compiler, for which a process alone need not wait
        _gather, _scatter = torch.compiler.disable(_gather_rows), torch.compiler.disable(_scatter_rows)
    _sharing = (rank, size)
    try:
        yield
    finally:
        _sharing = None


def span(model: nn.Module) -> None:
    """Let the layers of torch's that look at a batch as a whole see all of it, and those that draw draw for all of it."""
    for part in model.modules():
        if isinstance(part, MIXING):
            part.register_forward_pre_hook(_before_mixing)
            part.register_forward_hook(_after_mixing)


def by_rows(network: Callable[..., Any], rows: Tensor, *settings: Any) -> Any:
    """network(rows, *settings), a tensor or a tuple of them, of which every row depends on the same row of `rows` alone.

    Within a step of several processes each computes its rows, and all get all of them. For layers that break the rule, if only
    in what they draw or keep, see `whole`, `own`, `draw_rows`; torch's own are provided for (`MIXING`).
    A batch of fewer rows than there are processes is computed by each.
    """
    global _share
    if _sharing is None or _share is not None or len(rows) < _sharing[1]:
        return network(rows, *settings)
    share = _share = _Share(len(rows), *_sharing)
    try:
        found = network(_Scatter.apply(rows, share), *settings)
    finally:
        _share = None
    if isinstance(found, Tensor):
        return _Gather.apply(found, share)
    return tuple(_Gather.apply(part, share) for part in found)


def whole(x: Tensor) -> Tensor:
    """Within a network: the rows [N, ...] of the whole batch, of which `x` has this process's; else `x`."""
    return x if _share is None else _gather(x)


def own(x: Tensor) -> Tensor:
    """Within a network: this process's rows of `x` [N, ...], which has those of the whole batch; else `x`."""
    return x if _share is None else _scatter(x)


def draw_rows(n: int, draw: Callable[[int], Tensor]) -> Tensor:
    """draw(n), random numbers for n rows. Within a network, this process's rows of what the whole batch would get."""
    if _share is None:
        return draw(n)
    total = _share.total * _share.each_of_mine(n)
    return draw(total)[_share.of_total(total)]


def _gather_rows(x: Tensor) -> Tensor:
    return _Gather.apply(x, _share)


def _scatter_rows(x: Tensor) -> Tensor:
    return _Scatter.apply(x, _share)


_gather, _scatter = _gather_rows, _scatter_rows  # what is called; never traced by a compiler (see `sharing`)


class _Gather(torch.autograd.Function):
    """This process's rows to the rows of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: _Share) -> Tensor:
        ctx.share = share
        return _gathered(x, share)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.share.size * _Scatter.apply(grad, ctx.share), None


class _Scatter(torch.autograd.Function):
    """The rows of all processes to this one's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: _Share) -> Tensor:
        ctx.share = share
        return x[share.of_total(len(x))].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(grad, ctx.share) / ctx.share.size, None


def _gathered(x: Tensor, share: _Share) -> Tensor:
    """The rows of all processes. Maps of features travel and arrive in channels_last order."""
    are_maps = x.ndim == 4
    mine = (x.permute(0, 2, 3, 1) if are_maps else x).contiguous()
    counts = share.counts(share.each_of_mine(len(x)))
    most = max(counts)
    if len(mine) < most:  # all send equally much
        mine = torch.cat([mine, mine.new_zeros(most - len(mine), *mine.shape[1:])])
    found = mine.new_empty(share.size * most, *mine.shape[1:])
    dist.all_gather(list(found.split(most)), mine)  # into the views
    if min(counts) < most:
        found = torch.cat([part[:count] for part, count in zip(found.split(most), counts, strict=True)])
    return found.permute(0, 3, 1, 2) if are_maps else found


def _before_mixing(layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    return (whole(arguments[0]), *arguments[1:]) if layer.training else None


def _after_mixing(layer: nn.Module, _arguments: tuple[Any, ...], found: Tensor) -> Tensor | None:
    return own(found) if layer.training else None
