"""Divergences of codes from N(0, I), in float32 under autocast too."""

from typing import Literal

from torch import Tensor

from genae.precision import at_least_float32


def kl_of_moments(codes: Tensor) -> Tensor:
    """KL(q || N(0, I)) of a batch of codes [N, D], with q the Gaussian of each dimension's mean m and biased variance v.

    The mean, not the sum, over dimensions of (v + m^2 - 1 - log v) / 2: AGE's (Ulyanov et al., 2018), as PIONEER corrects it.
    Codes of norm 1 have a floor: v + m^2 averages 1 / D, so it is at least (log D + 1 / D - 1) / 2, or 2.62 at D = 512.
    """
    codes = at_least_float32(codes)
    mean = codes.mean(0)
    var = (codes - mean).square().mean(0)
    return (var + mean.square() - 1 - var.clamp_min(1e-12).log()).mean() / 2


def kl_of_gaussian(mean: Tensor, log_var: Tensor, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, I)) (Kingma & Welling, 2014, appendix B), averaged over the images.

    mean, log_var: [N, D].  reduction: over the D dimensions.
    """
    mean, log_var = at_least_float32(mean), at_least_float32(log_var)
    each = (mean.square() + log_var.exp() - 1 - log_var) / 2  # [N, D]
    return each.sum(1).mean() if reduction == "sum" else each.mean()
