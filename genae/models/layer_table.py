"""A model's layers as a table: what each works on, its weights, and how many parameters are used.

Nothing is computed: the model is built and passed through once without numbers (torch's meta device), in a second at any size.
What a fully grown network passes by, as the colours of lower resolutions, is counted as unused.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genae.data.datasets import open_dataset
from genae.registry import MODELS


@dataclass(frozen=True)
class Layer:
    """One row.  shape: of what comes out for one image.  weights: of its convolutions and affine maps, in order."""

    name: str
    shape: tuple[int, ...]
    weights: tuple[str, ...]
    parameters: int


@dataclass(frozen=True)
class Part:
    """The layers of one part of a model, as its decoder.  used, parameters: how many the full network uses, and has in all."""

    name: str
    layers: tuple[Layer, ...]
    used: int
    parameters: int


def parts_of(spec: Mapping[str, Any], shape: tuple[int, int, int]) -> list[Part]:
    """The parts of the model that `spec` describes, for images of `shape` (C, H, W)."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, inputs: tuple, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[module] = tuple(output.shape[1:])

    with torch.device("meta"):
        model = MODELS.build(spec, shape)
        for module in model.modules():
            module.register_forward_hook(note)
        outputs, images = [model.decode(torch.zeros(1, model.latent.dim))], torch.zeros(1, *shape)
        if "encode" in model.provides:
            outputs.append(model.encode(images))
        if "discriminate" in model.provides:
            outputs.append(model.discriminate(images, None))
        own = list(model.parameters())
        gradients = torch.autograd.grad(sum(output.sum() for output in outputs), own, allow_unused=True)
    used = {id(p) for p, gradient in zip(own, gradients, strict=True) if gradient is not None}
    return [_part(name, child, shapes, used) for name, child in model.named_children() if any(True for _ in child.parameters())]


def lines(model: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[str]:
    """The table as text, of the model that the one spec describes, for the images that the other does."""
    try:
        shape = open_dataset(data, "test").shape
    except ValueError:  # the message is for those who want the data
        shape = (3, data["resolution"], data["resolution"])
        yield f"(for images of {shape[0]} channels; {data['name']} is not prepared here at this size)"
    try:
        parts = parts_of(model, shape)
    except RuntimeError:  # an operation that the meta device has not, or the frozen network of a file (external)
        yield f"(the layers of {model['name']} cannot be told without computing them)"
        return
    for part in parts:
        used, total = (f"{count / 1e6:.1f}M" for count in (part.used, part.parameters))
        yield f"{part.name}: {used} parameters used at {shape[1]}x{shape[2]}, {total} in all"
        for layer in part.layers:
            size = " x ".join(map(str, layer.shape))
            yield f"  {layer.name:26s} {size:16s} {layer.parameters:>10,d}  {', '.join(layer.weights)}"


def _part(name: str, network: nn.Module, shapes: Mapping[nn.Module, tuple[int, ...]], used: Set[int]) -> Part:
    layers = []
    for path, module in _rows(network, shapes):
        parameters = sum(p.numel() for p in module.parameters() if id(p) in used)
        if parameters:
            weights = tuple(_weights(part) for part in module.modules() if id(getattr(part, "weight", None)) in used)
            layers.append(Layer(path, shapes[module], weights, parameters))
    own = list(network.parameters())
    return Part(name, tuple(layers), sum(p.numel() for p in own if id(p) in used), sum(p.numel() for p in own))


def _rows(network: nn.Module, shapes: Mapping[nn.Module, tuple[int, ...]]) -> list[tuple[str, nn.Module]]:
    """The modules to give a row, in the order in which they were called: children, or what is inside of mere containers."""

    def below(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        for name, child in module.named_children():
            inside = f"{path}.{name}" if path else name
            contains = any(isinstance(part, nn.ModuleList) for part in child.children())
            contains = contains or (isinstance(child, nn.Sequential) and module is network)
            if child in shapes and not contains:
                yield inside, child
            else:
                yield from below(child, inside)

    called = {module: index for index, module in enumerate(shapes)}
    return sorted(below(network, ""), key=lambda row: called[row[1]])


def _weights(part: nn.Module) -> str:
    """ "3x3 512->256" of a convolution, "512->1024" of an affine map, "512" of scales."""
    outputs, *rest = part.weight.shape
    if not rest:
        return str(outputs)
    inputs, *size = rest
    if isinstance(part, nn.ConvTranspose2d):
        outputs, inputs = inputs, outputs
    return " ".join(["x".join(map(str, size)), f"{inputs}->{outputs}"]).strip()
