"""Averaged weights: an exponential moving average whose half-life is counted in images, as in Karras et al. (2018)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class AverageSettings:
    """`average:` in YAML. Give one of the two lengths.

    parts: which of the model's parts are averaged; evaluation uses these and the raw rest.
    half_life_kimg: thousands of images after which an old weight counts half.
    decay_per_step: the released automodulator's form (0.999), which does not know the batch size.
    """

    parts: tuple[str, ...] = ("decoder",)
    half_life_kimg: float | None = None
    decay_per_step: float | None = None

    def __post_init__(self) -> None:
        if (self.half_life_kimg is None) == (self.decay_per_step is None):
            raise ValueError("average needs either half_life_kimg or decay_per_step")
        if self.half_life_kimg is not None and self.half_life_kimg <= 0:
            raise ValueError(f"half_life_kimg must be positive, not {self.half_life_kimg}")
        if self.decay_per_step is not None and not 0 <= self.decay_per_step < 1:
            raise ValueError(f"decay_per_step must be in [0, 1), not {self.decay_per_step}")

    def decay(self, batch_size: int) -> float:
        """The weight that the old average keeps in one step of `batch_size` images."""
        if self.decay_per_step is not None:
            return self.decay_per_step
        return 0.5 ** (batch_size / (1000 * self.half_life_kimg))


class Average:
    """The averaged copies of some parts of a model."""

    def __init__(self, model: nn.Module, settings: AverageSettings) -> None:
        children = dict(model.named_children())
        for name in settings.parts:
            if name not in children:
                raise ValueError(f"average names the part {name!r}; the model has: {', '.join(children)}")
        self.settings = settings
        self.parts = {name: copy.deepcopy(children[name]).requires_grad_(False) for name in settings.parts}
        raw = [children[name] for name in settings.parts]
        self._averaged = _parameters(list(self.parts.values()))
        self._raw = _parameters(raw)
        self._buffers = list(zip(_buffers(list(self.parts.values())), _buffers(raw), strict=True))

    @torch.no_grad()
    def update(self, batch_size: int) -> None:
        """After a step of `batch_size` images. Buffers (statistics, spectral norm vectors) are taken over as they are."""
        torch._foreach_lerp_(self._averaged, self._raw, 1 - self.settings.decay(batch_size))
        for averaged, raw in self._buffers:
            averaged.copy_(raw)

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def _parameters(parts: Sequence[nn.Module]) -> list[Tensor]:
    return [parameter for part in parts for parameter in part.parameters()]


def _buffers(parts: Sequence[nn.Module]) -> list[Tensor]:
    return [buffer for part in parts for buffer in part.buffers()]
