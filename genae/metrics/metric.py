"""THE CONTRACT of metrics: settings in the constructor, `measure` does the work and leaves no state.

A registered metric is a keyword-only dataclass. Its name pins its protocol: `fid` is the 2015 Inception, never a stand-in.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from genae.context import Context
from genae.data.dataset import Splits
from genae.models.autoencoder import Generator


class MissingWeights(RuntimeError):
    """A metric's extractor has no weights here; the message says what to run. The cell then says so too."""


@dataclass(kw_only=True)
class Metric:
    """One number, or a few that come from one pass.

    needs: what the model must provide ("encode", "layers", ...); where it lacks one the cell says "not defined".
    direction: "min" or "max", whichever is better.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"decode"})
    direction: ClassVar[str] = "min"

    def measure(self, model: Generator, data: Splits, context: Context) -> dict[str, float]:
        """{name: value}. The value under the metric's registered name is the table's; others are kept as details.

        The model is in eval mode, on context.device, under inference mode. Raises MissingWeights.
        """
        raise NotImplementedError

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        """Everything that decides the number besides model and data: plain values, for the record."""
        return asdict(self)

    def label(self, name: str) -> str:
        """The header of a column of this metric, registered as `name`: the name, with whatever departs from its protocol."""
        return name
