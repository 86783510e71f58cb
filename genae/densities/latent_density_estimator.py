"""The latent density estimator, LDE (Yoo et al., 2019, Sec. 3.3): each dimension a mixture of Gaussians given those before it.

    log p(z) = sum_i log sum_k pi_ik N(z_i; mu_ik, sigma_ik^2)                 Eqs. 2 and 3

Dilated causal convolutions over the vector, preceded by zeros, give features h_1 ... h_D of which h_i has seen z_1 ... z_{i-1};
a 1x1 convolution turns h_i into the mixture of dimension i. A second input channel, the mask, tells z (1) from the zeros (0).

The paper leaves the network's sizes open; they are those of the released code. P = 2^n zeros with n = ceil(log2 D) precede z,
whose last dimension is left out. n convolutions of kernel 2 and dilation 1, 2, 4 ... 2^(n-1), unpadded, then leave exactly D
outputs, with a receptive field of P. Channels are 2, 16, 32, 64 ...; BatchNorm and a leaky ReLU follow each convolution.

A convolution of kernel 2 and dilation d is two matrix products: of every position, and of the position d before it. All
positions that have seen nothing but zeros are alike, whatever z is: they are computed once, as one row, the *front*. That
leaves D - 1 positions at every layer. BatchNorm counts the front as often as the released convolutions compute it, so its
statistics, and with them the loss, are those of the plain network. In training they mix positions; each h_i is strictly causal
in eval mode.
"""

import math
from collections import deque

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from genae.densities.density import Density
from genae.networks.blocks import SLOPE
from genae.registry import DENSITIES

SEEN = 1e6  # dimensions further from zero than this look to the network as if they were there: no product of its own overflows
DEVIATIONS = 1e15  # a Gaussian's log density stops falling so many sigmas from its mean, where float32 can still hold it
LOG_SIGMA = 30.0  # and sigma stays within exp(+-30)
PICTURES = 16  # the smallest batch of 1x1 convolutions that torch gives to oneDNN on one thread
AT_ONCE = 512  # vectors that are sampled side by side: what their layers remember then fits a processor's cache, and any memory


@DENSITIES.add("lde", small={"mixtures": 3, "width": 4})
class LatentDensityEstimator(Density):
    """Mixtures of Gaussians by dilated causal convolutions; the defaults are the released network.

    mixtures: K.  width: channels of the first convolution; each later one has twice as many.

    min_sigma: is added to sigma = exp(.). The paper and its code have none (0.0): a value that the training vectors repeat then
    draws ever narrower peaks, and the likelihood has no bound. The default is small against the noise that patches and codes
    carry, and is in the units of the network's input.  standardize: the released code does not.
    """

    def __init__(
        self, dim: int, *, mixtures: int = 30, width: int = 16, min_sigma: float = 1e-4, standardize: bool = False
    ) -> None:
        super().__init__(dim, standardize=standardize)
        for name, value, least in (("mixtures", mixtures, 1), ("width", width, 1), ("min_sigma", min_sigma, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        self.mixtures = mixtures
        self.min_sigma = min_sigma
        depth = math.ceil(math.log2(dim))
        channels = [2, *(width << index for index in range(depth))]
        self.layers = nn.ModuleList(
            CausalLayer(channels[index], channels[index + 1], dilation=2**index, num_front=2**depth - 2 ** (index + 1) + 1)
            for index in range(depth)
        )
        self.head = nn.Linear(channels[-1], 3 * mixtures)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"conditionals"}

    def parameters_given(self, vectors: Tensor) -> Tensor:
        """What the head says of each dimension given those before it: vectors [N, D], standardised -> [D, N, 3K].

        The last axis is mu, the logarithm of sigma before `min_sigma` is added, and the logits of pi.
        """
        with torch.autocast(vectors.device.type, enabled=False):  # a small network, and a density to the second decimal
            values = vectors[:, :-1].T.clamp(-SEEN, SEEN)
            x = torch.stack([values, torch.ones_like(values)], 2)  # [T = D - 1, N, 2]: time first, so that a past is a slice
            front = x.new_zeros(2)
            for layer in self.layers:
                x, front = layer(x, front)
            first = self.head(front).expand(1, len(vectors), -1)
            return torch.cat([first, product(x, self.head.weight, self.head.bias)])

    def _conditionals(self, vectors: Tensor) -> Tensor:
        mean, log_sigma, logits = self.parameters_given(vectors).chunk(3, 2)
        log_sigma = self._bounded(log_sigma)
        deviation = ((vectors.T[..., None] - mean) * (-log_sigma).exp()).clamp(-DEVIATIONS, DEVIATIONS)
        log_density = -deviation.square() / 2 - log_sigma - math.log(2 * math.pi) / 2  # of each Gaussian [D, N, K]
        return ((logits + log_density).logsumexp(2) - logits.logsumexp(2)).T

    def _bounded(self, log_sigma: Tensor) -> Tensor:
        """The logarithm of sigma from the head's output: that of exp(.) + min_sigma."""
        log_sigma = log_sigma.clamp(-LOG_SIGMA, LOG_SIGMA)
        return torch.logaddexp(log_sigma, log_sigma.new_tensor(math.log(self.min_sigma))) if self.min_sigma else log_sigma

    @torch.no_grad()
    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        # All that is random, at once, for every row and dimension: one number chooses a component, one is for its Gaussian.
        place = {"generator": generator, "device": generator.device}
        choices = torch.rand(n, self.dim, **place).to(self.shift)
        noise = torch.randn(n, self.dim, **place).to(self.shift)
        pairs = zip(choices.split(AT_ONCE), noise.split(AT_ONCE), strict=True)
        return torch.cat([self._draw(*pair) for pair in pairs])

    def _draw(self, choices: Tensor, noise: Tensor) -> Tensor:
        """Vectors [n, D] from uniform and Gaussian numbers, both [n, D], one dimension after another."""
        steps, drawn = Steps(self, len(noise)), []
        for index in range(self.dim):
            mean, log_sigma, logits = steps.next(drawn[-1] if drawn else None).chunk(3, 1)
            below = logits.softmax(1).cumsum(1) < choices[:, index, None]
            component = below.sum(1, keepdim=True).clamp(max=self.mixtures - 1)  # the sum of all pi may round to less than 1
            mean, log_sigma = mean.gather(1, component)[:, 0], log_sigma.gather(1, component)[:, 0]
            drawn.append(mean + self._bounded(log_sigma).exp() * noise[:, index])
        return torch.stack(drawn, 1)


class CausalLayer(nn.Module):
    """A convolution of kernel 2 over time, BatchNorm, leaky ReLU: the positions after the front, and the front itself.

    num_front: positions of a vector that the front stands for, after this layer.
    """

    def __init__(self, before: int, after: int, *, dilation: int, num_front: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.num_front = num_front
        self.past = nn.Linear(before, after, bias=False)  # the kernel's weights for `dilation` positions ago
        self.present = nn.Linear(before, after)  # and for this one
        self.norm = nn.BatchNorm1d(after)

    def forward(self, x: Tensor, front: Tensor) -> tuple[Tensor, Tensor]:
        """[T, N, C], [C] -> [T, N, C'], [C']."""
        if self.training:
            copies = self.num_front * x.shape[1]
            weights = self.past.weight, self.present.weight, self.present.bias, self.norm.weight, self.norm.bias
            y, front, mean, var = TrainedLayer.apply(x, front, *weights, self.dilation, copies, self.norm.eps)
            total = x.shape[0] * x.shape[1] + copies
            with torch.no_grad():
                self.norm.running_mean.lerp_(mean, self.norm.momentum)
                self.norm.running_var.lerp_(var * total / (total - 1), self.norm.momentum)  # BatchNorm keeps the unbiased one
                self.norm.num_batches_tracked.add_(1)
            return y, front
        past, present, bias = self.folded()
        split = min(self.dilation, len(x))
        of_front = past @ front
        early = product(x[:split], present, bias + of_front)
        late = product(x[split:], present, bias) + product(x[: len(x) - split], past)
        return F.leaky_relu(torch.cat([early, late]), SLOPE), F.leaky_relu(of_front + present @ front + bias, SLOPE)

    def folded(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the past and the present [C', C], and bias [C'], that do BatchNorm's work with its running statistics."""
        scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        bias = (self.present.bias - self.norm.running_mean) * scale + self.norm.bias
        return self.past.weight * scale[:, None], self.present.weight * scale[:, None], bias


class TrainedLayer(torch.autograd.Function):
    """A CausalLayer in training, with its gradient by hand: half of autograd's passes over memory.

    Gives the positions [T, N, C'], the front [C'], and the batch's mean and (biased) variance [C'], which have no gradient.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        front: Tensor,
        past: Tensor,
        present: Tensor,
        bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        dilation: int,
        copies: int,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        split = min(dilation, len(x))
        of_front = past @ front
        z = product(x, present, bias)
        z[:split] += of_front
        z[split:] += product(x[: len(x) - split], past)
        z_front = of_front + present @ front + bias

        total = rows(z).shape[0] + copies
        mean = (rows(z).sum(0) + copies * z_front) / total
        z -= mean
        z_front = z_front - mean
        var = (rows(z).square().sum(0) + copies * z_front.square()) / total
        inverse = (var + eps).rsqrt()

        y = F.leaky_relu_(torch.addcmul(beta, z, gamma * inverse), SLOPE)
        y_front = F.leaky_relu_(torch.addcmul(beta, z_front, gamma * inverse), SLOPE)
        ctx.save_for_backward(x, front, past, present, gamma, z, z_front, y, y_front, inverse)
        ctx.split, ctx.copies, ctx.total = split, copies, total
        ctx.mark_non_differentiable(mean, var)
        return y, y_front, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor, grad_front: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, front, past, present, gamma, z, z_front, y, y_front, inverse = ctx.saved_tensors
        split, copies, total = ctx.split, ctx.copies, ctx.total
        grad = torch.ops.aten.leaky_relu_backward(grad, y, SLOPE, True)  # by the sign of its result
        grad_front = torch.ops.aten.leaky_relu_backward(grad_front, y_front, SLOPE, True)

        # BatchNorm (Ioffe & Szegedy, 2015): each copy of the front has 1 / copies of its gradient, and its part in both means.
        grad_beta = rows(grad).sum(0) + grad_front
        grad_gamma = ((rows(grad) * rows(z)).sum(0) + grad_front * z_front) * inverse
        shift, slope = gamma * inverse * grad_beta / total, gamma * inverse.square() * grad_gamma / total
        grad = grad.mul_(gamma * inverse).sub_(shift).addcmul_(z, slope, value=-1)
        grad_front = gamma * inverse * grad_front - copies * (shift + slope * z_front)

        # The two products. The front is also the past of the first `split` positions.
        of_front = rows(grad[:split]).sum(0) + grad_front
        grad_x = product(grad, present.T)
        grad_x[: len(x) - split] += product(grad[split:], past.T)
        grad_past = weight_gradient(x[: len(x) - split], grad[split:]) + torch.outer(of_front, front)
        grad_present = weight_gradient(x, grad) + torch.outer(grad_front, front)
        no_bias = torch.zeros_like(shift)  # BatchNorm takes any constant away again
        return (
            *(grad_x, of_front @ past + grad_front @ present, grad_past, grad_present, no_bias, grad_gamma, grad_beta),
            *(None, None, None),
        )


class Steps:
    """The conditionals of n vectors, one dimension after another: each layer keeps its past, so a step costs one position.

    Uses BatchNorm's running statistics, whatever mode the density is in.
    """

    def __init__(self, density: LatentDensityEstimator, n: int) -> None:
        self.head = density.head
        self.layers = []
        front = density.head.weight.new_zeros(2)
        for layer in density.layers:
            past, present, bias = layer.folded()
            self.layers.append((past, present, bias, bias + past @ front, deque(maxlen=layer.dilation)))
            front = F.leaky_relu((past + present) @ front + bias, SLOPE)
        self.first = density.head(front).expand(n, -1)

    def next(self, values: Tensor | None) -> Tensor:
        """The head's output for the next dimension, [n, 3K], given the values [n] of the last one; None before the first."""
        if values is None:
            return self.first
        values = values.clamp(-SEEN, SEEN)
        x = torch.stack([values, torch.ones_like(values)], 1)
        for past, present, bias, bias_of_front, memory in self.layers:
            if len(memory) < memory.maxlen:  # so long ago was still the front
                y = torch.addmm(bias_of_front, x, present.T)
            else:
                y = torch.addmm(bias, x, present.T).addmm_(memory[0], past.T)
            memory.append(x)  # and with it the oldest goes
            x = F.leaky_relu_(y, SLOPE)
        return self.head(x)


def rows(x: Tensor) -> Tensor:
    """[T, N, C] -> [T * N, C], without a copy."""
    return x.flatten(0, 1)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: [T, N, C], [C', C], [C'] -> [T, N, C'].

    Where the rows come out even, as a 1x1 convolution of pictures in channels-last order: the same product on the same memory.
    On a CPU that goes to oneDNN, twice as fast as the library of torch.mm on processors of other makes than that library's.
    """
    if not _are_pictures(x):
        return F.linear(x, weight, bias)
    return F.conv2d(_as_pictures(x), weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(*x.shape[:2], len(weight))


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of `product` by its weight: [T, N, C], [T, N, C'] -> [C', C]."""
    if not _are_pictures(x):
        return rows(grad).T @ rows(x)
    shape = (grad.shape[2], x.shape[2], 1, 1)
    return torch.nn.grad.conv2d_weight(_as_pictures(x), shape, _as_pictures(grad))[:, :, 0, 0]


def _are_pictures(x: Tensor) -> bool:
    count = x.shape[0] * x.shape[1]
    return count > 0 and count % PICTURES == 0


def _as_pictures(x: Tensor) -> Tensor:
    """[T, N, C] -> [PICTURES, C, pixels, 1], a view."""
    return x.reshape(PICTURES, -1, 1, x.shape[2]).permute(0, 3, 1, 2)
