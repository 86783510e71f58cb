"""The epitomic variational autoencoder, eVAE (Yeung, Kannan, Dauphin & Fei-Fei, 2017, arXiv:1706.03643).

The parts, from Sec. 4 of the paper:

- epitomes: each a block of consecutive latent dimensions, a mask m_y; neighbours may overlap. All share encoder and decoder;
- y, uniform over the epitomes, says which block an image is decoded from: p(x | m_y * z), z ~ N(0, I);
- q(z | x) is a Gaussian, and only the dimensions that m_y leaves are held to the prior;
- q(y | x) is all on one epitome, the one of least loss (its divergence from the uniform prior is then log E, a constant): the
  objective `evae`. The paper assigns all images once an epoch; here each batch is assigned as it comes, with the draw of z
  that it is then trained on. Neither are batches balanced over epitomes;
- samples: y uniform, z from the prior, masked. A code is a masked z.

Networks are fully connected with rectifiers, as in the paper. Pixels are Gaussian about what is decoded, so that there is a
bound of log p(x) in the units of the others' (genae/losses/bounds.py); it sums over the epitomes, which are few.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from genae.latent import Gaussian
from genae.losses.bounds import GaussianPixels, importance_bound
from genae.models.autoencoder import Autoencoder
from genae.networks.fully_connected import FromPixels, ToPixels, num_pixels
from genae.objectives.objective import Objective, Terms
from genae.precision import at_least_float32
from genae.registry import MODELS, OBJECTIVES
from genae.rows import by_rows
from genae.schedule import Growth, Phase


@dataclass(frozen=True)
class Epitomes(Gaussian):
    """N(0, I) on one block of `size` dimensions, 0 elsewhere; blocks begin every `stride` dimensions, all as likely."""

    size: int
    stride: int

    @property
    def count(self) -> int:
        """E, the number of epitomes."""
        return (self.dim - self.size) // self.stride + 1

    def masks(self) -> Tensor:
        """m: 1 where a dimension belongs to an epitome, else 0, [E, D]."""
        first = self.stride * torch.arange(self.count)[:, None]
        dimension = torch.arange(self.dim)
        return ((first <= dimension) & (dimension < first + self.size)).float()

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n codes [n, D]: an epitome each, and its dimensions from N(0, I)."""
        chosen = torch.randint(self.count, (n,), generator=generator, device=generator.device)
        return super().sample(n, generator) * self.masks().to(generator.device)[chosen]


class EpitomicVariational(Autoencoder):
    """An autoencoder with epitomes, whose encoder gives mean and log variance. Provides "epitomes" and "bound".

    It encodes by trying each epitome on the decoder, so not "encoder": no part does that alone.
    """

    masks: Tensor

    def __init__(self, latent: Epitomes, encoder: nn.Module, decoder: nn.Module, observation: GaussianPixels) -> None:
        super().__init__(latent, encoder, decoder)
        self.observation = observation
        self.register_buffer("masks", latent.masks())  # [E, D]

    @property
    def provides(self) -> frozenset[str]:
        """ "epitomes": `gaussian` and `choose`."""
        return (super().provides - {"encoder"}) | {"epitomes", "bound"}

    def gaussian(self, images: Tensor, growth: Growth | None = None) -> tuple[Tensor, Tensor]:
        """q(z | x), of all epitomes at once: mean and log variance, [N, D] each."""
        mean, log_var = at_least_float32(by_rows(self.encoder, images, growth)).chunk(2, dim=1)
        return mean, log_var

    def encode(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        """Images [N, C, H, W] -> the posterior's mean, masked by the epitome that reconstructs it at least loss, [N, D]."""
        mean, log_var = self.gaussian(images, growth)
        return mean * self.choose(images, mean, mean, log_var, growth)

    @torch.no_grad()
    def choose(self, images: Tensor, z: Tensor, mean: Tensor, log_var: Tensor, growth: Growth | None = None) -> Tensor:
        """The mask [N, D] of each image's epitome of least loss, -log p(x | m_y * z) + KL of its dimensions."""
        divergence = kl_by_dimension(mean, log_var) @ self.masks.T  # [N, E]
        losses = divergence - self.log_likelihoods(images, z, growth)
        return self.masks[losses.argmin(1)]

    def log_likelihoods(self, images: Tensor, z: Tensor, growth: Growth | None = None) -> Tensor:
        """log p(x | m_y * z) of images and their z [N, D], for every epitome: [N, E]."""
        codes = z[:, None] * self.masks  # [N, E, D]
        count = len(self.masks)
        decoded = self.decode(codes.flatten(0, 1), growth)
        return self.observation.log_prob(images.repeat_interleave(count, dim=0), decoded).unflatten(0, (-1, count))

    def bound(self, images: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
        """A lower bound of log p(x) of each image, [N], in nats, of pixels in [0, 1].

        log 1/E sum_y of p(x | y), each by its own importance bound (genae/losses/bounds.py) from the same draws of z. Weights
        are of the dimensions that an epitome has: the others cancel, being free.
        """
        if num_draws < 1:
            raise ValueError(f"num_draws must be at least 1, not {num_draws}")
        mean, log_var = self.gaussian(images)
        log_weights = []
        for _ in range(num_draws):
            noise = self._noise(images, generator)
            z = mean + (log_var / 2).exp() * noise
            log_ratio = (noise.square() + log_var - z.square()) / 2  # log p(z) - log q(z | x) by dimension, [N, D]
            log_weights.append(self.log_likelihoods(images, z) + log_ratio @ self.masks.T)
        by_epitome = importance_bound(torch.stack(log_weights))  # [N, E]
        return by_epitome.logsumexp(1) - math.log(len(self.masks))

    def _noise(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """N(0, I) of all dimensions, [N, D]."""
        drawn = torch.randn(len(images), self.latent.dim, generator=generator, device=generator.device)
        return drawn.to(images.device)


def kl_by_dimension(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each dimension, [N, D] (Kingma & Welling, 2014, appendix B)."""
    return (mean.square() + log_var.exp() - 1 - log_var) / 2


def _rectifiers(widths: list[int]) -> nn.Sequential:
    """Fully connected layers with rectifiers between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@MODELS.add("evae", small={"latent_dim": 8, "epitome_size": 4, "epitome_stride": 2, "hidden_units": [32]})
def evae(
    shape: tuple[int, int, int],
    *,
    latent_dim: int = 48,
    epitome_size: int = 8,
    epitome_stride: int | None = None,
    hidden_units: tuple[int, ...] = (500, 500),
    pixel_std: float | None = None,
) -> EpitomicVariational:
    """eVAE (Yeung et al., 2017): a VAE whose latent dimensions come in blocks, one used at a time; train with evae.

    latent_dim, epitome_size, hidden_units: the paper tries several; these are inferred.  epitome_stride: from one epitome's
    first dimension to the next's; less than their size, they overlap; null: as far as they are large.
    hidden_units: of the encoder, from the pixels on; the decoder has them the other way round.
    pixel_std: of a pixel in [0, 1] about what is decoded; null: one for all, learned.
    """
    stride = epitome_size if epitome_stride is None else epitome_stride
    if not 1 <= epitome_size <= latent_dim:
        raise ValueError(f"epitome_size must be from 1 to latent_dim ({latent_dim}), not {epitome_size}")
    if not 1 <= stride <= epitome_size or (latent_dim - epitome_size) % stride:
        raise ValueError(
            f"epitome_stride must be from 1 to epitome_size ({epitome_size}) and divide what is left of latent_dim beside one "
            f"epitome ({latent_dim - epitome_size}), so that every dimension is in one; not {stride}"
        )
    widths = [num_pixels(shape), *hidden_units]
    return EpitomicVariational(
        Epitomes(latent_dim, epitome_size, stride),
        FromPixels(shape, _rectifiers([*widths, 2 * latent_dim])),
        ToPixels(shape, _rectifiers([latent_dim, *widths[::-1]])),
        GaussianPixels(pixel_std),
    )


@OBJECTIVES.add("evae")
@dataclass(kw_only=True)
class EpitomicElbo(Objective):
    """-log p(x | m_y * z) + KL of the dimensions of y, in nats, with y the epitome for which that is least.

    kl_weight: of the divergence, 1 for the bound (less the constant log E).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"epitomes"})

    kl_weight: float = 1.0

    def terms(self, model: EpitomicVariational, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        mean, log_var = model.gaussian(images, phase.growth)
        noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
        z = mean + (log_var / 2).exp() * noise
        mask = model.choose(images, z.detach(), mean.detach(), log_var.detach(), phase.growth)
        reconstruction = -model.observation.log_prob(images, model.decode(mask * z, phase.growth)).mean()
        divergence = (mask * kl_by_dimension(mean, log_var)).sum(1).mean()
        return {"reconstruction": reconstruction, "kl": self.kl_weight * divergence}
