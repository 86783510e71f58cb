"""Make fashion-mnist.npz, the part of Fashion-MNIST that the package ships, from the published files.

    python genae/data/shipped/make_fashion_mnist.py [SOURCE] [TARGET]

SOURCE: a folder with the four IDX files, as the Debian package `dataset-fashion-mnist` installs them.
It takes the first 1,000 training and the first 200 test images of each of the ten classes, in the order of the files.
"""

import sys
from pathlib import Path

import numpy as np

from genae.data.sources import read_idx_split

SOURCE = Path("/usr/share/datasets/fashion-mnist")
TARGET = Path(__file__).with_name("fashion-mnist.npz")
NUM_PER_CLASS = {"train": 1_000, "test": 200}


def subset(source: Path) -> dict[str, np.ndarray]:
    """{train_images: uint8 [10000, 28, 28], train_labels: uint8 [10000], test_images: ..., test_labels: ...}"""
    arrays = {}
    for split, count in NUM_PER_CLASS.items():
        images, labels = read_idx_split(source, split)
        of_class = [np.flatnonzero(labels == label)[:count] for label in range(10)]
        chosen = np.sort(np.concatenate(of_class))  # in the files' order, in which the classes come mixed
        arrays[f"{split}_images"] = images[chosen]
        arrays[f"{split}_labels"] = labels[chosen]
    return arrays


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    source, target = [*given, *(SOURCE, TARGET)[len(given) :]]
    np.savez_compressed(target, **subset(source))
    print(f"{target}: {target.stat().st_size:,} bytes")
