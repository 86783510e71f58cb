"""Patches: RNADE's preprocessing as a slow loop does it, photographs that keep to one split, packs of vectors."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genae.data import patches
from genae.data.datasets import open_dataset
from genae.data.packs import content_digest, open_pack, verify_pack, write_pack
from genae.data.patches import PHOTOGRAPHS, draw, grey, photographs_of, preprocessed, read_photograph
from genae.data.vectors import open_vectors, write_vectors


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GENAE_DATA", raising=False)
    return tmp_path


def photograph(seed: int, height: int = 20, width: int = 31) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---------------------------------------------------------------- the preprocessing


def slowly(colour: np.ndarray, noise: np.ndarray) -> list[float]:
    """One patch [8, 8, 3] and noise in [0, 1), [64], as RNADE's text has it, pixel by pixel."""
    levels = []
    for row in range(8):
        for column in range(8):
            red, green, blue = (float(channel) for channel in colour[row, column])
            levels.append((0.299 * red + 0.587 * green + 0.114 * blue + noise[8 * row + column]) / 256)
    mean = math.fsum(levels) / 64
    return [level - mean for level in levels[:-1]]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), low=st.integers(0, 255))
def test_a_patch_is_what_a_slow_loop_makes_of_it(seed: int, low: int):
    generator = np.random.default_rng(seed)
    colour = generator.integers(low, 256, (3, 8, 8, 3), dtype=np.uint8)  # low: to patches of few levels, and to flat ones
    noise = generator.integers(0, 2**24, (3, 64))
    made = preprocessed(np.stack([grey(patch) for patch in colour]), noise)
    expected = [slowly(patch, of_patch / 2**24) for patch, of_patch in zip(colour, noise, strict=True)]
    assert made.dtype == np.float32
    assert made.shape == (3, 63)
    np.testing.assert_allclose(made, expected, rtol=1e-6, atol=1e-9)  # a float32 ulp, and float64's in the loop


def test_grey_is_not_rounded_and_grey_photographs_keep_their_levels():
    colour = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [255, 255, 255]]], np.uint8)
    assert grey(colour).tolist() == [[299, 587, 114, 255_000]]
    assert grey(np.array([[0, 7, 255]], np.uint8)).tolist() == [[0, 7_000, 255_000]]


def test_a_flat_patch_is_its_noise():
    """Saturated sky: what varies is the noise alone, uniform of variance 1/12, less its mean: (1 - 1/64) / 12 / 256^2."""
    vectors = draw([grey(np.full((40, 40), 255, np.uint8))], 0, 4_000, seed=3)
    variance = (1 - 1 / 64) / 12 / 256**2
    assert vectors.var() == pytest.approx(variance, rel=0.01)  # 252,000 values: a standard error of 0.2 %
    assert (vectors.std(1) > 0).all()


def test_patches_come_from_all_places_of_each_photograph_in_turn():
    photographs = [grey(photograph(seed, 12, 15)) for seed in range(3)]  # 5 x 8 places each
    drawn = draw(photographs, 0, 600, seed=1)
    for number, image in enumerate(photographs):
        windows = np.lib.stride_tricks.sliding_window_view(image, (8, 8)).reshape(-1, 64) / 256_000
        centred = (windows - windows.mean(1, keepdims=True))[:, :-1]
        distances = np.abs(drawn[number::3, None, :] - centred[None]).max(2)
        assert (distances.min(1) < 1 / 256).all()  # noise moves a pixel by less than one level, its mean by less too
        assert (
            len(set(distances.argmin(1))) > 37
        )  # 200 draws leave out a place with probability e^-5, of all 40 a fourth of one


def test_a_patch_is_the_same_however_many_are_drawn():
    photographs = [grey(photograph(seed)) for seed in range(2)]
    whole = draw(photographs, 0, 50, seed=9)
    parts = [draw(photographs, start, stop, seed=9) for start, stop in ((0, 1), (1, 32), (32, 50))]
    assert np.array_equal(whole, np.concatenate(parts))
    assert not np.isin(draw(photographs, 0, 50, seed=10), whole).any()
    assert len(np.unique(whole, axis=0)) == 50


# ---------------------------------------------------------------- natural-patches


def test_no_photograph_is_in_two_splits():
    files = [shipped.file for shipped in PHOTOGRAPHS]
    assert len(set(files)) == len(files) == 11
    assert len({shipped.sha256 for shipped in PHOTOGRAPHS}) == 11
    assert {split: len(photographs_of(split)) for split in ("train", "validation", "test")} == {
        "train": 6,
        "validation": 2,
        "test": 3,
    }
    assert "motorcycle_right.png" not in files  # the same scene as motorcycle_left.png


@pytest.mark.parametrize("shipped", PHOTOGRAPHS, ids=lambda shipped: shipped.file)
def test_the_photographs_are_of_eight_bits_and_large_enough(shipped: patches.Photograph):
    pixels = read_photograph(shipped)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 2 or pixels.shape[2] == 3
    assert min(pixels.shape[:2]) >= 300
    assert len(np.unique(pixels)) > 100  # neither binary nor drawn


def test_patches_of_a_split_are_of_its_own_photographs_only():
    dataset = open_dataset({"name": "natural-patches", "num_validation": 40}, "validation")
    pixels = [grey(read_photograph(shipped)) for shipped in photographs_of("validation")]
    expected = draw(pixels, 0, 40, patches.seed_for("natural-patches", "validation"))
    assert np.array_equal(dataset.vectors, expected)
    assert dataset.digest == content_digest(expected)
    longer = open_dataset({"name": "natural-patches", "num_validation": 60}, "validation")
    assert np.array_equal(longer.vectors[:40], expected)


def test_the_bytes_of_the_patches_are_pinned():
    """Recorded results belong to these."""
    small = {"num_train": 1_000, "num_validation": 1_000, "num_test": 1_000}
    found = {split: open_dataset({"name": "natural-patches", **small}, split).digest[:16] for split in PINNED}
    assert found == PINNED


PINNED = {"train": "bf69c336565bd4e5", "validation": "24f345aff17c9cc9", "test": "8bff62f6b4152a33"}


def test_a_gaussian_of_full_covariance_has_a_plausible_likelihood_on_the_patches():
    """The floor of every row of Table 1: far above independent pixels, below what good densities reach on such patches."""
    train, test = (
        np.asarray(open_dataset({"name": "natural-patches", "num_train": 20_000, "num_test": 2_000}, split).vectors, np.float64)
        for split in ("train", "test")
    )
    mean, covariance = train.mean(0), np.cov(train.T)
    precision = np.linalg.inv(covariance)
    _, log_det = np.linalg.slogdet(covariance)
    distance = np.einsum("ni,ij,nj->n", test - mean, precision, test - mean)
    likelihood = -(distance + log_det + 63 * np.log(2 * np.pi)) / 2
    independent = -(((test - mean) ** 2 / train.var(0) + np.log(2 * np.pi * train.var(0))).sum(1)) / 2
    assert 105 < likelihood.mean() < 130
    assert likelihood.mean() > independent.mean() + 30  # patches are anything but independent pixels


def test_a_picture_that_is_missing_or_another_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, home: Path):
    def only(file: str, sha256: str) -> tuple[patches.Photograph, ...]:
        return (patches.Photograph(file, "train", sha256, "", ""),)

    monkeypatch.setattr(patches, "PHOTOGRAPHS", only("nowhere.png", "0" * 64))
    with pytest.raises(ValueError, match=r"came without .*nowhere\.png"):
        open_dataset({"name": "natural-patches"}, "train")
    monkeypatch.setattr(patches, "PHOTOGRAPHS", only("camera.png", "0" * 64))
    with pytest.raises(ValueError, match=r"camera\.png is another picture: its sha256 is b0793d2a"):
        open_dataset({"name": "natural-patches"}, "train")
    assert not list((home / "cache" / "natural-patches").glob("[!.]*"))  # nothing half-made is left
    with pytest.raises(ValueError, match="num_test must be at least 1"):
        open_dataset({"name": "natural-patches", "num_test": 0}, "test")


# ---------------------------------------------------------------- packs of vectors


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    folder.mkdir()
    values = np.arange(40, dtype=np.float32).reshape(10, 4)
    parts = {"train": [(values[:3], {"kind": np.arange(3)}), (values[3:6], {"kind": np.arange(3, 6)})]}
    write_vectors(folder, parts | {"test": [(values[6:], {"kind": np.arange(4)})]}, lambda: {"name": "toy"})
    return folder


def test_vectors_written_in_chunks_are_read_whole_and_verified(pack: Path):
    train = open_vectors(pack, "train")
    assert np.array_equal(train.vectors, np.arange(24, dtype=np.float32).reshape(6, 4))
    assert isinstance(train.vectors, np.memmap)
    assert (train.name, train.split, train.shape, len(train)) == ("toy", "train", (4,), 6)
    assert train.factors["kind"].tolist() == list(range(6))
    assert train.digest == content_digest(np.arange(24, dtype="<f4").reshape(6, 4))
    assert verify_pack(pack) == []
    content = bytearray((pack / "test" / "vectors.npy").read_bytes())
    content[-1] ^= 1
    (pack / "test" / "vectors.npy").write_bytes(content)
    (problem,) = verify_pack(pack)
    assert problem.startswith("test/vectors.npy was altered")


def test_values_that_are_not_finite_unlike_lengths_and_empty_splits_do_not_make_a_pack(tmp_path: Path):
    good = np.zeros((2, 4), np.float32)
    for bad in (np.nan, np.inf):
        spoilt = np.array([[0, 0, 0, 0], [0, 0, bad, 0]], np.float32)
        with pytest.raises(ValueError, match="the train split: vector 3 holds a value that is not finite"):
            write_vectors(tmp_path / f"{bad}", {"train": [(good, {}), (spoilt, {})]}, dict)
    with pytest.raises(ValueError, match=r"vectors of shape \(5,\) after vectors of shape \(4,\)"):
        write_vectors(tmp_path / "b", {"train": [(good, {}), (np.zeros((2, 5), np.float32), {})]}, dict)
    with pytest.raises(ValueError, match=r"vectors are \[N, D\], not of shape \(2, 2, 2\)"):
        write_vectors(tmp_path / "c", {"train": [(np.zeros((2, 2, 2), np.float32), {})]}, dict)
    with pytest.raises(ValueError, match="no usable vector for the train split"):
        write_vectors(tmp_path / "d", {"train": []}, dict)


def test_a_pack_of_images_is_not_opened_as_vectors_nor_the_other_way_round(pack: Path, tmp_path: Path):
    write_pack(tmp_path / "images", {"train": [(np.zeros((1, 1, 4, 4), np.uint8), {})]}, lambda: {"name": "drawn"})
    with pytest.raises(ValueError, match="pack 'drawn' holds no vectors"):
        open_vectors(tmp_path / "images", "train")
    with pytest.raises(ValueError, match="pack 'toy' holds no images"):
        open_pack(pack, "train")
    with pytest.raises(ValueError, match="pack 'toy' has no split 'validation'; it has: train, test"):
        open_vectors(pack, "validation")


def test_fewer_vectors_than_counted_are_not_opened(pack: Path):
    np.save(pack / "train" / "vectors.npy", np.zeros((5, 4), np.float32))
    with pytest.raises(ValueError, match=r"5 vectors, but dataset\.json counts 6"):
        open_vectors(pack, "train")
