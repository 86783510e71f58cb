"""Coarse, intermediate and fine: what the automodulator papers call the layers of a decoder, by the resolution they work at.

Heljakka et al. (2020, Sec. 4.2): coarse is 4x4 and 8x8, intermediate 16x16 and 32x32, fine 64x64 and above. A decoder that ends
below 64x64 would have no fine layers; there, those at its first resolution are called coarse, those at its last fine, and what
lies between middle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

BandName = Literal["coarse", "intermediate", "fine"]
Layers = BandName | tuple[int, int]  # a setting: a band by name, or [first, last], counted from 1

LARGEST = {"coarse": 8, "intermediate": 32}  # pixels; all above are fine
FIRST_FINE = 64


@dataclass(frozen=True)
class Band:
    """Layers first..last of a decoder, counted from 1, which work at `resolutions`.

    name: as printed, which for a range is "layers 1 to 2".
    """

    name: str
    first: int
    last: int
    resolutions: tuple[int, ...]

    @property
    def words(self) -> str:
        """The band as captions speak of it: "coarse layers (4x4 to 8x8)"."""
        smallest, largest = (f"{pixels}x{pixels}" for pixels in (min(self.resolutions), max(self.resolutions)))
        where = smallest if smallest == largest else f"{smallest} to {largest}"
        return f"{self.name} ({where})" if self.name.startswith("layer") else f"{self.name} layers ({where})"


def bands(resolutions: Sequence[int]) -> dict[BandName, Band]:
    """The bands of a decoder whose layers work at `resolutions`, those that it has.

    Raises ValueError for a decoder of one band, of which nothing could be mixed with anything.
    """
    short = max(resolutions) < FIRST_FINE
    names: list[BandName] = [_in_short(r, resolutions) if short else _published(r) for r in resolutions]
    if len(set(names)) < 2:
        raise ValueError(f"mixing needs a decoder of at least two bands of layers; this one works at {_listed(resolutions)}")
    found: dict[BandName, Band] = {}
    for name in dict.fromkeys(names):
        first, last = names.index(name) + 1, len(names) - names[::-1].index(name)
        printed = "middle" if short and name == "intermediate" else name
        found[name] = Band(printed, first, last, tuple(resolutions[first - 1 : last]))
    return found


def band(resolutions: Sequence[int], layers: Layers) -> Band:
    """The layers that a setting names, of a decoder with layers at `resolutions`. Raises ValueError if it has none such."""
    if isinstance(layers, str):
        known = bands(resolutions)
        if layers not in known:
            raise ValueError(f"a decoder of layers at {_listed(resolutions)} has no {layers} ones; it has: {', '.join(known)}")
        return known[layers]
    first, last = layers
    if not 1 <= first <= last <= len(resolutions) or last - first + 1 == len(resolutions):
        raise ValueError(
            f"layers must be a range of 1 to {len(resolutions)} that leaves a layer out, for a decoder of {len(resolutions)} "
            f"layers; it is {first} to {last}"
        )
    name = f"layer {first}" if first == last else f"layers {first} to {last}"
    return Band(name, first, last, tuple(resolutions[first - 1 : last]))


def _published(resolution: int) -> BandName:
    return next((name for name, largest in LARGEST.items() if resolution <= largest), "fine")


def _in_short(resolution: int, resolutions: Sequence[int]) -> BandName:
    if resolution == min(resolutions):
        return "coarse"
    return "fine" if resolution == max(resolutions) else "intermediate"


def _listed(resolutions: Sequence[int]) -> str:
    return ", ".join(map(str, resolutions))
