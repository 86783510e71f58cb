"""The one list of weights that genae reads but does not ship: where each comes from, how it is known, where it lies here.

Nothing is downloaded while measuring (compute nodes often have no network). `genae weights fetch` does it where there is one;
elsewhere put the files, under the names below, into the folder that GENAE_WEIGHTS names. Imports no torch.
"""

import functools
import hashlib
import os
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from genae.cache import cache_dir
from genae.registry import suggestion


class MissingWeights(RuntimeError):
    """An extractor has no weights here; the message says what to run. name: of the weights, as in WEIGHTS."""

    def __init__(self, name: str, reason: str = "") -> None:
        super().__init__(f"needs weights: {reason}genae weights fetch {name}")
        self.name = name


@dataclass(frozen=True)
class WeightFile:
    """One published file.

    sha256: the published digest in full, or its first eight digits where only those are published (in the file's name).
    """

    file: str
    url: str
    sha256: str
    megabytes: int
    licence: str
    used_by: str


WEIGHTS = {
    "inception-2015": WeightFile(
        file="pt_inception-2015-12-05-6726825d.pth",
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        megabytes=96,
        licence="Apache-2.0 (pytorch-fid, ported from TensorFlow's inception-2015-12-05)",
        used_by="fid, fid-mix",
    ),
    "alexnet": WeightFile(
        file="alexnet-owt-7be5be79.pth",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        megabytes=245,
        licence="BSD-3-Clause (torchvision)",
        used_by="lpips (net: alex)",
    ),
    "vgg16": WeightFile(
        file="vgg16-397923af.pth",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        megabytes=554,
        licence="BSD-3-Clause (torchvision)",
        used_by="lpips (net: vgg), ppl",
    ),
    "vgg19": WeightFile(
        file="vgg19-dcbb9e9d.pth",
        url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        sha256="dcbb9e9d",
        megabytes=575,
        licence="BSD-3-Clause (torchvision)",
        used_by="the perceptual loss over VGG19",
    ),
}


def entry(name: str) -> WeightFile:
    """The published file called `name`."""
    if name not in WEIGHTS:
        raise ValueError(f"unknown weights {name!r}; {suggestion(name, WEIGHTS)}")
    return WEIGHTS[name]


def find(name: str) -> Path:
    """The file of weights `name`: the user's own under GENAE_WEIGHTS, else the fetched one.

    The user's own file may be another than the published one (`used` tells, and so does every record that rests on it); a
    fetched file may not. Raises MissingWeights.
    """
    published = entry(name)
    own = _own_folder()
    if own and (own / published.file).is_file():
        return own / published.file
    fetched = fetched_folder() / published.file
    if not fetched.is_file():
        raise MissingWeights(name)
    if not sha256_of(fetched).startswith(published.sha256):
        raise MissingWeights(name, f"{fetched} is damaged: ")
    return fetched


def used(name: str) -> dict[str, str | bool | None]:
    """What a record says of weights `name`: the sha256 of the file in use, whether it is the published one (None: no file)."""
    try:
        digest = sha256_of(find(name))
    except MissingWeights:
        return {"weights": name, "sha256": None, "published": None}
    return {"weights": name, "sha256": digest, "published": digest.startswith(entry(name).sha256)}


def check() -> list[tuple[str, str]]:
    """(name, state) of every weight file: ready and where, what gets it, or that it is not the published one."""
    states = []
    for name in WEIGHTS:
        try:
            path = find(name)
        except MissingWeights as missing:
            states.append((name, str(missing)))
            continue
        published = used(name)["published"]
        states.append((name, f"ready ({path})" if published else f"not the published file: {path}"))
    return states


def fetch(names: Iterable[str], progress: Callable[[str, int, int], None] | None = None) -> list[Path]:
    """Download weights into the cache: aside, checked, then renamed. What is already there and sound stays.

    progress: called with (name, bytes so far, bytes in all or 0 where the server does not say).
    """
    published = {name: entry(name) for name in names}  # an unknown name stops before any download
    paths = []
    for name, weights in published.items():
        target = fetched_folder() / weights.file
        if not (target.is_file() and sha256_of(target).startswith(weights.sha256)):
            _download(name, weights, target, progress)
        paths.append(target)
    return paths


def fetched_folder() -> Path:
    """Where `fetch` puts files."""
    return cache_dir() / "weights"


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex; computed once per process for a file that does not change."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folders() -> list[Path]:
    """Where files of weights are looked for, in this order: the user's own folder, then the fetched ones."""
    own = _own_folder()
    return [own, fetched_folder()] if own else [fetched_folder()]


def _own_folder() -> Path | None:
    folder = os.environ.get("GENAE_WEIGHTS")
    return Path(folder).expanduser() if folder else None


def _download(name: str, weights: WeightFile, target: Path, progress: Callable[[str, int, int], None] | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f"{target.name}.{os.getpid()}.part")
    digest, received = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(weights.url) as response, aside.open("wb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read(1 << 20):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                if progress:
                    progress(name, received, total)
        if not digest.hexdigest().startswith(weights.sha256):
            raise OSError(f"{weights.url} has sha256 {digest.hexdigest()}, not {weights.sha256}...: nothing was kept")
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
