"""GLOW (Kingma & Dhariwal, 2018, arXiv:1807.03039), of the flows that `normflows` has (Stimper et al., 2023; MIT licence).

A step of flow is actnorm, an invertible 1x1 convolution and a coupling layer (Sec. 3); a level is a squeeze, K steps and a
split (Fig. 2b). Its objective is `likelihood`. Normflows' own actnorm takes its statistics from the first batch that passes, in
either direction and in eval mode too, and looks at the device in every pass; here training begins with it, once.
"""

import importlib.util
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genae.latent import Gaussian
from genae.models.autoencoder import Generator
from genae.registry import MODELS
from genae.rows import by_rows, whole
from genae.schedule import Growth

EXPLODED = 100.0  # an image has values in [-1, 1]; beyond this, a sample has left what its flow learned


class ActNorm(nn.Module):
    """A scale and a shift per channel; the first batch in train mode comes out with mean 0 and variance 1 (Sec. 3.1).

    As in all flows of normflows, `inverse` is the direction from images to codes, and each direction also gives the log of its
    change of volume. Before that first batch it changes nothing.
    """

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.t = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(False))
        self._asked = False  # whether `initialized` is known to be true, without a look at the device

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z * self.s.exp() + self.t, self.s.sum() * z[0, 0].numel()

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and not self._asked:
            if not self.initialized:
                self._initialize(whole(z.detach()))
            self._asked = True
        return (z - self.t) * (-self.s).exp(), -self.s.sum() * z[0, 0].numel()

    @torch.no_grad()
    def _initialize(self, z: Tensor) -> None:
        mean = z.mean((0, 2, 3), keepdim=True)
        self.t.copy_(mean)
        self.s.copy_(((z - mean).square().mean((0, 2, 3), keepdim=True).sqrt() + 1e-6).log())
        self.initialized.fill_(True)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._asked = False


class Flow(nn.Module):
    """Codes [N, C H W] -> images [N, C, H, W], and back.

    A code is the base's noise, N(0, I): that of the last level first, then what earlier levels split off, each flattened. Every
    base has a learned mean and spread per channel.
    """

    def __init__(
        self, shape: tuple[int, int, int], num_levels: int, num_steps: int, hidden_channels: int, coupling: str
    ) -> None:
        super().__init__()
        import normflows as nf

        channels, height, width = shape
        if height % 2**num_levels or width % 2**num_levels:
            raise ValueError(f"num_levels must not halve {height}x{width} images more often than they can be; not {num_levels}")
        self.resolution = height
        bases, levels = [], []
        for level in reversed(range(num_levels)):  # normflows counts from the last, which works at the fewest pixels
            deep = channels * 2 ** (level + 2)  # squeezed four times as many, of which each split leaves half
            steps: list[nn.Module] = [_step(deep, hidden_channels, coupling) for _ in range(num_steps)]
            levels.append([*steps, nf.flows.Squeeze()])
            kept = deep if level == num_levels - 1 else deep // 2
            bases.append(nf.distributions.GlowBase((kept, height >> (level + 1), width >> (level + 1))))
        merges = [nf.flows.Merge() for _ in range(num_levels - 1)]
        self.flow = nf.MultiscaleFlow(bases, levels, merges, class_cond=False)

    def forward(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
        self._check(growth)
        with _all_digits(codes):
            parts = codes.split([math.prod(base.shape) for base in self.flow.q0], dim=1)
            scaled = []
            for base, part in zip(self.flow.q0, parts, strict=True):
                mean, log_spread = _moments(base)
                scaled.append(mean + log_spread.exp() * part.unflatten(1, base.shape))
            return self.flow.forward_and_log_det(scaled)[0]

    def inverse(self, images: Tensor, growth: Growth | None = None) -> tuple[Tensor, Tensor]:
        """Images [N, C, H, W] -> codes [N, C H W], and the log of the change of volume, [N]."""
        self._check(growth)
        with _all_digits(images):
            scaled, log_det = self.flow.inverse_and_log_det(images)
            parts = []
            for base, part in zip(self.flow.q0, scaled, strict=True):
                mean, log_spread = _moments(base)
                parts.append(((part - mean) * (-log_spread).exp()).flatten(1))
                log_det = log_det - log_spread.sum() * part[0, 0].numel()
            return torch.cat(parts, dim=1), log_det

    def _check(self, growth: Growth | None) -> None:
        if growth is not None and growth != Growth(self.resolution):
            raise ValueError(f"a flow does not grow: it works at {self.resolution} pixels only, not at {growth}")


def _step(channels: int, hidden_channels: int, coupling: str) -> nn.Module:
    """One step of flow, with actnorm as above."""
    import normflows as nf

    step = nf.flows.GlowBlock(channels, hidden_channels, scale=coupling == "affine", scale_map="sigmoid")
    step.flows[-1] = ActNorm(channels)
    return step


def _moments(base: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and log spread of a GlowBase, [1, C, 1, 1] each; Glow's output scales, exp(3 s), quicken how they are learned."""
    factor = base.logscale_factor
    return base.loc * (factor * base.loc_logs).exp(), base.log_scale * (factor * base.log_scale_logs).exp()


def _all_digits(x: Tensor) -> torch.autocast:
    """A flow is undone exactly, and its density known exactly, in float32 only."""
    return torch.autocast(x.device.type, enabled=False)


class Glow(Generator):
    """A Generator that is a bijection: it encodes exactly, and has a density. Provides "encode" and "log_prob"."""

    def __init__(self, flow: Flow, dim: int, temperature: float) -> None:
        super().__init__(Gaussian(dim), flow)
        self.temperature = temperature

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"encode", "log_prob"}

    def decode(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
        """Codes [N, C H W] -> images [N, C, H, W].

        The inverse of a flow can explode on codes that no training image has (Behrmann et al., 2021, arXiv:2006.09347), here on
        one sample in a hundred after a short training. What leaves float32 is shown grey, what leaves [-100, 100] is cut there,
        so that such samples are measured, as the failures that they are.
        """
        return super().decode(codes, growth).nan_to_num(nan=0.0).clamp(-EXPLODED, EXPLODED)

    def encode(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        """Images [N, C, H, W] -> the codes [N, C H W] that decode to them."""
        return self.decoder.inverse(images, growth)[0]

    def log_prob(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] -> the log of their density, [N], in nats, pixels being in [-1, 1]."""
        codes, log_det = by_rows(self.decoder.inverse, images)
        return log_det - codes.square().sum(1) / 2 - codes.shape[1] / 2 * math.log(2 * math.pi)

    def sample_codes(self, n: int, generator: torch.Generator) -> Tensor:
        """n codes [n, D] of the prior, times the temperature."""
        return self.temperature * self.prior(n, generator)


@MODELS.add("glow", small={"num_levels": 2, "num_steps": 2, "hidden_channels": 8})
def glow(
    shape: tuple[int, int, int],
    *,
    num_levels: int = 6,
    num_steps: int = 32,
    hidden_channels: int = 512,
    coupling: Literal["additive", "affine"] = "additive",
    temperature: float = 1.0,
) -> Glow:
    """GLOW (Kingma & Dhariwal, 2018): codes as large as images; train with likelihood. Defaults are those of CelebA-HQ 256.

    num_levels: L.  num_steps: K, of each level.  hidden_channels: of the three convolutions of a coupling.  coupling: the
    published model of CelebA-HQ is "additive", those of smaller images "affine".  temperature: of samples; the paper's pictures
    are drawn at 0.7.
    """
    if importlib.util.find_spec("normflows") is None:
        raise ValueError("model 'glow' needs normflows: pip install 'genae[baselines]'")
    return Glow(Flow(shape, num_levels, num_steps, hidden_channels, coupling), math.prod(shape), temperature)
