"""The MMD of WAE, forward and backward: ours against pythae's own function on the same codes, on one thread.

    python benchmarks/mmd.py [--repeats 5] [--sizes 128x64 512x64 512x512]

pythae makes the differences of all pairs of codes, [N, N, D], anew for every scale of the kernel. A plain function that makes
them once stands beside it, and in its place where it is not installed. They take turns, after a warm-up of each; times are
medians of CPU seconds, so that a busy machine slows neither.
"""

import argparse
import os
import time
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, just below

import torch
from torch import Tensor

from genae.losses.divergences import mmd
from genae.objectives.wasserstein import Wasserstein

BAR = 20.0  # times as fast, 512 codes of 64
EQUAL = 1e-6  # gradients, relative to the largest, in float64
SCALES = Wasserstein().scales
Loss = Callable[[Tensor, Tensor], Tensor]  # codes [N, D], draws [N, D] -> scalar


def ours(codes: Tensor, draws: Tensor) -> Tensor:
    return mmd(codes, draws, [2 * codes.shape[1] * scale for scale in SCALES])


def from_differences(codes: Tensor, draws: Tensor) -> Tensor:
    """The same estimate from the differences of all pairs."""
    count, dims = codes.shape

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        distances = (a[:, None] - b).norm(dim=-1) ** 2  # of differences [N, N, D]
        return sum(2 * dims * scale / (2 * dims * scale + distances) for scale in SCALES)

    among = sum(
        (pairs.sum() - pairs.trace()) / (count * (count - 1)) for pairs in (similarity(codes, codes), similarity(draws, draws))
    )
    return among - 2 * similarity(codes, draws).mean()


def pythae() -> Loss | None:
    """WAE_MMD.loss_function as it is, without images; None where pythae is not installed."""
    try:
        from pythae.models import WAE_MMD
    except ModuleNotFoundError as error:
        print(f"pythae does not run here ({error}): ours against the plain function alone")
        return None

    def loss(codes: Tensor, draws: Tensor) -> Tensor:
        config = SimpleNamespace(latent_dim=codes.shape[1], kernel_bandwidth=1.0, reg_weight=1.0)
        peer = SimpleNamespace(model_config=config, scales=SCALES, kernel_choice="imq", reconstruction_loss_scale=1.0)
        peer.imq_kernel = lambda a, b: WAE_MMD.imq_kernel(peer, a, b)
        nothing = torch.zeros(len(codes), 1, dtype=codes.dtype)
        return WAE_MMD.loss_function(peer, nothing, nothing, codes, draws)[2]

    return loss


def gradient(loss: Loss, codes: Tensor, draws: Tensor) -> Tensor:
    codes = codes.clone().requires_grad_()
    loss(codes, draws).backward()
    return codes.grad


def seconds(loss: Loss, codes: Tensor, draws: Tensor) -> float:
    began = time.process_time()
    gradient(loss, codes, draws)
    return time.process_time() - began


def compare(rivals: dict[str, Loss], count: int, dims: int, repeats: int) -> None:
    """Print a line for each rival of the first: its time, how many times the first's it is, how far the gradients are apart."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(count, dims, generator=generator) * 0.7 + 0.2
    draws = torch.randn(count, dims, generator=generator)
    exact = {name: gradient(loss, codes.double(), draws.double()) for name, loss in rivals.items()}
    turns = [{name: seconds(loss, codes, draws) for name, loss in rivals.items()} for _ in range(repeats + 1)][1:]
    baseline = next(iter(rivals))
    for name in rivals:
        spent = median(turn[name] for turn in turns)
        ratio = spent / median(turn[baseline] for turn in turns)
        apart = ((exact[name] - exact[baseline]).abs().max() / exact[baseline].abs().max()).item()
        print(f"{count:4} codes of {dims:3}  {name:30} {1000 * spent:10.2f} ms  {ratio:7.1f}x  apart {apart:.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", default=["128x64", "512x64", "512x512"], help="codes x dimensions")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}; bar: {BAR:.0f}x at 512 codes of 64, gradients equal to {EQUAL:.0e}")
    rivals = {"genae": ours, "plain, from differences": from_differences}
    if peer := pythae():
        rivals["pythae, WAE_MMD.loss_function"] = peer
    for size in options.sizes:
        compare(rivals, *map(int, size.split("x")), options.repeats)


if __name__ == "__main__":
    main()
