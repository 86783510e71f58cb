"""Generative moment matching networks with an autoencoder, GMMN+AE (Li, Swersky & Zemel, 2015, arXiv:1502.02761).

The parts, from the paper and the settings released for its MNIST and TFD rows:

- `gmmn-autoencoder`: layers of sigmoids to a code of sigmoids and back, dropout on what each layer of the encoder takes in
  (Sec. 3.3). Its training layer by layer before that of the whole is left out: Adam trains the whole at once;
- `gmmn`: the generator of codes, uniform noise on [-1, 1] through rectifiers to a layer of sigmoids (Sec. 3.1): a density that
  can only be sampled, trained on the codes of the autoencoder as it then stays (Sec. 3.3);
- `moment-matching`: the square root of the squared maximum mean discrepancy (Eq. 3, Sec. 3.2) of the codes of a large minibatch
  (1,000) and as many samples, under a mixture of Gaussian kernels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from genae.densities.density import Density
from genae.latent import Free
from genae.losses.divergences import mmd
from genae.models.autoencoder import Autoencoder
from genae.networks.fully_connected import FromPixels, ToPixels, num_pixels
from genae.objectives.objective import Objective, Terms
from genae.registry import DENSITIES, MODELS, OBJECTIVES
from genae.schedule import Phase


@MODELS.add("gmmn-autoencoder", small={"hidden_units": [32], "latent_dim": 8, "dropout": [0.0, 0.0]})
def gmmn_autoencoder(
    shape: tuple[int, int, int],
    *,
    latent_dim: int = 32,
    hidden_units: tuple[int, ...] = (1024,),
    dropout: tuple[float, ...] = (0.2, 0.5),
) -> Autoencoder:
    """The autoencoder of GMMN+AE: sigmoid layers, codes in [0, 1]^latent_dim. Defaults are those released for MNIST.

    hidden_units: of the encoder, from the pixels on; the decoder has them the other way round.  dropout: of what each layer of
    the encoder takes in, the code's own layer included: one more than there are hidden layers.
    """
    if len(dropout) != len(hidden_units) + 1:
        raise ValueError(f"dropout needs {len(hidden_units) + 1} numbers, one per layer of the encoder; not {len(dropout)}")
    widths = [num_pixels(shape), *hidden_units, latent_dim]
    down: list[nn.Module] = []
    for (inputs, units), share in zip(pairwise(widths), dropout, strict=True):
        down += [nn.Dropout(share), nn.Linear(inputs, units), nn.Sigmoid()]
    up: list[nn.Module] = []
    for inputs, units in pairwise(widths[::-1]):
        up += [nn.Linear(inputs, units), nn.Sigmoid()]
    encoder, decoder = FromPixels(shape, nn.Sequential(*down)), ToPixels(shape, nn.Sequential(*up[:-1]))  # its sigmoid is there
    for layers in (down, up):
        start_sigmoids(layers)
    return Autoencoder(Free(latent_dim), encoder, decoder)


@torch.no_grad()
def start_sigmoids(layers: Sequence[nn.Module]) -> None:
    """Glorot & Bengio's (2010) starting weights for layers of sigmoids, in place of those that pretraining would leave."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, gain=4.0)  # the slope of a sigmoid at 0 is 1 / 4
            layer.bias.zero_()


@DENSITIES.add("gmmn", small={"hidden_units": [16], "output": "linear"})
class MomentMatchingNetwork(Density):
    """The generator of codes of GMMN+AE: provides only samples, and those with gradients; train with moment-matching.

    noise_dim: of the uniform noise on [-1, 1].  hidden_units: rectifiers, from the noise on.  output: "sigmoid" for codes in
    [0, 1], as those of gmmn-autoencoder are; "linear" for any others, best with standardize.
    """

    def __init__(
        self,
        dim: int,
        *,
        noise_dim: int = 10,
        hidden_units: tuple[int, ...] = (64, 256, 256, 1024),
        output: Literal["sigmoid", "linear"] = "sigmoid",
        standardize: bool = False,
    ) -> None:
        if standardize and output == "sigmoid":
            raise ValueError("standardize would move the codes out of [0, 1], where output: sigmoid puts its samples")
        super().__init__(dim, standardize=standardize)
        self.noise_dim = noise_dim
        self.output = output
        layers: list[nn.Module] = []
        for inputs, units in zip([noise_dim, *hidden_units], hidden_units, strict=False):
            layers += [nn.Linear(inputs, units), nn.ReLU()]
        layers.append(nn.Linear([noise_dim, *hidden_units][-1], dim))
        self.layers = nn.Sequential(*layers, *([nn.Sigmoid()] if output == "sigmoid" else []))

    @property
    def provides(self) -> frozenset[str]:
        """ "pathwise": gradients reach the parameters through `sample`."""
        return frozenset({"sample", "pathwise"})

    def begin(self, vectors: Tensor) -> None:
        super().begin(vectors)
        if self.output == "sigmoid" and not bool(((vectors >= 0) & (vectors <= 1)).all()):
            low, high = vectors.min().item(), vectors.max().item()
            raise ValueError(f"output must be linear for codes outside [0, 1]; these lie in [{low:.3g}, {high:.3g}]")

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        noise = torch.rand(n, self.noise_dim, generator=generator, device=generator.device) * 2 - 1
        return self.layers(noise.to(self.device))


@OBJECTIVES.add("moment-matching", small={"bandwidths": [1.0, 5.0]})
@dataclass(kw_only=True)
class MomentMatching(Objective):
    """sqrt(MMD^2) of the codes and as many samples, of a density whose samples carry gradients (Li et al., 2015, Sec. 3.2).

    Its kernel is the sum over bandwidths s of exp(-|x - x'|^2 / (2 s)); these defaults are those released for TFD, MNIST has
    1 alone. Where the density standardises its vectors, it is those that are compared. The estimate is Eq. 3's, every pair
    in it. The root lets small discrepancies have large gradients (Sec. 3.2).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"sample", "pathwise"})

    bandwidths: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)

    def __post_init__(self) -> None:
        if not self.bandwidths or not all(0 < bandwidth < math.inf for bandwidth in self.bandwidths):
            raise ValueError(f"bandwidths must be positive numbers, at least one; not {list(self.bandwidths)}")

    def terms(self, model: Density, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        samples = model.sample(len(images), generator)
        codes, samples = ((vectors - model.shift) / model.scale for vectors in (images, samples))
        squared = mmd(samples, codes, [2 * bandwidth for bandwidth in self.bandwidths], kernel="rbf", estimator="biased")
        return {
            "discrepancy": squared.clamp_min(1e-12).sqrt()
        }  # rounding may leave less than 0; the root has no gradient there
