"""Preparing a user's own copy: splits by stated rules, odd files by name and reason, a pack that is whole or not there."""

import gzip
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from genae.conformance.tiny_copies import picture, write_copy, write_idx
from genae.data.datasets import open_dataset
from genae.data.packs import packs_dir
from genae.data.pictures import Unsuitable, read_picture
from genae.data.prepare import Summary, list_packs, prepare, verify
from genae.data.sources import read_idx, split_by_content


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GENAE_DATA", raising=False)
    return tmp_path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of twelve good pictures of 16x16, in three folders."""
    return write_copy("folder", tmp_path / "my pictures")


def reasons(summary: Summary) -> dict[str, str]:
    return {entry.file: entry.reason for entry in summary.set_aside}


def read(path: Path, **settings: object) -> np.ndarray:
    return read_picture(path, **({"channels": 3, "crop": "none", "resolution": 16} | settings))


# ---------------------------------------------------------------- odd files


def spoil(source: Path) -> dict[str, str]:
    """Put every kind of odd file into the folder. Returns a pattern of the reason by the file's name."""
    good = Image.fromarray(picture(999))
    good.save(source / "whole.png")
    good.save(source / "whole.jpg")
    png, jpeg = (source / "whole.png").read_bytes(), (source / "whole.jpg").read_bytes()
    (source / "truncated.png").write_bytes(png[: len(png) // 2])
    (source / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (source / "header-only.png").write_bytes(png[:30])
    (source / "empty.png").touch()
    (source / "text.png").write_text("not a picture at all\n")
    (source / "notes.txt").write_text("a file that a person left\n")
    good.convert("CMYK").save(source / "cmyk.jpg")
    Image.fromarray(np.full((16, 16), 40_000, np.uint16)).save(source / "sixteen-bit.png")
    frames = [Image.fromarray(picture(seed)) for seed in (1, 2, 3)]
    frames[0].save(source / "animated.gif", save_all=True, append_images=frames[1:])
    good.resize((1, 1)).save(source / "one-pixel.png")
    good.resize((16, 9)).save(source / "low.png")
    (source / "broken-link.png").symlink_to(source / "nowhere.png")
    os.mkfifo(source / "pipe.png")
    (source / ".hidden.png").write_text("hidden files are no one's pictures")
    return {
        "truncated.png": "cannot be read: (?i:.*truncated)",
        "truncated.jpg": "cannot be read: (?i:.*truncated)",
        "header-only.png": "cannot be read|is not an image",
        "empty.png": "is empty",
        "text.png": "is not an image",
        "notes.txt": "is not an image",
        "cmyk.jpg": "has CMYK colours",
        "sixteen-bit.png": "has more than 8 bits",
        "animated.gif": "has 3 frames",
        "one-pixel.png": "is 1x1, smaller than 16 pixels",
        "low.png": "is 16x9, smaller than 16 pixels",
        "broken-link.png": "cannot be read: No such file",
        "pipe.png": "is not a file",
    }


def test_odd_files_are_set_aside_by_name_and_reason_and_the_others_are_packed(source: Path):
    expected = spoil(source)
    summary = prepare("folder", source, pack="mine", resolution=16)
    found = reasons(summary)
    assert set(found) == set(expected)
    for file, pattern in expected.items():
        assert re.match(pattern, found[file]), f"{file}: {found[file]}"
    assert sum(summary.num_images.values()) == 12 + 2
    assert summary.headline.endswith("colour 16x16, from folder, 13 files set aside")
    assert "  set aside: one-pixel.png is 1x1, smaller than 16 pixels" in str(summary).splitlines()
    assert verify("mine") == []


def test_sixteen_bit_colour_is_not_cut_to_eight_in_silence(tmp_path: Path):
    """Pillow opens it as 8-bit RGB."""
    import struct
    import zlib

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(16 * 6) for _ in range(16))
    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)  # 16 bits a channel, colour
    path = tmp_path / "deep.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b""))
    assert Image.open(path).mode == "RGB"
    with pytest.raises(Unsuitable, match="more than 8 bits"):
        read(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow also warns of what it mends
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["png", "jpg", "gif", "bmp", "webp", "tif"]))
def test_no_damage_to_a_file_ever_crashes_the_reading_of_it(data: st.DataObject, kind: str, tmp_path: Path):
    path = tmp_path / f"damaged.{kind}"
    Image.fromarray(picture(5)).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        pixels = read(path)
    except Unsuitable:
        return
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == np.uint8


# ---------------------------------------------------------------- conversions


def test_grey_palette_and_bilevel_images_are_converted(tmp_path: Path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read(tmp_path / "grey.png"), np.stack([grey] * 3))
    assert np.array_equal(read(tmp_path / "grey.png", channels=1), grey[None])
    colour = np.zeros((16, 16, 3), np.uint8)
    colour[8:, :, 0] = 255
    Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE, colors=2).save(tmp_path / "palette.png")
    assert np.array_equal(read(tmp_path / "palette.png"), colour.transpose(2, 0, 1))
    Image.fromarray(grey > 100).save(tmp_path / "bilevel.png")
    assert np.array_equal(read(tmp_path / "bilevel.png")[0], 255 * (grey > 100).astype(np.uint8))
    Image.fromarray(colour).save(tmp_path / "colour.png")
    # ITU-R 601: red weighs 0.299, and 0.299 * 255 = 76.2.
    assert np.unique(read(tmp_path / "colour.png", channels=1)).tolist() == [0, 76]


def test_what_is_transparent_is_laid_over_white(tmp_path: Path):
    layered = np.zeros((16, 16, 4), np.uint8)
    layered[:8] = (255, 0, 0, 255)
    layered[8:] = (0, 0, 0, 0)
    Image.fromarray(layered).save(tmp_path / "alpha.png")
    pixels = read(tmp_path / "alpha.png").transpose(1, 2, 0)
    assert np.unique(pixels[:8].reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]
    assert np.unique(pixels[8:].reshape(-1, 3), axis=0).tolist() == [[255, 255, 255]]
    assert np.unique(read(tmp_path / "alpha.png", channels=1)).tolist() == [76, 255]


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path: Path):
    upright = picture(7)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees clockwise to view
    Image.fromarray(np.rot90(upright, 1).copy()).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read(tmp_path / "turned.png"), upright.transpose(2, 0, 1))


def test_crops_are_windows_about_the_centre(tmp_path: Path):
    wide = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert np.array_equal(read(tmp_path / "wide.png", crop="center", resolution=20), wide[:, 5:25].transpose(2, 0, 1))
    assert np.array_equal(read(tmp_path / "wide.png", crop="16"), wide[2:18, 7:23].transpose(2, 0, 1))
    with pytest.raises(Unsuitable, match="is 30x20, not square, and crop is none"):
        read(tmp_path / "wide.png")
    with pytest.raises(Unsuitable, match="is 30x20, smaller than 24 pixels"):
        read(tmp_path / "wide.png", crop="24")


# ---------------------------------------------------------------- splits


@given(st.lists(st.integers(0, 30), min_size=2, max_size=40), st.sampled_from([0.01, 0.1, 0.5, 0.9]))
def test_the_split_by_content_keeps_copies_together_and_counts_right(contents: list[int], share: float):
    digests = {f"file {number}": f"{content:02d}" for number, content in enumerate(contents)}
    names, _ = split_by_content(digests, share)
    assert sorted(names["train"] + names["test"]) == sorted(digests)
    assert not {digests[file] for file in names["train"]} & {digests[file] for file in names["test"]}
    wanted = min(max(1, round(share * len(contents))), len(contents) - 1)
    assert len(names["test"]) >= wanted
    if len(set(contents)) == len(contents):
        assert len(names["test"]) == wanted


def test_the_split_does_not_depend_on_names_folders_or_resolution(source: Path, tmp_path: Path):
    first = prepare("folder", source, pack="first", resolution=16, test_share=0.25)
    assert first.num_images == {"train": 9, "test": 3}
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for number, path in enumerate(sorted(source.rglob("*.png"), reverse=True)):
        (renamed / f"picture {number}.png").write_bytes(path.read_bytes())
    assert prepare("folder", renamed, pack="renamed", resolution=16, test_share=0.25).digests == first.digests
    half = prepare("folder", source, pack="half", resolution=8, test_share=0.25)
    again = open_dataset({"name": "folder", "pack": "first", "resolution": 8}, "test")
    assert again.digest == half.digests["test"]


def test_folders_called_train_and_test_are_the_split(tmp_path: Path):
    source = tmp_path / "split"
    for split, count in (("train", 3), ("test", 2)):
        (source / split / "inner").mkdir(parents=True)
        for number in range(count):
            Image.fromarray(picture(number + 10 * count)).save(source / split / "inner" / f"{number}.png")
    Image.fromarray(picture(77)).save(source / "stray.png")
    summary = prepare("folder", source, pack="split", resolution=16)
    assert summary.num_images == {"train": 3, "test": 2}
    assert reasons(summary) == {"stray.png": "is outside the folders train/ and test/"}
    test = {image.tobytes() for image in open_dataset({"name": "folder", "pack": "split", "resolution": 16}, "test").images}
    assert test == {picture(number + 20).transpose(2, 0, 1).tobytes() for number in range(2)}


@pytest.mark.parametrize(
    ("name", "counts", "train_seeds", "test_seeds"),
    [
        ("celeba-hq", {"train": 18, "test": 2}, range(100, 118), [118, 119]),
        ("ffhq", {"train": 3, "test": 2}, [200, 201, 60_199], [60_200, 70_199]),
    ],
)
def test_numbered_portraits_are_split_by_their_number(name, counts, train_seeds, test_seeds, home: Path):
    summary = prepare(name, write_copy(name, home / name), resolution=16)
    assert summary.num_images == counts
    for split, seeds in (("train", train_seeds), ("test", test_seeds)):
        images = open_dataset({"name": name, "resolution": 16}, split).images
        assert np.array_equal(images, np.stack([picture(seed).transpose(2, 0, 1) for seed in seeds]))
    assert "the split is not the published one" in summary.notes[0]


def test_celeba_is_split_by_its_own_list_without_the_validation_part(home: Path):
    source = write_copy("celeba", home / "celeba")
    (source / "img_align_celeba" / "000010.jpg").unlink()
    summary = prepare("celeba", source, resolution=16)
    assert summary.num_images == {"train": 4, "test": 3}
    assert reasons(summary) == {"000010.jpg": "cannot be read: No such file or directory"}
    with (source / "list_eval_partition.txt").open("a") as listing:
        listing.write("000013.jpg three\n")
    with pytest.raises(ValueError, match="line 13: expected a file name and 0, 1 or 2"):
        prepare("celeba", source, resolution=16, replace=True)


def test_arrays_keep_their_order_and_labels(home: Path):
    source = write_copy("cifar10", home / "cifar")
    assert "where the whole data set has 60,000" in prepare("cifar10", source).notes[0]
    records = np.frombuffer((source / "test_batch.bin").read_bytes(), np.uint8).reshape(-1, 3073)
    test = open_dataset({"name": "cifar10"}, "test")
    assert np.array_equal(test.images, records[:, 1:].reshape(-1, 3, 32, 32))
    assert test.factors["label"].tolist() == records[:, 0].tolist()
    mnist = write_copy("mnist", home / "mnist")
    prepare("mnist", mnist)
    train = open_dataset({"name": "mnist"}, "train")
    assert np.array_equal(train.images[:, 0, 2:-2, 2:-2], read_idx(mnist / "train-images-idx3-ubyte"))
    assert train.factors["label"].tolist() == [*range(10), *range(10)]


# ---------------------------------------------------------------- what is refused, and what is left behind


def test_bad_requests_are_refused_in_one_clear_line(source: Path, home: Path):
    empty = home / "empty"
    empty.mkdir()
    bad = [
        (("celebahq", source), {}, r"no way to prepare 'celebahq'; did you mean 'celeba-hq'\?"),
        (("folder", source), {}, "a folder's pack needs a name: --name my-images"),
        (("folder", source), {"pack": "my/images"}, "letters, digits and hyphens"),
        (("folder", home / "nowhere"), {"pack": "a"}, "nowhere is not a folder"),
        (("folder", empty), {"pack": "a"}, "empty has no usable image"),
        (("folder", source), {"pack": "a", "resolution": 48}, "--resolution 48: use a power of two"),
        (("folder", source), {"pack": "a", "resolution": 64}, "12 set aside: kind-0/0.png is 16x16, smaller than 64 pixels"),
        (("folder", source), {"pack": "a", "crop": "face"}, "unknown crop 'face'; known: center, none, pad, or a number"),
        (("folder", source), {"pack": "a", "channels": 4}, "--channels is 1 or 3"),
        (("folder", source), {"pack": "a", "test_share": 1.5}, "--test-share 1.5: use a number between 0 and 1"),
        (("mnist", source), {}, "has no file like"),
        (("mnist", source), {"crop": "none"}, "mnist is not cropped"),
        (("celeba", source), {}, "list_eval_partition"),
    ]
    for arguments, settings_, message in bad:
        with pytest.raises(ValueError, match=message):
            prepare(*arguments, **settings_)
    assert list_packs() == []


def test_damaged_idx_files_are_named(tmp_path: Path):
    path = tmp_path / "images.gz"
    write_idx(path, np.zeros((3, 4, 4)))
    assert read_idx(path).shape == (3, 4, 4)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match=r"images\.gz is damaged"):
        read_idx(path)
    path.write_bytes(gzip.decompress(whole)[:-1])
    with pytest.raises(ValueError, match="47 bytes for the shape"):
        read_idx(path)
    for content in (b"", b"\0\0\x08", b"\0\0\x08\x03\0\0", b"\0\0\x0d\x01\0\0\0\0", b"hello world"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"images\.gz is"):
            read_idx(path)


def test_a_pack_is_not_replaced_unless_asked(source: Path):
    first = prepare("folder", source, pack="mine", resolution=16)
    with pytest.raises(ValueError, match=r"there is a pack 'mine' already, .* pass --replace"):
        prepare("folder", source, pack="mine", resolution=8)
    second = prepare("folder", source, pack="mine", resolution=8, replace=True)
    assert (first.resolution, second.resolution) == (16, 8)
    assert [summary.name for summary in list_packs()] == ["mine"]
    with pytest.raises(ValueError, match=r"holds 8x8 images, not 16x16; .* --name mine --resolution 16 --replace$"):
        open_dataset({"name": "folder", "pack": "mine", "resolution": 16}, "train")


def test_the_looking_at_a_large_folder_is_told_of_too(tmp_path: Path):
    for number in range(70):
        (tmp_path / f"{number}.txt").touch()
    calls: list[tuple[int, int]] = []
    with pytest.raises(ValueError, match="70 set aside"):
        prepare("folder", tmp_path, pack="mine", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(64, 70)]


def test_an_unknown_pack_cannot_be_verified(source: Path):
    prepare("folder", source, pack="mine", resolution=16)
    with pytest.raises(ValueError, match=r"no pack 'nine' in .* did you mean 'mine'\?"):
        verify("nine")


def test_progress_counts_up_to_every_image(source: Path):
    calls: list[tuple[int, int]] = []
    prepare("folder", source, pack="mine", resolution=16, progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (12, 12)


KILLED = """
import os, signal, sys
from genae.data.prepare import prepare
prepare("folder", sys.argv[1], pack="mine", resolution=16, progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_preparation_killed_half_way_leaves_no_pack_and_can_be_repeated(source: Path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(source)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list_packs() == []
    prepare("folder", source, pack="mine", resolution=16)
    assert verify("mine") == []
    assert [path.name for path in packs_dir().iterdir() if path.is_dir()] == ["mine"]


def test_a_link_to_a_folder_is_followed_and_a_loop_of_links_ends(source: Path, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.fromarray(picture(77)).save(outside / "77.png")
    (source / "more").symlink_to(outside)
    (source / "loop").symlink_to(source)
    assert sum(prepare("folder", source, pack="mine", resolution=16).num_images.values()) == 13
