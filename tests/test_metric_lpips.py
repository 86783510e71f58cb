"""`lpips` against the lpips package fed with PNGs by torchvision, with random trunks; `pd-efficientnet`."""

import hashlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from genae.conformance.random_weights import write_random_weights
from genae.context import Context
from genae.data.dataset import Splits
from genae.data.datasets import open_dataset
from genae.data.prepare import prepare
from genae.features.extractor import MapDistance, unit_distance
from genae.features.lpips import TRUNKS
from genae.latent import Gaussian
from genae.metrics.perceptual_distance import LPIPS, PDEfficientNet
from genae.metrics.perceptual_path_length import PerceptualPathLength
from genae.models.autoencoder import Autoencoder
from genae.pixels import from_uint8
from genae.registry import FEATURES

COUNT, SIZE = 6, 64


def pictures(seed: int) -> np.ndarray:
    """Smooth colour images, uint8 [6, 3, 64, 64]."""
    coarse = torch.from_numpy(np.random.default_rng(seed).normal(128, 60, (COUNT, 3, 7, 7)))
    return nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 255).round().to(torch.uint8).numpy()


INPUTS, OUTPUTS = pictures(0), pictures(1)


class Album(Autoencoder):
    """ "Reconstructs" the k-th input as the k-th output: a code is its number, read off the image."""

    def __init__(self) -> None:
        super().__init__(Gaussian(1), nn.Identity(), nn.Identity())

    def encode(self, images: Tensor, growth: None = None) -> Tensor:
        known = from_uint8(torch.tensor(INPUTS))
        return (images[:, None] == known[None]).flatten(2).all(2).float().argmax(1, keepdim=True)

    def decode(self, codes: Tensor, growth: None = None) -> Tensor:
        return from_uint8(torch.tensor(OUTPUTS))[codes[:, 0]]


@pytest.fixture
def packed(tmp_path, monkeypatch) -> Splits:
    """The inputs as `genae data prepare folder` packs them, from PNGs."""
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    for split in ("train", "test"):
        (tmp_path / "pictures" / split).mkdir(parents=True)
        for number, image in enumerate(INPUTS):
            Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "pictures" / split / f"{number}.png")
    prepare("folder", tmp_path / "pictures", pack="pictures", resolution=SIZE)
    return Splits(lambda split: open_dataset({"name": "folder", "pack": "pictures", "resolution": SIZE}, split))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(params=["alex", "vgg"])
def net(request, folder, tmp_path, monkeypatch) -> str:
    """The same random trunk where genae looks and where lpips would have downloaded it to."""
    weights = write_random_weights(folder, TRUNKS[request.param])
    downloads = tmp_path / "torch" / "hub" / "checkpoints"
    downloads.mkdir(parents=True)
    (downloads / weights.name).symlink_to(weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("GENAE_WEIGHTS", str(folder))
    return request.param


def read_png(folder: Path, name: str, image: np.ndarray) -> Tensor:
    """An image written as PNG, and read as LPIPS asks: torchvision's floats in [0, 1], times 2, minus 1."""
    from torchvision.transforms.functional import to_tensor

    Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{name}.png")
    return to_tensor(Image.open(folder / f"{name}.png")) * 2 - 1


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained':UserWarning", "ignore:Arguments other than a weight:UserWarning")
@pytest.mark.parametrize("crop", ["none", "face"])
@torch.inference_mode()
def test_lpips_is_the_lpips_packages_over_pngs_read_by_torchvision(net, crop, packed, tmp_path):
    import lpips

    theirs = lpips.LPIPS(net=net, verbose=False)
    distances = []
    for number in range(COUNT):
        a, b = read_png(tmp_path, f"a{number}", INPUTS[number]), read_png(tmp_path, f"b{number}", OUTPUTS[number])
        if crop == "face":  # rows 3/8 to 7/8, columns 2/8 to 6/8
            a, b = a[:, 24:56, 16:48], b[:, 24:56, 16:48]
        distances.append(theirs(a[None], b[None]).item())
    deviation = np.std(distances)
    assert deviation > 0.02 * np.mean(distances)  # the random trunk does tell images apart
    ours = LPIPS(net=net, crop=crop).measure(Album(), packed, Context(batch_size=3))["lpips"]
    assert abs(ours - np.mean(distances)) < 1e-5 * deviation


def test_the_header_of_lpips_names_crop_network_and_weights(net, monkeypatch):
    monkeypatch.delenv("GENAE_WEIGHTS")
    monkeypatch.setenv("GENAE_CACHE", "/nonexistent")
    assert LPIPS().label("lpips") == "lpips"
    assert LPIPS(crop="face", net="vgg").label("lpips") == "lpips (face crop, vgg)"


@pytest.fixture
def other_heads(tmp_path, monkeypatch) -> Path:
    """Copies of the installed package's heads, where genae and lpips read them instead."""
    import lpips

    package = tmp_path / "site" / "lpips"
    shutil.copytree(Path(lpips.__file__).parent, package)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "lpips")
    return package / "weights" / "v0.1"


def test_the_heads_are_in_the_record_and_in_the_digest(net, packed, other_heads):
    file = other_heads / f"{net}.pth"
    metrics = [LPIPS(net=net), PerceptualPathLength(net=net)]

    def recorded() -> list[str]:
        digest = FEATURES.build({"name": "lpips", "net": net}).digest
        return [digest, *(metric.protocol(packed, Context())["weights"]["heads"] for metric in metrics)]

    before = recorded()
    assert before[1:] == [hashlib.sha256(file.read_bytes()).hexdigest()] * 2
    heads = torch.load(file, map_location="cpu", weights_only=True)
    torch.save({name: 2 * weight for name, weight in heads.items()}, file)
    after = recorded()
    assert after[1:] == [hashlib.sha256(file.read_bytes()).hexdigest()] * 2
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert "unpublished heads" in metrics[0].label("lpips")
    assert "unpublished heads" in metrics[1].label("ppl")


def test_the_installed_heads_are_the_published_ones(net):
    assert "heads" not in LPIPS(net=net).label("lpips")


def test_too_small_an_image_is_refused_with_the_size_that_it_takes(net):
    distance = FEATURES.build({"name": "lpips", "net": net})
    smallest = {"alex": 31, "vgg": 16}[net]
    images = torch.zeros(1, 3, smallest, smallest)
    assert distance(images, images).item() == 0
    with pytest.raises(ValueError, match=f"at least {smallest} pixels after cropping, not {smallest - 1}"):
        distance(images[..., 1:, 1:], images[..., 1:, 1:])


def test_an_unknown_network_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="it has: alex, vgg"):
        FEATURES.build({"name": "lpips", "net": "squeeze"})


def test_unit_distance_of_orthogonal_features_is_two_and_of_opposite_ones_four():
    east, north = torch.tensor([3.0, 0]).reshape(1, 2, 1, 1), torch.tensor([0, 0.1]).reshape(1, 2, 1, 1)
    assert unit_distance([east], [north]).item() == pytest.approx(2)
    assert unit_distance([east], [-east]).item() == pytest.approx(4)
    assert unit_distance([east], [7 * east]).item() == 0
    assert unit_distance([east, east], [north, east]).item() == pytest.approx(1)  # the mean of two layers
    half = torch.cat([east, north], dim=3)  # two positions, one of which agrees
    assert unit_distance([half], [torch.cat([east, east], dim=3)]).item() == pytest.approx(1)


@torch.inference_mode()
def test_pd_efficientnet_is_its_map_distance_on_clipped_floats(packed):
    distance = MapDistance(FEATURES.build({"name": "efficientnet-lite0"}))
    expected = distance(from_uint8(torch.tensor(INPUTS)), from_uint8(torch.tensor(OUTPUTS))).mean().item()
    assert 0.05 < expected < 4
    found = PDEfficientNet().measure(Album(), packed, Context(batch_size=3))["pd-efficientnet"]
    assert found == pytest.approx(expected, rel=1e-5)


@torch.inference_mode()
def test_pd_efficientnet_grows_with_noise_and_is_zero_for_the_image_itself():
    distance = MapDistance(FEATURES.build({"name": "efficientnet-lite0"}))
    images = from_uint8(torch.tensor(INPUTS))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    near, far = distance(images, images + 0.02 * noise).mean(), distance(images, images + 0.3 * noise).mean()
    assert distance(images, images).max() < 1e-9
    assert 0 < near < far
