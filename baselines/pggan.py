"""PGGAN: progressive growing of GANs (Karras et al., 2018, arXiv:1710.10196), on the networks that PIONEER took from it.

The parts are those of the paper's Sec. 2 to 4: growing (both networks), minibatch standard deviation (discriminator), equalised
learning rates (both), normalisation of each pixel's features and of codes (generator). Its loss is the objective `wgan-gp`.
"""

from collections.abc import Sequence

from torch import nn

from genae.latent import Sphere
from genae.models.adversarial import AdversarialGenerator
from genae.networks.blocks import SLOPE, EqualizedConv2d, PixelNorm
from genae.networks.discriminator import Discriminator
from genae.networks.progressive import FIRST_RESOLUTION, PUBLISHED_CHANNELS, ProgressiveDecoder, ToImages, block_channels
from genae.registry import MODELS


class PixelNormDecoder(ProgressiveDecoder):
    """The classic decoder as PGGAN has it: equalised learning rates, pixel norm after every leaky ReLU and of the codes."""

    def __init__(self, dim: int, shape: tuple[int, int, int], *, channels: Sequence[int] = PUBLISHED_CHANNELS) -> None:
        super().__init__(dim, shape, channels=channels)
        widths = block_channels(channels, len(self.resolutions))
        self.blocks = nn.ModuleList()
        for index, (before, width) in enumerate(zip([dim, *widths[:-1]], widths, strict=True)):
            size, padding = (FIRST_RESOLUTION, FIRST_RESOLUTION - 1) if index == 0 else (3, 1)
            parts = [
                EqualizedConv2d(before, width, size, padding),
                nn.LeakyReLU(SLOPE, inplace=True),
                PixelNorm(),
                EqualizedConv2d(width, width, 3, padding=1),
                nn.LeakyReLU(SLOPE, inplace=True),
                PixelNorm(),
            ]
            self.blocks.append(nn.Sequential(*parts) if index else nn.Sequential(PixelNorm(), *parts))
        self.to_images = ToImages(widths, shape[0], train_previous=True, equalized=True)


@MODELS.add("pggan", small={"latent_dim": 8, "channels": [8, 8, 4]})
def pggan(
    shape: tuple[int, int, int],
    *,
    latent_dim: int = 512,
    channels: tuple[int, ...] = PUBLISHED_CHANNELS,
    stddev_group: int | None = None,
) -> AdversarialGenerator:
    """PGGAN (Karras et al., 2018): codes on the unit sphere, both networks grown; train with wgan-gp.

    channels: features at 4x4, 8x8, ... of both networks, the last number for all further blocks.  stddev_group: images among
    which the minibatch standard deviation is taken; null is all of the batch, as in the paper, 4 what was released.
    """
    decoder = PixelNormDecoder(latent_dim, shape, channels=channels)
    return AdversarialGenerator(Sphere(latent_dim), decoder, Discriminator(shape, channels=channels, stddev_group=stddev_group))
