"""Scale `paper` is real: every distinct network, loss and resolution of the experiment files builds, and takes a training step.

Each in a process of its own, so that its memory is its own too: at most 12 GB at the batch that the test takes.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from genae.experiment import list_experiments, load, project_root
from genae.identity import canonical

ROOT = project_root(Path(__file__))
BATCH = {"glow": 1}  # else 2
GIGABYTES = 12

STEP = """
import json, resource, sys
import torch
from genae.experiment import import_modules
from genae.objectives.objective import Objective
from genae.registry import MODELS, OBJECTIVES
from genae.spec import RunSpec
from genae.training import Training

torch.set_num_threads(2)
values, batch = json.load(sys.stdin)
run = RunSpec.from_dict(values)
import_modules(run.imports, run.root)
torch.manual_seed(0)
stage = run.stages[-1]
resolution = stage.schedule.phases[-1].resolution
model = MODELS.build(run.model, (3, resolution, resolution)).to(memory_format=torch.channels_last)
training = Training(model, OBJECTIVES.build(stage.objective), stage, seed=0)
last = stage.schedule.phases[-1]
training.images_seen = stage.schedule.starts[-1] + round(500 * last.fade_kimg)  # half faded in, where it fades
phase = stage.schedule.at(training.images_seen)
images = (torch.rand(batch, 3, resolution, resolution) * 2 - 1).contiguous(memory_format=torch.channels_last)
before = {name: value.clone() for name, value in model.named_parameters()}
training.step(images, phase)
moved = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
terms = training.means()
print(json.dumps({"terms": terms, "moved": len(moved), "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}))
"""


def distinct() -> dict[str, dict]:
    """A run for each distinct network, objective and resolution of the papers' tables, by a name that tells them apart."""
    found, seen = {}, set()
    for name, path in sorted(list_experiments(ROOT).items()):
        if not name.startswith("automodulator-") or "/fig" in name:  # figures show runs of the tables
            continue
        for run in load(path, scale="paper").runs:
            if not run.stages:
                continue
            stage = run.stages[-1]
            key = canonical([run.model, stage.objective, stage.schedule.phases[-1].resolution])
            if key not in seen:
                seen.add(key)
                found[f"{name}/{run.row}-at-{stage.schedule.phases[-1].resolution}"] = run.to_dict()
    return found


CASES = distinct()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_row_of_the_paper_builds_and_takes_a_step_in_12_gigabytes(case):
    values = CASES[case]
    sent = json.dumps([values, BATCH.get(values["model"]["name"], 2)])
    done = subprocess.run([sys.executable, "-c", STEP], input=sent, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["moved"] > 0
    assert seen["terms"]
    assert all(abs(value) < float("inf") for value in seen["terms"].values())  # NaN fails too
    assert seen["gigabytes"] < GIGABYTES


def test_every_table_of_the_automodulator_papers_is_among_the_steps():
    assert {case.rpartition("/")[0] for case in CASES} >= {
        "automodulator-2019/table1",
        "automodulator-2020/table1",
        "automodulator-2020/table2a",
        "automodulator-2020/table2b",
        "automodulator-2020/invariance",
    }
