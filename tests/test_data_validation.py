"""Data sets made of others (held out, unpadded, of a fold, two in one), and what copies of BSDS300, TFD and shoes become."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genae import identity
from genae.conformance.tiny_copies import picture, write_copy
from genae.data.datasets import SHIPPED_FASHION_MNIST, open_dataset
from genae.data.derived import validation_rows
from genae.data.packs import content_digest, packs_dir
from genae.data.patches import grey
from genae.data.pictures import read_picture
from genae.data.prepare import list_packs, prepare, verify
from genae.registry import DATASETS
from genae.settings import component
from genae.yaml_source import Block, ExperimentError, Mark


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GENAE_DATA", raising=False)
    return tmp_path


def block(value: object, path: str = "data") -> object:
    """Plain values as they come from a file."""
    if not isinstance(value, dict):
        return value
    marks = {key: Mark("experiment.yaml", 1, f"{path}.{key}", "") for key in value}
    inside = ((key, block(inner, f"{path}.{key}")) for key, inner in value.items())
    return Block(Mark("experiment.yaml", 1, path, ""), inside, marks)


# ---------------------------------------------------------------- held out


@settings(deadline=None)
@given(num_images=st.integers(2, 300), data=st.data())
def test_every_image_is_trained_on_or_held_out_and_always_the_same(num_images: int, data: st.DataObject):
    num_validation = data.draw(st.integers(1, num_images - 1))
    train, validation = validation_rows(num_images, num_validation)
    assert len(validation) == num_validation
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(num_images))
    assert (np.diff(train) > 0).all()
    assert np.array_equal(validation_rows(num_images, num_validation)[1], validation)
    fewer = validation_rows(num_images, 1)[1]
    assert set(fewer) <= set(validation)


def test_as_many_as_there_are_cannot_be_held_out():
    for impossible in (0, 5, 6, -1):
        with pytest.raises(ValueError, match="num_validation must be from 1 to 4 of the 5 images"):
            validation_rows(5, impossible)


def test_garments_held_out_leave_the_training_split_and_nothing_else():
    spec = {"name": "fashion-mnist", "num_validation": 300}
    train, validation, test = (open_dataset(spec, split) for split in ("train", "validation", "test"))
    whole = open_dataset({"name": "fashion-mnist"}, "train")
    assert (len(train), len(validation), len(test)) == (9_700, 300, 2_000)
    assert (train.split, validation.split) == ("train", "validation")
    rows, held = validation_rows(10_000, 300)
    for part, chosen in ((train, rows), (validation, held)):
        assert np.array_equal(part.images, whole.images[chosen])
        assert np.array_equal(part.factors["label"], whole.factors["label"][chosen])
        assert part.digest == content_digest(part.images)
    assert test.digest == open_dataset({"name": "fashion-mnist"}, "test").digest
    assert np.bincount(validation.factors["label"]).min() > 15  # 30 of each class are expected: three standard deviations
    first = open_dataset(spec | {"count": 10}, "validation")
    assert np.array_equal(first.images, validation.images[:10])


def test_nothing_held_out_is_what_there_was_before(home: Path):
    """Digests of issue 1's packs, and no cache entry besides them."""
    plain = open_dataset({"name": "fashion-mnist", "count": 40}, "train")
    same = open_dataset({"name": "fashion-mnist", "count": 40, "num_validation": 0, "classes": None}, "train")
    assert same.digest == plain.digest
    assert [path.name for path in (home / "cache").iterdir()] == ["fashion-mnist"]
    entry = DATASETS["fashion-mnist"]
    resolved = component(DATASETS, block({"name": "fashion-mnist"}), Mark("experiment.yaml", 1, "data", ""))
    assert identity.component(entry, resolved) == {"name": "fashion-mnist", "resolution": 32, "count": None}
    with pytest.raises(ValueError, match="fashion-mnist has no validation split of its own; hold one out with num_validation"):
        open_dataset({"name": "fashion-mnist"}, "validation")


def test_classes_are_picked_from_every_split():
    spec = {"name": "fashion-mnist", "classes": [5, 7, 9], "num_validation": 100}
    found = {split: open_dataset(spec, split) for split in ("train", "validation", "test")}
    assert {split: len(dataset) for split, dataset in found.items()} == {"train": 2_900, "validation": 100, "test": 600}
    for dataset in found.values():
        assert set(dataset.factors["label"]) == {5, 7, 9}
    for classes in ([], [3, 10]):
        with pytest.raises(ValueError, match="classes are some of 0 to 9"):
            open_dataset({"name": "fashion-mnist", "classes": classes}, "train")


# ---------------------------------------------------------------- without the padding


def test_at_28_the_published_pixels_are_left():
    spec = {"name": "fashion-mnist", "resolution": 28, "count": 50}
    dataset = open_dataset(spec, "test")
    with np.load(SHIPPED_FASHION_MNIST) as shipped:
        assert np.array_equal(dataset.images[:, 0], shipped["test_images"][:50])
    assert dataset.digest == content_digest(dataset.images)
    assert open_dataset(spec | {"resolution": 16}, "test").shape == (1, 16, 16)
    with pytest.raises(ValueError, match="resolution 14 cannot be had"):
        open_dataset(spec | {"resolution": 14}, "test")


def test_digits_are_held_out_at_28_too_and_a_small_pack_says_how_to_make_it_larger(home: Path):
    copy = write_copy("mnist", home / "copy")
    prepare("mnist", copy)
    spec = {"name": "mnist", "resolution": 28, "num_validation": 5}
    train, validation = open_dataset(spec, "train"), open_dataset(spec, "validation")
    padded = open_dataset({"name": "mnist"}, "train")
    rows, held = validation_rows(20, 5)
    assert np.array_equal(train.images, padded.images[rows][:, :, 2:-2, 2:-2])
    assert np.array_equal(validation.images, padded.images[held][:, :, 2:-2, 2:-2])
    assert np.array_equal(validation.factors["label"], padded.factors["label"][held])
    prepare("mnist", copy, resolution=16, replace=True)
    with pytest.raises(ValueError, match=r"holds 16x16 images, not 28x28; make it larger with: .* --resolution 32 --replace"):
        open_dataset(spec, "train")


# ---------------------------------------------------------------- TFD


def test_a_fold_of_tfd_has_its_own_images_with_or_without_the_unlabelled(home: Path):
    copy = write_copy("tfd", home / "copy")
    prepare("tfd", copy)
    assert verify("tfd") == []
    stored = scipy.io.loadmat(copy / "TFD_48x48.mat")
    for fold in (0, 3):
        marks = stored["folds"][:, fold]
        for split, wanted in {"train": (0, 1), "validation": (2,), "test": (3,)}.items():
            dataset = open_dataset({"name": "tfd", "fold": fold}, split)
            chosen = np.isin(marks, wanted)
            assert np.array_equal(dataset.images[:, 0], stored["images"][chosen])
            assert np.array_equal(dataset.factors["identity"], stored["labs_id"][chosen, 0])
            assert set(dataset.factors) == {"identity", "expression"}
        alone = open_dataset({"name": "tfd", "fold": fold, "unlabelled": False}, "train")
        assert np.array_equal(alone.images[:, 0], stored["images"][marks == 1])
    held = open_dataset({"name": "tfd", "num_validation": 4}, "validation")
    rows = np.flatnonzero(stored["folds"][:, 0] < 2)
    assert np.array_equal(held.images[:, 0], stored["images"][rows[validation_rows(12, 4)[1]]])
    assert open_dataset({"name": "tfd", "resolution": 16}, "test").shape == (1, 16, 16)
    with pytest.raises(ValueError, match="has the folds 0 to 4, not 5"):
        open_dataset({"name": "tfd", "fold": 5}, "train")


@pytest.mark.parametrize(
    "stored",
    [lambda x: x, lambda x: x.reshape(len(x), -1), lambda x: x[..., None].astype(np.float32), lambda x: x[:, None] / 255],
    ids=["bytes", "rows", "floats to 255", "floats to 1"],
)
def test_tfd_as_three_arrays_is_one_fold_however_they_are_stored(stored: Callable[[np.ndarray], np.ndarray], home: Path):
    images = np.random.default_rng(0).integers(0, 256, (9, 48, 48), dtype=np.uint8)
    parts = {"train": images[:4], "valid": images[4:6], "test": images[6:]}
    for name, part in parts.items():
        np.save(home / f"{name}.npy", stored(part))
    prepare("tfd", home)
    for split, name in {"train": "train", "validation": "valid", "test": "test"}.items():
        assert np.array_equal(open_dataset({"name": "tfd"}, split).images[:, 0], parts[name])
    with pytest.raises(ValueError, match="has the folds 0 to 0, not 1"):
        open_dataset({"name": "tfd", "fold": 1}, "train")


def test_a_copy_of_tfd_that_is_not_one_is_refused_by_file_and_reason(home: Path):
    good = np.zeros((3, 48, 48), np.uint8)
    folds = np.ones((3, 5), np.uint8)
    bad = [
        ({"images": good}, "has no variable 'folds'"),
        ({"folds": folds}, "has no variable 'images'"),
        ({"images": good[:, :40], "folds": folds}, r"images are of shape \(3, 40, 48\)"),
        ({"images": good, "folds": folds[:, :2]}, r"folds must be 0 to 3, \[3, 5\], not of shape \(3, 2\)"),
        ({"images": good, "folds": 4 * folds}, "folds must be 0 to 3"),
        ({"images": good * np.nan, "folds": folds}, "none of them NaN"),
        ({"images": good - 1.0, "folds": folds}, "numbers from 0 to 255"),
        ({"images": good, "folds": folds, "labs_id": [[1]]}, "labs_id has 1 values for 3 images"),
    ]
    for number, (content, message) in enumerate(bad):
        source = home / f"copy-{number}"
        source.mkdir()
        scipy.io.savemat(source / "TFD_48x48.mat", content)
        with pytest.raises(ValueError, match=rf"TFD_48x48\.mat.*{message}"):
            prepare("tfd", source)
    (home / "copy-0" / "TFD_48x48.mat").write_bytes(b"MATLAB 5.0, or so it says" * 20)
    with pytest.raises(ValueError, match=r"TFD_48x48\.mat cannot be read as a MATLAB file"):
        prepare("tfd", home / "copy-0")
    (home / "arrays").mkdir()
    with pytest.raises(ValueError, match=r"neither TFD_48x48\.mat nor train\.npy"):
        prepare("tfd", home / "arrays")
    (home / "arrays" / "train.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"train\.npy cannot be read"):
        prepare("tfd", home / "arrays")
    with pytest.raises(ValueError, match=r"--resolution 32 cannot be had from images of 48x48"):
        prepare("tfd", write_copy("tfd", home / "good"), resolution=32)
    assert list_packs() == []


# ---------------------------------------------------------------- BSDS300


def test_patches_of_bsds300_are_split_by_image(home: Path):
    copy = home / "copy" / "BSDS300"
    for split, count in (("train", 3), ("test", 2)):
        (copy / "images" / split).mkdir(parents=True)
        for number in range(count):  # each image has levels of its own, which its patches show
            pixels = np.full((12, 16, 3), 40 * number, np.uint8)
            pixels[:, ::2] += np.uint8(number + 1 if split == "train" else number + 4)
            Image.fromarray(pixels).save(copy / "images" / split / f"{number}.png")
    summary = prepare("bsds300-patches", home / "copy")
    assert summary.num_images == {"train": 30_000, "validation": 1_000, "test": 20_000}
    assert summary.headline.startswith("bsds300-patches: 30,000 train, 1,000 validation, 20,000 test; vectors of 63")
    assert "3 train images, where BSDS300 has 200" in summary.notes[0]
    assert verify("bsds300-patches") == []

    def contrasts(split: str) -> set[int]:
        vectors = open_dataset({"name": "bsds300-patches"}, split).vectors[:400].reshape(400, 63)
        return set(np.rint(256 * np.abs(vectors[:, ::2].mean(1) - vectors[:, 1::2].mean(1))).astype(int))

    train, validation, test = (contrasts(split) for split in ("train", "validation", "test"))
    assert test == {4, 5}
    assert len(train) == 2
    assert len(validation) == 1
    assert train | validation == {1, 2, 3}
    few = open_dataset({"name": "bsds300-patches", "num_test": 7}, "test")
    assert np.array_equal(few.vectors, open_dataset({"name": "bsds300-patches"}, "test").vectors[:7])
    with pytest.raises(ValueError, match="num_train must be at least 1"):
        open_dataset({"name": "bsds300-patches", "num_train": 0}, "train")
    with pytest.raises(ValueError, match="make it with: genae data prepare bsds300-patches-hdf5 --source DIR"):
        open_dataset({"name": "bsds300-patches", "variant": "hdf5"}, "train")


def test_the_lists_of_bsds300_decide_where_they_are_there(home: Path):
    copy = write_copy("bsds300-patches", home / "copy")
    (copy / "iids_train.txt").write_text("2000\n2001\n")
    Image.fromarray(picture(1)).save(copy / "images" / "train" / "left-out.jpg")
    notes = prepare("bsds300-patches", copy).notes
    assert notes[0].startswith("2 train images")
    (copy / "iids_test.txt").write_text("1000\n1001\n1002\n")
    with pytest.raises(ValueError, match=r"images/test lacks 2 of the images that iids_test\.txt lists: 1001, 1002"):
        prepare("bsds300-patches", copy, replace=True)


def test_a_copy_of_bsds300_that_is_not_one_is_refused_and_leaves_nothing(home: Path):
    copy = write_copy("bsds300-patches", home / "copy")
    with pytest.raises(ValueError, match=r"--resolution 16: patches are 8x8"):
        prepare("bsds300-patches", copy, resolution=16)
    damaged = copy / "images" / "test" / "1000.jpg"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"1000\.jpg cannot be read"):
        prepare("bsds300-patches", copy)
    Image.fromarray(picture(1, size=7)).save(damaged)
    with pytest.raises(ValueError, match=r"1000\.jpg is 7x7, smaller than a patch"):
        prepare("bsds300-patches", copy)
    (copy / "images" / "train" / "2000.jpg").unlink()
    with pytest.raises(ValueError, match="one to train on and one to validate on"):
        prepare("bsds300-patches", copy)
    (home / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no folder images/train$"):
        prepare("bsds300-patches", home / "empty")
    h5 = write_copy("bsds300-patches-hdf5", home / "hdf5")
    with pytest.raises(ValueError, match=r"no folder images/train; for BSDS300\.hdf5, prepare bsds300-patches-hdf5"):
        prepare("bsds300-patches", h5)
    assert list_packs() == []
    assert not any(path.is_dir() for path in packs_dir().glob(".*"))


def test_the_hdf5_file_is_taken_as_it_is_and_named_in_the_pack(home: Path):
    copy = write_copy("bsds300-patches-hdf5", home / "copy")
    prepare("bsds300-patches-hdf5", copy)
    assert json.loads((packs_dir() / "bsds300-patches-hdf5" / "dataset.json").read_text())["source"] == "bsds300-patches-hdf5"
    with h5py.File(copy / "BSDS300.hdf5") as file:
        for split in ("train", "validation", "test"):
            found = open_dataset({"name": "bsds300-patches", "variant": "hdf5"}, split)
            assert np.array_equal(found.vectors, file[split][:])


def test_an_hdf5_file_that_lacks_something_is_refused_by_name(home: Path):
    good = np.zeros((4, 63), np.float32)
    bad = [
        ({"train": good, "test": good}, "has no data set 'validation'; it has: test, train"),
        ({"train": good, "validation": good, "test": good[:, :60]}, r"test is not \[N, 63\] but \(4, 60\)"),
        ({"train/a": good, "validation": good, "test": good}, r"train is not \[N, 63\] but a group"),
        ({"train": good, "validation": good * np.nan, "test": good}, "the validation split: vector 0 holds a value"),
        ({"train": good, "validation": good[:0], "test": good}, "no usable vector for the validation split"),
    ]
    for number, (content, message) in enumerate(bad):
        source = home / f"copy-{number}"
        source.mkdir()
        with h5py.File(source / "BSDS300.hdf5", "w") as file:
            for name, values in content.items():
                file[name] = values
        with pytest.raises(ValueError, match=message):
            prepare("bsds300-patches-hdf5", source)
    (home / "copy-0" / "BSDS300.hdf5").write_bytes(b"no such format")
    with pytest.raises(ValueError, match=r"BSDS300\.hdf5 cannot be read as HDF5"):
        prepare("bsds300-patches-hdf5", home / "copy-0")
    assert list_packs() == []


# ---------------------------------------------------------------- shoes, two domains


def test_shoes_are_squared_by_white_margins(home: Path):
    wide = np.zeros((4, 9, 3), np.uint8)
    Image.fromarray(wide).save(home / "shoe.png")
    square = read_picture(home / "shoe.png", channels=3, crop="pad", resolution=9)
    expected = np.full((3, 9, 9), 255, np.uint8)
    expected[:, 2:6] = 0  # five white rows: two above, three below
    assert np.array_equal(square, expected)
    summary = prepare("shoes", write_copy("shoes", home / "copy"), resolution=16)
    assert summary.crop == "pad"
    assert sum(summary.num_images.values()) == 12
    assert "12 images, where the whole data set has 50,025" in summary.notes[0]


def test_two_domains_take_turns_in_colour():
    spec = DATASETS["two-domains"].small
    for split, count in (("train", 20), ("test", 12)):
        both = open_dataset({"name": "two-domains", **spec}, split)
        faces, garments = (open_dataset(spec[key], split) for key in ("first", "second"))
        assert both.shape == (3, 16, 16)
        assert both.factors["domain"].tolist() == [0, 1] * count
        assert np.array_equal(both.images[both.factors["domain"] == 0], faces.images[:count])
        for channel in range(3):
            assert np.array_equal(both.images[1::2, channel], garments.images[:count, 0])
        assert both.digest == content_digest(both.images)
        assert both.split == split


def test_two_domains_that_do_not_fit_are_refused():
    faces = {"name": "synthetic-faces", "resolution": 16, "num_train": 8, "num_test": 8}
    garments = {"name": "fashion-mnist", "resolution": 32, "count": 8}
    with pytest.raises(ValueError, match="two-domains: second is 32x32; write resolution: 16 there, or 32 for both"):
        open_dataset({"name": "two-domains", "first": faces, "second": garments, "resolution": 16}, "train")
    patches = {"name": "natural-patches", "num_train": 8}
    with pytest.raises(ValueError, match="natural-patches holds vectors; it takes images"):
        open_dataset({"name": "two-domains", "first": patches, "second": garments, "resolution": 16}, "train")


def test_the_specs_of_two_domains_are_checked_and_hashed_as_any_data_set():
    mark = Mark("experiment.yaml", 1, "data", "")
    spec = {"name": "two-domains", "first": {"name": "synthetic-faces"}, "second": {"name": "fashion-mnist"}}
    resolved = component(DATASETS, block(spec), mark)
    assert resolved["first"] == {"name": "synthetic-faces", "resolution": 64, "num_train": 20_000, "num_test": 2_000}
    hashed = identity.component(DATASETS["two-domains"], resolved)
    assert hashed["first"]["@revision"] == DATASETS["synthetic-faces"].revision
    assert hashed["second"] == {"name": "fashion-mnist", "resolution": 32, "count": None}
    for second, message in (
        ({"name": "fashion-minst"}, r"data\.second.*'fashion-minst'; did you mean 'fashion-mnist'\?"),
        (
            {"name": "fashion-mnist", "clases": [5]},
            r"dataset 'fashion-mnist' has no setting 'clases'; did you mean 'classes'\?",
        ),
        ({"name": "fashion-mnist", "count": "many"}, "must be a whole number or null"),
        ("fashion-mnist", "must be a mapping"),
    ):
        with pytest.raises(ExperimentError, match=message):
            component(DATASETS, block(spec | {"second": second}), mark)


def test_grey_of_a_grey_file_is_the_grey_of_the_same_file_in_colour():
    level = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(grey(level), grey(np.stack([level] * 3, 2)))
