"""Every command of docs/slurm.md, typed one after another in one shell."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slurm


def shorten(path: Path) -> None:
    """Few images, for training and measuring."""
    text = yaml.safe_load(path.read_text())
    desk = text["scales"]["desk"]
    for row in desk["rows"].values():
        row["stages"]["autoencoder"]["schedule"]["total_kimg"] = 0.1
    desk["shared"]["data"]["count"] = 100
    desk["shared"]["columns"]["fid"]["metric"]["num_generated"] = 100
    desk["shared"]["columns"]["ppl"]["metric"]["num_pairs"] = 20
    path.write_text(yaml.safe_dump(text, sort_keys=False))


def test_the_tutorial_does_what_it_says(repository, tmp_path, cluster_of_the_tutorial):
    page = (repository / "docs" / "slurm.md").read_text()
    [described] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    commands = "".join(re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert commands.count("genae launch") > 5
    for name in ("experiments", "baselines", "setup.cfg", "Makefile"):
        copied = shutil.copytree if (repository / name).is_dir() else shutil.copy
        copied(repository / name, tmp_path / name)
    (tmp_path / "tests").mkdir()
    shutil.copy(repository / "tests" / "slurm_cluster.py", tmp_path / "tests")
    shorten(tmp_path / "experiments" / "quickstart.yaml")
    mine = tmp_path / "config" / "genae" / "clusters" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text(described)

    cluster_of_the_tutorial.stop()  # it was up to be sure that it is stopped in the end
    folder = cluster_of_the_tutorial.folder
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SLURM_FOLDER": str(folder), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    done = subprocess.run(
        ["bash", "-e", "-x", "-c", commands.replace("/tmp/genae-slurm", str(folder))],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("submitted 3 runs to slurm") >= 2, done.stdout
    assert (tmp_path / "reports" / "quickstart" / "index.html").exists()
    assert not cluster_of_the_tutorial.is_up()
