"""What holds for every registered model, third-party ones included, at its small settings."""

import io

import pytest
import torch
from torch import Tensor

from genae.conformance.names import buildable, registered
from genae.models.autoencoder import Generator
from genae.registry import MODELS
from genae.schedule import Growth

SIZE = 16
NAMES = [name for name in registered(MODELS) if name in buildable(MODELS)]


def build(name: str, channels: int = 3) -> Generator:
    """The model at its small settings, in eval mode, its parameters moved off their starting values (some start at zero)."""
    torch.manual_seed(0)
    model = MODELS.build({"name": name, **MODELS[name].small}, (channels, SIZE, SIZE))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(memory_format=torch.channels_last).eval()


def providing(*what: str) -> list[str]:
    return [name for name in NAMES if build(name).provides >= set(what)]


def draw(model: Generator, n: int, seed: int = 0) -> Tensor:
    return model.prior(n, torch.Generator().manual_seed(seed))


def pictures(n: int, size: int = SIZE, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(n)) * 2 - 1


def growths(fades: tuple[float, ...] = (1.0,)) -> list[Growth]:
    return [Growth(resolution, fade) for resolution in (4, 8, SIZE) for fade in fades]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_decoded_prior_codes_are_images_of_the_shape_asked_for(name, channels):
    model = build(name, channels)
    codes = draw(model, 5)
    images = model.decode(codes)
    assert codes.shape == (5, model.latent.dim)
    assert images.shape == (5, channels, SIZE, SIZE)
    assert images.dtype == torch.float32
    assert images.isfinite().all()
    assert images.abs().max() < 100, "images are nominally in [-1, 1]"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", providing("encode"))
def test_codes_of_images_lie_in_the_latent_space(name, channels):
    model = build(name, channels)
    codes = model.encode(pictures(5, channels=channels))
    assert codes.shape == (5, model.latent.dim)
    torch.testing.assert_close(codes, model.latent.project(codes))


@pytest.mark.parametrize("name", providing("posterior"))
def test_the_code_of_an_image_is_the_mean_of_its_posterior(name):
    model = build(name)
    mean, log_var = model.posterior(pictures(3), None)
    assert mean.shape == log_var.shape == (3, model.latent.dim)
    assert torch.equal(model.encode(pictures(3)), mean)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", providing("discriminate"))
def test_a_discriminator_gives_each_image_a_logit(name, channels):
    model = build(name, channels)
    logits = model.discriminate(pictures(5, channels=channels))
    assert logits.shape == (5,)
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.parametrize("name", providing("discriminate_codes"))
def test_a_discriminator_of_codes_gives_each_code_a_logit(name):
    model = build(name)
    logits = model.discriminate_codes(draw(model, 5))
    assert logits.shape == (5,)
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.parametrize("name", providing("bound"))
def test_a_bound_is_a_number_for_each_image_and_no_lower_with_more_draws(name):
    model, images = build(name), pictures(5)
    one, few, many = (model.bound(images, draws, torch.Generator().manual_seed(0)) for draws in (1, 1, 30))
    assert one.shape == (5,)
    assert one.isfinite().all()
    assert torch.equal(one, few)
    assert many.mean() > one.mean()


@pytest.mark.parametrize("name", providing("log_prob"))
def test_a_density_gives_each_image_a_number(name):
    model = build(name)
    log_prob = model.log_prob(pictures(5))
    assert log_prob.shape == (5,)
    assert log_prob.isfinite().all()
    torch.testing.assert_close(
        log_prob, torch.cat([model.log_prob(image[None]) for image in pictures(5)]), atol=1e-3, rtol=1e-4
    )


@pytest.mark.parametrize("name", NAMES)
def test_eval_mode_repeats_itself_and_changes_no_state(name):
    model = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def everything() -> list[Tensor]:
        codes = draw(model, 3)
        found = [model.decode(codes)]
        if "encode" in model.provides:
            found.append(model.encode(pictures(3)))
        if "posterior" in model.provides:
            found += model.posterior(pictures(3), None)
        if "discriminate" in model.provides:
            found.append(model.discriminate(pictures(3)))
        if "log_prob" in model.provides:
            found.append(model.log_prob(pictures(3)))
        if "layers" in model.provides:
            found.append(model.canvas(codes, 1))
        return found

    first, second = everything(), everything()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_company_in_eval_mode(name):
    model = build(name)
    codes = draw(model, 4)
    torch.testing.assert_close(
        model.decode(codes), torch.cat([model.decode(code[None]) for code in codes]), atol=1e-5, rtol=1e-4
    )
    if "encode" in model.provides:
        images = pictures(4)
        alone = torch.cat([model.encode(image[None]) for image in images])
        torch.testing.assert_close(model.encode(images), alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_train_mode_draws_only_from_the_seed_that_it_is_given(name):
    model = build(name).train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    codes, found = draw(model, 4), []
    for _ in range(2):
        model.load_state_dict(state)
        torch.manual_seed(7)
        found.append(model.decode(codes))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_its_state_dict(name):
    model, file = build(name), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    other = MODELS.build({"name": name, **MODELS[name].small}, (3, SIZE, SIZE)).to(memory_format=torch.channels_last).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.decode(draw(model, 2)), model.decode(draw(model, 2)))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter_at_some_growth(name):
    model = build(name).train()
    for growth in growths(fades=(0.5, 1.0)) if "growth" in model.provides else [None]:
        images = pictures(4, size=growth.resolution if growth else SIZE)
        # First, since it may find its starting values in what it is given first.
        total = model.log_prob(images).sum() if "log_prob" in model.provides else 0
        total = total + model.decode(draw(model, 4), growth).square().sum()
        if "discriminate" in model.provides:
            total = total + model.discriminate(images, growth).sum()
        if "discriminate_codes" in model.provides:
            total = total + model.discriminate_codes(draw(model, 4)).sum()
        if "bound" in model.provides:
            total = total + model.bound(images, 1, torch.Generator().manual_seed(0)).sum()
        if "encode" in model.provides:
            total = total + (model.encode(images, growth) * draw(model, 4)).sum()
            if "posterior" in model.provides:
                total = total + sum(part.square().sum() for part in model.posterior(images, growth))
        if total.requires_grad:  # there may be nothing to learn
            total.backward()
    assert not [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]


@pytest.mark.parametrize("name", [name for name in NAMES if "growth" not in build(name).provides])
def test_a_model_that_does_not_grow_says_so(name):
    model = build(name)
    assert torch.equal(model.decode(draw(model, 2), Growth(SIZE)), model.decode(draw(model, 2)))
    with pytest.raises(ValueError, match="grow"):
        model.decode(draw(model, 2), Growth(SIZE // 2))


@pytest.mark.parametrize("growth", growths(fades=(0.0, 0.3, 1.0)))
@pytest.mark.parametrize("name", providing("growth"))
def test_at_each_growth_images_have_its_resolution(name, growth):
    model = build(name)
    images = model.decode(draw(model, 2), growth)
    assert images.shape == (2, 3, growth.resolution, growth.resolution)
    if "encode" in model.provides:
        assert model.encode(images, growth).shape == (2, model.latent.dim)


@pytest.mark.parametrize("name", providing("growth"))
def test_the_full_growth_is_no_growth_given(name):
    model = build(name)
    assert torch.equal(model.decode(draw(model, 2), Growth(SIZE, 1.0)), model.decode(draw(model, 2)))


@pytest.mark.parametrize("resolution", [8, SIZE])
@pytest.mark.parametrize("name", providing("growth"))
def test_a_block_fades_in_from_the_previous_resolution_upsampled(name, resolution):
    model, codes = build(name), draw(build(name), 3)
    coarse = model.decode(codes, Growth(resolution // 2)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    full = model.decode(codes, Growth(resolution))
    torch.testing.assert_close(model.decode(codes, Growth(resolution, 0.0)), coarse)
    torch.testing.assert_close(model.decode(codes, Growth(resolution, 0.25)), 0.75 * coarse + 0.25 * full)
    assert not torch.allclose(full, coarse)


@pytest.mark.parametrize("resolution", [8, SIZE])
@pytest.mark.parametrize("name", providing("growth", "encode"))
def test_an_encoder_fades_in_from_the_previous_resolution_averaged(name, resolution):
    model, images = build(name), pictures(3, size=resolution)
    halved = images.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
    coarse = model.encode(halved, Growth(resolution // 2))
    torch.testing.assert_close(model.encode(images, Growth(resolution, 0.0)), coarse)
    assert not torch.allclose(model.encode(images, Growth(resolution)), coarse)


@pytest.mark.parametrize("name", providing("growth"))
def test_a_resolution_that_the_network_has_not_is_refused(name):
    with pytest.raises(ValueError, match="32"):
        build(name).decode(draw(build(name), 1), Growth(32))


@pytest.mark.parametrize("name", providing("layers"))
def test_the_same_code_for_every_layer_is_that_code(name):
    model, codes = build(name), draw(build(name), 3)
    layered = codes[:, None].repeat(1, model.num_layers, 1)
    torch.testing.assert_close(model.decode(layered), model.decode(codes), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.decode(layered, Growth(8, 0.5)), model.decode(codes, Growth(8, 0.5)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", providing("layers"))
def test_every_layer_listens_to_its_own_code(name):
    model, codes = build(name), draw(build(name), 2)
    layered = codes[:, None].repeat(1, model.num_layers, 1)
    for layer in range(model.num_layers):
        other = layered.clone()
        other[:, layer] = draw(model, 2, seed=1)
        assert not torch.allclose(model.decode(other), model.decode(layered), atol=1e-6)


@pytest.mark.parametrize("name", providing("layers"))
def test_a_canvas_does_not_know_the_codes_of_later_layers(name):
    model = build(name)
    layered = draw(model, 2)[:, None].repeat(1, model.num_layers, 1)
    for upto in range(1, model.num_layers):
        other = layered.clone()
        other[:, upto:] = draw(model, 2, seed=1)[:, None]
        assert torch.equal(model.canvas(other, upto), model.canvas(layered, upto))
        other[:, upto - 1] = draw(model, 2, seed=1)
        assert not torch.allclose(model.canvas(other, upto), model.canvas(layered, upto))


@pytest.mark.parametrize("name", NAMES)
def test_the_layers_grown_are_those_that_the_images_listen_to(name):
    model = build(name)
    if "layers" not in model.provides:
        assert model.layers_at() == model.num_layers == 1
        return
    assert model.layers_at() == model.num_layers
    layered = draw(model, 2)[:, None].repeat(1, model.num_layers, 1)
    for growth in growths(fades=(0.5, 1.0)) if "growth" in model.provides else [None]:
        heard = []
        for layer in range(model.num_layers):
            other = layered.clone()
            other[:, layer] = draw(model, 2, seed=1)
            heard.append(not torch.allclose(model.decode(other, growth), model.decode(layered, growth), atol=1e-6))
        assert heard == [layer < model.layers_at(growth) for layer in range(model.num_layers)]


@pytest.mark.parametrize("name", providing("layers"))
def test_layers_not_yet_grown_ignore_their_code(name):
    model = build(name)
    layered = draw(model, 2)[:, None].repeat(1, model.num_layers, 1)
    other = layered.clone()
    other[:, -1] = draw(model, 2, seed=1)
    assert torch.equal(model.decode(other, Growth(SIZE // 2)), model.decode(layered, Growth(SIZE // 2)))


@pytest.mark.parametrize("name", providing("layers"))
def test_images_and_canvas_of_one_pass_are_those_of_two(name):
    model, codes = build(name), draw(build(name), 2)
    for upto in range(1, model.num_layers + 1):
        images, canvas = model.decode_with_canvas(codes, upto)
        assert torch.equal(images, model.decode(codes))
        assert torch.equal(canvas, model.canvas(codes, upto))


@pytest.mark.parametrize("name", providing("layers"))
def test_codes_for_another_number_of_layers_are_refused(name):
    model = build(name)
    with pytest.raises(ValueError, match="layers"):
        model.decode(draw(model, 2)[:, None].repeat(1, model.num_layers + 1, 1))
    with pytest.raises(ValueError, match="layer"):
        model.canvas(draw(model, 2), model.num_layers + 1)


@pytest.mark.parametrize("name", [name for name in NAMES if "layers" not in build(name).provides])
def test_a_decoder_without_layers_refuses_codes_by_layer(name):
    model = build(name)
    with pytest.raises(ValueError, match="layers"):
        model.decode(draw(model, 2)[:, None].repeat(1, 3, 1))
