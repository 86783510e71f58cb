"""What holds for every registered figure, third-party ones included: on an autoencoder small enough to see through."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genae.conformance.names import registered
from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.figures.figure import Figure
from genae.latent import Gaussian
from genae.models.autoencoder import Autoencoder
from genae.registry import FIGURES
from genae.schedule import Growth

SIZE, DIM, LAYERS = 8, 4, 3


class Encoder(nn.Module):
    def forward(self, images: Tensor, growth: Growth | None) -> Tensor:
        return images[:, 0, ::4, ::4].flatten(1)  # [N, 4]


class Decoder(nn.Module):
    """Four pixels of a code, enlarged; layer k colours channel k."""

    num_layers = LAYERS
    layer_resolutions = (2, 4, SIZE)

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(LAYERS))

    def forward(self, codes: Tensor, growth: Growth | None) -> Tensor:
        if codes.ndim == 2:
            codes = codes[:, None].expand(-1, LAYERS, -1)
        planes = (codes * self.gain[:, None]).unflatten(2, (2, 2))  # [N, 3, 2, 2]
        return nn.functional.interpolate(planes, SIZE)


def split_of(name: str) -> Dataset:
    images = np.random.default_rng(len(name)).integers(0, 256, (24, 3, SIZE, SIZE), dtype=np.uint8)
    return Dataset("noise", name, images, name)


def draw(figure: Figure, **context: object) -> np.ndarray:
    model = Autoencoder(Gaussian(DIM), Encoder(), Decoder()).eval()
    before = copy.deepcopy(model.state_dict())
    with torch.inference_mode():
        picture = figure.draw(model, Splits(split_of), Context(**context))
    assert not model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return picture


@pytest.fixture(params=registered(FIGURES))
def figure(request) -> Figure:
    return FIGURES.build({"name": request.param, **FIGURES[request.param].small})


def test_a_figure_is_a_colour_picture_that_a_png_can_hold(figure):
    picture = draw(figure)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert 16 <= picture.shape[1] <= 1200


def test_the_same_context_draws_the_same_picture(figure):
    first, again = draw(figure), draw(figure)
    assert np.array_equal(first, again) if figure.repeatable else first.shape == again.shape


def test_a_figure_says_what_it_shows(figure):
    assert figure.caption.endswith(".")
    assert figure.caption_for(Autoencoder(Gaussian(DIM), Encoder(), Decoder())).endswith(".")
    assert figure.needs <= {"decode", "sample", "encode", "layers", "growth", "posterior", "density", "log_prob", "bound"}


def test_with_its_defaults_a_figure_is_no_wider_than_a_page(figure):
    assert draw(type(figure)()).shape[1] <= 1000
