"""What the tests of reports share: an experiment, the records of its numbers, and its table as text.

The fixtures only give functions, so they last the session; a property that hypothesis tests may then use them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genae.report import grid
from genae.spec import Column, Compute, Experiment, RowSpec, RunSpec

FID = Column(id="fid", metric={"name": "fid", "num_generated": 2000})


@pytest.fixture(scope="session")
def experiment() -> Callable[..., Experiment]:
    """To be called: an experiment with a run for each row and seed."""

    def experiment(rows, columns=(FID,), seeds=(0,), scale="desk", plus_minus=None, note=None, claims=()):
        """rows: {id: {column id: published number}}, or {id: (label, {...})}."""
        rows = {row: given if isinstance(given, tuple) else (row, given) for row, given in rows.items()}
        plus_minus = plus_minus or {}
        root = Path("/project")
        runs = [
            RunSpec(
                table="paper/table1",
                row=row,
                scale=scale,
                data_name="faces",
                data={"name": "synthetic-faces", "resolution": 16},
                flip=False,
                seed=seed,
                model={"name": "vae"},
                stages=(),
                columns=tuple(columns),
                figures=(),
                compute=Compute(),
                imports=(),
                root=root,
                identity=f"{row}-{seed}",
            )
            for row in rows
            for seed in seeds
        ]
        return Experiment(
            path=root / "experiments" / "paper" / "table1.yaml",
            root=root,
            table="paper/table1",
            title=None,
            source="Someone (2020), Table 1",
            caption=None,
            scale=scale,
            imports=(),
            rows={
                row: RowSpec(id=row, label=label, published=published, plus_minus=plus_minus.get(row, {}), note=note)
                for row, (label, published) in rows.items()
            },
            columns={column.id: column for column in columns},
            seeds=tuple(seeds),
            claims=tuple(claims),
            runs=tuple(runs),
        )

    return experiment


@pytest.fixture(scope="session")
def record() -> Callable[..., dict[str, Any]]:
    """To be called: a record of one number, as an evaluation leaves it."""

    def record(row, value, column=FID, seed=0, **changes):
        return {
            "table": "paper/table1",
            "row": row,
            "data_name": "faces",
            "scale": "desk",
            "column": column.id,
            "metric": column.metric["name"],
            "label": column.metric["name"],
            "direction": column.direction,
            "value": value,
            "status": "ok",
            "details": {},
            "protocol": {"num_generated": 2000},
            "settings": {"metric": column.metric, "measure_on": column.measure_on},
            "identity": f"{row}-{seed}",
            "checkpoint": "c" * 64,
            "images_seen": 120_000,
            "data": {"train": "a", "test": "b"},
            "seed": seed,
            "commit": "0123456789abcdef",
            "dirty": None,
            "device": "cpu",
            "threads": 1,
            "seconds": 1.0,
            "time": 1.0e9,
        } | changes

    return record


@pytest.fixture(scope="session")
def printed() -> Callable[..., dict[str, list[str]]]:
    """To be called: the table of a report as text, {row label: [cell, ...]} with the letters of footnotes in brackets."""

    def printed(drawn):
        table = grid.grid(drawn)
        return {
            line[0].text: ["".join([cell.text, *(f"[{m}]" for m in cell.marks)]) for cell in line[1:]] for line in table.lines
        }

    return printed
