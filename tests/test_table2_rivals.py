"""Table 2's rivals with a likelihood or a chain: VAE+IAF, eVAE and deep GSN, each part against its definition."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.experiment import import_modules, project_root
from genae.models.autoencoder import Autoencoder, Generator
from genae.registry import MODELS, OBJECTIVES
from genae.schedule import Phase

import_modules(["baselines.vae_iaf", "baselines.evae", "baselines.deep_gsn"], project_root(Path(__file__)))

SHAPE = (1, 8, 8)


def small(name: str, **settings) -> Generator:
    torch.manual_seed(0)
    return MODELS.build({"name": name, **MODELS[name].small, **settings}, SHAPE).eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=generator(seed)) * 2 - 1


def phase() -> Phase:
    moment = {"index": 0, "fade": 1.0, "settled": True, "images_seen": 0, "epoch": 0.0}
    return Phase(resolution=8, batch_size=4, learning_rate=1e-3, margin=0.0, **moment)


def terms(objective: str, model: Generator, images: Tensor, seed: int = 0, **settings) -> dict[str, Tensor]:
    return OBJECTIVES.build({"name": objective, **settings}).terms(model, images, phase(), generator(seed))


# VAE+IAF.


def chain(model: Autoencoder):
    """noise [D] -> z [D] of one image, a plain function of one vector."""
    found = model.encoder.network(pictures(1)).detach()
    return lambda noise: model.encoder.draw(found, noise[None])[0][0]


def test_a_flows_log_density_is_the_noises_less_the_log_volume_of_the_chain():
    model = small("vae-iaf", num_steps=3, latent_dim=4).double()
    for step in model.encoder.steps:
        nn.init.normal_(step.network[-1].weight)
    noise = torch.randn(1, 4, generator=generator(), dtype=torch.float64)
    found = model.encoder.network(pictures(1).double())
    _, log_q = model.encoder.draw(found, noise)
    jacobian = torch.autograd.functional.jacobian(lambda e: model.encoder.draw(found, e[None])[0][0], noise[0])
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum() - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(log_q.sum(), expected)


def test_steps_are_autoregressive_and_the_order_is_reversed_between_them():
    model = small("vae-iaf", num_steps=2, latent_dim=4)
    forwards, backwards = (
        torch.autograd.functional.jacobian(lambda z, step=step: step(z, torch.ones(1, 4))[0], torch.randn(1, 4))[0, :, 0]
        for step in model.encoder.steps
    )
    below, above = torch.ones(4, 4).tril().bool(), torch.ones(4, 4).triu().bool()
    assert torch.equal(forwards != 0, below)  # [i, j]: z'_i moves with z_j
    assert torch.equal(backwards != 0, above)
    both = torch.autograd.functional.jacobian(chain(model), torch.randn(4))
    assert (both != 0).all()


def test_a_step_mixes_z_and_m_by_a_gate_that_starts_nearly_open():
    model = small("vae-iaf")
    step, z, context = model.encoder.steps[0], torch.randn(5, 8), torch.randn(5, 4)
    m, s = step.network(torch.cat([z, context], 1)).chunk(2, 1)
    gate = 1 / (1 + (-s).exp())
    moved, log_gate = step(z, context)
    torch.testing.assert_close(moved, z * gate + m * (1 - gate))
    torch.testing.assert_close(log_gate, gate.log())
    assert (s.mean() - 2).abs() < 0.5


def test_every_step_hears_the_images_context():
    model = small("vae-iaf")
    for step in model.encoder.steps:
        z = torch.randn(1, 8)
        apart = step(z, torch.zeros(1, 4))[0] - step(z, torch.ones(1, 4))[0]
        assert (apart != 0).all()  # the first dimension too, which hears nothing else


def test_the_code_of_an_image_is_the_chain_without_noise():
    model, images = small("vae-iaf"), pictures(3)
    found = model.encoder.network(images)
    assert torch.equal(model.encode(images), model.encoder.draw(found, torch.zeros(3, 8))[0])
    assert "posterior" not in model.provides


def test_free_bits_lift_each_dimensions_divergence_to_their_number():
    model, images = small("vae-iaf"), pictures(4)
    z, log_q = model.draw_posterior(images, generator())
    divergence = (log_q - torch.distributions.Normal(0.0, 1.0).log_prob(z)).mean(0)
    torch.testing.assert_close(terms("iaf-elbo", model, images)["kl"], divergence.sum())
    free = divergence.median().item()
    expected = torch.stack([max(each, torch.tensor(free)) for each in divergence]).sum()
    torch.testing.assert_close(terms("iaf-elbo", model, images, free_bits=free)["kl"], expected)


def test_what_a_flow_lowers_is_the_bound_of_one_draw():
    model, images = small("vae-iaf"), pictures(4)
    loss = sum(terms("iaf-elbo", model, images).values())
    torch.testing.assert_close(-loss, model.bound(images, 1, generator()).mean(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "settings"), [("vae-iaf", {"latent_dim": 2}), ("evae", {"latent_dim": 3, "epitome_size": 2, "epitome_stride": 1})]
)
def test_the_bound_is_the_likelihood_where_the_decoder_ignores_its_codes(name, settings):
    """p(x) = p(x | any z), which the mean of the importance weights, p(z) / q(z | x) times that, comes to with many draws."""
    model = small(name, pixel_std=0.5, **settings)
    for parameter in model.decoder.parameters():
        nn.init.zeros_(parameter)  # decodes grey, 0.5
    if name == "vae-iaf":  # a posterior wider than the prior, so that few draws are enough
        nn.init.constant_(model.encoder.network.layers[-1].bias.data[2:4], 0.7)  # log std
        nn.init.normal_(model.encoder.network.layers[-1].weight, std=1e-3)
    images = pictures(2)
    expected = torch.distributions.Normal(0.5, 0.5).log_prob((images.flatten(1) + 1) / 2).sum(1)
    with torch.no_grad():
        torch.testing.assert_close(model.bound(images, 400, generator()), expected, atol=0.15, rtol=0)


# eVAE.


def test_epitomes_are_blocks_of_dimensions_a_stride_apart():
    model = small("evae", latent_dim=8, epitome_size=4, epitome_stride=2)
    expected = [[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]
    assert model.masks.int().tolist() == expected
    assert small("evae", latent_dim=8, epitome_size=4, epitome_stride=None).masks.int().tolist() == [
        [1] * 4 + [0] * 4,
        [0] * 4 + [1] * 4,
    ]


@pytest.mark.parametrize("settings", [{"epitome_stride": 5}, {"epitome_stride": 3}, {"epitome_size": 9}])
def test_epitomes_that_leave_a_dimension_out_are_refused(settings):
    with pytest.raises(ValueError, match="epitome_"):
        small("evae", **settings)


def test_prior_codes_have_one_epitome_each_all_as_often_and_normal_within():
    model = small("evae")
    codes = model.sample_codes(30_000, generator())
    pattern = (codes != 0).float()
    each = torch.stack([(pattern == mask).all(1) for mask in model.masks])  # [E, N]
    assert each.sum(0).eq(1).all()
    share = each.float().mean(1)
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), atol=0.015, rtol=0)  # 5 standard errors: 0.0136
    used = codes[codes != 0]
    assert used.mean().abs() < 0.015
    assert (used.std() - 1).abs() < 0.01


def test_an_image_is_given_the_epitome_of_least_loss():
    model, images = small("evae"), pictures(6)
    mean, log_var = model.gaussian(images)
    z = mean + (log_var / 2).exp() * torch.randn(mean.shape, generator=generator())
    chosen = model.choose(images, z, mean, log_var)
    for image in range(6):
        losses = []
        for mask in model.masks:
            decoded = model.decode((z[image] * mask)[None])
            kl = sum(
                (mean[image, d] ** 2 + log_var[image, d].exp() - 1 - log_var[image, d]) / 2 for d in range(8) if mask[d] == 1
            )
            losses.append((kl - model.observation.log_prob(images[image : image + 1], decoded)).item())
        assert torch.equal(chosen[image], model.masks[losses.index(min(losses))])


def test_only_the_dimensions_of_an_images_epitome_are_held_to_the_prior():
    model, images = small("evae"), pictures(1)
    mean, log_var = model.gaussian(images)
    z = mean + (log_var / 2).exp() * torch.randn(mean.shape, generator=generator())
    mask = model.choose(images, z, mean, log_var)
    mean.retain_grad()
    found = terms("evae", model, images)
    kl = ((mean.square() + log_var.exp() - 1 - log_var) / 2 * mask).sum()
    torch.testing.assert_close(found["kl"], kl)
    kl.backward()
    assert torch.equal((mean.grad != 0).float(), mask)


def test_a_code_of_an_image_is_its_masked_mean():
    model, images = small("evae"), pictures(5)
    codes, mean = model.encode(images), model.gaussian(images)[0]
    assert all(any(torch.equal(code, each * mask) for mask in model.masks) for code, each in zip(codes, mean, strict=True))
    assert "encoder" not in model.provides


def test_the_bound_of_an_evae_sums_its_epitomes():
    """log of the mean over y of p(x | m_y * z) p(z_y) / q(z_y | x), z_y being the dimensions that y has."""
    model, images = small("evae"), pictures(2)
    mean, log_var = model.gaussian(images)
    noise = torch.randn(mean.shape, generator=generator())
    z = mean + (log_var / 2).exp() * noise
    normal = torch.distributions.Normal(0.0, 1.0)
    log_ratio = normal.log_prob(z) - torch.distributions.Normal(mean, (log_var / 2).exp()).log_prob(z)
    weights = []
    for mask in model.masks:
        likelihood = model.observation.log_prob(images, model.decode(z * mask))
        weights.append(likelihood + (log_ratio * mask).sum(1))
    expected = torch.stack(weights).double().exp().mean(0).log()
    torch.testing.assert_close(model.bound(images, 1, generator()).double(), expected, atol=1e-3, rtol=1e-5)


# Deep GSN.


def test_a_layer_is_tanh_of_both_neighbours_through_tied_weights():
    layers = small("deep-gsn").decoder
    states = [torch.rand(3, width) for width in layers.widths]
    first, second = layers.weights
    torch.testing.assert_close(layers.hidden(states, 1, None), (states[0] @ first + states[2] @ second.T).tanh())
    torch.testing.assert_close(layers.hidden(states, 2, None), (states[1] @ second).tanh())
    torch.testing.assert_close(layers(states[1]).flatten(1), (states[1] @ first.T).sigmoid() * 2 - 1)


def test_hidden_layers_but_the_first_have_noise_before_and_after_tanh():
    model = small("deep-gsn", hidden_noise=0.5)
    layers, states = model.decoder, [torch.zeros(20_000, width) for width in model.decoder.widths]
    assert torch.equal(layers.hidden(states, 1, generator()), torch.zeros(20_000, 32))
    noisy = layers.hidden(states, 2, generator())
    before = torch.randn(200_000, generator=generator(1)) * 0.5
    expected = before.tanh().var() + 0.25  # of two independent noises
    torch.testing.assert_close(noisy.var(), expected, rtol=0.02, atol=0)
    also = small("deep-gsn", hidden_noise=0.5, noisy_first=True).decoder.hidden(states, 1, generator())
    torch.testing.assert_close(also.var(), expected, rtol=0.02, atol=0)


def test_salt_and_pepper_replace_their_share_of_pixels_by_black_and_white_alike():
    layers = small("deep-gsn", pixel_noise=0.4).decoder
    corrupted = layers.corrupt(torch.full((1000, 64), 0.3), generator())
    for value, share in ((0.0, 0.2), (1.0, 0.2), (0.3, 0.6)):
        assert (corrupted == value).float().mean().item() == pytest.approx(share, abs=0.01)  # 5 standard errors: 0.0097


def test_a_chain_without_noise_is_the_alternation_of_odd_and_even_layers():
    model = small("deep-gsn", hidden_noise=0.0, pixel_noise=0.0, draw_pixels=False)
    layers, pixels = model.decoder, torch.rand(2, 64)
    first, second = layers.weights
    x, h2, expected = pixels, torch.zeros(2, 16), []
    for _ in range(3):
        h1 = (x @ first + h2 @ second.T).tanh()
        expected.append(h1)
        x, h2 = (h1 @ first.T).sigmoid(), (h1 @ second).tanh()
    found = layers.chain(pixels, generator())
    for step in expected:
        torch.testing.assert_close(next(found), step)


def test_drawn_pixels_are_binary_with_the_reconstructions_chances():
    model = small("deep-gsn", hidden_noise=0.0, pixel_noise=0.0, hidden_units=[8])
    seen = []
    model.decoder.hidden = lambda states, layer, generator: seen.append(states[0]) or torch.ones(len(states[0]), 8)
    steps = model.decoder.chain(torch.rand(4000, 64), generator())
    chances = model.decoder.logits(next(steps)).sigmoid()[0]
    next(steps)
    assert set(seen[1].unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(seen[1].mean(0), chances, atol=0.045, rtol=0)  # 5.5 standard errors


def test_walkback_sums_the_cross_entropy_of_every_step_with_the_clean_image():
    model, images = small("deep-gsn"), pictures(4)
    pixels = (images.flatten(1) + 1) / 2
    steps = model.decoder.chain(pixels, generator())
    expected = 0.0
    for _ in range(3):
        p = model.decoder.logits(next(steps)).sigmoid()
        expected = expected - (pixels * p.log() + (1 - pixels) * (1 - p).log()).mean()
    floor = -(pixels * pixels.log() + (1 - pixels) * (1 - pixels).log()).mean()  # of each step, p = pixels
    found = terms("walkback", model, images, num_steps=3)["reconstruction"]
    torch.testing.assert_close(found, expected - 3 * floor, atol=1e-5, rtol=1e-5)


def test_training_keeps_an_account_of_the_mean_pixels_from_which_chains_start():
    model = small("deep-gsn")
    images = torch.full((4, *SHAPE), -1.0)
    images[..., 0] = 1.0
    for seed in range(600):
        with torch.no_grad():
            terms("walkback", model, images, seed=seed, num_steps=1)
    start = model.decoder.start(500, generator())
    torch.testing.assert_close(start.mean(0), (images[0].flatten() + 1) / 2, atol=0.02, rtol=0)


def test_samples_are_consecutive_steps_of_parallel_chains_after_their_burn_in():
    model = small("deep-gsn", burn_in=3, collected=2)
    assert "of each 2 successive states from step 4 on" in model.drawn
    assert small("deep-gsn", burn_in=3, collected=1).drawn == Generator.drawn
    codes = model.sample_codes(5, generator())
    draws = generator()
    steps = model.decoder.chain(model.decoder.start(3, draws), draws)  # 3 chains of 2 are enough for 5
    for _ in range(3):
        next(steps)
    torch.testing.assert_close(codes, torch.cat([next(steps), next(steps)])[:5])


def test_a_chain_learns_to_draw_what_it_was_trained_on():
    """Two patterns: samples are near one or the other, both occur, and nothing between."""
    model = small("deep-gsn", hidden_units=[32, 16], burn_in=20).train()
    patterns = torch.full((2, *SHAPE), -1.0)
    patterns[0, :, :4], patterns[1, :, 4:] = 1.0, 1.0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for seed in range(200):
        loss = sum(terms("walkback", model, patterns.repeat(8, 1, 1, 1), seed=seed, num_steps=3).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    samples = model.eval().decode(model.sample_codes(200, generator()))
    distance = torch.cdist(samples.flatten(1), patterns.flatten(1)) / math.sqrt(64)  # root mean square, [200, 2]
    assert (distance.min(1).values < 0.2).float().mean() > 0.9
    assert torch.bincount(distance.argmin(1), minlength=2).min() > 20


def test_an_encoded_image_settles_through_all_layers():
    model, images = small("deep-gsn"), pictures(2)
    first, second = model.decoder.weights
    x = (images.flatten(1) + 1) / 2
    h2 = ((x @ first).tanh() @ second).tanh()
    torch.testing.assert_close(model.encode(images), (x @ first + h2 @ second.T).tanh())
    assert F.mse_loss(model.decode(model.encode(images)), images).isfinite()
