"""What can be recomputed, kept on disk by its content: packed data sets, reference statistics, trained regressors.

An entry's path is the sha256 of the key that it was made from, so nothing is ever out of date: another key is another entry.
An entry is built aside, in the same folder, synced to disk and renamed into place, so it is whole or not there at all, whoever
is killed while building and however many processes build at once.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

KEY_FILE = "key.json"


def cache_dir() -> Path:
    """The cache's folder: $GENAE_CACHE, else $XDG_CACHE_HOME/genae, else ~/.cache/genae. It may not exist yet."""
    if chosen := os.environ.get("GENAE_CACHE"):
        return Path(chosen).expanduser()
    if standard := os.environ.get("XDG_CACHE_HOME"):
        return Path(standard).expanduser() / "genae"
    return Path.home() / ".cache" / "genae"


def key_digest(key: Mapping[str, Any]) -> str:
    """sha256 (hex) of a key of plain values: the same whatever the order of its entries. Raises TypeError for others."""
    return hashlib.sha256(_canonical(key)).hexdigest()


def cached_folder(kind: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder made from `key`, built on first use: cache_dir() / kind / sha256 of the key.

    kind: a short name, the folder in the cache ("synthetic-faces", "reference-statistics").
    build(folder): fills an empty folder. Its exceptions pass through and leave nothing behind.
    The folder also holds key.json, so that a person can see what it was made from.
    """
    target = cache_dir() / kind / key_digest(key)

    def build_with_key(folder: Path) -> None:
        (folder / KEY_FILE).write_bytes(_canonical(key) + b"\n")
        build(folder)

    return make_whole(target, build_with_key, folder=True)


def cached_file(kind: str, key: Mapping[str, Any], build: Callable[[Path], None], *, suffix: str = "") -> Path:
    """The one file made from `key`, built on first use: cache_dir() / kind / sha256 of the key + suffix.

    build(path): writes the file at a path that does not exist yet and ends in `suffix`. Otherwise as `cached_folder`.
    """
    return make_whole(cache_dir() / kind / (key_digest(key) + suffix), build, folder=False)


def make_whole(target: Path, build: Callable[[Path], None], *, folder: bool, replace: bool = False) -> Path:
    """Build `target` (a folder or a file) unless it is there: aside, synced, then renamed. Returns `target`.

    Two processes that build at once take turns, and the second finds the first one's entry. Where the file system knows no
    locks, both build and the first rename wins: either way each ends with a whole entry.
    replace: build even if it is there, and put the new one in the place of the old (whose open files stay readable).
    """
    if target.exists() and not replace:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    mine = f".{target.name[:80]}.{socket.gethostname()}-"  # whose it is: another machine's unfinished work is not ours to clear
    with _taking_turns(target) as alone:
        if target.exists() and not replace:
            return target
        if alone:  # what carries our name was then left by a builder that died
            for leftover in _starting_with(mine, target.parent):
                _remove(leftover)
        aside = target.parent / f"{mine}{os.getpid()}-{secrets.token_hex(4)}{target.suffix}"
        try:
            if folder:
                aside.mkdir()
            build(aside)
            _sync(aside)
            _put(aside, target, replace)
            _sync(target.parent, deep=False)
        finally:
            _remove(aside)
    return target


def _put(aside: Path, target: Path, replace: bool) -> None:
    """Rename `aside` to `target`. What another process put there meanwhile stays, unless it is to be replaced."""
    if aside.is_file():
        aside.replace(target)
        return
    if replace and target.exists():  # a folder that is not empty cannot be renamed over
        old = aside.with_name(aside.name + ".old")
        target.rename(old)
        aside.rename(target)
        _remove(old)
        return
    try:
        aside.rename(target)
    except OSError:
        if not target.is_dir():
            raise


@contextlib.contextmanager
def _taking_turns(target: Path) -> Iterator[bool]:
    """Hold the lock of `target`, which dies with its holder. Yields whether there is one: some file systems have none.

    Not shared_files.locked: where there are no locks it takes one held for two minutes for abandoned; a build may take hours.
    """
    lock = target.parent / f".{target.name}.lock"
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            alone = False
        else:
            alone = True
        yield alone  # the lock file stays: removing it would let two processes hold two locks of one name


def _sync(path: Path, *, deep: bool = True) -> None:
    """Ask the disk to hold a file, or a folder with all that it contains, before its name is given away."""
    if deep and path.is_dir():
        for child in path.iterdir():
            _sync(child)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _starting_with(prefix: str, folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(prefix)]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _canonical(key: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(key), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
