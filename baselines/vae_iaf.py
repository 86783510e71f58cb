"""A VAE whose posterior is an inverse autoregressive flow (Kingma et al., 2016, arXiv:1606.04934): VAE+IAF.

The parts, from Sec. 3 and Algorithm 1 of the paper:

- an encoder that gives a Gaussian's mean and standard deviation and a context h, z_0 = mean + std * noise;
- a chain of steps (Eqs. 12 to 14), z_t = gate * z_(t-1) + (1 - gate) * m, gate = sigmoid(s), where m and s of a dimension see
  h and the dimensions before it: MADE (Germain et al., 2015) of `zuko` (MIT licence), ELU within, s starting at +2, "a small
  change of z";
- the order of the dimensions reversed from step to step: here by mirrored masks, which moves no dimension;
- the prior N(0, I), and the divergence from it by one draw, log q(z | x) - log p(z): the objective `iaf-elbo`, which has the
  paper's free bits too (Appendix C.8, Eq. 15), by dimension.

Encoder and decoder are the DCGAN-style ones of AE and IAE, in place of the paper's residual ones: Table 2's row is of Yoo et
al.'s (2019) own making, and its networks are not published. Pixels are Gaussian about what is decoded, where the paper's are
binary. Weight normalisation is left out, as batch normalisation is in the networks.
"""

import importlib.util
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.latent import Gaussian
from genae.losses.bounds import GaussianPixels, importance_bound
from genae.models.autoencoder import Autoencoder
from genae.networks import dcgan
from genae.objectives.objective import Objective, Terms
from genae.precision import at_least_float32
from genae.registry import MODELS, OBJECTIVES
from genae.rows import by_rows
from genae.schedule import Growth, Phase

GATE_START = 2.0  # of s: the paper has it "such as close to +1 or +2"


class Step(nn.Module):
    """One step of the flow: z, h -> z', and the log of each dimension's gate, whose sum is log |det dz'/dz|.

    backwards: each dimension sees those after it, in place of those before it.
    """

    def __init__(self, dim: int, context_dim: int, hidden_units: tuple[int, ...], backwards: bool) -> None:
        super().__init__()
        from zuko.nn import MaskedMLP

        seen = torch.ones(dim, dim, dtype=torch.bool)
        seen = seen.triu(1) if backwards else seen.tril(-1)  # [i, j]: m_i and s_i see z_j
        with_context = torch.cat([seen, torch.ones(dim, context_dim, dtype=torch.bool)], dim=1)
        self.network = MaskedMLP(torch.cat([with_context, with_context]), hidden_units, activation=nn.ELU)
        with torch.no_grad():
            self.network[-1].bias[dim:] += GATE_START

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self.network(torch.cat([z, context], dim=1)).chunk(2, dim=1)
        gate = s.sigmoid()
        return gate * z + (1 - gate) * m, F.logsigmoid(s)


class FlowEncoder(nn.Module):
    """Images -> codes [N, D] through the whole chain, Algorithm 1.

    network: images -> mean, log standard deviation and context, [N, 2 D + H].
    """

    def __init__(self, network: nn.Module, dim: int, context_dim: int, num_steps: int, hidden_units: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.sizes = [dim, dim, context_dim]
        self.steps = nn.ModuleList(Step(dim, context_dim, hidden_units, bool(number % 2)) for number in range(num_steps))

    def forward(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        """The code of no noise: where the chain takes the Gaussian's mean."""
        found = self.network(images, growth)
        return self.draw(found, found.new_zeros(len(found), self.sizes[0]))[0]

    def draw(self, found: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What `network` found [N, 2 D + H], and noise [N, D] -> z [N, D], and log q(z | x) by dimension, [N, D].

        The number of a dimension is that of the noise that it began as; it is the sum over dimensions that is log q.
        """
        mean, log_std, context = at_least_float32(found).split(self.sizes, dim=1)
        z = mean + log_std.exp() * noise
        log_q = -noise.square() / 2 - math.log(2 * math.pi) / 2 - log_std
        for step in self.steps:
            z, log_gate = step(z, context)
            log_q = log_q - log_gate
        return z, log_q


class FlowVariational(Autoencoder):
    """An autoencoder with a flow as its posterior. Provides "flow-posterior" and "bound", and not "posterior"."""

    def __init__(self, latent: Gaussian, encoder: FlowEncoder, decoder: nn.Module, observation: GaussianPixels) -> None:
        super().__init__(latent, encoder, decoder)
        self.observation = observation

    @property
    def provides(self) -> frozenset[str]:
        """ "flow-posterior": `draw_posterior`, codes and their log density by dimension."""
        return super().provides | {"flow-posterior", "bound"}

    def draw_posterior(self, images: Tensor, generator: torch.Generator, growth: Growth | None = None) -> tuple[Tensor, Tensor]:
        """One z [N, D] of q(z | x) for each image, and log q(z | x) by dimension, [N, D]."""
        return self.encoder.draw(by_rows(self.encoder.network, images, growth), self._noise(images, generator))

    def bound(self, images: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
        """A lower bound of log p(x) of each image, [N], in nats, of pixels in [0, 1]: see genae/losses/bounds.py."""
        if num_draws < 1:
            raise ValueError(f"num_draws must be at least 1, not {num_draws}")
        found, log_weights = self.encoder.network(images), []
        for _ in range(num_draws):
            z, log_q = self.encoder.draw(found, self._noise(images, generator))
            divergence = (log_q - log_prior(z)).sum(1)
            log_weights.append(self.observation.log_prob(images, self.decode(z)) - divergence)
        return importance_bound(torch.stack(log_weights))

    def _noise(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.latent.sample(len(images), generator).to(images.device)


def log_prior(z: Tensor) -> Tensor:
    """log N(z; 0, 1) by dimension, [N, D]."""
    return -z.square() / 2 - math.log(2 * math.pi) / 2


SMALL = {"latent_dim": 8, "context_dim": 4, "num_steps": 2, "hidden_units": [16], "width": 8, "norm_scale_mean": 1.0}


@MODELS.add("vae-iaf", small=SMALL)
def vae_iaf(
    shape: tuple[int, int, int],
    *,
    latent_dim: int = 8,
    context_dim: int = 64,
    num_steps: int = 8,
    hidden_units: tuple[int, ...] = (1920,),
    width: int = 64,
    max_width: int = 1024,
    output: dcgan.Output = "sigmoid",
    norm_scale_mean: float = 0.0,
    pixel_std: float | None = None,
) -> FlowVariational:
    """VAE+IAF (Kingma et al., 2016): a chain of inverse autoregressive flow as posterior; train with iaf-elbo.

    latent_dim: 8 for MNIST as Table 2 of Yoo et al. (2019) has its autoencoders.  num_steps, hidden_units: the chain's length,
    and the layers of each MADE; 8 and 1920 are the paper's best on MNIST, one layer inferred.  context_dim: of h (ours).
    pixel_std: of a pixel in [0, 1] about what is decoded; null: one for all, learned.  The rest: genae/networks/dcgan.py.
    """
    if importlib.util.find_spec("zuko") is None:
        raise ValueError("model 'vae-iaf' needs zuko: pip install 'genae[baselines]'")
    if context_dim < 1:
        raise ValueError("context_dim must be at least 1: the first dimension of a step sees nothing else")
    if not hidden_units:
        raise ValueError("hidden_units must name at least one layer")
    sizes = {"width": width, "max_width": max_width, "norm_scale_mean": norm_scale_mean}
    network = dcgan.encoder(shape, 2 * latent_dim + context_dim, **sizes)
    return FlowVariational(
        Gaussian(latent_dim),
        FlowEncoder(network, latent_dim, context_dim, num_steps, hidden_units),
        dcgan.decoder(latent_dim, shape, output=output, **sizes),
        GaussianPixels(pixel_std),
    )


@OBJECTIVES.add("iaf-elbo")
@dataclass(kw_only=True)
class FlowElbo(Objective):
    """-log p(x | z) + log q(z | x) - log p(z), one z per image, in nats: the negative evidence lower bound.

    free_bits: nats per dimension, averaged over the batch, below which the divergence is not lowered: lambda of Eq. 15, with
    the dimensions as its groups; 0 is the bound itself.  The paper's choices lie between 0.125 and 2.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"flow-posterior"})

    free_bits: float = 0.0

    def __post_init__(self) -> None:
        if not self.free_bits >= 0:
            raise ValueError(f"free_bits must not be negative, not {self.free_bits}")

    def terms(self, model: FlowVariational, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        z, log_q = model.draw_posterior(images, generator, phase.growth)
        divergence = (log_q - log_prior(z)).mean(0)  # [D]
        if self.free_bits:
            divergence = divergence.clamp_min(self.free_bits)
        reconstruction = -model.observation.log_prob(images, model.decode(z, phase.growth)).mean()
        return {"reconstruction": reconstruction, "kl": divergence.sum()}
