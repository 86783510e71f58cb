"""Deep generative stochastic networks (Bengio, Laufer, Alain & Yosinski, 2014, arXiv:1306.1091).

The parts, from Sec. 5 of the paper and the settings released for its MNIST row (K = 2, walk-back):

- layers of tanh units above the pixels, each pair joined by one weight matrix, used upwards as W and downwards as W^T;
- a step of the Markov chain: the odd layers from their neighbours, then the even ones, the pixels among them (Fig. 3 of the
  paper unfolds it), with Gaussian noise before and after the tanh of every hidden layer but, as released, the first;
- the pixels: p(X | h_1) = sigmoid(h_1 W^T + b), from which X is drawn (binary), then salt and pepper on a share of them;
- walk-back training (Bengio et al., 2013, arXiv:1305.6663): the chain runs several steps from a corrupted training image, and
  each step's p(X | h_1) is to reconstruct that image: the objective `walkback`;
- samples are the means p(X | h_1) along the chain, as its Parzen row has them.

The chain starts from noise and not from a training image: binary pixels that are drawn one by one, each with the mean of the
training images there, of which training keeps a running account. (From even odds it ends in negatives of images: tanh layers
that turn their signs turn black and white, and nothing in training leads back from there.) Its first `burn_in` steps are
dropped. Many chains run side by side, and each gives `collected` samples. A code is the first hidden layer h_1 of a step, after
which nothing is left to chance: `decode` is p(X | h_1), and decoded `sample_codes` are the samples. There is no prior on it,
and no likelihood.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.latent import Free
from genae.models.autoencoder import Generator
from genae.networks.fully_connected import Shape, as_images, as_vectors, num_pixels
from genae.objectives.objective import Objective, Terms
from genae.precision import at_least_float32
from genae.registry import MODELS, OBJECTIVES
from genae.schedule import Growth, Phase

MEAN_DECAY = 0.99  # of the running mean of the pixels, per batch


class TiedLayers(nn.Module):
    """Pixels h_0 and hidden layers h_1 to h_K with their tied weights; as a decoder, h_1 [N, D] -> images.

    hidden_noise: the standard deviation of what is added before and after tanh.  noisy_first: to h_1 too.
    pixel_noise: the share of pixels that become 0 or 1.  draw_pixels: draw X from p(X | h_1), or else take its mean.
    """

    mean_pixels: Tensor

    def __init__(
        self,
        shape: Shape,
        hidden_units: tuple[int, ...],
        *,
        hidden_noise: float,
        noisy_first: bool,
        pixel_noise: float,
        draw_pixels: bool,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.hidden_noise = hidden_noise
        self.noisy_first = noisy_first
        self.pixel_noise = pixel_noise
        self.draw_pixels = draw_pixels
        self.widths = [num_pixels(shape), *hidden_units]
        self.weights = nn.ParameterList(
            nn.init.xavier_uniform_(torch.empty(below, above)) for below, above in pairwise(self.widths)
        )
        self.biases = nn.ParameterList(torch.zeros(width) for width in self.widths)
        self.register_buffer("mean_pixels", torch.full((self.widths[0],), 0.5))  # of the training images, running

    def forward(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
        return as_images(self.logits(codes).sigmoid(), self.shape, growth)

    def logits(self, first: Tensor) -> Tensor:
        """h_1 [N, D] -> the logits of p(X | h_1), [N, C H W]."""
        return F.linear(first, self.weights[0], self.biases[0])

    def hidden(self, states: list[Tensor], layer: int, generator: torch.Generator | None) -> Tensor:
        """Layer 1 to K from its neighbours in `states` = [h_0, ..., h_K]; without a generator, without noise."""
        total = states[layer - 1] @ self.weights[layer - 1] + self.biases[layer]
        if layer + 1 < len(states):
            total = total + F.linear(states[layer + 1], self.weights[layer])  # W^T
        if generator is None or not self.hidden_noise or (layer == 1 and not self.noisy_first):
            return total.tanh()
        return (total + self._noise(total, generator)).tanh() + self._noise(total, generator)

    def _noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(like.shape, generator=generator, device=generator.device)
        return self.hidden_noise * drawn.to(like.device)

    def corrupt(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Salt and pepper: each pixel [N, C H W] is replaced with probability `pixel_noise`, by 0 or 1 at even odds."""
        chance = torch.rand(pixels.shape, generator=generator, device=generator.device).to(pixels.device)
        pepper, salt = chance < self.pixel_noise / 2, chance > 1 - self.pixel_noise / 2
        return pixels.masked_fill(pepper, 0.0).masked_fill(salt, 1.0)

    def chain(self, pixels: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
        """The Markov chain from pixels [N, C H W], hidden layers at 0: h_1 of each step, [N, D], without end."""
        states = [self.corrupt(pixels, generator)]
        states += [pixels.new_zeros(len(pixels), width) for width in self.widths[1:]]
        while True:
            for layer in range(1, len(states), 2):
                states[layer] = self.hidden(states, layer, generator)
            yield states[1]
            for layer in range(2, len(states), 2):  # from what the pixels were is from h_1 and h_3 alone: the order is free
                states[layer] = self.hidden(states, layer, generator)
            mean = self.logits(states[1]).sigmoid().detach()  # nor does a gradient pass through what is drawn
            if self.draw_pixels:
                chance = torch.rand(mean.shape, generator=generator, device=generator.device).to(mean.device)
                mean = (chance < mean).to(mean.dtype)
            states[0] = self.corrupt(mean, generator)

    def start(self, n: int, generator: torch.Generator) -> Tensor:
        """Binary noise about the mean of the training images, [n, C H W]."""
        chance = torch.rand(n, self.widths[0], generator=generator, device=generator.device).to(self.mean_pixels.device)
        return (chance < self.mean_pixels).to(self.mean_pixels.dtype)

    def settle(self, pixels: Tensor) -> Tensor:
        """h_1 [N, D] of pixels [N, C H W] that are held: without noise, through all layers upwards and down again."""
        states = [pixels, *(pixels.new_zeros(len(pixels), width) for width in self.widths[1:])]
        upwards = list(range(1, len(states)))
        for layer in [*upwards, *upwards[-2::-1]]:
            states[layer] = self.hidden(states, layer, None)
        return states[1]


class DeepGSN(Generator):
    """A generator whose samples are steps of a Markov chain. Provides "sample", "encode" and "walkback"."""

    def __init__(self, layers: TiedLayers, burn_in: int, collected: int) -> None:
        super().__init__(Free(layers.widths[1]), layers)
        self.burn_in = burn_in
        self.collected = collected

    @property
    def drawn(self) -> str:
        """For captions, which must not pass successive states of one chain off as draws."""
        if self.density is not None or self.collected == 1:
            return super().drawn
        return (
            f"Markov chains from noise, of each {self.collected} successive states from step {self.burn_in + 1} on; "
            "one state of every chain, then the next"
        )

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"sample", "encode", "walkback"}

    def encode(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        """Images [N, C, H, W] -> h_1 [N, D], without noise, what lies above it having had its say."""
        return self.decoder.settle(as_vectors(images, self.decoder.shape, growth))

    def walk(
        self, images: Tensor, num_steps: int, generator: torch.Generator, growth: Growth | None = None
    ) -> Iterator[Tensor]:
        """The logits [N, C H W] of p(X | h_1) at each of `num_steps` steps of the chain from images."""
        chain = self.decoder.chain(as_vectors(images, self.decoder.shape, growth), generator)
        for _ in range(num_steps):
            yield self.decoder.logits(next(chain))

    @torch.no_grad()
    def sample_codes(self, n: int, generator: torch.Generator) -> Tensor:
        """h_1 [n, D] of ceil(n / collected) chains from noise: of all of them at one step, then at the next."""
        if self.density is not None:
            return super().sample_codes(n, generator)
        num_chains = -(-n // self.collected)
        chain = self.decoder.chain(self.decoder.start(num_chains, generator), generator)
        for _ in range(self.burn_in):
            next(chain)
        return torch.cat([next(chain) for _ in range(self.collected)])[:n]


@MODELS.add("deep-gsn", small={"hidden_units": [32, 16], "burn_in": 5, "collected": 2, "hidden_noise": 0.5, "pixel_noise": 0.1})
def deep_gsn(
    shape: tuple[int, int, int],
    *,
    hidden_units: tuple[int, ...] = (1500, 1500),
    hidden_noise: float = 2.0,
    noisy_first: bool = False,
    pixel_noise: float = 0.4,
    draw_pixels: bool = True,
    burn_in: int = 100,
    collected: int = 1,
) -> DeepGSN:
    """Deep GSN (Bengio et al., 2014): samples of a Markov chain; train with walkback. Defaults are those released for MNIST.

    hidden_units: of h_1 to h_K.  hidden_noise: standard deviation, before and after tanh.  noisy_first: in h_1 too.
    pixel_noise: share of salt and pepper.  draw_pixels: binary pixels in the chain; off, their means, for pixels that are not
    nearly binary.  burn_in, collected: steps that each chain drops, and gives (ours: the paper takes one long chain).
    """
    if not hidden_units:
        raise ValueError("hidden_units must name at least one layer")
    if not 0 <= pixel_noise <= 1:
        raise ValueError(f"pixel_noise is a share of the pixels, from 0 to 1; not {pixel_noise}")
    if collected < 1:
        raise ValueError("collected must be at least 1")
    noise = {"hidden_noise": hidden_noise, "noisy_first": noisy_first, "pixel_noise": pixel_noise, "draw_pixels": draw_pixels}
    return DeepGSN(TiedLayers(shape, hidden_units, **noise), burn_in, collected)


@OBJECTIVES.add("walkback", small={"num_steps": 2})
@dataclass(kw_only=True)
class Walkback(Objective):
    """Cross entropy of the pixels with each of `num_steps` reconstructions along the chain, summed (Bengio et al., 2014).

    num_steps: 4 as released; the top of K layers is heard from K steps on.  Each step's is a mean over pixels, less what pixels
    that are neither 0 nor 1 have even with themselves: 0 is then perfect, and the gradient is the same.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"walkback"})

    num_steps: int = 4

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError("num_steps must be at least 1")

    def terms(self, model: DeepGSN, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        pixels = as_vectors(images, model.decoder.shape, phase.growth)
        with torch.no_grad():
            model.decoder.mean_pixels.lerp_(pixels.mean(0), 1 - MEAN_DECAY)
        reconstructed = model.walk(images, self.num_steps, generator, phase.growth)
        entropies = [F.binary_cross_entropy_with_logits(at_least_float32(logits), pixels) for logits in reconstructed]
        return {"reconstruction": torch.stack(entropies).sum() - self.num_steps * F.binary_cross_entropy(pixels, pixels)}
