"""What a run is, as a hash: two runs of one identity end in the same weights.

A chain: a stage's identity takes in the identity of the stage before it, so an equal prefix of stages has an equal identity,
whatever table it stands in.
"""

import hashlib
import json
from typing import Any

from genae.registry import Entry

SHOWN = 12  # hex digits in the names of run directories


def canonical(value: Any) -> str:
    """One text for one value: keys sorted, no spaces, floats as Python prints them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def of(value: Any) -> str:
    """sha256 (hex) of plain values."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def component(entry: Entry, spec: dict[str, Any]) -> dict[str, Any]:
    """What of a resolved component is hashed: all of it, but for later settings at the value that repeats what was before."""
    repeats = {key: json.loads(json.dumps(value)) for key, value in entry.added.items()}
    kept = {key: value for key, value in spec.items() if key not in repeats or value != repeats[key]}
    return kept if entry.revision == 1 else {**kept, "@revision": entry.revision}
