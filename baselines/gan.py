"""Generative adversarial nets (Goodfellow et al., 2014, arXiv:1406.2661), as they were trained on MNIST and TFD.

The parts, from Sec. 5 of the paper and the settings released for MNIST:

- a generator of rectifiers and a sigmoid for the pixels, its noise given to the lowest layer only;
- a discriminator of maxout units (Goodfellow et al., 2013, arXiv:1302.4389), trained with dropout: a fifth of the pixels and
  half of each hidden layer, in both players' updates;
- the loss for the generator that does not saturate, max E[log D(G(z))] (Sec. 3): the objective `non-saturating` with
  `r1_weight: 0`, which came years later.

Left out: the generator's last bias is not started at the mean pixels, since a model sees no data before it is trained, and the
columns of weights are not bound in norm (TFD). The paper's optimiser is SGD with momentum 0.5 to 0.7; genae trains by Adam.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genae.latent import Gaussian
from genae.models.adversarial import AdversarialGenerator
from genae.networks.fully_connected import FromPixels, Shape, ToPixels, num_pixels
from genae.registry import MODELS

GENERATOR_RANGE, DISCRIMINATOR_RANGE = 0.05, 0.005  # of the uniform starting weights, about 0, as released


class Maxout(nn.Module):
    """The largest of `pieces` affine maps per unit (Goodfellow et al., 2013, Eqs. 1 and 2): [N, inputs] -> [N, units]."""

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.maps = nn.Linear(inputs, units * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x).unflatten(1, (-1, self.pieces)).amax(2)


class Discriminator(FromPixels):
    """Images -> logits [N]."""

    def __init__(self, shape: Shape, units: Sequence[int], pieces: int, pixel_dropout: float, dropout: float) -> None:
        layers: list[nn.Module] = [nn.Dropout(pixel_dropout)]
        for inputs, width in zip([num_pixels(shape), *units], units, strict=False):
            layers += [Maxout(inputs, width, pieces), nn.Dropout(dropout)]
        layers += [nn.Linear(units[-1], 1), nn.Flatten(0)]
        super().__init__(shape, nn.Sequential(*layers))


@torch.no_grad()
def start_uniformly(network: nn.Module, limit: float) -> None:
    """Weights from U(-limit, limit), biases 0."""
    for part in network.modules():
        if isinstance(part, nn.Linear):
            part.weight.uniform_(-limit, limit)
            part.bias.zero_()


@MODELS.add("gan", small={"generator_units": [16, 16], "discriminator_units": [8, 8], "latent_dim": 8})
def gan(
    shape: tuple[int, int, int],
    *,
    latent_dim: int = 100,
    generator_units: tuple[int, ...] = (1200, 1200),
    discriminator_units: tuple[int, ...] = (240, 240),
    pieces: int = 5,
    pixel_dropout: float = 0.2,
    dropout: float = 0.5,
) -> AdversarialGenerator:
    """The GAN of Goodfellow et al. (2014); train with non-saturating, r1_weight 0. Defaults are those released for MNIST.

    generator_units: rectifiers, layer by layer.  discriminator_units: maxout units, of `pieces` maps each.  pixel_dropout,
    dropout: the share of pixels and of hidden units that the discriminator is trained without. The paper's noise is N(0, I)
    (inferred from the released class, which offers others).
    """
    for name, units in {"generator_units": generator_units, "discriminator_units": discriminator_units}.items():
        if not units:
            raise ValueError(f"{name} must name at least one layer")
    layers: list[nn.Module] = []
    for inputs, width in zip([latent_dim, *generator_units], generator_units, strict=False):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
    decoder = ToPixels(shape, nn.Sequential(*layers, nn.Linear(generator_units[-1], num_pixels(shape))))
    discriminator = Discriminator(shape, discriminator_units, pieces, pixel_dropout, dropout)
    start_uniformly(decoder, GENERATOR_RANGE)
    start_uniformly(discriminator, DISCRIMINATOR_RANGE)
    return AdversarialGenerator(Gaussian(latent_dim), decoder, discriminator)
