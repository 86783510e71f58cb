"""The latent density estimator against its own network in plain Conv1d: a training step, and sampling, on one thread.

    python benchmarks/lde.py [--repeats 15] [--dim 63] [--mixtures 30] [--batch 128] [--sampled-dim 64] [--vectors 100]

A training step is the loss, its gradient and Adam. Sampling is compared with what a network without memory must do: a whole
pass for every dimension. All take turns, after a warm-up; times are medians of CPU seconds, so that a busy machine slows
neither. The machine's peak is the fastest product of large square matrices, by torch.mm or by the convolutions that genae
writes products as; a network's share of it counts its own products, of which genae makes fewer.
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from functools import partial
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, just below

import torch
from torch import Tensor, nn

from genae.densities.latent_density_estimator import LatentDensityEstimator, Steps, product

TRAINING_BAR = 1.2  # times as many samples/s
SAMPLING_BAR = 30.0  # times as fast
SQUARE = 1536


class Plain(nn.Module):
    """The network as released: convolutions over the zeros and the vector, two channels, every position of every row."""

    def __init__(self, ours: LatentDensityEstimator) -> None:
        super().__init__()
        self.dim, self.min_sigma, layers = ours.dim, ours.min_sigma, []
        for layer in ours.layers:
            after, before = layer.past.weight.shape
            conv = nn.Conv1d(before, after, 2, dilation=layer.dilation)
            conv.weight.data = torch.stack([layer.past.weight.data, layer.present.weight.data], 2)
            conv.bias.data = layer.present.bias.data.clone()
            norm = nn.BatchNorm1d(after)
            norm.load_state_dict(layer.norm.state_dict())
            layers += [conv, norm, nn.LeakyReLU(0.2)]
        head = nn.Conv1d(ours.head.in_features, ours.head.out_features, 1)
        head.weight.data, head.bias.data = ours.head.weight.data[:, :, None].clone(), ours.head.bias.data.clone()
        self.network = nn.Sequential(*layers, head)
        self.train(ours.training)

    def parameters_given(self, vectors: Tensor) -> Tensor:
        zeros = vectors.new_zeros(len(vectors), 2, 2 ** math.ceil(math.log2(self.dim)))
        seen = torch.stack([vectors[:, :-1], torch.ones_like(vectors[:, :-1])], 1)
        return self.network(torch.cat([zeros, seen], 2)).permute(2, 0, 1)  # [D, N, 3K]

    def log_prob(self, vectors: Tensor) -> Tensor:
        mean, log_sigma, logits = self.parameters_given(vectors).chunk(3, 2)
        log_sigma = torch.logaddexp(log_sigma, torch.tensor(math.log(self.min_sigma)))
        deviation = (vectors.T[..., None] - mean) * (-log_sigma).exp()
        log_density = -deviation.square() / 2 - log_sigma - math.log(2 * math.pi) / 2
        return ((logits.log_softmax(2) + log_density).logsumexp(2)).sum(0)


def products_of_plain(ours: LatentDensityEstimator) -> int:
    """Multiplications and additions of a vector's training step: forward, and twice that backward."""
    length, total = ours.dim - 1 + 2 ** math.ceil(math.log2(ours.dim)), ours.dim * ours.head.weight.numel()
    for layer in ours.layers:
        length -= layer.dilation
        total += length * 2 * layer.past.weight.numel()
    return 3 * 2 * total


def products_of_ours(ours: LatentDensityEstimator) -> int:
    """The same with one front for all vectors: D - 1 positions a layer, the first `dilation` with the front for past."""
    length, total = ours.dim - 1, (ours.dim - 1) * ours.head.weight.numel()
    for layer in ours.layers:
        total += (length + max(length - layer.dilation, 0)) * layer.past.weight.numel()
    return 3 * 2 * total


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def in_turns(rivals: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    turns = [{name: seconds(work) for name, work in rivals.items()} for _ in range(repeats + 1)][1:]
    return {name: median(turn[name] for turn in turns) for name in rivals}


def train(dim: int, mixtures: int, batch: int, repeats: int) -> None:
    torch.manual_seed(0)
    ours = LatentDensityEstimator(dim, mixtures=mixtures).train()
    plain = Plain(ours)
    vectors, square = torch.randn(batch, dim), torch.randn(1, SQUARE, SQUARE)

    def step(network: nn.Module) -> Callable[[], float]:
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)

        def once() -> float:
            loss = -network.log_prob(vectors).mean() / dim
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.item()

        return once

    steps = {"genae": step(ours), "plain Conv1d": step(plain)}
    apart = max(abs(steps["genae"]() - steps["plain Conv1d"]()) for _ in range(3))
    peaks = {"torch.mm": lambda: square[0] @ square[0], "1x1 convolutions": lambda: product(square, square[0])}
    spent = in_turns(steps | peaks, repeats)
    rates = {name: 2 * SQUARE**3 / spent[name] for name in peaks}
    made = {"genae": products_of_ours(ours), "plain Conv1d": products_of_plain(ours)}
    count = sum(p.numel() for p in ours.parameters())
    print(f"training: {dim} dimensions, {mixtures} mixtures, batch {batch}, {count:,} parameters")
    print("  matrix products: " + ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items()))
    for name in steps:
        ratio, share = spent["plain Conv1d"] / spent[name], made[name] * batch / spent[name] / max(rates.values())
        print(
            f"  {name:14} {batch / spent[name]:8.0f} samples/s {ratio:7.2f}x  {share:4.0%} of the peak  apart {apart:.1e}",
            flush=True,
        )


@torch.no_grad()
def sample(dim: int, mixtures: int, count: int, repeats: int) -> None:
    torch.manual_seed(0)
    ours = LatentDensityEstimator(dim, mixtures=mixtures).train()
    for _ in range(30):
        ours.log_prob(torch.randn(128, dim))  # so that BatchNorm's running statistics are those of its inputs
    ours.eval()
    plain = Plain(ours)
    choices, noise = torch.rand(count, dim), torch.randn(count, dim)

    def by_whole_passes(network: nn.Module) -> Tensor:
        """Whole passes over what is drawn so far, zeros after it: the same components and noise as `_draw`."""
        drawn = torch.zeros(count, dim)
        for index in range(dim):
            mean, log_sigma, logits = network.parameters_given(drawn)[index].chunk(3, 1)
            below = logits.softmax(1).cumsum(1) < choices[:, index, None]
            component = below.sum(1, keepdim=True).clamp(max=mixtures - 1)
            sigma = log_sigma.gather(1, component)[:, 0].exp() + ours.min_sigma
            drawn[:, index] = mean.gather(1, component)[:, 0] + sigma * noise[:, index]
        return drawn

    def by_steps() -> Tensor:
        return ours._draw(choices, noise)

    drawn, steps = by_steps(), Steps(ours, count)
    apart = (drawn - by_whole_passes(plain)).abs().max().item()
    forced = torch.stack([steps.next(drawn[:, index - 1] if index else None) for index in range(dim)])
    off = (forced - plain.parameters_given(drawn)).abs().max().item()
    fast = in_turns({"genae": by_steps}, repeats)
    networks = {"whole passes, plain Conv1d": plain, "whole passes, ours": ours}
    spent = fast | in_turns({name: partial(by_whole_passes, network) for name, network in networks.items()}, min(repeats, 3))
    print(f"sampling: {count} vectors of {dim} dimensions, {mixtures} mixtures")
    for name, value in spent.items():
        print(
            f"  {name:28} {1000 * value:9.1f} ms  {value / spent['genae']:7.1f}x  apart {apart:.1e}, given {off:.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, value in (("repeats", 15), ("dim", 63), ("mixtures", 30), ("batch", 128), ("sampled-dim", 64), ("vectors", 100)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}; bars: training {TRAINING_BAR}x, sampling {SAMPLING_BAR:.0f}x, equal to 1e-4 and 1e-5")
    train(options.dim, options.mixtures, options.batch, options.repeats)
    sample(options.sampled_dim, options.mixtures, options.vectors, options.repeats)


if __name__ == "__main__":
    main()
