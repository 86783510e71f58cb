"""Latent spaces: what a code is, how to draw one, how to walk between two.

A code is a float tensor [N, dim]. Random draws come from a generator that the caller gives.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from genae.precision import at_least_float32


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Spherical interpolation of directions, with norms interpolated linearly (Shoemake, 1985; Karras et al., 2019, A.2).

    a, b: [N, dim].  t: a number, or [N, 1].  Parallel directions fall back to the straight line, which is then the same path.
    """
    norm_a, norm_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a, unit_b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    omega = (unit_a * unit_b).sum(-1, keepdim=True).clamp(-1, 1).acos()  # angle between the directions
    sine = omega.sin()
    near = sine < 1e-6
    safe = torch.where(near, torch.ones_like(sine), sine)
    weight_a = torch.where(near, torch.as_tensor(1 - t, dtype=a.dtype, device=a.device), ((1 - t) * omega).sin() / safe)
    weight_b = torch.where(near, torch.as_tensor(t, dtype=a.dtype, device=a.device), (t * omega).sin() / safe)
    return (weight_a * unit_a + weight_b * unit_b) * ((1 - t) * norm_a + t * norm_b)


def line(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """The point at t of the straight line from a to b.  a, b: [N, dim].  t: a number, or [N, 1]."""
    return torch.lerp(a, b, torch.as_tensor(t, dtype=a.dtype, device=a.device))


@dataclass(frozen=True)
class Gaussian:
    """N(0, I) on R^dim."""

    dim: int
    has_prior: ClassVar[bool] = True

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n codes from the prior, [n, dim], on the generator's device."""
        return torch.randn(n, self.dim, generator=generator, device=generator.device)

    def project(self, codes: Tensor) -> Tensor:
        """Raw encoder output -> codes: every vector is a code."""
        return codes

    def interpolate(self, a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
        """The point at t in [0, 1] of the path from a to b."""
        return slerp(a, b, t)


@dataclass(frozen=True)
class Sphere:
    """The unit sphere in R^dim, with the uniform prior: what the released automodulator uses for the paper's N(0, I)."""

    dim: int
    has_prior: ClassVar[bool] = True

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n codes, uniform on the sphere, [n, dim]."""
        return self.project(torch.randn(n, self.dim, generator=generator, device=generator.device))

    def project(self, codes: Tensor) -> Tensor:
        """Raw encoder output -> codes of norm 1, to more digits than a half-precision network has."""
        return F.normalize(at_least_float32(codes), dim=-1)

    def interpolate(self, a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
        """The point at t in [0, 1] of the great circle from a to b."""
        return slerp(a, b, t)


@dataclass(frozen=True)
class Free:
    """R^dim without a prior: the codes of an autoencoder that nothing regularised (Yoo et al., 2019, Sec. 3.1).

    What is sampled is a density that was learned of them; the draws here only probe a decoder.
    """

    dim: int
    has_prior: ClassVar[bool] = False

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n points about the origin, N(0, I), [n, dim]: no model of the codes."""
        return torch.randn(n, self.dim, generator=generator, device=generator.device)

    def project(self, codes: Tensor) -> Tensor:
        """Raw encoder output -> codes: every vector is a code."""
        return codes

    def interpolate(self, a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
        """The point at t in [0, 1] of the straight line from a to b."""
        return line(a, b, t)


@dataclass(frozen=True)
class GaussianMixture:
    """Gaussians of covariance I on R^dim, all as likely, with the straight line for a path.

    means: of each Gaussian, the same in every dimension. (-3, 3) is the prior of two Gaussians of Yoo et al. (2019, Sec. 4.2);
    their other one, N(0, I) interpolated "linearly", is the mixture of one.
    """

    dim: int
    means: tuple[float, ...] = (-3.0, 3.0)
    has_prior: ClassVar[bool] = True

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n codes from the prior, [n, dim], on the generator's device."""
        device = generator.device
        which = torch.randint(len(self.means), (n, 1), generator=generator, device=device)
        center = torch.zeros(n, 1, device=device)
        for number, mean in enumerate(self.means):  # filled in, since a copy of the means would wait for the device
            center.masked_fill_(which == number, mean)
        return center + torch.randn(n, self.dim, generator=generator, device=device)

    def project(self, codes: Tensor) -> Tensor:
        """Raw encoder output -> codes: every vector is a code."""
        return codes

    def interpolate(self, a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
        """The point at t in [0, 1] of the straight line from a to b."""
        return line(a, b, t)


def latent_space(name: str, dim: int) -> Gaussian | Sphere:
    """The space that a model's setting `latent` names: "gaussian" or "sphere"."""
    return {"gaussian": Gaussian, "sphere": Sphere}[name](dim)
