"""The factor regressor: a small convolutional network that reads the known factors of a picture from its pixels.

The factor-* metrics look at mixes and samples through it. Its recipe is this file: it is trained when first asked for, on the
training split with that split's own factors, at the data's resolution, and kept in the cache. Most training pictures are
blurred and noisy, because what a small decoder makes is: a regressor of sharp pictures only misreads poses that anyone sees.

It is trained on one thread of the CPU, whatever the evaluation runs on, so the same data give the same regressor.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.cache import cached_file
from genae.data.dataset import Dataset, Factor
from genae.pixels import from_uint8
from genae.randomness import generator_for, seed_for

REVISION = 2  # raised when the same data come to give another regressor

LARGEST = 64  # pixels: larger pictures are averaged down to this
WIDTH, HIDDEN = 32, 256
EPOCHS, BATCH_SIZE = 6, 100
LEARNING_RATE, WEIGHT_DECAY = 4e-3, 1e-2
SHARP_SHARE, BLURS = 0.25, 6
NOISE = 0.3  # largest standard deviation of what is added, pixels being in [-1, 1]

Readings = dict[str, Tensor]  # by factor: float [N] in its own units, or int64 [N], the index of a choice


class FactorRegressor(nn.Module):
    """Images [N, C, R, R] in [-1, 1] -> [N, O]: a number for each continuous factor, a logit for each choice of the others.

    A continuous factor is spoken of in standard deviations of a uniform one about the middle of its range.
    """

    def __init__(self, factors: tuple[Factor, ...], shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.factors = factors
        self.widths = [len(factor.choices) or 1 for factor in factors]
        channels, size = shape[0], min(shape[-1], LARGEST)
        layers, width = [*_convolution(channels, WIDTH)], WIDTH
        while size > 4:
            layers += _convolution(width, min(2 * width, 4 * WIDTH), stride=2)
            width, size = min(2 * width, 4 * WIDTH), (size + 1) // 2
        head = [nn.Flatten(), nn.Linear(width * size**2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, sum(self.widths))]
        self.network = nn.Sequential(*layers, *head)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] > LARGEST:
            images = F.adaptive_avg_pool2d(images, LARGEST)
        return self.network(images)

    def loss(self, images: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Summed over factors: cross-entropy, or the squared error in standard deviations."""
        terms = []
        for factor, output in zip(self.factors, self(images).split(self.widths, 1), strict=True):
            target = targets[factor.name]
            if factor.choices:
                terms.append(F.cross_entropy(output, target.long()))
            else:
                middle, deviation = _units(factor)
                terms.append(F.mse_loss(output[:, 0], (target.float() - middle) / deviation))
        return torch.stack(terms).sum()

    def read(self, images: Iterable[Tensor]) -> Readings:
        """The factors of batches of images, on the CPU."""
        outputs = torch.cat([self(batch).float().cpu() for batch in images])
        readings = {}
        for factor, output in zip(self.factors, outputs.split(self.widths, 1), strict=True):
            if factor.choices:
                readings[factor.name] = output.argmax(1)
            else:
                middle, deviation = _units(factor)
                readings[factor.name] = output[:, 0] * deviation + middle
        return readings


def factor_regressor(train: Dataset, device: torch.device | str = "cpu") -> FactorRegressor:
    """The regressor of a training split, in eval mode: trained now, or as the cache has it."""
    path = cached_file("factor-regressor", recipe(train), lambda path: _write(path, train), suffix=".pt")
    with torch.device("meta"):  # no weights are drawn
        regressor = FactorRegressor(train.described_factors, train.shape)
    regressor.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    return regressor.to(device).eval().requires_grad_(False)


def recipe(train: Dataset) -> dict[str, str | int]:
    """What decides the regressor of a training split: plain values, for a cache's key and a record's protocol."""
    hashed = hashlib.sha256(repr(train.described_factors).encode())
    for factor in train.described_factors:
        hashed.update(np.ascontiguousarray(train.factors[factor.name]).tobytes())
    return {"revision": REVISION, "images": train.digest, "factors": hashed.hexdigest(), "epochs": EPOCHS}


def readback(factor: Factor, reading: Tensor, truth: Tensor) -> float:
    """How well readings [N] give the true values [N]: accuracy of a choice, R2 of a number (0 where all are the same)."""
    if factor.choices:
        return (reading == truth).double().mean().item()
    spread = truth.double().var(correction=0)
    return (1 - (reading - truth).double().square().mean() / spread).item() if spread > 0 else 0.0


def truth_of(dataset: Dataset) -> Readings:
    """The true factors of a data set, as a perfect regressor would read them."""
    return {
        factor.name: torch.tensor(
            np.asarray(dataset.factors[factor.name]), dtype=torch.int64 if factor.choices else torch.float32
        )
        for factor in dataset.described_factors
    }


def _write(path: Path, train: Dataset) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for("factor regressor", REVISION))
            regressor = _trained(train)
    finally:
        torch.set_num_threads(threads)
    torch.save(regressor.state_dict(), path)


def _trained(train: Dataset) -> FactorRegressor:
    """Adam with decoupled weight decay, its rate rising and falling once, over all images EPOCHS times."""
    regressor = FactorRegressor(train.described_factors, train.shape).to(memory_format=torch.channels_last).train()
    truth = truth_of(train)
    optimizer = torch.optim.AdamW(regressor.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    batches = -(-len(train) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=max(2, EPOCHS * batches))
    for epoch in range(EPOCHS):
        generator = generator_for("cpu", "factor regressor", REVISION, epoch)
        for rows in torch.randperm(len(train), generator=generator).split(BATCH_SIZE):
            images = from_uint8(torch.from_numpy(train.images[rows.numpy()]))
            images = _worn(images, generator).contiguous(memory_format=torch.channels_last)
            loss = regressor.loss(images, {name: values[rows] for name, values in truth.items()})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return regressor.eval()


def _worn(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images blurred BLURS times, each to its own degree, with noise of its own strength; a share of them as they are."""
    worn = images
    for _ in range(BLURS):
        worn = torch.lerp(worn, _blurred(worn), torch.rand(len(images), 1, 1, 1, generator=generator))
    strength = NOISE * torch.rand(len(images), 1, 1, 1, generator=generator)
    worn = worn + strength * torch.randn(images.shape, generator=generator)
    return torch.where(torch.rand(len(images), 1, 1, 1, generator=generator) < SHARP_SHARE, images, worn)


def _blurred(images: Tensor) -> Tensor:
    """By the 3x3 binomial filter, edges repeated."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
    return (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 4


def _convolution(channels: int, width: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def _units(factor: Factor) -> tuple[float, float]:
    """(the middle of a continuous factor's range, the standard deviation of a uniform one)."""
    return (factor.low + factor.high) / 2, (factor.high - factor.low) / 12**0.5
