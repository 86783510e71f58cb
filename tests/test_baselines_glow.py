"""GLOW: the parts that make the method (Kingma & Dhariwal, 2018), and its density against the mathematics."""

import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from genae.experiment import import_modules, project_root
from genae.models.autoencoder import Generator
from genae.registry import MODELS
from genae.schedule import Growth

import_modules(["baselines.glow"], project_root(Path(__file__)))


def small(shape: tuple[int, int, int] = (3, 8, 8), off_start: bool = True, **settings) -> Generator:
    torch.manual_seed(0)
    spec = {"name": "glow", "num_levels": 2, "num_steps": 2, "hidden_channels": 6, "coupling": "affine", **settings}
    with warnings.catch_warnings(action="ignore"):  # torch.lu, which normflows calls
        model = MODELS.build(spec, shape)
    if off_start:  # where couplings and bases are trivial
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def pictures(n: int, shape: tuple[int, int, int] = (3, 8, 8)) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(n)) * 2 - 1


def parts_of(model: Generator, name: str) -> list[nn.Module]:
    return [part for part in model.modules() if type(part).__name__ == name]


# A bijection, and its density.


@pytest.mark.parametrize("coupling", ["additive", "affine"])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 16, 16)])
def test_decoding_undoes_encoding_and_the_other_way_round(shape, coupling):
    model = small(shape, coupling=coupling)
    images, codes = pictures(4, shape), model.prior(4, torch.Generator().manual_seed(0))
    assert model.encode(images).shape == (4, math.prod(shape))
    torch.testing.assert_close(model.decode(model.encode(images)), images, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.encode(model.decode(codes)), codes, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("coupling", ["additive", "affine"])
def test_the_density_is_that_of_the_code_times_the_change_of_volume(coupling):
    # p(x) = N(z; 0, I) |det dz/dx|, the Jacobian by differentiating every output by every input.
    model = small((1, 8, 8), coupling=coupling).double()
    for image in pictures(2, (1, 8, 8)).double():
        jacobian = torch.autograd.functional.jacobian(lambda x: model.encode(x[None])[0], image).reshape(64, 64)
        code = model.encode(image[None])[0]
        expected = -code.square().sum() / 2 - 32 * math.log(2 * math.pi) + torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(model.log_prob(image[None])[0], expected)


def test_before_training_the_prior_is_all_that_an_image_is_judged_by():
    # Actnorm and couplings change nothing yet, and a 1x1 convolution that rotates changes no length.
    model, images = small(off_start=False), pictures(3)
    expected = -images.flatten(1).square().sum(1) / 2 - 96 * math.log(2 * math.pi)
    additive = small(off_start=False, coupling="additive")
    torch.testing.assert_close(additive.log_prob(images), expected, atol=1e-2, rtol=1e-4)
    # An affine coupling starts at the scale sigmoid(2), which halves of each step's features have: 2 steps on 192, 2 on 96.
    assert not torch.allclose(model.log_prob(images), expected)


def test_likelihood_falls_where_images_leave_the_range():
    model = small()
    assert (model.log_prob(10 * pictures(3)) < model.log_prob(pictures(3))).all()


# Its parts.


def test_a_level_is_a_squeeze_then_steps_of_actnorm_convolution_and_coupling_then_a_split():
    model = small((3, 16, 16), num_levels=3, num_steps=4)
    assert (
        len(parts_of(model, "ActNorm")) == len(parts_of(model, "Invertible1x1Conv")) == len(parts_of(model, "GlowBlock")) == 12
    )
    assert len(parts_of(model, "Squeeze")) == 3
    for step in parts_of(model, "GlowBlock"):  # listed from codes to images: encoding runs them from the last
        assert [type(part).__name__ for part in step.flows] == ["AffineCouplingBlock", "Invertible1x1Conv", "ActNorm"]
    # 16x16x3 -> 8x8x12, half of which is a code; the rest -> 4x4x24, and again; the last, 2x2x48, is code whole.
    sizes = [base.shape for base in model.decoder.flow.q0]
    assert sizes == [(48, 2, 2), (12, 4, 4), (6, 8, 8)]
    assert sum(map(math.prod, sizes)) == 3 * 16 * 16 == model.latent.dim


def test_codes_split_off_early_hold_detail_and_the_last_the_whole_picture():
    model = small((3, 16, 16), off_start=False, num_steps=1)
    codes = model.encode(pictures(1, (3, 16, 16)))
    early = codes.clone()
    early[:, -1] += 1  # of the first split, at 8x8
    late = codes.clone()
    late[:, 0] += 1  # of the last level, at 4x4
    image = model.decode(codes)
    assert (
        ((model.decode(early) - image).abs() > 1e-4).any(1).sum()
        <= 4
        < ((model.decode(late) - image).abs() > 1e-4).any(1).sum()
    )


def test_a_1x1_convolution_starts_as_a_rotation_and_stays_invertible():
    for part in parts_of(small(off_start=False), "Invertible1x1Conv"):
        weight = part._assemble_W()
        torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-5, rtol=1e-4)
    for part in parts_of(small(), "Invertible1x1Conv"):
        x = torch.randn(2, part.num_channels, 4, 4)
        y, log_det = part.inverse(x)
        expected = torch.einsum("oi,nihw->nohw", part._assemble_W(), x)
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)
        assert log_det.item() == pytest.approx(16 * torch.linalg.slogdet(part._assemble_W()).logabsdet.item(), rel=1e-4)


@pytest.mark.parametrize("coupling", ["additive", "affine"])
def test_a_coupling_keeps_one_half_and_moves_the_other_by_it(coupling):
    step = parts_of(small(coupling=coupling), "AffineCouplingBlock")[-1]
    x = torch.randn(2, 12, 4, 4)
    y, log_det = step.inverse(x)
    assert torch.equal(y[:, :6], x[:, :6])
    assert not torch.allclose(y[:, 6:], x[:, 6:])
    assert (log_det.abs() > 0).all() == (coupling == "affine")


def test_couplings_start_as_near_to_nothing_as_glow_has_them():
    additive, affine = (small(off_start=False, coupling=kind) for kind in ("additive", "affine"))
    x = torch.randn(2, 12, 4, 4)
    assert torch.equal(parts_of(additive, "AffineCouplingBlock")[-1].inverse(x)[0], x)
    expected = torch.cat([x[:, :6], x[:, 6:] * torch.sigmoid(torch.tensor(2.0))], 1)
    torch.testing.assert_close(parts_of(affine, "AffineCouplingBlock")[-1].inverse(x)[0], expected)


# Actnorm.


def seen_by_actnorm(model: Generator, images: Tensor) -> list[Tensor]:
    """What comes out of each actnorm when images are encoded."""
    found = []
    for part in parts_of(model, "ActNorm"):
        inverse = part.inverse
        part.inverse = lambda z, inverse=inverse: (found.append(inverse(z)), found[-1])[1]
    model.encode(images)
    for part in parts_of(model, "ActNorm"):
        del part.inverse
    return [output for output, _ in found]


def test_after_the_first_batch_every_actnorm_gives_mean_0_and_variance_1():
    model = small(off_start=False).train()
    images = 3 * pictures(32) + 1
    model.log_prob(images)
    for output in seen_by_actnorm(model.eval(), images):
        torch.testing.assert_close(output.mean((0, 2, 3)), torch.zeros(output.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(output.square().mean((0, 2, 3)), torch.ones(output.shape[1]), atol=1e-3, rtol=0)


def test_only_the_first_batch_in_train_mode_sets_actnorm():
    model = small(off_start=False)

    def states() -> Tensor:
        return torch.cat([torch.cat([part.s.flatten(), part.t.flatten()]) for part in parts_of(model, "ActNorm")]).clone()

    start = states()
    model.eval().log_prob(pictures(8))
    model.train().decode(model.prior(8, torch.Generator().manual_seed(0)))
    assert torch.equal(states(), start)
    model.log_prob(pictures(8))
    first = states()
    assert not torch.equal(first, start)
    model.log_prob(5 * pictures(9))
    assert torch.equal(states(), first)


def test_a_model_loaded_before_or_after_its_first_batch_goes_on_from_there():
    untrained, trained = small(off_start=False), small(off_start=False).train()
    before = {key: value.clone() for key, value in untrained.state_dict().items()}
    trained.log_prob(pictures(8))
    after = {key: value.clone() for key, value in trained.state_dict().items()}
    assert any(key.endswith("initialized") and value for key, value in after.items())

    other = small().train()
    other.load_state_dict(after)
    other.log_prob(5 * pictures(9))  # the statistics of this batch are not looked at
    assert all(torch.equal(value, after[key]) for key, value in other.state_dict().items())
    other.load_state_dict(before)  # and now they are, though they had been set in this very object
    other.log_prob(pictures(8))
    assert all(torch.equal(value, after[key]) for key, value in other.state_dict().items())


def test_a_channel_that_never_changes_makes_nothing_infinite():
    model = small((1, 8, 8), off_start=False).train()
    assert model.log_prob(torch.zeros(4, 1, 8, 8)).isfinite().all()


# Sampling, and what it refuses.


def test_temperature_scales_the_codes_of_samples_only():
    warm, cool = small(), small(temperature=0.7)
    codes = warm.sample_codes(3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(cool.sample_codes(3, torch.Generator().manual_seed(0)), 0.7 * codes)
    assert torch.equal(warm.prior(3, torch.Generator().manual_seed(0)), codes)
    assert torch.equal(cool.prior(3, torch.Generator().manual_seed(0)), codes)


def test_images_that_cannot_be_halved_so_often_are_refused():
    with pytest.raises(ValueError, match="num_levels"):
        small(num_levels=4)
    with pytest.raises(ValueError, match="does not grow"):
        small().encode(pictures(1), Growth(8, 0.5))


def test_without_normflows_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'genae\[baselines\]'"):
        small()


def test_the_published_model_of_celeba_hq_is_the_default():
    settings = {name: parameter.default for name, parameter in MODELS["glow"].settings.items()}
    assert settings == {"num_levels": 6, "num_steps": 32, "hidden_channels": 512, "coupling": "additive", "temperature": 1.0}


def test_a_flow_keeps_all_digits_under_autocast():
    model, images = small(), pictures(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.log_prob(images), small().log_prob(images))
        assert model.decode(model.encode(images)).dtype == torch.float32


def test_training_brings_a_flow_to_a_density_that_is_known():
    """Pixels independent and N(0.2, 0.3^2): the best log density per pixel is -log(0.3 sqrt(2 pi e)) = -0.215."""
    model = small((1, 4, 4), off_start=False, num_levels=1, num_steps=2, hidden_channels=4).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        loss = -model.log_prob(0.2 + 0.3 * torch.randn(64, 1, 4, 4, generator=generator)).mean() / 16
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    held_out = 0.2 + 0.3 * torch.randn(2000, 1, 4, 4, generator=generator)
    best = -math.log(0.3 * math.sqrt(2 * math.pi * math.e))
    assert model.eval().log_prob(held_out).mean().item() / 16 == pytest.approx(best, abs=0.03)
    samples = model.decode(model.prior(2000, generator))
    assert samples.mean().item() == pytest.approx(0.2, abs=0.03)
    assert samples.std().item() == pytest.approx(0.3, abs=0.03)


def test_a_code_on_which_the_inverse_explodes_is_still_an_image():
    model = small((1, 4, 4), num_levels=1, num_steps=2, hidden_channels=4)
    codes = model.prior(3, torch.Generator().manual_seed(0))
    ordinary = model.decode(codes)
    codes[1] *= 1e38
    images = model.decode(codes)
    assert images.isfinite().all()
    assert images.abs().max() <= 100
    torch.testing.assert_close(images[[0, 2]], ordinary[[0, 2]])
