"""interpolation-step, midpoint-overlay and first-latents, of decoders whose answer is known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.latent import Free, Gaussian
from genae.metrics.first_latents import FirstLatents
from genae.metrics.interpolation_steps import InterpolationStep, MidpointOverlay, pairs_of
from genae.metrics.metric import NotDefined
from genae.models.autoencoder import Autoencoder

SIZE = 4


class Flat(nn.Module):
    def forward(self, images: Tensor, growth: None) -> Tensor:
        return images.flatten(1)


class Picture(nn.Module):
    """Codes that are flattened images -> what a function makes of them."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def forward(self, codes: Tensor, growth: None) -> Tensor:
        return self.change(codes).reshape(-1, 1, SIZE, SIZE)


def data(images: np.ndarray, **factors: np.ndarray) -> Splits:
    return Splits(lambda split: Dataset("test", split, images, split, factors))


def noise(count: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 1, SIZE, SIZE), dtype=np.uint8)


def black_and_white(count: int = 12) -> np.ndarray:
    return np.tile((np.arange(count, dtype=np.uint8) % 2 * 255)[:, None, None, None], (1, 1, SIZE, SIZE))


def measure(metric, change, images: np.ndarray, latent=Free, **factors: np.ndarray) -> dict[str, float]:
    model = Autoencoder(latent(images[0].size), Flat(), Picture(change))
    return metric.measure(model, data(images, **factors), Context(batch_size=17))


@pytest.mark.parametrize("latent", [Free, Gaussian])  # a straight line, whatever path a latent space has of its own
def test_a_linear_decoder_walks_evenly_and_its_midpoint_is_the_overlay_of_the_ends(latent):
    def linear(codes: Tensor) -> Tensor:
        return 0.5 * codes.flip(1) + 0.2

    assert measure(InterpolationStep(), linear, noise(), latent)["interpolation-step"] == pytest.approx(1, abs=1e-5)
    assert measure(MidpointOverlay(), linear, noise(), latent)["midpoint-overlay"] == pytest.approx(0, abs=1e-6)


def test_a_decoder_that_jumps_takes_all_of_the_way_in_one_step_and_its_midpoint_is_an_end():
    images = black_and_white()
    factors = {"domain": np.arange(12) % 2}
    step = measure(InterpolationStep(pairs="across", num_steps=10), torch.sign, images, **factors)
    # sign gives -1, -1, ..., 0 in the middle of the line, ..., 1: two equal steps out of ten
    assert step["interpolation-step"] == pytest.approx(5)

    def jump(codes: Tensor) -> Tensor:
        return torch.where(codes > 0.1, 1.0, -1.0)

    assert measure(InterpolationStep(pairs="across"), jump, images, **factors)["interpolation-step"] == pytest.approx(10)
    assert measure(MidpointOverlay(pairs="across"), jump, images, **factors)["midpoint-overlay"] == pytest.approx(1)


def test_a_midpoint_of_its_own_is_as_far_from_the_overlay_as_it_is_over_half_the_distance_of_the_ends():
    def elsewhere(codes: Tensor) -> Tensor:  # ends at -1 and 1, and 0.6 (not 0) between them
        return torch.where(codes.abs() < 0.5, 0.6, codes)

    found = measure(MidpointOverlay(pairs="across"), elsewhere, black_and_white(), domain=np.arange(12) % 2)
    assert found == {"midpoint-overlay": pytest.approx(0.6), "still": 0.0}


def test_the_largest_step_is_held_against_the_mean_of_the_path_step_by_step():
    def cubed(codes: Tensor) -> Tensor:
        return codes**3

    found = measure(InterpolationStep(pairs="across", num_steps=4), cubed, black_and_white(), domain=np.arange(12) % 2)
    steps = np.abs(np.diff(np.linspace(-1, 1, 5) ** 3))  # 7/8, 1/8, 1/8, 7/8
    assert found["interpolation-step"] == pytest.approx(steps.max() / steps.mean())


def test_pairs_whose_ends_look_alike_are_left_out_and_counted():
    images = black_and_white()
    found = measure(InterpolationStep(num_pairs=200), lambda codes: codes, images)
    start, end = pairs_of(data(images).test, "any", 200, Context().generator("pairs"))
    assert found["interpolation-step"] == pytest.approx(1)
    assert found["still"] == pytest.approx((start % 2 == end % 2).double().mean().item())
    with pytest.raises(NotDefined, match="same picture"):
        measure(MidpointOverlay(), torch.zeros_like, noise())


@pytest.mark.parametrize(
    ("pairs", "domains"), [("any", {0, 1}), ("within-first", {0}), ("within-second", {1}), ("across", None)]
)
def test_pairs_are_of_different_images_of_the_domains_that_were_asked_for(pairs, domains):
    domain = np.array([0, 1, 1, 0, 1, 0, 0, 0])
    start, end = pairs_of(data(noise(8), domain=domain).test, pairs, 300, torch.Generator().manual_seed(0))
    assert (start != end).all()
    if pairs == "across":
        assert (domain[start] == 0).all()
        assert (domain[end] == 1).all()
        assert len(set(zip(start.tolist(), end.tolist(), strict=True))) == 5 * 3
    else:
        assert set(domain[start]) == set(domain[end]) == domains


def test_data_of_one_domain_have_no_pairs_across_two():
    with pytest.raises(NotDefined, match="not of two domains"):
        measure(InterpolationStep(pairs="across"), torch.tanh, noise())
    with pytest.raises(NotDefined, match="1 and 1 images to pair"):
        measure(InterpolationStep(pairs="within-second"), torch.tanh, noise(3), domain=np.array([0, 0, 1]))


def test_headers_say_which_pairs_and_how_many_steps():
    assert InterpolationStep().label("interpolation-step") == "interpolation-step"
    assert InterpolationStep(pairs="across", num_steps=7).label("x") == "x (across domains, 7 steps)"
    assert MidpointOverlay(pairs="within-second").label("x") == "x (within the second domain)"


def test_with_the_first_pixels_kept_the_error_is_that_of_the_others():
    images = noise()
    found = measure(FirstLatents(), lambda codes: codes, images)
    scaled = images.reshape(12, -1) / 127.5 - 1
    errors = [(scaled[:, kept:] ** 2).sum() / scaled.size for kept in range(1, 17)]  # a pixel that is dropped is decoded as 0
    assert [found[f"k{kept}"] for kept in range(1, 17)] == pytest.approx(errors, abs=1e-7)
    assert found["first-latents"] == pytest.approx(np.mean(errors))
    assert found["floor"] == pytest.approx(((scaled - scaled.mean(0)) ** 2).mean())
    three = measure(FirstLatents(keep=3), lambda codes: codes, images)
    assert three["first-latents"] == three["k3"] == found["k3"]


def test_no_more_dimensions_can_be_kept_than_there_are():
    with pytest.raises(NotDefined, match="16 dimensions, of which 17 cannot be kept"):
        measure(FirstLatents(keep=17), torch.tanh, noise())
    with pytest.raises(ValueError, match="keep must be at least 1"):
        FirstLatents(keep=0)
    assert FirstLatents(keep=4).label("first-latents") == "first-latents (first 4)"
    assert math.isfinite(measure(FirstLatents(keep=16), torch.tanh, noise())["first-latents"])
