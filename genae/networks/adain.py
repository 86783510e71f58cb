"""The decoder of the automodulator (Heljakka et al., 2020, Sec. 3.1): the code only modulates what flows through the layers.

A layer is one resolution block, as in the paper: layer 1 works at 4x4 and starts from a constant, layer i at 4 * 2^(i - 1). One
resolution may have a second block, which does not upsample (Sec. 4.3: "an extra 8x8 layer"); the layers after it then count one
more. Sizes and order of operations are those of the first released version (its narrow decoder), which has the paper's numbers.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

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
    """One layer: upsample (unless it is the extra one of its resolution), then two modulated convolutions."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        dim: int,
        resolution: int,
        *,
        extra: bool,
        blur: bool,
        noise: bool,
        residual: bool,
        style_bias: float,
    ) -> None:
        super().__init__()
        place = f"extra {resolution}" if extra else resolution  # noise inputs are drawn by name
        names = [f"{place}/{index}" if noise else None for index in range(2)]
        self.extra = extra
        self.first = _Modulated(in_channels, channels, dim, blur=blur, noise=names[0], style_bias=style_bias)
        self.second = _Modulated(channels, channels, dim, blur=False, noise=names[1], style_bias=style_bias)
        self.residual = residual
        self.skip = EqualizedConv2d(in_channels, channels, 1) if residual and in_channels != channels else nn.Identity()

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        x = x if self.extra else upsample(x)
        y = self.first(x, codes)
        if not self.residual:
            return self.second(y, codes)
        y = self.skip(x) + y
        return y + self.second(y, codes)


class AdaInDecoder(nn.Module):
    """Codes [N, D], or [N, L, D] with one per layer, -> images [N, C, H, W] at the growth's resolution.

    channels: at 4x4, 8x8, ...; the last holds for all further blocks.  extra_layer: a resolution that has a second block, of as
    many channels. The two grow as one: growth to their resolution has both, and it is the image after the second that fades in,
    or out.  noise: noise inputs after all but the first convolution.  learned_input: learn the constant xi^(0) (StyleGAN does)
    in place of ones.  style_bias: where spreads and means of AdaIN start; released 1 for both.  blur: binomial filter after a
    block's first convolution.  residual: see ProgressiveEncoder.  train_previous: see ToImages.
    """

    grows = True

    def __init__(
        self,
        dim: int,
        shape: tuple[int, int, int],
        *,
        channels: Sequence[int] = PUBLISHED_CHANNELS,
        extra_layer: int | None = None,
        noise: bool = True,
        blur: bool = True,
        residual: bool = False,
        learned_input: bool = False,
        style_bias: float = 1.0,
        train_previous: bool = False,
    ) -> None:
        super().__init__()
        self.resolutions = block_resolutions(shape)
        if extra_layer is not None and extra_layer not in self.resolutions:
            raise ValueError(f"extra_layer must be the resolution of a block, one of {self.resolutions}; not {extra_layer}")
        widths = block_channels(channels, len(self.resolutions))
        constant = torch.ones(1, widths[0], self.resolutions[0], self.resolutions[0])  # xi^(0)
        if learned_input:
            self.constant = nn.Parameter(constant)
        else:
            self.register_buffer("constant", constant, persistent=False)
        width_at = dict(zip(self.resolutions, widths, strict=True))
        extra = [] if extra_layer is None else [extra_layer]
        self.layer_resolutions = tuple(sorted(self.resolutions + extra))  # where each of the L layers works
        settings = {"blur": blur, "noise": noise, "residual": residual, "style_bias": style_bias}
        self.blocks = nn.ModuleList([_Modulated(widths[0], widths[0], dim, blur=False, noise=None, style_bias=style_bias)])
        for before, resolution in pairwise(self.layer_resolutions):
            block = _DecoderBlock(
                width_at[before], width_at[resolution], dim, resolution, extra=resolution == before, **settings
            )
            self.blocks.append(block)
        self.to_images = ToImages(widths, shape[0], train_previous=train_previous)

    @property
    def num_layers(self) -> int:
        """L: the blocks of the full network."""
        return len(self.blocks)

    def layers_at(self, growth: Growth | None = None) -> int:
        """N: the blocks grown at `growth`, which are all those up to its resolution."""
        return self._layers_up_to(newest_block(self.resolutions, growth)[0])

    def _layers_up_to(self, index: int) -> int:
        """The number of blocks that work at the first `index + 1` resolutions."""
        return sum(resolution <= self.resolutions[index] for resolution in self.layer_resolutions)

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
        newest, fade = newest_block(self.resolutions, growth)  # by resolution
        last = self._layers_up_to(newest)
        last_coarser = self._layers_up_to(newest - 1) if newest else 0
        self._check(upto, last)
        kept, coarser, x = None, None, None
        for layer, x in enumerate(self._canvases(codes, last), start=1):
            if layer == last_coarser:
                coarser = x
            if layer == upto:
                kept = x
        return self.to_images(x, coarser, newest, fade), kept

    def canvas(self, codes: Tensor, upto: int, growth: Growth | None = None) -> Tensor:
        """theta_{1:j}(xi^(0), z): the features [N, C_j, H_j, W_j] after layer j = `upto`, as AdaIN leaves them."""
        self._check(upto, self.layers_at(growth))
        for canvas in self._canvases(codes, upto):
            x = canvas
        return x

    def _check(self, upto: int, last: int) -> None:
        if not 1 <= upto <= last:
            raise ValueError(f"the decoder has grown layers 1 to {last}; there is no canvas after layer {upto}")
