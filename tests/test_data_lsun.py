"""LSUN: the splits of the paper, the same pack from an LMDB and from what was exported of it, and damaged copies by name."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from genae.conformance.tiny_copies import as_webp, lsun_key, picture, write_copy
from genae.data import lsun
from genae.data.datasets import open_dataset
from genae.data.packs import packs_dir
from genae.data.prepare import Summary, list_packs, prepare, verify

SIZE = 16


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GENAE_DATA", raising=False)
    return tmp_path


def photographs(count: int, *, seed: int) -> dict[str, bytes]:
    """WebP images a little wider than high, by their keys."""
    wide = (np.pad(picture(seed + number, SIZE), ((0, 0), (1, 4), (0, 0))) for number in range(count))
    return {lsun_key(content): content for content in map(as_webp, wide)}


def write_lmdb(folder: Path, values: Mapping[str, bytes], map_size: int = 2**24) -> Path:
    with lmdb.open(str(folder), map_size=map_size) as environment, environment.begin(write=True) as transaction:
        for key, content in values.items():
            transaction.put(key.encode(), content)
    return folder


@pytest.fixture
def bedrooms(tmp_path: Path) -> Path:
    """Both LMDBs of the bedrooms, as LSUN's own script unpacks them."""
    source = tmp_path / "lsun"
    source.mkdir()
    write_lmdb(source / "bedroom_train_lmdb", photographs(20, seed=0))
    write_lmdb(source / "bedroom_val_lmdb", photographs(4, seed=50))
    return source


def central(content: bytes, folder: Path) -> np.ndarray:
    """The central square as Pillow decodes it, uint8 [3, SIZE, SIZE]: of 5 columns too many, 2 go left."""
    (folder / "one.webp").write_bytes(content)
    return np.asarray(Image.open(folder / "one.webp").convert("RGB"))[:, 2 : 2 + SIZE].transpose(2, 0, 1)


def reasons(summary: Summary) -> dict[str, str]:
    return {entry.file: entry.reason for entry in summary.set_aside}


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize("encoding", ["array", "bytes"])
def test_bedrooms_are_split_as_published_in_the_order_of_their_keys(bedrooms: Path, encoding: str, home: Path):
    summary = prepare("lsun-bedrooms", bedrooms, resolution=SIZE, encoding=encoding)
    assert summary.num_images == {"train": 20, "test": 4}
    assert summary.notes == ("24 images, where the whole data set has 3,033,342: the split is not the published one",)
    for split, values in (("train", photographs(20, seed=0)), ("test", photographs(4, seed=50))):
        dataset = open_dataset({"name": "lsun-bedrooms", "resolution": SIZE}, split)
        expected = np.stack([central(values[key], home) for key in sorted(values)])
        assert np.array_equal(dataset.images[:], expected)
    assert verify("lsun-bedrooms") == []


@pytest.mark.parametrize("place", ["", "car"])
def test_cars_are_split_in_the_papers_proportion_by_the_order_of_their_keys(home: Path, place: str):
    values = photographs(20, seed=100)
    (home / "cars").mkdir()
    write_lmdb(home / "cars" / place, values)
    # 20 * 4,968,695 / 5,520,756 = 18.00005
    assert prepare("lsun-cars", home / "cars", resolution=SIZE).num_images == {"train": 18, "test": 2}
    ordered = [central(values[key], home) for key in sorted(values)]
    for split, expected in (("train", ordered[:18]), ("test", ordered[18:])):
        assert np.array_equal(open_dataset({"name": "lsun-cars", "resolution": SIZE}, split).images, np.stack(expected))


def test_of_all_cars_4968695_are_train_and_552061_test(home: Path, monkeypatch: pytest.MonkeyPatch):
    """Heljakka et al. (2020), A.1; counted without the images."""
    store = lsun.FolderStore(home, ("",) * (4_968_695 + 552_061), num_bytes=1)
    monkeypatch.setattr(lsun, "_store", lambda folder: store)
    monkeypatch.setattr(lsun.FolderStore, "pictures", lambda self, start, stop: range(start, stop))
    monkeypatch.setattr(lsun, "picture_chunks", lambda pictures, packing, set_aside: pictures)
    reading = lsun.read_lsun_cars(home, packing=None)
    assert reading.splits == {"train": range(4_968_695), "test": range(4_968_695, 4_968_695 + 552_061)}
    assert not reading.notes


def test_exported_images_make_the_pack_that_their_lmdb_makes(bedrooms: Path, home: Path):
    """In folders by the first characters of the key, in one folder, or with another ending: the order is that of the keys."""
    from_lmdb = prepare("lsun-bedrooms", bedrooms, resolution=SIZE)
    exported = home / "exported"
    for name, values in (("bedroom_train", photographs(20, seed=0)), ("bedroom_val", photographs(4, seed=50))):
        for number, (key, content) in enumerate(values.items()):
            inner = exported / name if number % 2 else exported.joinpath(name, *key[:6])
            inner.mkdir(parents=True, exist_ok=True)
            (inner / f"{key}.{'webp' if number % 3 else 'jpg'}").write_bytes(content)
    from_files = prepare("lsun-bedrooms", exported, pack="exported", resolution=SIZE, encoding="bytes")
    assert from_files.digests == from_lmdb.digests


def test_a_small_map_size_does_not_hide_what_lies_beyond_it(home: Path):
    """LMDB's default, with which it is opened, is 10 MiB; this one is larger, as all of LSUN's are."""
    large = photographs(20, seed=100) | {"f" * 40: as_webp(picture(7)) + bytes(12 * 2**20)}  # what follows a WebP is not read
    source = write_lmdb(home / "cars", large, map_size=2**26)
    assert (source / "data.mdb").stat().st_size > 11 * 2**20
    assert prepare("lsun-cars", source, resolution=SIZE).num_images == {"train": 18, "test": 3}


def test_a_copy_that_nobody_may_write_to_is_read_without_a_lock(bedrooms: Path):
    for folder in bedrooms.iterdir():
        (folder / "lock.mdb").unlink()
    before = sorted(path for path in bedrooms.rglob("*"))
    prepare("lsun-bedrooms", bedrooms, resolution=SIZE)
    assert sorted(path for path in bedrooms.rglob("*")) == before


# ---------------------------------------------------------------- damaged and odd copies


@pytest.mark.parametrize("encoding", ["array", "bytes"])
def test_values_that_are_no_images_are_set_aside_by_their_keys(bedrooms: Path, encoding: str):
    whole = as_webp(picture(1))
    odd = {"0" * 40: b"", "1" * 40: b"no picture", "2" * 40: whole[: len(whole) // 2], "3" * 40: as_webp(picture(2, 8))}
    write_lmdb(bedrooms / "bedroom_train_lmdb", odd)
    summary = prepare("lsun-bedrooms", bedrooms, resolution=SIZE, encoding=encoding)
    assert summary.num_images == {"train": 20, "test": 4}
    found = reasons(summary)
    assert set(found) == {f"bedroom_train_lmdb/{key}" for key in odd}
    assert found[f"bedroom_train_lmdb/{'0' * 40}"] == "is empty"
    assert found[f"bedroom_train_lmdb/{'1' * 40}"].startswith("is not an image")
    assert found[f"bedroom_train_lmdb/{'2' * 40}"].startswith(("cannot be read", "is not an image"))
    assert found[f"bedroom_train_lmdb/{'3' * 40}"] == "is 8x8, smaller than 16 pixels"
    assert verify("lsun-bedrooms") == []


def damage(data: Path, how: str) -> None:
    whole = data.read_bytes()
    pages = [whole[start : start + 4096] for start in range(0, len(whole), 4096)]
    if how == "half":
        data.write_bytes(b"".join(pages[: len(pages) // 2]))
    elif how == "without its last page":
        data.write_bytes(b"".join(pages[:-1]))
    elif how == "a hundred bytes":
        data.write_bytes(whole[:100])
    elif how == "empty":
        data.write_bytes(b"")
    elif how == "text":
        data.write_text("this is not the database that you are looking for\n" * 1000)
    else:  # as a copy that was broken off where the whole length had been reserved
        data.write_bytes(b"".join(pages[:2]) + bytes(4096 * (len(pages) - 2)))


DAMAGES = {
    "half": r"bedroom_train_lmdb/data\.mdb is cut short: [\d,]+ bytes of [\d,]+\. Copy it again$",
    "without its last page": r"bedroom_train_lmdb/data\.mdb is cut short: ",
    "a hundred bytes": r"bedroom_train_lmdb/data\.mdb is no LMDB, or damaged: File is not an LMDB file",
    "empty": r"bedroom_train_lmdb/data\.mdb is no LMDB, or damaged: ",
    "text": r"bedroom_train_lmdb/data\.mdb is no LMDB, or damaged: File is not an LMDB file",
    "zeros": r"bedroom_train_lmdb/data\.mdb is no LMDB, or damaged: ",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_lmdb_is_named_and_leaves_nothing_half_written(bedrooms: Path, how: str):
    damage(bedrooms / "bedroom_train_lmdb" / "data.mdb", how)
    with pytest.raises(ValueError, match=DAMAGES[how]):
        prepare("lsun-bedrooms", bedrooms, resolution=SIZE)
    assert list_packs() == []
    assert not packs_dir().exists() or not [path for path in packs_dir().iterdir() if path.is_dir()]


def test_damage_that_shows_half_way_leaves_the_pack_of_before(bedrooms: Path):
    kept = prepare("lsun-bedrooms", bedrooms, resolution=SIZE)
    damage(bedrooms / "bedroom_val_lmdb" / "data.mdb", "zeros")  # the test split is read last
    with pytest.raises(ValueError, match=r"bedroom_val_lmdb/data\.mdb is no LMDB, or damaged"):
        prepare("lsun-bedrooms", bedrooms, resolution=SIZE, replace=True)
    assert list_packs() == [kept]
    assert verify("lsun-bedrooms") == []


def test_on_the_command_line_a_damaged_lmdb_is_one_message_and_exit_status_2(bedrooms: Path):
    damage(bedrooms / "bedroom_train_lmdb" / "data.mdb", "half")
    command = [sys.executable, "-m", "genae", "data", "prepare", "lsun-bedrooms", "--source", str(bedrooms)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"TERM": "dumb"})
    assert done.returncode == 2, done.stderr
    assert "bedroom_train_lmdb/data.mdb is cut short" in done.stderr
    assert "Traceback" not in done.stderr
    assert list_packs() == []


def test_what_is_no_copy_of_lsun_is_refused_with_what_is_missing(bedrooms: Path, home: Path):
    with pytest.raises(ValueError, match="bedroom_train_lmdb is one LMDB; lsun-bedrooms needs the folder that holds"):
        prepare("lsun-bedrooms", bedrooms / "bedroom_train_lmdb")
    (bedrooms / "bedroom_val_lmdb").rename(bedrooms / "bedroom_test_lmdb")
    with pytest.raises(ValueError, match="lsun has none of the folders bedroom_val_lmdb, bedroom_val, val, test"):
        prepare("lsun-bedrooms", bedrooms)
    (home / "cars").mkdir()
    with pytest.raises(ValueError, match="cars has no usable image"):
        prepare("lsun-cars", home / "cars")


def test_without_the_package_lmdb_the_message_says_how_to_get_it(bedrooms: Path, monkeypatch: pytest.MonkeyPatch, home: Path):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ValueError, match=r"data\.mdb is read by the package lmdb: pip install 'genae\[lsun\]'"):
        prepare("lsun-bedrooms", bedrooms, resolution=SIZE)
    prepare("lsun-bedrooms", write_copy("lsun-bedrooms", home / "exported"), resolution=SIZE)  # a folder needs none


def test_a_long_list_of_what_was_set_aside_is_cut_in_print_and_whole_in_the_pack(home: Path):
    values = photographs(20, seed=0) | {f"{number:040x}": b"" for number in range(60)}
    summary = prepare("lsun-cars", write_lmdb(home / "cars", values), resolution=SIZE)
    assert len(summary.set_aside) == 60
    lines = str(summary).splitlines()
    assert sum(line.startswith("  set aside: ") for line in lines) == 40
    assert lines[-1] == "  and 20 more, which dataset.json names"
