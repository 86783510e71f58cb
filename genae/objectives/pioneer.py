"""The game of AGE, PIONEER and Balanced PIONEER: the encoder's update, then the decoder's, once or several times.

    L_phi   = max(-M_gap, KL[q(z | x)] - KL[q(z | x^)]) + lambda_X d_X(x, theta(phi(x)))
    L_theta = KL[q(z | x^)] + lambda_Z d_Z(z, phi(theta(z))),  x^ = theta(z),  z from the prior

KL is that of a batch's moments to N(0, I). The encoder conserves images and the decoder codes: no reconstruction of images
reaches the decoder, none of codes the encoder. All weights are in the papers' units (the released code of both PIONEERs has a
tenth of them, AGE's has them as they are). The three are settings of one objective:

Balanced PIONEER (Heljakka et al., 2020, arXiv:1904.06145): the defaults, with the schedule's margins.

PIONEER (Heljakka et al., 2018, arXiv:1807.03026): the defaults, and no margin in the schedule; its decoder has pixel norm.

AGE (Ulyanov et al., 2018, arXiv:1704.02304): kl_form: age, latent_distance: per-element, settled_factor: 1.0, pool_size: 0, and
one phase without margin. Its code takes 2 decoder updates on CIFAR-10, with 128 latents, and 3 on CelebA, with 64; Adam with
betas [0.5, 0.999], learning rate 2e-4, batches of 64.

Updates, weights, KL forms and pool are those of the three released codes; the default latent_distance is our reading.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from genae.losses.distances import cosine, cosine_per_element, mean_absolute, mean_square
from genae.losses.divergences import kl_of_moments
from genae.models.autoencoder import Autoencoder
from genae.networks.blocks import fixed_weights
from genae.objectives.image_pool import ImagePool
from genae.objectives.objective import Objective, Terms, Update
from genae.randomness import on_host
from genae.registry import OBJECTIVES
from genae.schedule import Phase

LATENT_DISTANCES = {"cosine": cosine, "per-element": cosine_per_element, "l2": mean_square}
LATENT_WEIGHTS = {"cosine": 1.95, "per-element": 1000.0, "l2": 500.0}


@OBJECTIVES.add("pioneer", small={"pool_size": 6})
@dataclass(kw_only=True)
class Pioneer(Objective):
    """Balanced PIONEER's two updates. The margin M_gap is the phase's.

    reconstruction: d_X, the mean over pixels of L1 or L2.  reconstruction_weight: lambda_X.  settled_factor: times this after a
    phase's fade-in; 1 in AGE, which has none.

    kl_weight: of every KL term.  kl_form: "gaussian", or what the released code of "age" computes (see kl_of_moments).
    kl_real_terms: 2 adds KL[q(z | x)] once more, outside the margin (an option of the released code, off).

    latent_distance: d_Z, the cosine distance; the mean over elements of 2 - a b that all three released codes have, D times
    weaker; or the mean over elements of squared differences, AGE's formula.  latent_weight: lambda_Z; by default 1.95 for the
    first and 1000 for the second, which are equal at D = 512, and 500 for the third, which on codes of norm 1 is equal to the
    second at every D.

    decoder_updates: for each update of the encoder, with codes drawn anew; 2 for the published numbers of both PIONEERs, whose
    later code advises 1.
    pool_size: the encoder sees some older fakes, swapped with p = 0.5 out of this many, once a phase has settled; half as many
    from 256x256; 0 for none.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"encode", "encoder"})

    reconstruction: Literal["l1", "l2"] = "l1"
    reconstruction_weight: float = 10.0
    settled_factor: float = 1.5
    kl_weight: float = 1.0
    kl_form: Literal["gaussian", "age"] = "gaussian"
    kl_real_terms: Literal[1, 2] = 1
    latent_distance: Literal["cosine", "per-element", "l2"] = "cosine"
    latent_weight: float | None = None
    decoder_updates: Annotated[int, Ge(1)] = 2
    pool_size: Annotated[int, Ge(0)] = 200

    def __post_init__(self) -> None:
        if self.decoder_updates < 1:
            raise ValueError(f"decoder_updates must be at least 1, not {self.decoder_updates}")
        self._latent_weight = LATENT_WEIGHTS[self.latent_distance] if self.latent_weight is None else self.latent_weight
        self._pool = ImagePool(self.pool_size)
        self._device = torch.device("cpu")

    def updates(self, model: Autoencoder) -> list[Update]:
        """The encoder's update, then the decoder's, `decoder_updates` times."""
        self._device = model.device
        encoder = Update("encoder", {"encoder": list(model.encoder.parameters())}, self._encoder_terms)
        decoder = Update("decoder", {"decoder": list(model.decoder.parameters())}, self._decoder_terms)
        return [encoder, *self.decoder_updates * [decoder]]

    def _encoder_terms(self, model: Autoencoder, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        with fixed_weights(model):
            with torch.no_grad():
                fakes = model.decode(model.prior(len(images), generator), phase.growth)
                if phase.settled:
                    fakes = self._pool.swap(fakes, on_host(generator))
            real = model.encode(images, phase.growth)  # apart from the fakes: a network may have batch normalisation
            fake = model.encode(fakes, phase.growth)
            decoded = model.decode(real, phase.growth)

        kl_real, kl_fake = self._kl(real), self._kl(fake)
        gap = kl_real - kl_fake
        if phase.margin > 0:
            gap = gap.clamp_min(-phase.margin)
        weight = self.reconstruction_weight * (self.settled_factor if phase.settled else 1.0)
        compare = mean_absolute if self.reconstruction == "l1" else mean_square
        terms = {"kl_gap": gap, "reconstruction": weight * compare(decoded, images)}
        return terms | ({"kl_real": kl_real} if self.kl_real_terms == 2 else {})

    def _decoder_terms(self, model: Autoencoder, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        codes = model.prior(len(images), generator)
        with fixed_weights(model):
            again = model.encode(model.decode(codes, phase.growth), phase.growth)
        distance = LATENT_DISTANCES[self.latent_distance]
        return {"kl_fake": self._kl(again), "latent": self._latent_weight * distance(again, codes)}

    def _kl(self, codes: Tensor) -> Tensor:
        return self.kl_weight * kl_of_moments(codes, self.kl_form)

    # What training changes.

    def enter(self, phase: Phase) -> None:
        """Empty the pool."""
        self._pool.reset(self.pool_size if phase.resolution < 256 else self.pool_size // 2)

    def state_dict(self) -> dict[str, Any]:
        """The image pool."""
        return self._pool.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._pool.load_state_dict(state, self._device)
