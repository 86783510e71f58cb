"""The automodulator's losses (Heljakka et al., 2020, Eq. 6), a game of two updates: first the encoder's, then the decoder's.

    L_phi   = max(-M_gap, KL[q(z | x)] - KL[q(z | x^)]) + lambda_X d_rho(x, theta(phi(x)))
    L_theta = KL[q(z | x^)] + lambda_Z d_cos(z, phi(theta(z))) + L_j

x^ are images from prior codes, a quarter of them from mixed codes z_AB; KL is that of a batch's moments to N(0, I). The
reconstruction loss reaches the encoder only. Where images x_1 and x_2 are known to differ in what the first layers carry alone,
and their codes are z_1 and z_2, L_phi has two more terms (Sec. 3.3 and 4.3, Eqs. 7-11):

    L_inv + L'_inv = d_rho(x_2, theta_{3:N}(theta_{1:2}(z_2), z_1)) + d_rho(x_1, theta_{3:N}(theta_{1:2}(z_1), z_2))

All weights are in the paper's units (the released code's times ten). Where paper and released code disagree, a setting says so,
and its default is what the paper states; where the paper is silent, what the released code does (docs/paper-and-code.md).
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from genae.losses.distances import cosine, cosine_per_element, mean_absolute, mean_square, rms_norm
from genae.losses.divergences import kl_of_moments
from genae.losses.robust import AdaptiveRobustLoss, grow
from genae.models.autoencoder import Autoencoder, mix
from genae.networks.blocks import StyleMap, fixed_weights
from genae.objectives.image_pool import ImagePool
from genae.objectives.objective import Objective, Terms, Update
from genae.randomness import on_host
from genae.registry import OBJECTIVES
from genae.schedule import Phase

LATENT_WEIGHT = {"cosine": 1.95, "per-element": 1000.0}
LAYER_WEIGHT = {"norm": 1.0, "mean-square": 10.0}


@OBJECTIVES.add(
    "automodulator",
    small={"pool_size": 6},
    added={"robust_maps": "pixel-and-channel", "invariance": "none", "invariance_layers": 2},
)
@dataclass(kw_only=True)
class Automodulator(Objective):
    """Eq. 6 of Heljakka et al. (2020). The margin M_gap is the phase's.

    Reconstruction.  reconstruction: d_rho ("robust"), or the L1 or L2 that it replaced (Table 1); each a mean over pixels.
    reconstruction_weight: lambda_X.  settled_factor: times this after a phase's fade-in.  robust_factor: times this for d_rho.
    robust_scale: whether d_rho's scale is learned beside alpha.  robust_maps: one alpha and scale for each "pixel", which its
    channels share (the paper: "each alpha belongs to one pixel"), or for each "pixel-and-channel" (released).  alpha_growth: to
    the "blocks" of 2x2 pixels of the paper, or "released", which scrambles columns.

    Divergence.  kl_weight: of every KL term.  kl_real_terms: 2 adds KL[q(z | x)] once more, outside the margin (released).
    margin_above: clamp the gap from above too, at this times the margin (released: 0.5; the paper has no such clamp).

    Codes.  latent_distance: the cosine distance, or the released mean over elements of 2 - a b, D times weaker.  latent_weight:
    lambda_Z; by default 1.95 for the one and 1000 for the other, which are equal at D = 512.

    Layers.  layer_distance: of L_j, the L2 norm over sqrt(features), or the released mean square.  layer_weight: by default 1
    for the one and 10 for the other; 0 leaves L_j out.  split_range: j is drawn for each batch from 1 to N, or to N - 1
    (released: never a mix that is none), N being the layers grown.  mixed_share_*: of the batch, from mixed codes (released:
    0.25 and 0.5).  mixed_fakes: x^ of a mix is decoded from the re-encoded z_AB as Eq. 6 reads, or is the "direct" decode of
    two codes (released).

    Invariance.  invariance: x_1 is the first half of the batch, and its mirror image x_2 takes the place of the other half (of
    an odd batch, one image is left out). "added": Eqs. 10 and 11 are added to L_phi (the paper), each weighed as the
    reconstruction is, of which it is a generalisation; not before the decoder has grown a layer that z_1 and z_2 can exchange.
    "replacing" (released): they stand in the place of the reconstruction from the start, the decoder's style maps g_i learn
    from them in the encoder's update too (its group "styles"), and KL[q(z | x)] is the mean over the two halves.
    invariance_layers: how many layers take the code of their own image, 2 in Eqs. 10 and 11. Meant for a model with
    `extra_layer` and without `noise`.

    pool_size: the encoder sees some older fakes, swapped with p = 0.5 out of this many, once a phase has settled; half as many
    from 256x256; 0 for none.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"encode", "encoder", "layers"})
    later_groups: ClassVar[frozenset[str]] = frozenset({"robust"})

    reconstruction: Literal["robust", "l1", "l2"] = "robust"
    reconstruction_weight: float = 10.0
    settled_factor: float = 1.5
    robust_factor: float = 0.2
    robust_scale: Literal["learned", "fixed"] = "learned"
    robust_maps: Literal["pixel", "pixel-and-channel"] = "pixel"
    alpha_growth: Literal["blocks", "released"] = "blocks"
    kl_weight: float = 1.0
    kl_real_terms: Literal[1, 2] = 1
    margin_above: float | None = None
    latent_distance: Literal["cosine", "per-element"] = "cosine"
    latent_weight: float | None = None
    layer_distance: Literal["norm", "mean-square"] = "norm"
    layer_weight: float | None = None
    split_range: Literal["1..N", "1..N-1"] = "1..N"
    mixed_share_encoder: float = 0.25
    mixed_share_decoder: float = 0.25
    mixed_fakes: Literal["re-encoded", "direct"] = "re-encoded"
    pool_size: Annotated[int, Ge(0)] = 200
    invariance: Literal["none", "added", "replacing"] = "none"
    invariance_layers: Annotated[int, Ge(1)] = 2

    def __post_init__(self) -> None:
        for name in ("mixed_share_encoder", "mixed_share_decoder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share of the batch, from 0 to 1; not {getattr(self, name)}")
        self._latent_weight = LATENT_WEIGHT[self.latent_distance] if self.latent_weight is None else self.latent_weight
        self._layer_weight = LAYER_WEIGHT[self.layer_distance] if self.layer_weight is None else self.layer_weight
        self._pool = ImagePool(self.pool_size)
        self._robust: AdaptiveRobustLoss | None = None  # of the phase's resolution; none before the first phase
        self._device = torch.device("cpu")
        self._channels = 0

    def updates(self, model: Autoencoder) -> list[Update]:
        """The encoder's update (groups "encoder", "robust" and "styles"), then the decoder's."""
        if not self._channels:
            self._device, self._channels = model.device, _image_channels(model)
        encoder = {"encoder": list(model.encoder.parameters())}
        if self._robust is not None:
            learned = [self._robust.raw_alpha, self._robust.raw_scale]
            encoder["robust"] = learned if self.robust_scale == "learned" else learned[:1]
        if self.invariance != "none" and self.invariance_layers >= model.num_layers:
            raise ValueError(
                f"invariance_layers must be below the decoder's {model.num_layers} layers; not {self.invariance_layers}"
            )
        if self.invariance == "replacing":
            encoder["styles"] = _style_maps(model.decoder)
        return [
            Update("encoder", encoder, self._encoder_terms),
            Update("decoder", {"decoder": list(model.decoder.parameters())}, self._decoder_terms),
        ]

    # What each update lowers.

    def _encoder_terms(self, model: Autoencoder, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        if self.invariance != "none":
            images = _with_mirrored(images)
        with fixed_weights(model):
            with torch.no_grad():
                fakes = self._fakes(model, len(images), phase, generator)
                if phase.settled:
                    fakes = self._pool.swap(fakes, on_host(generator))
            codes = model.encode(torch.cat([images, fakes]), phase.growth)  # one pass for both
            real, fake = codes[: len(images)], codes[len(images) :]
            decoded = {}
            if self.invariance != "replacing":
                decoded["reconstruction"] = model.decode(real, phase.growth)
            if self._exchanges(model, phase):
                decoded["invariance"] = model.decode(self._exchanged(real, model.num_layers), phase.growth)

        halves = real.chunk(2) if self.invariance == "replacing" else [real]
        kl_real = self.kl_weight * sum(kl_of_moments(half) for half in halves) / len(halves)
        kl_fake = self.kl_weight * kl_of_moments(fake)
        gap = kl_real - kl_fake
        if phase.margin > 0:
            above = None if self.margin_above is None else self.margin_above * phase.margin
            gap = gap.clamp(-phase.margin, above)
        terms = {"kl_gap": gap} | {name: self._reconstruction(found, images, phase) for name, found in decoded.items()}
        if "invariance" in terms:  # a mean over both halves so far; Eqs. 10 and 11 are a mean over each
            terms["invariance"] = 2 * terms["invariance"]
        return terms | ({"kl_real": kl_real} if self.kl_real_terms == 2 else {})

    def _decoder_terms(self, model: Autoencoder, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
        plain, layered, split = self._codes(model, len(images), self.mixed_share_decoder, phase, generator)
        num_plain, growth = len(plain), phase.growth
        with fixed_weights(model):
            fakes, canvases = model.decode_with_canvas(layered, split, growth)
            codes = model.encode(fakes, growth)
            mixed = codes[num_plain:]  # z^_AB, [M, D]
            if len(mixed) and self.mixed_fakes == "re-encoded":
                again, canvas = model.decode_with_canvas(mixed, split, growth)
                codes = torch.cat([codes[:num_plain], model.encode(again, growth)])
            elif len(mixed) and self._layer_weight:
                canvas = model.canvas(mixed, split, growth)

        terms = {"kl_fake": self.kl_weight * kl_of_moments(codes)}
        if num_plain:
            distance = cosine if self.latent_distance == "cosine" else cosine_per_element
            terms["cosine"] = self._latent_weight * distance(codes[:num_plain], plain)
        if len(mixed) and self._layer_weight:  # Eq. 5: theta_1:j on the re-encoded mix against theta_1:j on z_A
            distance = rms_norm if self.layer_distance == "norm" else mean_square
            terms["layer"] = self._layer_weight * distance(canvas, canvases[num_plain:])
        return terms

    # Their parts.

    def _codes(
        self, model: Autoencoder, count: int, mixed_share: float, phase: Phase, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, int]:
        """Prior codes for `count` images: the plain ones [P, D]; all by layer [count, L, D], plain ones first; the split j.

        The other count - P images mix two codes, z_A up to layer j and z_B after it.
        """
        grown = model.layers_at(phase.growth)
        last = grown if self.split_range == "1..N" else grown - 1
        num_mixed = round(mixed_share * count) if last > 0 else 0
        num_plain = count - num_mixed
        split = int(torch.randint(1, last + 1, (), generator=on_host(generator))) if num_mixed else 1

        drawn = model.prior(num_plain + 2 * num_mixed, generator)
        plain, code_a, code_b = drawn.split([num_plain, num_mixed, num_mixed])
        layered = plain[:, None].expand(-1, model.num_layers, -1)
        if num_mixed:
            layered = torch.cat([layered, mix(code_a, code_b, split, model.num_layers)])
        return plain, layered, split

    def _fakes(self, model: Autoencoder, count: int, phase: Phase, generator: torch.Generator) -> Tensor:
        """x^ for the encoder's update, to be called without gradients."""
        plain, layered, _ = self._codes(model, count, self.mixed_share_encoder, phase, generator)
        fakes, num_plain = model.decode(layered, phase.growth), len(plain)
        if num_plain < count and self.mixed_fakes == "re-encoded":
            again = model.decode(model.encode(fakes[num_plain:], phase.growth), phase.growth)
            fakes = torch.cat([fakes[:num_plain], again])
        return fakes

    def _exchanges(self, model: Autoencoder, phase: Phase) -> bool:
        """Whether L_inv is part of the encoder's loss at this growth."""
        if self.invariance == "added":  # it would be the reconstruction once more
            return model.layers_at(phase.growth) > self.invariance_layers
        return self.invariance == "replacing"

    def _exchanged(self, codes: Tensor, num_layers: int) -> Tensor:
        """Codes of x_1, x_2 -> layer codes [N, L, D] to decode into x_1, x_2: after `invariance_layers` those of the other."""
        code_1, code_2 = codes.chunk(2)
        return mix(codes, torch.cat([code_2, code_1]), self.invariance_layers, num_layers)

    def _reconstruction(self, decoded: Tensor, images: Tensor, phase: Phase) -> Tensor:
        weight = self.reconstruction_weight * (self.settled_factor if phase.settled else 1.0)
        if self.reconstruction == "robust":
            return weight * self.robust_factor * self._robust(decoded, images)
        return weight * (mean_absolute if self.reconstruction == "l1" else mean_square)(decoded, images)

    # What training changes.

    def enter(self, phase: Phase) -> None:
        """Empty the pool; give d_rho the maps of the phase's resolution. `updates` lists the new ones when asked again."""
        self._pool.reset(self.pool_size if phase.resolution < 256 else self.pool_size // 2)
        if self.reconstruction != "robust":
            return
        if self._robust is None:
            shape = (1 if self.robust_maps == "pixel" else self._channels, phase.resolution, phase.resolution)
            self._set_robust(torch.zeros(shape), torch.zeros(shape))
        while self._robust.raw_alpha.shape[-1] < phase.resolution:
            maps = self._robust.raw_alpha.detach(), self._robust.raw_scale.detach()
            self._set_robust(*(grow(values, self.alpha_growth) for values in maps))

    def _set_robust(self, raw_alpha: Tensor, raw_scale: Tensor) -> None:
        # copies: they are trained in place, and the maps may be a checkpoint's
        self._robust = AdaptiveRobustLoss(raw_alpha.clone(), raw_scale.clone()).to(self._device)

    def state_dict(self) -> dict[str, Any]:
        """The image pool, and d_rho's maps."""
        robust = {} if self._robust is None else {f"robust.{name}": value for name, value in self._robust.state_dict().items()}
        return robust | {f"pool.{name}": value for name, value in self._pool.state_dict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As saved; ask `updates` again afterwards, since d_rho's maps are new parameters."""
        if "robust.raw_alpha" in state:
            self._set_robust(state["robust.raw_alpha"], state["robust.raw_scale"])
        pool = {name.removeprefix("pool."): value for name, value in state.items() if name.startswith("pool.")}
        self._pool.load_state_dict(pool, self._device)


def _with_mirrored(images: Tensor) -> Tensor:
    """x_1, x_2: the first half of the batch, and its mirror images; of a face, they differ in azimuth alone (Sec. 4.3)."""
    first = images[: len(images) // 2]
    return torch.cat([first, first.flip(3)])


def _style_maps(decoder: nn.Module) -> list[nn.Parameter]:
    """The parameters of all g_i, grown or not."""
    maps = [part for part in decoder.modules() if isinstance(part, StyleMap)]
    if not maps:
        raise ValueError('invariance "replacing" trains the style maps of an AdaIN decoder; this model\'s decoder has none')
    return [parameter for part in maps for parameter in part.parameters()]


def _image_channels(model: nn.Module) -> int:
    """The channels of the model's images, seen in one decoded image."""
    training = model.training
    with torch.no_grad():
        code = model.prior(1, torch.Generator(model.device))
        channels = model.eval().decode(code).shape[1]
    model.train(training)
    return channels
