"""The Frechet distance between two Gaussians (Dowson & Landau, 1982), and the statistics it takes from features, in float64.

    d^2 = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr sqrt(S1 S2)

It must agree with the textbook formula, scipy.linalg.sqrtm(S1 @ S2), which is how Heusel et al. (2017) and pytorch_fid compute
it. S1 S2 is not symmetric, but for any root S1 = R^T R its eigenvalues are those of R S2 R^T, which is; so the last trace is a
sum of square roots of symmetric eigenvalues. A covariance of n < d features has a root of n rows (the centred features
themselves), and with two of those the trace is the sum of the singular values of R1 R2^T: no d x d matrix is ever formed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance (unbiased, as np.cov) of `count` vectors, in float64.

    mean: [d].  Either covariance: [d, d], or root: [r, d] with root^T root the covariance and r < d.
    """

    count: int
    mean: Tensor
    covariance: Tensor | None = None
    root: Tensor | None = None

    @property
    def trace(self) -> Tensor:
        """The trace of the covariance."""
        return self.root.square().sum() if self.covariance is None else self.covariance.trace()


class Moments:
    """Statistics of features that arrive in batches: at most max(n, d) x d numbers are held at a time.

    Up to d features are kept as they are, for the small-sample form. From then on a chunk of d features at a time goes into
    sums, shifted by the mean of the first chunk so that no digits cancel.
    """

    def __init__(self) -> None:
        self._pending: list[Tensor] = []  # float64 [n_i, d] each
        self._num_pending = 0
        self._num_summed = 0
        self._shift: Tensor | None = None  # [d]
        self._sum: Tensor | None = None  # [d], of shifted features
        self._products: Tensor | None = None  # [d, d], of shifted features

    def add(self, features: Tensor) -> None:
        """Count in a batch, [n, d]."""
        self._pending.append(features.to(torch.float64))
        self._num_pending += len(features)
        if self._num_pending > features.shape[1]:
            self._sum_up()

    def _sum_up(self) -> None:
        chunk = torch.cat(self._pending)
        if self._shift is None:
            self._shift = chunk.mean(0)
            self._sum = torch.zeros_like(self._shift)
            self._products = chunk.new_zeros(chunk.shape[1], chunk.shape[1])
        chunk = chunk - self._shift
        self._sum += chunk.sum(0)
        self._products.addmm_(chunk.T, chunk)
        self._num_summed += len(chunk)
        self._pending, self._num_pending = [], 0

    def statistics(self) -> Statistics:
        """Of everything added. Raises ValueError for fewer than two vectors, which have no covariance."""
        count = self._num_summed + self._num_pending
        if count < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, not {count}")
        if self._shift is None:
            features = torch.cat(self._pending)
            mean = features.mean(0)
            return Statistics(count, mean, root=(features - mean) / (count - 1) ** 0.5)
        if self._pending:
            self._sum_up()
        offset = self._sum / count  # mean of the shifted features
        scatter = self._products - count * torch.outer(offset, offset)
        return Statistics(count, self._shift + offset, covariance=scatter / (count - 1))


def statistics_of(batches: Iterable[Tensor]) -> Statistics:
    """Statistics of features that arrive in batches [n, d]."""
    moments = Moments()
    for batch in batches:
        moments.add(batch)
    return moments.statistics()


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """d^2 of the two Gaussians, never negative. The square is what the literature calls the Frechet distance, and FID."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and of {len(b.mean)} dimensions cannot be compared")
    squared = (a.mean - b.mean).square().sum() + a.trace + b.trace - 2 * _trace_of_root(a, b)
    return max(squared.item(), 0.0)


def gaussian_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> float:
    """`frechet_distance` of two Gaussians given by mean [d] and covariance [d, d], singular or not."""
    as_statistics = [
        Statistics(0, torch.as_tensor(mean, dtype=torch.float64), covariance=torch.as_tensor(covariance, dtype=torch.float64))
        for mean, covariance in ((mean1, covariance1), (mean2, covariance2))
    ]
    return frechet_distance(*as_statistics)


def _trace_of_root(a: Statistics, b: Statistics) -> Tensor:
    """tr sqrt(S1 S2)."""
    if a.root is None and b.root is None:
        a = Statistics(a.count, a.mean, root=_root(a.covariance))
    if a.root is not None and b.root is not None:
        return torch.linalg.svdvals(a.root @ b.root.T).sum()  # eigenvalues of S1 S2 = singular values squared
    root, covariance = (a.root, b.covariance) if b.root is None else (b.root, a.covariance)
    eigenvalues = torch.linalg.eigvalsh(root @ covariance @ root.T)
    return eigenvalues.clamp(min=0).sqrt().sum()  # rounding can leave a zero slightly negative


def _root(covariance: Tensor) -> Tensor:
    """R with R^T R = covariance: its Cholesky factor, or where it is singular to rounding, [rank, d] from its eigenvectors."""
    factor, failed = torch.linalg.cholesky_ex(covariance, upper=True)
    tiny = len(covariance) * torch.finfo(covariance.dtype).eps
    pivots = factor.diagonal().square()
    if not failed and pivots.min() > tiny * pivots.max():
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > tiny * values.max()
    return values[kept].sqrt()[:, None] * vectors[:, kept].T
