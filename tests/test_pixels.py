"""Value ranges and sizes."""

import pytest
import torch

from genae import pixels
from genae.schedule import Growth


def test_every_uint8_value_survives_the_round_trip():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(pixels.to_uint8(pixels.from_uint8(values)), values)


def test_the_ends_of_the_ranges_meet():
    assert pixels.from_uint8(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
    assert pixels.to_unit(torch.tensor([-1.0, 0.0, 1.0, 3.0])).tolist() == [0, 0.5, 1, 1]
    assert pixels.to_uint8(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]


def test_reduction_is_the_exact_mean_of_each_block():
    image = torch.arange(16, dtype=torch.float64).reshape(1, 1, 4, 4)
    # The top left block holds 0, 1, 4, 5.
    assert pixels.reduce(image, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pixels.reduce(image, 4) is image


def test_a_size_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="4 pixels cannot be area-averaged to 3"):
        pixels.reduce(torch.zeros(1, 1, 4, 4), 3)


def test_a_fade_in_starts_at_the_half_resolution_and_ends_at_the_full():
    image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    half = pixels.reduce(image, 4).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(pixels.blend(image, Growth(8, 0.0)), half)
    torch.testing.assert_close(pixels.blend(image, Growth(8, 0.25)), 0.75 * half + 0.25 * image)
    assert torch.equal(pixels.blend(image, Growth(8, 1.0)), image)


def test_the_face_crop_is_rows_3_to_7_and_columns_2_to_6_of_8():
    rows = torch.arange(16.0).reshape(1, 1, 16, 1).expand(1, 1, 16, 16)
    assert pixels.face_crop(rows)[0, 0, :, 0].tolist() == [6, 7, 8, 9, 10, 11, 12, 13]
    assert pixels.face_crop(rows.transpose(2, 3))[0, 0, 0].tolist() == [4, 5, 6, 7, 8, 9, 10, 11]


def test_grey_is_repeated_to_three_channels():
    grey = torch.rand(2, 1, 3, 3)
    assert torch.equal(pixels.to_rgb(grey), torch.cat([grey] * 3, dim=1))
