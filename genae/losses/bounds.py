"""Lower bounds of log p(x), in nats, by draws from an approximate posterior (Burda et al., 2016), and the density of pixels.

    log p(x) >= E[log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x)],  z_k from q(z | x)

With K = 1 that is the evidence lower bound; it is the tighter the larger K. x is a density of pixels in [0, 1], the unit of
Parzen windows, so that the two can stand side by side.
"""

import math

import torch
from torch import Tensor, nn

from genae.precision import at_least_float32


def importance_bound(log_weights: Tensor) -> Tensor:
    """log 1/K sum_k exp(w_k) of the log weights [K, N] of K draws, log p(x, z_k) - log q(z_k | x): Eq. 8, per image, [N]."""
    return at_least_float32(log_weights).logsumexp(0) - math.log(len(log_weights))


def gaussian_log_prob(x: Tensor, mean: Tensor | float, log_var: Tensor | float) -> Tensor:
    """log N(x; mean, exp(log_var)) of each row, summed over all but the first dimension: [N, ...] -> [N]."""
    x = at_least_float32(x)
    log_var = torch.as_tensor(log_var, dtype=x.dtype, device=x.device)
    each = (x - mean).square() * (-log_var).exp() + log_var + math.log(2 * math.pi)
    return each.flatten(1).sum(1) / -2


class GaussianPixels(nn.Module):
    """p(x | z) of images: each pixel N(decoded, std^2), with one std for all.

    std: in units of pixels in [0, 1]. None: it is learned, as sqrt(exp(2 log_std) + MIN_STD^2). Narrower than a grey level a
    density would say how pixels are stored and not what they show, and of black borders it would have no bound.
    """

    MIN_STD = 1 / 256
    FIRST_STD = 0.1

    def __init__(self, std: float | None = None) -> None:
        if std is not None and not std > 0:
            raise ValueError(f"the standard deviation of pixels must be positive, not {std}")
        super().__init__()
        self.stated = std
        self.log_std = nn.Parameter(torch.tensor(math.log(self.FIRST_STD))) if std is None else None

    @property
    def log_var(self) -> Tensor | float:
        """The log of std^2."""
        if self.stated is not None:
            return 2 * math.log(self.stated)
        return ((2 * self.log_std).exp() + self.MIN_STD**2).log()

    def log_prob(self, images: Tensor, decoded: Tensor) -> Tensor:
        """log p(x | z) [N] of images, in [-1, 1] as all are, about what was decoded; the density is of pixels in [0, 1]."""
        halves = (at_least_float32(images) - at_least_float32(decoded)) / 2  # the difference of the two in [0, 1], not clipped
        return gaussian_log_prob(halves, 0.0, self.log_var)
