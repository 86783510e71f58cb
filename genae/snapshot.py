"""The code as it is when jobs are submitted: they run that, however the checkout is edited while they wait.

A snapshot is the project's files by content, under results/runs/snapshots/<digest>/, so that launches of the same code share
one. Whatever is installed besides (torch, a genae that is not the project's own) is not in it; provenance records its version.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from genae import provenance
from genae.cache import make_whole
from genae.rundir import write_json

SUFFIXES = (".py", ".yaml", ".yml", ".cfg", ".toml")  # of what is copied from a project outside git
LEFT_OUT = {*provenance.GENERATED, "build", "dist", "node_modules"}


def take(root: Path, folder: Path) -> Path:
    """The snapshot, under `folder`, of the project at `root` as it is now; the one there is where nothing changed since."""
    hashed = hashlib.sha256()
    files = sorted(_files(root))
    for name in files:
        hashed.update(f"{name}\0".encode() + hashlib.sha256((root / name).read_bytes()).digest())

    def copy(place: Path) -> None:
        for name in files:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, place / name)
        write_json(place / provenance.SNAPSHOT, {"root": str(root), **provenance.code(root)})

    return make_whole(folder / hashed.hexdigest()[:12], copy, folder=True)


def _files(root: Path) -> Iterator[str]:
    """Names, relative to `root`: what git keeps or would keep; without git, what Python and experiments are written in."""
    listed = provenance.listed(root)
    if listed is not None:
        yield from (name for name in listed if Path(name).parts[0] not in LEFT_OUT and (root / name).is_file())
        return
    for path, folders, names in os.walk(root):
        folders[:] = [folder for folder in folders if folder not in LEFT_OUT and not folder.startswith(".")]
        yield from (str((Path(path) / name).relative_to(root)) for name in names if name.endswith(SUFFIXES))
