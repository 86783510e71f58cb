"""What a score is to be read beside: chance, the ceiling of plain reconstructions, an untrained decoder, and what was scored.

They come from the details of records (docs/factors.md). A column without them has no line here.
"""

import statistics
from collections import Counter

from genae.report.build import Cell, Report
from genae.report.grid import DASH

NUMBERS = ("chance", "ceiling", "untrained")
BESIDE = ("", "ours", "chance", "ceiling", "untrained decoder", "factors carried, which are scored", "not carried")
KEY = (
    "Chance: pictures that have nothing to do with the faces that they are held against. Ceiling: as far as plain"
    " reconstructions go. Untrained decoder: the row's own before training."
)


def beside(report: Report) -> list[tuple[str, ...]]:
    """A line under the headers BESIDE for each score, columns in their order; means over seeds."""
    lines = []
    for measure in report.measures:
        for row, label in report.rows.items():
            cell = report.cells[row, measure.id]
            if any(name in details for details in cell.details for name in NUMBERS):
                numbers = (_mean(cell, name) for name in NUMBERS)
                lines.append(
                    (
                        f"{measure.header}: {label}",
                        f"{cell.mean:.3f}",
                        *numbers,
                        _named(cell, "carried"),
                        _named(cell, "not_carried"),
                    )
                )
    return lines


def _mean(cell: Cell, name: str) -> str:
    values = [details[name] for details in cell.details if name in details]
    return f"{statistics.fmean(values):.3f}" if values else DASH


def _named(cell: Cell, name: str) -> str:
    """The factors that the details name, each with the number of seeds where that is not all."""
    lists = [details[name] for details in cell.details if name in details]
    if not lists:
        return DASH
    seeds = Counter(factor for said in lists for factor in said.split(", ") if said != "none")
    told = (factor if count == len(lists) else f"{factor} ({count} of {len(lists)} seeds)" for factor, count in seeds.items())
    return ", ".join(told).replace("_", " ") or DASH
