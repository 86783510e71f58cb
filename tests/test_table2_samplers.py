"""Table 2's rivals that only draw samples: GAN and GMMN+AE, each part against its definition."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

import genae
from genae import checkpoint, study, trainer
from genae.experiment import import_modules, load, project_root
from genae.networks.fully_connected import as_images, as_vectors
from genae.registry import DENSITIES, MODELS, OBJECTIVES
from genae.rundir import RunDir
from genae.schedule import Growth, Phase
from genae.stop import Stop

import_modules(["baselines.gan", "baselines.gmmn"], project_root(Path(__file__)))

SHAPE = (1, 7, 7)  # no power of two: fully connected networks do not mind


def build(name: str, **settings):
    torch.manual_seed(0)
    return MODELS.build({"name": name, **MODELS[name].small, **settings}, SHAPE).eval()


def gmmn(dim: int, **settings):
    torch.manual_seed(0)
    return DENSITIES.build({"name": "gmmn", **settings}, dim)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int) -> Tensor:
    return torch.rand(n, *SHAPE, generator=generator(n)) * 2 - 1


def phase() -> Phase:
    moment = {"index": 0, "fade": 1.0, "settled": True, "images_seen": 0, "epoch": 0.0}
    return Phase(resolution=7, batch_size=4, learning_rate=1e-3, margin=0.0, **moment)


# Images as vectors.


def test_vectors_of_pixels_and_images_are_one_another():
    images = torch.rand(2, 3, 5, 5) * 2 - 1
    vectors = as_vectors(images.to(memory_format=torch.channels_last), (3, 5, 5))
    assert 0 <= vectors.min() <= vectors.max() <= 1
    torch.testing.assert_close(as_images(vectors, (3, 5, 5)), images)
    with pytest.raises(ValueError, match="does not grow"):
        as_vectors(images, (3, 10, 10))
    with pytest.raises(ValueError, match="does not grow"):
        as_images(vectors, (3, 5, 5), Growth(4))


# GAN.


def test_a_maxout_unit_is_the_largest_of_its_maps():
    model = build("gan", discriminator_units=[3, 2], pieces=4, pixel_dropout=0.0, dropout=0.0)
    images = pictures(5)
    x = (images.flatten(1) + 1) / 2
    linear = [part for part in model.discriminator.modules() if isinstance(part, nn.Linear)]
    for part, units in zip(linear[:-1], (3, 2), strict=True):
        x = torch.stack(
            [(x @ part.weight[4 * u : 4 * u + 4].T + part.bias[4 * u : 4 * u + 4]).max(1).values for u in range(units)], 1
        )
    torch.testing.assert_close(model.discriminate(images), (x @ linear[-1].weight.T + linear[-1].bias)[:, 0])


def test_the_generator_has_rectifiers_and_sigmoid_pixels():
    model = build("gan")
    codes = model.prior(4, generator())
    x, linear = codes, [part for part in model.decoder.modules() if isinstance(part, nn.Linear)]
    for part in linear[:-1]:
        x = F.linear(x, part.weight, part.bias).relu()
    expected = F.linear(x, linear[-1].weight, linear[-1].bias).sigmoid() * 2 - 1
    torch.testing.assert_close(model.decode(codes).flatten(1), expected)
    assert model.decode(100 * codes).abs().max() <= 1


def test_the_discriminator_drops_pixels_and_hidden_units_in_training_only():
    model = build("gan")
    shares = [part.p for part in model.discriminator.modules() if isinstance(part, nn.Dropout)]
    assert shares == [0.2, 0.5, 0.5]
    images = pictures(3)
    assert torch.equal(model.discriminate(images), model.discriminate(images))
    assert not torch.equal(model.train().discriminate(images), model.discriminate(images))
    assert not [part for part in model.decoder.modules() if isinstance(part, nn.Dropout)]


def test_weights_start_in_the_released_ranges():
    model = MODELS.build({"name": "gan"}, SHAPE)
    for network, limit in ((model.decoder, 0.05), (model.discriminator, 0.005)):
        for part in network.modules():
            if isinstance(part, nn.Linear):
                assert limit * 0.9 < part.weight.abs().max() <= limit
                assert not part.bias.any()


def test_the_players_losses_are_the_papers():
    """max log D(x) + log(1 - D(G(z))) for the discriminator, max log D(G(z)) for the generator (Sec. 3)."""
    model = build("gan", pixel_dropout=0.0, dropout=0.0)
    images = pictures(6)
    objective = OBJECTIVES.build({"name": "non-saturating", "r1_weight": 0.0, "style_mixing": 0.0})
    found = [update.terms(model, images, phase(), generator()) for update in objective.updates(model)]
    real = model.discriminate(images).sigmoid()
    fake = model.discriminate(model.decode(model.prior(6, generator()))).sigmoid()
    torch.testing.assert_close(sum(found[0].values()), -(real.log().mean() + (1 - fake).log().mean()))
    torch.testing.assert_close(sum(found[1].values()), -fake.log().mean())


# GMMN+AE.


def test_the_autoencoder_is_of_sigmoids_with_dropout_on_what_the_encoders_layers_take_in():
    model = build("gmmn-autoencoder", hidden_units=[12], latent_dim=5, dropout=[0.2, 0.5])
    assert [type(part) for part in model.encoder.layers] == [nn.Dropout, nn.Linear, nn.Sigmoid] * 2
    assert [part.p for part in model.encoder.layers if isinstance(part, nn.Dropout)] == [0.2, 0.5]
    assert [type(part) for part in model.decoder.layers] == [nn.Linear, nn.Sigmoid, nn.Linear]
    codes = model.encode(pictures(50))
    assert 0 < codes.min() < codes.max() < 1
    assert "sample" not in model.provides  # until a density is learned of its codes
    with pytest.raises(ValueError, match="dropout needs 2"):
        build("gmmn-autoencoder", hidden_units=[12], dropout=[0.2])


def test_codes_are_drawn_by_a_network_from_uniform_noise():
    density = gmmn(3, noise_dim=2, hidden_units=[6])
    noise = torch.rand(7, 2, generator=generator()) * 2 - 1
    first, last = (part for part in density.layers if isinstance(part, nn.Linear))
    expected = F.linear(F.linear(noise, first.weight, first.bias).relu(), last.weight, last.bias).sigmoid()
    torch.testing.assert_close(density.sample(7, generator()), expected)
    assert "log_prob" not in density.provides


def test_the_loss_is_the_root_of_the_discrepancy_over_all_pairs():
    density = gmmn(3, hidden_units=[6])
    codes = torch.rand(5, 3)
    samples = density.sample(5, generator()).detach()

    def kernel(x: Tensor, y: Tensor) -> float:
        return sum(math.exp(-((x - y) ** 2).sum().item() / (2 * bandwidth)) for bandwidth in (0.5, 3.0))

    def mean(a: Tensor, b: Tensor) -> float:
        return sum(kernel(x, y) for x in a for y in b) / 25

    squared = mean(codes, codes) + mean(samples, samples) - 2 * mean(codes, samples)
    objective = OBJECTIVES.build({"name": "moment-matching", "bandwidths": [0.5, 3.0]})
    found = objective.terms(density, codes, phase(), generator())["discrepancy"]
    assert found.item() == pytest.approx(math.sqrt(squared), rel=1e-4)


def test_samples_that_match_to_the_last_digit_have_no_gradient_that_is_not_a_number():
    density = gmmn(3, hidden_units=[6])
    for parameter in density.parameters():
        nn.init.zeros_(parameter)  # every sample is 0.5
    loss = OBJECTIVES.build({"name": "moment-matching"}).terms(density, torch.full((5, 3), 0.5), phase(), generator())
    loss["discrepancy"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in density.parameters())


def test_codes_outside_of_the_sigmoids_range_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="output must be linear"):
        gmmn(2).begin(torch.randn(10, 2))
    with pytest.raises(ValueError, match="standardize"):
        gmmn(2, standardize=True)
    gmmn(2, output="linear", standardize=True).begin(torch.randn(10, 2))


def test_two_clusters_far_from_the_origin_are_matched():
    codes = torch.cat([torch.randn(500, 2) * 0.3 + 7, torch.randn(500, 2) * 0.3 + 11])
    density = gmmn(2, hidden_units=[32, 32], output="linear", standardize=True, noise_dim=4)
    density.begin(codes)
    objective = OBJECTIVES.build({"name": "moment-matching", "bandwidths": [0.05, 0.5]})
    optimizer = torch.optim.Adam(density.parameters(), lr=0.005)
    for seed in range(250):
        objective.terms(density, codes[torch.randperm(1000)[:200]], phase(), generator(seed))["discrepancy"].backward()
        optimizer.step()
        optimizer.zero_grad()
    samples = density.sample(2000, generator()).detach()
    upper = samples[:, 0] > 9
    assert 0.4 < upper.float().mean() < 0.6
    for cluster, centre in ((samples[upper], 11), (samples[~upper], 7)):
        torch.testing.assert_close(cluster.mean(0), torch.full((2,), float(centre)), atol=0.25, rtol=0)
        assert 0.1 < cluster.std(0).mean() < 0.6


def test_a_row_of_gmmn_and_autoencoder_trains_in_two_stages_samples_and_resumes_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "STATUS_SECONDS", 0.0)  # so that each step is told, and may be the last
    phases = {"total_kimg": 0.2, "phases": [{"batch_size": 20, "learning_rate": 0.01}]}
    row = {
        "data": {"name": "fashion-mnist", "resolution": 8, "count": 60},
        "model": {"name": "gmmn-autoencoder", **MODELS["gmmn-autoencoder"].small},
        "stages": {
            "autoencoder": {"objective": {"name": "reconstruction"}, "schedule": phases},
            "density": {
                "density": {"name": "gmmn", "hidden_units": [16]},
                "objective": {"name": "moment-matching"},
                "schedule": phases,
            },
        },
    }

    def last(folder: Path, stop_at: int | None) -> checkpoint.Checkpoint:
        folder.mkdir()
        path = folder / "table.yaml"
        path.write_text(yaml.safe_dump({"table": "test/gmmn", "rows": {"row": row}}))
        experiment = load(path)
        (run,), runs = experiment.runs, study.Folders(experiment.root).runs
        trainer.train(run, 0, runs)
        if stop_at:
            stop = Stop()

            def watch(progress) -> None:
                stop.requested = progress.images_seen >= stop_at

            with pytest.raises(study.Interrupted):
                trainer.train(run, 1, runs, stop=stop, watch=watch)
        trainer.train(run, 1, runs)
        return checkpoint.latest(RunDir.of(runs, run.label, run.identity).checkpoints)

    undisturbed, resumed = last(tmp_path / "a", None), last(tmp_path / "b", 100)
    assert resumed.digest == undisturbed.digest
    model = genae.load(undisturbed.path.parent.parent)
    assert "sample" in model.provides
    assert "log_prob" not in model.density.provides
    codes = model.sample_codes(5, generator())
    assert codes.shape == (5, 8)
    assert model.decode(codes).shape == (5, 1, 8, 8)
