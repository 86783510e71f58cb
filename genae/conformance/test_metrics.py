"""What holds for every registered metric, third-party ones included: on an autoencoder small enough to see through.

A metric that is not defined of images is held to the same on vectors and a density of them.

Published weights are stood in for by random ones, so every metric runs everywhere.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genae.conformance.names import registered
from genae.conformance.random_weights import NAMES as WEIGHT_NAMES
from genae.conformance.random_weights import write_random_weights
from genae.context import Context
from genae.data.dataset import Dataset, Factor, Splits, Vectors
from genae.densities.density import Density
from genae.latent import Free, Sphere
from genae.metrics.metric import Metric, MissingWeights, NotDefined
from genae.models.autoencoder import Autoencoder
from genae.registry import METRICS
from genae.schedule import Growth

SIZE, DIM, LAYERS = 32, 6, 3
NAMES = registered(METRICS)
FACTORS = (
    Factor("azimuth", "coarse", "a number", -1, 1),
    Factor("glasses", "middle", "a choice", choices=("none", "round")),
    Factor("hair_color", "fine", "a choice", choices=("black", "brown", "red")),
)


class Encoder(nn.Module):
    """Images -> raw codes, linearly."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * SIZE * SIZE, DIM, generator=torch.Generator().manual_seed(1)) / 30)

    def forward(self, images: Tensor, growth: Growth | None) -> Tensor:
        return images.flatten(1) @ self.weight


class Decoder(nn.Module):
    """Codes, one for all layers or one each -> images: a smooth picture per layer and code dimension, summed."""

    num_layers = LAYERS
    layer_resolutions = (8, 16, 32)

    def __init__(self) -> None:
        super().__init__()
        coarse = torch.randn(LAYERS * DIM, 3, 4, 4, generator=torch.Generator().manual_seed(2))
        pictures = nn.functional.interpolate(coarse, SIZE, mode="bilinear")
        self.pictures = nn.Parameter(pictures.reshape(LAYERS, DIM, 3, SIZE, SIZE))

    def forward(self, codes: Tensor, growth: Growth | None) -> Tensor:
        if codes.ndim == 2:
            codes = codes[:, None].expand(-1, LAYERS, -1)
        return torch.einsum("nld,ldchw->nchw", codes, self.pictures)

    def canvas(self, codes: Tensor, upto: int, growth: Growth | None) -> Tensor:
        heard = torch.arange(LAYERS) < upto
        codes = codes[:, None] if codes.ndim == 2 else codes
        return self(codes * heard[:, None], growth)


class Correlated(Density):
    """A Gaussian whose dimensions depend on one another."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.root = nn.Parameter(torch.eye(dim) + torch.ones(dim, dim).tril(-1) / 4)

    def log_prob(self, vectors: Tensor) -> Tensor:
        return torch.distributions.MultivariateNormal(torch.zeros(self.dim), scale_tril=self.root).log_prob(vectors)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.dim, generator=generator) @ self.root.T


class Bounded(Autoencoder):
    """An autoencoder that says the likelihood of an image to be that of white noise about what codes near its own decode to."""

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"bound"}

    def bound(self, images: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
        codes = self.encode(images)
        near = codes + torch.randn(num_draws, *codes.shape, generator=generator)  # [K, N, D]
        errors = (self.decode(near.flatten(0, 1)).unflatten(0, near.shape[:2]) - images).square().sum((2, 3, 4))
        return -errors.mean(0)


def autoencoder() -> Bounded:
    model = Bounded(Sphere(DIM), Encoder(), Decoder())
    model.density = Correlated(DIM)
    return model.eval()


class Unchanged(nn.Module):
    """Rows -> the same rows: the encoder, and the decoder, of vectors that are their own codes."""

    def forward(self, rows: Tensor, growth: Growth | None) -> Tensor:
        return rows


def density_of_vectors() -> Autoencoder:
    model = Autoencoder(Free(DIM), Unchanged(), Unchanged())
    model.density = Correlated(DIM)
    return model.eval()


def vectors_of(name: str) -> Vectors:
    vectors = np.random.default_rng(len(name)).normal(size=(12, DIM)).astype(np.float32)
    return Vectors("noise", name, vectors, hashlib.sha256(vectors.tobytes()).hexdigest())


def split_of(name: str) -> Dataset:
    generator = np.random.default_rng(len(name))
    images = generator.integers(0, 256, (12, 3, SIZE, SIZE), dtype=np.uint8)
    factors = {factor.name: generator.permutation(12) % (len(factor.choices) or 2) for factor in FACTORS}
    return Dataset("noise", name, images, hashlib.sha256(images.tobytes()).hexdigest(), factors, FACTORS)


def alike(a: float | str, b: float | str) -> bool:
    return a == b if isinstance(a, str) or isinstance(b, str) else math.isclose(a, b, rel_tol=1e-3)


@dataclass(frozen=True)
class Measured:
    """One metric, measured as the tests need it, each measurement taken once."""

    metric: Metric

    @cached_property
    def _begun(self) -> tuple[Callable[[], Autoencoder], Autoencoder, Splits, dict[str, float | str]]:
        """What makes the model, the model, the data and what was measured first: of images, or of vectors where it must be."""
        for make, open_split in ((autoencoder, split_of), (density_of_vectors, vectors_of)):
            model, data = make(), Splits(open_split)
            try:
                with torch.inference_mode():
                    return make, model, data, self.metric.measure(model, data, Context())
            except NotDefined as error:
                reason = error
        raise reason

    @property
    def untouched(self) -> Autoencoder:
        return self._begun[0]()

    @property
    def model(self) -> Autoencoder:
        return self._begun[1]

    @property
    def data(self) -> Splits:
        return self._begun[2]

    @property
    def first(self) -> dict[str, float | str]:
        return self._begun[3]

    def measure(self, context: Context) -> dict[str, float | str]:
        with torch.inference_mode():
            return self.metric.measure(self.model, self.data, context)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name in WEIGHT_NAMES:
        write_random_weights(folder, name)
    return folder


@pytest.fixture(scope="module", autouse=True)
def surroundings(weights, tmp_path_factory):
    """Random weights and an empty cache, for the whole module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENAE_WEIGHTS", str(weights))
        patch.setenv("GENAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=NAMES)
def measured(request, surroundings) -> Measured:
    return Measured(METRICS.build({"name": request.param, **METRICS[request.param].small}))


@pytest.fixture
def name(request) -> str:
    return request.node.callspec.params["measured"]


def test_the_value_stands_under_the_metrics_own_name_and_all_are_finite_floats_or_words(measured, name):
    assert type(measured.first[name]) is float
    assert all(type(value) is str or (type(value) is float and math.isfinite(value)) for value in measured.first.values())


def test_the_same_context_gives_the_same_numbers(measured):
    again = measured.measure(Context())
    assert again == measured.first if measured.metric.repeatable else again.keys() == measured.first.keys()


def test_the_batch_size_of_the_context_does_not_matter(measured):
    other = measured.measure(Context(batch_size=3))
    assert other.keys() == measured.first.keys()
    if measured.metric.repeatable:
        assert all(alike(other[key], value) for key, value in measured.first.items())


def test_measuring_leaves_the_model_as_it_was(measured):
    untouched = measured.untouched.state_dict()
    assert measured.first
    assert not measured.model.training
    assert all(torch.equal(value, untouched[key]) for key, value in measured.model.state_dict().items())


def test_the_protocol_is_plain_json_and_holds_every_setting(measured):
    protocol = measured.metric.protocol(measured.data, Context())
    assert json.loads(json.dumps(protocol, allow_nan=False)) == protocol
    assert protocol.items() >= vars(measured.metric).items()


def test_a_metric_that_draws_says_its_seed_and_draws_otherwise_from_another(measured):
    protocol = measured.metric.protocol(measured.data, Context(seed=1))
    if "seed" in protocol:
        assert protocol["seed"] == 1
        assert measured.measure(Context(seed=1)) != measured.first


def test_what_the_metric_needs_is_something_that_a_model_can_provide(measured):
    words = {"decode", "sample", "encode", "posterior", "layers", "growth", "discriminate", "density", "log_prob", "bound"}
    assert measured.metric.needs <= words
    assert measured.metric.direction in {"min", "max"}


def test_the_header_begins_with_the_name(measured, name):
    assert measured.metric.label(name).startswith(name)


def test_without_its_weights_a_metric_says_which_command_gets_them(measured, name, monkeypatch, tmp_path):
    data = measured.data  # which it is, is found by measuring
    monkeypatch.delenv("GENAE_WEIGHTS")
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path))
    protocol = measured.metric.protocol(data, Context())  # can be asked for all the same
    assert measured.metric.label(name).startswith(name)
    if protocol.get("weights", {"sha256": ""})["sha256"] is None:
        with pytest.raises(MissingWeights, match=r"^needs weights: genae weights fetch [a-z0-9-]+$") as missing:
            measured.measure(Context())
        assert str(missing.value).endswith(missing.value.name)
