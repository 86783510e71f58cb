"""The cache: an entry is whole or not there at all, whoever dies and however many build at once."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genae.cache import cache_dir, cached_file, cached_folder, key_digest, make_whole


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "a cache"))  # with a space, as a user's path may have
    return tmp_path / "a cache"


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GENAE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    monkeypatch.setenv("HOME", "/c")
    assert cache_dir() == Path("/a")
    monkeypatch.delenv("GENAE_CACHE")
    assert cache_dir() == Path("/b/genae")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path("/c/.cache/genae")


def test_a_key_is_its_content_and_not_its_order():
    assert key_digest({"a": 1, "b": [2, {"c": None}]}) == key_digest({"b": [2, {"c": None}], "a": 1})
    assert len({key_digest(key) for key in ({}, {"a": 1}, {"a": "1"}, {"a": 1.5}, {"b": 1})}) == 5


def test_a_key_of_something_that_json_cannot_tell_apart_is_refused():
    with pytest.raises(TypeError):
        key_digest({"a": Path("x")})
    with pytest.raises(ValueError, match=r"(?i)out of range"):
        key_digest({"a": float("nan")})


def test_an_entry_is_built_once_and_says_what_it_was_made_from():
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "numbers.txt").write_text("1 2 3")

    first = cached_folder("statistics", {"n": 3}, build)
    assert cached_folder("statistics", {"n": 3}, build) == first
    assert len(built) == 1
    assert (first / "numbers.txt").read_text() == "1 2 3"
    assert (first / "key.json").read_text() == '{"n":3}\n'
    assert cached_folder("statistics", {"n": 4}, build) != first


def test_a_file_may_be_an_entry_too():
    path = cached_file("regressor", {"n": 1}, lambda path: path.write_text(path.suffix), suffix=".pt")
    assert path.suffix == ".pt"
    assert path.read_text() == ".pt"
    assert cached_file("regressor", {"n": 1}, lambda path: pytest.fail("built twice"), suffix=".pt") == path


def test_a_builder_that_fails_leaves_nothing_and_the_next_one_succeeds(home: Path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        cached_folder("kind", {}, fail)
    assert visible(home / "kind") == []
    assert visible(cached_folder("kind", {}, lambda folder: (folder / "whole").touch())) == ["key.json", "whole"]


KILLED = """
import os, signal
from genae.cache import cached_folder
def build(folder):
    (folder / "half").write_text("half")
    print("half", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
cached_folder("kind", {"a": 1}, build)
"""


def test_a_builder_killed_half_way_is_never_seen_and_its_remains_are_cleared(home: Path):
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout == "half\n"
    assert visible(home / "kind") == []
    entry = cached_folder("kind", {"a": 1}, lambda folder: (folder / "whole").touch())
    assert visible(entry) == ["key.json", "whole"]
    assert [path for path in (home / "kind").iterdir() if path.is_dir()] == [entry]


def _build_slowly(home: str, start: float, answers: "multiprocessing.SimpleQueue") -> None:
    os.environ["GENAE_CACHE"] = home

    def build(folder: Path) -> None:
        answers.put("built")
        for name in "abc":
            time.sleep(0.05)
            (folder / name).write_text(str(os.getpid()))

    time.sleep(max(0.0, start - time.time()))
    entry = cached_folder("kind", {"a": 1}, build)
    answers.put({(entry / name).read_text() for name in "abc"})


def test_builders_at_once_take_turns_and_all_end_with_one_whole_entry(home: Path):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    workers = [context.Process(target=_build_slowly, args=(str(home), time.time() + 0.2, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = [answers.get() for _ in range(5)]
    assert found.count("built") == 1
    contents = [answer for answer in found if answer != "built"]
    assert all(len(writers) == 1 for writers in contents)  # every file of the entry is by one builder
    assert contents == contents[:1] * 4


def test_without_locks_the_first_rename_wins_and_both_end_with_a_whole_entry(home: Path, monkeypatch: pytest.MonkeyPatch):
    def no_locks(*_: object) -> None:
        raise OSError("no locks on this file system")

    monkeypatch.setattr("fcntl.flock", no_locks)

    def overtaken(folder: Path) -> None:
        (folder / "by").write_text("the slow one")
        cached_folder("kind", {}, lambda inner: (inner / "by").write_text("the quick one"))

    assert (cached_folder("kind", {}, overtaken) / "by").read_text() == "the quick one"
    assert len(visible(home / "kind")) == 1


def test_what_is_replaced_stays_readable_for_whoever_has_it_open(tmp_path: Path):
    target = tmp_path / "pack"
    make_whole(target, lambda folder: (folder / "x").write_text("old"), folder=True)
    with (target / "x").open() as open_file:
        make_whole(target, lambda folder: (folder / "x").write_text("new"), folder=True, replace=True)
        assert open_file.read() == "old"
    assert (target / "x").read_text() == "new"
    assert visible(tmp_path) == ["pack"]


def test_the_cache_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import genae.cache"
    subprocess.run([sys.executable, "-c", code], check=True)
