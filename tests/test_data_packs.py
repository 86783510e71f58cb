"""Packs: what is written is what is read, an altered byte is found, a lower resolution is the exact average."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genae.data.datasets import SHIPPED_FASHION_MNIST, SHIPPED_SHA256, open_dataset
from genae.data.packs import area_average, at_resolution, content_digest, open_pack, packs_dir, verify_pack, write_pack
from genae.data.pictures import area_resize
from genae.data.sources import read_idx

DEBIAN_COPY = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GENAE_DATA", raising=False)
    return tmp_path


def noise(count: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    folder.mkdir()
    train, test = noise(7), noise(3)
    splits = {
        "train": [(train[:5], {"label": np.arange(5)}), (train[5:], {"label": np.arange(5, 7)})],
        "test": [(test, {"label": np.arange(3)})],
    }
    write_pack(folder, splits, lambda: {"name": "toy"})
    return folder


def test_what_was_written_in_chunks_is_read_whole(pack: Path):
    train, test = open_pack(pack, "train"), open_pack(pack, "test")
    assert np.array_equal(train.images, noise(7))
    assert np.array_equal(test.images, noise(3))
    assert train.factors["label"].tolist() == list(range(7))
    assert (train.name, train.split, train.shape) == ("toy", "train", (3, 8, 8))
    assert isinstance(train.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):  # many runs read one pack at a time
        train.images[0] = 0


def test_the_digest_is_the_sha256_of_bytes_and_shape(pack: Path):
    images = noise(7)
    expected = hashlib.sha256(images.tobytes() + b"7x3x8x8").hexdigest()
    assert open_pack(pack, "train").digest == expected
    assert content_digest(images) == expected
    assert content_digest(images.reshape(7, 3, 4, 16)) != expected
    assert content_digest(images[:, :, :, ::-1]) == content_digest(images[:, :, :, ::-1].copy())


def test_a_whole_pack_verifies_and_an_altered_byte_is_named(pack: Path):
    assert verify_pack(pack) == []
    path = pack / "test" / "images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    problems = verify_pack(pack)
    assert len(problems) == 1
    assert problems[0].startswith("test/images.npy was altered: its sha256 is ")


def test_a_torn_a_missing_and_a_replaced_file_are_named(pack: Path):
    whole = (pack / "train" / "images.npy").read_bytes()
    (pack / "train" / "images.npy").write_bytes(whole[: len(whole) // 2])
    (pack / "test" / "images.npy").unlink()
    np.save(pack / "test" / "label.npy", np.arange(4))
    problems = verify_pack(pack)
    assert [problem.split(" ")[0] for problem in problems] == ["train/images.npy", "test/images.npy", "test/label.npy"]
    assert "cannot be read" in problems[0]
    assert "is missing" in problems[1]
    (pack / "dataset.json").write_text("{")
    assert "cannot be read" in verify_pack(pack)[0]
    (pack / "dataset.json").unlink()
    assert "is not a pack" in verify_pack(pack)[0]


def test_a_pack_with_fewer_images_than_it_counts_is_not_opened(pack: Path):
    np.save(pack / "train" / "images.npy", noise(7)[:6])
    with pytest.raises(ValueError, match=r"6 images, but dataset\.json counts 7"):
        open_pack(pack, "train")


def test_unlike_images_or_factors_do_not_make_a_pack(tmp_path: Path):
    with pytest.raises(ValueError, match=r"\(3, 4, 4\) after images of shape \(3, 8, 8\)"):
        write_pack(tmp_path / "a", {"train": [(noise(2), {}), (noise(2, 4), {})]}, dict)
    with pytest.raises(ValueError, match="'label' has 1 values for 2 images"):
        write_pack(tmp_path / "b", {"train": [(noise(2), {"label": np.arange(1)})]}, dict)
    with pytest.raises(ValueError, match="no usable image for the train split"):
        write_pack(tmp_path / "c", {"train": []}, dict)


@given(arrays(np.uint8, (2, 1, 8, 8)))
def test_an_average_is_the_nearest_byte_to_the_exact_mean(images: np.ndarray):
    for resolution in (4, 2, 1):
        block = 8 // resolution
        # Means of 4, 16 or 64 bytes are exact in doubles; adding a half and taking the floor rounds halves up.
        means = images.astype(float).reshape(2, 1, resolution, block, resolution, block).mean(axis=(3, 5))
        assert np.array_equal(area_average(images, resolution), np.floor(means + 0.5).astype(np.uint8))
    assert np.array_equal(area_average(images, 8), images)


@settings(deadline=None)
@given(side=st.integers(1, 40), resolution=st.integers(1, 40), seed=st.integers(0, 9))
def test_resizing_by_area_weighs_each_pixel_by_what_it_shares(side: int, resolution: int, seed: int):
    """Blown up by `resolution` each way, old pixels and new ones are whole blocks: then it is a plain mean of blocks."""
    if resolution > side:
        side, resolution = resolution, side
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 2), dtype=np.uint8)
    blown = pixels.repeat(resolution, 0).repeat(resolution, 1).astype(np.int64)
    sums = blown.reshape(resolution, side, resolution, side, 2).sum(axis=(1, 3))
    assert np.array_equal(area_resize(pixels, resolution), (2 * sums + side**2) // (2 * side**2))


def test_a_lower_resolution_is_a_pack_of_its_own_made_once(pack: Path, home: Path):
    whole = open_pack(pack, "train")
    half = at_resolution(whole, 4)
    assert np.array_equal(half.images, area_average(whole.images, 4))
    assert half.digest == content_digest(half.images)
    assert half.factors["label"].tolist() == whole.factors["label"].tolist()
    made = list((home / "cache" / "area-averaged").glob("[!.]*"))
    assert len(made) == 1
    before = made[0].stat().st_mtime_ns
    assert at_resolution(open_pack(pack, "train"), 4).digest == half.digest
    assert made[0].stat().st_mtime_ns == before
    assert at_resolution(whole, 8) is whole
    for impossible in (3, 16, 0):
        with pytest.raises(ValueError, match="cannot be averaged to"):
            at_resolution(whole, impossible)


def test_the_shipped_garments_are_the_file_that_was_published():
    assert hashlib.sha256(SHIPPED_FASHION_MNIST.read_bytes()).hexdigest() == SHIPPED_SHA256
    assert SHIPPED_FASHION_MNIST.stat().st_size < 8 * 2**20
    with np.load(SHIPPED_FASHION_MNIST) as shipped:
        for split, count in (("train", 1_000), ("test", 200)):
            assert shipped[f"{split}_images"].shape == (10 * count, 28, 28)
            assert np.bincount(shipped[f"{split}_labels"]).tolist() == [count] * 10


def test_the_committed_script_makes_the_shipped_garments(home: Path):
    """From the published files where they are installed, else from files that hold the shipped images alone."""
    source = DEBIAN_COPY if DEBIAN_COPY.is_dir() else _as_idx_files(home / "idx")
    script = SHIPPED_FASHION_MNIST.with_name("make_fashion_mnist.py")
    made = home / "made.npz"
    subprocess.run([sys.executable, script, source, made], check=True, capture_output=True)
    with np.load(SHIPPED_FASHION_MNIST) as shipped, np.load(made) as again:
        assert set(shipped) == set(again)
        for name in shipped:
            assert np.array_equal(shipped[name], again[name])


def _as_idx_files(folder: Path) -> Path:
    folder.mkdir()
    with np.load(SHIPPED_FASHION_MNIST) as shipped:
        for split, stem in (("train", "train"), ("test", "t10k")):
            for kind, suffix in (("images", "images-idx3-ubyte"), ("labels", "labels-idx1-ubyte")):
                array = shipped[f"{split}_{kind}"]
                sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
                (folder / f"{stem}-{suffix}").write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    return folder


def test_the_idx_files_read_back_are_the_shipped_images(home: Path):
    folder = _as_idx_files(home / "idx")
    with np.load(SHIPPED_FASHION_MNIST) as shipped:
        assert np.array_equal(read_idx(folder / "t10k-images-idx3-ubyte"), shipped["test_images"])


def test_garments_are_padded_evenly_and_keep_their_class():
    dataset = open_dataset({"name": "fashion-mnist", "count": 50}, "test")
    with np.load(SHIPPED_FASHION_MNIST) as shipped:
        assert np.array_equal(dataset.images[:, 0, 2:-2, 2:-2], shipped["test_images"][:50])
        assert np.array_equal(dataset.factors["label"], shipped["test_labels"][:50])
    border = np.ones((32, 32), bool)
    border[2:-2, 2:-2] = False
    assert not dataset.images[:, 0, border].any()


def test_a_pack_that_is_not_there_says_which_command_makes_it(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"make it with: genae data prepare celeba-hq --source DIR$"):
        open_dataset({"name": "celeba-hq"}, "train")
    with pytest.raises(ValueError, match=r"make it with: genae data prepare folder --source DIR --name my-birds$"):
        open_dataset({"name": "folder", "pack": "my-birds"}, "train")
    monkeypatch.setenv("GENAE_DATA", "/elsewhere")
    assert packs_dir() == Path("/elsewhere")


def test_a_spec_that_means_nothing_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"unknown dataset 'celebahq'; did you mean 'celeba-hq'\?"):
        open_dataset({"name": "celebahq"}, "train")
    with pytest.raises(ValueError, match=r"no setting 'resolutoin'; did you mean 'resolution'\?"):
        open_dataset({"name": "mnist", "resolutoin": 32}, "train")
    with pytest.raises(ValueError, match="unknown split 'valid'"):
        open_dataset({"name": "mnist"}, "valid")
    with pytest.raises(ValueError, match="resolution 64 cannot be had"):
        open_dataset({"name": "fashion-mnist", "resolution": 64}, "train")
    with pytest.raises(ValueError, match="data needs a name"):
        open_dataset({"resolution": 64}, "train")
    with pytest.raises(ValueError, match="count must be at least 1"):
        open_dataset({"name": "fashion-mnist", "count": 0}, "train")
    with pytest.raises(ValueError, match="num_test must be at least 1"):
        open_dataset({"name": "synthetic-faces", "num_test": 0}, "test")
