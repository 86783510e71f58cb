"""mse, l1, psnr and ssim against closed forms and scikit-image; the times."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.latent import Gaussian
from genae.metrics.reconstruction import MeanAbsoluteError, MeanSquaredError, PeakSignalToNoiseRatio
from genae.metrics.seconds import DecodeSeconds, EncodeSeconds
from genae.metrics.structural_similarity import StructuralSimilarity, ssim
from genae.models.autoencoder import Autoencoder


class Altered(nn.Module):
    """A decoder whose codes are the flattened image, and which gives back `change(image)`."""

    def __init__(self, change, size: int) -> None:
        super().__init__()
        self.change, self.size = change, size

    def forward(self, codes: Tensor, growth: None) -> Tensor:
        return self.change(codes.reshape(len(codes), -1, self.size, self.size))


class Flatten(nn.Module):
    def forward(self, images: Tensor, growth: None) -> Tensor:
        return images.flatten(1)


def measure(metric, images: np.ndarray, change, batch_size: int = 3) -> float:
    model = Autoencoder(Gaussian(images[0].size), Flatten(), Altered(change, images.shape[-1]))
    data = Splits(lambda split: Dataset("test", split, images, split))
    return metric.measure(model, data, Context(batch_size=batch_size))[metric.name]


def noise(count: int = 7, channels: int = 3, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def grey(level: int, count: int = 5) -> np.ndarray:
    return np.full((count, 1, 4, 4), level, dtype=np.uint8)


def test_a_constant_shift_is_the_absolute_error_and_its_square_the_squared_error():
    def shifted(images: Tensor) -> Tensor:
        return images + 0.25

    assert measure(MeanAbsoluteError(), grey(51), shifted) == pytest.approx(0.25)  # 51 is -0.6
    assert measure(MeanSquaredError(), grey(51), shifted) == pytest.approx(0.25**2)


def test_a_shift_by_a_tenth_of_the_range_is_twenty_decibels():
    assert measure(PeakSignalToNoiseRatio(), grey(51), lambda images: images + 0.2) == pytest.approx(20, abs=1e-4)


def test_a_perfect_image_counts_for_the_ceiling_of_psnr_and_one_of_ssim():
    assert measure(PeakSignalToNoiseRatio(), noise(), lambda images: images) == 100
    assert measure(PeakSignalToNoiseRatio(ceiling=60), noise(), lambda images: images) == 60
    assert measure(StructuralSimilarity(), noise(), lambda images: images) == pytest.approx(1, abs=1e-12)


def test_what_a_decoder_gives_beyond_the_range_is_clipped():
    white = grey(255)

    def beyond(images: Tensor) -> Tensor:
        return images + 7

    assert measure(MeanAbsoluteError(), white, beyond) == 0
    assert measure(MeanSquaredError(), white, beyond) == 0
    assert measure(MeanAbsoluteError(), grey(0), beyond) == 2


def test_psnr_is_averaged_over_images_not_taken_of_the_mean_error():
    images = np.concatenate([grey(0, 1), grey(255, 1)])  # errors 0.2 and 0.02: 20 and 40 decibels

    def change(images: Tensor) -> Tensor:
        return torch.where(images < 0, images + 0.2, images - 0.02)

    assert measure(PeakSignalToNoiseRatio(), images, change) == pytest.approx(30, abs=1e-3)


@pytest.mark.parametrize("metric", [MeanSquaredError(), MeanAbsoluteError(), PeakSignalToNoiseRatio(), StructuralSimilarity()])
def test_the_last_short_batch_counts_by_its_images(metric):
    def change(images: Tensor) -> Tensor:
        return images * 0.5

    whole = measure(metric, noise(), change, batch_size=7)
    assert measure(metric, noise(), change, batch_size=3) == pytest.approx(whole, rel=1e-6)


def test_only_the_first_images_count_where_a_number_is_given_and_the_header_says_so():
    metric = MeanAbsoluteError(num_images=1)
    images = np.concatenate([grey(0, 1), grey(255, 1)])
    assert measure(metric, images, torch.zeros_like) == 1
    assert metric.label("l1") == "l1 (1 images)"
    assert MeanAbsoluteError().label("l1") == "l1"


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_scikit_images(channels):
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(1)
    a = rng.random((4, channels, 24, 24))
    b = np.clip(a * 0.8 + 0.3 * rng.random(a.shape), 0, 1)
    found = ssim(torch.from_numpy(a), torch.from_numpy(b))
    for pair, ours in zip(zip(a, b, strict=True), found.tolist(), strict=True):
        theirs = structural_similarity(
            *pair, channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert ours == pytest.approx(theirs, abs=1e-12)


def test_psnr_and_mse_are_scikit_images():
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

    images = noise(count=2)
    a = images.astype(float)
    b = a * 0.5  # [0, 255], halved: in [-1, 1] that is (x + 1) / 2 - 1

    def halved(images: Tensor) -> Tensor:
        return (images + 1) / 2 - 1

    psnr = np.mean([peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(a, b, strict=True)])
    assert measure(PeakSignalToNoiseRatio(), images, halved) == pytest.approx(psnr, abs=1e-4)
    assert measure(MeanSquaredError(), images, halved) == pytest.approx(mean_squared_error(a, b) / 127.5**2, rel=1e-5)


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match="at least 11 pixels, not 8"):
        measure(StructuralSimilarity(), noise(size=8), lambda images: images)


def test_times_are_medians_per_image_and_positive():
    images = noise(count=3)
    model = Autoencoder(Gaussian(images[0].size), Flatten(), Altered(torch.tanh, 16))
    data = Splits(lambda split: Dataset("test", split, images, split))
    for metric in (EncodeSeconds(batch_size=8, repeats=3), DecodeSeconds(batch_size=8, repeats=3)):
        values = metric.measure(model, data, Context())
        assert 0 < values["fastest"] <= values[metric.name] <= values["slowest"] < 1
        assert math.isfinite(values[metric.name])
        assert metric.protocol(data, Context())["threads"] == torch.get_num_threads()


def test_times_are_of_full_batches_even_where_the_split_is_smaller():
    seen = []

    class Counting(Flatten):
        def forward(self, images: Tensor, growth: None) -> Tensor:
            seen.append(len(images))
            return super().forward(images, growth)

    images = noise(count=3)
    model = Autoencoder(Gaussian(images[0].size), Counting(), Altered(torch.tanh, 16))
    EncodeSeconds(batch_size=8, repeats=2).measure(
        model, Splits(lambda split: Dataset("test", split, images, split)), Context()
    )
    assert seen == [8, 8, 8]  # one that does not count, two that do


@pytest.mark.parametrize(("calls", "middle"), [([9.0, 4.0, 1.0, 3.0, 2.0], 2.5), ([9.0, 4.0, 1.0, 3.0], 3.0)])
def test_the_time_is_the_median_of_even_counts_too_without_the_first_call(calls, middle, monkeypatch):
    clock = iter(calls)
    monkeypatch.setattr("genae.metrics.seconds.seconds_of", lambda work, device: next(clock))
    model = Autoencoder(Gaussian(48), Flatten(), Altered(torch.tanh, 4))
    values = DecodeSeconds(batch_size=2, repeats=len(calls) - 1).measure(model, Splits(lambda split: None), Context())
    assert values == {"decode-seconds": middle / 2, "fastest": min(calls) / 2, "slowest": 2.0}
