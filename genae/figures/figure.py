"""THE CONTRACT of figures: settings in the constructor, `draw` makes one picture of a model.

A registered figure is a keyword-only dataclass.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genae.context import Context
from genae.data.dataset import Splits
from genae.models.autoencoder import Generator


@dataclass(kw_only=True)
class Figure:
    """One picture.

    needs: what the model must provide; a model that lacks it has no such picture.
    repeatable: the same context draws the same picture; one of times does not, but of the same size.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"decode"})
    caption: ClassVar[str] = ""
    repeatable: ClassVar[bool] = True

    def draw(self, model: Generator, data: Splits, context: Context) -> np.ndarray:
        """The picture, uint8 [height, width, 3]. The model is in eval mode, under inference mode."""
        raise NotImplementedError

    def caption_for(self, model: Generator) -> str:
        """What stands under the picture of this model: `caption`, unless that depends on the model's layers."""
        return self.caption
