"""THE CONTRACT of objectives: the updates that one training step takes, and the loss terms that each lowers.

A registered objective is a keyword-only dataclass. What the user tunes is a field; what training changes (a loss's own
parameters, an image pool) is in `state_dict`. An objective of one update writes only `terms`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genae.densities.density import Density
from genae.models.autoencoder import Generator
from genae.schedule import Phase

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Update:
    """One optimiser's part of a step.

    parameters: what it moves, a list or named groups (a phase's learning_rate may name them).
    terms: (model, images, phase, generator) -> {name: weighted scalar}; the trainer calls it after the update before it has
    stepped, and lowers the sum. Everything else is frozen meanwhile, so gradients reach exactly `parameters`.

    One that is listed several times is taken several times in a step, by one optimiser; its terms are logged as their mean.
    """

    name: str
    parameters: list[nn.Parameter] | dict[str, list[nn.Parameter]]
    terms: Callable[[Generator | Density, Tensor, Phase, torch.Generator], Terms]


@dataclass(kw_only=True)
class Objective:
    """What a stage trains for. One that trains a density has it for `model`, and codes [N, D] for `images`.

    needs: what the model must provide (see models/autoencoder.py).
    later_groups: parameter groups that appear only once training has begun, which a learning_rate may name all the same.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"encode"})
    later_groups: ClassVar[frozenset[str]] = frozenset()

    def updates(self, model: Generator | Density) -> list[Update]:
        """The updates of a step, in the order in which they are taken.

        Called before training, and again after `enter` and `load_state_dict`: those may replace the objective's own parameters.
        The trainer keeps an optimiser's state of every parameter that is still the same one.
        """
        groups = {name: list(part.parameters()) for name, part in model.named_children()}
        groups["own"] = list(model.parameters(recurse=False))
        return [Update("all", {name: part for name, part in groups.items() if part}, self.terms)]

    def terms(self, model: Generator, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        """The weighted loss terms of a batch: images [N, C, H, W] in [-1, 1] at the phase's growth."""
        raise NotImplementedError(f"{type(self).__name__} must define terms() or updates()")

    def enter(self, phase: Phase) -> None:
        """Called once when a phase begins, the first included, after `updates`; part of that step for resume."""

    def state_dict(self) -> dict[str, Any]:
        """What training changes: named tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state that `state_dict` gave, after `updates` (and with no `enter` for the phase it was saved in)."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but was given: {', '.join(state)}")
