"""What holds for every registered data set, third-party ones included, at its small settings.

Those that open a pack find one here, prepared from a tiny copy; one of the packs holds encoded bytes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from genae.conformance.names import registered
from genae.conformance.tiny_copies import COPIES, write_copy
from genae.data.dataset import REQUIRED_SPLITS, Dataset
from genae.data.datasets import open_dataset
from genae.data.loader import Loader
from genae.data.packs import content_digest
from genae.data.prepare import prepare
from genae.data.sources import SOURCES
from genae.registry import DATASETS
from genae.schedule import PhaseSettings, Schedule

NAMES = registered(DATASETS)

Open = Callable[[str, str], Dataset]


def _prepare_all(folder: Path) -> None:
    """Every pack that a small setting may ask for, in the cache that the environment names."""
    for source in SOURCES:
        copy = write_copy(source, folder / "copies" / source)
        named = {"pack": "contract-test"} if SOURCES[source].pack is None else {}
        prepare(source, copy, resolution=16, encoding="bytes" if source == "lsun-cars" else "array", **named)


@pytest.fixture(scope="module")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this module's own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENAE_CACHE", str(home / "cache"))
        patch.delenv("GENAE_DATA", raising=False)
        _prepare_all(home)
        yield home


@pytest.fixture
def open_small(data_home: Path) -> Open:
    return lambda name, split: open_dataset({"name": name, **DATASETS[name].small}, split)


def test_every_source_has_a_tiny_copy():
    assert set(COPIES) == set(SOURCES)


@pytest.mark.parametrize("split", REQUIRED_SPLITS)
@pytest.mark.parametrize("name", NAMES)
def test_a_split_is_square_bytes_whose_digest_is_true(name: str, split: str, open_small: Open):
    dataset = open_small(name, split)
    channels, height, width = dataset.shape
    assert dataset.images.dtype == np.uint8
    assert dataset.split == split
    assert len(dataset) > 0
    assert channels in (1, 3)
    assert height == width
    assert width & (width - 1) == 0
    assert dataset.digest == content_digest(dataset.images)
    assert np.min(dataset.images) < np.max(dataset.images)


@pytest.mark.parametrize("name", NAMES)
def test_no_image_is_in_both_splits(name: str, open_small: Open):
    train, test = ({image.tobytes() for image in open_small(name, split).images} for split in REQUIRED_SPLITS)
    assert not train & test


@pytest.mark.parametrize("name", NAMES)
def test_another_cache_gives_the_same_bytes(
    name: str, open_small: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_home: Path
):
    digests = [open_small(name, split).digest for split in REQUIRED_SPLITS]
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path))
    monkeypatch.setenv("GENAE_DATA", str(data_home / "cache" / "packs"))  # a pack is the user's; what is derived is made again
    assert [open_small(name, split).digest for split in REQUIRED_SPLITS] == digests


@pytest.mark.parametrize("split", REQUIRED_SPLITS)
@pytest.mark.parametrize("name", NAMES)
def test_factors_are_aligned_with_the_images(name: str, split: str, open_small: Open):
    dataset = open_small(name, split)
    for values in dataset.factors.values():
        assert len(values) == len(dataset)
        assert values.ndim in (1, 2)
    first = dataset.first(3)
    assert len(first) == min(3, len(dataset))
    assert np.array_equal(first.images, dataset.images[:3])
    assert {factor: len(values) for factor, values in first.factors.items()} == dict.fromkeys(dataset.factors, len(first))
    assert dataset.first(None) is dataset
    assert (first.digest == dataset.digest) == (len(dataset) <= 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_loader_makes_batches_of_it(name: str, open_small: Open):
    dataset = open_small(name, "train")
    schedule = Schedule(total_kimg=1, phases=(PhaseSettings(resolution=4, batch_size=5, learning_rate=1.0),))
    batch = Loader(dataset, seed=0, flip=False).batch(0, schedule.at(0))
    assert batch.shape == (5, dataset.shape[0], 4, 4)
    assert -1 <= batch.min() < batch.max() <= 1
