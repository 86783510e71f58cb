"""`layer-entanglement` on autoencoders of two images, whose only pairs are (0, 1) and (1, 0): L_j by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.latent import Gaussian
from genae.metrics.layer_entanglement import LayerEntanglement
from genae.models.autoencoder import Autoencoder

LAYERS = 3


class Encoder(nn.Module):
    def forward(self, images: Tensor, growth: object) -> Tensor:
        return images[:, 0, 0]  # the first row of pixels: [N, 3]


class Decoder(nn.Module):
    """Paints coordinate k of layer k's code in column k. Its canvas after layer j holds what the first j layers have heard.

    entangled: layer k hears all of its code, not only coordinate k.
    """

    num_layers, layer_resolutions = LAYERS, (3, 3, 3)

    def __init__(self, *, entangled: bool) -> None:
        super().__init__()
        self.entangled, self.anchor = entangled, nn.Parameter(torch.zeros(()))

    def forward(self, codes: Tensor, growth: object) -> Tensor:
        return layered(codes).diagonal(dim1=1, dim2=2)[:, None, None].expand(-1, 1, 3, 3)

    def canvas(self, codes: Tensor, upto: int, growth: object) -> Tensor:
        heard = layered(codes)[:, :upto]
        return heard if self.entangled else heard.diagonal(dim1=1, dim2=2)


def layered(codes: Tensor) -> Tensor:
    return codes[:, None].expand(-1, LAYERS, -1) if codes.ndim == 2 else codes


def model(*, entangled: bool) -> Autoencoder:
    return Autoencoder(Gaussian(3), Encoder(), Decoder(entangled=entangled)).eval()


def splits() -> Splits:
    images = np.zeros((2, 1, 3, 3), np.uint8)
    images[0, 0, :] = [0, 51, 255]  # -1, -0.6, 1
    images[1, 0, :] = [255, 204, 0]  # 1, 0.6, -1
    return Splits(lambda split: Dataset("two", split, images, "two"))


X, Y = np.array([-1, -0.6, 1]), np.array([1, 0.6, -1])


@torch.inference_mode()
def measured(of: Autoencoder, **context: object) -> dict[str, float]:
    return LayerEntanglement(num_pairs=8).measure(of, splits(), Context(**context))


def test_it_is_zero_for_layers_that_hear_only_what_they_paint():
    found = measured(model(entangled=False))
    assert [found[key] for key in ("layer-entanglement", "j1", "j2", "ceiling")] == pytest.approx([0] * 4, abs=1e-5)


def test_it_is_what_re_encoding_the_mix_changes_in_the_canvas():
    found = measured(model(entangled=True))
    expected = {}
    for j in (1, 2):
        mixed = np.concatenate([X[:j], Y[j:]])  # the picture of the mix, and so its code
        expected[f"j{j}"] = np.sqrt(np.mean((mixed - X) ** 2))  # each of the j layers has heard the same code
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-5)
    assert found["layer-entanglement"] == pytest.approx(np.mean(list(expected.values())), abs=1e-5)

    apart = np.sqrt(np.mean((X - Y) ** 2))
    assert found["chance"] == pytest.approx(apart, abs=1e-5)
    assert found["relative"] == pytest.approx(np.mean(list(expected.values())) / apart, abs=1e-5)
    assert found["ceiling"] == pytest.approx(0, abs=1e-5)


def test_an_untrained_decoder_is_measured_beside_it():
    found = measured(model(entangled=False), untrained=lambda: model(entangled=True))
    assert found["untrained"] == pytest.approx(measured(model(entangled=True))["layer-entanglement"])


def test_prior_codes_are_mixed_when_asked_for():
    metric = LayerEntanglement(num_pairs=8, codes="prior")
    with torch.inference_mode():
        found = metric.measure(model(entangled=False), splits(), Context())
    assert found["layer-entanglement"] == pytest.approx(0, abs=1e-5)
    assert metric.label("layer-entanglement") == "layer-entanglement (of prior codes)"
    assert "images" not in metric.protocol(splits(), Context())
