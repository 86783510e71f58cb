"""Images per second that reach the training step, against torchvision's ImageFolder over PNGs of the same images.

    OMP_NUM_THREADS=1 python benchmarks/loader.py [--repeats 5] [--seconds 1] [--images 4000]

One core; batches of 32 of 64x64 colour images, shuffled and randomly mirrored, as float32. The rivals take turns and each one's
best turn counts, so that a busy machine slows them alike.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from genae.data.dataset import Dataset
from genae.data.loader import Loader
from genae.data.packs import content_digest
from genae.data.synthetic_faces import draw, sample_factors
from genae.schedule import Phase

BATCH_SIZE, RESOLUTION = 32, 64
BARS = {"full resolution": 20.0, "half resolution": 5.0, "in a fade-in": 5.0}


def phase(resolution: int, fade: float) -> Phase:
    return Phase(
        index=1,
        resolution=resolution,
        fade=fade,
        settled=fade == 1,
        batch_size=BATCH_SIZE,
        learning_rate=1e-3,
        margin=0.0,
        images_seen=0,
        epoch=0.0,
    )


def packed(folder: Path, num_images: int) -> Dataset:
    """Drawn faces as a memory-mapped pack, and as PNGs in folder / png."""
    images = draw(sample_factors(np.arange(num_images), seed=0), RESOLUTION)
    np.save(folder / "images.npy", images)
    from PIL import Image

    (folder / "png" / "faces").mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / "png" / "faces" / f"{index:05d}.png")
    return Dataset("faces", "train", np.load(folder / "images.npy", mmap_mode="r"), content_digest(images))


def ours(dataset: Dataset, at: Phase) -> Iterator[int]:
    loader = Loader(dataset, seed=0, flip=True)
    for images_seen in itertools.count(0, BATCH_SIZE):
        yield len(loader.batch(images_seen, at))


def torchvision_folder(folder: Path) -> Iterator[int]:
    """ImageFolder + ToTensor: neither mirrored nor scaled to [-1, 1], which would only cost it more."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    dataset = ImageFolder(folder / "png", ToTensor())
    while True:
        for images, _ in torch.utils.data.DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=0):
            yield len(images)


def rate(batches: Iterator[int], seconds: float) -> float:
    """Images per second of process time, so that neighbours on the machine do not count."""
    count, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        count += next(batches)
    return count / spent


def compare(
    folder: Path, report: Callable[[str], None], *, repeats: int = 5, seconds: float = 1.0, num_images: int = 4_000
) -> dict[str, float]:
    """Times faster than torchvision, for each of BARS."""
    dataset = packed(folder, num_images)
    rivals = {
        "torchvision ImageFolder + ToTensor": torchvision_folder(folder),
        "full resolution": ours(dataset, phase(RESOLUTION, 1.0)),
        "half resolution": ours(dataset, phase(RESOLUTION // 2, 1.0)),
        "in a fade-in": ours(dataset, phase(RESOLUTION, 0.5)),
    }
    turns: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(repeats):
        for name, batches in rivals.items():
            turns[name].append(rate(batches, seconds))
    base = max(turns.pop("torchvision ImageFolder + ToTensor"))
    report(f"{'torchvision ImageFolder + ToTensor':36s} {base:10,.0f} images/s")
    ratios = {name: max(rates) / base for name, rates in turns.items()}
    for name, ratio in ratios.items():
        report(f"genae, {name:29s} {max(turns[name]):10,.0f} images/s  {ratio:5.1f}x  (at least {BARS[name]:g}x)")
    return ratios


def drawn_faces() -> Iterator[int]:
    for start in itertools.count(0, 256):
        yield len(draw(sample_factors(np.arange(start, start + 256), seed=0), RESOLUTION))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="turns of each rival")
    parser.add_argument("--seconds", type=float, default=1.0, help="a turn's process time")
    parser.add_argument("--images", type=int, default=4_000, help="in the data set")
    options = parser.parse_args()
    torch.set_num_threads(1)
    faces = max(rate(drawn_faces(), options.seconds) for _ in range(options.repeats))
    print(f"{'synthetic-faces, drawn at 64x64':36s} {faces:10,.0f} images/s         (at least 300)")
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), print, repeats=options.repeats, seconds=options.seconds, num_images=options.images)


if __name__ == "__main__":
    main()
