"""The decoder of the automodulator (Heljakka et al., 2020, Sec. 3.1): the code only modulates what flows through the layers.

A layer is one resolution block, as in the paper: layer 1 works at 4x4 and starts from a constant, layer i at 4 * 2^(i - 1).
Sizes and order of operations are those of the first released version (its narrow decoder), which has the paper's numbers.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.networks.blocks import SLOPE, Blur, EqualizedConv2d, Noise, StyleMap, adain, upsample
from genae.networks.progressive import PUBLISHED_CHANNELS, ToImages, block_channels, block_resolutions, newest_block
from genae.schedule import Growth


class _Modulated(nn.Module):
    """Convolution, [blur], [noise], leaky ReLU, AdaIN."""

    def __init__(self, in_channels: int, channels: int, dim: int, *, blur: bool, noise: str | None, style_bias: float) -> None:
        super().__init__()
        self.convolution = EqualizedConv2d(in_channels, channels, 3, padding=1)
        self.blur = Blur(channels) if blur else nn.Identity()
        self.noise = Noise(channels, noise) if noise else nn.Identity()
        self.style = StyleMap(dim, channels, style_bias)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        x = self.noise(self.blur(self.convolution(x)))
        style = self.style(codes)  # [N, 2 C]
        if len(x) < len(codes):  # the first convolution sees the constant, once for all images
            x = x.expand(len(codes), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return adain(F.leaky_relu_(x, SLOPE), style)


class _DecoderBlock(nn.Module):
    """One resolution: upsample, then two modulated convolutions."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        dim: int,
        resolution: int,
        *,
        blur: bool,
        noise: bool,
        residual: bool,
        style_bias: float,
    ) -> None:
        super().__init__()
        names = [f"{resolution}/{index}" if noise else None for index in range(2)]
        self.first = _Modulated(in_channels, channels, dim, blur=blur, noise=names[0], style_bias=style_bias)
        self.second = _Modulated(channels, channels, dim, blur=False, noise=names[1], style_bias=style_bias)
        self.residual = residual
        self.skip = EqualizedConv2d(in_channels, channels, 1) if residual and in_channels != channels else nn.Identity()

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        x = upsample(x)
        y = self.first(x, codes)
        if not self.residual:
            return self.second(y, codes)
        y = self.skip(x) + y
        return y + self.second(y, codes)


class AdaInDecoder(nn.Module):
    """Codes [N, D], or [N, L, D] with one per layer, -> images [N, C, H, W] at the growth's resolution.

    channels: at 4x4, 8x8, ...; the last holds for all further blocks.  noise: noise inputs after all but the first convolution.
    learned_input: learn the constant xi^(0) (StyleGAN does) in place of ones.  style_bias: where spreads and means of AdaIN
    start; released 1 for both.  blur: binomial filter after a block's first convolution.  residual: see ProgressiveEncoder.
    train_previous: see ToImages.
    """

    grows = True

    def __init__(
        self,
        dim: int,
        shape: tuple[int, int, int],
        *,
        channels: Sequence[int] = PUBLISHED_CHANNELS,
        noise: bool = True,
        blur: bool = True,
        residual: bool = False,
        learned_input: bool = False,
        style_bias: float = 1.0,
        train_previous: bool = False,
    ) -> None:
        super().__init__()
        self.resolutions = block_resolutions(shape)
        widths = block_channels(channels, len(self.resolutions))
        constant = torch.ones(1, widths[0], self.resolutions[0], self.resolutions[0])  # xi^(0)
        if learned_input:
            self.constant = nn.Parameter(constant)
        else:
            self.register_buffer("constant", constant, persistent=False)
        self.blocks = nn.ModuleList([_Modulated(widths[0], widths[0], dim, blur=False, noise=None, style_bias=style_bias)])
        for before, width, resolution in zip(widths[:-1], widths[1:], self.resolutions[1:], strict=True):
            self.blocks.append(
                _DecoderBlock(before, width, dim, resolution, blur=blur, noise=noise, residual=residual, style_bias=style_bias)
            )
        self.to_images = ToImages(widths, shape[0], train_previous=train_previous)

    @property
    def num_layers(self) -> int:
        """L: the blocks of the full network."""
        return len(self.blocks)

    @property
    def layer_resolutions(self) -> tuple[int, ...]:
        """Where each of the L layers works: 4, 8, ..."""
        return tuple(self.resolutions)

    def layers_at(self, growth: Growth | None = None) -> int:
        """N: the blocks grown at `growth`."""
        return newest_block(self.resolutions, growth)[0] + 1

    def _canvases(self, codes: Tensor, count: int) -> Iterator[Tensor]:
        """xi^(1), ..., xi^(count): the features after each of the first `count` blocks."""
        if codes.ndim == 3 and codes.shape[1] != self.num_layers:
            raise ValueError(f"the decoder has {self.num_layers} layers; the codes are for {codes.shape[1]}")
        x = self.constant
        for index in range(count):
            x = self.blocks[index](x, codes if codes.ndim == 2 else codes[:, index])
            yield x

    def forward(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
        return self.with_canvas(codes, 1, growth)[0]

    def with_canvas(self, codes: Tensor, upto: int, growth: Growth | None = None) -> tuple[Tensor, Tensor]:
        """The images, and the canvas after layer `upto` that they came from."""
        newest, fade = newest_block(self.resolutions, growth)
        self._check(upto, newest)
        kept, coarser, x = None, None, None
        for layer, canvas in enumerate(self._canvases(codes, newest + 1), start=1):
            coarser, x = x, canvas
            if layer == upto:
                kept = canvas
        return self.to_images(x, coarser, newest, fade), kept

    def canvas(self, codes: Tensor, upto: int, growth: Growth | None = None) -> Tensor:
        """theta_{1:j}(xi^(0), z): the features [N, C_j, H_j, W_j] after layer j = `upto`, as AdaIN leaves them."""
        self._check(upto, newest_block(self.resolutions, growth)[0])
        for canvas in self._canvases(codes, upto):
            x = canvas
        return x

    def _check(self, upto: int, newest: int) -> None:
        if not 1 <= upto <= newest + 1:
            raise ValueError(f"the decoder has grown layers 1 to {newest + 1}; there is no canvas after layer {upto}")
