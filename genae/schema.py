"""The JSON Schema of experiment files, from the registries' signatures, so that an editor completes and checks the YAML."""

from collections.abc import Mapping
from typing import Any

from genae.overlays import ID
from genae.registry import DATASETS, DENSITIES, FIGURES, METRICS, MODELS, OBJECTIVES, Registry
from genae.schedule import Schedule
from genae.settings import schema
from genae.spec import Adam, Average, Compute, KeepBest

TEXT, NUMBER, NULL = {"type": "string"}, {"type": "number"}, {"type": "null"}
KINDS = {
    "data_set": DATASETS,
    "model": MODELS,
    "density": DENSITIES,
    "objective": OBJECTIVES,
    "metric": METRICS,
    "figure": FIGURES,
}


def json_schema() -> dict[str, Any]:
    """The schema of an experiment file, with everything that is registered when it is asked for."""
    definitions = {kind: _component(registry) for kind, registry in KINDS.items()}
    definitions["optimizer"] = _overlaid(schema(Adam), name={"enum": ["adam"]})
    definitions["average"] = _overlaid(schema(Average))
    definitions["keep_best"] = _overlaid(schema(KeepBest))
    definitions["schedule"] = _overlaid(schema(Schedule))
    definitions["compute"] = _overlaid(schema(Compute))
    definitions["stage"] = _mapping(
        "One stage of training: what is lowered, and for how long.",
        objective=_ref("objective"),
        schedule=_ref("schedule"),
        optimizer=_ref("optimizer"),
        average=_or_null(_ref("average")),
        density=_or_null(_ref("density")),
        keep_best=_or_null(_ref("keep_best")),
    )
    definitions["column"] = _mapping(
        "A column: an id that outlives its metric.",
        metric=_ref("metric"),
        data={**TEXT, "description": "the short name of the data set whose runs it measures"},
        measure_on={
            **_or_null({"type": "object", "required": ["name"]}),
            "description": "another data set to measure on, with split and count; null for the run's own",
        },
    )
    on = _named(_or_null(_mapping("What holds on one data set only.", **_trained())))
    shared = {
        "data": {"anyOf": [_ref("data_set"), _named(_or_null(_ref("data_set")))]},
        "on": {**on, "description": "by a data set's short name: what holds on it only"},
        **_trained(),
        "metrics": {"type": "array", "items": _ref("metric"), "description": "short for one column per metric (and data set)"},
        "columns": {"type": "object", "additionalProperties": _or_null(_ref("column"))},
    }
    numbers = {"type": "object", "additionalProperties": {"anyOf": [NUMBER, NULL]}}
    definitions["shared"] = _mapping("What rows have in common.", **shared)
    definitions["row"] = _mapping(
        "One row: its difference from `shared`.",
        **shared,
        label={**TEXT, "description": "the row's name in the printed table"},
        note=TEXT,
        published={**numbers, "description": "the paper's numbers, by column id"},
        plus_minus={**numbers, "description": "the paper's error bars, by column id"},
        use={**TEXT, "description": "another file's row to stand on: paper/table/row"},
    )
    seeds = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True}
    claim = _mapping(
        "What the paper says of its table.",
        id=TEXT,
        text={**TEXT, "description": "in the paper's words"},
        where={**TEXT, "description": "where it says so: Sec. 4.1, Table 2a"},
        expression={**TEXT, "description": "the inequality that decides it, fid[layer] > fid[architecture]; docs/claims.md"},
    )
    overlay = _mapping("An overlay.", shared=_ref("shared"), rows=_named(_or_null(_ref("shared"))), seeds=seeds)
    file = _mapping(
        "One table of a paper.",
        table={**TEXT, "description": "paper/table"},
        title=TEXT,
        source=TEXT,
        caption=TEXT,
        imports={"type": "array", "items": TEXT, "description": "third-party modules that register components"},
        shared=_ref("shared"),
        rows={**_named(_or_null(_ref("row"))), "minProperties": 1},
        scales={**_named(overlay), "description": "`desk` is what a laptop trains; `paper` is the file itself"},
        seeds=seeds,
        claims={"type": "array", "items": {**claim, "required": list(claim["properties"])}},
    )
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "genae experiment"}
    return {**head, **file, "required": ["table", "rows"], "$defs": definitions}


def _trained() -> dict[str, Any]:
    return {
        "flip": {"type": "boolean", "description": "mirror training images at random", "default": True},
        "model": _ref("model"),
        "stages": _named(_or_null(_ref("stage"))),
        "figures": {"type": "array", "items": _ref("figure")},
        "compute": _ref("compute"),
    }


def _component(registry: Registry) -> dict[str, Any]:
    """A component whole, by its name, or (in an overlay) some of the settings of the one that stands there."""
    whole = []
    for name in registry.names():
        entry = registry[name]
        found = schema(entry.factory)
        inner = {key: _ref(word) for key, kind in entry.nested.items() for word in KINDS if KINDS[word] is kind}
        properties = {"name": {"const": name}, **found["properties"], **inner}
        choice = {"type": "object", "properties": properties, "required": ["name", *found.get("required", [])]}
        whole.append({"title": name, "description": entry.summary, **choice, "additionalProperties": False})
    part = {"title": "an overlay's part", "type": "object", "not": {"required": ["name"]}}
    return {"description": f"a {registry.kind}", "oneOf": [*whole, part]}


def _overlaid(found: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A schema of settings, any of which another part of the file may give."""
    return {
        "type": "object",
        "properties": {**more, **{key: _or_null(value) for key, value in found["properties"].items()}},
        "additionalProperties": False,
    }


def _mapping(description: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "description": description, "properties": properties, "additionalProperties": False}


def _named(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "propertyNames": {"pattern": f"^{ID.pattern}$"}, "additionalProperties": value}


def _or_null(value: Mapping[str, Any]) -> dict[str, Any]:
    outside = {key: value[key] for key in ("description", "default") if key in value}  # where editors look for them
    return {**outside, "anyOf": [{key: inner for key, inner in value.items() if key not in outside}, NULL]}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}
