"""Pixel values and sizes: the only file that knows a value range.

Images are stored as uint8 [0, 255] and trained on as float32 [-1, 1]; every other range is made from one of these here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from genae.schedule import Growth


def from_uint8(images: Tensor) -> Tensor:
    """uint8 [0, 255] -> float32 [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 [0, 255], rounded to nearest, clipped: what a PNG holds."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_unit(images: Tensor) -> Tensor:
    """float [0, 1] -> float [-1, 1]."""
    return images * 2 - 1


def to_unit(images: Tensor) -> Tensor:
    """float [-1, 1] -> float [0, 1], clipped."""
    return ((images + 1) / 2).clamp(0, 1)


def level_width(levels: int) -> float:
    """What one of `levels` equal steps of uint8 [0, 255] is wide, in [-1, 1]: 2 / 255 for all 256 of them."""
    return 256 / levels / 127.5


def dequantize(images: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    """Float images [-1, 1] -> the same, each pixel anywhere within its one of `levels` steps, uniformly at random.

    levels: a power of two up to 256. A step of 256 lies about its pixel's value, so that `to_uint8` gives that back.
    """
    step = 256 / levels
    counts = ((images + 1) * 127.5).round().clamp(0, 255)  # uint8 again, if a fade or an average left them between
    noise = torch.rand(images.shape, generator=generator, device=images.device)
    return (((counts / step).floor() + noise) * step - 0.5) / 127.5 - 1


def to_png_unit(images: Tensor) -> Tensor:
    """float [-1, 1] -> float k / 255 in [0, 1], rounded, clipped: to the last bit what a PNG of them read as floats holds."""
    return to_uint8(images).to(torch.float32) / 255


def to_rgb(images: Tensor) -> Tensor:
    """[N, 1 or 3, H, W] -> [N, 3, H, W]: grey repeated."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def reduce(images: Tensor, resolution: int) -> Tensor:
    """Area average of float images to `resolution`, exact because it divides theirs; unchanged at their own."""
    factor, rest = divmod(images.shape[-1], resolution)
    if rest or factor < 1:
        raise ValueError(f"{images.shape[-1]} pixels cannot be area-averaged to {resolution}")
    while factor % 2 == 0:
        images, factor = halve(images), factor // 2
    return images if factor == 1 else F.avg_pool2d(images, factor)


def halve(images: Tensor) -> Tensor:
    """Area average of float images to half the resolution (as avg_pool2d by 2, in a tenth of its time on a CPU)."""
    rows = images[..., 0::2, :] + images[..., 1::2, :]
    return (rows[..., 0::2] + rows[..., 1::2]) * 0.25


def blend(images: Tensor, growth: Growth) -> Tensor:
    """Real images as the network sees them at `growth`: its resolution, and while it fades in, mixed with the half resolution.

    images: float [N, C, H, W] at any multiple of the resolution. Returns [N, C, resolution, resolution].
    """
    images = reduce(images, growth.resolution)
    if growth.fade >= 1:
        return images
    coarse = halve(images).repeat_interleave(2, dim=-1).unsqueeze(-2)  # [N, C, r / 2, 1, r]: each row stands for two
    fine = images.unflatten(-2, (-1, 2))  # [N, C, r / 2, 2, r]
    return torch.lerp(coarse, fine, growth.fade).flatten(-3, -2)


def for_training(stored: Tensor, growth: Growth) -> Tensor:
    """uint8 [N, C, H, W] as stored -> what a network trains on: `blend` of `from_uint8`, channels_last.

    Averages are taken of the whole numbers, so they are exact, and scaled after.
    """
    whole = stored.shape[-1] == growth.resolution and growth.fade >= 1
    images = stored if whole else blend(stored.to(torch.float32), growth)
    n, channels, height, width = images.shape
    laid = torch.empty((n, height, width, channels), device=images.device)
    for channel in range(channels):  # plane by plane, far quicker on a CPU than `contiguous(memory_format=channels_last)`
        laid[..., channel].copy_(images[:, channel])
    return laid.div_(127.5).sub_(1).permute(0, 3, 1, 2)


def face_crop(images: Tensor) -> Tensor:
    """The half-size window about the face of an aligned portrait: rows 3/8 to 7/8, columns 2/8 to 6/8 (Karras et al., 2019)."""
    eighth = images.shape[-1] // 8
    return images[..., 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]
