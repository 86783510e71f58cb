"""Identities that must not change by accident: whatever changes one orphans results that were paid for.

A new setting is declared with `added=` at the value that repeats what was before; a change of meaning raises `revision=`, and
then the identities below change with it, in the same commit.
"""

import json
import subprocess

from genae.experiment import load

# Of the file itself (scale paper), whose settings are published ones.
PUBLISHED = {"automodulator": "49897bc9746f", "vae-adain": "c14b29998c3c", "vae-classic": "20b44bf5f3c0"}
BASELINE = "2dce9f343f21"  # faces drawn anew: synthetic-faces, revision 3


def test_the_identities_of_published_settings_are_pinned(repository):
    runs = load(repository / "experiments" / "quickstart.yaml", scale="paper").runs
    assert {run.row: run.identity[:12] for run in runs} == PUBLISHED


def test_the_identity_of_an_outside_baseline_is_pinned(repository):
    (run,) = load(repository / "experiments" / "baselines" / "swae.yaml").runs
    assert run.identity[:12] == BASELINE


def test_every_committed_record_belongs_to_a_run_of_its_experiment(repository):
    tracked = subprocess.run(["git", "ls-files", "results/*.jsonl"], cwd=repository, capture_output=True, text=True, check=True)
    for path in (repository / name for name in tracked.stdout.splitlines()):
        if path.name == "curve.jsonl":
            continue
        table = path.relative_to(repository / "results").with_suffix("").as_posix()
        records = [json.loads(line) for line in path.read_text().splitlines()]
        scales = {record["scale"] for record in records}
        of_scale = {scale: load(repository / "experiments" / f"{table}.yaml", scale=scale).runs for scale in scales}
        for record in records:
            assert record["identity"] in {run.identity for run in of_scale[record["scale"]]}, f"{path}: {record['row']}"
