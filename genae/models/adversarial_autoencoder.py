"""Adversarial autoencoders (Makhzani et al., 2015) on the networks of AE and IAE, as Yoo et al. (2019) compare them.

"For fair comparison, the autoencoders of AAE and ours use the same structure" (Sec. 4); of the code discriminator they say
nothing, and none of their AAE code is left. It is here what Makhzani et al. have in their appendix: two hidden layers of 1000
ReLU units and a linear one. The encoder is deterministic, the first of their three kinds of posterior (Sec. 2).
"""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from genae.latent import GaussianMixture
from genae.models.autoencoder import Autoencoder, Latent
from genae.networks.dcgan import Output, decoder, encoder
from genae.registry import MODELS
from genae.rows import by_rows

PRIORS = {"gaussian": (0.0,), "two-gaussians": (-3.0, 3.0)}  # means; every covariance is I (Yoo et al., 2019, Sec. 4.2)


class AdversarialAutoencoder(Autoencoder):
    """An Autoencoder with a discriminator of codes, `code_discriminator(codes) -> logits [N, 1]`, for its training only."""

    def __init__(self, latent: Latent, encoder: nn.Module, decoder: nn.Module, code_discriminator: nn.Module) -> None:
        super().__init__(latent, encoder, decoder)
        self.code_discriminator = code_discriminator

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"discriminate_codes"}

    def discriminate_codes(self, codes: Tensor) -> Tensor:
        """Codes [N, D] -> logits [N], larger for what looks drawn from the prior."""
        return by_rows(self.code_discriminator, codes).squeeze(1)


def code_discriminator(dim: int, hidden: tuple[int, ...]) -> nn.Module:
    """codes [N, dim] -> logits [N, 1]: ReLU layers of `hidden` units, then a linear one."""
    layers: list[nn.Module] = []
    for before, after in pairwise((dim, *hidden)):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear((dim, *hidden)[-1], 1))


@MODELS.add("aae", small={"latent_dim": 8, "width": 8, "hidden": [16, 16]})
def adversarial_autoencoder(
    shape: tuple[int, int, int],
    *,
    prior: Literal["gaussian", "two-gaussians"] = "gaussian",
    latent_dim: int = 100,
    hidden: tuple[int, ...] = (1000, 1000),
    width: int = 64,
    max_width: int = 1024,
    output: Output = "tanh",
    norm_scale_mean: float = 0.0,
) -> AdversarialAutoencoder:
    """The adversarial autoencoder that IAE + LDE is compared with: the same networks, and a discriminator of codes.

    prior: N(0, I), or in equal parts N(-3 1, I) and N(3 1, I); codes are interpolated along straight lines in both.
    hidden: units of the discriminator's layers.  For the rest see networks/dcgan.py.
    """
    sizes = {"width": width, "max_width": max_width, "norm_scale_mean": norm_scale_mean}
    return AdversarialAutoencoder(
        GaussianMixture(latent_dim, PRIORS[prior]),
        encoder(shape, latent_dim, **sizes),
        decoder(latent_dim, shape, output=output, **sizes),
        code_discriminator(latent_dim, hidden),
    )
