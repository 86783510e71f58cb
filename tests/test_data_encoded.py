"""Encoded packs: the files' own bytes, the pixels and the order of a pack of arrays, nothing decoded before it is asked for."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from genae.conformance.tiny_copies import picture, write_copy
from genae.context import Context
from genae.data.dataset import Dataset
from genae.data.datasets import open_dataset
from genae.data.encoded import EncodedImages
from genae.data.loader import Loader
from genae.data.packs import area_average, at_resolution, content_digest, packs_dir
from genae.data.prepare import prepare, summary_of, verify
from genae.figures.grid import first_images
from genae.metrics.fid import reference_statistics
from genae.metrics.images import real_images
from genae.registry import FEATURES
from genae.schedule import Phase

SIZE = 16


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GENAE_DATA", raising=False)
    return tmp_path


def photographs(folder: Path) -> Path:
    """Twenty images wider than high, larger than the pack, in the formats that photographs come in."""
    folder.mkdir()
    for number in range(20):
        image = Image.fromarray(np.pad(picture(number, 20), ((0, 0), (3, 4), (0, 0))))
        image.save(folder / f"{number}.{('jpg', 'webp', 'png')[number % 3]}", quality=80)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photographs")


def both(source: Path, split: str = "train") -> tuple[Dataset, Dataset]:
    """The same copy, packed as arrays and as bytes."""
    for encoding in ("array", "bytes"):
        prepare("folder", source, pack=f"as-{encoding}", resolution=SIZE, encoding=encoding, test_share=0.2)
    opened = (open_dataset({"name": "folder", "pack": f"as-{e}", "resolution": SIZE}, split) for e in ("array", "bytes"))
    return tuple(opened)


# ---------------------------------------------------------------- the same images


def test_an_encoded_pack_holds_the_sources_bytes_and_the_pixels_of_an_array_pack(source: Path):
    arrays, encoded = both(source)
    assert isinstance(encoded.images, EncodedImages)
    assert np.array_equal(encoded.images[:], arrays.images)
    assert encoded.digest == arrays.digest == content_digest(encoded.images)
    folder = packs_dir() / "as-bytes" / "train"
    offsets = np.load(folder / "offsets.npy")
    content = (folder / "images.bin").read_bytes()
    kept = {content[begin:end] for begin, end in itertools.pairwise(offsets)}
    assert kept < {path.read_bytes() for path in source.iterdir()}
    assert len(kept) == len(encoded) == 16


def test_an_image_is_the_centre_of_what_pillow_decodes_averaged_by_area(tmp_path: Path):
    wide = np.random.default_rng(0).integers(0, 256, (32, 41, 3), dtype=np.uint8)
    for number in (1, 2):
        (tmp_path / "own").mkdir(exist_ok=True)
        Image.fromarray(wide[::number].repeat(number, 0)).save(tmp_path / "own" / f"{number}.jpg", quality=70)
    prepare("folder", tmp_path / "own", pack="mine", resolution=SIZE, encoding="bytes")
    images = {
        image.tobytes()
        for split in ("train", "test")
        for image in open_dataset({"name": "folder", "pack": "mine", "resolution": SIZE}, split).images
    }
    for number in (1, 2):
        square = np.asarray(Image.open(tmp_path / "own" / f"{number}.jpg"))[:, 4:36].astype(
            float
        )  # 9 columns too many: 4 and 5
        means = square.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))  # multiples of 1/4: exact, and halves are rounded up
        assert np.floor(means + 0.5).astype(np.uint8).transpose(2, 0, 1).tobytes() in images


def test_dataset_json_says_how_and_by_which_pillow_the_bytes_decode(source: Path):
    summary = prepare("folder", source, pack="mine", resolution=SIZE, encoding="bytes")
    description = json.loads((summary.path / "dataset.json").read_text())
    assert description["encoding"] == "bytes"
    encoded = description["splits"]["train"]["encoded"]
    assert encoded["decoding"] == {"channels": 3, "crop": "center", "resolution": SIZE}
    assert encoded["decoders"]["pillow"] == PIL.__version__
    assert "the files' own bytes, decoded when they are read" in str(summary)
    assert summary_of(summary.path) == summary


# ---------------------------------------------------------------- an array to whoever indexes it


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_indexing_is_that_of_an_array(data: st.DataObject, tmp_path: Path):
    if not (tmp_path / "photographs").exists():
        both(photographs(tmp_path / "photographs"))
    arrays, encoded = (
        open_dataset({"name": "folder", "pack": f"as-{e}", "resolution": SIZE}, "train") for e in ("array", "bytes")
    )
    count = len(arrays)
    ends = st.none() | st.integers(-2 * count, 2 * count)
    slices = st.builds(slice, ends, ends, st.none() | st.integers(-3, 3).filter(bool))
    inside = st.integers(-count, count - 1)
    several = st.lists(inside, max_size=8).map(lambda chosen: np.array(chosen, np.int64))
    masks = st.lists(st.booleans(), min_size=count, max_size=count).map(np.array)
    key = data.draw(inside | inside.map(np.int64) | slices | several | masks)
    expected = arrays.images[key]
    found = encoded.images[key]
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    assert found.flags.writeable


def test_it_has_the_shape_of_an_array_and_ends_like_one(source: Path):
    arrays, encoded = both(source)
    assert (encoded.images.shape, encoded.images.ndim, encoded.images.dtype) == (arrays.images.shape, 4, np.uint8)
    assert len(encoded.images) == len(list(encoded.images)) == len(arrays)
    assert np.array_equal(np.asarray(encoded.images), arrays.images)
    assert np.asarray(encoded.images, dtype=np.float32).dtype == np.float32
    for beyond in (len(encoded), -len(encoded) - 1, np.array([0, len(encoded)])):
        with pytest.raises(IndexError):
            encoded.images[beyond]
    for odd in ((0, 1), "0", 1.5, np.array([0.5]), np.zeros((2, 2), int)):
        with pytest.raises(TypeError):
            encoded.images[odd]
    with pytest.raises(TypeError):
        encoded.images[0] = 0


def test_the_first_images_are_those_of_the_array_pack_and_are_not_decoded(source: Path, monkeypatch: pytest.MonkeyPatch):
    arrays, encoded = both(source)
    decoded: list[int] = []
    decode = EncodedImages._decode
    monkeypatch.setattr(EncodedImages, "_decode", lambda self, index: decoded.append(index) or decode(self, index))
    first = encoded.first(5)
    assert not decoded
    assert (len(first), first.digest, first.shape) == (5, arrays.first(5).digest, arrays.shape)
    assert np.array_equal(first.images[:], arrays.images[:5])
    assert sorted(decoded) == [0, 1, 2, 3, 4]
    assert encoded.first(None) is encoded


def test_a_lower_resolution_is_the_average_of_the_stored_one_and_takes_no_disk(source: Path, home: Path):
    arrays, encoded = both(source)
    quarter = at_resolution(encoded, SIZE // 4)
    assert quarter.shape == (3, SIZE // 4, SIZE // 4)
    assert np.array_equal(quarter.images[:], area_average(arrays.images, SIZE // 4))
    assert np.array_equal(quarter.images[3], area_average(arrays.images[3:4], SIZE // 4)[0])
    assert np.array_equal(quarter.first(2).images[:], area_average(arrays.images[:2], SIZE // 4))
    assert not (home / "cache" / "area-averaged").exists()
    digests = {at_resolution(encoded, resolution).digest for resolution in (SIZE, SIZE // 2, SIZE // 4)}
    assert len(digests) == 3
    assert quarter.digest == at_resolution(encoded, SIZE // 4).digest
    for impossible in (3, 2 * SIZE, 0):
        with pytest.raises(ValueError, match="cannot be averaged to"):
            at_resolution(encoded, impossible)


# ---------------------------------------------------------------- whoever reads a data set


def phase(batch_size: int, resolution: int, fade: float = 1.0) -> Phase:
    return Phase(
        index=1,
        resolution=resolution,
        fade=fade,
        settled=fade == 1,
        batch_size=batch_size,
        learning_rate=1.0,
        margin=0.0,
        images_seen=0,
        epoch=0.0,
    )


@pytest.mark.parametrize(("resolution", "fade"), [(SIZE, 1.0), (SIZE // 2, 1.0), (SIZE, 0.3)])
def test_the_loader_gives_the_batches_of_the_array_pack(source: Path, resolution: int, fade: float):
    loaders = [Loader(dataset, seed=5, flip=True) for dataset in both(source)]
    at = phase(6, resolution, fade)
    for images_seen in (0, 6, 12, 18, 24, 6, 7, 1_000):  # over an epoch's end, and back: what was begun ahead is then dropped
        arrays, encoded = (loader.batch(images_seen, at) for loader in loaders)
        assert torch.equal(arrays, encoded)
    whole = loaders[0].batch(1_006, at)
    assert torch.equal(loaders[1].batch(1_006, at, rows=slice(2, 4)), whole[2:4])


def test_the_loader_decodes_the_next_batch_before_it_is_asked_for(source: Path, monkeypatch: pytest.MonkeyPatch):
    _, encoded = both(source)
    decoded: list[int] = []
    decode = EncodedImages._decode
    monkeypatch.setattr(EncodedImages, "_decode", lambda self, index: decoded.append(int(index)) or decode(self, index))
    loader = Loader(encoded, seed=0, flip=False)
    for images_seen in range(0, 16, 4):
        loader.batch(images_seen, phase(4, SIZE))
    loader.batch(16, phase(4, SIZE))
    encoded.images._pool.shutdown(wait=True)
    assert len(decoded) == 6 * 4  # five batches and the one ahead: none is decoded twice
    assert sorted(decoded[:16]) == list(range(16))


def test_metrics_and_figures_see_the_images_of_the_array_pack(source: Path):
    arrays, encoded = both(source)
    context = Context(batch_size=5)
    for one, other in zip(real_images(arrays, context), real_images(encoded, context), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(*(first_images(dataset, 3, torch.device("cpu")) for dataset in (arrays, encoded)))


def test_reference_statistics_of_the_training_images_are_those_of_the_array_pack(source: Path, monkeypatch, home: Path):
    arrays, encoded = both(source)
    extractor = FEATURES.build({"name": "tiny"})
    found = []
    for name, dataset in (("arrays", arrays.first(12)), ("encoded", encoded.first(12))):
        monkeypatch.setenv("GENAE_CACHE", str(home / name))  # of one digest: each in a cache of its own, or one is the other's
        found.append(reference_statistics(dataset, "tiny", extractor, Context(batch_size=5)))
    for one, other in zip(*(vars(statistics).values() for statistics in found), strict=True):
        assert np.array_equal(one, other)


# ---------------------------------------------------------------- the choice, and what is damaged


def test_bytes_are_kept_where_arrays_would_be_larger_than_the_limit_and_than_the_bytes(source: Path):
    as_array = 20 * 3 * SIZE**2
    as_bytes = sum(path.stat().st_size for path in source.iterdir())
    assert as_bytes > as_array  # as of noise
    assert prepare("folder", source, pack="noise", resolution=SIZE, array_limit=as_array - 1).encoding == "array"
    assert prepare("folder", source, pack="usual", resolution=SIZE).encoding == "array"
    flat = source.parent / "flat"
    flat.mkdir()
    for number in range(4):  # one colour each: a file of a few hundred bytes
        Image.fromarray(np.full((64, 64, 3), 60 * number, np.uint8)).save(flat / f"{number}.png")
    as_array = 4 * 3 * 64**2
    assert sum(path.stat().st_size for path in flat.iterdir()) < as_array
    for limit, encoding in ((as_array - 1, "bytes"), (as_array, "array")):
        assert prepare("folder", flat, pack=f"flat-{encoding}", resolution=64, array_limit=limit).encoding == encoding


def test_what_holds_no_encoded_images_has_no_bytes_to_keep(home: Path):
    mnist = write_copy("mnist", home / "mnist")
    with pytest.raises(ValueError, match="--encoding bytes: mnist holds arrays, not encoded images"):
        prepare("mnist", mnist, encoding="bytes")
    assert prepare("mnist", mnist, array_limit=0).encoding == "array"
    with pytest.raises(ValueError, match=r"unknown --encoding 'byte'; did you mean 'bytes'\?"):
        prepare("mnist", mnist, encoding="byte")


def test_what_is_damaged_is_set_aside_and_the_rest_is_kept(source: Path):
    whole = (source / "0.jpg").read_bytes()
    (source / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (source / "empty.jpg").touch()
    summary = prepare("folder", source, pack="mine", resolution=SIZE, encoding="bytes")
    assert {entry.file for entry in summary.set_aside} == {"empty.jpg", "cut.jpg"}
    assert sum(summary.num_images.values()) == 20
    assert verify("mine") == []


def test_altered_bytes_are_found_and_named(source: Path):
    prepare("folder", source, pack="mine", resolution=SIZE, encoding="bytes")
    folder = packs_dir() / "mine" / "train"
    offsets = np.load(folder / "offsets.npy")
    content = bytearray((folder / "images.bin").read_bytes())
    content[offsets[-2] : offsets[-2] + 4] = b"none"  # the last image, which opening the pack does not look at
    (folder / "images.bin").write_bytes(content)
    assert len(offsets) - 1 > 16
    problems = verify("mine")
    assert [problem.split(" ")[0] for problem in problems] == ["train/images.bin", "train/images.bin,"]
    assert "was altered" in problems[0]
    images = open_dataset({"name": "folder", "pack": "mine", "resolution": SIZE}, "train").images
    with pytest.raises(
        ValueError, match=rf"image {len(images) - 1} of .*train/images\.bin is not an image .*genae data verify"
    ):
        images[-1]


def test_bytes_cut_short_are_not_opened(source: Path):
    prepare("folder", source, pack="mine", resolution=SIZE, encoding="bytes")
    path = packs_dir() / "mine" / "test" / "images.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=rf"test/images\.bin is cut short: {len(whole) - 1:,} bytes of {len(whole):,}"):
        open_dataset({"name": "folder", "pack": "mine", "resolution": SIZE}, "test")
    assert any("cut short" in problem for problem in verify("mine"))


def test_a_decoder_that_gives_other_pixels_is_refused(source: Path):
    """Played here by a pack that claims other pixels, as if it had been made where its files decode otherwise."""
    prepare("folder", source, pack="mine", resolution=SIZE, encoding="bytes")
    description_file = packs_dir() / "mine" / "dataset.json"
    description = json.loads(description_file.read_text())
    encoded = description["splits"]["train"]["encoded"]
    encoded["probe"] = "0" * 64
    encoded["decoders"] = {"pillow": "0.1"}
    description_file.write_text(json.dumps(description))
    with pytest.raises(
        ValueError, match=rf"decodes to other pixels here .*pillow {PIL.__version__}.* there they were pillow 0\.1"
    ):
        open_dataset({"name": "folder", "pack": "mine", "resolution": SIZE}, "train")


def test_images_too_odd_for_an_array_pack_are_too_odd_for_bytes(tmp_path: Path):
    (tmp_path / "odd").mkdir()
    with io.BytesIO() as buffer:
        Image.fromarray(picture(1)).convert("CMYK").save(buffer, "JPEG")
        (tmp_path / "odd" / "print.jpg").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=r"odd has no usable image \(1 set aside: print\.jpg has CMYK colours"):
        prepare("folder", tmp_path / "odd", pack="mine", resolution=SIZE, encoding="bytes")
