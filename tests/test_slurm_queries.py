"""What genae asks SLURM's commands, with stand-ins for them first on PATH. What these print was recorded from SLURM 22.05.8."""

import stat
import textwrap
import time
from pathlib import Path

import pytest

from genae import slurm
from genae.slurm import Queued

QUEUE = """\
3_2|PENDING||JobArrayTaskLimit
3_3|PENDING||JobArrayTaskLimit
4|PENDING||Dependency
3_0|RUNNING|node1|None
3_1|COMPLETING|node[1-2]|None
5|SUSPENDED|node2|None
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a script first on PATH under a command's name; `stand_in.said` is where it may keep what it was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def put(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{textwrap.dedent(script)}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    put.said = tmp_path / "said"
    slurm._ended.cache_clear()
    return put


def prints(text: str) -> str:
    return f"cat <<'END'\n{text}END\n"


def test_the_queue_is_read_from_one_call_of_squeue(stand_in):
    stand_in("squeue", f'echo "$@" >> {stand_in.said}\n{prints(QUEUE)}')
    assert slurm.queue() == {
        "3_2": Queued("PENDING", None, "JobArrayTaskLimit"),
        "3_3": Queued("PENDING", None, "JobArrayTaskLimit"),
        "4": Queued("PENDING", None, "Dependency"),
        "3_0": Queued("RUNNING", "node1", None),
        "3_1": Queued("COMPLETING", "node[1-2]", None),
        "5": Queued("SUSPENDED", "node2", None),
    }
    assert stand_in.said.read_text() == "--me --all --noheader --array --format=%i|%T|%N|%r\n"


def test_a_reason_may_hold_anything(stand_in):
    stand_in("squeue", prints("7|PENDING||ReqNodeNotAvail, UnavailableNodes:node[1-2] | held by admin\n"))
    assert slurm.queue()["7"].reason == "ReqNodeNotAvail, UnavailableNodes:node[1-2] | held by admin"


def test_a_line_that_names_a_cluster_and_a_job_that_has_ended_are_passed_over(stand_in):
    stand_in("squeue", prints("CLUSTER: desk\n5|COMPLETED|node1|None\n6|RUNNING|node1|None\n"))
    assert list(slurm.queue()) == ["6"]


def test_an_empty_queue_is_not_an_unknown_one(stand_in):
    stand_in("squeue", "exit 0")
    assert slurm.queue() == {}
    stand_in("squeue", "echo 'slurm_load_jobs error: Socket timed out on send/recv operation' >&2; exit 1")
    assert slurm.queue() is None


def test_without_squeue_the_queue_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.queue() is None


def test_a_controller_that_does_not_answer_is_not_waited_for_even_behind_a_wrapper_script(stand_in, monkeypatch):
    monkeypatch.setattr(slurm, "ANSWER_SECONDS", 0.3)
    stand_in("squeue", "sleep 30\ntrue")  # the shell's child holds the pipe when the shell is killed
    began = time.monotonic()
    assert slurm.queue() is None
    assert time.monotonic() - began < 5


def test_what_a_user_set_for_squeue_hides_no_job(stand_in, monkeypatch):
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    stand_in("squeue", 'test -z "$SQUEUE_STATES" && echo "5|PENDING||Priority"')
    assert list(slurm.queue()) == ["5"]


def test_jobs_are_cancelled_in_one_call_and_none_in_no_call(stand_in):
    stand_in("scancel", f'echo "$@" >> {stand_in.said}')
    slurm.cancel([])
    slurm.cancel(iter(["3_1", "4"]))
    assert stand_in.said.read_text() == "3_1 4\n"


def test_a_refusal_of_scancel_is_an_error_with_its_words(stand_in, tmp_path, monkeypatch):
    stand_in("scancel", "echo 'scancel: error: Invalid job id abc' >&2; exit 1")
    with pytest.raises(OSError, match="scancel refused: scancel: error: Invalid job id abc"):
        slurm.cancel(["abc"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="no scancel here"):
        slurm.cancel(["3"])


def test_accounting_tells_how_jobs_ended(stand_in):
    recorded = "3_0|COMPLETED\n3_1|TIMEOUT\n3_2|CANCELLED by 1000\n4|OUT_OF_MEMORY\n5|RUNNING\n3_[3-4]|PENDING\n6|NODE_FAIL\n"
    stand_in("sacct", f'echo "$@" >> {stand_in.said}\n{prints(recorded)}')
    ended = {"3_0": "COMPLETED", "3_1": "TIMEOUT", "3_2": "CANCELLED", "4": "OUT_OF_MEMORY", "6": "NODE_FAIL"}
    assert slurm.ended(["3_0", "3_1", "3_2", "4", "5", "6"]) == ended
    asked = "--allocations --noheader --parsable2 --format=JobID,State --jobs=3_0,3_1,3_2,4,5,6\n"
    assert stand_in.said.read_text() == asked


def test_without_accounting_nothing_is_said_and_nobody_is_asked_again(stand_in, capfd):
    stand_in("sacct", f"echo asked >> {stand_in.said}; echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert slurm.ended(["3_0"]) == slurm.ended(["3_0"]) == {}
    assert stand_in.said.read_text() == "asked\n"
    assert capfd.readouterr() == ("", "")


def test_of_no_jobs_accounting_is_not_asked(stand_in):
    stand_in("sacct", f"echo asked >> {stand_in.said}")
    assert slurm.ended([]) == {}
    assert not stand_in.said.exists()
