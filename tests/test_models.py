"""What is particular to some models; what holds for all is in genae/conformance/test_models.py."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from genae.latent import Gaussian, Sphere
from genae.models.autoencoder import mix
from genae.registry import MODELS


@pytest.mark.parametrize(
    ("name", "latent"),
    [
        ("automodulator", Sphere(512)),
        ("vae-adain", Gaussian(512)),
        ("vae-classic", Gaussian(512)),
        ("autoencoder", Gaussian(64)),
    ],
)
def test_default_latent_spaces_are_the_published_ones(name, latent):
    with torch.device("meta"):
        assert MODELS.build({"name": name}, (3, 32, 32)).latent == latent


def test_the_automodulators_codes_may_be_those_of_its_equations():
    torch.manual_seed(0)
    settings = {"name": "automodulator", "latent_dim": 8, "channels": [4]}
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sphere, gaussian = (MODELS.build({**settings, "latent": latent}, (3, 8, 8)).eval() for latent in ("sphere", "gaussian"))
    gaussian.load_state_dict(sphere.state_dict())
    assert (sphere.latent, gaussian.latent) == (Sphere(8), Gaussian(8))
    raw = gaussian.encode(images)
    assert not torch.allclose(raw.norm(dim=1), torch.ones(4), atol=0.01)
    torch.testing.assert_close(sphere.encode(images), raw / raw.norm(dim=1, keepdim=True))


def test_the_baselines_of_table_2a_share_the_automodulators_networks():
    with torch.device("meta"):
        automodulator, adain, classic = (
            MODELS.build({"name": name}, (3, 64, 64)) for name in ("automodulator", "vae-adain", "vae-classic")
        )

    def shapes(part: torch.nn.Module) -> dict[str, torch.Size]:
        return {key: value.shape for key, value in part.named_parameters()}

    assert shapes(adain.decoder) == shapes(automodulator.decoder)
    assert shapes(adain.encoder) == shapes(classic.encoder)
    twice = {key: shape for key, shape in shapes(adain.encoder).items() if shapes(automodulator.encoder)[key] != shape}
    assert twice == {"last.2.weight": (1024, 512, 4, 4), "last.2.bias": (1024,)}


def test_settings_as_json_gives_them_build_the_same_model():
    small = {"name": "automodulator", "latent_dim": 4}
    one, other = (MODELS.build({**small, "channels": channels}, (1, 8, 8)) for channels in ([6, 4], (6, 4)))
    assert [p.shape for p in one.parameters()] == [p.shape for p in other.parameters()]


class _CopiesOfHostNumbers(TorchDispatchMode):
    """Refuses tensors made of plain numbers: on a GPU each such copy waits for the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten.lift_fresh.default, "a plain number became a tensor"
        return function(*args, **(kwargs or {}))


def test_mixing_at_a_plain_number_copies_nothing_to_the_device():
    a, b = torch.zeros(2, 3), torch.ones(2, 3)
    with _CopiesOfHostNumbers():
        mixed = mix(a, b, 2, 4)
    assert torch.equal(mixed, mix(a, b, torch.tensor([2, 2]), 4))


def test_mixing_takes_the_first_codes_up_to_the_split():
    a, b = torch.zeros(2, 3), torch.ones(2, 3)
    assert mix(a, b, 1, 3)[0, :, 0].tolist() == [0, 1, 1]
    assert mix(a, b, torch.tensor([0, 3]), 3)[:, :, 0].tolist() == [[1, 1, 1], [0, 0, 0]]
