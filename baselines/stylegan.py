"""StyleGAN (Karras et al., 2019, arXiv:1812.04948), on the decoder that the automodulator took from it.

The parts are those of the paper's Table 1, A to F: growing, low-pass filters, mapping network and styles, learned constant in
place of an input, noise inputs; mixing regularisation is in the objective `non-saturating`. As in the automodulator, each layer
may have a code of its own, and a layer is a resolution.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.latent import Gaussian
from genae.models.adversarial import AdversarialGenerator
from genae.networks.adain import AdaInDecoder
from genae.networks.blocks import SLOPE, EqualizedConv2d, EqualizedLinear, Noise, PixelNorm, adain
from genae.networks.discriminator import Discriminator
from genae.networks.progressive import FIRST_RESOLUTION, PUBLISHED_CHANNELS, ToImages, block_channels
from genae.precision import at_least_float32
from genae.registry import MODELS
from genae.rows import whole
from genae.schedule import Growth

MEAN_DECAY = 0.995  # of the running mean of w, per batch, as released


class Mapping(nn.Sequential):
    """f: z -> w (Sec. 2): codes over their root mean square, then fully connected layers with leaky ReLU, [N, D] -> [N, D]."""

    def __init__(self, dim: int, num_layers: int, rate: float) -> None:
        layers: list[nn.Module] = [PixelNorm()]
        for _ in range(num_layers):
            layers += [EqualizedLinear(dim, dim, rate=rate), nn.LeakyReLU(SLOPE, inplace=True)]
        super().__init__(*layers)


class Style(EqualizedLinear):
    """A: w [N, D] -> spreads and means [N, 2 C] of one AdaIN; spreads start at 1, means at 0."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__(dim, 2 * channels, variance=1)
        nn.init.ones_(self.bias[:channels])


class Finish(nn.Module):
    """What follows the constant and every convolution: noise from one map, leaky ReLU, AdaIN (Fig. 1b)."""

    def __init__(self, dim: int, channels: int, layer: str) -> None:
        super().__init__()
        self.noise = Noise(channels, layer, shared=True)
        self.style = Style(dim, channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return adain(F.leaky_relu_(self.noise(x), SLOPE), self.style(w))


class FirstBlock(nn.Module):
    """The layer at 4x4: the constant, then one convolution, each finished."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.first = Finish(dim, channels, f"{FIRST_RESOLUTION}/0")
        self.convolution = EqualizedConv2d(channels, channels, 3, padding=1)
        self.second = Finish(dim, channels, f"{FIRST_RESOLUTION}/1")

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = x.expand(len(w), -1, -1, -1).contiguous(memory_format=torch.channels_last)  # each image has noise of its own
        return self.second(self.convolution(self.first(x, w)), w)


class Synthesis(AdaInDecoder):
    """g: w -> images. The automodulator's decoder, with StyleGAN's parts where the two differ.

    Those are: a learned constant, finished like the rest; noise after it and after every convolution, one map for all
    channels; spreads that start at 1 and means at 0; equalised learning rates of styles and colours too, and colours that learn
    while they fade out.
    """

    def __init__(self, dim: int, shape: tuple[int, int, int], *, channels: Sequence[int] = PUBLISHED_CHANNELS) -> None:
        super().__init__(dim, shape, channels=channels, learned_input=True)
        widths = block_channels(channels, len(self.resolutions))
        self.blocks[0] = FirstBlock(dim, widths[0])
        for block, width, resolution in zip(self.blocks[1:], widths[1:], self.resolutions[1:], strict=True):
            for number, part in enumerate((block.first, block.second)):
                part.noise = Noise(width, f"{resolution}/{number}", shared=True)
                part.style = Style(dim, width)
        self.to_images = ToImages(widths, shape[0], train_previous=True, equalized=True)


class StyleDecoder(nn.Module):
    """Codes z [N, D], or [N, L, D] with one per layer, -> images: the mapping network, then the synthesis network.

    truncation: psi of Appendix B, in eval mode: each w is drawn to the mean of all w, all the way at 0 and not at all at 1.
    """

    grows = True
    mean: Tensor

    def __init__(self, mapping: Mapping, synthesis: Synthesis, dim: int, truncation: float) -> None:
        super().__init__()
        self.mapping = mapping
        self.synthesis = synthesis
        self.truncation = truncation
        self.register_buffer("mean", torch.zeros(dim))  # of w, running

    def styles(self, codes: Tensor) -> Tensor:
        """z -> w, of the same shape; truncated in eval mode. Train mode keeps the running mean."""
        w = at_least_float32(self.mapping(codes.reshape(-1, codes.shape[-1])))  # a running mean needs the digits
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(whole(w).mean(0), 1 - MEAN_DECAY)
        elif self.truncation != 1:
            w = torch.lerp(self.mean, w, self.truncation)
        return w.reshape(codes.shape)

    def forward(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
        return self.synthesis(self.styles(codes), growth)

    @property
    def num_layers(self) -> int:
        return self.synthesis.num_layers

    @property
    def layer_resolutions(self) -> tuple[int, ...]:
        return self.synthesis.layer_resolutions

    def layers_at(self, growth: Growth | None = None) -> int:
        return self.synthesis.layers_at(growth)

    def canvas(self, codes: Tensor, upto: int, growth: Growth | None = None) -> Tensor:
        return self.synthesis.canvas(self.styles(codes), upto, growth)

    def with_canvas(self, codes: Tensor, upto: int, growth: Growth | None = None) -> tuple[Tensor, Tensor]:
        return self.synthesis.with_canvas(self.styles(codes), upto, growth)


@MODELS.add("stylegan", small={"latent_dim": 8, "channels": [8, 8, 4], "mapping_layers": 2})
def stylegan(
    shape: tuple[int, int, int],
    *,
    latent_dim: int = 512,
    channels: tuple[int, ...] = PUBLISHED_CHANNELS,
    mapping_layers: int = 8,
    mapping_rate: float = 0.01,
    truncation: float = 1.0,
    stddev_group: int | None = None,
) -> AdversarialGenerator:
    """StyleGAN (Karras et al., 2019): z and w of latent_dim, both networks grown; train with non-saturating.

    channels: features at 4x4, 8x8, ... of both networks, the last number for all further blocks.  mapping_rate: the learning
    rate of the mapping network, over that of the rest.  truncation: psi, of generated images; 1 is none.  stddev_group: images
    among which the minibatch standard deviation is taken; null is all of the batch, as in PGGAN's paper, 4 what was released.
    """
    mapping = Mapping(latent_dim, mapping_layers, mapping_rate)
    decoder = StyleDecoder(mapping, Synthesis(latent_dim, shape, channels=channels), latent_dim, truncation)
    discriminator = Discriminator(shape, channels=channels, blur=True, stddev_group=stddev_group)
    return AdversarialGenerator(Gaussian(latent_dim), decoder, discriminator)
