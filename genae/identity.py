"""What a run is, as a hash: two runs of one identity end in the same weights.

A chain: a stage's identity takes in the identity of the stage before it, so an equal prefix of stages has an equal identity,
whatever table it stands in.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from genae.registry import Entry

SHOWN = 12  # hex digits in the names of run directories

# Settings that a schedule, a phase, an optimiser or an average got later, with the value that repeats what was before; as
# `added=` of a registered component.
ADDED: dict[str, dict[str, Any]] = {"schedule": {}, "phase": {}, "optimizer": {}, "average": {}}


def canonical(value: Any) -> str:
    """One text for one value: keys sorted, no spaces, floats as Python prints them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def of(value: Any) -> str:
    """sha256 (hex) of plain values."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def component(entry: Entry, spec: dict[str, Any]) -> dict[str, Any]:
    """What of a resolved component is hashed: all of it, but for later settings at the value that repeats what was before."""
    kept = _without_repeats(spec, entry.added)
    for key, kind in entry.nested.items():
        kept[key] = component(kind[kept[key]["name"]], kept[key])
    return kept if entry.revision == 1 else {**kept, "@revision": entry.revision}


def stage(values: dict[str, Any]) -> dict[str, Any]:
    """What of a resolved stage is hashed, its objective and density aside; of what only stages on codes have, what is given."""
    values = {key: value for key, value in values.items() if value is not None or key not in ("density", "keep_best")}
    schedule = _without_repeats(values["schedule"], ADDED["schedule"])
    schedule["phases"] = [_without_repeats(phase, ADDED["phase"]) for phase in schedule["phases"]]
    optimizer = _without_repeats(values["optimizer"], ADDED["optimizer"])
    average = values["average"] and _without_repeats(values["average"], ADDED["average"])
    return {**values, "schedule": schedule, "optimizer": optimizer, "average": average}


def _without_repeats(spec: dict[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    repeats = {key: json.loads(json.dumps(value)) for key, value in added.items()}
    return {key: value for key, value in spec.items() if key not in repeats or value != repeats[key]}
