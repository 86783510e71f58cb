"""A pool of earlier generated images, some of which are shown in place of the newest (Shrivastava et al., 2017; CycleGAN).

It keeps the encoder from chasing the decoder's latest state. The released automodulator has one; its paper does not say so.
"""

from typing import Any

import torch
from torch import Tensor


class ImagePool:
    """Up to `size` images; once it is full, each new image takes the place of an older one, which is shown, with p = 0.5."""

    def __init__(self, size: int) -> None:
        self.reset(size)

    def reset(self, size: int) -> None:
        """Empty it, for `size` images from now on."""
        self.size = size
        self.images: Tensor | None = None  # [at most size, C, H, W]

    def swap(self, fakes: Tensor, generator: torch.Generator) -> Tensor:
        """The images to show, [N, C, H, W]: `fakes`, some exchanged for older ones. generator: on the CPU.

        Images that find room are shown and kept. Of the rest, each goes with p = 0.5 to a place of its own in the pool.
        """
        if not self.size:
            return fakes
        room = self.size if self.images is None else self.size - len(self.images)
        kept = fakes[:room]
        if self.images is None:
            self.images = kept.clone()
        elif len(kept):
            self.images = torch.cat([self.images, kept])
        if room >= len(fakes):
            return fakes
        late = room + torch.nonzero(torch.rand(len(fakes) - room, generator=generator) < 0.5).flatten()
        late = late[: self.size]
        places = torch.randperm(self.size, generator=generator)[: len(late)]
        late, places = _to_device(late, fakes.device), _to_device(places, fakes.device)
        shown = fakes.clone()
        shown[late] = self.images[places]
        self.images[places] = fakes[late]
        return shown

    def state_dict(self) -> dict[str, Any]:
        return {"size": self.size} | ({} if self.images is None else {"images": self.images})

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self.reset(state["size"])
        if "images" in state:
            # a copy: the pool is written in place, the state may be the caller's
            self.images = state["images"].to(device, copy=True)


def _to_device(indices: Tensor, device: torch.device) -> Tensor:
    """Indices drawn on the CPU, on `device`; a GPU is not waited for."""
    if device.type == "cuda":
        indices = indices.pin_memory()
    return indices.to(device, non_blocking=True)
