"""Who may write in a run directory."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from genae import rundir
from genae.rundir import RunDir, Taken


def hold(path, seconds=60):
    """A process that holds the run directory; returns once it does."""
    code = f"""
        import time
        from pathlib import Path
        from genae.rundir import RunDir
        with RunDir(Path({str(path)!r})).claim():
            print("held", flush=True)
            time.sleep({seconds})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_directory_is_held_by_one_process_at_a_time(tmp_path):
    holder = hold(tmp_path / "run")
    try:
        with pytest.raises(Taken, match=f"process {holder.pid} on"), RunDir(tmp_path / "run").claim():
            pass
    finally:
        holder.kill()
        holder.wait()


def test_a_dead_owner_loses_the_directory(tmp_path):
    holder = hold(tmp_path / "run")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / "owner.json").exists()
    with RunDir(tmp_path / "run").claim():
        assert RunDir(tmp_path / "run").live_owner()["pid"] == os.getpid()


def test_a_released_directory_is_free(tmp_path):
    directory = RunDir(tmp_path)
    with directory.claim():
        pass
    assert directory.live_owner() is None
    assert not directory.owner.exists()


def test_a_process_that_took_a_dead_ones_number_is_not_taken_for_it(tmp_path):
    directory = RunDir(tmp_path)
    with directory.claim():
        owner = json.loads(directory.owner.read_text())
    rundir.write_json(directory.owner, owner | {"started": "1"})
    assert directory.live_owner() is None


def test_an_owner_on_another_host_lives_by_its_heartbeat(tmp_path):
    directory = RunDir(tmp_path)
    rundir.write_json(directory.owner, {"host": "elsewhere", "pid": 1, "started": "1", "token": "t"})
    assert directory.live_owner()["host"] == "elsewhere"
    long_ago = time.time() - 2 * rundir.DEAD_AFTER_SECONDS
    os.utime(directory.owner, (long_ago, long_ago))
    assert directory.live_owner() is None


def test_of_many_that_find_a_dead_owner_one_gets_the_directory(tmp_path):
    rundir.write_json(
        tmp_path / "owner.json", {"host": rundir.socket.gethostname(), "pid": 2**22 + 1, "started": "1", "token": "t"}
    )
    code = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from genae.rundir import RunDir, Taken
        try:
            with RunDir(Path({str(tmp_path)!r})).claim():
                print("won", flush=True)
                time.sleep(2)
        except Taken:
            print("lost", flush=True)
    """)
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert sorted(process.communicate()[0].strip() for process in processes) == ["lost"] * 5 + ["won"]


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "status.json"
    rundir.write_json(path, {"images_seen": 1})
    with pytest.raises(TypeError):
        rundir.write_json(path, {"images_seen": object()})
    assert rundir.read_json(path) == {"images_seen": 1}
    assert rundir.read_json(tmp_path / "none.json") is None


def test_a_worker_that_died_for_a_command_is_known_to_that_command_only(tmp_path):
    dead = {"host": rundir.socket.gethostname(), "pid": 2**22 + 1, "started": "1", "token": "t", "command": 17.0}
    rundir.write_json(tmp_path / "owner.json", dead)
    assert RunDir(tmp_path).died_for(17.0)["pid"] == dead["pid"]
    assert RunDir(tmp_path).died_for(18.0) is None
    with RunDir(tmp_path).claim(18.0):
        assert RunDir(tmp_path).died_for(18.0) is None


def test_whoever_lost_the_directory_finds_out(tmp_path):
    directory = RunDir(tmp_path)
    with directory.claim():
        directory.check_held()
        rundir.write_json(directory.owner, {"host": "elsewhere", "pid": 1, "started": "1", "token": "t"})
        with pytest.raises(Taken, match="taken over by process 1 on elsewhere"):
            directory.check_held()


def test_warnings_are_kept_for_whoever_asks_later(tmp_path):
    directory = RunDir(tmp_path / "run")
    directory.warn("the processor changed")
    assert directory.warnings_since(0) == ["the processor changed"]
    assert directory.warnings_since(time.time() + 1) == []
