"""Eq. 5's perceptual loss: against VGG19's maps by hand, and which weights it takes. The weights here are random."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genae.conformance.random_weights import write_random_weights
from genae.features import weights
from genae.features.weights import WEIGHTS, MissingWeights
from genae.losses.perceptual import PixelsAndPerception
from genae.objectives.adversarial_autoencoder import AdversarialAutoencoding
from genae.objectives.incremental import Incremental
from genae.registry import MODELS
from genae.schedule import Phase

CPU = torch.device("cpu")
PHASE = Phase(
    index=0, resolution=8, fade=1.0, settled=True, batch_size=2, learning_rate=1e-3, margin=0.0, images_seen=0, epoch=0.0
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_random_weights(folder, "vgg19")
    return folder


@pytest.fixture
def unpublished(folder, monkeypatch):
    monkeypatch.setenv("GENAE_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def published(unpublished, monkeypatch):
    """Random weights that pass for the published ones."""
    digest = weights.sha256_of(unpublished / WEIGHTS["vgg19"].file)
    monkeypatch.setitem(WEIGHTS, "vgg19", replace(WEIGHTS["vgg19"], sha256=digest))
    return unpublished


def pictures(seed: int, channels: int = 3) -> Tensor:
    return torch.rand(2, channels, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_loss_is_half_the_mean_square_difference_of_three_layers(published):
    state = torch.load(published / WEIGHTS["vgg19"].file, weights_only=True)

    def convolve(x: Tensor, index: int) -> Tensor:
        return F.relu(F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1))

    def maps(images: Tensor) -> list[Tensor]:
        mean, std = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        relu1_1 = convolve(((images + 1) / 2 - mean) / std, 0)
        relu2_1 = convolve(F.max_pool2d(convolve(relu1_1, 2), 2), 5)
        relu3_1 = convolve(F.max_pool2d(convolve(relu2_1, 7), 2), 10)
        return [relu1_1, relu2_1, relu3_1]

    a, b = pictures(0), pictures(1)
    whole = sum((x - y).square().mean() for x, y in zip(maps(a), maps(b), strict=True))
    for halved, expected in ((True, 0.1 * whole / 2), (False, 0.1 * whole)):
        loss = PixelsAndPerception(0.1, halved=halved)
        loss.read(CPU)
        found = loss.terms(a, b)
        torch.testing.assert_close(found["perceptual"], expected, rtol=1e-4, atol=0)
        torch.testing.assert_close(found["pixels"], (a - b).square().mean())


def test_gradients_reach_the_decoded_images_and_neither_the_others_nor_the_network(published):
    loss = PixelsAndPerception(0.1, halved=True)
    loss.read(CPU)
    decoded, images = pictures(0, channels=1).requires_grad_(), pictures(1, channels=1).requires_grad_()
    loss.terms(decoded, images)["perceptual"].backward()
    assert decoded.grad.abs().min() > 0
    assert images.grad is None
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in loss.network.parameters())


@pytest.mark.parametrize(("objective", "name"), [(Incremental, "iae"), (AdversarialAutoencoding, "aae")])
def test_the_network_is_read_once_and_is_no_part_of_the_run(objective, name, published):
    model = MODELS.build({"name": name, **MODELS[name].small}, (1, 8, 8))
    training = objective()
    updates = training.updates(model)
    network = training._reconstruction.network
    again = training.updates(model)
    assert training._reconstruction.network is network
    seen = {id(parameter) for parameter in network.parameters()}
    for update in [*updates, *again]:
        assert not seen & {id(parameter) for group in update.parameters.values() for parameter in group}
    assert training.state_dict() == {}
    terms = updates[0].terms(model, pictures(0, channels=1)[..., :8, :8], PHASE, torch.Generator())
    assert terms.keys() == {"pixels", "perceptual"}


def test_other_weights_than_the_published_ones_are_refused(unpublished):
    with pytest.raises(ValueError, match=r"published weights of VGG19 only \(sha256 dcbb9e9d.*genae weights fetch vgg19"):
        PixelsAndPerception(0.1, halved=True).read(CPU)


def test_missing_weights_are_named_with_what_fetches_them(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path))
    model = MODELS.build({"name": "iae", **MODELS["iae"].small}, (1, 8, 8))
    with pytest.raises(MissingWeights, match="genae weights fetch vgg19"):
        Incremental().updates(model)


def test_a_weight_of_zero_reads_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path))
    loss = PixelsAndPerception(0.0, halved=True)
    loss.read(CPU)
    assert loss.terms(pictures(0), pictures(1)).keys() == {"pixels"}


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="perceptual_weight must not be negative, not -1"):
        Incremental(perceptual_weight=-1.0)
