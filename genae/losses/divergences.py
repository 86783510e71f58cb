"""Divergences of codes from a prior, in float32 under autocast too: from N(0, I) in closed form, from samples by MMD."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from genae.precision import at_least_float32


def kl_of_moments(codes: Tensor, form: Literal["gaussian", "age"] = "gaussian") -> Tensor:
    """KL(q || N(0, I)) of a batch of codes [N, D], with q the Gaussian of each dimension's mean m and biased variance v.

    The mean, not the sum, over dimensions of (v + m^2 - 1 - log v) / 2, as PIONEER has it (Heljakka et al., 2018).
    form: "age" is what the code of AGE (Ulyanov et al., 2018) computes, (v^2 + m^2 - 1) / 2 - log v: the same formula, with
    variances where its standard deviations belong.

    Codes of norm 1 have a floor: v + m^2 averages 1 / D, so it is at least (log D + 1 / D - 1) / 2, or 2.62 at D = 512.
    """
    codes = at_least_float32(codes)
    mean = codes.mean(0)
    var = (codes - mean).square().mean(0)
    log_var = var.clamp_min(1e-12).log()
    if form == "age":
        return ((var.square() + mean.square() - 1) / 2 - log_var).mean()
    return (var + mean.square() - 1 - log_var).mean() / 2


def kl_of_gaussian(mean: Tensor, log_var: Tensor, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, I)) (Kingma & Welling, 2014, appendix B), averaged over the images.

    mean, log_var: [N, D].  reduction: over the D dimensions.
    """
    mean, log_var = at_least_float32(mean), at_least_float32(log_var)
    each = (mean.square() + log_var.exp() - 1 - log_var) / 2  # [N, D]
    return each.sum(1).mean() if reduction == "sum" else each.mean()


# Maximum mean discrepancy.


def mmd(
    codes: Tensor,
    draws: Tensor,
    bandwidths: Sequence[float],
    *,
    kernel: Literal["imq", "rbf"] = "imq",
    estimator: Literal["unbiased", "biased"] = "unbiased",
) -> Tensor:
    """The squared maximum mean discrepancy of codes [N, D] and draws [M, D] (Gretton et al., 2012).

    mean k(z, z') + mean k(p, p') - 2 mean k(z, p), with k the sum over bandwidths C of the inverse multiquadratic C / (C + d),
    or of exp(-d / C) for "rbf", d being the squared distance. The "unbiased" estimate leaves a point's pair with itself out of
    the first two means (Lemma 6) and may fall below 0; the "biased" one has all pairs (Eq. 5) and may not.

    Distances come from products of the codes, in memory of O(N M + (N + M) D); the differences [N, M, D] are never made.
    Raises ValueError where the unbiased estimate has no pairs.
    """
    if estimator == "unbiased" and min(len(codes), len(draws)) < 2:
        raise ValueError(f"the unbiased estimator needs pairs of codes; there are {len(codes)} codes and {len(draws)} draws")
    codes, draws = at_least_float32(codes), at_least_float32(draws)

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        distances = squared_distances(a, b)
        if kernel == "rbf":
            return sum((distances / -bandwidth).exp() for bandwidth in bandwidths)
        return sum(bandwidth / (distances + bandwidth) for bandwidth in bandwidths)

    def among(points: Tensor) -> Tensor:
        pairs, count = similarity(points, points), len(points)
        if estimator == "biased":
            return pairs.mean()
        return (pairs.sum() - pairs.diagonal().sum()) / (count * (count - 1))

    return among(codes) + among(draws) - 2 * similarity(codes, draws).mean()


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 of vectors a [N, D] and b [M, D], as [N, M], by |a_i|^2 + |b_j|^2 - 2 a_i b_j.

    Vectors are taken from their common mean first, which moves no distance: what is subtracted is then no larger than it must
    be. Rounding may still leave less than 0, which is set to 0; its gradient is 0 too, as that of a distance of 0 is.
    """
    with torch.autocast(a.device.type, enabled=False):  # which would round the products to half precision
        center = (a.detach().mean(0) + b.detach().mean(0)) / 2  # distances do not depend on it, and so neither do gradients
        a, b = a - center, b - center
        lengths = a.square().sum(1)[:, None] + b.square().sum(1)  # [N, M]
        return torch.addmm(lengths, a, b.T, alpha=-2).clamp_min(0)
