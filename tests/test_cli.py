"""The command line: what a person types, and what comes back. Each command is a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

TINY = {
    "table": "tiny/table",
    "source": "A paper, Table 1",
    "shared": {
        "data": {"name": "fashion-mnist", "resolution": 8, "count": 100},
        "model": {"name": "autoencoder", "latent_dim": 4, "width": 4},
        "stages": {
            "autoencoder": {
                "objective": {"name": "reconstruction"},
                "schedule": {"total_kimg": 1, "phases": [{"resolution": 8, "batch_size": 10, "learning_rate": 0.002}]},
            }
        },
        "metrics": [{"name": "mse"}, {"name": "psnr"}],
        "figures": [{"name": "reconstructions"}],
    },
    "rows": {"narrow": {"published": {"mse": 0.5}}, "wide": {"published": {"mse": 0.4}, "model": {"width": 6}}},
}


@pytest.fixture
def project(tmp_path):
    """A project of its own, in a path with a space, with one experiment of two rows."""
    root = tmp_path / "a project"
    (root / "experiments").mkdir(parents=True)
    (root / "setup.cfg").touch()
    (root / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    return root


def genae(*arguments: str, cwd: Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "genae", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def test_run_trains_measures_and_prints_the_table_and_then_has_nothing_to_do(project):
    done = genae("run", "tiny", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "narrow" in done.stdout
    assert "wide" in done.stdout
    records = [json.loads(line) for line in (project / "results/tiny/table.jsonl").read_text().splitlines()]
    assert len(records) == 4
    assert f"{records[0]['value']:.3g}"[:4] in done.stdout
    assert (project / "reports/tiny/table/index.html").exists()

    before = {path: path.stat().st_mtime_ns for path in (project / "results").rglob("*.pt")}
    again = genae("run", "experiments/tiny.yaml", cwd=project)
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (project / "results").rglob("*.pt")} == before
    assert "autoencoder" not in again.stdout  # no worker started


def test_a_killed_command_leaves_no_worker_and_the_next_one_ends_in_the_same_weights(project):
    arguments = ["experiments/tiny.yaml", "shared.stages.autoencoder.schedule.total_kimg=4"]
    command = subprocess.Popen(
        [sys.executable, "-m", "genae", "run", *arguments], cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 90
    while not list(project.glob("results/runs/*/status.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    command.send_signal(signal.SIGKILL)
    command.wait()
    owners = [json.loads(path.read_text()) for path in project.glob("results/runs/*/owner.json")]
    while any(Path(f"/proc/{owner['pid']}").exists() for owner in owners) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{owner['pid']}").exists() for owner in owners)

    done = genae("run", *arguments, cwd=project)
    assert done.returncode == 0, done.stderr
    disturbed = digests(project)
    os.rename(project / "results", project / "elsewhere")
    assert genae("run", *arguments, cwd=project).returncode == 0
    assert digests(project) == disturbed
    assert len(disturbed) == 2


def digests(project: Path) -> set[str]:
    lines = (project / "results/tiny/table.jsonl").read_text().splitlines()
    return {json.loads(line)["checkpoint"] for line in lines}


@pytest.fixture
def endless(project):
    """Starts training that takes hours, and is killed with its workers at the end."""
    started = []

    def start(*arguments: str) -> subprocess.Popen:
        command = subprocess.Popen(
            [sys.executable, "-m", "genae", "run", "tiny", *arguments, "shared.stages.autoencoder.schedule.total_kimg=2000"],
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # these tests may run where it is ignored
        )
        started.append(command)
        return command

    yield start
    for command in started:
        command.kill()  # its workers end with it


def wait_until(condition) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_stops_with_a_checkpoint_and_says_how_to_go_on(project, endless):
    command = endless("--jobs", "2")
    wait_until(lambda: len(list(project.glob("results/runs/*/status.json"))) == 2)
    os.killpg(command.pid, signal.SIGINT)  # as a terminal does: to every process of the command
    output, _ = command.communicate(timeout=60)
    assert command.returncode == 130, output
    assert "run the same command again to go on" in output
    assert "Traceback" not in output
    assert len({path.parent for path in project.glob("results/runs/*/checkpoints/*.pt")}) == 2
    assert not list(project.glob("results/runs/*/owner.json"))


def test_ctrl_c_is_heeded_while_a_worker_still_imports(project, endless):
    (project / "slow.py").write_text(
        "import os, pathlib, time\n"
        "if 'SUBMITIT_LOCAL_JOB_ID' in os.environ:\n"
        "    pathlib.Path(__file__).with_name('importing').touch()\n"
        "    time.sleep(3)\n"
    )
    experiment = project / "experiments/tiny.yaml"
    experiment.write_text("imports: [slow]\n" + experiment.read_text())
    command = endless("--rows", "wide")
    wait_until((project / "importing").exists)
    os.killpg(command.pid, signal.SIGINT)
    output, _ = command.communicate(timeout=60)
    assert command.returncode == 130, output
    assert not list(project.glob("results/runs/*/checkpoints/*.pt"))


def test_one_failed_row_is_reported_and_the_exit_status_is_1(project):
    broken = yaml.safe_load((project / "experiments/tiny.yaml").read_text())
    broken["rows"]["wide"]["stages"] = {"autoencoder": {"objective": {"name": "elbo"}}}  # this model has no posterior
    (project / "experiments/tiny.yaml").write_text(yaml.safe_dump(broken, sort_keys=False))
    done = genae("run", "tiny", cwd=project)
    assert done.returncode == 1
    assert "failed: wide/fashion-mnist/s0: ValueError: objective 'elbo' needs a model that provides posterior" in done.stderr
    assert "Traceback" not in done.stderr
    assert len((project / "results/tiny/table.jsonl").read_text().splitlines()) == 2


def test_running_some_rows_reports_all_of_them(project):
    assert genae("run", "tiny", "--rows", "narrow", cwd=project).returncode == 0
    done = genae("run", "tiny", "--rows", "wide", "rows.wide.model.width=7", cwd=project)
    assert done.returncode == 0, done.stderr
    page = (project / "reports/tiny/table/index.md").read_text()
    assert "missing" not in page


def test_show_is_a_dry_run(project):
    done = genae("show", "tiny", "--row", "wide", "model.latent_dim=9", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "latent_dim: 9" in done.stdout
    assert "results/runs/autoencoder-fashion-mnist-s0-" in done.stdout
    assert not (project / "results").exists()


def test_list_names_every_component_and_experiment(project):
    done = genae("list", cwd=project)
    assert done.returncode == 0, done.stderr
    for name in ("automodulator", "vae-classic", "elbo", "fashion-mnist", "fid", "style-mixing", "tiny"):
        assert name in done.stdout


def test_schema_is_json(project):
    assert json.loads(genae("schema", cwd=project).stdout)["type"] == "object"


def test_evaluate_measures_without_training(project):
    refused = genae("evaluate", "tiny", cwd=project)
    assert refused.returncode == 2
    assert "not trained to its end: narrow/fashion-mnist/s0, wide/fashion-mnist/s0; `genae run` trains" in refused.stderr
    assert genae("run", "tiny", "--rows", "wide", cwd=project).returncode == 0
    done = genae("evaluate", "tiny", "--columns", "psnr", cwd=project)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["wide/fashion-mnist/s0", "psnr"]
    assert "passed over, as not trained to its end: narrow/fashion-mnist/s0" in done.stderr


def test_report_redraws_from_records_alone(project):
    assert genae("run", "tiny", cwd=project).returncode == 0
    drawn = (project / "reports/tiny/table/index.md").read_text()
    subprocess.run(["rm", "-r", "results/runs", "reports"], cwd=project, check=True)
    done = genae("report", "tiny", cwd=project)
    assert done.returncode == 0, done.stderr
    assert (project / "reports/tiny/table/index.md").read_text() == drawn


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "tinny"], "there is no experiment 'tinny'; did you mean 'tiny'?"),
        (["run", "tiny", "--rows", "wyde"], "it has no row 'wyde'; did you mean 'wide'?"),
        (["run", "tiny", "--scale", "huge"], "it has no scale 'huge'"),
        (["run", "tiny", "--seeds", "one"], "--seeds takes whole numbers separated by commas, not 'one'"),
        (["run", "tiny", "--rows", ""], "--rows takes names separated by commas, not ''"),
        (["run", "tiny", "model.latent_dims=3"], "latent_dim"),
        (["evaluate", "tiny", "--columns", "msee"], "unknown column 'msee'; did you mean 'mse'?"),
        (["data", "prepare", "mnistt", "--source", "."], "did you mean 'mnist'?"),
        (["weights", "fetch", "inception"], "unknown weights 'inception'; did you mean 'inception-2015'?"),
        (["check", "no_such_module"], "no_such_module"),
        (["check", "genae.latent"], "registers nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_message_with_the_choices_and_exit_status_2(project, arguments, message):
    done = genae(*arguments, cwd=project)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 25


def test_a_model_can_be_loaded_in_a_notebook(project):
    assert genae("run", "tiny", "--rows", "wide", cwd=project).returncode == 0
    code = """
import genae, torch
from pathlib import Path
run = next(Path("results/runs").glob("autoencoder-*"))
model = genae.load(run)
codes = model.encode(torch.zeros(2, 1, 8, 8))
assert codes.shape == (2, 4) and model.decode(codes).shape == (2, 1, 8, 8)
assert model.decode(model.sample_codes(3, torch.Generator().manual_seed(0))).shape == (3, 1, 8, 8)
assert not model.training
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
