"""Averaged weights: an exponential moving average whose half-life is counted in images, as in Karras et al. (2018)."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genae.spec import Average


class AveragedParts:
    """The averaged copies of some parts of a model; evaluation uses these and the raw rest."""

    def __init__(self, model: nn.Module, settings: Average) -> None:
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
