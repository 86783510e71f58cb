"""What a number needs to be trusted later: which code, which versions, which machine, which job."""

import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

GENERATED = ("results", "reports")  # what runs write does not count as a change to the code
LARGEST_READ = 2**24  # of untracked files; one above it, such as a data set, counts by its size and time
SNAPSHOT = "snapshot.json"  # in a copy of a project that jobs run from: what `code` said of the original
PACKAGES = ("torch", "torchvision", "numpy", "pytorch-fid", "lpips")


def code(root: Path) -> dict[str, Any]:
    """Version of genae, and the commit of the project at `root` with a hash of what is changed since.

    commit: None outside a git checkout.  dirty: None where nothing but results/ and reports/ differs from the commit, else the
    first 12 hex digits of a sha256 over the differences and the untracked files.
    Of a snapshot (genae.snapshot): what was true of the project when it was taken, and `snapshot`, its name.
    """
    if (root / SNAPSHOT).is_file():
        taken = json.loads((root / SNAPSHOT).read_text())
        return {key: value for key, value in taken.items() if key != "root"} | {"snapshot": root.name}
    commit = _git(root, "rev-parse", "HEAD")
    return {
        "genae": importlib.metadata.version("genae"),
        "commit": commit.decode().strip() if commit else None,
        "dirty": _dirty(root) if commit else None,
    }


def listed(root: Path) -> list[str] | None:
    """The files under `root` that git keeps, or would if they were added, by names relative to it; None outside a checkout."""
    if not _git(root, "rev-parse", "HEAD"):
        return None
    return sorted({*_names(_git(root, "ls-files", "--cached", "-z")), *untracked(root)})


def untracked(root: Path) -> set[str]:
    """Those of them that git would keep, but does not yet."""
    return _names(_git(root, "ls-files", "--others", "--exclude-standard", "-z"))


def machine() -> dict[str, Any]:
    """Versions of what computes, the host, its processor, and the SLURM job where there is one."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    slurm = {
        name: os.environ[name] for name in ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_PARTITION") if name in os.environ
    }
    return {
        "python": platform.python_version(),
        "versions": versions,
        "host": socket.gethostname(),
        "processor": _processor(),
        "slurm": slurm or None,
        "worker": os.environ.get("SUBMITIT_LOCAL_JOB_ID"),  # its log is named after it
    }


def _git(root: Path, *arguments: str) -> bytes:
    """Standard output of a git command in `root`; empty where git is absent or refuses."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        return b""
    return done.stdout if done.returncode == 0 else b""


def _names(listing: bytes) -> set[str]:
    return {os.fsdecode(name) for name in listing.split(b"\0") if name}


def _dirty(root: Path) -> str | None:
    others = [f":(exclude){folder}" for folder in GENERATED]  # of `root`, which may lie in a larger repository
    changes = _git(root, "diff", "HEAD", "--binary", "--", ":/", *others)
    added = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *others)
    if not changes and not added:
        return None
    digest = hashlib.sha256(changes)
    for name in filter(None, added.split(b"\0")):
        path = root / os.fsdecode(name)
        if path.is_file():
            stat = path.stat()
            small = stat.st_size <= LARGEST_READ
            digest.update(name + (path.read_bytes() if small else f"{stat.st_size} {stat.st_mtime_ns}".encode()))
    return digest.hexdigest()[:12]


def _processor() -> str:
    """The processor's name, from /proc where there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
