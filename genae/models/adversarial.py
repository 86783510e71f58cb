"""Generative adversarial networks (Goodfellow et al., 2014): a generator, and a discriminator for its training only."""

from torch import Tensor, nn

from genae.models.autoencoder import Generator, Latent
from genae.rows import by_rows
from genae.schedule import Growth


class AdversarialGenerator(Generator):
    """A Generator with a discriminator, `discriminator(images, growth) -> logits [N]`. Provides "discriminate"."""

    def __init__(self, latent: Latent, decoder: nn.Module, discriminator: nn.Module) -> None:
        super().__init__(latent, decoder)
        self.discriminator = discriminator

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"discriminate"}

    def discriminate(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        """Images [N, C, H, W] in [-1, 1], at `growth` H = W = growth.resolution -> logits [N], larger for what looks real."""
        return by_rows(self.discriminator, images, growth)
