"""Weight files of random numbers under the published files' names: all but the published numbers can be tested anywhere.

He-normal convolutions (He et al., 2015) keep a signal's size through a network, so features differ between images.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from genae.features import inception
from genae.features.weights import WEIGHTS

NAMES = ("inception-2015", "alexnet", "vgg16", "vgg19")


def write_random_weights(folder: Path, name: str, seed: int = 0) -> Path:
    """Write weights `name` into `folder`, a file that every reader of the published one can read. Returns its path."""
    network = _network(name)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WEIGHTS[name].file
    torch.save({key: _real(value) for key, value in network.state_dict().items()}, path)
    return path


def _network(name: str) -> nn.Module:
    """The network with weights to fill in; those of a classifier, which no extractor reads, are only shapes (meta tensors)."""
    if name == "inception-2015":
        return inception.network()
    import torchvision

    with torch.device("meta"):
        network = getattr(torchvision.models, name)(weights=None)
    network.features.to_empty(device="cpu")
    for parameter in network.features.parameters():
        nn.init.zeros_(parameter)
    return network


def _real(value: Tensor) -> Tensor:
    """The tensor itself, or for a shape one zero seen everywhere, which takes no room in a file."""
    return torch.zeros(()).expand(value.shape) if value.is_meta else value
