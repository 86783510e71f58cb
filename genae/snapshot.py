"""The code as it is when jobs are submitted: they run that, however the checkout is edited while they wait.

A snapshot is the project's files, under results/runs/snapshots/<digest>/. The digest is of their contents and what
provenance says of them, so that launches of the same code at the same commit share one. Whatever is installed besides (torch, a
genae that is not the project's own) is not in it; provenance records its version.
"""

import hashlib
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from genae import provenance
from genae.experiment import Experiment, list_experiments
from genae.rundir import write_json
from genae.yaml_source import read

SUFFIXES = (".py", ".yaml", ".yml", ".cfg", ".toml")  # of what is copied from a project outside git
LEFT_OUT = {*provenance.GENERATED, "build", "dist", "node_modules"}
MOST_UNTRACKED = 2**30  # bytes; more is a data set that nobody meant to copy
INSTALLED = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]


def take(root: Path, folder: Path, needed: Iterable[Path] = ()) -> Path:
    """The snapshot, under `folder`, of the project at `root` as it is now; the one there is where nothing changed since.

    needed: files that are in it even if git ignores them; those outside the project are not.
    Raises ValueError where there is more than MOST_UNTRACKED that git neither keeps nor ignores.
    """
    root = root.resolve()
    names = {*_files(root), *_named(root, needed)}
    links = {name for name in names if (root / name).is_dir()}  # a folder has a name of its own only if it is a link
    files = [name for name in names - links if not any(str(above) in links for above in Path(name).parents)]
    folders = {above for name in files for above in Path(name).parents}

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".taken-", dir=folder) as aside:
        copy = Path(aside) / "copy"  # `aside` itself is closed to everybody else
        copy.mkdir()
        hashed = hashlib.sha256()
        for name in sorted(files):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
            with (copy / name).open("rb") as copied:  # not the original, which may be edited meanwhile
                hashed.update(os.fsencode(name) + b"\0" + hashlib.file_digest(copied, "sha256").digest())
        for name in sorted(links):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).symlink_to(_target(root, name, folders))
            hashed.update(b"\0".join([os.fsencode(name), os.readlink(os.fsencode(copy / name)), b""]))
        told = provenance.code(root)  # after the copies: an edit between is then called one
        hashed.update(json.dumps(told, sort_keys=True).encode())
        target = folder / hashed.hexdigest()[:12]
        if not target.exists():
            write_json(copy / provenance.SNAPSHOT, {"root": str(root), **told})
            _keep(copy, files, target)
    return target


def needed_by(experiment: Experiment) -> set[Path]:
    """What an experiment consists of, in git or not: its file, those that it uses rows of, and the project's own modules.

    Modules are those imported by now, by whatever the experiment names under `imports:`, which loading it has imported.
    """
    known = list_experiments(experiment.root)
    files, found = [experiment.path], set()
    while files:
        file = files.pop()
        if file not in found:
            found.add(file)
            uses = [row.get("use") for row in read(file)["rows"].values() if isinstance(row, dict)]
            tables = [use.rpartition("/")[0] for use in uses if isinstance(use, str)]
            files += [known[table] for table in tables if table in known]
    imported = {file for module in [*sys.modules.values()] if (file := getattr(module, "__file__", None))}
    for path in map(Path, imported - {getattr(sys.modules["__main__"], "__file__", None)}):
        installed = any(path.is_relative_to(folder) for folder in INSTALLED)  # an environment may lie in the project
        own = path.is_relative_to(experiment.root) or path.resolve().is_relative_to(experiment.root)
        if own and not installed and path.is_absolute() and path.is_file():
            found.add(path)
    return found


def _files(root: Path) -> Iterator[str]:
    """Names, relative to `root`: what git keeps or would keep; without git, what Python and experiments are written in.

    Links to folders are among them, and are not followed.
    """
    listed = _listed(root)
    if listed is not None:
        names = [name for name in listed if Path(name).parts[0] not in LEFT_OUT]
        _check_size(root, [name for name in names if not listed[name] and (root / name).is_file()])
        yield from (name for name in names if (root / name).is_file() or (root / name).is_dir())
        return
    for path, folders, names in os.walk(root):
        folders[:] = [folder for folder in folders if folder not in LEFT_OUT and not folder.startswith(".")]
        linked = [folder for folder in folders if (Path(path) / folder).is_symlink()]
        names = [*(name for name in names if name.endswith(SUFFIXES)), *linked]
        yield from (str((Path(path) / name).relative_to(root)) for name in names if (Path(path) / name).exists())


def _listed(root: Path) -> dict[str, bool] | None:
    """The files of a checkout and of its submodules, by name: whether git keeps them already. None outside git."""
    listed = provenance.listed(root)
    if listed is None:
        return None
    untracked, found = provenance.untracked(root), {}
    for name in listed:
        place = root / name
        if place.is_symlink() or not place.is_dir():
            found[name] = name not in untracked
        elif (place / ".git").exists():  # a submodule that is not there is an empty folder
            inner = _listed(place)
            inner = dict.fromkeys(_files(place), False) if inner is None else inner  # nothing is committed in it
            found |= {f"{name.rstrip('/')}/{one}": kept and name not in untracked for one, kept in inner.items()}
    return found


def _check_size(root: Path, names: Collection[str]) -> None:
    """Raise ValueError where the untracked files of these names are too much to copy."""
    sizes = {name: (root / name).stat().st_size for name in names}
    if sum(sizes.values()) > MOST_UNTRACKED:
        largest = max(sizes, key=sizes.__getitem__)
        raise ValueError(
            f"{root} has {sum(sizes.values()) / 2**30:.1f} GiB that git neither keeps nor ignores; a launch copies at most "
            f"{MOST_UNTRACKED / 2**30:.1f}. The largest file is {largest}: add it, or its folder, to .gitignore"
        )


def _named(root: Path, paths: Iterable[Path]) -> Iterator[str]:
    """The names of paths in the project, both as given and without links; of one beyond a link to a folder, the link's."""
    for path in paths:
        for place in {path.absolute(), path.resolve()}:
            if place.is_relative_to(root):
                name = place.relative_to(root)
                yield str(next((above for above in reversed(name.parents) if (root / above).is_symlink()), name))


def _target(root: Path, link: str, folders: Collection[Path]) -> str:
    """Where the copy of a link to a folder leads: into the copy where that is in `folders`, else to the original."""
    target = (root / link).resolve()
    if target.is_relative_to(root) and target.relative_to(root) in folders:
        return os.path.relpath(target, (root / link).parent)
    return str(target)


def _keep(copy: Path, files: Iterable[str], target: Path) -> None:
    """Rename `copy` to `target`, unless somebody else just did, once the disk holds its files.

    Not cache.make_whole, which would follow the links.
    """
    for name in files:
        with (copy / name).open("rb") as copied:
            os.fsync(copied.fileno())
    try:
        copy.rename(target)
    except OSError:
        if not target.is_dir():
            raise
