"""VGG19 (Simonyan & Zisserman, 2015): relu1_1, relu2_1 and relu3_1, the layers of the perceptual loss of AE + LDE."""

import torch
from torch import Tensor, nn

from genae.features import weights
from genae.features.extractor import MapExtractor, frozen, tensors_of
from genae.pixels import to_rgb
from genae.registry import FEATURES

LAYERS = {1: "relu1_1", 6: "relu2_1", 11: "relu3_1"}  # index in torchvision's vgg19().features
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of images in [0, 1]


class Vgg19(MapExtractor):
    """Vector: the 256 channel means of relu3_1. Maps: the three layers. Images are not clipped: a loss needs a gradient."""

    dims = 256

    def __init__(self) -> None:
        super().__init__()
        used = weights.used("vgg19")
        with tensors_of("vgg19") as state:
            from torchvision.models import vgg19

            with torch.device("meta"):  # shapes only: nothing is initialised to be thrown away
                layers = vgg19(weights=None).features[: max(LAYERS) + 1]
            layers.load_state_dict({key: state[f"features.{key}"] for key in layers.state_dict()}, assign=True)
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # the maps are kept
        self.layers = layers
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1))
        self.digest, self.published = str(used["sha256"]), bool(used["published"])
        frozen(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)[-1].mean((2, 3))

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        x = ((to_rgb(images) + 1) / 2 - self.mean) / self.std
        kept = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in LAYERS:
                kept.append(x)
        return tuple(kept)


@FEATURES.add("vgg19")
def vgg19_features() -> MapExtractor:
    """VGG19's relu1_1, relu2_1, relu3_1."""
    return Vgg19()
