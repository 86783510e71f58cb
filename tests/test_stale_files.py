"""Shared file systems that stall, forget and refuse: each fault is put where the operating system would put it."""

import errno
import fcntl
import json
import multiprocessing
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from genae import checkpoint, results, rundir, shared_files, study
from genae.experiment import load
from genae.rundir import RunDir, Taken
from genae.shared_files import locked, read_json, write_json
from genae.stop import Stop
from genae.training import Training

FORK = multiprocessing.get_context("fork")
ELSEWHERE = {"host": "elsewhere", "pid": 1, "started": "1", "token": "theirs"}


@pytest.fixture(autouse=True)
def no_time_to_lose(monkeypatch):
    """Patience of half a second instead of half a minute."""
    monkeypatch.setattr(shared_files, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(shared_files, "PAUSES_SECONDS", (0.001, 0.01))


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """Makes calls of a function fail with the errors given, one after the other (None: it works), and from then on work.

    Of calls that name a file only those for files of the test's own: pytest and /proc are read through the same functions.
    """

    def strikes(target: object) -> bool:
        return not isinstance(target, str | os.PathLike) or Path(target).is_relative_to(tmp_path)

    def make(owner: object, name: str, *errors: int | None, after: bool = False) -> None:
        """after: the call does its work before it fails, as when a server's answer is lost."""
        left, real = list(errors), getattr(owner, name)

        def call(*arguments, **options):
            error = left.pop(0) if left and strikes(arguments[0]) else None
            if error is None or after:
                done = real(*arguments, **options)
            if error is not None:
                raise OSError(error, os.strerror(error), str(arguments[0]))
            return done

        monkeypatch.setattr(owner, name, call)

    return make


# Small files.


@pytest.mark.parametrize("error", sorted(shared_files.PASSING), ids=errno.errorcode.get)
def test_reading_outlasts_what_passes(tmp_path, failing, error):
    write_json(tmp_path / "status.json", {"images_seen": 1})
    failing(Path, "open", error, error)
    assert read_json(tmp_path / "status.json") == {"images_seen": 1}


@pytest.mark.parametrize("error", [errno.ESTALE, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize(("owner", "name"), [(Path, "open"), (os, "fsync"), (os, "replace")], ids=["open", "fsync", "rename"])
def test_writing_outlasts_what_passes_and_leaves_nothing_beside(tmp_path, failing, owner, name, error):
    path = tmp_path / "job.json"
    write_json(path, "before")
    failing(owner, name, error, error)
    write_json(path, "after")
    assert json.loads(path.read_text()) == "after"
    assert os.listdir(tmp_path) == ["job.json"]


def test_a_rename_that_was_done_although_the_answer_was_lost_is_done(tmp_path, failing):
    failing(os, "replace", errno.ENOENT, after=True)  # asked again, the server found nothing left to rename
    write_json(tmp_path / "job.json", "written")
    assert os.listdir(tmp_path) == ["job.json"]
    with pytest.raises(FileNotFoundError):
        write_json(tmp_path / "no such folder" / "job.json", "never")


def test_a_file_that_another_host_renames_meanwhile_is_found(tmp_path, failing):
    write_json(tmp_path / "owner.json", "theirs")
    failing(Path, "open", errno.ENOENT, errno.ENOENT)
    assert read_json(tmp_path / "owner.json") == "theirs"


def test_a_file_that_is_not_there_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waited"))
    assert read_json(tmp_path / "owner.json") is None
    assert read_json(tmp_path / "no such folder" / "owner.json") is None


@pytest.mark.parametrize("seen", ["", '{"images_s', "\0\0\0\0"])
def test_a_file_seen_empty_or_torn_is_read_once_it_is_whole(tmp_path, monkeypatch, seen):
    path = tmp_path / "rows.json"
    path.write_text(seen)
    monkeypatch.setattr(time, "sleep", lambda seconds: path.write_text('{"images_seen": 1}'))
    assert read_json(path) == {"images_seen": 1}


def test_what_does_not_pass_is_an_error_that_says_what_where_and_for_how_long(tmp_path, failing):
    path = tmp_path / "owner.json"
    path.write_text("")
    with pytest.raises(OSError, match=r"it is empty, for 0\.5 s: '.*owner\.json'"):
        read_json(path)
    path.write_text("[1, 2")
    with pytest.raises(OSError, match=r"it holds no whole JSON, for 0\.5 s: '.*owner\.json'"):
        read_json(path)
    failing(Path, "open", *[errno.ESTALE] * 1000)
    with pytest.raises(OSError, match=r"\[Errno 116\] Stale file handle, for 0\.5 s: '.*owner\.json'"):
        read_json(path)


def test_what_will_not_pass_is_not_tried_again(tmp_path, failing, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waited"))
    for error, kind in [(errno.EACCES, PermissionError), (errno.ENOSPC, OSError)]:
        failing(Path, "open", error)
        with pytest.raises(kind, match=os.strerror(error)):
            write_json(tmp_path / "job.json", 1)


def test_pauses_grow_to_the_longest(monkeypatch):
    monkeypatch.setattr(shared_files, "PAUSES_SECONDS", (0.05, 2.0))
    clock, pauses = [0.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    def stale() -> None:
        raise OSError(errno.ESTALE, "stale")

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with pytest.raises(OSError, match="stale, for 30 s"):
        shared_files.patiently(stale, Path("x"), 30.0)
    assert pauses[:7] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert 28.0 < sum(pauses) <= 30.0


# Locks.


def refuse_locks(error: int) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(error, os.strerror(error))

    fcntl.flock = flock  # in a process that ends soon


def count(folder: Path, error: int | None) -> None:
    if error is not None:
        refuse_locks(error)
    counter = folder / "counter"
    for _ in range(10):
        with locked(folder / ".lock"):
            number = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(number + 1))


@pytest.mark.parametrize("error", [None, *sorted(shared_files.NO_LOCKS)], ids=lambda error: errno.errorcode.get(error, "locks"))
def test_one_process_at_a_time_is_inside_with_locks_and_without(tmp_path, error):
    (tmp_path / "counter").write_text("0")
    processes = [FORK.Process(target=count, args=(tmp_path, error)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "counter").read_text() == "40"
    assert set(os.listdir(tmp_path)) - {".lock"} == {"counter"}  # where locks are refused, the file to lock may stay


@pytest.fixture
def no_locks(monkeypatch):
    def flock(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_lock_that_its_dead_holder_left_is_broken_once_though_many_want_it(tmp_path, no_locks, monkeypatch):
    monkeypatch.setattr(shared_files, "ABANDONED_AFTER_SECONDS", 0.2)
    (tmp_path / ".lock.held").write_text("of a process that was killed")
    inside, most, done = [], [], []

    def enter() -> None:
        with locked(tmp_path / ".lock"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()
        done.append(1)

    threads = [threading.Thread(target=enter) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), max(most)) == (5, 1)


def test_a_lock_is_not_broken_while_its_holder_lives_however_long_it_is_inside(tmp_path, no_locks, monkeypatch):
    monkeypatch.setattr(shared_files, "RENEWED_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(shared_files, "ABANDONED_AFTER_SECONDS", 0.5)
    order = []

    def enter() -> None:
        with locked(tmp_path / ".lock"):
            order.append("second")

    waiting = threading.Thread(target=enter)
    with locked(tmp_path / ".lock"):
        waiting.start()
        time.sleep(4 * 0.5)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    assert not (tmp_path / ".lock.held").exists()


def test_a_lock_that_changed_hands_meanwhile_is_given_back(tmp_path):
    held = tmp_path / ".lock.held"
    held.write_text("of the living")
    shared_files._break(held, "of the dead")
    assert held.read_text() == "of the living"
    assert os.listdir(tmp_path) == [".lock.held"]


def rename_over(path: Path, text: str) -> None:
    """Put another file in a file's place at once, as breaking a lock and taking it does."""
    aside = path.with_name("aside")
    aside.write_text(text)
    aside.replace(path)


def test_whoever_was_taken_for_dead_leaves_the_next_holders_lock_alone(tmp_path, no_locks, monkeypatch):
    monkeypatch.setattr(shared_files, "RENEWED_EVERY_SECONDS", 0.01)
    with locked(tmp_path / ".lock"):
        rename_over(tmp_path / ".lock.held", "of another")
        time.sleep(0.1)
    assert (tmp_path / ".lock.held").read_text() == "of another"


def test_a_lock_outlasts_what_passes(tmp_path, failing):
    failing(fcntl, "flock", errno.ESTALE, errno.EIO)
    with locked(tmp_path / ".lock"):
        pass
    assert os.listdir(tmp_path) == []


def test_without_kernel_locks_a_directory_is_still_held_by_one(tmp_path, no_locks):
    with RunDir(tmp_path / "run").claim(), pytest.raises(Taken), RunDir(tmp_path / "run").claim():
        pass
    assert set(os.listdir(tmp_path / "run")) == {".claim"}


# Claims.


def test_a_claim_outlasts_a_file_system_on_which_a_third_of_all_calls_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "HEARTBEAT_SECONDS", 0.01)
    chance, failed = random.Random(0), []

    def shake(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def call(*arguments, **options):
            if (str(tmp_path) in str(arguments[0]) or name == "flock") and chance.random() < 1 / 3:
                failed.append(name)
                raise OSError(chance.choice([errno.ESTALE, errno.EIO]), "shaken")
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    for owner, name in [(Path, "open"), (Path, "mkdir"), (os, "replace"), (os, "utime"), (fcntl, "flock"), (os, "unlink")]:
        shake(owner, name)
    directory = RunDir(tmp_path / "run")
    for _ in range(10):
        with directory.claim():
            time.sleep(0.02)
            directory.check_held()
            assert directory.live_owner()["pid"] == os.getpid()
        assert directory.live_owner() is None
    assert len(failed) > 20
    assert not directory.owner.exists()


def silent_owner(path: Path) -> RunDir:
    """A directory whose owner, on another host, was not heard of for twice as long as makes it dead."""
    directory = RunDir(path / "run")
    directory.path.mkdir()
    write_json(directory.owner, ELSEWHERE)
    long_ago = time.time() - 2 * rundir.DEAD_AFTER_SECONDS
    os.utime(directory.owner, (long_ago, long_ago))
    return directory


def test_a_heartbeat_that_comes_late_for_everyone_costs_nobody_its_directory(tmp_path, monkeypatch):
    """A server that was away for two minutes is back: whoever looks before the owner's next beat waits for it."""
    directory = silent_owner(tmp_path)
    monkeypatch.setattr(rundir.time, "sleep", lambda seconds: os.utime(directory.owner))
    with pytest.raises(Taken, match="process 1 on elsewhere"), directory.claim():
        pass


def test_an_owner_whose_clock_is_behind_keeps_its_directory_as_long_as_it_beats(tmp_path, monkeypatch):
    directory = silent_owner(tmp_path)  # by its own clock it has just beaten

    def a_beat_later(seconds: float) -> None:
        last = directory.owner.stat().st_mtime
        os.utime(directory.owner, (last + seconds, last + seconds))

    monkeypatch.setattr(rundir.time, "sleep", a_beat_later)
    with pytest.raises(Taken, match="process 1 on elsewhere"), directory.claim():
        pass
    assert directory.live_owner() is None  # whoever only looks does not wait, and goes by the clock


def test_of_two_that_find_a_silent_owner_the_second_sees_that_the_first_has_it(tmp_path, monkeypatch):
    directory = silent_owner(tmp_path)

    def taken_by_a_host_whose_clock_is_behind(seconds: float) -> None:
        last = directory.owner.stat().st_mtime
        write_json(directory.owner, ELSEWHERE | {"pid": 2, "token": "the first's"})
        os.utime(directory.owner, (last, last))

    monkeypatch.setattr(rundir.time, "sleep", taken_by_a_host_whose_clock_is_behind)
    with pytest.raises(Taken, match="process 2 on elsewhere"), directory.claim():
        pass


def test_an_owner_that_stays_silent_for_two_more_beats_loses_the_directory(tmp_path, monkeypatch):
    directory, waited = silent_owner(tmp_path), []
    monkeypatch.setattr(rundir.time, "sleep", waited.append)
    with directory.claim():
        assert directory.live_owner()["pid"] == os.getpid()
    assert waited == [2 * rundir.HEARTBEAT_SECONDS]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_heart_goes_on_beating_after_a_fault_longer_than_patience(tmp_path, failing, monkeypatch):
    monkeypatch.setattr(rundir, "HEARTBEAT_SECONDS", 0.01)
    directory = RunDir(tmp_path)
    with directory.claim():
        failing(os, "utime", *[errno.EIO] * 3)
        before = directory.owner.stat().st_mtime_ns
        until(lambda: directory.owner.stat().st_mtime_ns > before)


def test_hearts_beat_by_their_hosts_clock_for_a_file_servers_may_be_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(rundir.time, "time", lambda: 1_700_000_000.0)
    directory = RunDir(tmp_path)
    with directory.claim():
        until(lambda: directory.owner.stat().st_mtime == 1_700_000_000.0)


# Who was taken over.


def test_whoever_was_taken_over_by_one_that_is_done_finds_out_too(tmp_path):
    directory = RunDir(tmp_path)
    with directory.claim():
        assert directory.is_held()
        directory.owner.unlink()
        assert not directory.is_held()
        with pytest.raises(
            Taken, match="was taken over by another process, which is done with it, while this process was silent"
        ):
            directory.check_held()
    directory.check_held()  # nobody claims it: as when a stage is trained by hand


def test_whoever_was_taken_over_leaves_the_new_owners_claim(tmp_path):
    directory = RunDir(tmp_path)
    with directory.claim():
        write_json(directory.owner, ELSEWHERE)
    assert read_json(directory.owner) == ELSEWHERE


@pytest.fixture
def experiment(tmp_path):
    text = {
        "table": "stale/table",
        "rows": {
            "row": {
                "data": {"name": "fashion-mnist", "resolution": 8, "count": 100},
                "model": {"name": "autoencoder", "latent_dim": 4, "width": 4},
                "stages": {
                    "autoencoder": {
                        "objective": {"name": "reconstruction"},
                        "schedule": {
                            "total_kimg": 0.2,
                            "phases": [{"resolution": 8, "batch_size": 10, "learning_rate": 0.002}],
                        },
                    }
                },
                "metrics": [{"name": "mse"}, {"name": "psnr"}],
                "compute": {"log_kimg": 0.02, "checkpoint_seconds": 0.0001},
            }
        },
    }
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(text))
    return load(tmp_path / "table.yaml")


def contents(directory: RunDir) -> dict[str, bytes]:
    """All that a run directory holds, but for who holds it."""
    files = [path for path in directory.path.rglob("*") if path.is_file() and path != directory.owner]
    return {str(path.relative_to(directory.path)): path.read_bytes() for path in files if path.name != ".claim"}


@pytest.mark.parametrize("then", ["goes on", "breaks"])
def test_a_trainer_that_was_taken_over_stops_without_writing(experiment, monkeypatch, capsys, then):
    """At 100 of 200 images another host takes the directory over; a file handle of the old owner may well be stale then."""
    (run,), runs, stop = experiment.runs, study.Folders(experiment.root).runs, Stop()
    (directory,) = study.directories(run, runs)
    left: dict[str, bytes] = {}
    step = Training.step

    def taken_over(self, images, phase):
        step(self, images, phase)
        if self.images_seen == 100:
            left.update(contents(directory))
            write_json(directory.owner, ELSEWHERE)
            if then == "breaks":
                raise OSError(errno.EBADF, "a handle that the new owner made useless")

    monkeypatch.setattr(Training, "step", taken_over)
    monkeypatch.setattr(study.time, "sleep", lambda seconds: setattr(stop, "requested", True))  # it waits for the new owner
    study.work([run], runs, 0.0, stop)
    assert contents(directory) == left
    assert "failure.json" not in left
    assert read_json(directory.owner) == ELSEWHERE
    said = capsys.readouterr().err
    assert ("was taken over by process 1 on elsewhere" if then == "goes on" else "made useless") in said


def test_an_evaluation_that_was_taken_over_adds_no_record(experiment, monkeypatch):
    (run,), runs, stop = experiment.runs, study.Folders(experiment.root).runs, Stop()
    (directory,) = study.directories(run, runs)
    append = results.append

    def taken_over(path, record):
        append(path, record)
        write_json(directory.owner, ELSEWHERE)

    monkeypatch.setattr(results, "append", taken_over)
    monkeypatch.setattr(study.time, "sleep", lambda seconds: setattr(stop, "requested", True))
    study.work([run], runs, 0.0, stop)
    assert [record["column"] for record in results.read(directory.records)] == ["mse"]
    assert not directory.failure.exists()


# Records and checkpoints.


@pytest.mark.parametrize(("owner", "name"), [(Path, "open"), (os, "fsync")], ids=["open", "fsync"])
def test_a_record_is_appended_though_the_file_was_stale(tmp_path, failing, owner, name):
    record = {"identity": "i", "checkpoint": "c", "metric": "mse", "protocol": {}, "column": "mse", "value": 0.5}
    failing(owner, name, errno.ESTALE)
    results.append(tmp_path / "records.jsonl", record)
    assert results.current(results.read(tmp_path / "records.jsonl")) == [record]
    failing(Path, "open", errno.EIO)
    assert results.read(tmp_path / "records.jsonl")


@pytest.mark.parametrize(("owner", "name"), [(Path, "open"), (os, "fsync"), (os, "replace")], ids=["open", "fsync", "rename"])
def test_a_checkpoint_is_written_and_read_though_the_file_was_stale(tmp_path, failing, owner, name):
    failing(owner, name, errno.ESTALE, None, errno.EIO)
    saved = checkpoint.save(tmp_path, {"weights": torch.arange(4.0)}, 10)
    assert checkpoint.read(saved.path).digest == saved.digest
    assert os.listdir(tmp_path) == ["0000000010.pt"]


def test_a_checkpoint_that_could_not_be_read_for_a_moment_is_not_taken_for_damaged(tmp_path, monkeypatch):
    saved = checkpoint.save(tmp_path, {"weights": torch.arange(4.0)}, 10)
    real, faults = torch.load, [errno.EIO, errno.ESTALE]

    def load_through(file, **options):
        if faults:
            raise OSError(faults.pop(), "in the middle of the file")
        return real(file, **options)

    monkeypatch.setattr(torch, "load", load_through)
    found = checkpoint.latest(tmp_path, lambda said: pytest.fail(said))
    assert found.digest == saved.digest


def test_a_command_says_which_file_could_not_be_read_for_how_long(tmp_path, failing):
    directory = RunDir(tmp_path)
    write_json(directory.owner, ELSEWHERE | {"host": socket.gethostname()})
    failing(Path, "open", *[errno.EIO] * 1000)
    with pytest.raises(OSError, match=r"Input/output error, for 0\.5 s: '.*owner\.json'"), directory.claim():
        pass
