"""Arithmetic under `precision: bfloat16`: what needs more digits than the network's products do."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x` itself if it is float32 or float64, else as float32.

    Autocast leaves sums and differences in the type that a convolution gave them, and bfloat16 has eight bits: too few for the
    logarithm of a variance, a difference of nearly equal canvases or the mean of a feature map.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
