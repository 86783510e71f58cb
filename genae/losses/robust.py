"""The general and adaptive robust loss (Barron, 2019): a density over residuals whose shape alpha is learned, per pixel here.

rho(x, alpha, c) = (b / alpha) ((x^2 / (c^2 b) + 1)^(alpha / 2) - 1) with b = |alpha - 2| (Eq. 1, inner branch: alpha is kept
inside (0, 2)), and the negative log likelihood is rho + log c + log Z(alpha) (Eq. 16). It goes below 0 where scales are small.
"""

import functools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.precision import at_least_float32

ALPHA_RANGE = (0.001, 1.999)
MIN_SCALE = 1e-5


def rho(residual: Tensor, alpha: Tensor, scale: Tensor) -> Tensor:
    """Barron's Eq. 1 for 0 < alpha < 2, elementwise; alpha and scale broadcast to the residual."""
    b = 2 - alpha
    growth = torch.log1p((residual / scale).square() / b)
    return b / alpha * torch.expm1(alpha / 2 * growth)


# log Z(alpha), from a table.


def _log_partition_by_quadrature(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """log Z(alpha) and its derivative, for alpha [K] in (0, 2), float64.

    Z = 2 * integral of exp(-rho(x)) over x > 0. With x = e^t the integrand is analytic and falls off exponentially on both
    sides, where the trapezoid rule is as exact as float64 is.
    """
    t = torch.arange(-40, 40.01, 0.1, dtype=torch.float64)
    with torch.enable_grad():
        alpha = alpha.detach().clone().requires_grad_()
        one = torch.ones((), dtype=torch.float64)
        log_z = torch.logsumexp(t - rho(t.exp(), alpha[:, None], one), dim=1) + math.log(2 * 0.1)
        (slope,) = torch.autograd.grad(log_z.sum(), alpha)
    return log_z.detach(), slope


# Knots even in v = log(alpha / (2 - alpha)): log Z bends sharply where alpha nears 0 or 2.
NUM_KNOTS = 1024
LOW, HIGH = (math.log(alpha / (2 - alpha)) for alpha in ALPHA_RANGE)
STEP = (HIGH - LOW) / (NUM_KNOTS - 1)


@functools.lru_cache(maxsize=8)
def _knots(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """log Z at the knots, and its change per knot."""
    alpha = 2 * torch.sigmoid(torch.linspace(LOW, HIGH, NUM_KNOTS, dtype=torch.float64))
    log_z, slope = _log_partition_by_quadrature(alpha)
    return log_z.to(device, dtype), (slope * alpha * (2 - alpha) / 2 * STEP).to(device, dtype)


def log_partition(alpha: Tensor) -> Tensor:
    """log Z(alpha) for alpha in [0.001, 1.999], elementwise, within 1e-6; differentiable (cubic Hermite between knots)."""
    values, slopes = _knots(alpha.device, alpha.dtype)
    position = ((alpha / (2 - alpha)).log() - LOW) / STEP
    left = position.detach().floor().clamp(0, NUM_KNOTS - 2)
    s, index = position - left, left.long()
    f0, f1, d0, d1 = values[index], values[index + 1], slopes[index], slopes[index + 1]
    return f0 + s * (d0 + s * (3 * (f1 - f0) - 2 * d0 - d1 + s * (2 * (f0 - f1) + d0 + d1)))


# The loss with its parameters.


class AdaptiveRobustLoss(nn.Module):
    """Mean negative log likelihood of residuals, one alpha and one scale for each pixel.

    Both start at 1 and stay inside their ranges: alpha by a sigmoid, the scale by a softplus, of raw maps from 0. The maps are
    [C, H, W], or [1, H, W] for values that the channels of a pixel share.
    """

    def __init__(self, raw_alpha: Tensor, raw_scale: Tensor) -> None:
        super().__init__()
        self.raw_alpha = nn.Parameter(raw_alpha)
        self.raw_scale = nn.Parameter(raw_scale)

    @property
    def alpha(self) -> Tensor:
        low, high = ALPHA_RANGE
        return low + (high - low) * torch.sigmoid(self.raw_alpha)

    @property
    def scale(self) -> Tensor:
        offset = math.log(math.e - 1)  # softplus(offset) = 1
        return MIN_SCALE + (1 - MIN_SCALE) * F.softplus(self.raw_scale + offset)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        alpha, scale = self.alpha, self.scale
        residual = at_least_float32(images) - at_least_float32(targets)
        return rho(residual, alpha, scale).mean() + (scale.log() + log_partition(alpha)).mean()


def grow(parameter: Tensor, how: Literal["blocks", "released"] = "blocks") -> Tensor:
    """A map [C, H, W] for twice the resolution: [C, 2 H, 2 W].

    blocks: each value to the 2x2 pixels that cover its own, as the paper says (end of Sec. 3.2).  released: each to four
    consecutive places of the flattened map, which puts rows right and columns wrong.
    """
    if how == "blocks":
        return parameter.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    channels, height, width = parameter.shape
    return parameter.flatten().repeat_interleave(4).reshape(channels, 2 * height, 2 * width)
