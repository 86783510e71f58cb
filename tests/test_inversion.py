"""The search for codes: on decoders whose best code is known, under the evaluator's inference mode."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.figures.inversion import drawn
from genae.latent import Gaussian, Sphere
from genae.metrics.inversion import Inversion, InversionEfficientNet, seconds_to_reach
from genae.models.autoencoder import Autoencoder, Generator
from genae.models.inversion import CodeSearch, Point, marks
from genae.registry import METRICS

SIZE, DIM = 4, 6
PIXELS = SIZE * SIZE


def basis(layers: int = 1) -> Tensor:
    """Orthonormal pictures, DIM for each layer: [layers, DIM, PIXELS]."""
    square = torch.linalg.qr(torch.randn(PIXELS, PIXELS, generator=torch.Generator().manual_seed(0))).Q
    return square[: layers * DIM].reshape(layers, DIM, PIXELS)


class Linear(nn.Module):
    """A layered linear decoder: every layer adds its pictures. Its best codes are the images' coordinates."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.num_layers, self.layer_resolutions = layers, (4,) * layers
        self.pictures = nn.Parameter(basis(layers))

    def forward(self, codes: Tensor, growth: None = None) -> Tensor:
        if codes.ndim == 2:
            codes = codes[:, None].expand(-1, self.num_layers, -1)
        return torch.einsum("nld,ldp->np", codes, self.pictures).reshape(-1, 1, SIZE, SIZE)


class Plain(nn.Module):
    """The same with one layer, which takes no codes by layer."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = nn.Parameter(basis()[0])

    def forward(self, codes: Tensor, growth: None = None) -> Tensor:
        return (codes @ self.pictures).reshape(-1, 1, SIZE, SIZE)


class Projection(nn.Module):
    """The best encoder of `Plain`."""

    def forward(self, images: Tensor, growth: None = None) -> Tensor:
        return images.flatten(1) @ basis()[0].T


def squared(images: Tensor, outputs: Tensor) -> Tensor:
    return (images - outputs).square().sum((1, 2, 3))


def found(search: CodeSearch, model: Generator, images: Tensor) -> Tensor:
    """The codes after the last iteration, searched for as a metric does: under inference mode."""
    with torch.inference_mode():
        images = images + 0  # made under inference mode, as the evaluator's
        end = [0, search.iterations]
        return [codes for _, _, codes in search.search(model, images, squared, torch.Generator().manual_seed(0), end)][
            -1
        ].clone()


def test_the_codes_found_are_the_images_coordinates():
    codes = torch.randn(3, DIM, generator=torch.Generator().manual_seed(1))
    model = Generator(Gaussian(DIM), Plain())
    answer = found(CodeSearch(iterations=800, learning_rate=0.02), model, model.decode(codes).detach())
    torch.testing.assert_close(answer, codes, atol=1e-3, rtol=0)


def test_codes_per_layer_reach_what_one_code_cannot():
    """Two layers of 6 pictures each: an image of 12 coordinates; one code for both can match their mean only."""
    model = Generator(Gaussian(DIM), Linear(2))
    codes = torch.randn(2, 2, DIM, generator=torch.Generator().manual_seed(1))
    images = model.decode(codes).detach()
    layered = found(CodeSearch(iterations=800, learning_rate=0.02), model, images)
    torch.testing.assert_close(layered, codes, atol=1e-3, rtol=0)
    shared = found(CodeSearch(iterations=800, learning_rate=0.02, codes="one"), model, images)
    torch.testing.assert_close(shared, codes.mean(1), atol=1e-3, rtol=0)  # least squares over both layers


def test_on_the_sphere_codes_keep_norm_one():
    model = Generator(Sphere(DIM), Linear(2))
    answer = found(CodeSearch(iterations=5, learning_rate=0.5), model, torch.rand(3, 1, SIZE, SIZE))
    torch.testing.assert_close(answer.norm(dim=-1), torch.ones(3, 2))


def test_no_code_depends_on_its_company():
    model = Generator(Gaussian(DIM), Plain())
    images = torch.rand(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    search = CodeSearch(iterations=20)
    alone = torch.cat([found(search, model, image[None]) for image in images])
    torch.testing.assert_close(found(search, model, images), alone)


def test_the_pixel_term_is_the_weighted_mean_squared_error():
    """Without a perceptual loss's pull (a constant one), one step of Adam moves every coordinate by the rate, downhill."""
    model = Generator(Gaussian(DIM), Plain())
    images = torch.rand(2, 1, SIZE, SIZE)
    nothing = lambda real, outputs: 0 * outputs.sum((1, 2, 3))  # noqa: E731
    for weight in (0.0, 3.0):
        search = CodeSearch(iterations=1, learning_rate=0.1, pixel_weight=weight)
        steps = list(search.search(model, images, nothing, torch.Generator().manual_seed(0), [0, 1]))
        start, end = steps[0][2], steps[1][2]
        best = images.flatten(1) @ basis()[0].T
        if not weight:
            torch.testing.assert_close(end, search._start(model, images, torch.Generator().manual_seed(0)))
        else:
            assert start.data_ptr() == end.data_ptr()  # the codes themselves, which a caller must not keep
            before = search._start(model, images, torch.Generator().manual_seed(0))
            torch.testing.assert_close(end - before, 0.1 * (best - before).sign(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("start", ["prior-mean", "prior", "encode"])
def test_a_search_starts_where_it_says(start):
    model = Autoencoder(Gaussian(DIM), Projection(), Plain())
    images = torch.rand(5, 1, SIZE, SIZE)
    search = CodeSearch(iterations=1, start=start)
    (_, seconds, codes), _ = search.search(model, images, squared, torch.Generator().manual_seed(3), [0, 1])
    assert seconds == 0
    drawn_codes = torch.randn(1000 if start == "prior-mean" else 5, DIM, generator=torch.Generator().manual_seed(3))
    expected = {"prior-mean": drawn_codes.mean(0).expand(5, -1), "prior": drawn_codes, "encode": model.encode(images)}[start]
    first = next(search.search(model, images, squared, torch.Generator().manual_seed(3), [0]))[2]
    torch.testing.assert_close(first, expected)
    assert codes.shape == (5, DIM)


def test_a_model_without_encoder_has_none_to_start_from():
    with pytest.raises(ValueError, match="no encoder to start from"):
        found(CodeSearch(start="encode"), Generator(Gaussian(DIM), Plain()), torch.rand(1, 1, SIZE, SIZE))


def test_a_search_is_looked_at_in_steps_that_grow_with_it():
    assert marks(1) == [0, 1]
    assert marks(12) == [0, 1, 2, 3, 5, 7, 10, 12]
    assert marks(200) == [0, 1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 200]


def test_the_time_to_match_lies_on_the_line_between_two_points():
    curve = [Point(0, 0.0, 0.9), Point(1, 1.0, 0.7), Point(2, 3.0, 0.3)]
    assert seconds_to_reach(curve, 0.5) == pytest.approx(2.0)
    assert seconds_to_reach(curve, 0.9) == 0.0
    assert seconds_to_reach(curve, 0.3) == pytest.approx(3.0)
    assert seconds_to_reach(curve, 0.2) is None


def noise(split: str) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (6, 1, SIZE, SIZE), dtype=np.uint8)
    return Dataset("noise", split, images, "n" * 64)


def measured(model: Generator, **settings: object) -> dict[str, float]:
    metric = InversionEfficientNet(**{"num_images": 3, "iterations": 12, "batch_size": 2, "learning_rate": 0.1, **settings})
    with torch.inference_mode():
        return metric.measure(model.eval(), Splits(noise), Context())


def test_the_metric_tells_the_curve_and_the_encoders_place_on_it():
    values = measured(Autoencoder(Gaussian(DIM), Projection(), Plain()))
    assert {key.removeprefix("distance_after_") for key in values if key.startswith("distance_after_")} == {
        "0", "1", "2", "3", "5", "7", "10", "12"
    }  # fmt: skip
    assert values["inversion-efficientnet"] == values["distance_after_12"] < values["distance_after_0"]
    seconds = [values[f"seconds_after_{mark}"] for mark in (0, 1, 2, 3, 5, 7, 10, 12)]
    assert seconds == sorted(seconds)
    assert seconds[0] == 0
    spent, ratio = ("seconds_to_match", "ratio") if values["matched"] else ("seconds_after_12", "ratio_at_least")
    assert values[ratio] == pytest.approx(values[spent] / values["encode_seconds"])
    assert values[spent] <= seconds[-1]


def test_an_encoder_out_of_reach_is_not_matched_and_one_passed_at_once_is():
    class Perfect(nn.Module):
        def forward(self, codes: Tensor, growth: None = None) -> Tensor:
            return codes.reshape(-1, 1, SIZE, SIZE)

    class Unrolled(nn.Module):
        def forward(self, images: Tensor, growth: None = None) -> Tensor:
            return images.flatten(1)

    values = measured(Autoencoder(Gaussian(PIXELS), Unrolled(), Perfect()), iterations=2)
    assert values["encode_distance"] == pytest.approx(0, abs=1e-6)
    assert values["matched"] == 0
    assert not {"ratio", "seconds_to_match"} & values.keys()  # a claim about them is undecided
    assert values["ratio_at_least"] == pytest.approx(values["seconds_after_2"] / values["encode_seconds"])
    values = measured(Autoencoder(Gaussian(PIXELS), Unrolled(), Perfect()), iterations=1, start="encode")
    assert values["matched"] == 1
    assert values["ratio"] == 0


def test_a_generator_alone_has_the_search_and_nothing_of_an_encoder():
    values = measured(Generator(Gaussian(DIM), Plain()), iterations=1)
    assert math.isfinite(values["inversion-efficientnet"])
    assert not {"encode_distance", "ratio", "matched"} & values.keys()


def test_lpips_is_lowered_over_vgg16_and_measured_over_alexnet():
    metric = Inversion(num_images=10, crop="face", codes="one", start="prior")
    protocol = metric.protocol(Splits(noise), Context())
    assert protocol["weights"]["weights"] == "alexnet"
    assert protocol["loss_weights"]["weights"] == "vgg16"
    assert metric.label("inversion").startswith("inversion (10 images, one code, from the prior, face crop")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"num_images": 0}, "num_images must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"pixel_weight": -1.0}, "pixel_weight must not be negative"),
    ],
)
def test_settings_of_no_use_are_refused(setting, said):
    with pytest.raises(ValueError, match=said):
        METRICS.build({"name": "inversion-efficientnet", **setting})


def test_the_picture_is_as_wide_as_a_page_whatever_was_found():
    curve = [Point(0, 0.0, 0.9), Point(1, 0.1, 0.5), Point(2, 0.2, 0.2)]
    for encoder in (None, Point(0, 0.001, 0.3)):
        picture = drawn(curve, encoder, "lpips")
        assert picture.shape == (360, 900, 3)
        assert picture.dtype == np.uint8
        assert (picture != 255).any()
