"""THE CONTRACT of metrics: settings in the constructor, `measure` does the work and leaves no state.

A registered metric is a keyword-only dataclass. Its name pins its protocol: `fid` is the 2015 Inception, never a stand-in.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from genae.context import Context
from genae.data.dataset import Splits
from genae.features.weights import MissingWeights
from genae.models.autoencoder import Generator

__all__ = ["NOISE_INPUTS", "Metric", "MissingWeights", "NotDefined", "check_at_least", "short_count", "weights_notes"]


NOISE_INPUTS = "one fixed draw"  # per layer, of a model in eval mode (genae.networks.blocks.Noise): `noise` in a protocol


class NotDefined(Exception):
    """What a metric is about is not there, in this model or these data; the message says what."""


@dataclass(kw_only=True)
class Metric:
    """One number, or a few that come from one pass.

    needs: what the model must provide ("encode", "layers", ...); where it lacks one the cell says "not defined".
    needs_factors: whether the data must have described factors; the same.
    direction: "min" or "max", whichever is better.
    repeatable: the same context gives the same numbers; times do not.
    of_one_autoencoder: its numbers compare only among rows whose first stage is the same.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"decode"})
    needs_factors: ClassVar[bool] = False
    direction: ClassVar[str] = "min"
    repeatable: ClassVar[bool] = True
    of_one_autoencoder: ClassVar[bool] = False

    def measure(self, model: Generator, data: Splits, context: Context) -> dict[str, float | str]:
        """{name: value}. The value under the metric's registered name is the table's; others, words too, are kept as details.

        A report shows the details `chance`, `ceiling` and `untrained` beside the value.
        The model is in eval mode, on context.device, under inference mode. Raises MissingWeights, NotDefined.
        """
        raise NotImplementedError

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        """Everything that decides the number besides model and data: plain values, for the record."""
        return asdict(self)

    def notes(self) -> list[str]:
        """What departs from the protocol that the name stands for, a few words each; empty where nothing does."""
        return []

    def label(self, name: str) -> str:
        """The header of a column of this metric, registered as `name`: the name, with whatever departs from its protocol."""
        notes = self.notes()
        return f"{name} ({', '.join(notes)})" if notes else name


def check_at_least(least: float, **settings: float | None) -> None:
    """Raise ValueError for a setting below `least`; None passes."""
    for name, value in settings.items():
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")


def short_count(count: int) -> str:
    """A count as a name shows it: 50000 -> "50k", 1500 -> "1500"."""
    return f"{count // 1000}k" if count >= 1000 and count % 1000 == 0 else str(count)


def weights_notes(used: Mapping[str, Any]) -> list[str]:
    """What a header says of weights in use (genae.features.weights.used): nothing, unless they are not the published ones."""
    return [f"unpublished weights {used['sha256'][:8]}"] if used["published"] is False else []
