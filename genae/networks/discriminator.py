"""The discriminator of PGGAN and StyleGAN (Karras et al., 2018, Table 2; 2019): PIONEER's encoder, with what they have for it.

PIONEER took its encoder from PGGAN's discriminator and made it spectrally normalised. Here that goes back: equalised learning
rates everywhere, leaky ReLU on what comes from the images, and at 4x4 the minibatch standard deviation and one more layer.
Where channels double, a block's first convolution does it, as in PIONEER; in PGGAN its second does.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from genae.networks.blocks import SLOPE, EqualizedConv2d, MinibatchStdDev
from genae.networks.progressive import FIRST_RESOLUTION, PUBLISHED_CHANNELS, ProgressiveEncoder, block_channels
from genae.schedule import Growth


class Discriminator(ProgressiveEncoder):
    """Images [N, C, H, W] at the growth's resolution -> logits [N], larger for what looks real.

    channels: at 4x4, 8x8, ...; the last holds for all further blocks.  blur: binomial filter before each halving (StyleGAN).
    stddev_group: see MinibatchStdDev.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        channels: Sequence[int] = PUBLISHED_CHANNELS,
        blur: bool = False,
        stddev_group: int | None = None,
    ) -> None:
        super().__init__(shape, 1, channels=channels, blur=blur)
        widths = block_channels(channels, len(self.resolutions))
        self.from_images = nn.ModuleList(
            nn.Sequential(EqualizedConv2d(shape[0], width, 1), nn.LeakyReLU(SLOPE, inplace=True)) for width in widths
        )
        for block in self.blocks:
            block.first, block.second = _equalized(block.first), _equalized(block.second)
        self.last = nn.Sequential(
            MinibatchStdDev(stddev_group),
            EqualizedConv2d(widths[0] + 1, widths[0], 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            EqualizedConv2d(widths[0], widths[0], FIRST_RESOLUTION),
            nn.LeakyReLU(SLOPE, inplace=True),
            EqualizedConv2d(widths[0], 1, 1, variance=1),
        )

    def forward(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        return super().forward(images, growth).squeeze(1)


def _equalized(convolution: nn.Conv2d) -> EqualizedConv2d:
    """A convolution of the same sizes with equalised learning rate."""
    (size, _), (padding, _) = convolution.kernel_size, convolution.padding
    return EqualizedConv2d(convolution.in_channels, convolution.out_channels, size, padding)
