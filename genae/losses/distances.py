"""Distances between images, codes and canvases (Heljakka et al., 2020, Eqs. 2 and 5), each a scalar for a batch.

Under autocast they are float32 all the same.
"""

import torch.nn.functional as F
from torch import Tensor

from genae.precision import at_least_float32


def mean_absolute(a: Tensor, b: Tensor) -> Tensor:
    """L1: mean over all elements."""
    return F.l1_loss(at_least_float32(a), at_least_float32(b))


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """L2: mean of the squares over all elements."""
    return F.mse_loss(at_least_float32(a), at_least_float32(b))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """d_cos: 1 - cos of the angle between codes [N, D], averaged over the batch. In [0, 2]."""
    return 1 - F.cosine_similarity(at_least_float32(a), at_least_float32(b), dim=1).mean()


def cosine_per_element(a: Tensor, b: Tensor) -> Tensor:
    """d_cos as released (and in AGE): mean over elements of 2 - a_n b_n of unit codes, which is 2 - cos / D.

    Its gradient is that of `cosine` over D: a weight of 1000 at D = 512 is 1.95 on `cosine`.
    """
    a, b = at_least_float32(a), at_least_float32(b)
    return 2 - (F.normalize(a, dim=1) * F.normalize(b, dim=1)).mean()


def rms_norm(a: Tensor, b: Tensor) -> Tensor:
    """L2 norm of the difference over sqrt(features), averaged over the batch: L_j as the paper states it, at any size."""
    squares = (at_least_float32(a) - at_least_float32(b)).flatten(1).square().mean(1)  # [N]
    return (squares + 1e-12).sqrt().mean()  # the root has no gradient at 0
