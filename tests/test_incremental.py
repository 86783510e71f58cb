"""AE and IAE: how many dimensions are in use when, what the others feel of it, and the loss."""

import pytest
import torch
from torch import Tensor

from genae.models.autoencoder import Autoencoder
from genae.objectives.incremental import Incremental, active_dims
from genae.registry import MODELS
from genae.schedule import Phase

DIM = 8


def phase(epoch: float) -> Phase:
    return Phase(
        index=0, resolution=8, fade=1.0, settled=True, batch_size=4, learning_rate=1e-3, margin=0.0, images_seen=0, epoch=epoch
    )


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def build(**settings) -> Autoencoder:
    torch.manual_seed(0)
    return MODELS.build({"name": "iae", "latent_dim": DIM, "width": 8, "norm_scale_mean": 1.0, **settings}, (1, 8, 8))


def terms(model: Autoencoder, epoch: float, **settings) -> dict[str, Tensor]:
    objective = Incremental(perceptual_weight=0.0, **settings)
    return objective.terms(model, images(), phase(epoch), torch.Generator())


@pytest.mark.parametrize(
    ("dim", "warmup", "epoch", "expected"),
    [
        # MNIST: int(8 e / 96 + 1), one more dimension every 12 epochs.
        (8, 96.0, 0.0, 1),
        (8, 96.0, 11.99, 1),
        (8, 96.0, 12.0, 2),
        (8, 96.0, 50.0, 5),  # 4.17 + 1
        (8, 96.0, 83.9, 7),  # 6.99 + 1
        (8, 96.0, 84.0, 8),
        (8, 96.0, 96.0, 8),  # 9 is one more than there are
        (8, 96.0, 390.0, 8),
        # TFD: one more every 8 epochs.
        (15, 120.0, 59.5, 8),  # 7.44 + 1
        (15, 120.0, 112.0, 15),
        # More dimensions than epochs: 200 in 100, two more in each.
        (200, 100.0, 0.5, 2),
        (200, 100.0, 49.75, 100),  # 99.5 + 1
    ],
)
def test_the_dimensions_in_use_are_those_of_the_formula(dim, warmup, epoch, expected):
    assert active_dims(dim, epoch, warmup) == expected


@pytest.mark.parametrize(("epoch", "in_use"), [(0.0, 1), (2.6, 3), (7.0, 8), (100.0, 8)])
def test_dimensions_not_in_use_are_zero_for_the_decoder_and_move_no_weight(epoch, in_use):
    model, seen = build(), []
    model.decoder.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    found = terms(model, epoch, warmup_epochs=8.0)
    codes = model.encode(images())
    torch.testing.assert_close(seen[0][:, :in_use], codes[:, :in_use])
    assert torch.equal(seen[0][:, in_use:], torch.zeros(4, DIM - in_use))

    found["pixels"].backward()
    by_input = model.decoder.layers[0].weight.grad  # [D, channels, 4, 4]: what each dimension of the code is multiplied by
    by_output = model.encoder.layers[-1].weight.grad
    for gradient in (by_input, by_output):
        assert all(gradient[index].any() for index in range(in_use))
        assert not gradient[in_use:].any()


def test_without_a_warmup_all_dimensions_are_in_use_from_the_start():
    model = build()
    terms(model, 0.0)["pixels"].backward()
    assert all(row.any() for row in model.decoder.layers[0].weight.grad)


def test_what_is_evaluated_is_not_masked():
    model = build().eval()
    codes = model.encode(images())
    assert codes.all()  # no dimension is 0
    other = codes.clone()
    other[:, -1] += 1
    assert not torch.equal(model.decode(other), model.decode(codes))


def test_the_loss_is_the_mean_square_over_pixels():
    model = build().eval()
    expected = (model.decode(model.encode(images())) - images()).square().sum() / (4 * 8 * 8)
    found = terms(model, 0.0)
    assert found.keys() == {"pixels"}
    torch.testing.assert_close(found["pixels"], expected)


def test_a_warmup_of_no_length_is_refused():
    for epochs in (0.0, -1.0):
        with pytest.raises(ValueError, match="warmup_epochs must be positive"):
            Incremental(warmup_epochs=epochs)


def test_codes_have_no_prior_and_straight_paths():
    model = build()
    assert "sample" not in model.provides
    a, b = torch.tensor([[4.0] * DIM]), torch.tensor([[0.0] * DIM])
    assert torch.equal(model.latent.interpolate(a, b, 0.25), torch.tensor([[3.0] * DIM]))
