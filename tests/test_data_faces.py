"""Drawn faces: the same anywhere, at every resolution, whichever others are drawn; and every factor shows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genae.data import synthetic_faces
from genae.data.datasets import open_dataset
from genae.data.packs import area_average, content_digest
from genae.data.synthetic_faces import FACTORS, RESOLUTIONS, draw, sample_factors

BY_NAME = {factor.name: factor for factor in FACTORS}


def faces(indices: list[int] | range, seed: int = 0) -> dict[str, np.ndarray]:
    return sample_factors(np.array(indices), seed)


def varied(name: str, values: list, **others: object) -> dict[str, np.ndarray]:
    """One face, as often as there are values of one factor; plain, without glasses, unless told."""
    face = {factor.name: 0 if factor.choices else (factor.low + factor.high) / 2 for factor in FACTORS} | others
    return {key: np.array(values if key == name else [value] * len(values)) for key, value in face.items()}


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Largest difference of any channel, for each pixel."""
    return np.abs(first.astype(int) - second.astype(int)).max(axis=0)


def test_the_pixels_are_the_ones_that_were_published():
    """A change here changes a data set that results were measured on: raise synthetic_faces.REVISION with it."""
    digest = content_digest(draw(faces(range(8)), 32))
    assert (synthetic_faces.REVISION, digest[:16]) == (3, "5c8291118cd7be6c")


@settings(max_examples=20, deadline=None)
@given(indices=st.lists(st.integers(0, 2**40), min_size=1, max_size=20), seed=st.integers(0, 5), data=st.data())
def test_a_face_does_not_depend_on_the_others_drawn_with_it(indices, seed, data):
    chosen = data.draw(st.integers(0, len(indices) - 1))
    together = draw(faces(indices, seed), 16)[chosen]
    assert np.array_equal(together, draw(faces([indices[chosen]], seed), 16)[0])


def test_a_face_does_not_depend_on_how_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch):
    factors = faces(range(40))
    expected = draw(factors, 32)
    monkeypatch.setattr(synthetic_faces, "_PIXELS_AT_ONCE", 1)
    assert np.array_equal(draw(factors, 32), expected)


def test_seeds_are_streams_of_their_own():
    assert not np.array_equal(faces([3], seed=0)["azimuth"], faces([3], seed=1)["azimuth"])


@pytest.mark.parametrize("resolution", [r for r in RESOLUTIONS if r < 256])
def test_a_face_is_the_same_at_every_resolution(resolution: int):
    factors = faces(range(12))
    fine = area_average(draw(factors, 256), resolution).astype(float)
    coarse = draw(factors, resolution).astype(float)
    assert np.abs(fine - coarse).mean() < 2.0  # of 255: edges differ a little, faces do not
    shuffled = np.roll(coarse, 1, axis=0)
    assert np.abs(fine - shuffled).mean() > 20


def test_faces_below_64_pixels_are_averages_of_those_at_64():
    factors = faces(range(6))
    rounded = area_average(draw(factors, 64), 16).astype(int)
    assert np.abs(rounded - draw(factors, 16).astype(int)).max() <= 1  # rounded twice against once


def test_the_mirrored_face_has_the_mirrored_azimuth():
    factors = faces(range(30))
    mirrored = factors | {"azimuth": -factors["azimuth"]}
    apart = draw(mirrored, 64)[..., ::-1].astype(int) - draw(factors, 64).astype(int)
    assert (np.abs(apart) > 1).mean() < 1e-5  # where what is painted on both sides overlaps, one side is painted later
    assert np.abs(apart).max() <= 4


def test_azimuth_moves_the_features_to_its_side():
    """The dark lenses are the darkest pixels of the lower half; they move with the face."""
    dark = varied("azimuth", [-1.0, -0.5, 0.0, 0.5, 1.0], glasses=2, hair_color=3)
    images = draw(dark, 64).max(axis=1)
    columns = [np.nonzero(image < 60)[1].mean() for image in images]
    assert columns == sorted(columns)
    assert columns[2] == pytest.approx(31.5, abs=0.01)
    assert columns[-1] - columns[0] > 12


@pytest.mark.parametrize("resolution", [16, 64])
@pytest.mark.parametrize("name", [factor.name for factor in FACTORS])
def test_every_factor_shows_even_at_16_pixels(name: str, resolution: int):
    factor = BY_NAME[name]
    ends = list(range(len(factor.choices))) if factor.choices else [factor.low, factor.high]
    others = {"mouth_opening": 0.6} if name == "expression" else {}
    images = draw(varied(name, ends, **others), resolution)
    for first in range(len(ends)):
        for second in range(first):
            changed = difference(images[first], images[second]) > 12
            assert changed.sum() >= 3, f"{ends[first]} looks like {ends[second]}"


def test_fine_factors_move_no_outline_and_coarse_ones_do():
    """What a fine factor changes is colour: the gradient of each region's edge stays where it was."""

    def moved(name: str, ends: list) -> float:
        images = draw(varied(name, ends), 64).astype(int)
        center = images[:, :, 20:50, 20:44]
        edges = np.abs(np.diff(center, axis=-1)).sum(axis=1) > 60
        return float((edges[0] != edges[1]).mean())

    assert moved("azimuth", [-1, 1]) > 5 * moved("background_color", [0, 1])
    assert moved("head_shape", [-1, 1]) > 0


def test_factors_have_a_scale_and_values_in_their_range():
    assert {factor.scale for factor in FACTORS} == {"coarse", "middle", "fine"}
    factors = faces(range(500))
    for name, values in factors.items():
        factor = BY_NAME[name]
        if factor.kind == "categorical":
            # Each choice is drawn about as often: within five standard deviations of a binomial count.
            expected = 500 / len(factor.choices)
            assert np.abs(np.bincount(values, minlength=len(factor.choices)) - expected).max() < 5 * expected**0.5
        else:
            assert factor.low <= values.min() < values.max() <= factor.high
            middle = (factor.low + factor.high) / 2
            assert abs(values.mean() - middle) < 5 * (factor.high - factor.low) / (12 * 500) ** 0.5


def test_factors_that_cannot_be_drawn_are_refused():
    good = faces(range(2))
    with pytest.raises(ValueError, match="faces are drawn at 16, 32, 64, 128, 256"):
        draw(good, 24)
    with pytest.raises(ValueError, match="'azimuth' must be an array"):
        draw(good | {"azimuth": np.array([0.0, 1.5])}, 16)
    with pytest.raises(ValueError, match="'glasses' must be an array"):
        draw(good | {"glasses": np.array([0, 3])}, 16)
    with pytest.raises(ValueError, match="one value for each face"):
        draw(good | {"azimuth": np.zeros(3)}, 16)
    with pytest.raises(ValueError, match="needs exactly the factors"):
        draw({"azimuth": np.zeros(2)}, 16)


def test_a_data_set_of_more_faces_begins_with_those_of_a_smaller_one(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path))
    spec = {"name": "synthetic-faces", "resolution": 16, "num_test": 4}
    few, many = (open_dataset(spec | {"num_train": count}, "train") for count in (5, 600))
    assert np.array_equal(many.images[:5], few.images)
    assert np.array_equal(few.images, draw(faces(range(5), seed=0), 16))
    for name, values in few.factors.items():
        assert np.array_equal(many.factors[name][:5], values)
