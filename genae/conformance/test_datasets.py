"""What holds for every registered data set, third-party ones included, at its small settings.

Those that open a pack find one here, prepared from a tiny copy; one of the packs holds encoded bytes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from genae.conformance.names import registered
from genae.conformance.tiny_copies import COPIES, write_copy
from genae.data.dataset import REQUIRED_SPLITS, SPLITS, Dataset, Vectors
from genae.data.datasets import open_dataset
from genae.data.loader import Loader
from genae.data.packs import content_digest
from genae.data.prepare import prepare
from genae.data.sources import SOURCES
from genae.registry import DATASETS
from genae.schedule import PhaseSettings, Schedule

NAMES = registered(DATASETS)

Open = Callable[[str, str], Dataset | Vectors]


def splits_of(name: str) -> tuple[str, ...]:
    """The splits that a data set says it has."""
    return SPLITS if "num_validation" in DATASETS[name].settings else REQUIRED_SPLITS


NAMES_AND_SPLITS = [(name, split) for name in NAMES for split in splits_of(name)]


def _prepare_all(folder: Path) -> None:
    """Every pack that a small setting may ask for, in the cache that the environment names."""
    for source in SOURCES:
        copy = write_copy(source, folder / "copies" / source)
        named = {"pack": "contract-test"} if SOURCES[source].pack is None else {}
        resolution = 16 if SOURCES[source].dim is None else None
        prepare(source, copy, resolution=resolution, encoding="bytes" if source == "lsun-cars" else "array", **named)


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


def items_of(dataset: Dataset | Vectors) -> np.ndarray:
    """Its images or its vectors."""
    return dataset.vectors if isinstance(dataset, Vectors) else dataset.images


@pytest.mark.parametrize(("name", "split"), NAMES_AND_SPLITS)
def test_a_split_is_square_bytes_or_finite_vectors_and_its_digest_is_true(name: str, split: str, open_small: Open):
    dataset = open_small(name, split)
    items = items_of(dataset)
    if isinstance(dataset, Vectors):
        assert items.dtype == np.float32
        assert dataset.shape == (items.shape[1],)
        assert np.isfinite(items).all()
    else:
        channels, height, width = dataset.shape
        assert items.dtype == np.uint8
        assert channels in (1, 3)
        assert height == width
        assert width & (width - 1) == 0 or width in DATASETS[name].sizes
    assert dataset.split == split
    assert len(dataset) > 0
    assert dataset.digest == content_digest(items)
    assert np.min(items) < np.max(items)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_in_two_splits(name: str, open_small: Open):
    seen: set[bytes] = set()
    for split in splits_of(name):
        items = {item.tobytes() for item in items_of(open_small(name, split))}
        assert not seen & items
        seen |= items


@pytest.mark.parametrize("name", [name for name in NAMES if splits_of(name) == REQUIRED_SPLITS])
def test_a_data_set_without_a_validation_split_says_so(name: str, open_small: Open):
    with pytest.raises(ValueError, match=f"data set '{name}' has no validation split"):
        open_small(name, "validation")


@pytest.mark.parametrize("name", NAMES)
def test_another_cache_gives_the_same_bytes(
    name: str, open_small: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_home: Path
):
    digests = [open_small(name, split).digest for split in splits_of(name)]
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path))
    monkeypatch.setenv("GENAE_DATA", str(data_home / "cache" / "packs"))  # a pack is the user's; what is derived is made again
    assert [open_small(name, split).digest for split in splits_of(name)] == digests


@pytest.mark.parametrize(("name", "split"), NAMES_AND_SPLITS)
def test_factors_are_aligned_with_what_they_describe(name: str, split: str, open_small: Open):
    dataset = open_small(name, split)
    for values in dataset.factors.values():
        assert len(values) == len(dataset)
        assert values.ndim in (1, 2)
    first = dataset.first(3)
    assert len(first) == min(3, len(dataset))
    assert np.array_equal(items_of(first), items_of(dataset)[:3])
    assert {factor: len(values) for factor, values in first.factors.items()} == dict.fromkeys(dataset.factors, len(first))
    assert dataset.first(None) is dataset
    assert (first.digest == dataset.digest) == (len(dataset) <= 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_loader_makes_batches_of_it(name: str, open_small: Open):
    dataset = open_small(name, "train")
    schedule = Schedule(total_kimg=1, phases=(PhaseSettings(resolution=4, batch_size=5, learning_rate=1.0),))
    batch = Loader(dataset, seed=0, flip=False).batch(0, schedule.at(0))
    if isinstance(dataset, Vectors):
        assert batch.shape == (5, *dataset.shape)
        assert all((row == torch.from_numpy(np.array(dataset.vectors))).all(1).any() for row in batch)  # rows as they are
        return
    assert batch.shape == (5, dataset.shape[0], 4, 4)
    assert -1 <= batch.min() < batch.max() <= 1
