"""Inception-v3 of 2015, as the TTUR code used it for FID (Heusel et al., 2017): 2,048 features of the last average pool.

The network is pytorch_fid's: torchvision's Inception-v3 with its three changed kinds of block. It must agree with
`pytorch_fid.inception.InceptionV3([3])`, which resizes to 299x299, bilinear, align_corners=False, without antialiasing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.features import weights
from genae.features.extractor import Extractor, frozen, tensors_of
from genae.pixels import to_png_unit, to_rgb
from genae.registry import FEATURES

INPUT_SIZE = 299
RESIZE = "299x299 bilinear, no antialiasing"


def network() -> nn.Module:
    """The network with its classifier, unweighted, under the names of the published file. Downloads nothing."""
    from pytorch_fid import inception as blocks
    from torchvision.models import inception_v3

    net = inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    net.Mixed_5b = blocks.FIDInceptionA(192, pool_features=32)
    net.Mixed_5c = blocks.FIDInceptionA(256, pool_features=64)
    net.Mixed_5d = blocks.FIDInceptionA(288, pool_features=64)
    net.Mixed_6b = blocks.FIDInceptionC(768, channels_7x7=128)
    net.Mixed_6c = blocks.FIDInceptionC(768, channels_7x7=160)
    net.Mixed_6d = blocks.FIDInceptionC(768, channels_7x7=160)
    net.Mixed_6e = blocks.FIDInceptionC(768, channels_7x7=192)
    net.Mixed_7b = blocks.FIDInceptionE_1(1280)
    net.Mixed_7c = blocks.FIDInceptionE_2(2048)
    return net


class Inception(Extractor):
    """The features of `network`, in front of its classifier. Images are rounded to the 256 levels of a PNG first."""

    dims = 2048
    resize = RESIZE

    def __init__(self) -> None:
        super().__init__()
        used = weights.used("inception-2015")
        with tensors_of("inception-2015") as state:
            with torch.device("meta"):  # shapes only: nothing is initialised to be thrown away
                net = network()
            net.load_state_dict(state, assign=True)
        net.fc = nn.Identity()
        self.net = net
        self.digest, self.published = str(used["sha256"]), bool(used["published"])
        frozen(self)

    def forward(self, images: Tensor) -> Tensor:
        unit = to_png_unit(to_rgb(images))  # FID is defined on image files
        unit = F.interpolate(unit, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False)
        return self.net(2 * unit - 1)


@FEATURES.add("inception-2015")
def inception_2015() -> Extractor:
    """Inception-v3 of 2015, the network of FID: 2,048 features."""
    return Inception()
