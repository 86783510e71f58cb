"""`fid` over a packed data set against pytorch_fid's own command over folders of PNGs, with one file of random weights."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from torch import Tensor, nn

from genae.conformance.random_weights import write_random_weights
from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.data.datasets import open_dataset
from genae.data.prepare import prepare
from genae.latent import Gaussian
from genae.metrics.fid import FID, FDEfficientNet, FIDMix, reference_statistics
from genae.metrics.frechet import frechet_distance, statistics_of
from genae.metrics.images import mixed_samples, samples
from genae.models.autoencoder import Generator
from genae.pixels import from_uint8
from genae.registry import FEATURES

COUNT = 10


def pictures(seed: int) -> np.ndarray:
    """Smooth colour images, uint8 [10, 3, 32, 32]."""
    coarse = torch.from_numpy(np.random.default_rng(seed).normal(128, 60, (COUNT, 3, 5, 5)))
    return nn.functional.interpolate(coarse, 32, mode="bicubic").clamp(0, 255).round().to(torch.uint8).numpy()


def dataset(split: str) -> Dataset:
    images = pictures(seed=len(split))
    return Dataset("pictures", split, images, hashlib.sha256(images.tobytes()).hexdigest())


class Album(Generator):
    """ "Generates" given images: its k-th code is the number k, and its decoder looks it up, a little off the 256 levels."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__(Gaussian(1), nn.Identity())
        self.images = from_uint8(torch.tensor(images))

    def sample_codes(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.arange(n)[:, None]

    def decode(self, codes: Tensor, growth: None = None) -> Tensor:
        return self.images[codes[:, 0]] + 0.4 / 127.5  # less than half a level: rounding undoes it


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_random_weights(tmp_path_factory.mktemp("weights"), "inception-2015")


@pytest.fixture
def with_weights(weights, tmp_path, monkeypatch) -> None:
    """The same file where genae looks and where pytorch_fid would have downloaded it to."""
    downloads = tmp_path / "torch" / "hub" / "checkpoints"
    downloads.mkdir(parents=True)
    (downloads / weights.name).symlink_to(weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("GENAE_WEIGHTS", str(weights.parent))
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))


def write_pngs(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture
def packed(with_weights, tmp_path) -> Splits:
    """The data set as `genae data prepare folder` packs it, from the PNGs in tmp_path / "pictures" / "train" and "test"."""
    (tmp_path / "pictures").mkdir()
    for split in ("train", "test"):
        write_pngs(tmp_path / "pictures" / split, dataset(split).images)
    prepare("folder", tmp_path / "pictures", pack="pictures", resolution=32)
    return Splits(lambda split: open_dataset({"name": "folder", "pack": "pictures", "resolution": 32}, split))


def pytorch_fid_command(monkeypatch, *arguments: object) -> None:
    from pytorch_fid import fid_score

    monkeypatch.setattr(sys, "argv", ["pytorch-fid", "--device", "cpu", "--num-workers", "0", *map(str, arguments)])
    fid_score.main()


def pytorch_fid_statistics(monkeypatch, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance, as pytorch_fid's command saves them of a folder of PNGs."""
    pytorch_fid_command(monkeypatch, "--save-stats", folder, folder.with_suffix(".npz"))
    with np.load(folder.with_suffix(".npz")) as saved:
        return saved["mu"], saved["sigma"]


@torch.inference_mode()
def test_fid_over_a_packed_data_set_is_pytorch_fids_over_folders_of_pngs(packed, monkeypatch, tmp_path):
    generated = pictures(seed=100)
    theirs_real = pytorch_fid_statistics(monkeypatch, tmp_path / "pictures" / "train")
    theirs_generated = pytorch_fid_statistics(monkeypatch, write_pngs(tmp_path / "generated", generated))

    deviation = np.sqrt(np.diag(theirs_real[1]).mean())  # of a feature between images
    assert deviation > 0.05 * np.abs(theirs_real[0]).mean()  # the random network does tell images apart

    extractor, context = FEATURES.build({"name": "inception-2015"}), Context()
    ours_real = reference_statistics(packed.train, "inception-2015", extractor, context)
    ours_generated = statistics_of(extractor(images) for images in samples(Album(generated), COUNT, context))
    for ours, (mean, covariance) in ((ours_real, theirs_real), (ours_generated, theirs_generated)):
        assert np.abs(ours.mean.numpy() - mean).max() < 1e-5 * deviation
        assert np.abs((ours.root.T @ ours.root).numpy() - covariance).max() < 1e-5 * deviation**2

    value = FID(num_generated=COUNT).measure(Album(generated), packed, context)["fid"]
    assert value == pytest.approx(frechet_distance(ours_real, ours_generated), rel=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Matrix is singular")
@torch.inference_mode()
def test_fid_is_what_pytorch_fids_command_prints(packed, monkeypatch, tmp_path, capsys):
    generated = pictures(seed=100)
    folders = tmp_path / "pictures" / "train", write_pngs(tmp_path / "generated", generated)
    from pytorch_fid import fid_score

    # SciPy 1.18 removes sqrtm's `disp`, which it passes; with disp=False the root came with an error estimate
    monkeypatch.setattr(fid_score.linalg, "sqrtm", lambda product, disp, root=scipy.linalg.sqrtm: (root(product), None))
    pytorch_fid_command(monkeypatch, *folders)
    printed = float(capsys.readouterr().out.rpartition("FID:")[2])
    value = FID(num_generated=COUNT).measure(Album(generated), packed, Context())["fid"]
    assert value == pytest.approx(printed, rel=1e-4)  # their matrix root of a singular product is good to about 1e-5


@torch.inference_mode()
def test_reference_statistics_are_computed_once_and_read_again(with_weights):
    extractor, data, calls = FEATURES.build({"name": "tiny"}), dataset("train"), []
    extractor.register_forward_hook(lambda *call: calls.append(call))
    first = reference_statistics(data, "tiny", extractor, Context())
    again = reference_statistics(data, "tiny", extractor, Context(batch_size=3))
    assert len(calls) == 1
    assert torch.equal(first.mean, again.mean)
    reference_statistics(data.first(7), "tiny", extractor, Context())
    reference_statistics(dataset("test"), "tiny", extractor, Context())
    assert len(calls) == 3  # other images are another entry
    extractor.resize = "64x64 bilinear"
    reference_statistics(data, "tiny", extractor, Context())
    assert len(calls) == 4  # the same images, seen otherwise
    extractor.revision += 1
    reference_statistics(data, "tiny", extractor, Context())
    assert len(calls) == 5  # the same weights, used otherwise
    reference_statistics(data, "tiny", extractor, Context())
    assert len(calls) == 5


def test_the_header_names_whatever_is_not_the_published_protocol(with_weights, monkeypatch):
    assert FDEfficientNet().label("fd-efficientnet") == "fd-efficientnet"
    assert FDEfficientNet(num_generated=2000).label("fd-efficientnet") == "fd-efficientnet-2k"
    limited = FDEfficientNet(num_generated=500, num_reference=7)
    assert limited.label("fd-efficientnet") == "fd-efficientnet-500 (7 reference images)"
    assert FID().label("fid").startswith("fid (unpublished weights ")
    monkeypatch.delenv("GENAE_WEIGHTS")
    assert FID().label("fid") == "fid"  # nothing will be measured, so there is nothing to say


def test_the_protocol_says_which_weights_were_used_and_that_they_are_not_the_published_ones(with_weights, weights):
    protocol = FID().protocol(Splits(dataset), Context())
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert protocol["weights"] == {"weights": "inception-2015", "sha256": digest, "published": False}
    assert protocol["reference"] == {"split": "train", "digest": dataset("train").digest, "count": COUNT}


@pytest.mark.parametrize("metric", [FID(), FDEfficientNet()], ids=["fid", "fd-efficientnet"])
def test_the_protocol_names_the_resizing_that_its_extractor_does(metric, with_weights):
    extractor, protocol = FEATURES.build({"name": metric.extractor}), metric.protocol(Splits(dataset), Context())
    assert protocol["resize"] == extractor.resize != "none"


class Layers(nn.Module):
    """Shows the code of layer k as the brightness of column k."""

    num_layers = 4

    def forward(self, codes: Tensor, growth: None) -> Tensor:
        return codes[:, None, None, :, 0].expand(-1, 3, 4, -1)


def test_mixed_samples_change_from_one_code_to_another_at_a_layer_drawn_uniformly():
    model = Generator(Gaussian(1), Layers())
    images = torch.cat(list(mixed_samples(model, 3000, Context(batch_size=999))))
    columns = images[:, 0, 0, :]  # [3000, 4], the code that each layer got
    changes = columns[:, 1:] != columns[:, :-1]
    kept = changes.sum(1) == 1  # the rest drew two codes that round to one level
    assert kept.float().mean() > 0.8
    shares = changes[kept].float().mean(0)
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.04)  # five standard errors


def test_mixing_needs_two_layers():
    decoder = Layers()
    decoder.num_layers = 1
    with pytest.raises(ValueError, match="two layers"):
        next(mixed_samples(Generator(Gaussian(1), decoder), 2, Context()))
    assert "layers" in FIDMix.needs


def test_samples_do_not_depend_on_the_batch_size_and_are_what_a_png_holds():
    class Wide(nn.Module):
        def forward(self, codes: Tensor, growth: None) -> Tensor:
            return 2 * codes[:, :, None, None]

    model = Generator(Gaussian(3), Wide())
    one = torch.cat(list(samples(model, 1500, Context(batch_size=1500))))
    many = torch.cat(list(samples(model, 1500, Context(batch_size=64))))
    assert one.shape == (1500, 3, 1, 1)
    assert torch.equal(one, many)
    levels = (one + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert one.min() == -1
    assert one.max() == 1
