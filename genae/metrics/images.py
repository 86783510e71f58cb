"""The images that metrics look at, batch by batch, on the context's device: real ones, reconstructions, samples.

Numbers do not depend on the batch size: codes are drawn a thousand at a time whatever it is. Nor do the codes depend on the
device: they are drawn on the CPU and moved.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Dataset, Vectors
from genae.metrics.metric import NotDefined
from genae.models.autoencoder import Autoencoder, Generator, mix
from genae.pixels import from_uint8, to_uint8

DRAWN_AT_ONCE = 1000


def real_images(dataset: Dataset | Vectors, context: Context) -> Iterator[Tensor]:
    """The data set's images in order, float [n, C, H, W] in [-1, 1]. Raises NotDefined where it is one of vectors."""
    if isinstance(dataset, Vectors):
        raise NotDefined(f"{dataset.name} holds vectors, not images")
    for start in range(0, len(dataset), context.batch_size):
        batch = torch.tensor(dataset.images[start : start + context.batch_size])  # a copy: the array may be memory-mapped
        yield from_uint8(batch.to(context.device))


def reconstructions(model: Autoencoder, dataset: Dataset, context: Context) -> Iterator[tuple[Tensor, Tensor]]:
    """(images, what the model makes of their codes), both float in [-1, 1]: what a decoder gives beyond is clipped."""
    for images in real_images(dataset, context):
        yield images, model.decode(model.encode(images)).clamp(-1, 1)


def draws(count: int) -> Iterator[int]:
    """How many codes to draw at a time, until `count` are drawn."""
    for start in range(0, count, DRAWN_AT_ONCE):
        yield min(DRAWN_AT_ONCE, count - start)


def another(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """For each row of `count`, one that it is not, drawn uniformly. [P] -> [P]"""
    return (rows + torch.randint(1, count, rows.shape, generator=generator)) % count


def samples(model: Generator, count: int, context: Context, *, rounded: bool = True) -> Iterator[Tensor]:
    """Decoded codes of the prior (or of the density that was learned), rounded as a PNG would hold them, or clipped only."""
    generator = context.generator("samples")
    for num in draws(count):
        for codes in model.sample_codes(num, generator).split(context.batch_size):
            images = model.decode(codes.to(context.device))
            yield as_png(images) if rounded else images.clamp(-1, 1)


def mixed_samples(model: Generator, count: int, context: Context) -> Iterator[Tensor]:
    """Decoded style mixtures of two drawn codes: layers 1..j follow the first, j uniform in 1..L-1 and drawn per image."""
    if model.num_layers < 2:
        raise ValueError("style mixing needs a decoder of at least two layers")
    generator = context.generator("mixed samples")
    for num in draws(count):
        first, second = model.sample_codes(num, generator), model.sample_codes(num, generator)
        split = torch.randint(1, model.num_layers, (num,), generator=generator)
        for codes in mix(first, second, split, model.num_layers).split(context.batch_size):  # [n, L, D]
            yield as_png(model.decode(codes.to(context.device)))


def as_png(images: Tensor) -> Tensor:
    """Float images rounded to the 256 levels of a PNG, clipped, and back in [-1, 1]."""
    return from_uint8(to_uint8(images))
