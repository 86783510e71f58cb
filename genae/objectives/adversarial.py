"""Adversarial training, a game of two updates on the same batch: first the discriminator's, then the generator's.

`wgan-gp` is what PGGAN trains with (Karras et al., 2018, A.1): the improved Wasserstein loss (Gulrajani et al., 2017) with one
discriminator update per generator update (n_critic = 1), and a term that keeps the logits from drifting away.
`non-saturating` is what StyleGAN trains with (Karras et al., 2019, Sec. 2): the loss of Goodfellow et al. (2014) with the R1
penalty of Mescheder et al. (2018), and style mixing regularisation.

Both differentiate the discriminator twice, so its parts must support that (AdaIN of the decoder does not).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from genae.models.adversarial import AdversarialGenerator
from genae.models.autoencoder import mix
from genae.networks.blocks import fixed_weights
from genae.objectives.objective import Objective, Terms, Update
from genae.precision import at_least_float32
from genae.registry import OBJECTIVES
from genae.schedule import Growth, Phase


@dataclass(kw_only=True)
class _Adversarial(Objective):
    """Two updates; what each lowers is for the objectives below to say."""

    needs: ClassVar[frozenset[str]] = frozenset({"discriminate"})

    def updates(self, model: AdversarialGenerator) -> list[Update]:
        """The discriminator's update, then the generator's, whose group is the part of the model that moves, "decoder"."""
        return [
            Update("discriminator", {"discriminator": list(model.discriminator.parameters())}, self._discriminator_terms),
            Update("generator", {"decoder": list(model.decoder.parameters())}, self._generator_terms),
        ]

    def _discriminator_terms(
        self, model: AdversarialGenerator, images: Tensor, phase: Phase, generator: torch.Generator
    ) -> Terms:
        with fixed_weights(model):
            with torch.no_grad():
                fakes = model.decode(self._codes(model, len(images), phase.growth, generator), phase.growth)
            return self._discriminator_lowers(model, images, fakes, phase.growth, generator)

    def _generator_terms(self, model: AdversarialGenerator, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        with fixed_weights(model):
            fakes = model.decode(self._codes(model, len(images), phase.growth, generator), phase.growth)
            return self._generator_lowers(at_least_float32(model.discriminate(fakes, phase.growth)))

    def _codes(self, model: AdversarialGenerator, count: int, growth: Growth, generator: torch.Generator) -> Tensor:
        """What fakes are made from: [count, D], or [count, L, D] with one code per layer."""
        return model.prior(count, generator)


@OBJECTIVES.add("wgan-gp")
@dataclass(kw_only=True)
class WassersteinGradientPenalty(_Adversarial):
    """Wasserstein loss with gradient penalty and drift (PGGAN, A.1; Gulrajani et al., 2017, Eq. 3).

        L_D = E[D(x^)] - E[D(x)] + penalty_weight * E[(||grad D(x')||_2 - 1)^2] + drift_weight * E[D(x)^2]
        L_G = -E[D(x^)]

    x^ are generated, and each x' lies at random on the line from a real to a generated image.
    """

    penalty_weight: float = 10.0
    drift_weight: float = 0.001

    def _discriminator_lowers(
        self, model: AdversarialGenerator, images: Tensor, fakes: Tensor, growth: Growth, generator: torch.Generator
    ) -> Terms:
        # Apart, since the discriminator compares the images of a batch with one another.
        real = at_least_float32(model.discriminate(images, growth))
        fake = at_least_float32(model.discriminate(fakes, growth))
        terms = {"critic": fake.mean() - real.mean(), "drift": self.drift_weight * real.square().mean()}
        if self.penalty_weight:
            where = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device, dtype=images.dtype)
            _, gradient = _with_gradient(model, torch.lerp(images, fakes.to(images.dtype), where), growth)
            norm = (gradient.square().sum((1, 2, 3)) + 1e-12).sqrt()  # [N]; the root has no gradient at 0
            terms["penalty"] = self.penalty_weight * (norm - 1).square().mean()
        return terms

    def _generator_lowers(self, fake: Tensor) -> Terms:
        return {"critic": -fake.mean()}


@OBJECTIVES.add("non-saturating")
@dataclass(kw_only=True)
class NonSaturating(_Adversarial):
    """Non-saturating loss with R1 (StyleGAN, Sec. 2 and C; Mescheder et al., 2018, Eq. 9) and style mixing (Sec. 3.1).

        L_D = E[softplus(-D(x))] + E[softplus(D(x^))] + r1_weight / 2 * E[||grad D(x)||_2^2]
        L_G = E[softplus(-D(x^))]

    r1_weight: gamma.  style_mixing: the share of generated images that follow one code up to a random layer and another after
    it, where the decoder has layers. A layer is a resolution here; the released code also changes codes within one.
    """

    r1_weight: float = 10.0
    style_mixing: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.style_mixing <= 1:
            raise ValueError(f"style_mixing is a share of the images, from 0 to 1; not {self.style_mixing}")

    def _discriminator_lowers(
        self, model: AdversarialGenerator, images: Tensor, fakes: Tensor, growth: Growth, generator: torch.Generator
    ) -> Terms:
        terms = {"fake": F.softplus(at_least_float32(model.discriminate(fakes, growth))).mean()}
        if self.r1_weight:
            real, gradient = _with_gradient(model, images, growth)
            terms["r1"] = self.r1_weight / 2 * gradient.square().sum((1, 2, 3)).mean()
        else:
            real = at_least_float32(model.discriminate(images, growth))
        return terms | {"real": F.softplus(-real).mean()}

    def _generator_lowers(self, fake: Tensor) -> Terms:
        return {"fake": F.softplus(-fake).mean()}

    def _codes(self, model: AdversarialGenerator, count: int, growth: Growth, generator: torch.Generator) -> Tensor:
        codes = model.prior(count, generator)
        grown = model.layers_at(growth)
        if not self.style_mixing or grown == 1:  # a decoder without layers has one
            return codes
        device = generator.device
        mixed = torch.rand(count, generator=generator, device=device) < self.style_mixing
        crossover = torch.randint(1, grown, (count,), generator=generator, device=device)
        split = torch.where(mixed, crossover, grown)
        return mix(codes, model.prior(count, generator), split, model.num_layers)


def _with_gradient(model: AdversarialGenerator, images: Tensor, growth: Growth) -> tuple[Tensor, Tensor]:
    """Logits [N] of images, and the gradient of each by its image, [N, C, H, W], which can be differentiated once more.

    In float32 under autocast too. Through the minibatch standard deviation a logit depends on the other images a little; as in
    the released codes, the gradient is that of the sum of all logits.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        logits = model.discriminate(images, growth)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return logits, gradient
