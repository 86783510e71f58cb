"""Deep RNADE (Uria, Murray and Larochelle, 2014, "A deep and tractable density estimator", arXiv:1310.1757).

One network gives every conditional of every ordering: it sees the vector with what is not observed set to zero, and a mask that
says what is observed, and gives each dimension a mixture of Gaussians (the mixtures of RNADE, Uria et al., 2013). Its parts:

- the mask beside the input, layers of rectified units, a mixture with its own weights for each dimension;
- training for all orderings at once: of each vector a random number of random dimensions is observed, and the conditionals of
  the rest, weighted by D over their number, are an estimate without bias of the log-likelihood of a random ordering;
- the density along one ordering, or of a mixture of several (their EoNADE), whose first layer is summed up as it goes.

In train mode `log_prob` is that estimate, drawn anew each time as dropout is; in eval mode it is exact. The starting values are
those of the released code (MarcCote/NADE): means spread over the range of each dimension, as wide as they are apart. Two things
are ours: layers start as He et al. (2015) have it, in place of pretraining layer by layer, and Adam is in place of SGD.
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from baselines.made import mixture_draw, mixture_log_prob, mixture_noise
from genae.densities.density import Density
from genae.registry import DENSITIES


def random_masks(n: int, dim: int, device: torch.device) -> Tensor:
    """What is observed of n vectors, bool [n, dim]: of each a number from 0 to dim - 1, all as likely, of random dimensions."""
    number = torch.randint(dim, (n, 1), device=device)
    return torch.rand(n, dim, device=device).argsort(1).argsort(1) < number


class DeepRNADE(Density):
    """A density for every ordering of the dimensions, by one network. Along the natural ordering it provides "conditionals"."""

    orderings: Tensor

    def __init__(self, orderings: Tensor, *, num_components: int, hidden_dims: tuple[int, ...], standardize: bool) -> None:
        """orderings: [M, D], permutations of the dimensions, of whose M densities this is the even mixture."""
        super().__init__(orderings.shape[1], standardize=standardize)
        if num_components < 1:
            raise ValueError(f"num_components must be at least 1, not {num_components}")
        if not hidden_dims:
            raise ValueError("hidden_dims must name one layer or more, not none")
        self.num_components = num_components
        self.register_buffer("orderings", orderings)
        self.input = nn.Linear(2 * self.dim, hidden_dims[0])
        layers = [nn.Linear(before, after) for before, after in itertools.pairwise(hidden_dims)]
        self.hidden = nn.Sequential(nn.ReLU(), *itertools.chain.from_iterable((layer, nn.ReLU()) for layer in layers))
        self.output = nn.Linear(hidden_dims[-1], self.dim * 3 * num_components)
        for layer in [self.input, *layers]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(self.output.weight, std=0.01)
        self._spread(-3 * torch.ones(self.dim), 3 * torch.ones(self.dim))

    @property
    def provides(self) -> frozenset[str]:
        natural = self.orderings.equal(torch.arange(self.dim, device=self.device)[None])
        return super().provides | ({"conditionals"} if natural else set())

    def begin(self, vectors: Tensor) -> None:
        super().begin(vectors)
        standard = (vectors - self.shift) / self.scale
        self._spread(standard.amin(0), standard.amax(0))

    @torch.no_grad()
    def _spread(self, low: Tensor, high: Tensor) -> None:
        """Mixtures whose means lie evenly between `low` and `high` [D], with spreads as wide as means are apart."""
        gap = (high - low) / (self.num_components + 1)  # [D]
        steps = torch.arange(1, self.num_components + 1, device=gap.device)
        logits, means, log_scales = self.output.bias.view(self.dim, 3, self.num_components).unbind(1)
        logits.zero_()
        means.copy_(low[:, None] + steps * gap[:, None])
        log_scales.copy_(gap.log()[:, None].expand_as(log_scales))

    def _log_prob(self, vectors: Tensor) -> Tensor:
        if self.training:
            return self.estimate(vectors, random_masks(*vectors.shape, vectors.device))
        along = torch.stack([self._along(ordering, vectors).sum(1) for ordering in self.orderings.tolist()])  # [M, N]
        return along.logsumexp(0) - math.log(len(along))

    def _conditionals(self, vectors: Tensor) -> Tensor:
        if "conditionals" not in self.provides:
            raise NotImplementedError(
                "rnade-deep has conditionals of x_i given x_<i only with ordering: natural, num_orderings: 1"
            )
        return self._along(self.orderings[0].tolist(), vectors)

    def estimate(self, vectors: Tensor, observed: Tensor) -> Tensor:
        """An estimate [N] of the log-likelihoods of vectors [N, D] from the conditionals of what a mask [N, D] leaves out.

        Of d - 1 dimensions observed, each of the other D - d + 1 may come next; D times the mean of their terms is the estimate
        (their Sec. 3: its mean over random orderings and places d is that of the log-likelihood over orderings).
        """
        seen = torch.cat([vectors * observed, observed.to(vectors)], dim=1)  # [N, 2D]
        mixtures = self.output(self.hidden(self.input(seen))).unflatten(1, (self.dim, -1))
        terms = mixture_log_prob(mixtures, vectors) * ~observed
        return terms.sum(1) * self.dim / (~observed).sum(1)

    def _along(self, ordering: list[int], vectors: Tensor) -> Tensor:
        """log p(x_i | what comes before i in `ordering`), [N, D]."""
        found: dict[int, Tensor] = {}

        def given(i: int, mixtures: Tensor) -> Tensor:
            found[i] = mixture_log_prob(mixtures, vectors[:, i])
            return vectors[:, i]

        self._walk(ordering, len(vectors), given)
        return torch.stack([found[i] for i in range(self.dim)], dim=1)

    def _walk(self, ordering: list[int], n: int, value: Callable[[int, Tensor], Tensor]) -> None:
        """Go along `ordering`: each dimension's mixtures [n, 3K], given the values [n] that `value` gave of those before."""
        weights, flags = self.input.weight.T.split(self.dim)  # [D, H] each
        heads, biases = self.output.weight.unflatten(0, (self.dim, -1)), self.output.bias.unflatten(0, (self.dim, -1))
        summed = self.input.bias.expand(n, -1)
        for i in ordering:
            mixtures = nn.functional.linear(self.hidden(summed), heads[i], biases[i])
            summed = summed + value(i, mixtures)[:, None] * weights[i] + flags[i]

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        uniform, normal = mixture_noise(n, self.dim, generator, like=self.shift)
        shares = torch.randint(len(self.orderings), (n,), generator=generator, device=generator.device).to(self.device)
        vectors = torch.empty_like(normal)
        for number, ordering in enumerate(self.orderings.tolist()):
            rows = (shares == number).nonzero()[:, 0]

            def drawn(i: int, mixtures: Tensor, rows: Tensor = rows) -> Tensor:
                vectors[rows, i] = mixture_draw(mixtures, uniform[rows, i], normal[rows, i])
                return vectors[rows, i]

            self._walk(ordering, len(rows), drawn)
        return vectors


@DENSITIES.add("rnade-deep", small={"hidden_dims": [16, 16], "num_components": 3, "ordering": "natural"})
def rnade_deep(
    dim: int,
    *,
    num_components: int = 10,
    hidden_dims: tuple[int, ...] = (512, 512, 512, 512, 512, 512),
    ordering: Literal["random", "natural"] = "random",
    num_orderings: int = 1,
    standardize: bool = True,
) -> DeepRNADE:
    """Deep RNADE, trained for all orderings (Uria et al., 2014), with mixtures of Gaussians.

    num_components: K.  hidden_dims: of the layers; that the published number is of six layers, and that they have 512 units, is
    inferred.  ordering: of the (first) density: "random", the same one for every seed, or "natural".  num_orderings: of the
    mixture of orderings that the density is. The number that tables quote, 155.2, we take for one of single orderings, whose
    mean over ten the released code reports; the paper's ensembles reach 157.0.  standardize: as the released code does.
    """
    if num_orderings < 1:
        raise ValueError(f"num_orderings must be at least 1, not {num_orderings}")
    generator = torch.Generator().manual_seed(0)
    orderings = torch.stack([torch.randperm(dim, generator=generator) for _ in range(num_orderings)])
    if ordering == "natural":
        orderings[0] = torch.arange(dim)
    return DeepRNADE(orderings, num_components=num_components, hidden_dims=hidden_dims, standardize=standardize)
