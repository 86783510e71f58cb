"""What a measurement or a picture may depend on besides the model and the data."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from genae.randomness import generator_for


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where and with which draws to evaluate.

    seed: of the evaluation's own draws. It is part of the protocol, and the same for every training seed: a table's seeds
    vary training only.
    untrained: makes the model again as it was before training, where that is known: what a score is held against.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int = 100
    seed: int = 0
    untrained: Callable[[], Any] | None = None

    def generator(self, purpose: str) -> torch.Generator:
        """A fresh generator for one purpose ("samples", "pairs"): the same draws whatever else was measured before.

        It is on the CPU whatever `device` is, so that a seed means the same codes everywhere; move what is drawn.
        """
        return generator_for("cpu", "evaluation", self.seed, purpose)


def resolve_device(name: str) -> torch.device:
    """A device by name; `auto` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """One call, on the clock; a GPU is waited for at both ends."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
