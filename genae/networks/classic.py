"""Plain convolutional encoder and decoder of fixed size, after DCGAN (Radford et al., 2016): a baseline's first choice.

Strided 4x4 convolutions halve (or double) the resolution down to (up from) 4x4, channels doubling on the way; the last
convolution of the encoder covers the 4x4 map and gives the code.
"""

from torch import Tensor, nn

from genae.networks.blocks import SLOPE
from genae.networks.progressive import FIRST_RESOLUTION, block_resolutions
from genae.schedule import Growth


def _widths(shape: tuple[int, int, int], width: int, max_width: int) -> list[int]:
    """Channels after each halving, finest first."""
    return [min(width << index, max_width) for index in range(max(len(block_resolutions(shape)) - 1, 1))]


class FixedSize(nn.Module):
    """A network that does not grow: it refuses any growth but the full one."""

    def __init__(self, resolution: int, *layers: nn.Module) -> None:
        super().__init__()
        self.resolution = resolution
        self.layers = nn.Sequential(*layers)

    def _check(self, growth: Growth | None) -> None:
        if growth is not None and (growth.resolution != self.resolution or growth.fade < 1):
            raise ValueError(f"this network does not grow: it works at {self.resolution} pixels only, not at {growth}")


class FixedSizeEncoder(FixedSize):
    """images [N, C, H, W] -> raw codes [N, D], of layers that end in a 1x1 map."""

    def forward(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        self._check(growth)
        return self.layers(images).flatten(1)


class FixedSizeDecoder(FixedSize):
    """codes [N, D] -> images [N, C, H, W], of layers that begin with a 1x1 map."""

    def forward(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
        self._check(growth)
        return self.layers(codes[:, :, None, None])


def encoder(
    shape: tuple[int, int, int], dim: int, *, width: int = 32, max_width: int = 512, batch_norm: bool = True
) -> nn.Module:
    """images [N, *shape] -> raw codes [N, dim]. width: channels after the first convolution."""
    image_channels, resolution, _ = shape
    layers, before = [], image_channels
    for index, after in enumerate(_widths(shape, width, max_width)):
        stride = 2 if resolution > FIRST_RESOLUTION else 1
        normalised = batch_norm and index > 0  # not the first, as in DCGAN
        layers.append(nn.Conv2d(before, after, 4 if stride == 2 else 3, stride, 1, bias=not normalised))
        layers += [nn.BatchNorm2d(after)] if normalised else []
        layers.append(nn.LeakyReLU(SLOPE))
        before = after
    layers.append(nn.Conv2d(before, dim, FIRST_RESOLUTION))
    return FixedSizeEncoder(resolution, *layers)


def decoder(
    dim: int, shape: tuple[int, int, int], *, width: int = 32, max_width: int = 512, batch_norm: bool = True
) -> nn.Module:
    """codes [N, dim] -> images [N, *shape], not squashed. width: channels before the last convolution."""
    image_channels, resolution, _ = shape
    widths = _widths(shape, width, max_width)[::-1]
    layers: list[nn.Module] = [nn.ConvTranspose2d(dim, widths[0], FIRST_RESOLUTION)]
    for before, after in zip(widths, [*widths[1:], image_channels], strict=True):
        layers += [nn.BatchNorm2d(before)] if batch_norm else []
        layers.append(nn.LeakyReLU(SLOPE))
        up = resolution > FIRST_RESOLUTION
        layers.append(nn.ConvTranspose2d(before, after, 4, 2, 1) if up else nn.Conv2d(before, after, 3, 1, 1))
    return FixedSizeDecoder(resolution, *layers)
