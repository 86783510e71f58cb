"""The quickstart end to end, as a new user runs it, and whether its numbers mean anything."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from genae import checkpoint
from genae.context import Context
from genae.data.dataset import Splits
from genae.data.datasets import open_dataset
from genae.experiment import load
from genae.latent import Gaussian
from genae.models.autoencoder import Generator
from genae.registry import METRICS
from genae.rundir import RunDir
from genae.study import Folders, directories

pytestmark = pytest.mark.quickstart


@pytest.fixture(scope="module")
def quickstart(repository, tmp_path_factory):
    """The folder in which the quickstart has run, when its command began, and how long it took."""
    root = tmp_path_factory.mktemp("a clone") / "with a space"
    for path in tracked(repository, "setup.cfg", "experiments", "baselines", "results", "reports"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / path, root / path)
    began = time.time()
    done = command(root)
    assert done.returncode == 0, done.stdout + done.stderr
    return root, began, time.time() - began


def tracked(repository: Path, *places: str) -> list[str]:
    """What a clone would hold of these places."""
    listed = subprocess.run(["git", "ls-files", *places], cwd=repository, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def command(root: Path) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-m", "genae", "run", "experiments/quickstart.yaml", "--scale", "desk"]
    return subprocess.run(arguments, cwd=root, capture_output=True, text=True, check=False)


def records(root: Path) -> dict[tuple[str, str], dict]:
    lines = (root / "results" / "quickstart.jsonl").read_text().splitlines()
    return {(record["row"], record["column"]): record for record in map(json.loads, lines)}


def test_it_takes_at_most_five_minutes(quickstart):
    assert quickstart[2] < 300


def test_every_cell_has_a_number(quickstart):
    found = records(quickstart[0])
    assert len(found) == 3 * 4
    assert all(record["status"] == "ok" for record in found.values())


def test_every_checkpoint_was_written_after_the_command_began(quickstart):
    root, began, _ = quickstart
    experiment = load(root / "experiments" / "quickstart.yaml")
    for run in experiment.runs:
        (place,) = directories(run, Folders(root).runs)
        written = {checkpoint.read(path).digest for path in place.checkpoints.glob("*.pt") if path.stat().st_mtime > began}
        mine = [record for (row, _), record in records(root).items() if row == run.row]
        assert len(mine) == 4
        assert {record["checkpoint"] for record in mine} <= written
        assert all(record["time"] > began for record in mine)


def test_git_tracks_none_of_its_results(repository):
    for path in (
        "results/quickstart.jsonl",
        "results/quickstart/figures/x.png",
        "reports/quickstart/index.html",
        "results/runs/x",
    ):
        assert subprocess.run(["git", "check-ignore", "-q", path], cwd=repository, check=False).returncode == 0, path
    tracked = subprocess.run(
        ["git", "ls-files", "results", "reports"], cwd=repository, capture_output=True, text=True, check=True
    )
    assert not [line for line in tracked.stdout.splitlines() if "quickstart" in line or line.startswith("results/runs")]


def test_the_report_has_the_table_pictures_and_curves(quickstart):
    report = quickstart[0] / "reports" / "quickstart"
    page = (report / "index.html").read_text()
    for row in ("Automodulator", "VAE-AdaIn", "VAE-classic"):
        assert row in page
    assert page.count("data:image/png;base64,") >= 3 * 3  # reconstructions, samples, interpolation of each row
    assert "<svg" in page or "data:image/svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")  # nothing is fetched
    assert "28.84" in (report / "index.md").read_text()  # the paper's number beside ours
    assert {"table.csv", "table.tex"} <= {path.name for path in report.iterdir()}


def test_a_second_run_takes_seconds_and_trains_nothing(quickstart):
    root, _, _ = quickstart
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.pt")}
    began = time.monotonic()
    done = command(root)
    assert done.returncode == 0
    assert time.monotonic() - began < 10
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.pt")} == before


@pytest.mark.parametrize("row", ["automodulator", "vae-adain", "vae-classic"])
def test_reconstructions_are_closer_than_the_nearest_of_ten_centroids(quickstart, centroid_error, row):
    assert records(quickstart[0])[row, "l1"]["value"] < centroid_error


@pytest.mark.parametrize("row", ["automodulator", "vae-adain", "vae-classic"])
def test_samples_are_closer_to_the_data_than_a_gaussian_fitted_to_the_pixels(quickstart, gaussian_distance, row):
    assert records(quickstart[0])[row, "fid"]["value"] < gaussian_distance


def garments(split: str) -> np.ndarray:
    """[N, 256] in [-1, 1]."""
    images = open_dataset({"name": "fashion-mnist", "resolution": 16}, split).images
    return np.asarray(images).reshape(len(images), -1) / 127.5 - 1


@pytest.fixture(scope="module")
def centroid_error() -> float:
    """Mean absolute error of test images against the nearest of ten k-means centroids of the training images."""
    centroids, _ = kmeans2(garments("train"), 10, minit="++", seed=0)
    test = garments("test")
    distances = np.stack([np.abs(test - centroid).mean(1) for centroid in centroids])
    error = float(distances.min(0).mean())
    assert 0.14 < error < 0.18
    return error


@pytest.fixture(scope="module")
def gaussian_distance() -> float:
    """fd-efficientnet of draws from a full-covariance Gaussian fitted to the training pixels, by the quickstart's protocol."""
    train = torch.from_numpy(garments("train"))
    mean, root = train.mean(0), torch.linalg.cholesky(train.T.cov() + 1e-6 * torch.eye(256))

    class Pixels(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(()))

        def forward(self, codes, growth):
            return (mean + codes.double() @ root.T).float().reshape(-1, 1, 16, 16)

    metric = METRICS.build({"name": "fd-efficientnet", "num_generated": 5000})
    data = Splits(lambda split: open_dataset({"name": "fashion-mnist", "resolution": 16}, split))
    with torch.inference_mode():
        return metric.measure(Generator(Gaussian(256), Pixels()), data, Context())["fd-efficientnet"]


def test_the_model_can_be_loaded_and_asked(quickstart):
    import genae

    root, _, _ = quickstart
    (run, *_) = load(root / "experiments" / "quickstart.yaml").runs
    model = genae.load(RunDir.of(Folders(root).runs, run.label, run.identity).path)
    images = torch.zeros(2, 1, 16, 16)
    assert model.decode(model.encode(images)).shape == images.shape
