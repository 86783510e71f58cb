"""What the figures show, and where."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.figures.conditional_samples import ConditionalSamples
from genae.figures.enforced_identity import EnforcedIdentity
from genae.figures.grid import HEADER_LINE, LINE, grid
from genae.figures.interpolation import Interpolation, InterpolationRows
from genae.figures.latent_scatter import LatentScatter, scatter
from genae.figures.reconstructions import Reconstructions
from genae.figures.samples import Samples
from genae.figures.style_mixing import StyleMixing
from genae.latent import Free, Gaussian
from genae.models.autoencoder import Autoencoder
from genae.models.bands import band, bands

SIZE, CELL = 16, 64  # images of 16 pixels are shown four times as large


class Brightness(nn.Module):
    """Encodes an image as its mean, [N, 1]."""

    def forward(self, images: Tensor, growth: None) -> Tensor:
        return images.mean((1, 2, 3))[:, None]


class Stripes(nn.Module):
    """Four layers: layer k is the brightness of the k-th quarter, from the left."""

    num_layers = 4
    layer_resolutions = (4, 8, 8, 16)

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


def test_style_mixing_takes_the_rows_layers_from_the_left_and_the_rest_from_above():
    picture = StyleMixing(rows=2, columns=3, layers=(2, 3)).draw(MODEL, DATA, Context())
    starts = [0, CELL + HEADER_LINE, 2 * CELL + HEADER_LINE + LINE, 3 * CELL + HEADER_LINE + 2 * LINE]
    assert picture.shape == (starts[2] + CELL, starts[3] + CELL, 3)
    assert cell(picture, 0, 0) == [255] * 4
    for row in (0, 1):
        assert cell(picture, starts[1 + row], 0) == [10 * row] * 4
        for column in (0, 1, 2):
            other = 10 * (2 + column)
            assert cell(picture, 0, starts[1 + column]) == [other] * 4
            assert cell(picture, starts[1 + row], starts[1 + column]) == [other, 10 * row, 10 * row, other]


def test_by_default_every_band_is_mixed_in_turn_with_the_same_images():
    """Four layers at 4, 8, 8 and 16 pixels: the first is coarse, the next two are middle ones, the last is fine."""
    figure = StyleMixing(rows=2, columns=1)
    picture = figure.draw(MODEL, DATA, Context())
    tops = [CELL + HEADER_LINE + band * (2 * CELL + LINE + HEADER_LINE) for band in range(3)]
    for top, of_row in zip(tops, ((0,), (1, 2), (3,)), strict=True):
        for row in (0, 1):
            expected = [10 * row if layer in of_row else 20 for layer in range(4)]
            assert cell(picture, top + row * (CELL + LINE), CELL + HEADER_LINE) == expected
    assert figure.caption_for(MODEL) == (
        "Style mixing of test images: coarse layers (4x4), then middle layers (8x8), then fine layers (16x16) from the image "
        "at the left, the others from the image above. Not chosen."
    )


def test_the_papers_names_of_layers_go_by_resolution():
    """Sec. 4.2 of the 2020 paper: coarse 4x4 - 8x8, intermediate 16x16 - 32x32, fine 64x64 - 256x256."""
    at_256 = (4, 8, 16, 32, 64, 128, 256)
    found = {name: (each.first, each.last) for name, each in bands(at_256).items()}
    assert found == {"coarse": (1, 2), "intermediate": (3, 4), "fine": (5, 7)}
    with_extra_layer = bands((4, 8, 8, 16, 32, 64))
    assert [(each.first, each.last) for each in with_extra_layer.values()] == [(1, 3), (4, 5), (6, 6)]
    assert band(at_256, "intermediate").words == "intermediate layers (16x16 to 32x32)"
    assert band(at_256, (1, 2)).words == "layers 1 to 2 (4x4 to 8x8)"
    assert band(at_256, (3, 3)).words == "layer 3 (16x16)"


@given(first=st.integers(0, 4), blocks=st.integers(2, 8), repeats=st.integers(0, 2))
def test_bands_are_every_layer_once_and_in_order(first, blocks, repeats):
    resolutions = sorted([4 << (first + block) for block in range(blocks)] + [4 << (first + 1)] * repeats)
    if min(resolutions) >= 64:
        with pytest.raises(ValueError, match="at least two bands"):
            bands(resolutions)
        return
    parts = list(bands(resolutions).values())
    assert [layer for part in parts for layer in range(part.first, part.last + 1)] == list(range(1, len(resolutions) + 1))
    assert [pixels for part in parts for pixels in part.resolutions] == resolutions


def test_a_decoder_of_two_layers_has_no_middle_ones():
    assert [each.name for each in bands((4, 8)).values()] == ["coarse", "fine"]
    with pytest.raises(ValueError, match=r"layers at 4, 8 has no intermediate ones; it has: coarse, fine"):
        band((4, 8), "intermediate")
    with pytest.raises(ValueError, match="at least two bands of layers; this one works at 4"):
        bands((4,))


@pytest.mark.parametrize("layers", [(0, 2), (1, 4), (3, 2), (4, 5)])
def test_layers_that_the_decoder_has_not_or_that_leave_nothing_to_mix_are_refused(layers):
    with pytest.raises(ValueError, match=rf"range of 1 to 4 that leaves a layer out.*it is {layers[0]} to {layers[1]}"):
        StyleMixing(layers=layers).draw(MODEL, DATA, Context())


def test_conditional_samples_keep_layers_and_share_the_drawn_ones_down_a_column():
    figure = ConditionalSamples(rows=2, columns=2, layers="coarse")
    picture = figure.draw(MODEL, DATA, Context())
    lefts, tops = [CELL + HEADER_LINE, 2 * CELL + HEADER_LINE + LINE], [0, CELL + LINE]
    drawn = [cell(picture, 0, left)[3] for left in lefts]
    assert drawn[0] != drawn[1]
    for row, top in enumerate(tops):
        assert cell(picture, top, 0) == [10 * row] * 4
        assert [cell(picture, top, left) for left in lefts] == [[10 * row] + [level] * 3 for level in drawn]
    assert "of which coarse layers (4x4) are kept, the others drawn at random" in figure.caption_for(MODEL)


def test_every_image_of_the_top_row_drives_the_first_layers_of_every_source():
    figure = EnforcedIdentity(rows=2, columns=2)
    picture = figure.draw(MODEL, DATA, Context())
    lefts = [0, CELL + LINE, 2 * CELL + LINE + HEADER_LINE, 3 * CELL + 2 * LINE + HEADER_LINE]
    tops = [0, CELL + HEADER_LINE, 2 * CELL + HEADER_LINE + LINE]
    assert picture.shape == (tops[-1] + CELL, lefts[-1] + CELL, 3)
    for row in (0, 1):
        assert cell(picture, tops[1 + row], lefts[0]) == cell(picture, tops[1 + row], lefts[1]) == [10 * row] * 4
        for column in (0, 1):
            driver = 10 * (2 + column)
            assert cell(picture, 0, lefts[2 + column]) == [driver] * 4
            assert cell(picture, tops[1 + row], lefts[2 + column]) == [driver, driver, 10 * row, 10 * row]
    assert "layers 1 to 2 (4x4 to 8x8) from the image above" in figure.caption_for(MODEL)


def test_interpolation_goes_evenly_between_the_images_beside_its_corners():
    picture = Interpolation(steps=3).draw(MODEL, DATA, Context())
    tops, lefts = [0, CELL + LINE, 2 * (CELL + LINE)], [CELL + HEADER_LINE + step * (CELL + LINE) for step in range(3)]
    right = lefts[-1] + CELL + HEADER_LINE
    assert picture.shape == (tops[-1] + CELL, right + CELL, 3)
    levels = [[cell(picture, top, left)[0] for left in lefts] for top in tops]
    # codes of one dimension: their norms are interpolated linearly, and all directions agree (levels 0..30 are all negative)
    assert levels == [[0, 5, 10], [10, 15, 20], [20, 25, 30]]
    for top, left, level in ((0, 0, 0), (0, right, 10), (tops[-1], 0, 20), (tops[-1], right, 30)):
        assert cell(picture, top, left) == [level] * 4
    assert cell(picture, tops[1], 0) == cell(picture, tops[1], right) == [255] * 4


@pytest.mark.parametrize(
    ("pairs", "ends"),
    [
        ("any", [(0, 1), (2, 3)]),
        ("within-first", [(0, 2), (4, 6)]),  # every other image is of the second domain
        ("within-second", [(1, 3), (5, 7)]),
        ("across", [(0, 1), (2, 3)]),
    ],
)
def test_interpolation_in_rows_goes_evenly_between_the_first_images_of_each_domain(pairs, ends):
    images = np.tile(LEVELS[:, None, None, None], (1, 1, SIZE, SIZE))
    data = Splits(lambda split: Dataset("greys", split, images, split, {"domain": np.arange(24) % 2}))
    figure = InterpolationRows(pairs=pairs, steps=3, rows=2)
    picture = figure.draw(Autoencoder(Free(1), Brightness(), Stripes()), data, Context())
    left = [0, *(CELL + HEADER_LINE + step * (CELL + LINE) for step in range(3))]
    left.append(left[-1] + CELL + HEADER_LINE)
    assert picture.shape == (2 * CELL + LINE, left[-1] + CELL, 3)
    for row, (a, b) in enumerate(ends):
        levels = [cell(picture, row * (CELL + LINE), at)[0] for at in left]
        assert levels == [10 * a, 10 * a, 5 * (a + b), 10 * b, 10 * b]
    assert figure.caption_for(MODEL).count("domain") == (pairs != "any")


def test_interpolation_across_domains_needs_two_of_them_with_images_enough():
    with pytest.raises(ValueError, match="greys has no factor `domain`"):
        InterpolationRows(pairs="across").draw(MODEL, DATA, Context())
    with pytest.raises(ValueError, match="shows 26 images; greys has 24"):
        InterpolationRows(rows=13).draw(MODEL, DATA, Context())


def test_codes_are_dots_in_the_colour_of_their_label_beside_images_and_their_reconstructions():
    images = np.tile(LEVELS[:, None, None, None], (1, 1, SIZE, SIZE))
    data = Splits(lambda split: Dataset("greys", split, images, split, {"label": np.arange(24) // 12}))
    figure = LatentScatter(num_pairs=4)
    picture = figure.draw(MODEL, data, Context(batch_size=5))
    left = picture.shape[1] - (4 * CELL + 2 * LINE + HEADER_LINE)
    columns = [left, left + CELL + LINE, left + 2 * CELL + LINE + HEADER_LINE, left + 3 * CELL + 2 * LINE + HEADER_LINE]
    for number in range(4):
        for column in columns[2 * (number % 2) : 2 * (number % 2) + 2]:
            assert cell(picture, (number // 2) * (CELL + LINE), column) == [10 * number] * 4
    dots = picture[40:, :480]  # below the key
    blue, orange = ((dots == colour).all(2).nonzero()[1] for colour in ((31, 119, 180), (255, 127, 14)))
    assert 0 < blue.max() < orange.min()  # a code is a brightness, and the first half of the images is the darker one
    assert figure.caption_for(MODEL).startswith("Of 1 dimensions")
    assert figure.caption_for(Autoencoder(Free(2), Brightness(), Stripes())) == figure.caption


def test_codes_without_labels_are_grey_and_more_labels_than_colours_are_told_apart():
    codes = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    grey = scatter(codes, None)
    many = scatter(codes, np.arange(60) % 30)
    assert (np.ptp(grey.astype(int), axis=2) < 20).all()
    assert len(np.unique(many[many.min(2) < 60].reshape(-1, 3), axis=0)) > 20


def test_samples_of_a_chain_are_not_called_independent_draws():
    chain = Autoencoder(Free(2), Brightness(), Stripes())
    assert Samples().caption_for(chain) == "Samples: decoded codes drawn at random. The first drawn, not chosen."
    chain.drawn = "successive states of one chain"
    assert Samples().caption_for(chain) == "Samples: successive states of one chain. The first drawn, not chosen."


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
