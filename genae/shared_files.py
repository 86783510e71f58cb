"""Small files and locks on shared file systems, which are slow, briefly stale, or refuse locks.

A network file system answers a correct program with what passes: ESTALE or EIO while a server comes back, a file that another
host has just renamed is listed but not found, or is empty for a moment. What passes is tried again for PATIENCE_SECONDS; what
does not ends in an OSError that names the file. Files are written aside and renamed, so that trying again changes nothing.
"""

import contextlib
import errno
import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

PATIENCE_SECONDS = 30.0
PAUSES_SECONDS = (0.05, 2.0)  # the first, and the longest; each is twice the one before
PASSING = {errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN, errno.ESHUTDOWN}
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}  # NFS without its lock daemon, Lustre mounted without -o flock
RENEWED_EVERY_SECONDS = 5.0  # by its holder: a lock that is a file
ABANDONED_AFTER_SECONDS = 120.0  # without a change of that file; longer than patience

Result = TypeVar("Result")


def patiently(action: Callable[[], Result], path: Path, patience: float | None = None) -> Result:
    """What `action` on `path` returns, tried again while the file system says what passes.

    patience: in seconds, PATIENCE_SECONDS by default. Raises OSError, with what was said last and for how long.
    """
    patience = PATIENCE_SECONDS if patience is None else patience
    deadline, pause = time.monotonic() + patience, PAUSES_SECONDS[0]
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno not in PASSING:
                raise
            if time.monotonic() + pause > deadline:
                raise OSError(error.errno, f"{error.strerror}, for {patience:g} s", str(path)) from error
        time.sleep(pause)
        pause = min(2 * pause, PAUSES_SECONDS[1])


def read_json(path: Path, patience: float | None = None) -> Any:
    """The value of a JSON file; None where there is no such file. See `patiently`."""

    def read() -> Any:
        try:
            contents = path.read_bytes()
        except FileNotFoundError:
            if _is_listed(path):
                raise OSError(errno.ESTALE, "it is listed in its folder, but not found") from None
            return None
        try:
            return json.loads(contents)
        except ValueError:
            raise OSError(errno.ESTALE, "it holds no whole JSON" if contents else "it is empty") from None

    return patiently(read, path, patience)


def write_json(path: Path, value: Any, *, sync: bool = True) -> None:
    """Write JSON whole or not at all: aside, flushed to disk (unless it need not survive a power cut), renamed."""
    text = json.dumps(value, indent=1)

    def write() -> None:
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with aside.open("w") as file:
                file.write(text)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            rename(aside, path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise

    patiently(write, path)


def rename(aside: Path, path: Path) -> None:
    """Put `aside` in the place of `path`. A network file system that asked twice may say "not found" of what it has done."""
    inode = aside.stat().st_ino
    try:
        aside.replace(path)
    except FileNotFoundError:
        if not path.exists() or path.stat().st_ino != inode:
            raise


@contextlib.contextmanager
def locked(lock: Path) -> Iterator[None]:
    """One process at a time, of those on all hosts, is inside. `lock` is a file for this alone, gone afterwards.

    The kernel takes its lock from a process that dies. Where the file system has no such locks, the file's existence is the
    lock. Its holder rewrites it while it lives; it is broken when it has not changed for ABANDONED_AFTER_SECONDS.
    """
    held = _kernel_lock(lock)
    if held is None:
        with _lock_by_existence(lock.with_name(f"{lock.name}.held")):
            yield
        return
    try:
        yield
    finally:
        with held, contextlib.suppress(FileNotFoundError):
            patiently(lock.unlink, lock)


def _kernel_lock(lock: Path) -> IO[str] | None:
    """The open file that holds the lock; None where the file system has no locks."""

    def take() -> IO[str] | None:
        while True:
            file = lock.open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Its last holder may have removed the file that we opened; then someone else may hold the one that is there.
                with contextlib.suppress(FileNotFoundError):
                    if os.fstat(file.fileno()).st_ino == lock.stat().st_ino:
                        return file
            except OSError as error:
                file.close()
                if error.errno in NO_LOCKS:
                    return None
                raise
            file.close()

    return patiently(take, lock)


@contextlib.contextmanager
def _lock_by_existence(held: Path) -> Iterator[None]:
    """What `locked` does where there are no kernel locks. The file holds its owner's token, and how often that renewed it."""
    token = uuid.uuid4().hex

    def create() -> bool:
        try:
            descriptor = os.open(held, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with open(descriptor, "w") as file:
            file.write(token)
        return True

    seen, since = _contents(held), time.monotonic()
    while not patiently(create, held):
        if _contents(held) != seen:
            seen, since = _contents(held), time.monotonic()
        elif time.monotonic() - since > ABANDONED_AFTER_SECONDS:
            _break(held, seen)
        time.sleep(PAUSES_SECONDS[0])
    released = threading.Event()
    renewal = threading.Thread(target=_renew, args=(held, token, released), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        released.set()
        renewal.join()
        if (_contents(held) or "").startswith(token):  # else it was broken, as a dead process's
            patiently(held.unlink, held)


def _renew(held: Path, token: str, released: threading.Event) -> None:
    """Change the file of a lock for those who wait, so that they see that its holder lives, however long it is inside."""
    count = 0
    while not released.wait(RENEWED_EVERY_SECONDS):
        count += 1
        with contextlib.suppress(OSError), held.open("r+") as file:  # renewed next time; or gone, if it was broken
            if file.read().startswith(token):  # what was opened stays ours to write, though another may replace it now
                file.seek(0)
                file.write(f"{token} {count}")


def _break(held: Path, abandoned: str | None) -> None:
    """Take a dead process's lock away. Two may want to: what one of them finds to be a living process's is given back."""
    aside = held.with_name(f"{held.name}.{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(FileNotFoundError):
        held.rename(aside)
        if _contents(aside) != abandoned:
            with contextlib.suppress(FileExistsError):
                os.link(aside, held)
        aside.unlink()


def _contents(path: Path) -> str | None:
    """The text of a file; None where there is none."""
    try:
        return patiently(path.read_text, path)
    except FileNotFoundError:
        return None


def _is_listed(path: Path) -> bool:
    try:
        return path.name in os.listdir(path.parent)
    except FileNotFoundError:
        return False
