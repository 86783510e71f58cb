"""Finding an image's code by optimisation, against one pass of an encoder (Heljakka et al., 2020, A.6, Fig. 15).

`inversion` is measured by LPIPS, as the paper's; `inversion-efficientnet` by the distance of `pd-efficientnet`, and needs no
download. The value is the mean distance of test images to what the codes found for them decode to, after the last iteration:
the number to set beside `lpips` (or `pd-efficientnet`) of an encoder. Times, and where the search overtakes the encoder, are
details.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.features import lpips
from genae.features.extractor import Distance
from genae.metrics.images import real_images, reconstructions
from genae.metrics.metric import NOISE_INPUTS, Metric, check_at_least, weights_notes
from genae.metrics.perceptual_distance import Crop, Net, OverEfficientNet
from genae.metrics.seconds import EncodeSeconds
from genae.models.autoencoder import Generator
from genae.models.inversion import BETAS, CodeSearch, Comparison, Point
from genae.pixels import face_crop
from genae.registry import FEATURES, METRICS

PUBLISHED_IMAGES, PUBLISHED_ITERATIONS = 1000, 200


@dataclass(kw_only=True)
class InversionMetric(CodeSearch, Metric):
    """The distance that a search for codes reaches, and how long it takes.

    num_images: the first so many of the test split.  crop: `face` measures only the window about the face; the search sees all.
    Details: `distance_after_10` and `seconds_after_10` per image, for 0, 1, 2, 3, 5, 7, 10, 20, ... iterations. Where the model
    encodes: `encode_distance`, `encode_seconds` per image in batches as large; `seconds_to_match` that distance, between marks
    on a straight line; `ratio` of the two times; `matched`, 1, or 0 where the search did not get there. Then neither is known:
    the time of all of the search gives `ratio_at_least`.
    """

    name: ClassVar[str]
    repeatable: ClassVar[bool] = False
    num_images: int = PUBLISHED_IMAGES
    crop: Crop = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, num_images=self.num_images)

    def distance(self) -> Distance:
        """The distance that is measured. Raises MissingWeights."""
        raise NotImplementedError

    def loss(self) -> Distance:
        """The distance that is lowered. Raises MissingWeights."""
        return self.distance()

    def weights(self) -> dict[str, Any]:
        """The weights of the distance that is measured, as genae.features.weights.used gives them."""
        raise NotImplementedError

    def measure(self, model: Generator, data: Splits, context: Context) -> dict[str, float]:
        with torch.inference_mode(False):  # weights made under it would take no part in a gradient
            compare, loss = self._cropped(self.distance().to(context.device)), self.loss().to(context.device)
        images = self._images(data)
        batches = real_images(images, replace(context, batch_size=self.batch_size))
        curve = self.curve(model, batches, loss, compare, context.generator("codes to start from"))
        found = {self.name: curve[-1].distance}
        for point in curve:
            found |= {
                f"distance_after_{point.iterations}": point.distance,
                f"seconds_after_{point.iterations}": point.seconds,
            }
        return found | (self._against_encoder(model, data, context, compare, curve) if "encode" in model.provides else {})

    def _against_encoder(
        self, model: Generator, data: Splits, context: Context, compare: Comparison, curve: Sequence[Point]
    ) -> dict[str, float]:
        images = self._images(data)
        total = sum(compare(real, output).double().sum().item() for real, output in reconstructions(model, images, context))
        distance = total / len(images)
        encoding = EncodeSeconds(batch_size=self.batch_size).measure(model, data, context)[EncodeSeconds.name]
        seconds = seconds_to_reach(curve, distance)
        found = {"encode_distance": distance, "encode_seconds": encoding, "matched": float(seconds is not None)}
        if seconds is None:  # under another name, as a claim about the ratio is then not to be decided
            return found | {"ratio_at_least": curve[-1].seconds / encoding}
        return found | {"seconds_to_match": seconds, "ratio": seconds / encoding}

    def _cropped(self, distance: Distance) -> Comparison:
        if self.crop == "none":
            return distance
        return lambda images, outputs: distance(face_crop(images), face_crop(outputs))

    def _images(self, data: Splits) -> Dataset:
        return data.test.first(self.num_images)

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        images = self._images(data)
        return (
            super().protocol(data, context)
            | {
                "images": {"split": images.split, "digest": images.digest, "count": len(images)},
                "weights": self.weights(),
                "optimizer": {"name": "adam", "betas": list(BETAS)},
                "clipped": True,
                "rounded": False,
                "noise": NOISE_INPUTS,
                "dtype": "float32",
                "device": context.device.type,
                "threads": torch.get_num_threads(),
            }
            | ({} if self.start == "encode" else {"seed": context.seed})
        )

    def notes(self) -> list[str]:
        notes = super().notes()
        notes += [f"{self.num_images} images"] if self.num_images != PUBLISHED_IMAGES else []
        notes += [f"{self.iterations} iterations"] if self.iterations != PUBLISHED_ITERATIONS else []
        notes += ["one code"] if self.codes == "one" else []
        notes += [f"from the {self.start}"] if self.start != "prior-mean" else []
        notes += ["face crop"] if self.crop == "face" else []
        notes += [f"learning rate {self.learning_rate:g}"] if self.learning_rate != CodeSearch.learning_rate else []
        notes += [f"pixel weight {self.pixel_weight:g}"] if self.pixel_weight else []
        notes += [f"batches of {self.batch_size}"] if self.batch_size != CodeSearch.batch_size else []
        return notes + weights_notes(self.weights())


@METRICS.add("inversion", small={"num_images": 2, "iterations": 2, "batch_size": 2})
@dataclass(kw_only=True)
class Inversion(InversionMetric):
    """LPIPS after a search for codes of 200 iterations, and its seconds against an encoder's.

    net: of the LPIPS that is measured.  loss_net: of the one that is lowered; the paper's search sees features of VGG16.
    """

    name: ClassVar[str] = "inversion"
    net: Net = "alex"
    loss_net: Literal["alex", "vgg"] = "vgg"

    def distance(self) -> Distance:
        return FEATURES.build({"name": "lpips", "net": self.net})

    def loss(self) -> Distance:
        return FEATURES.build({"name": "lpips", "net": self.loss_net})

    def weights(self) -> dict[str, Any]:
        return lpips.used(self.net)

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        return super().protocol(data, context) | {"loss_weights": lpips.used(self.loss_net), "resize": "none", "version": "0.1"}

    def notes(self) -> list[str]:
        return super().notes() + lpips.notes(self.net) + ([] if self.net == "alex" else [self.net])


@METRICS.add("inversion-efficientnet", small={"num_images": 2, "iterations": 2, "batch_size": 2})
@dataclass(kw_only=True)
class InversionEfficientNet(OverEfficientNet, InversionMetric):
    """The same by the distance of pd-efficientnet: needs no download, is not LPIPS."""

    name: ClassVar[str] = "inversion-efficientnet"


def seconds_to_reach(curve: Sequence[Point], distance: float) -> float | None:
    """When a search first comes down to a distance, on straight lines between its points; None where it does not."""
    if curve[0].distance <= distance:
        return curve[0].seconds
    for before, after in itertools.pairwise(curve):
        if after.distance <= distance:
            share = (before.distance - distance) / (before.distance - after.distance)
            return before.seconds + share * (after.seconds - before.seconds)
    return None
