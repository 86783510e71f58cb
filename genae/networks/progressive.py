"""Progressively grown networks (Karras et al., 2018): one block per resolution, the newest one blended in while it is young.

The encoder is that of Heljakka et al. (2019, 2020), and the decoder the one without modulation of Balanced PIONEER (Heljakka et
al., 2019), which the papers call "classic". How far a network has grown is a value passed in; no network remembers it.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.networks.blocks import SLOPE, Blur, EqualizedConv2d, SpectralConv2d, SpectralVectors, upsample
from genae.schedule import Growth

FIRST_RESOLUTION = 4

# Channels at 4x4, 8x8, 16x16, ...: the first release of the automodulator, which is the paper's network.
PUBLISHED_CHANNELS = (512, 512, 512, 512, 256, 128, 64, 32, 16)


def block_resolutions(shape: tuple[int, int, int]) -> list[int]:
    """[4, 8, ..., H]: where the blocks of a network for images of `shape` (C, H, W) work."""
    _, height, width = shape
    if height != width or height < FIRST_RESOLUTION or height & (height - 1):
        raise ValueError(f"images must be square, a power of two and at least {FIRST_RESOLUTION} pixels; not {height}x{width}")
    return [FIRST_RESOLUTION << index for index in range((height // FIRST_RESOLUTION).bit_length())]


def block_channels(channels: Sequence[int], num_blocks: int) -> list[int]:
    """The channels of features at 4x4, 8x8, ...: as listed, the last number holding for all further blocks."""
    if not channels or min(channels) < 1:
        raise ValueError(f"channels must list at least one number, all positive; not {list(channels)}")
    return [channels[min(index, len(channels) - 1)] for index in range(num_blocks)]


def newest_block(resolutions: list[int], growth: Growth | None) -> tuple[int, float]:
    """The index of the newest block at `growth`, and its fade."""
    if growth is None:
        return len(resolutions) - 1, 1.0
    if growth.resolution not in resolutions:
        raise ValueError(f"no block at resolution {growth.resolution}; the network has: {resolutions}")
    return resolutions.index(growth.resolution), growth.fade


class ToImages(nn.Module):
    """Features -> images at every resolution, a plain 1x1 convolution each; the previous one upsampled beneath the newest.

    train_previous: whether the previous resolution's convolution still learns while it fades out; as released, it does not.
    equalized: give the convolutions equalised learning rates, as PGGAN and StyleGAN do.
    """

    def __init__(
        self, widths: list[int], image_channels: int, *, train_previous: bool = False, equalized: bool = False
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            EqualizedConv2d(width, image_channels, 1, variance=1) if equalized else nn.Conv2d(width, image_channels, 1)
            for width in widths
        )
        self.train_previous = train_previous

    def forward(self, features: Tensor, coarser: Tensor | None, index: int, fade: float) -> Tensor:
        """features: after block `index`.  coarser: after the block before it, looked at only while fade < 1."""
        images = self.convolutions[index](features)
        if fade >= 1 or index == 0:
            return images
        previous = self.convolutions[index - 1]
        if self.train_previous:
            return torch.lerp(upsample(previous(coarser)), images, fade)
        weight = previous.normalized_weight() if isinstance(previous, EqualizedConv2d) else previous.weight
        return torch.lerp(upsample(F.conv2d(coarser, weight.detach(), previous.bias.detach())), images, fade)


class _EncoderBlock(nn.Module):
    """Two convolutions, then half the resolution."""

    def __init__(self, in_channels: int, out_channels: int, *, blur: bool, residual: bool, vectors: SpectralVectors) -> None:
        super().__init__()
        self.first = SpectralConv2d(in_channels, out_channels, 3, padding=1, vectors=vectors)
        self.second = SpectralConv2d(out_channels, out_channels, 3, padding=1, vectors=vectors)
        self.blur = Blur(out_channels) if blur else nn.Identity()
        self.residual = residual
        self.skip: nn.Module = nn.Identity()
        if residual and in_channels != out_channels:
            self.skip = SpectralConv2d(in_channels, out_channels, 1, vectors=vectors)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu_(self.first(x), SLOPE)
        if self.residual:
            y = self.skip(x) + y
        x, y = y, F.leaky_relu_(self.second(y), SLOPE)
        if self.residual:
            y = x + y
        return F.avg_pool2d(self.blur(y), 2)


class ProgressiveEncoder(nn.Module):
    """Images [N, C, H, W] at the growth's resolution -> raw codes [N, outputs].

    channels: at 4x4, 8x8, ...; the last holds for all further blocks.  blur, residual: what the paper's text says of its blocks
    ("binomial filtering", "two residual blocks") and the released network does not have; a residual block is
    y = x + lrelu(conv(x)).  spectral_vectors: see SpectralConv2d.
    """

    grows = True

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        *,
        channels: Sequence[int] = PUBLISHED_CHANNELS,
        blur: bool = False,
        residual: bool = False,
        spectral_vectors: SpectralVectors = "constant",
    ) -> None:
        super().__init__()
        self.resolutions = block_resolutions(shape)
        widths = block_channels(channels, len(self.resolutions))
        self.from_images = nn.ModuleList(nn.Conv2d(shape[0], width, 1) for width in widths)
        self.blocks = nn.ModuleList(  # blocks[i] takes features at resolutions[i + 1] to resolutions[i]
            _EncoderBlock(wide, narrow, blur=blur, residual=residual, vectors=spectral_vectors)
            for narrow, wide in pairwise(widths)
        )
        self.last = nn.Sequential(
            SpectralConv2d(widths[0], widths[0], 3, padding=1, vectors=spectral_vectors),
            nn.LeakyReLU(SLOPE, inplace=True),
            SpectralConv2d(widths[0], outputs, FIRST_RESOLUTION, vectors=spectral_vectors),
        )

    def forward(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        newest, fade = newest_block(self.resolutions, growth)
        if images.shape[-1] != self.resolutions[newest]:
            raise ValueError(f"the encoder has grown to {self.resolutions[newest]} pixels; the images have {images.shape[-1]}")
        x = self.from_images[newest](images)
        for index in reversed(range(newest)):
            x = self.blocks[index](x)
            if index == newest - 1 and fade < 1:
                x = torch.lerp(self.from_images[index](F.avg_pool2d(images, 2)), x, fade)
        return self.last(x).flatten(1)


class ProgressiveDecoder(nn.Module):
    """Codes [N, D] -> images, without modulation: the "classic" decoder of Balanced PIONEER, spectrally normalised.

    The code is a 1x1 feature map; a 4x4 convolution spreads it to 4x4, and each further block doubles the resolution.
    """

    grows = True

    def __init__(
        self,
        dim: int,
        shape: tuple[int, int, int],
        *,
        channels: Sequence[int] = PUBLISHED_CHANNELS,
        train_previous: bool = False,
    ) -> None:
        super().__init__()
        self.resolutions = block_resolutions(shape)
        widths = block_channels(channels, len(self.resolutions))
        in_channels = [dim, *widths[:-1]]
        self.blocks = nn.ModuleList()
        for index, (before, width) in enumerate(zip(in_channels, widths, strict=True)):
            size, padding = (FIRST_RESOLUTION, FIRST_RESOLUTION - 1) if index == 0 else (3, 1)
            self.blocks.append(
                nn.Sequential(
                    SpectralConv2d(before, width, size, padding=padding),
                    nn.LeakyReLU(SLOPE, inplace=True),
                    SpectralConv2d(width, width, 3, padding=1),
                    nn.LeakyReLU(SLOPE, inplace=True),
                )
            )
        self.to_images = ToImages(widths, shape[0], train_previous=train_previous)

    def forward(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
        newest, fade = newest_block(self.resolutions, growth)
        coarser, x = None, codes[:, :, None, None]  # [N, D, 1, 1]
        for index in range(newest + 1):
            coarser, x = x, self.blocks[index](upsample(x) if index else x)
        return self.to_images(x, coarser, newest, fade)
