"""What the figures show, and where."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.figures.conditional_samples import ConditionalSamples
from genae.figures.grid import HEADER_LINE, LINE, grid
from genae.figures.interpolation import Interpolation
from genae.figures.reconstructions import Reconstructions
from genae.figures.samples import Samples
from genae.figures.style_mixing import StyleMixing
from genae.latent import Gaussian
from genae.models.autoencoder import Autoencoder

SIZE, CELL = 16, 64  # images of 16 pixels are shown four times as large


class Brightness(nn.Module):
    """Encodes an image as its mean, [N, 1]."""

    def forward(self, images: Tensor, growth: None) -> Tensor:
        return images.mean((1, 2, 3))[:, None]


class Stripes(nn.Module):
    """Four layers: layer k is the brightness of the k-th quarter, from the left."""

    num_layers = 4

    def forward(self, codes: Tensor, growth: None) -> Tensor:
        if codes.ndim == 2:
            codes = codes[:, None].expand(-1, 4, -1)
        columns = codes[:, :, 0].repeat_interleave(SIZE // 4, 1)  # [N, 16]
        return columns[:, None, None, :].expand(-1, 1, SIZE, -1)


MODEL = Autoencoder(Gaussian(1), Brightness(), Stripes())
LEVELS = np.arange(24, dtype=np.uint8) * 10  # image k is grey of level 10 k
DATA = Splits(lambda split: Dataset("greys", split, np.tile(LEVELS[:, None, None, None], (1, 1, SIZE, SIZE)), split))


def cell(picture: np.ndarray, top: int, left: int) -> list[int]:
    """The levels of a cell's four quarters, from the left; the cell is checked to be four plain stripes."""
    quarters = picture[top : top + CELL, left : left + CELL].reshape(CELL, 4, CELL // 4, 3)
    first = quarters[:1, :, :1, :1]
    assert (quarters == first).all()
    return first[0, :, 0, 0].tolist()


def test_reconstructions_stand_under_their_images_pair_by_pair():
    picture = Reconstructions(num_images=5, columns=3).draw(MODEL, DATA, Context())
    assert picture.shape == (4 * CELL + 2 * LINE + HEADER_LINE, 3 * CELL + 2 * LINE, 3)
    second = 2 * CELL + LINE + HEADER_LINE  # where the second pair of rows begins
    for top in (0, CELL + LINE):
        assert cell(picture, top, CELL + LINE) == [10] * 4
        assert cell(picture, second + top, CELL + LINE) == [40] * 4
        assert cell(picture, second + top, 2 * (CELL + LINE)) == [255] * 4  # there is no sixth
    assert (picture[:, CELL : CELL + LINE] == 255).all()


def test_style_mixing_takes_coarse_layers_from_the_row_and_the_rest_from_the_column():
    picture = StyleMixing(rows=2, columns=3, split=1).draw(MODEL, DATA, Context())
    starts = [0, CELL + HEADER_LINE, 2 * CELL + HEADER_LINE + LINE, 3 * CELL + HEADER_LINE + 2 * LINE]
    assert cell(picture, 0, 0) == [255] * 4
    for row in (0, 1):
        assert cell(picture, starts[1 + row], 0) == [10 * row] * 4
        for column in (0, 1, 2):
            other = 10 * (2 + column)
            assert cell(picture, 0, starts[1 + column]) == [other] * 4
            assert cell(picture, starts[1 + row], starts[1 + column]) == [10 * row, other, other, other]


def test_by_default_the_first_two_layers_are_the_coarse_ones():
    picture = StyleMixing(rows=1, columns=1).draw(MODEL, DATA, Context())
    assert cell(picture, CELL + HEADER_LINE, CELL + HEADER_LINE) == [0, 0, 10, 10]


def test_a_split_that_leaves_nothing_to_mix_is_refused():
    for split in (0, 4):
        with pytest.raises(ValueError, match=f"between 1 and 3.*it is {split}"):
            StyleMixing(split=split).draw(MODEL, DATA, Context())


def test_conditional_samples_keep_coarse_layers_and_share_the_drawn_ones_down_a_column():
    picture = ConditionalSamples(rows=2, columns=2, split=3).draw(MODEL, DATA, Context())
    lefts, tops = [CELL + HEADER_LINE, 2 * CELL + HEADER_LINE + LINE], [0, CELL + LINE]
    drawn = [cell(picture, 0, left)[3] for left in lefts]
    assert drawn[0] != drawn[1]
    for row, top in enumerate(tops):
        assert cell(picture, top, 0) == [10 * row] * 4
        assert [cell(picture, top, left) for left in lefts] == [[10 * row] * 3 + [level] for level in drawn]


def test_interpolation_has_the_four_images_at_its_corners_and_goes_evenly_between_them():
    picture = Interpolation(steps=3).draw(MODEL, DATA, Context())
    levels = [[cell(picture, row * (CELL + LINE), column * (CELL + LINE))[0] for column in range(3)] for row in range(3)]
    # codes of one dimension: their norms are interpolated linearly, and all directions agree (levels 0..30 are all negative)
    assert levels == [[0, 5, 10], [10, 15, 20], [20, 25, 30]]


def test_samples_are_another_draw_for_another_seed():
    first, again, other = (Samples(rows=2, columns=2).draw(MODEL, DATA, Context(seed=seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("size", "columns", "width"), [(8, 10, 640), (16, 10, 640), (32, 10, 640), (64, 10, 640), (256, 4, 1024)]
)
def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_left_alone(size, columns, width):
    picture = grid([[torch.zeros(3, size, size)] * columns])
    assert picture.shape == (width // columns, width + LINE * (columns - 1), 3)


def test_every_pixel_becomes_a_square_and_values_beyond_the_range_are_clipped():
    image = torch.tensor([[-1.0, 0.0], [7.0, -7.0]])[None]
    picture = grid([[image]])
    assert picture.shape == (64, 64, 3)
    assert (picture[:32, :32] == 0).all()
    assert (picture[:32, 32:] == 128).all()
    assert (picture[32:, :32] == 255).all()
    assert (picture[32:, 32:] == 0).all()


def test_more_images_than_the_split_has_are_refused():
    with pytest.raises(ValueError, match="shows 30 images; the test split of greys has 24"):
        Reconstructions(num_images=30).draw(MODEL, DATA, Context())
