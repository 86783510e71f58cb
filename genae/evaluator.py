"""A checkpoint to records and pictures. Does not know that objectives exist.

A record is appended as soon as its number is known, so that an evaluation that dies goes on where it stopped: what is recorded
of the same checkpoint, metric and protocol is not measured again.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from genae import checkpoint, provenance, results
from genae.context import Context, resolve_device
from genae.data.dataset import Splits
from genae.data.datasets import open_dataset
from genae.metrics.metric import MissingWeights
from genae.models.autoencoder import Generator
from genae.registry import FIGURES, METRICS
from genae.rundir import RunDir, write_json
from genae.spec import Column, RunSpec

EVALUATION_SEED = 0  # of every table: a table's seeds vary training only


def run_directory(run: RunSpec, runs: Path) -> RunDir:
    """Where a run's records and pictures are: the directory of its last stage, or its own where nothing is trained."""
    return RunDir.of(runs, run.label, run.identity)


def evaluate(run: RunSpec, runs: Path, *, only: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure the columns of a trained run (those named in `only`) and draw its pictures. Returns the records of the columns.

    The caller holds the directory. Whatever a metric raises travels, but for weights that are not here: the record says so.
    """
    directory = run_directory(run, runs)
    directory.path.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(run.compute.threads)
    context = Context(device=resolve_device(run.compute.device), seed=EVALUATION_SEED)
    data = Splits(lambda split: open_dataset(run.data, split))
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

    earlier = {(record["column"], *results.key(record)): record for record in results.read(directory.records)}
    measured = []
    for column in run.columns:
        if column.removed or (only is not None and column.id not in only):
            continue
        record = _record(column, run, model, data, context, made_by, earlier)
        if record not in earlier.values():
            results.append(directory.records, record)
        measured.append(record)
    if only is None:
        _draw(run, directory, model, data, context, weights)
    return measured


def _model(run: RunSpec, directory: RunDir, data: Splits) -> tuple[Generator, str, int]:
    """The model to measure, the digest of its state, and the images it was trained on."""
    if not run.stages:
        model = checkpoint.untrained_model(run.model, data.train.shape, run.seed).eval().requires_grad_(False)
        return model, checkpoint.digest(model.state_dict()), 0
    last = checkpoint.latest(directory.checkpoints)
    if not last or last.state["images_seen"] < run.stages[-1].schedule.total_images:
        raise ValueError(f"{directory.path.name} is not trained to its end; `genae run` trains it")
    return checkpoint.model_from(last.state), last.digest, last.state["images_seen"]


def _record(
    column: Column,
    run: RunSpec,
    model: Generator,
    data: Splits,
    context: Context,
    made_by: Mapping[str, Any],
    earlier: Mapping[Any, dict[str, Any]],
) -> dict[str, Any]:
    """The record of one column: an earlier one of the same checkpoint and protocol, else measured now."""
    name = column.metric["name"]
    metric = METRICS.build(column.metric)
    on = _measured_on(column.measure_on, data)
    record = {
        "column": column.id,
        "metric": name,
        "label": name,
        "direction": metric.direction,
        "value": None,
        "status": "ok",
        "details": {},
        "protocol": {},
        "settings": {"metric": column.metric, "measure_on": column.measure_on},
        **made_by,
        "data": {"train": data.train.digest, "test": data.test.digest},
    }

    def known(status: str) -> dict[str, Any] | None:
        """The earlier record that says the same."""
        found = earlier.get((column.id, *results.key(record)))
        return found if found and found["status"] == status else None

    lacking = metric.needs - model.provides
    if lacking:
        return known("not defined") or record | {"status": "not defined", "seconds": 0.0, "time": time.time()}

    began = time.monotonic()
    try:
        record["label"] = metric.label(name)
        record["protocol"] = metric.protocol(on, context)
        if known("ok"):
            return known("ok")
        with torch.inference_mode():
            values = metric.measure(model, on, context)
    except MissingWeights as missing:
        said = {"status": str(missing), "missing_weights": missing.name, "seconds": 0.0, "time": time.time()}
        return known(str(missing)) or record | said
    record["value"] = float(values[name])
    record["details"] = {key: float(value) for key, value in values.items() if key != name}
    return record | {"seconds": round(time.monotonic() - began, 3), "time": time.time()}


def _measured_on(measure_on: Mapping[str, Any] | None, data: Splits) -> Splits:
    """The splits that a column is measured on: the run's own, or the one that `measure_on` names, for both."""
    if not measure_on:
        return data
    spec = {key: value for key, value in measure_on.items() if key not in ("split", "count")}
    chosen = open_dataset(spec, measure_on.get("split", "test")).first(measure_on.get("count"))
    return Splits(lambda split: chosen)


@torch.inference_mode()
def _draw(run: RunSpec, directory: RunDir, model: Generator, data: Splits, context: Context, weights: str) -> None:
    """The run's pictures, each written aside and renamed; what this checkpoint drew already, with these settings, stays."""
    from PIL import Image, PngImagePlugin

    names = [spec["name"] for spec in run.figures]
    for index, spec in enumerate(run.figures):
        figure = FIGURES.build(spec)
        earlier = names[:index].count(spec["name"])
        path = directory.figures / f"{spec['name']}{f'-{earlier + 1}' if earlier else ''}.png"
        texts = {"checkpoint": weights, "caption": figure.caption, "settings": json.dumps(spec, sort_keys=True)}
        if figure.needs - model.provides or _texts(path) == texts:
            continue
        directory.figures.mkdir(exist_ok=True)
        written = PngImagePlugin.PngInfo()
        for key, text in texts.items():
            written.add_text(key, text)
        aside = path.with_suffix(".writing")
        with aside.open("wb") as file:
            Image.fromarray(figure.draw(model, data, context)).save(file, format="png", pnginfo=written, optimize=True)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    write_json(directory.drawn, list(run.figures))


def _texts(path: Path) -> dict[str, str] | None:
    """What a picture says of itself; None where there is none."""
    from PIL import Image

    if not path.exists():
        return None
    with Image.open(path) as picture:
        return dict(picture.text)
