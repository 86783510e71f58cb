"""sharpness and outliers of samples, against direct computations and samples whose answer is known."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor, nn

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.latent import Gaussian
from genae.metrics.metric import NotDefined
from genae.metrics.outliers import Outliers, against, squared_radii
from genae.metrics.sharpness import LAPLACIAN, LUMA, Sharpness, laplacian_variance
from genae.models.autoencoder import Generator
from genae.pixels import from_uint8

SIZE = 8


class Album(Generator):
    """ "Generates" given images, in order and again from the first."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__(Gaussian(1), nn.Identity())
        self.images = from_uint8(torch.tensor(images))

    def sample_codes(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.arange(n)[:, None]

    def decode(self, codes: Tensor, growth: None = None) -> Tensor:
        return self.images[codes[:, 0] % len(self.images)]


def pictures(count: int, seed: int) -> np.ndarray:
    """Smooth images, uint8 [count, 3, 8, 8]."""
    coarse = torch.from_numpy(np.random.default_rng(seed).normal(128, 60, (count, 3, 3, 3)))
    return nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 255).round().to(torch.uint8).numpy()


def split_of(split: str) -> Dataset:
    return Dataset("pictures", split, pictures(40, len(split)), split)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_variance_of_the_laplacian_is_scipys_in_grey_and_inside_the_image(channels):
    images = torch.rand(3, channels, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    grey = (images.numpy() * np.reshape(LUMA, (3, 1, 1))).sum(1) if channels == 3 else images.numpy()[:, 0]
    filtered = [scipy.ndimage.correlate(image, np.array(LAPLACIAN))[1:-1, 1:-1] for image in grey]
    assert laplacian_variance(images).tolist() == pytest.approx([part.var() for part in filtered])


def test_samples_that_are_test_images_are_as_sharp_and_blurred_ones_are_not():
    images = split_of("test").images
    values = Sharpness(num_generated=40).measure(Album(images), Splits(split_of), Context(batch_size=7))
    assert values["sharpness"] == 1
    assert values["of_samples"] == values["of_images"] > 0
    halved = Album((images // 2 + 64).astype(np.uint8))  # half of the contrast is a quarter of the variance
    assert Sharpness(num_generated=40).measure(halved, Splits(split_of), Context())["sharpness"] == pytest.approx(
        0.25, abs=0.01
    )
    grey = Album(np.full_like(images, 77))
    assert Sharpness(num_generated=40).measure(grey, Splits(split_of), Context())["sharpness"] == 0


def test_against_blank_images_sharpness_is_not_defined():
    blank = Splits(lambda split: Dataset("blank", split, np.zeros((4, 1, SIZE, SIZE), np.uint8), split))
    with pytest.raises(NotDefined, match="blank"):
        Sharpness().measure(Album(pictures(4, 0)), blank, Context())


def test_radii_reach_to_the_kth_nearest_other_and_what_lies_beyond_all_of_them_is_outside():
    known = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64)
    assert squared_radii(known, 1).tolist() == pytest.approx([1, 1, 4, 16])
    assert squared_radii(known, 2).tolist() == pytest.approx([9, 4, 9, 36])
    points = torch.tensor([[-0.5], [-1.5], [5.5], [11.5]], dtype=torch.float64)
    outside, distance = against(points, known, squared_radii(known, 1))
    assert outside == 0.5  # -1.5 and 11.5
    assert distance == pytest.approx((0.5 + 1.5 + 1.5 + 4.5) / 4)


def test_the_share_outside_is_that_of_a_plain_loop(monkeypatch):
    monkeypatch.setattr("genae.metrics.outliers.DISTANCES_AT_ONCE", 70)  # several chunks, and a short one
    generator = torch.Generator().manual_seed(3)
    known, points = (torch.randn(n, 5, generator=generator, dtype=torch.float64) * 2 + 100 for n in (30, 41))
    distances = [[float(np.linalg.norm(a - b)) for b in known.numpy()] for a in known.numpy()]
    radii = [sorted(row)[3] for row in distances]
    outside = [all(np.linalg.norm(p - k) > r for k, r in zip(known.numpy(), radii, strict=True)) for p in points.numpy()]
    found, _ = against(points, known, squared_radii(known, 3))
    assert 0 < found < 1
    assert found == pytest.approx(np.mean(outside))


def test_training_images_are_no_outliers_and_noise_is():
    own = Outliers(num_generated=40).measure(Album(split_of("train").images), Splits(split_of), Context())
    assert own["outliers"] == 0
    assert own["distance"] == pytest.approx(0, abs=1e-3)
    noise = np.random.default_rng(0).integers(0, 256, (40, 3, SIZE, SIZE), dtype=np.uint8)
    values = Outliers(num_generated=40).measure(Album(noise), Splits(split_of), Context())
    assert values["outliers"] == 1
    assert values["distance"] > values["distance_of_images"]
    assert values["of_images"] == own["of_images"] < 0.5


def test_too_few_training_images_or_none_of_their_own_are_refused():
    with pytest.raises(ValueError, match="3 training images have no neighbour number 3"):
        Outliers(num_generated=4, num_reference=3).measure(Album(pictures(4, 0)), Splits(split_of), Context())
    with pytest.raises(ValueError, match="here they are the same"):
        Outliers().protocol(Splits(lambda split: split_of("test")), Context())


def test_headers_say_what_departs_from_the_protocol():
    assert Sharpness().label("sharpness") == "sharpness"
    assert Sharpness(num_generated=500, num_images=20).label("sharpness") == "sharpness-500 (20 images)"
    assert Outliers().label("outliers") == "outliers"
    metric = Outliers(num_generated=5000, num_reference=None, neighbour=5)
    assert metric.label("outliers") == "outliers-5k (neighbour 5, all reference images)"
