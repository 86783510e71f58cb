"""The codes of a data set: what a density is trained on (Yoo et al., 2019, Sec. 3.2).

They are encoded once, in eval mode, no image mirrored, and kept in the directory of the stage that trains on them:

    codes/train.npy    float32 [N, D], memory-mapped
    codes/train.json   their digest, and of which data and which encoder they are
"""

import hashlib
from pathlib import Path

import numpy as np
import torch

from genae import checkpoint
from genae.data.dataset import Dataset, Vectors
from genae.models.autoencoder import Autoencoder
from genae.pixels import from_uint8
from genae.rundir import read_json, write_json

ENCODED_AT_ONCE = 250


def codes_of(model: Autoencoder, data: Dataset | Vectors, folder: Path, device: torch.device) -> Vectors:
    """The codes of every image (or vector) of a split, read from `folder` where they are kept, else encoded and kept there.

    Raises ValueError for a model that cannot encode, and where a code holds NaN or infinity.
    """
    if "encode" not in model.provides:
        raise ValueError("a density is learned of codes, and this model cannot encode")
    made_of = {"data": data.digest, "encoder": checkpoint.digest(model.state_dict())}
    path, described = folder / f"{data.split}.npy", folder / f"{data.split}.json"
    kept = read_json(described) or {}
    if kept | made_of != kept or not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".writing")
        kept = made_of | {"digest": _encode(model, data, aside, device)}
        aside.replace(path)
        write_json(described, kept)
    return Vectors(f"codes of {data.name}", data.split, np.load(path, mmap_mode="r"), kept["digest"])


@torch.inference_mode()
def _encode(model: Autoencoder, data: Dataset | Vectors, path: Path, device: torch.device) -> str:
    """Write the codes of a split as an array file; returns the sha256 of their bytes and shape."""
    hashed = hashlib.sha256()
    shape = (len(data), model.latent.dim)
    with path.open("wb") as file:
        layout = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, layout)
        for start in range(0, len(data), ENCODED_AT_ONCE):
            codes = model.encode(_batch(data, start).to(device)).float().cpu()
            if not bool(codes.isfinite().all()):
                first = start + int((~codes.isfinite()).any(1).nonzero()[0])
                raise ValueError(f"the code of {data.name} number {first} ({data.split}) holds NaN or infinity")
            array = np.ascontiguousarray(codes.numpy(), "<f4")
            file.write(array.data)
            hashed.update(array.data)
    hashed.update("x".join(map(str, shape)).encode())
    return hashed.hexdigest()


def _batch(data: Dataset | Vectors, start: int) -> torch.Tensor:
    rows = slice(start, start + ENCODED_AT_ONCE)
    if isinstance(data, Vectors):
        return torch.from_numpy(np.array(data.vectors[rows]))
    return from_uint8(torch.from_numpy(np.array(data.images[rows])))
