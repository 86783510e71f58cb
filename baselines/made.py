"""MADE with a mixture of Gaussians per conditional (Germain et al., 2015, arXiv:1502.03509), on zuko's masked network.

Its parts: weights masked so that output i sees inputs j < i only (Sec. 4.1, Eqs. 12, 13); hidden units' degrees dealt in turn
rather than at random, and a mixture of Gaussians in place of the binary conditionals, both as Papamakarios et al. (2017,
arXiv:1705.07057, Sec. 4) have it in their "MADE MoG", whose numbers tables of density estimators print. Their released code
is what the paper leaves open here is taken from.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from zuko.nn import MaskedMLP

from genae.densities.density import Density
from genae.registry import DENSITIES

LOG_SCALE = 10.0  # a Gaussian's spread stays within exp(+-10): no peak closes upon one vector for ever, no draw explodes
DISTANCE = 1e15  # in spreads, from where on a Gaussian falls no further: its square is still a float32


def mixture_log_prob(parameters: Tensor, x: Tensor) -> Tensor:
    """log of a mixture of K Gaussians: parameters [..., 3K] (logits, means, log of the spreads) at x [...] -> [...]."""
    logits, means, log_scales = parameters.chunk(3, dim=-1)
    log_scales = log_scales.clamp(-LOG_SCALE, LOG_SCALE)
    distances = ((x[..., None] - means) * (-log_scales).exp()).clamp(-DISTANCE, DISTANCE)
    log_parts = logits.log_softmax(-1) - log_scales - distances.square() / 2
    return log_parts.logsumexp(-1) - math.log(2 * math.pi) / 2


def mixture_draw(parameters: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
    """A draw of each mixture, parameters [..., 3K]: `uniform` [...] chooses the Gaussian, `normal` [...] is its noise."""
    logits, means, log_scales = parameters.chunk(3, dim=-1)
    below = logits.softmax(-1).cumsum(-1) <= uniform[..., None]
    chosen = below.sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)  # a sum of shares may round to less than 1
    mean, log_scale = means.gather(-1, chosen)[..., 0], log_scales.gather(-1, chosen)[..., 0]
    return mean + log_scale.clamp(-LOG_SCALE, LOG_SCALE).exp() * normal


def mixture_noise(n: int, dim: int, generator: torch.Generator, like: Tensor) -> tuple[Tensor, Tensor]:
    """What `mixture_draw` needs for n vectors of `dim`: uniform and normal noise, [n, dim] each, of the type of `like`."""
    uniform = torch.rand(n, dim, generator=generator, device=generator.device)
    normal = torch.randn(n, dim, generator=generator, device=generator.device)
    return uniform.to(like), normal.to(like)


class Constant(nn.Module):
    """Outputs that depend on nothing: all that is left of a masked network for vectors of one dimension."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(len(x), -1)


def masked_network(
    ranks: Tensor, num_outputs: int, hidden_dims: tuple[int, ...], activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Module:
    """A network [N, D] -> [N, D num_outputs], the outputs of dimension i together; they see dimensions of lower rank only."""
    dim = len(ranks)
    if not hidden_dims or min(hidden_dims) < dim - 1:
        raise ValueError(
            f"hidden_dims must be one or more layers of at least {dim - 1} units, not {list(hidden_dims)}: with fewer, the "
            f"last of {dim} dimensions would not hear of some before them"
        )
    if dim == 1:
        return Constant(num_outputs)
    sees = ranks[:, None] > ranks  # [D, D]
    return MaskedMLP(sees.repeat_interleave(num_outputs, dim=0), hidden_features=hidden_dims, activation=activation)


class MADE(Density):
    """The density of a masked network that gives each conditional its mixture. Provides "conditionals".

    ranks: [D], which dimension comes when; a conditional is of a dimension given those of lower rank.
    """

    def __init__(self, ranks: Tensor, *, num_components: int, hidden_dims: tuple[int, ...], standardize: bool = False) -> None:
        super().__init__(len(ranks), standardize=standardize)
        if num_components < 1:
            raise ValueError(f"num_components must be at least 1, not {num_components}")
        self.order = ranks.argsort().tolist()
        self.network = masked_network(ranks, 3 * num_components, hidden_dims)
        with torch.no_grad():  # as released: without it the Gaussians of a mixture start as one
            list(self.network.parameters())[-1].normal_()

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"conditionals"}

    def mixtures(self, vectors: Tensor) -> Tensor:
        """The mixture of every conditional of vectors [N, D]: parameters [N, D, 3K]."""
        return self.network(vectors).unflatten(1, (self.dim, -1))

    def _conditionals(self, vectors: Tensor) -> Tensor:
        return mixture_log_prob(self.mixtures(vectors), vectors)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        uniform, normal = mixture_noise(n, self.dim, generator, like=self.shift)
        vectors = torch.zeros_like(normal)
        for i in self.order:  # what a conditional does not see yet may be anything
            vectors[:, i] = mixture_draw(self.mixtures(vectors)[:, i], uniform[:, i], normal[:, i])
        return vectors


@DENSITIES.add("made-mog", small={"hidden_dims": [16], "num_components": 3})
def made_mog(
    dim: int, *, num_components: int = 10, hidden_dims: tuple[int, ...] = (512, 512), standardize: bool = True
) -> MADE:
    """MADE with a mixture of Gaussians per conditional (Germain et al., 2015; "MADE MoG" of Papamakarios et al., 2017).

    num_components: K.  hidden_dims: of layers of rectified units; the released experiments on BSDS300 try one and two layers of
    512 and of 1024 and keep what validation chooses, which is not printed: two of 512 are our choice among these.  standardize:
    work on standardised vectors; the released code takes patches as they are, which only changes where training starts.

    Published with Adam, learning rate 1e-3, weight decay 1e-6, batches of 100, until 30 epochs bring no better validation.
    """
    return MADE(torch.arange(dim), num_components=num_components, hidden_dims=hidden_dims, standardize=standardize)
