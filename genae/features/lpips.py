"""LPIPS v0.1 (Zhang et al., 2018): the lpips package with its own linear heads, over a trunk read from a local file.

It must agree with `lpips.LPIPS(net=net)`, which downloads the trunk through torchvision when constructed. Digests and records
name both files, the trunk and the heads.
"""

import hashlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from genae.features import weights
from genae.features.extractor import Distance, frozen, tensors_of
from genae.pixels import to_rgb
from genae.registry import FEATURES

TRUNKS = {"alex": "alexnet", "vgg": "vgg16"}
HEADS = {  # sha256 of v0.1's published ones
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
}
SMALLEST = {"alex": 31, "vgg": 16}  # pixels; below, a pooling layer has nothing left to pool


class Lpips(Distance):
    """Images in [-1, 1], neither resized nor clipped."""

    def __init__(self, net: Literal["alex", "vgg"]) -> None:
        super().__init__()
        if net not in TRUNKS:
            raise ValueError(f"lpips has no net {net!r}; it has: {', '.join(TRUNKS)}")
        with tensors_of(TRUNKS[net]) as trunk:
            import lpips

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # lpips names torchvision's weights in an old way
                model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)  # pnet_rand: a random trunk, so no download
            self._load_trunk(model.net, trunk)
        self.model = model
        self.net = net
        files = used(net)
        self.digest = hashlib.sha256(f"{files['sha256']}/{files['heads']}".encode()).hexdigest()
        self.published = files["published"] and files["heads"] == HEADS[net]
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


def used(net: Literal["alex", "vgg"]) -> dict[str, Any]:
    """What a record says of these weights: of the trunk as genae.features.weights.used, and the sha256 of the heads."""
    return weights.used(TRUNKS[net]) | {"heads": weights.sha256_of(heads_file(net))}


def notes(net: Literal["alex", "vgg"]) -> list[str]:
    """What a header says of the heads: nothing, unless they are not the published ones."""
    return [] if weights.sha256_of(heads_file(net)) == HEADS[net] else ["unpublished heads"]


def heads_file(net: Literal["alex", "vgg"]) -> Path:
    """The linear heads inside the installed package, which is found without being imported (it imports torchvision)."""
    return Path(importlib.util.find_spec("lpips").origin).parent / "weights" / "v0.1" / f"{net}.pth"


@FEATURES.add("lpips")
def lpips_distance(*, net: Literal["alex", "vgg"] = "alex") -> Distance:
    """LPIPS v0.1 over AlexNet or VGG16."""
    return Lpips(net)
