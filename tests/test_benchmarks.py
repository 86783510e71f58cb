"""The benchmarks that `make bench` runs: each does so here with the least work, and prints a ratio on every line that has one.

What the ratios are is not asserted: with so little work they mean nothing.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def printed(repository: Path, tmp_path: Path, name: str, *options: str) -> list[str]:
    """The lines that benchmarks/`name`.py prints, from a process of its own, as `make bench` runs it."""
    done = subprocess.run(
        [sys.executable, repository / "benchmarks" / f"{name}.py", *options],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GENAE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_make_bench_runs_these(repository):
    run = re.findall(r"benchmarks/(\w+)\.py", (repository / "Makefile").read_text())
    assert (
        sorted(run)
        == ["frechet", "lde", "loader", "mmd", "parzen", "train_step"]
        == sorted(p.stem for p in (repository / "benchmarks").glob("*.py"))
    )


@pytest.mark.slow
def test_the_loader_is_timed_against_torchvisions_at_every_stage_of_growth(repository, tmp_path):
    lines = printed(repository, tmp_path, "loader", "--repeats", "1", "--seconds", "0.05", "--images", "64")
    ratios = dict(re.findall(r"^genae, (.+?) +[\d,]+ images/s +[\d.]+x  \(at least (\d+)x\)$", "\n".join(lines), re.MULTILINE))
    assert ratios == {"full resolution": "20", "half resolution": "5", "in a fade-in": "5"}


@pytest.mark.slow
def test_the_frechet_distance_is_timed_in_both_forms_for_many_and_for_few_samples(repository, tmp_path):
    lines = printed(repository, tmp_path, "frechet", "--repeats", "1", "--dims", "16")
    ratios = [line.strip() for line in lines if re.search(r" s \([\d.]+ to [\d.]+\) +[\d.]+x  apart \S+$", line)]
    for form in ("genae, as it measures", "genae, from mean and covariance"):
        assert sum(line.startswith(form) for line in ratios) == 2
    titles = [line for line in lines if line.endswith("vectors of 16")]
    assert [title.partition(":")[0] for title in titles] == ["full rank", "fewer samples than features"]


@pytest.mark.slow
def test_the_density_estimator_is_timed_against_its_convolutions_and_against_whole_passes(repository, tmp_path):
    sizes = ("--dim", "6", "--mixtures", "2", "--batch", "8", "--sampled-dim", "5", "--vectors", "3")
    lines = "\n".join(printed(repository, tmp_path, "lde", "--repeats", "1", *sizes))
    trained = re.findall(r"^  (\S.+?) +[\d,]+ samples/s +[\d.]+x +\d+% of the peak  apart (\S+)$", lines, re.MULTILINE)
    sampled = re.findall(r"^  (\S.+?) +[\d.]+ ms +[\d.]+x  apart (\S+), given (\S+)$", lines, re.MULTILINE)
    assert [name for name, _ in trained] == ["genae", "plain Conv1d"]
    assert [name for name, *_ in sampled] == ["genae", "whole passes, plain Conv1d", "whole passes, ours"]
    assert max(float(apart) for _, apart in trained) < 1e-4
    assert max(float(apart) for _, *both in sampled for apart in both) < 1e-5


@pytest.mark.slow
def test_mmd_is_timed_against_all_pairs_differences_with_equal_gradients(repository, tmp_path):
    lines = printed(repository, tmp_path, "mmd", "--repeats", "1", "--sizes", "8x4", "16x2")
    found = [re.match(r" *(\d+ codes of +\d+)  (.+?) +[\d.]+ ms +[\d.]+x  apart (\S+)$", line) for line in lines]
    ratios = [match.groups() for match in found if match]
    assert [size.replace("  ", "") for size, name, _ in ratios if name == "genae"] == ["8 codes of 4", "16 codes of 2"]
    assert [float(apart) < 1e-6 for *_, apart in ratios] == [True] * len(ratios)
    assert len(ratios) in (4, 6), "two rivals, and pythae where it is installed"


@pytest.mark.slow
def test_the_parzen_window_is_timed_against_the_broadcast_loop_with_equal_numbers(repository, tmp_path):
    options = ("--repeats", "1", "--samples", "64", "--dims", "16", "--points", "8", "--loop-points", "4")
    lines = printed(repository, tmp_path, "parzen", *options)
    found = [re.match(r"  (.+?) +[\d.]+ s +[\d.]+x  apart (\S+) nat$", line) for line in lines]
    apart = {match[1]: float(match[2]) for match in found if match}
    assert apart["genae"] == 0
    assert apart["broadcast loop"] < 1e-6


@pytest.mark.slow
def test_the_training_step_is_timed_against_its_convolutions(repository, tmp_path):
    lines = printed(repository, tmp_path, "train_step", "--repeats", "1", "--threads", "1", "--mixed-fakes", "direct")
    ratios = [line for line in lines if re.search(r" direct +1 +\d+\.\d\d +\d+\.\d\d  +[\d.]+( +MISSED)?$", line.rstrip())]
    assert len(ratios) == 4
