"""No autoencoder at all: a vector is its own code, an image its pixels in a row.

With it a density is trained on the data themselves, as in Table 1 of Yoo et al. (2019).
"""

import math

from torch import Tensor, nn

from genae.latent import Free
from genae.models.autoencoder import Autoencoder
from genae.registry import MODELS
from genae.schedule import Growth


class _Reshape(nn.Module):
    """Rows of one shape to rows of another."""

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        super().__init__()
        self.before = before
        self.after = after

    def forward(self, rows: Tensor, growth: Growth | None = None) -> Tensor:
        if len(self.before) == 1 and growth is not None and growth != Growth(self.after[-1]):
            raise ValueError(f"the identity does not grow: it works at {self.after[-1]} pixels only, not at {growth}")
        return rows.reshape(-1, *self.after)


@MODELS.add("identity")
def identity(shape: tuple[int, ...]) -> Autoencoder:
    """Codes are what they are the codes of: vectors [N, D], or images [N, C, H, W] as [N, C H W]."""
    flat = (math.prod(shape),)
    return Autoencoder(Free(flat[0]), _Reshape(shape, flat), _Reshape(flat, shape))
