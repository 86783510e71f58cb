"""The command `genae status`: its table, its JSON, its exit status, watching, and a thousand run directories in time."""

import io
import json
import resource
import socket
import subprocess
import sys

from rich.console import Console

from genae import status

FIRST, SECOND = 1000, 500  # images of the two stages


def test_the_table_has_a_line_a_run_and_the_counts_and_a_failure_is_exit_status_1(run, genae, capsys):
    run("done").announce().train(FIRST, SECOND).measure("mse", "fid")
    run("slow").announce().train(400, starts=2)
    run("bad").announce().fail(0)
    with run("slow").places[0].claim():
        assert genae("status") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "state", "node", "images", "images/s", "time", "left", "loss", "restarts", "reason"]
    told = [" ".join(line.split()) for line in lines]
    assert told[1] == "bad/faces/s0 failed node2 0 of 1,500 0% Diverged: pixels became nan"
    assert told[2] == "done/faces/s0 done 1,500 of 1,500 100% 0.25"
    assert told[3] == f"slow/faces/s0 autoencoder {socket.gethostname()} 400 of 1,500 26% 50 0:22 0.25 1"
    assert lines[4] == "3 runs: 1 done, 1 training, 1 failed"


def test_without_a_failure_the_exit_status_is_0_and_watching_without_a_terminal_prints_once(run, genae, capsys):
    run().announce()
    assert genae("status", "--watch") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 run: 1 unfinished"


def test_json_is_a_list_of_objects(run, genae, capsys):
    mine = run().announce().train(400).fail(0)
    assert genae("status", "--json") == 1
    (state,) = json.loads(capsys.readouterr().out)
    assert state == {
        "name": "vae/faces/s0",
        "table": "paper/table1",
        "row": "vae",
        "data_name": "faces",
        "seed": 0,
        "scale": "desk",
        "state": "failed",
        "node": "node2",
        "images_seen": 400,
        "total_images": 1500,
        "images_per_second": None,
        "seconds_left": None,
        "loss": 0.25,
        "restarts": 0,
        "reason": "Diverged: pixels became nan",
        "job": None,
        "directories": [str(place.path) for place in mine.places],
    }
    assert genae("status", "--json", "--watch") == 2


def test_an_experiment_is_known_by_its_table_its_file_and_its_name_without_being_resolved(project, run, genae, capsys):
    run().announce("paper/table1")
    run("gan").announce("paper/table2")
    (project / "experiments").mkdir()
    text = "table: paper/table2\nimports: [no_such_module]\nrows: {gan: {nonsense: 1}}\n"
    (project / "experiments" / "second.yaml").write_text(text)
    (project / "experiments" / "fresh.yaml").write_text("table: paper/fresh\n")
    for name in ("paper/table2", "experiments/second.yaml", "second"):
        assert genae("status", name, "--json") == 0
        assert [state["row"] for state in json.loads(capsys.readouterr().out)] == ["gan"]
    assert genae("status", "fresh") == 0
    assert "no run of it has been started yet; there are runs of paper/table1, paper/table2" in capsys.readouterr().out


def test_an_unknown_experiment_is_answered_with_the_tables_there_are(run, genae, capsys):
    run().announce("paper/table1")
    assert genae("status", "paper/tabel1") == 2
    said = capsys.readouterr().err
    assert "there are no runs of 'paper/tabel1'; did you mean 'paper/table1'? known: paper/table1" in said


def test_where_nothing_was_run_status_says_so(genae, capsys):
    assert genae("status") == 0
    assert capsys.readouterr().out == "no run has been started yet\n"
    assert genae("status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def one(name: str, state: str, **told) -> status.RunState:
    same = {"table": "t", "row": "r", "data_name": "d", "seed": 0, "scale": "desk", "node": None, "images_seen": 1}
    same |= {"total_images": 2, "images_per_second": None, "seconds_left": None, "loss": None, "restarts": 0}
    return status.RunState(name=name, state=state, **same | {"reason": None, "job": None, "directories": ()} | told)


def test_watching_ends_when_nothing_is_in_flight_and_leaves_done_runs_to_the_counts_where_there_is_no_room(monkeypatch):
    def states(*words: str) -> list[status.RunState]:
        return [one(f"r{index}", word) for index, word in enumerate(words)]

    looks = [
        states("done", "queued", "done"),
        states("done", "unfinished", "done"),  # between two tasks
        states("done", "density", "done"),
        states("done", "failed", "done"),
        states("done", "failed", "done"),
    ]
    monkeypatch.setattr(status, "LOOK_EVERY_SECONDS", 0.0)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=5)
    last = status.watch(lambda: looks.pop(0), console)
    assert looks == []
    assert [state.state for state in last] == ["done", "failed", "done"]
    shown = console.file.getvalue()
    assert "3 runs: 2 done, 1 training" in shown
    assert "r0" not in shown[: shown.index("1 failed")]  # what is left on the screen at the end is all


def test_on_a_narrow_terminal_a_run_has_one_line_and_the_reason_of_its_trouble_stands_whole_beneath():
    reason = "Diverged: " + "pixels became nan " * 8
    states = [one("good", "done"), one("bad", "failed", reason=reason.strip())]
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=50, color_system=None)
    status.show(states, console)
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["run", "good", "bad"]
    assert lines[2].rstrip().endswith("…")
    assert " ".join(" ".join(lines[3:-1]).split()) == f"failed: t/bad: {reason.strip()}"
    assert lines[-1] == "2 runs: 1 done, 1 failed"


def test_a_duration_is_told_in_the_two_units_that_matter():
    told = [status._duration(seconds) for seconds in (None, 7, 65.4, 3600 + 125, 2 * 86400 + 3 * 3600 + 240)]
    assert told == ["", "0:07", "1:05", "1:02:05", "2d 03:04"]


def test_a_thousand_run_directories_are_told_of_within_two_seconds(project, run):
    """Half of them a run's first stage, half its second; a fifth of the runs is done, the rest in other states."""
    for seed in range(500):
        mine = run("vae", seed).announce().submit(job=f"12_{seed}")
        if seed % 5 == 0:
            mine.train(FIRST, SECOND, starts=3).measure("mse", "fid")
        elif seed % 5 == 1:
            mine.train(FIRST, 100).own(1, host="elsewhere")
        elif seed % 5 == 2:
            mine.train(400).fail(0)
        elif seed % 5 == 3:
            mine.train(FIRST, SECOND).own(1)
    assert len(list((project / "results/runs").iterdir())) == 1000
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "genae", "status"], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1].startswith("500 runs: 100 done, "), done.stderr
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 2.0  # of the processor, the interpreter's start included: how long it takes depends on who else runs
