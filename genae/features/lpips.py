"""LPIPS v0.1 (Zhang et al., 2018): the lpips package with its own linear heads, over a trunk read from a local file.

It must agree with `lpips.LPIPS(net=net)`, which downloads the trunk through torchvision when constructed.
"""

import warnings
from typing import Literal

import torch
from torch import Tensor

from genae.features import weights
from genae.features.extractor import Distance, frozen
from genae.pixels import to_rgb
from genae.registry import FEATURES

TRUNKS = {"alex": "alexnet", "vgg": "vgg16"}
SMALLEST = {"alex": 31, "vgg": 16}  # pixels; below, a pooling layer has nothing left to pool


class Lpips(Distance):
    """Images in [-1, 1], neither resized nor clipped."""

    def __init__(self, net: Literal["alex", "vgg"]) -> None:
        super().__init__()
        if net not in TRUNKS:
            raise ValueError(f"lpips has no net {net!r}; it has: {', '.join(TRUNKS)}")
        used = weights.used(TRUNKS[net])
        trunk = torch.load(weights.find(TRUNKS[net]), map_location="cpu", weights_only=True)
        import lpips

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # lpips names torchvision's weights in an old way
            model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)  # pnet_rand: a random trunk, so no download
        self._load_trunk(model.net, trunk)
        self.model = model
        self.net = net
        self.digest, self.published = str(used["sha256"]), bool(used["published"])
        frozen(self)

    @staticmethod
    def _load_trunk(net: torch.nn.Module, trunk: dict[str, Tensor]) -> None:
        """Torchvision's `features.<i>.*` into lpips' `slice<s>.<i>.*`: the layer numbers agree, the classifier is not used."""
        layers = {key.partition(".")[2]: value for key, value in trunk.items() if key.startswith("features.")}
        net.load_state_dict({key: layers[key.partition(".")[2]] for key in net.state_dict()})

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        size, smallest = a.shape[-1], SMALLEST[self.net]
        if size < smallest:
            raise ValueError(f"LPIPS over {self.net!r} needs images of at least {smallest} pixels after cropping, not {size}")
        return self.model(to_rgb(a), to_rgb(b)).flatten()


@FEATURES.add("lpips")
def lpips_distance(*, net: Literal["alex", "vgg"] = "alex") -> Distance:
    """LPIPS v0.1 over AlexNet or VGG16."""
    return Lpips(net)
