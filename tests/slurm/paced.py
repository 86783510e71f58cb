"""A user's module, of the project that tests launch: the automodulator's objective, slow or broken when a test wants it.

While there is the file that GENAE_TEST_PACE names, with two numbers in it, every step from the first number of images on takes
as many seconds as the second says: so a test is in time to interrupt training at the moment that it means, however fast the
machine. The weights do not depend on it. On a node that the file of GENAE_TEST_BROKEN names, no disk takes a file.
"""

import errno
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from genae.models.autoencoder import Autoencoder
from genae.objectives.automodulator import Automodulator
from genae.objectives.objective import Terms, Update
from genae.registry import OBJECTIVES
from genae.schedule import Phase

with suppress(FileNotFoundError):
    if os.environ.get("SLURMD_NODENAME") in Path(os.environ["GENAE_TEST_BROKEN"]).read_text().split():

        def no_file(**_options):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))  # how a disk with errors is mounted

        tempfile.TemporaryFile = no_file

Loss = Callable[[Autoencoder, Tensor, Phase, torch.Generator], Terms]


@OBJECTIVES.add("paced", small={"pool_size": 6})
@dataclass(kw_only=True)
class Paced(Automodulator):
    """breaks: raise an error after some steps."""

    breaks: bool = False

    def updates(self, model: Autoencoder) -> list[Update]:
        """The automodulator's, the first of them paced."""
        first, *others = super().updates(model)
        return [replace(first, terms=self._paced(first.terms)), *others]

    def _paced(self, terms: Loss) -> Loss:
        def paced(model: Autoencoder, images: Tensor, phase: Phase, generator: torch.Generator) -> Terms:
            if self.breaks and phase.images_seen >= 50:
                raise ArithmeticError("this row was made to break")
            with suppress(FileNotFoundError):
                images_seen, seconds = Path(os.environ["GENAE_TEST_PACE"]).read_text().split()
                if phase.images_seen >= int(images_seen):
                    time.sleep(float(seconds))
            return terms(model, images, phase, generator)

        return paced
