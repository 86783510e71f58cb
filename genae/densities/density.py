"""THE CONTRACT of densities: the density of vectors, in nats, and draws from it.

A registered factory takes the dimension D of the vectors and keyword-only settings, and returns a Density:

    @DENSITIES.add("lde")
    class LatentDensityEstimator(Density): ...

A stage with `density:` trains one on the codes of the training set (or on the vectors themselves, where the data set is one of
vectors), with `begin` called once before its first step. What a density can do is in `provides`, a set of words:

    sample        every density does: draws vectors
    log_prob      the log of the density of each vector, normalised
    conditionals  log p(x_i | x_<i) for every dimension: it is autoregressive
    pathwise      gradients pass through its samples to its parameters: what matching moments needs
"""

import torch
from torch import Tensor, nn


class Density(nn.Module):
    """A density on R^dim.

    standardize: work on (x - mean) / std of the training vectors, by dimension; log_prob, conditionals and samples are of x all
    the same. A subclass then writes `_log_prob`, `_sample` (and `_conditionals`) of standardised vectors, without knowing.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, dim: int, *, standardize: bool = False) -> None:
        if dim < 1:
            raise ValueError(f"a density needs at least one dimension, not {dim}")
        super().__init__()
        self.dim = dim
        self.standardize = standardize
        self.register_buffer("shift", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"sample", "log_prob"})

    @property
    def device(self) -> torch.device:
        return self.shift.device

    def begin(self, vectors: Tensor) -> None:
        """Look at the training vectors [M, D], once, before the first step: to standardise, or to find starting values.

        What is set must be a parameter or a buffer, so that a resumed run has it. Raises ValueError for vectors of which no
        density can be learned (see `check_vectors`).
        """
        check_vectors(vectors, self.dim)
        if self.standardize:
            values = vectors.double()
            self.shift.copy_(values.mean(0))
            self.scale.copy_(values.std(0, correction=0))

    def log_prob(self, vectors: Tensor) -> Tensor:
        """[N, D] -> log p(x) [N] in nats."""
        return self._log_prob((vectors - self.shift) / self.scale) - self.scale.log().sum()

    def conditionals(self, vectors: Tensor) -> Tensor:
        """[N, D] -> log p(x_i | x_<i) [N, D] in nats: Eq. 2 of Yoo et al. (2019), whose sum is `log_prob`."""
        return self._conditionals((vectors - self.shift) / self.scale) - self.scale.log()

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n vectors [n, D], on the density's device; every draw comes from `generator`, whatever device that is on."""
        return self._sample(n, generator) * self.scale + self.shift

    def _log_prob(self, vectors: Tensor) -> Tensor:
        return self._conditionals(vectors).sum(1)

    def _conditionals(self, vectors: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no conditionals")

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _sample()")


def check_vectors(vectors: Tensor, dim: int) -> None:
    """Raise ValueError where no density can be learned of `vectors` [M, D]: none at all, NaN, or a dimension that never varies.

    Of a constant dimension the likelihood has no bound: a narrower peak is always more likely.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"a density of {dim} dimensions was given vectors of shape {tuple(vectors.shape)}")
    if len(vectors) < 2:
        raise ValueError(f"a density cannot be learned of {len(vectors)} vectors")
    finite = vectors.isfinite().all(1)
    if not bool(finite.all()):
        where = (~finite).nonzero().flatten()
        raise ValueError(
            f"{len(where)} of {len(vectors)} vectors hold NaN or infinity, the first of them number {int(where[0])}"
        )
    constant = (vectors == vectors[0]).all(0).nonzero().flatten().tolist()
    if constant:
        named = ", ".join(map(str, constant[:8])) + (", ..." if len(constant) > 8 else "")
        raise ValueError(
            f"dimensions {named} of the vectors never vary, so no density of them is the most likely; leave them out"
        )
