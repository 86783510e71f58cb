"""Real NVP, MAF with a mixture-of-Gaussians MADE, and MAF-DDSF: flows for density estimation, on zuko's transforms.

What zuko (Rozet et al., 2022; MIT licence) has is zuko's: masked autoregressive and coupling transforms, masked networks,
bisection. Ours is what it lacks: batch normalisation as a bijection, the two networks of a coupling layer, and deep dense
sigmoidal flow, for which zuko's NAF has another monotonic network. Sizes are those of the released experiments on BSDS300
(gpapamak/maf; CW-Huang/NAF and its torchkit).

A bijection is a module: forward takes x [N, D] to (z [N, D], log |det dz/dx| [N]), inverse takes z to x. That its scales are
clipped smoothly at 1e-3 and 1e3 is zuko's.
"""

import math

import torch
import torch.nn.functional as F
import zuko
from torch import Tensor, nn

from baselines.made import MADE, masked_network
from genae.densities.density import Density
from genae.registry import DENSITIES

SLOPE_FLOOR = 1e-6  # of a sigmoid, as released: it keeps a flow strictly monotonic


class StandardNormal(Density):
    """N(0, I): what most flows start from."""

    def _log_prob(self, vectors: Tensor) -> Tensor:
        return -(vectors.square().sum(1) + self.dim * math.log(2 * math.pi)) / 2

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.dim, generator=generator, device=generator.device).to(self.shift)


class Flow(Density):
    """The density of x where bijections take x to z, and z has the density of the base."""

    def __init__(self, bijections: list[nn.Module], base: Density, *, standardize: bool) -> None:
        super().__init__(base.dim, standardize=standardize)
        self.bijections = nn.ModuleList(bijections)
        self.base = base

    def _log_prob(self, vectors: Tensor) -> Tensor:
        total = 0.0
        for bijection in self.bijections:
            vectors, log_det = bijection(vectors)
            total = total + log_det
        return self.base.log_prob(vectors) + total

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        vectors = self.base.sample(n, generator)
        for bijection in reversed(self.bijections):
            vectors = bijection.inverse(vectors)
        return vectors


class Zuko(nn.Module):
    """A lazy transform of zuko's as a bijection."""

    def __init__(self, lazy: zuko.lazy.LazyTransform) -> None:
        super().__init__()
        self.lazy = lazy

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.lazy().call_and_ladj(x)

    def inverse(self, z: Tensor) -> Tensor:
        return self.lazy().inv(z)


class BatchNorm(nn.Module):
    """Batch normalisation as a bijection (Dinh et al., 2017, Sec. 3.7; Papamakarios et al., 2017, Sec. 3.3).

    In train mode by the statistics of the batch. In eval mode by running ones: the plain mean of the first 1 / momentum
    batches, from then on a moving one. (The released code takes those of the whole training set, whenever it validates.)
    """

    num_batches: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, dim: int, momentum: float = 0.01, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.log_gamma = nn.Parameter(torch.zeros(dim))
        self.beta = nn.Parameter(torch.zeros(dim))
        self.register_buffer("num_batches", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("var", torch.ones(dim))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = self._of_batch(x) if self.training else (self.mean, self.var)
        log_scale = self.log_gamma - (var + self.eps).log() / 2
        return (x - mean) * log_scale.exp() + self.beta, log_scale.sum().expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        return (z - self.beta) * ((self.var + self.eps).log() / 2 - self.log_gamma).exp() + self.mean

    def _of_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        var, mean = torch.var_mean(x, 0, correction=0)
        with torch.no_grad():
            self.num_batches += 1
            share = (1 / self.num_batches).clamp(min=self.momentum)
            self.mean.lerp_(mean, share)
            self.var.lerp_(var, share)
        return mean, var


class ScaleAndShift(nn.Module):
    """The two networks of a coupling layer: shift by rectified units, log of the scale by tanh units, as released for MAF."""

    def __init__(self, num_inputs: int, num_outputs: int, hidden_dims: tuple[int, ...]) -> None:
        super().__init__()
        self.shift = zuko.nn.MLP(num_inputs, num_outputs, hidden_dims, activation=nn.ReLU)
        self.log_scale = zuko.nn.MLP(num_inputs, num_outputs, hidden_dims, activation=nn.Tanh)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.shift(x), self.log_scale(x)], dim=-1).flatten(-2)  # zuko wants them dimension by dimension


def coupling(dim: int, odd: bool, hidden_dims: tuple[int, ...]) -> Zuko:
    """An affine coupling layer that keeps every other dimension, the odd or the even ones (one dimension alone it scales)."""
    lazy = zuko.flows.coupling.GeneralCouplingTransform(dim, mask=torch.arange(dim) % 2 == odd)
    if dim > 1:
        kept = int(lazy.mask.sum())
        lazy.hyper = ScaleAndShift(kept, dim - kept, hidden_dims)
    return Zuko(lazy)


def natural_or_reversed(dim: int, number: int) -> Tensor:
    """The ranks of dimensions in layer `number`: a layer's order is that of the one before it, reversed."""
    return torch.arange(dim) if number % 2 == 0 else torch.arange(dim).flip(0)


def interleaved(bijections: list[nn.Module], dim: int, batch_norm: bool) -> list[nn.Module]:
    """The bijections, each followed by batch normalisation where that is wanted."""
    return [part for one in bijections for part in ([one, BatchNorm(dim)] if batch_norm else [one])]


@DENSITIES.add("real-nvp", small={"num_layers": 3, "hidden_dims": [16]})
def real_nvp(
    dim: int,
    *,
    num_layers: int = 10,
    hidden_dims: tuple[int, ...] = (512, 512),
    batch_norm: bool = True,
    standardize: bool = True,
) -> Flow:
    """Real NVP for vectors (Dinh et al., 2017, arXiv:1605.08803), as Papamakarios et al. (2017) compare with it.

    num_layers: coupling layers, of alternating masks; 10 is the row whose number tables quote, 153.28.  hidden_dims: of either
    network of a layer; one or two layers of 512 or 1024 were tried, and which validation chose is not printed.  batch_norm:
    after every layer.  standardize: the released code takes patches as they are.

    Published with Adam, learning rate 1e-4, weight decay 1e-6, batches of 100, until 30 epochs bring no better validation.
    """
    layers: list[nn.Module] = [coupling(dim, number % 2 == 1, hidden_dims) for number in range(num_layers)]
    return Flow(interleaved(layers, dim, batch_norm), StandardNormal(dim), standardize=standardize)


@DENSITIES.add("maf-mog", small={"num_layers": 2, "hidden_dims": [16], "num_components": 3})
def maf_mog(
    dim: int,
    *,
    num_layers: int = 5,
    hidden_dims: tuple[int, ...] = (512, 512),
    num_components: int = 10,
    batch_norm: bool = True,
    standardize: bool = True,
) -> Flow:
    """Masked autoregressive flow upon a mixture-of-Gaussians MADE: "MAF MoG" (Papamakarios et al., 2017, arXiv:1705.07057).

    num_layers: of the flow, the MADE not counted.  hidden_dims: of each layer's network and of the MADE's; one or two layers of
    512 or 1024 were tried, and which validation chose is not printed.  num_components: K, of the MADE.  batch_norm: after every
    layer of the flow.  standardize: the released code takes patches as they are.

    Published with Adam, learning rate 1e-4, weight decay 1e-6, batches of 100, until 30 epochs bring no better validation.
    """
    made = MADE(natural_or_reversed(dim, num_layers), num_components=num_components, hidden_dims=hidden_dims)
    layers: list[nn.Module] = [
        Zuko(
            zuko.flows.MaskedAutoregressiveTransform(
                dim, order=natural_or_reversed(dim, number), hidden_features=hidden_dims, activation=nn.ReLU
            )
        )
        for number in range(num_layers)
    ]
    return Flow(interleaved(layers, dim, batch_norm), made, standardize=standardize)


def log_mix(log_weights: Tensor, logs: Tensor) -> Tensor:
    """log of sum_j exp(log_weights[i, j] + logs[..., j]), by a matrix product: [..., J] -> [..., I]."""
    top = logs.amax(-1, keepdim=True).detach()
    return top + ((logs - top).exp() @ log_weights.exp().T).log()


class DenseSigmoids(nn.Module):
    """Deep dense sigmoidal flow of one number (Huang et al., 2018, arXiv:1804.00779, Sec. 3.1, Eq. 9): monotonic, universal.

    A layer is h -> logit(w sigmoid(a * (u h) + b)), a > 0, the rows of w and u being shares that sum to 1. a, b and a part of w
    and u (a logit per column, added in every row) come from the conditioner, the rest of w and u are weights of the layer.
    Shares that split so make every product with w or u one of matrices, here in logarithms: the released code clips the
    argument of logit at 1e-6, here nothing is clipped and both tails stay linear.
    """

    def __init__(self, num_units: int, num_layers: int) -> None:
        super().__init__()
        ins = [1] + [num_units] * (num_layers - 1)
        outs = [num_units] * (num_layers - 1) + [1]
        # Of one number there is one share: the first layer needs no u.
        self.u = nn.ParameterList(torch.empty(num_units, n).uniform_(-1e-3, 1e-3) for n in ins[1:])
        self.w = nn.ParameterList(torch.empty(n, num_units).uniform_(-1e-3, 1e-3) for n in outs)
        self.sizes = [[num_units, num_units, num_units, n if n > 1 else 0] for n in ins]  # of a, b, and the logits of w and u
        self.num_parameters = sum(map(sum, self.sizes))

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """x [...] and parameters [..., num_parameters] -> y [...], log dy/dx [...]."""
        h = x[..., None]
        log_slope = torch.zeros_like(h)
        whole = parameters.split([sum(sizes) for sizes in self.sizes], dim=-1)
        for number, (part, sizes) in enumerate(zip(whole, self.sizes, strict=True)):
            a, b, w, u = part.split(sizes, dim=-1)
            if number > 0:
                shares = self.u[number - 1]
                norm = log_mix(shares, u)
                log_slope = log_mix(shares, u + log_slope) - norm
                top = u.amax(-1, keepdim=True)
                h = ((u - top).exp() * h) @ shares.exp().T * (top - norm).exp()
            slope = F.softplus(a + math.log(math.expm1(1 - SLOPE_FLOOR))) + SLOPE_FLOOR  # 1 where a is 0
            inner = slope * h + b
            weights, log_up, log_down = self.w[number], F.logsigmoid(inner), F.logsigmoid(-inner)
            norm = log_mix(weights, w)
            log_y, log_rest = log_mix(weights, w + log_up) - norm, log_mix(weights, w + log_down) - norm  # y, 1 - y
            log_slope = log_mix(weights, w + log_up + log_down + slope.log() + log_slope) - norm - log_y - log_rest
            h = log_y - log_rest
        return h[..., 0], log_slope[..., 0]

    @torch.no_grad()
    def inverse(self, y: Tensor, parameters: Tensor) -> Tensor:
        """The x [...] of y [...], by bisection, all at once."""
        reach = torch.ones_like(y)
        while bool((wide := (self(reach, parameters)[0] < y) | (self(-reach, parameters)[0] > y)).any()):
            reach = torch.where(wide, 2 * reach, reach)
        return zuko.utils.bisection(lambda x: self(x, parameters)[0], y, -reach, reach, n=64)


class NeuralAutoregressive(nn.Module):
    """A layer of a neural autoregressive flow: a masked network gives each dimension the parameters of its sigmoids.

    As released, it gives each dimension some features, which one linear layer, the same for all, takes to the parameters; that
    starts near 0, where the sigmoids undo each other: the layer starts as the identity.
    """

    def __init__(self, ranks: Tensor, hidden_dims: tuple[int, ...], num_units: int, num_sigmoid_layers: int) -> None:
        super().__init__()
        dim = len(ranks)
        self.order = ranks.argsort().tolist()
        self.sigmoids = DenseSigmoids(num_units, num_sigmoid_layers)
        num_features = max(1, 3 * (min(hidden_dims, default=0) // dim)) * num_sigmoid_layers
        self.features = masked_network(ranks, num_features, hidden_dims, nn.ELU)
        self.to_parameters = nn.Linear(num_features, self.sigmoids.num_parameters)
        nn.init.uniform_(self.to_parameters.weight, -1e-3, 1e-3)
        nn.init.zeros_(self.to_parameters.bias)

    def parameters_of(self, x: Tensor) -> Tensor:
        """x [N, D] -> the parameters of each dimension's sigmoids, [N, D, P]; they depend on dimensions of lower rank."""
        return self.to_parameters(self.features(x).unflatten(1, (len(self.order), -1)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slopes = self.sigmoids(x, self.parameters_of(x))
        return z, log_slopes.sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        x = torch.zeros_like(z)
        for i in self.order:
            x[:, i] = self.sigmoids.inverse(z[:, i], self.parameters_of(x)[:, i])
        return x


@DENSITIES.add("maf-ddsf", small={"num_layers": 2, "hidden_dims": [16], "num_units": 4, "num_sigmoid_layers": 2})
def maf_ddsf(
    dim: int,
    *,
    num_layers: int = 10,
    hidden_dims: tuple[int, ...] = (1024, 1024),
    num_units: int = 16,
    num_sigmoid_layers: int = 2,
    standardize: bool = True,
) -> Flow:
    """Neural autoregressive flow by deep dense sigmoidal flow: "MAF-DDSF" (Huang et al., 2018, arXiv:1804.00779).

    num_layers: of the flow; 10 is the row whose number tables quote, 157.73.  hidden_dims: of each layer's masked network.
    num_units, num_sigmoid_layers: of the sigmoidal flow of each dimension. These three sizes are inferred: with 5 layers the
    released code then has 36,759,591 parameters, which is what De Cao et al. (2019) count on BSDS300.  standardize: the
    released code takes patches as they are.

    Published with Adam, learning rate 1e-4, batches of 100, gradients clipped at norm 5, until 30 epochs bring no better
    validation.
    """
    layers: list[nn.Module] = [
        NeuralAutoregressive(natural_or_reversed(dim, number), hidden_dims, num_units, num_sigmoid_layers)
        for number in range(num_layers)
    ]
    scale = zuko.flows.gaussianization.ElementWiseTransform(dim)  # as released, a scale and a shift at last
    for parameter in scale.parameters():
        nn.init.zeros_(parameter)
    return Flow([*layers, Zuko(scale)], StandardNormal(dim), standardize=standardize)
