"""The Frechet distance of 2,048-d statistics: ours against pytorch_fid's own function on the same arrays, on one thread.

    python benchmarks/frechet.py [--repeats 3] [--dims 2048]

The two take turns, after one warm-up of ours; times are CPU seconds, so that a busy machine slows neither, and medians. The
peer's matrix root runs in SciPy's BLAS (OpenBLAS; OPENBLAS_CORETYPE, which picks its kernels, is printed), ours in torch's.
SciPy 1.18 removes the call that pytorch_fid makes; there ours runs alone.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from statistics import median

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"  # read when numpy and torch are imported, just below

import numpy as np  # noqa: E402
import scipy  # noqa: E402
import torch  # noqa: E402

from genae.metrics.frechet import frechet_distance, gaussian_distance, statistics_of  # noqa: E402

BAR = 5.0  # times as fast, from mean and covariance of full rank
EQUAL = 1e-6  # relative


def features(count: int, dims: int, seed: int) -> np.ndarray:
    """Correlated features that are never negative, as those of a pooled ReLU, float64 [count, dims]."""
    mixing = np.random.default_rng(0).normal(size=(dims, dims)) * np.exp(-np.arange(dims) * 7 / dims)
    latent = np.random.default_rng(seed).normal(size=(count, dims))
    return np.maximum(0.02 * latent @ mixing.T + 0.3 + 0.01 * seed, 0)


def peer(*arrays: np.ndarray) -> float:
    """pytorch_fid.fid_score.calculate_frechet_distance, as it is, of two means and covariances."""
    from pytorch_fid.fid_score import calculate_frechet_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(calculate_frechet_distance(*arrays))


def timed(call: Callable[[], float]) -> tuple[float, float]:
    """(CPU seconds, result)."""
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def compare(title: str, rivals: dict[str, Callable[[], float]], repeats: int) -> None:
    """Print a line for each rival of the first: its time, how many times the first's it is, how far their results are apart."""
    baseline = next(iter(rivals))
    rivals[baseline]()
    turns = [{name: timed(call) for name, call in rivals.items()} for _ in range(repeats)]
    seconds = {name: median(turn[name][0] for turn in turns) for name in rivals}
    results = {name: turns[0][name][1] for name in rivals}
    print(title)
    for name in rivals:
        ratio, apart = seconds[name] / seconds[baseline], abs(results[name] - results[baseline]) / results[baseline]
        spread = f"{min(turn[name][0] for turn in turns):.3f} to {max(turn[name][0] for turn in turns):.3f}"
        print(f"  {name:<34} {seconds[name]:8.3f} s ({spread})  {ratio:7.1f}x  apart {apart:.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dims", type=int, default=2048)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    coretype = os.environ.get("OPENBLAS_CORETYPE", "not set")
    print(f"torch {torch.__version__}, scipy {scipy.__version__}, numpy {np.__version__}, OPENBLAS_CORETYPE {coretype}")
    print(f"bar: {BAR:.0f}x on full rank, equal to {EQUAL:.0e} relative")
    peer_runs = tuple(map(int, scipy.__version__.split(".")[:2])) < (1, 18)
    if not peer_runs:
        print("pytorch_fid's function does not run with this SciPy: ours alone")

    for title, count in (("full rank", 2 * arguments.dims + 1000), ("fewer samples than features", arguments.dims // 4)):
        a, b = (features(count, arguments.dims, seed) for seed in (1, 2))
        arrays = [array for x in (a, b) for array in (x.mean(0), np.cov(x, rowvar=False))]
        measured = [statistics_of([torch.from_numpy(x)]) for x in (a, b)]  # keeps the features where there are few
        rivals = {
            "genae, as it measures": lambda measured=measured: frechet_distance(*measured),
            "genae, from mean and covariance": lambda arrays=arrays: gaussian_distance(*map(torch.from_numpy, arrays)),
        }
        if peer_runs:
            rivals["pytorch_fid, from the same arrays"] = lambda arrays=arrays: peer(*arrays)
        compare(f"{title}: {count} vectors of {arguments.dims}", rivals, arguments.repeats)


if __name__ == "__main__":
    main()
