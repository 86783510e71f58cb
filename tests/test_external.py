"""A generator of somebody else's: read from its file, measured end to end, and refused where it is not what was meant."""

import hashlib
import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from genae import checkpoint
from genae.latent import Gaussian, Sphere
from genae.models import layer_table
from genae.registry import MODELS
from genae.schedule import Growth

DIM, SIZE = 4, 16
MODULE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.layer = nn.Linear(4, channels * 16 * 16)

    def forward(self, codes):
        return self.layer(codes).sigmoid().unflatten(1, (self.channels, 16, 16))


def tiny(*, channels=3):
    return Net(channels)


def number():
    return 7
"""


class Generator(nn.Module):
    """Codes [N, 4] -> images [N, 3, size, size] in [-1, 1]."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__()
        self.size = size
        self.layer = nn.Linear(DIM, 3 * size * size)

    def forward(self, codes: Tensor) -> Tensor:
        return self.layer(codes).tanh().view(-1, 3, self.size, self.size)


class Noisy(Generator):
    def forward(self, codes: Tensor) -> Tensor:
        return self.layer(codes).view(-1, 3, self.size, self.size) + torch.rand(1)


def scripted(network: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(network).save(str(path))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def spec(path: Path, **settings: object) -> dict:
    return {"name": "external", "file": path.name, "sha256": sha256(path), "latent_dim": DIM, **settings}


def built(path: Path, shape: tuple[int, int, int] = (3, SIZE, SIZE), **settings: object):
    return MODELS.build(spec(path, **settings), shape)


def codes(n: int = 3) -> Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a user's weights; a module of factories is importable."""
    own = tmp_path / "weights"
    own.mkdir()
    monkeypatch.setenv("GENAE_WEIGHTS", str(own))
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "their_networks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_networks", raising=False)
    torch.manual_seed(0)
    return own


@pytest.fixture
def tensors(folder):
    """safetensors of the network that `their_networks:tiny` makes."""
    layer = nn.Linear(DIM, 3 * SIZE * SIZE)
    save_file({"layer.weight": layer.weight.detach(), "layer.bias": layer.bias.detach()}, folder / "tiny.safetensors")
    return folder / "tiny.safetensors"


def test_a_torchscript_file_gives_its_own_images(folder):
    network = Generator()
    model = built(scripted(network, folder / "tiny.pt"))
    assert model.provides == {"decode", "sample"}
    assert model.latent == Gaussian(DIM)
    assert torch.equal(model.decode(codes()), network(codes()))
    assert built(folder / "tiny.pt", latent="sphere").latent == Sphere(DIM)


def test_tensors_fill_the_network_that_a_factory_makes_and_the_range_is_the_houses(folder, tensors):
    model = built(tensors, factory="their_networks:tiny", range="[0, 1]")
    import their_networks

    network = their_networks.tiny()
    network.load_state_dict(model.decoder.network.state_dict())
    assert torch.equal(model.decode(codes()), network(codes()) * 2 - 1)


def test_a_larger_generator_is_averaged_down_over_areas(folder):
    network = Generator(64)
    model = built(scripted(network, folder / "large.pt"), resolution=64)
    by_hand = network(codes()).reshape(3, 3, SIZE, 4, SIZE, 4).mean((3, 5))
    torch.testing.assert_close(model.decode(codes()), by_hand, atol=1e-6, rtol=0)


def test_no_parameter_is_trained_and_an_optimised_code_gets_its_gradient(folder):
    model = built(scripted(Generator(), folder / "tiny.pt"))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    wanted = codes().requires_grad_()
    model.decode(wanted).square().sum().backward()
    assert wanted.grad.any()


def test_two_files_of_the_same_numbers_are_two_states(folder):
    """The code is not among the tensors, but the file's digest is."""
    torch.manual_seed(1)
    one = scripted(Generator(), folder / "one.pt")
    torch.manual_seed(1)

    class Darker(Generator):
        def forward(self, codes: Tensor) -> Tensor:
            return self.layer(codes).tanh().view(-1, 3, self.size, self.size) - 0.5

    other = scripted(Darker(), folder / "other.pt")
    states = [built(path).state_dict() for path in (one, other)]
    assert checkpoint.digest(states[0]) != checkpoint.digest(states[1])
    digests = [state.pop("decoder.file_sha256") for state in states]
    assert checkpoint.digest(states[0]) == checkpoint.digest(states[1])
    assert bytes(digests[0].tolist()).hex() == sha256(one)


def test_a_file_that_is_not_there_is_said_with_where_it_goes(folder, tmp_path):
    missing = {"name": "external", "file": "stylegan.pt", "sha256": "ab" * 32}
    with pytest.raises(FileNotFoundError) as error:
        MODELS.build(missing, (3, SIZE, SIZE))
    for said in ("stylegan.pt", str(folder / "stylegan.pt"), str(tmp_path / "cache"), "ab" * 32):
        assert said in str(error.value)


def test_another_file_under_the_same_name_is_refused(folder):
    path = scripted(Generator(), folder / "tiny.pt")
    with pytest.raises(ValueError, match=rf"tiny.pt has sha256 {sha256(path)}, not {'0' * 64}"):
        built(path, sha256="0" * 64)
    assert built(path, sha256=sha256(path).upper())  # hex is hex


@pytest.mark.parametrize("name", ["net.pkl", "net.pth", "net.pt", "net.safetensors"])
def test_a_pickle_is_refused_whatever_it_is_called(folder, name):
    torch.save(Generator().state_dict(), folder / name)
    with pytest.raises(ValueError, match=rf"{name} is a pickle.*trust_pickle: true"):
        built(folder / name, factory="their_networks:tiny")


def test_a_bare_pickle_is_refused_unread(folder):
    (folder / "trap.pkl").write_bytes(b"\x80\x04c__builtin__\nexit\n(tR.")  # reading it would end the process
    with pytest.raises(ValueError, match=r"trap.pkl is a pickle"):
        built(folder / "trap.pkl")


def test_a_pickle_that_is_trusted_is_read_with_or_without_its_network(folder):
    network = nn.Sequential(nn.Linear(DIM, 3 * SIZE * SIZE), nn.Unflatten(1, (3, SIZE, SIZE)))
    torch.save(network, folder / "whole.pth")
    assert torch.equal(built(folder / "whole.pth", trust_pickle=True).decode(codes()), network(codes()))
    import their_networks

    torch.save(their_networks.tiny().state_dict(), folder / "state.pth")
    model = built(folder / "state.pth", trust_pickle=True, factory="their_networks:tiny", factory_settings={"channels": 3})
    assert model.decode(codes()).shape == (3, 3, SIZE, SIZE)


def test_images_of_another_size_or_kind_than_the_data_are_refused(folder):
    path = scripted(Generator(), folder / "tiny.pt")
    with pytest.raises(ValueError, match=r"tiny.pt makes \[1, 3, 16, 16\] of codes \[1, 4\], not \[1, 3, 8, 8\]"):
        built(path, (3, 8, 8))
    with pytest.raises(ValueError, match=r"the data are 16x16 with 1 channels"):
        built(path, (1, SIZE, SIZE))
    with pytest.raises(ValueError, match="cannot be area-averaged to 12"):
        built(path, (3, 12, 12), resolution=16)
    assert built(path, (3, 8, 8), resolution=16).decode(codes()).shape == (3, 3, 8, 8)


def test_a_network_that_draws_its_own_noise_is_refused(folder):
    with pytest.raises(ValueError, match=r"noisy.pt gives another image each time"):
        built(scripted(Noisy(), folder / "noisy.pt"))


def test_it_does_not_grow(folder):
    model = built(scripted(Generator(), folder / "tiny.pt"))
    assert model.decode(codes(), Growth(SIZE)).shape == (3, 3, SIZE, SIZE)
    with pytest.raises(ValueError, match="does not grow"):
        model.decode(codes(), Growth(8))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "holds tensors and no network"),
        ({"factory": "their_networks"}, "module:function"),
        ({"factory": "no_such_networks:tiny"}, "no module 'no_such_networks'.*imports"),
        ({"factory": "their_networks:huge"}, "no function 'huge'"),
        ({"factory": "their_networks:number"}, "must return a torch.nn.Module; it returned int"),
        (
            {"factory": "their_networks:tiny", "factory_settings": {"channels": 1}},
            "tiny.safetensors does not fit.*layer.weight",
        ),
    ],
)
def test_a_factory_that_does_not_fit_is_told_apart(folder, tensors, settings, said):
    with pytest.raises(ValueError, match=said):
        built(tensors, **settings)


def test_a_factory_beside_a_file_with_its_own_network_is_refused(folder):
    with pytest.raises(ValueError, match="brings its own network"):
        built(scripted(Generator(), folder / "tiny.pt"), factory="their_networks:tiny")


def test_a_damaged_file_is_named(folder, tensors):
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"tiny\.safetensors cannot be read as safetensors: "):
        built(tensors, factory="their_networks:tiny")
    with zipfile.ZipFile(folder / "hollow.pt", "w") as archive:
        archive.writestr("hollow/code/__torch__.py", "what is left of it")
    with pytest.raises(ValueError, match=r"hollow\.pt cannot be read as torchscript: "):
        built(folder / "hollow.pt")


def test_its_layers_are_its_own_affair(folder):
    asked = spec(scripted(Generator(), folder / "tiny.pt"))
    data = {"name": "synthetic-faces", "resolution": SIZE, "num_train": 8, "num_test": 8}
    assert list(layer_table.lines(asked, data)) == ["(the layers of external cannot be told without computing them)"]


def test_a_file_of_anything_else_is_refused(folder):
    (folder / "notes.txt").write_text("weights will follow")
    with pytest.raises(ValueError, match=r"notes\.txt is neither TorchScript nor safetensors"):
        built(folder / "notes.txt")


def test_a_table_measures_them_and_a_row_whose_file_is_missing_keeps_no_other_from_its_numbers(folder, tensors, tmp_path):
    script = scripted(Generator(32), folder / "script.pt")
    measured = {"name": "fd-efficientnet", "num_generated": 8, "num_reference": 8}
    experiment = {
        "table": "published/generators",
        "imports": ["their_networks"],
        "shared": {
            "data": {"name": "synthetic-faces", "resolution": SIZE, "num_train": 16, "num_test": 8},
            "metrics": [measured],
            "figures": [{"name": "samples", "rows": 1, "columns": 2}],
        },
        "rows": {
            "script": {"model": spec(script, resolution=32)},
            "tensors": {"model": spec(tensors, factory="their_networks:tiny", range="[0, 1]")},
            "absent": {"model": {"name": "external", "file": "absent.pt", "sha256": "ab" * 32}},
        },
    }
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "published.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
    command = [sys.executable, "-m", "genae", "run", "published.yaml", "--jobs", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("model 'external' needs absent.pt: put it here as ") == 1, done.stderr

    lines = (tmp_path / "results/published/generators.jsonl").read_text().splitlines()
    records = {record["row"]: record for record in map(json.loads, lines)}
    assert set(records) == {"script", "tensors"}
    assert all(record["value"] > 0 and record["images_seen"] == 0 for record in records.values())
    assert records["script"]["identity"] != records["tensors"]["identity"]
    assert list((tmp_path / "results/published/generators/figures/script-synthetic-faces-s0").glob("samples*.png"))
