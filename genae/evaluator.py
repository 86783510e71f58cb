"""A checkpoint to records and pictures. Does not know that objectives exist.

A record is appended as soon as its number is known, so that an evaluation that dies goes on where it stopped: what is recorded
of the same checkpoint, metric and protocol is not measured again.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from genae import checkpoint, provenance, results
from genae.context import Context, resolve_device
from genae.data.dataset import Splits
from genae.data.datasets import open_dataset
from genae.metrics.metric import MissingWeights, NotDefined
from genae.models.autoencoder import Generator
from genae.registry import FIGURES, METRICS
from genae.rundir import RunDir, read_json, write_json
from genae.spec import Column, RunSpec
from genae.stop import Interrupted, Stop

EVALUATION_SEED = 0  # of every table: a table's seeds vary training only


def evaluate(run: RunSpec, runs: Path, *, only: list[str] | None = None, stop: Stop | None = None) -> list[dict[str, Any]]:
    """Measure the columns of a trained run (those named in `only`) and draw its pictures. Returns the records of the columns.

    The caller holds the directory. Whatever a metric raises travels, but that weights are not here or that the number is not
    defined: the record says so.
    Raises Interrupted between two columns when `stop` asks; what is measured is recorded.
    """
    directory = RunDir.of(runs, run.label, run.identity)
    directory.path.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(run.compute.threads)
    data = Splits(lambda split: open_dataset(run.data, split))
    context = Context(
        device=resolve_device(run.compute.device),
        seed=EVALUATION_SEED,
        untrained=lambda: checkpoint.untrained_model(run.model, data.train.shape, run.seed),
    )
    model, weights, images_seen = _model(run, directory, data)
    model = model.to(context.device)
    made_by = {
        "identity": run.identity,
        "checkpoint": weights,
        "images_seen": images_seen,
        "seed": run.seed,
        "device": str(context.device),
        "threads": run.compute.threads,
    } | {key: value for key, value in provenance.code(run.root).items() if key != "genae"}

    earlier = results.read(directory.records)
    measured = []
    for column in run.columns:
        if only is not None and column.id not in only:
            continue
        if stop and stop.requested:
            raise Interrupted(f"{directory.path.name} stopped before measuring {column.id}; run it again to go on")
        record = _record(column, model, data, context, made_by, earlier)
        if record not in earlier:
            directory.check_held()
            results.append(directory.records, record)
        measured.append(record)
    if only is None:
        _draw(run, directory, model, data, context, made_by)
    return measured


def _model(run: RunSpec, directory: RunDir, data: Splits) -> tuple[Generator, str, int]:
    """The model to measure, the digest of its state, and the images it was trained on."""
    if not run.stages:
        model = checkpoint.untrained_model(run.model, data.train.shape, run.seed).eval().requires_grad_(False)
        return model, checkpoint.digest(model.state_dict()), 0
    last = checkpoint.latest(directory.checkpoints)
    if not last or last.state["images_seen"] < run.stages[-1].schedule.total_images:
        raise ValueError(f"{directory.path.name} is not trained to its end; `genae run` trains it")
    checkpoint.check_origin(last, run.stages[-1].identity, data.train)
    return checkpoint.model_from(last.state), last.digest, last.state["images_seen"]


def _record(
    column: Column,
    model: Generator,
    data: Splits,
    context: Context,
    made_by: Mapping[str, Any],
    earlier: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The record of one column: an earlier one that says the same of the same checkpoint, else measured now."""
    name = column.metric["name"]
    metric = METRICS.build(column.metric)
    on = _measured_on(column.measure_on, data)
    record = {
        "column": column.id,
        "metric": name,
        "label": metric.label(name),
        "direction": metric.direction,
        "value": None,
        "status": "ok",
        "details": {},
        "protocol": metric.protocol(on, context),
        "settings": {"metric": column.metric, "measure_on": column.measure_on},
        **made_by,
        "data": {"train": data.train.digest, "test": data.test.digest},
    }

    def known(status: str) -> dict[str, Any] | None:
        """The earlier record with this outcome, under this column's name and settings."""
        same = [old for old in earlier if results.key(old) == results.key(record) and old["status"] == status]
        own = {key: record[key] for key in ("column", "label", "settings")}
        exact = [old for old in same if old | own == old]
        return exact[-1] if exact else same[-1] | own if same else None

    if metric.needs - model.provides or (metric.needs_factors and not on.test.described_factors):
        return known("not defined") or record | {"status": "not defined", "seconds": 0.0, "time": time.time()}
    if known("ok"):
        return known("ok")
    began = time.monotonic()
    try:
        with torch.inference_mode():
            values = metric.measure(model, on, context)
    except MissingWeights as missing:
        said = {"status": str(missing), "missing_weights": missing.name, "seconds": 0.0, "time": time.time()}
        return known(str(missing)) or record | said
    except NotDefined as reason:
        said = {"status": f"not defined: {reason}", "seconds": round(time.monotonic() - began, 3), "time": time.time()}
        return known(said["status"]) or record | said
    if not all(math.isfinite(value) for value in values.values() if not isinstance(value, str)):
        raise ValueError(f"column {column.id!r} came to {values}")
    record["value"] = float(values[name])
    record["details"] = {key: value if isinstance(value, str) else float(value) for key, value in values.items() if key != name}
    return record | {"seconds": round(time.monotonic() - began, 3), "time": time.time()}


def _measured_on(measure_on: Mapping[str, Any] | None, data: Splits) -> Splits:
    """The splits that a column is measured on: the run's own, or the one that `measure_on` names, for both."""
    if not measure_on:
        return data
    spec = {key: value for key, value in measure_on.items() if key not in ("split", "count")}
    chosen = open_dataset(spec, measure_on.get("split", "test")).first(measure_on.get("count"))
    return Splits(lambda split: chosen)


def picture_of(spec: Mapping[str, Any]) -> str:
    """The file of a picture: its figure's name, and unless all its settings are defaults, a digest of them."""
    defaults = {name: parameter.default for name, parameter in FIGURES[spec["name"]].settings.items()}
    settings = json.dumps({key: value for key, value in spec.items() if key != "name"}, sort_keys=True)
    same = settings == json.dumps(defaults, sort_keys=True)
    digest = "" if same else "-" + hashlib.sha256(settings.encode()).hexdigest()[:6]
    return f"{spec['name']}{digest}.png"


def is_drawn(run: RunSpec, directory: RunDir) -> bool:
    """Whether every picture of the run has been drawn, or has been found to need what the model lacks."""
    drawn = read_json(directory.drawn) or []
    return all(spec in drawn for spec in run.figures)


@torch.inference_mode()
def _draw(
    run: RunSpec, directory: RunDir, model: Generator, data: Splits, context: Context, made_by: Mapping[str, Any]
) -> None:
    """The run's pictures, each written aside and renamed; what this checkpoint drew already stays.

    A picture says of itself what a record says of a number: which run and checkpoint it shows, and what drew it.
    """
    from PIL import Image, PngImagePlugin

    for spec in run.figures:
        figure = FIGURES.build(spec)
        if figure.needs - model.provides:
            continue
        path = directory.figures / picture_of(spec)
        settings = json.dumps(spec, sort_keys=True)
        texts = {"checkpoint": made_by["checkpoint"], "caption": figure.caption_for(model), "settings": settings}
        if path.exists() and results.texts_of(path).items() >= texts.items():
            continue
        directory.figures.mkdir(exist_ok=True)
        written = PngImagePlugin.PngInfo()
        for key, text in (texts | {"made_by": json.dumps(made_by)}).items():
            written.add_text(key, text)
        image = Image.fromarray(figure.draw(model, data, context))
        aside = path.with_suffix(".writing")
        with aside.open("wb") as file:
            image.save(file, format="png", pnginfo=written, optimize=True)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    drawn = read_json(directory.drawn) or []
    write_json(directory.drawn, drawn + [spec for spec in run.figures if spec not in drawn])
