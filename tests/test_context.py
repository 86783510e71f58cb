"""Evaluation draws: one seed means one set of codes, whatever device the model is on, and the model gets them on its own.

The meta device stands in for an accelerator: tensors there have a device and a shape, and no numbers.
"""

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.latent import Sphere
from genae.models.autoencoder import Autoencoder
from genae.randomness import generator_for
from genae.registry import FIGURES, METRICS

ACCELERATOR = torch.device("meta")
DRAWING = ["decode-seconds", "fd-efficientnet", "fd-mix-efficientnet", "ppl-efficientnet", "samples", "conditional-samples"]


class Reached(Exception):
    """The decoder was reached; the codes that it got are in `args`."""


class Means(nn.Module):
    """Encodes an image as the means of its channels, [N, 3]."""

    def forward(self, images: Tensor, growth: None) -> Tensor:
        return images.mean((2, 3))


class Stop(nn.Module):
    """A decoder of two layers that stops at the first call."""

    num_layers = 2
    layer_resolutions = (16, 32)

    def forward(self, codes: Tensor, growth: None) -> Tensor:
        raise Reached(codes)


def split_of(name: str) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    return Dataset("noise", name, images, hashlib.sha256(images.tobytes()).hexdigest())


@torch.inference_mode()
def codes_that_reach_the_decoder(name: str, context: Context) -> Tensor:
    registry, work = (METRICS, "measure") if name in METRICS.names() else (FIGURES, "draw")
    component = registry.build({"name": name, **registry[name].small})
    with pytest.raises(Reached) as reached:
        getattr(component, work)(Autoencoder(Sphere(3), Means(), Stop()).eval(), Splits(split_of), context)
    return reached.value.args[0]


@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
def test_draws_are_those_of_the_cpu_whatever_the_device(device):
    drawn = torch.randn(5, generator=Context(device=torch.device(device), seed=3).generator("samples"))
    expected = torch.randn(5, generator=generator_for("cpu", "evaluation", 3, "samples"))
    assert torch.equal(drawn, expected)


@pytest.mark.parametrize("name", DRAWING)
def test_drawn_codes_reach_the_decoder_on_the_contexts_device(name, monkeypatch, tmp_path):
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path))
    # the reference statistics, which come first, are numbers: they cannot be taken on the meta device
    monkeypatch.setattr("genae.metrics.fid.reference_statistics", lambda *arguments: None)
    there = codes_that_reach_the_decoder(name, Context(device=ACCELERATOR))
    here = codes_that_reach_the_decoder(name, Context())
    assert there.device == ACCELERATOR
    assert there.shape == here.shape
    assert there.dtype == here.dtype
