"""`layer-entanglement`: the loss L_j of Heljakka et al. (2020), Eq. 5, of test images that training has not seen.

    L_j = || theta_1:j(z^_AB) - theta_1:j(z_A) || / sqrt(features),   z^_AB = phi(theta(z_AB)),

with z_AB the mix whose layers 1..j follow A = phi(x_A) and whose others follow B = phi(x_B). It is 0 where what the first j
layers draw does not depend on whose code the later layers had.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Splits
from genae.losses.distances import rms_norm
from genae.metrics.images import another, real_images
from genae.metrics.metric import NOISE_INPUTS, Metric, NotDefined
from genae.models.autoencoder import Autoencoder, Generator, mix
from genae.registry import METRICS

Encode = Callable[[Tensor], Tensor]


@METRICS.add("layer-entanglement", small={"num_pairs": 16})
@dataclass(kw_only=True)
class LayerEntanglement(Metric):
    """L_j, the mean over pairs and over j = 1..L-1; j = L mixes nothing.

    Features have whatever size the decoder gave them, and a loss may shrink them: so `chance` is the distance between the
    canvases of two unrelated faces, and `relative` the score over it, at each j. `ceiling` is of faces that are not mixed.

    codes: of "encoded" test images, or of the "prior", as in training.  num_pairs: of A and B, drawn.
    """

    name: ClassVar[str] = "layer-entanglement"
    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode", "layers"})
    codes: Literal["encoded", "prior"] = "encoded"
    num_pairs: Annotated[int, Ge(1)] = 1000

    def measure(self, model: Autoencoder, data: Splits, context: Context) -> dict[str, float]:
        if model.num_layers < 2:
            raise NotDefined("the decoder has one layer, so nothing can be mixed")
        a, b, unrelated = self._codes(model, data, context)
        splits, size = range(1, model.num_layers), context.batch_size
        own = [entanglement(model.encode, model, a, b, split, size) for split in splits]
        chance = [canvas_distance(model, unrelated, a, split, size) for split in splits]
        values = {
            self.name: fmean(own),
            "relative": fmean(value / apart if apart else 0.0 for value, apart in zip(own, chance, strict=True)),
            "ceiling": fmean(entanglement(model.encode, model, a, a, split, size) for split in splits),
            "chance": fmean(chance),
        }
        if context.untrained is not None:
            untrained = context.untrained().to(context.device).eval()
            values["untrained"] = fmean(entanglement(model.encode, untrained, a, b, split, size) for split in splits)
        return values | {f"j{split}": value for split, value in zip(splits, own, strict=True)}

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        of = {"images": {"split": data.test.split, "digest": data.test.digest}} if self.codes == "encoded" else {}
        more = {"clipped": False, "rounded": False, "noise": NOISE_INPUTS, "dtype": "float32", "seed": context.seed}
        return super().protocol(data, context) | of | more

    def notes(self) -> list[str]:
        return super().notes() + (["of prior codes"] if self.codes == "prior" else [])

    def _codes(self, model: Autoencoder, data: Splits, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Codes of A, of B, and of what has nothing to do with A. [num_pairs, D] each."""
        generator = context.generator("pairs")
        if self.codes == "prior":
            return tuple(model.prior(self.num_pairs, generator).to(context.device) for _ in range(3))
        codes = torch.cat([model.encode(images) for images in real_images(data.test, context)])
        a = torch.randint(len(codes), (self.num_pairs,), generator=generator)
        b, unrelated = (another(a, len(codes), generator) for _ in range(2))
        return codes[a], codes[b], codes[unrelated]


def entanglement(encode: Encode, decoder: Generator, a: Tensor, b: Tensor, split: int, batch_size: int) -> float:
    """L_j at j = split, the mean over codes a, b [P, D]; of plain images where b is a."""
    total = 0.0
    for code_a, code_b in zip(a.split(batch_size), b.split(batch_size), strict=True):
        mixed = encode(decoder.decode(mix(code_a, code_b, split, decoder.num_layers)))  # z^_AB
        distance = rms_norm(decoder.canvas(mixed, split), decoder.canvas(code_a, split))
        total += distance.item() * len(code_a)
    return total / len(a)


def canvas_distance(decoder: Generator, a: Tensor, b: Tensor, split: int, batch_size: int) -> float:
    """How far apart the canvases of codes a and b [P, D] are, in the units of L_j."""
    total = 0.0
    for code_a, code_b in zip(a.split(batch_size), b.split(batch_size), strict=True):
        distance = rms_norm(decoder.canvas(code_a, split), decoder.canvas(code_b, split))
        total += distance.item() * len(code_a)
    return total / len(a)
