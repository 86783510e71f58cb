"""The encoder and decoder of AE and IAE (Yoo et al., 2019), after DCGAN (Radford et al., 2016), as released.

4x4 convolutions of stride 2 halve the resolution down to a map of 4x4 (7x7 for images of 28 pixels, 6x6 for 48), channels
doubling from 64 to 1024; one more, as large as that map, gives the code, linearly. The decoder is its mirror image, and its
first map has neither batch normalisation nor activation. The paper says nothing of these networks: they are its code's.

Unlike the classic networks (networks/classic.py) they squash what they decode, and start from orthogonal weights.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from genae.networks.blocks import SLOPE
from genae.networks.classic import FixedSizeDecoder, FixedSizeEncoder
from genae.pixels import from_unit

Output = Literal["tanh", "sigmoid"]


class FromUnit(nn.Module):
    """Images [0, 1] -> [-1, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        return from_unit(images)


def encoder(
    shape: tuple[int, int, int], dim: int, *, width: int = 64, max_width: int = 1024, norm_scale_mean: float = 0.0
) -> nn.Module:
    """images [N, *shape] -> raw codes [N, dim]. The settings are those of `decoder`."""
    widths, last = _plan(shape, width, max_width)
    layers: list[nn.Module] = [nn.Conv2d(shape[0], widths[0], 4, 2, 1), nn.LeakyReLU(SLOPE)]  # no normalisation, as in DCGAN
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]
    layers.append(nn.Conv2d(widths[-1], dim, last))
    return _initialized(FixedSizeEncoder(shape[1], *layers), norm_scale_mean)


def decoder(
    dim: int,
    shape: tuple[int, int, int],
    *,
    width: int = 64,
    max_width: int = 1024,
    output: Output = "tanh",
    norm_scale_mean: float = 0.0,
) -> nn.Module:
    """codes [N, dim] -> images [N, *shape] in [-1, 1].

    width: channels at half the images' resolution; they double with every halving, up to max_width.
    output: what squashes the images: "tanh", or "sigmoid", whose [0, 1] are then made [-1, 1]. Released for CelebA and for
    MNIST and TFD.
    norm_scale_mean: the scales of batch normalisation start from N(norm_scale_mean, 0.02^2). The released code has 0, which
    starts every normalised layer near zero and some channels upside down; 1 is DCGAN's.
    """
    widths, first = _plan(shape, width, max_width)
    layers: list[nn.Module] = [nn.ConvTranspose2d(dim, widths[-1], first)]
    for before, after in pairwise(widths[::-1]):
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]
    layers.append(nn.ConvTranspose2d(widths[0], shape[0], 4, 2, 1))
    layers += [nn.Tanh()] if output == "tanh" else [nn.Sigmoid(), FromUnit()]
    return _initialized(FixedSizeDecoder(shape[1], *layers), norm_scale_mean)


def _plan(shape: tuple[int, int, int], width: int, max_width: int) -> tuple[list[int], int]:
    """Channels after each halving, finest first, and the size of the smallest map."""
    _, height, resolution = shape
    halvings = resolution.bit_length() - 3  # floor(log2(resolution)) - 2: what is left has 4 to 7 pixels
    if height != resolution or halvings < 1 or resolution % (1 << halvings):
        raise ValueError(
            "the networks of AE and IAE are for square images of at least 8 pixels that halve evenly to a map of 4 to 7, "
            f"as 8, 16, 28, 32, 48, 64 or 128; not {height}x{resolution}"
        )
    if not 1 <= width <= max_width:
        raise ValueError(f"width must be at least 1 and at most max_width ({max_width}), not {width}")
    return [min(width << index, max_width) for index in range(halvings)], resolution >> halvings


@torch.no_grad()
def _initialized(network: nn.Module, norm_scale_mean: float) -> nn.Module:
    """Orthogonal weights (Saxe et al., 2014), biases 0, scales of batch normalisation from N(norm_scale_mean, 0.02^2)."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.orthogonal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, norm_scale_mean, 0.02)
    return network
