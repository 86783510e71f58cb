"""Structural similarity of reconstructions (Wang et al., 2004): Gaussian window, sigma 1.5, 11x11, K1 = 0.01, K2 = 0.03.

It must agree with skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False):
channels are averaged (Wang et al. take luminance only), and so are the positions at which the window lies inside the image.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Splits
from genae.metrics.reconstruction import Comparison, ReconstructionMetric
from genae.pixels import to_unit
from genae.registry import METRICS

SIGMA, RADIUS = 1.5, 5
K1, K2 = 0.01, 0.03


@METRICS.add("ssim", small={"num_images": 8})
@dataclass(kw_only=True)
class StructuralSimilarity(ReconstructionMetric):
    """Structural similarity of reconstructions, averaged over images; 1 is a perfect match."""

    name: ClassVar[str] = "ssim"
    direction: ClassVar[str] = "max"

    def comparison(self, device: torch.device) -> Comparison:
        return lambda images, outputs: ssim(to_unit(images), to_unit(outputs))

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        window = {"window": "gaussian", "sigma": SIGMA, "window_size": 2 * RADIUS + 1, "k1": K1, "k2": K2}
        return super().protocol(data, context) | window | {"data_range": 1, "range": [0, 1], "dtype": "float64"}


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each pair of images, [N]. a, b: [N, C, H, W] in [0, 1], H and W at least 11."""
    if min(a.shape[-2:]) < 2 * RADIUS + 1:
        raise ValueError(f"ssim needs images of at least {2 * RADIUS + 1} pixels, not {min(a.shape[-2:])}")
    a, b = a.double(), b.double()
    mean_a, mean_b = _window(a), _window(b)
    var_a, var_b = _window(a * a) - mean_a**2, _window(b * b) - mean_b**2
    covariance = _window(a * b) - mean_a * mean_b
    c1, c2 = K1**2, K2**2  # times the square of the data range, 1
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return (luminance * structure).mean((1, 2, 3))  # Wang et al. (2004), Eq. 13


def _window(images: Tensor) -> Tensor:
    """Gaussian means about every position whose window lies inside: [N, C, H, W] -> [N, C, H - 10, W - 10]."""
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=images.dtype, device=images.device)
    weights = (-(offsets**2) / (2 * SIGMA**2)).exp()
    weights = weights / weights.sum()
    planes = images.flatten(0, 1)[:, None]  # [N * C, 1, H, W]
    planes = F.conv2d(F.conv2d(planes, weights.reshape(1, 1, -1, 1)), weights.reshape(1, 1, 1, -1))
    return planes.reshape(*images.shape[:2], *planes.shape[-2:])
