"""`genae evaluate` on rows that train nothing, against the packages whose numbers it must equal, over the same PNG files.

The published weights are not needed for that: both sides read one file of random ones.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from genae.conformance.random_weights import write_random_weights
from genae.metrics.frechet import gaussian_distance

COUNT = 12
MODULE = '''
"""Models that only show what they were given."""

import torch
from torch import nn

from genae.data.datasets import open_dataset
from genae.latent import Gaussian
from genae.models.autoencoder import Autoencoder, Generator
from genae.pixels import from_uint8
from genae.registry import MODELS


class Shown(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.anchor = function, nn.Parameter(torch.zeros(()))

    def forward(self, values, growth=None):
        return self.function(values)


class Album(Generator):
    def sample_codes(self, n, generator):
        return torch.arange(n)[:, None]


@MODELS.add("album")
def album(shape, *, pack: str):
    """The images of a pack, in order."""
    data = open_dataset({"name": "folder", "pack": pack, "resolution": shape[1]}, "train")
    images = from_uint8(torch.from_numpy(data.images.copy()))
    return Album(Gaussian(1), Shown(lambda codes: images[codes[:, 0]]))


@MODELS.add("negative")
def negative(shape):
    """Reconstructs every image as its negative."""
    size = shape[0] * shape[1] * shape[2]
    return Autoencoder(Gaussian(size), Shown(lambda images: images.flatten(1)), Shown(lambda codes: -codes.unflatten(1, shape)))
'''
EXPERIMENT = {
    "table": "proof/table",
    "imports": ["shown"],
    "shared": {"data": {"name": "folder", "pack": "real", "resolution": 64}},
    "rows": {
        "album": {"model": {"name": "album", "pack": "fake"}, "metrics": [{"name": "fid", "num_generated": COUNT}]},
        "negative": {"model": {"name": "negative"}, "metrics": [{"name": "lpips", "net": "alex"}]},
    },
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """PNG folders real/{train,test} and fake/{train,test}, packed; weights where genae, torch.hub and pytorch_fid look."""
    downloads = tmp_path / "torch" / "hub" / "checkpoints"
    for name in ("inception-2015", "alexnet"):
        write_random_weights(downloads, name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("GENAE_WEIGHTS", str(downloads))
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "shown.py").write_text(MODULE)
    (tmp_path / "proof.yaml").write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    for seed, folder in enumerate(("real/train", "real/test", "fake/train", "fake/test")):
        write_pngs(tmp_path / "pictures" / folder, seed)
    for pack in ("real", "fake"):
        genae(tmp_path, "data", "prepare", "folder", "--source", f"pictures/{pack}", "--name", pack, "--resolution", "64")
    return tmp_path


def write_pngs(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    coarse = torch.from_numpy(np.random.default_rng(seed).normal(128, 60, (COUNT, 3, 6, 6)))
    images = nn.functional.interpolate(coarse, 64, mode="bicubic").clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    for number, image in enumerate(images.numpy()):
        Image.fromarray(image).save(folder / f"{number:03}.png")


def genae(root: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "genae", *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def recorded(root: Path, row: str) -> dict:
    genae(root, "evaluate", "proof.yaml", "--rows", row)
    (record,) = map(json.loads, (root / "results/proof/table.jsonl").read_text().splitlines())
    return record


@pytest.mark.slow
def test_fid_is_that_of_pytorch_fids_own_command_over_the_pngs(project):
    statistics = []
    for pack in ("real", "fake"):
        command = [sys.executable, "-m", "pytorch_fid", "--device", "cpu", "--num-workers", "0", "--save-stats"]
        folder = project / "pictures" / pack / "train"
        subprocess.run([*command, str(folder), str(project / f"{pack}.npz")], check=True, capture_output=True, env=os.environ)
        with np.load(project / f"{pack}.npz") as saved:
            statistics.append((torch.from_numpy(saved["mu"]), torch.from_numpy(saved["sigma"])))
    (mean, covariance), _ = statistics
    assert covariance.diagonal().mean().sqrt() > 0.05 * mean.abs().mean()  # the random network does tell images apart

    record = recorded(project, "album")
    theirs = gaussian_distance(*statistics[0], *statistics[1])
    # Features are equal to 1e-5 of their deviation s between images, of which a distance of D s^2 is the sum over D features.
    assert record["value"] == pytest.approx(float(theirs), rel=1e-4)
    assert record["label"].startswith("fid-12 (unpublished weights ")
    assert record["protocol"]["weights"]["published"] is False


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated", "ignore:Arguments other than a weight enum")
def test_lpips_is_that_of_the_lpips_package_over_the_pngs(project):
    import lpips
    from torchvision.transforms.functional import to_tensor

    with torch.inference_mode():
        distance = lpips.LPIPS(net="alex", pretrained=True, verbose=False)
        images = (
            torch.stack([to_tensor(Image.open(path)) for path in sorted((project / "pictures/real/test").glob("*.png"))]) * 2
            - 1
        )
        theirs = distance(images, -images).flatten()
    assert theirs.std() > 0.01 * theirs.mean()  # the random network does tell images apart
    assert recorded(project, "negative")["value"] == pytest.approx(float(theirs.mean()), abs=1e-5 * float(theirs.std()))


def test_without_weights_the_cell_says_so_and_is_no_other_metric(project, monkeypatch):
    monkeypatch.setenv("GENAE_WEIGHTS", str(project / "none"))
    for row, name in (("album", "inception-2015"), ("negative", "alexnet")):
        assert f"needs weights: genae weights fetch {name}" in genae(project, "evaluate", "proof.yaml", "--rows", row)
    records = [json.loads(line) for line in (project / "results/proof/table.jsonl").read_text().splitlines()]
    assert [record["value"] for record in records] == [None, None]
    assert {record["missing_weights"] for record in records} == {"inception-2015", "alexnet"}
