"""How near a reconstruction looks to its image: `lpips` (Zhang et al., 2018), and `pd-efficientnet`, which needs no download.

`lpips` must agree with lpips.LPIPS over PNGs read by torchvision. `pd-efficientnet` is another number: the mean over five
layers of EfficientNet-Lite0 of the squared distance between unit-normalised features, on images resized to 64x64, without
learned weights (genae.features.extractor.MapDistance).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from genae.context import Context
from genae.data.dataset import Splits
from genae.features import efficientnet, lpips
from genae.features.extractor import Distance, MapDistance
from genae.metrics.metric import weights_notes
from genae.metrics.reconstruction import Comparison, ReconstructionMetric
from genae.pixels import face_crop
from genae.registry import FEATURES, METRICS

Crop = Literal["none", "face"]
Net = Literal["alex", "vgg"]


@dataclass(kw_only=True)
class PerceptualDistance(ReconstructionMetric):
    """The mean over test images of a perceptual distance to their reconstructions.

    crop: `face` compares only the half-size window about the face of an aligned portrait (genae.pixels.face_crop).
    """

    crop: Crop = "none"

    def distance(self) -> Distance:
        """The distance. Raises MissingWeights."""
        raise NotImplementedError

    def weights(self) -> dict[str, Any]:
        """The weights in use, as genae.features.weights.used gives them."""
        raise NotImplementedError

    def comparison(self, device: torch.device) -> Comparison:
        distance = self.distance().to(device)
        if self.crop == "none":
            return distance
        return lambda images, outputs: distance(face_crop(images), face_crop(outputs))

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        return super().protocol(data, context) | {"weights": self.weights()}

    def notes(self) -> list[str]:
        return super().notes() + (["face crop"] if self.crop == "face" else []) + weights_notes(self.weights())


@METRICS.add("lpips", small={"num_images": 8})
@dataclass(kw_only=True)
class LPIPS(PerceptualDistance):
    """LPIPS v0.1 of reconstructions; its own repository's default network is AlexNet."""

    name: ClassVar[str] = "lpips"
    net: Net = "alex"

    def distance(self) -> Distance:
        return FEATURES.build({"name": "lpips", "net": self.net})

    def weights(self) -> dict[str, Any]:
        return lpips.used(self.net)

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        return super().protocol(data, context) | {"resize": "none", "version": "0.1"}

    def notes(self) -> list[str]:
        return super().notes() + lpips.notes(self.net) + ([] if self.net == "alex" else [self.net])


class OverEfficientNet:
    """What `pd-efficientnet` and `ppl-efficientnet` measure by; mixed into a metric that asks for a distance."""

    def distance(self) -> Distance:
        return MapDistance(FEATURES.build({"name": "efficientnet-lite0"}))

    def weights(self) -> dict[str, Any]:
        return efficientnet.used()

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        return super().protocol(data, context) | {"resize": efficientnet.RESIZE}


@METRICS.add("pd-efficientnet", small={"num_images": 8})
@dataclass(kw_only=True)
class PDEfficientNet(OverEfficientNet, PerceptualDistance):
    """Perceptual distance of reconstructions over EfficientNet-Lite0, in [0, 4]: needs no download, is not LPIPS."""

    name: ClassVar[str] = "pd-efficientnet"
