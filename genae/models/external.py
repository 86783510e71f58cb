"""A generator as its authors published it: its own weights, measured by the same metrics as what is trained here.

A row with this model and no stages is only measured. The file is known by its sha256, which is a setting and so part of the
row's identity, and is kept among the model's state, so that the digest in every record stands for it.
docs/external-generators.md says how to make such a file from a published one.
"""

import importlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genae.features import weights
from genae.latent import latent_space
from genae.models.autoencoder import Generator, Latent
from genae.pixels import from_unit, reduce
from genae.registry import MODELS
from genae.schedule import Growth

PAGE = "docs/external-generators.md"
Kind = Literal["torchscript", "safetensors", "pickle"]


@MODELS.add("external")
def external(
    shape: tuple[int, int, int],
    *,
    file: str,
    sha256: str,
    factory: str | None = None,
    factory_settings: dict[str, Any] | None = None,
    latent: Literal["gaussian", "sphere"] = "gaussian",
    latent_dim: int = 512,
    range: Literal["[-1, 1]", "[0, 1]"] = "[-1, 1]",
    resolution: int | None = None,
    trust_pickle: bool = False,
) -> Generator:
    """A published generator, from a TorchScript file, or from a safetensors file and a factory of the network.

    file: its name in one of the folders where weights are looked for, or a path from the root.  sha256: of the file, in hex.
    factory: `module:function` of your own, which makes the network for the tensors of a file that has no code.
    factory_settings: its keyword arguments.  latent: the codes' prior, N(0, I), or uniform on the unit sphere.
    range: of the pixels that the network gives.  resolution: of its images, averaged over areas down to the data's; None where
    they are of that size.  trust_pickle: read a file that can run any code while it is read. TorchScript is a program as well:
    it runs no Python, but it may write files, already while it is loaded. The sha256 should come from somebody you trust.
    """
    path = _found(file, sha256)
    network = _network(path, factory, factory_settings or {}, trust_pickle)
    decoder = ExternalDecoder(network, shape, resolution or shape[-1], range, sha256.lower(), path)
    space = latent_space(latent, latent_dim)
    decoder.requires_grad_(False).eval()
    _check_repeats(decoder, space)
    return Generator(space, decoder)


class ExternalDecoder(nn.Module):
    """Codes [N, D] -> images [N, C, H, W] of the data's size in [-1, 1], by a network that knows neither.

    network: codes -> images [N, C, resolution, resolution] in `value_range`, in float of any precision.  path: named in errors.
    """

    def __init__(
        self, network: nn.Module, shape: tuple[int, int, int], resolution: int, value_range: str, sha256: str, path: Path
    ) -> None:
        super().__init__()
        self.network = network
        self.shape, self.resolution, self.value_range, self.path = tuple(shape), resolution, value_range, path
        # Code is no tensor: only the file's digest tells two TorchScript files apart that hold the same numbers.
        self.register_buffer("file_sha256", torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8))

    def forward(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
        channels, _, size = self.shape
        if growth is not None and (growth.resolution != size or growth.fade < 1):
            raise ValueError(f"this network does not grow: it works at {size} pixels only, not at {growth}")
        images = self.network(codes)
        expected = (len(codes), channels, self.resolution, self.resolution)
        if not isinstance(images, Tensor) or tuple(images.shape) != expected:
            found = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(
                f"{self.path} makes {found} of codes {list(codes.shape)}, not {list(expected)}: the data are {size}x{size} "
                f"with {channels} channels; say the generator's own size as `resolution`, a multiple of the data's"
            )
        images = images.to(torch.float32)
        return reduce(from_unit(images) if self.value_range == "[0, 1]" else images, size)


def _found(file: str, sha256: str) -> Path:
    """The file, where it is and is the one that is meant."""
    places = [Path(file).expanduser()] if Path(file).expanduser().is_absolute() else [f / file for f in weights.folders()]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        where = " or as ".join(map(str, places))
        raise FileNotFoundError(f"model 'external' needs {file}: put it here as {where} (sha256 {sha256}; {PAGE})")
    found = weights.sha256_of(path)
    if found != sha256.lower():
        raise ValueError(f"{path} has sha256 {found}, not {sha256}: it is another file than the one that was meant")
    return path


def _network(path: Path, factory: str | None, settings: Mapping[str, Any], trust_pickle: bool) -> nn.Module:
    """The network with its weights."""
    kind = _kind(path)
    if kind == "pickle" and not trust_pickle:
        raise ValueError(
            f"{path} is a pickle, which can run any code while it is read. Make it TorchScript or safetensors ({PAGE}), or "
            "where you trust whoever made it, say trust_pickle: true"
        )
    loaded = _read(path, kind)
    if isinstance(loaded, nn.Module):
        if factory is not None or settings:
            raise ValueError(f"{path} brings its own network: take `factory` and `factory_settings` away")
        return loaded
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path} holds a {type(loaded).__name__}, neither a network nor tensors by name")
    if factory is None:
        raise ValueError(f"{path} holds tensors and no network: say `factory: module:function`, which makes one")
    return _filled(_made(factory, settings), loaded, path, factory)


def _kind(path: Path) -> Kind:
    """What a file is by its contents, whatever it is called."""
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                inside = [name.partition("/")[2] for name in archive.namelist()]
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if any(name.startswith("code/") for name in inside):
            return "torchscript"
        if "data.pkl" in inside:
            return "pickle"
    else:
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:  # a length, then a JSON header
            return "safetensors"
        if head[:1] == b"\x80":
            return "pickle"
    raise ValueError(f"{path} is neither TorchScript nor safetensors ({PAGE})")


def _read(path: Path, kind: Kind) -> Any:
    """What a file holds, on the CPU. Raises ValueError where it is damaged, or the modules of a pickle are not here."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if kind == "safetensors":
            return load_file(path)
        if kind == "pickle":
            return torch.load(path, map_location="cpu", weights_only=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch advises its own exporters; the files are what there is
            return torch.jit.load(str(path), map_location="cpu")
    except (SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, ImportError, AttributeError) as error:
        if "alloc" in str(error):  # the machine's fault, not the file's
            raise
        reason = next(iter(str(error).split("\n")), "") or "it ends too soon"
        raise ValueError(f"{path} cannot be read as {kind}: {reason}") from error


def _made(factory: str, settings: Mapping[str, Any]) -> nn.Module:
    """What the user's `module:function` returns."""
    module_name, colon, function_name = factory.partition(":")
    if not (colon and module_name and function_name):
        raise ValueError(f"factory must be module:function, not {factory!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"factory: there is no module {module_name!r}; name it under `imports:` too") from None
        raise  # it is there; something that it imports is not
    if not callable(getattr(module, function_name, None)):
        raise ValueError(f"factory: module {module_name!r} has no function {function_name!r}")
    network = getattr(module, function_name)(**settings)
    if not isinstance(network, nn.Module):
        raise ValueError(f"factory {factory!r} must return a torch.nn.Module; it returned {type(network).__name__}")
    return network


def _filled(network: nn.Module, tensors: Mapping[str, Any], path: Path, factory: str) -> nn.Module:
    """The network with all of its tensors, and no others, taken from the file."""
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor) for name, tensor in tensors.items()}
    unlike = [name for name in dict.fromkeys([*wanted, *given]) if wanted.get(name) != given.get(name)]
    if unlike:
        more = f" and {len(unlike) - 3} more" if len(unlike) > 3 else ""
        raise ValueError(f"{path} does not fit the network of {factory}: {', '.join(unlike[:3])}{more} are not alike in both")
    network.load_state_dict(tensors)
    return network


@torch.no_grad()
def _check_repeats(decoder: ExternalDecoder, latent: Latent) -> None:
    """Raise ValueError where one code gives two images: noise that a file draws itself would enter every metric unseen."""
    codes = latent.sample(1, torch.Generator().manual_seed(0))
    images = decoder(codes)
    if not images.isfinite().all():
        raise ValueError(f"{decoder.path} makes an image with numbers that are not finite ({PAGE})")
    if not torch.equal(images, decoder(codes)):
        raise ValueError(f"{decoder.path} gives another image each time for the same code: make it with fixed noise ({PAGE})")
