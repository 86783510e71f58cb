"""Endless seeded batches of images, memory-mapped or decoded ahead of the step that takes them, at a phase's resolution; or of
vectors as they are.

A batch is a pure function of (seed, images seen): image number i of training is image i mod N of epoch i div N, whose order and
flips are drawn from (seed, epoch). So a resumed run needs no state, a batch may run over an epoch's end, and whoever takes some
rows of a batch (a rank of several) takes the same images as one that takes all.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from genae.data.dataset import Dataset, Vectors
from genae.data.encoded import EncodedImages
from genae.pixels import for_training
from genae.randomness import seed_for
from genae.schedule import Phase


class Loader:
    """Shuffled batches of a data set.

    seed: of the order and the flips.  flip: mirror each image with probability 1/2; vectors have no mirror image.
    device: where batches are made.
    """

    def __init__(self, dataset: Dataset | Vectors, *, seed: int, flip: bool, device: torch.device | str = "cpu") -> None:
        if not len(dataset):
            raise ValueError(f"{dataset.name} has no images")
        self.seed = seed
        self.of_vectors = isinstance(dataset, Vectors)
        self.flip = flip and not self.of_vectors
        self.device = torch.device(device)
        stored = dataset.vectors if self.of_vectors else dataset.images
        encoded = isinstance(stored, EncodedImages)
        self._images = stored if encoded else np.asarray(stored)  # not np.memmap: a slice costs microseconds
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)  # for a batch that runs over an epoch's end

    def batch(self, images_seen: int, phase: Phase, rows: slice = slice(None)) -> Tensor:
        """The phase's next batch after `images_seen` images: float32 [B, C, r, r] in [-1, 1], channels_last, at phase.growth.

        Of vectors, the next float32 [B, D].
        rows: which of the batch's rows are wanted.
        """
        indices, flips = self.draw(images_seen, phase.batch_size)
        pixels = torch.from_numpy(self._gather(indices[rows], flips[rows]))
        if isinstance(self._images, EncodedImages):  # decoded while the step is taken, on what is idle then
            following, _ = self.draw(images_seen + phase.batch_size, phase.batch_size)
            self._images.prefetch(following[rows])
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        if self.of_vectors:
            return pixels.to(self.device, non_blocking=True)
        return for_training(pixels.to(self.device, non_blocking=True), phase.growth)  # a quarter of the bytes travel

    def draw(self, images_seen: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Which images come next: their indices int64 [count], and whether each is flipped, bool [count]."""
        num_images = len(self._images)
        parts = []
        while count:
            epoch, begin = divmod(images_seen, num_images)
            taken = min(count, num_images - begin)
            order, flips = self._epoch(epoch)
            parts.append((order[begin : begin + taken], flips[begin : begin + taken]))
            images_seen, count = images_seen + taken, count - taken
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([order for order, _ in parts]), np.concatenate([flips for _, flips in parts])

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """A permutation of the images, int64 [N], and the flips in that order, bool [N]."""
        generator = np.random.Generator(np.random.Philox(seed_for(self.seed, "order", epoch)))
        num_images = len(self._images)
        order = generator.permutation(num_images)
        return order, generator.random(num_images) < 0.5 if self.flip else np.zeros(num_images, bool)

    def _gather(self, indices: np.ndarray, flips: np.ndarray) -> np.ndarray:
        """uint8 [B, C, H, W] (or float32 [B, D]): copies of the images, some of them mirrored."""
        gathered = self._images[indices]
        if flips.any():
            gathered[flips] = mirrored(gathered[flips])
        return gathered


def mirrored(images: np.ndarray) -> np.ndarray:
    """uint8 [N, C, H, W], left and right exchanged: whole words in reverse order, then the bytes of each."""
    word = next(size for size in (8, 4, 2, 1) if images.shape[-1] % size == 0)
    words = np.ascontiguousarray(images).view(f"u{word}")
    return words[..., ::-1].byteswap().view(np.uint8)
