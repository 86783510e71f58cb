"""Named state to disk, whole or not at all; a model back from it.

A checkpoint is one file of tensors and plain values with a digest of its content. It is written aside, flushed, renamed, and
read back before an older one goes; the last two are kept. It is read with `weights_only=True`: a checkpoint runs no code.
"""

import hashlib
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genae.data.dataset import Dataset, Vectors
from genae.densities.density import Density
from genae.models.autoencoder import Generator
from genae.randomness import seed_for
from genae.registry import DENSITIES, MODELS
from genae.rundir import RunDir, read_json
from genae.shared_files import patiently, rename

KEEP = 2


class Damaged(OSError):
    """A file that is not a whole checkpoint, or whose content is not what was written."""


class Checkpoint(NamedTuple):
    state: dict[str, Any]
    digest: str
    path: Path


def digest(value: Any) -> str:
    """sha256 of nested mappings, sequences, tensors and plain values: of the content, not of a file format."""
    hashed = hashlib.sha256()

    def visit(part: Any) -> None:
        if isinstance(part, Tensor):
            flat = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            hashed.update(f"tensor {part.dtype} {tuple(part.shape)} ".encode())
            hashed.update(memoryview(flat.numpy()))
        elif isinstance(part, Mapping):
            hashed.update(f"mapping {len(part)} ".encode())
            for key in sorted(part, key=str):
                hashed.update(f"{key!r} ".encode())
                visit(part[key])
        elif isinstance(part, Sequence) and not isinstance(part, str):
            hashed.update(f"sequence {len(part)} ".encode())
            for item in part:
                visit(item)
        else:
            hashed.update(f"{part!r} ".encode())

    visit(value)
    return hashed.hexdigest()


def save(folder: Path, state: dict[str, Any], images_seen: int) -> Checkpoint:
    """Write `state` as the checkpoint at `images_seen`, read it back, and let all but the last two go."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*.writing"):  # by a process that died while writing
        left.unlink()
    path, aside = folder / f"{images_seen:010d}.pt", folder / f".{images_seen:010d}.writing"
    content = digest(state)

    def write() -> None:
        with aside.open("wb") as file:
            torch.save({"digest": content, "state": state}, file)
            file.flush()
            os.fsync(file.fileno())
        rename(aside, path)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the rename itself
        finally:
            os.close(descriptor)

    patiently(write, path)
    if read(path).digest != content:
        raise Damaged(f"{path} does not hold what was written to it")
    for old in _files(folder)[:-KEEP]:
        old.unlink()
    return Checkpoint(state, content, path)


def read(path: Path) -> Checkpoint:
    """A checkpoint file, on the CPU. Raises Damaged."""

    def load() -> Any:
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)

    try:
        saved = patiently(load, path)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        if "alloc" in str(error):  # the machine's fault, not the file's
            raise
        raise Damaged(f"{path} cannot be read: {str(error).splitlines()[0] if str(error) else 'it ends too soon'}") from error
    if not isinstance(saved, dict) or set(saved) != {"digest", "state"}:
        raise Damaged(f"{path} is not a checkpoint of genae")
    if digest(saved["state"]) != saved["digest"]:
        raise Damaged(f"{path} was altered: its content has not the digest written in it")
    return Checkpoint(saved["state"], saved["digest"], path)


def latest(folder: Path, damaged: Callable[[str], None] | None = None) -> Checkpoint | None:
    """The newest whole checkpoint; None where there is none.

    damaged: told of each damaged file, which is then set aside. Only the directory's owner may; otherwise it is passed over.
    """
    for path in reversed(_files(folder)):
        try:
            return read(path)
        except Damaged as error:
            if damaged:
                path.replace(path.with_suffix(".damaged"))
                damaged(f"{error}; set aside as {path.with_suffix('.damaged').name}")
    return None


def check_origin(found: Checkpoint, identity: str, data: Dataset | Vectors) -> None:
    """Raise ValueError where a checkpoint is of another stage than `identity`, or was trained on other data than `data`."""
    if found.state["identity"] != identity:
        held = f"model {found.state['model_spec']['name']!r} of identity {found.state['identity'][:12]}"
        raise ValueError(
            f"{found.path} is a checkpoint of another run: it holds {held}, not {identity[:12]}. "
            "Move it away: the one before it is then used, or the run is trained anew."
        )
    if found.state["data"] != data.digest:
        raise ValueError(
            f"{found.path.parent.parent.name} was trained on other data: its checkpoint names {found.state['data'][:12]}, "
            f"{data.name} is now {data.digest[:12]}. Restore that data, or move the directory away to train anew."
        )


def first_not_finite(value: Any, name: str = "") -> str | None:
    """The name of the first tensor in nested mappings and sequences that holds NaN or infinity."""
    if isinstance(value, Tensor):
        return name if value.is_floating_point() and not bool(value.isfinite().all()) else None
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    found = (first_not_finite(part, f"{name}.{key}".lstrip(".")) for key, part in parts)
    return next(filter(None, found), None)


def untrained_model(spec: Mapping[str, Any], shape: tuple[int, ...], seed: int) -> Generator:
    """The model before any training: its weights are drawn from the run's seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_for("initial weights", seed))
        return MODELS.build(spec, shape)


def untrained_density(spec: Mapping[str, Any], dim: int, seed: int) -> Density:
    """The density before any training; it has not seen the vectors either (`Density.begin`)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_for("initial weights of the density", seed))
        return DENSITIES.build(spec, dim)


def model_from(state: dict[str, Any], device: torch.device | str = "cpu") -> Generator:
    """The model of a checkpoint's state, in eval mode: averaged parts where the run kept them, the raw rest.

    Of a stage that trained a density: the model whose codes it learned, with that density, at its best weights where it kept
    those.
    """
    model = MODELS.build(state["model_spec"], tuple(state["shape"]))
    trained: Generator | Density = model
    if "density_spec" in state:
        model.load_state_dict(state["encoded_by"])
        trained = model.density = DENSITIES.build(state["density_spec"], model.latent.dim)
    best = state.get("best")
    trained.load_state_dict(best["weights"] if best else state["model"])
    for name, part in (state["average"] or {}).items():
        getattr(trained, name).load_state_dict(part)
    return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def load_model(run: str | Path, device: torch.device | str = "cpu") -> Generator:
    """The trained model of a run directory, or of one checkpoint file in it. See `genae.load`."""
    path = Path(run)
    if path.is_file():
        found: Checkpoint | None = read(path)
        path = path.parent.parent
    else:
        found = latest(RunDir(path).checkpoints)
    if not found:
        raise FileNotFoundError(f"{path} holds no checkpoint")
    described = read_json(RunDir(path).run)
    if described:  # third-party modules register the model's name
        from genae.experiment import import_modules

        import_modules(described["run"]["imports"], Path(described["run"]["root"]))
    return model_from(found.state, device)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pt"))
