"""Eq. 5 of Yoo et al. (2019): the loss of an image decoded, in pixels and in what VGG19 sees.

    L = L_MSE(x, x^) + beta L_Perc(x, x^)

L_MSE is a mean over pixels in [-1, 1]. (For MNIST and TFD, without L_Perc, the released code has [0, 1]: a quarter of it, which
Adam does not notice.) L_Perc is the feature perceptual loss of Hou et al. (2017), 1/2 of the mean square difference of the maps
at relu1_1, relu2_1 and relu3_1, added up.
"""

import torch
from torch import Tensor

from genae.features.extractor import MapExtractor
from genae.features.vgg19 import Vgg19
from genae.features.weights import entry
from genae.losses.distances import mean_square
from genae.rows import by_rows


class PixelsAndPerception:
    """Eq. 5. Not a module: the network that it looks through is no part of what is trained, nor of a checkpoint.

    weight: beta; 0 leaves L_Perc out, and the network unread.  halved: whether L_Perc has its 1/2.
    """

    def __init__(self, weight: float, *, halved: bool) -> None:
        if weight < 0:
            raise ValueError(f"perceptual_weight must not be negative, not {weight}")
        self.weight = weight
        self.halved = halved
        self.network: MapExtractor | None = None

    def read(self, device: torch.device) -> None:
        """Read the network's weights onto `device`, once. Raises MissingWeights, or ValueError for unpublished weights.

        A run's identity says "VGG19" and not which weights, so a run may be trained with the published ones only.
        """
        if not self.weight or self.network is not None:
            return
        network = Vgg19()
        if not network.published:
            raise ValueError(
                f"the perceptual loss is trained with the published weights of VGG19 only (sha256 {entry('vgg19').sha256}...); "
                f"those under GENAE_WEIGHTS have {network.digest[:8]}. Unset it or remove them, then: genae weights fetch vgg19"
            )
        self.network = network.to(device, memory_format=torch.channels_last)

    def terms(self, decoded: Tensor, images: Tensor) -> dict[str, Tensor]:
        """The weighted terms for images [N, 1 or 3, H, W] in [-1, 1]; gradients flow to `decoded`."""
        terms = {"pixels": mean_square(decoded, images)}
        if self.weight:
            terms["perceptual"] = self.weight * self._perceptual(decoded, images)
        return terms

    def _perceptual(self, decoded: Tensor, images: Tensor) -> Tensor:
        if self.network is None:
            raise RuntimeError("the perceptual loss has not read its network yet")
        with torch.no_grad():
            seen = by_rows(self.network.maps, images)
        layers = [mean_square(a, b) for a, b in zip(by_rows(self.network.maps, decoded), seen, strict=True)]
        return sum(layers) / 2 if self.halved else sum(layers)
