"""Extractors: what they expect, what they give, where their weights come from."""

import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from genae.conformance.random_weights import NAMES as WEIGHT_NAMES
from genae.conformance.random_weights import write_random_weights
from genae.features import efficientnet, weights
from genae.features.extractor import Distance, MapExtractor
from genae.features.weights import MissingWeights, WeightFile
from genae.registry import FEATURES

NAMES = FEATURES.names()


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name in WEIGHT_NAMES:
        write_random_weights(folder, name)
    return folder


@pytest.fixture
def with_weights(random_weights, monkeypatch):
    monkeypatch.setenv("GENAE_WEIGHTS", str(random_weights))


def noise(count: int, channels: int = 3, size: int = 48) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_an_extractor_gives_an_image_what_it_gives_it_alone_and_grey_is_three_equal_channels(name, with_weights):
    extractor = FEATURES.build({"name": name})
    assert not extractor.training
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert re.fullmatch("[0-9a-f]{64}", extractor.digest)
    call = (lambda images: extractor(images, images.flip(3))) if isinstance(extractor, Distance) else extractor

    images = noise(3)
    together = call(images)
    assert together.shape == ((3,) if isinstance(extractor, Distance) else (3, extractor.dims))
    assert together.std() > 0
    alone = torch.cat([call(image[None]) for image in images])
    assert (together - alone).abs().max() <= 1e-6 * max(1, together.abs().max())
    grey = noise(2, channels=1)
    torch.testing.assert_close(call(grey), call(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("name", ["efficientnet-lite0", "tiny", "vgg19"])
@torch.inference_mode()
def test_maps_go_from_fine_to_coarse(name, with_weights):
    extractor = FEATURES.build({"name": name})
    assert isinstance(extractor, MapExtractor)
    maps = extractor.maps(noise(2))
    assert all(layer.shape[0] == 2 and layer.ndim == 4 for layer in maps)
    widths = [layer.shape[-1] for layer in maps]
    assert widths == sorted(set(widths), reverse=True)


@torch.inference_mode()
def test_efficientnet_is_the_packages_network_on_pixels_scaled_as_its_weights_expect():
    pixels = torch.randint(0, 256, (40, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    expected = efficientnet.network().extract_features((pixels - 127) / 128).mean((2, 3))
    found = FEATURES.build({"name": "efficientnet-lite0"})(pixels / 127.5 - 1)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.inference_mode()
def test_efficientnet_sees_a_cat_in_a_photograph_of_a_cat():
    from skimage.data import chelsea

    classifier, extractor = efficientnet.network()._fc, FEATURES.build({"name": "efficientnet-lite0"})
    photograph = torch.tensor(chelsea()[:, 75:375]).permute(2, 0, 1)[None] / 127.5 - 1  # [1, 3, 300, 300]
    photograph = torch.nn.functional.interpolate(photograph, 64, mode="bilinear", antialias=True)
    classes = classifier(extractor(photograph))[0].topk(3).indices
    assert set(classes.tolist()) & set(range(281, 286))  # ImageNet's tabby, tiger, Persian, Siamese and Egyptian cat


def test_efficientnets_weights_are_those_that_were_published():
    extractor = FEATURES.build({"name": "efficientnet-lite0"})
    assert extractor.published
    assert extractor.digest.startswith("57934424")  # as the file's name says


@torch.inference_mode()
def test_vgg19_gives_relu_maps_of_normalised_images(with_weights):
    from torchvision.models import vgg19
    from torchvision.transforms.functional import normalize

    with torch.device("meta"):
        network = vgg19(weights=None).eval()
    network.load_state_dict(torch.load(weights.find("vgg19"), weights_only=True), assign=True)
    images = noise(2, size=16)
    x, expected = normalize((images + 1) / 2, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), []
    for index in range(12):
        x = network.features[index](x)
        if index in (1, 6, 11):  # relu1_1, relu2_1, relu3_1
            expected.append(x.clone())
    for ours, theirs in zip(FEATURES.build({"name": "vgg19"}).maps(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_tiny_is_the_same_everywhere_and_another_for_another_seed():
    first, again, other = (FEATURES.build({"name": "tiny", "seed": seed}) for seed in (0, 0, 1))
    assert first.digest == again.digest != other.digest


def test_absent_weights_are_named_with_the_command_that_gets_them(monkeypatch, tmp_path):
    monkeypatch.delenv("GENAE_WEIGHTS", raising=False)
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path))
    for name, file in [("inception-2015", "inception-2015"), ("lpips", "alexnet"), ("vgg19", "vgg19")]:
        with pytest.raises(MissingWeights, match=f"^needs weights: genae weights fetch {file}$"):
            FEATURES.build({"name": name})
    assert dict(weights.check()) == {name: f"needs weights: genae weights fetch {name}" for name in weights.WEIGHTS}
    assert weights.used("vgg16") == {"weights": "vgg16", "sha256": None, "published": None}


@pytest.mark.parametrize("name", ["inception-2015", "lpips", "vgg19"])
@pytest.mark.parametrize("content", ["an error page", "half of it", "of another network", "a number"])
def test_a_file_that_does_not_hold_the_weights_is_named(name, content, random_weights, tmp_path, monkeypatch):
    file = weights.entry({"lpips": "alexnet"}.get(name, name)).file
    path = tmp_path / file
    if content == "of another network":
        torch.save({"fc.weight": torch.zeros(3)}, path)
    elif content == "a number":
        torch.save(3, path)
    else:
        whole = (random_weights / file).read_bytes()
        path.write_bytes(b"<html>404</html>" if content == "an error page" else whole[: len(whole) // 2])
    monkeypatch.setenv("GENAE_WEIGHTS", str(tmp_path))
    with pytest.raises(ValueError, match=f"^{path} does not hold the weights .*Remove it, then: genae weights fetch "):
        FEATURES.build({"name": name})


def test_unknown_weights_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="did you mean 'vgg16'"):
        weights.find("vgg-16")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A published file that can be fetched without a network; the user's cache is empty."""
    content = b"numbers"
    origin = tmp_path / "origin.pth"
    origin.write_bytes(content)
    file = WeightFile("file.pth", origin.as_uri(), hashlib.sha256(content).hexdigest(), 1, "MIT", "a test")
    monkeypatch.setattr(weights, "WEIGHTS", {"thing": file})
    monkeypatch.delenv("GENAE_WEIGHTS", raising=False)
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    return origin


def test_fetched_weights_are_found_and_are_the_published_ones(published):
    seen = []
    (path,) = weights.fetch(["thing"], lambda *progress: seen.append(progress))
    assert weights.find("thing") == path
    assert weights.used("thing")["published"] is True
    assert weights.check() == [("thing", f"ready ({path})")]
    assert seen[-1] == ("thing", 7, 7)
    published.unlink()
    assert weights.fetch(["thing"]) == [path]  # what is there and sound is not fetched again


def test_a_download_that_is_not_the_published_file_leaves_nothing(published):
    published.write_bytes(b"an error page")
    with pytest.raises(OSError, match="nothing was kept"):
        weights.fetch(["thing"])
    assert list(weights.fetched_folder().iterdir()) == []


def test_a_damaged_fetched_file_is_not_used_and_is_fetched_again(published):
    (path,) = weights.fetch(["thing"])
    path.write_bytes(b"damaged")
    with pytest.raises(MissingWeights, match=r"file\.pth is damaged: genae weights fetch thing"):
        weights.find("thing")
    weights.fetch(["thing"])
    assert weights.find("thing").read_bytes() == b"numbers"


def test_the_users_own_file_comes_first_and_is_told_from_the_published_one(published, tmp_path, monkeypatch):
    weights.fetch(["thing"])
    own = tmp_path / "own"
    own.mkdir()
    (own / "file.pth").write_bytes(b"others")
    monkeypatch.setenv("GENAE_WEIGHTS", str(own))
    assert weights.find("thing") == own / "file.pth"
    assert weights.used("thing")["published"] is False
    assert weights.check() == [("thing", f"not the published file: {own / 'file.pth'}")]


def test_eight_digits_of_a_digest_are_enough_where_no_more_are_published(published, monkeypatch):
    short = WeightFile("file.pth", published.as_uri(), weights.WEIGHTS["thing"].sha256[:8], 1, "MIT", "a test")
    monkeypatch.setattr(weights, "WEIGHTS", {"thing": short})
    weights.fetch(["thing"])
    assert weights.used("thing")["published"] is True


def test_digests_of_the_list_begin_as_the_files_names_end():
    for file in weights.WEIGHTS.values():
        assert file.sha256.startswith(re.search(r"-([0-9a-f]{8})\.pth$", file.file)[1])
        assert file.url.endswith(file.file)


def test_listing_weights_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; from genae.features import weights; print(len(weights.check()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "4\n"


def test_inception_rounds_images_to_the_levels_of_a_png(with_weights):
    from genae.pixels import from_uint8, to_png_unit

    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_png_unit(from_uint8(levels)), levels.float() / 255)
    assert np.array_equal(to_png_unit(from_uint8(levels) + 0.4 / 127.5), to_png_unit(from_uint8(levels)))
    extractor = FEATURES.build({"name": "inception-2015"})
    images = from_uint8(torch.randint(1, 255, (1, 3, 8, 8), dtype=torch.uint8))
    with torch.inference_mode():
        assert torch.equal(extractor(images), extractor(images + 0.4 / 127.5))
