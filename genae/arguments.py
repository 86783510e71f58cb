"""What commands have in common: arguments, what they are asked for, and how a command that worked on runs ends."""

import sys
from typing import Annotated

import typer
from rich.console import Console

EXPERIMENT = typer.Argument(help="An experiment file, or its name under experiments/ (quickstart, automodulator-2020/table2a).")
OVERRIDES = typer.Argument(help="Settings to override, as key.path=value.")
SCALE = typer.Option(help="Which of the file's scales to run; desk where it has one, else paper.")
ROWS = typer.Option(help="Only these rows, separated by commas.")
SEEDS = typer.Option(help="Only these seeds, separated by commas.")

CLUSTER = typer.Option(help="slurm, local (processes of this machine), debug (this process), or one that you described.")

Experiment = Annotated[str, EXPERIMENT]
ClusterName = Annotated[str, CLUSTER]
Overrides = Annotated[list[str] | None, OVERRIDES]
Scale = Annotated[str | None, SCALE]
Rows = Annotated[str | None, ROWS]
Seeds = Annotated[str | None, SEEDS]

console = Console(highlight=False)


def asked_for(experiment: str, overrides: list[str] | None, scale: str | None, rows: str | None, seeds: str | None):
    from genae.experiment import Asked

    return Asked(
        experiment=experiment,
        scale=scale,
        rows=None if rows is None else tuple(split(rows, "--rows")),
        seeds=None if seeds is None else tuple(integer(seed) for seed in split(seeds, "--seeds")),
        overrides=tuple(overrides or ()),
    )


def load(experiment: str, overrides: list[str] | None, scale: str | None, rows: str | None, seeds: str | None):
    return asked_for(experiment, overrides, scale, rows, seeds).chosen()


def split(names: str, option: str) -> list[str]:
    """Names separated by commas. Raises ValueError for an empty one, as an unset variable of a shell leaves it."""
    found = [name.strip() for name in names.split(",")]
    if not all(found):
        raise ValueError(f"{option} takes names separated by commas, not {names!r}")
    return found


def integer(text: str) -> int:
    if not text.lstrip("-").isdigit():
        raise ValueError(f"--seeds takes whole numbers separated by commas, not {text!r}")
    return int(text)


def show_report(experiment) -> None:
    from genae import report, study

    console.print(report.terminal(report.redraw(experiment)))
    where = study.Folders(experiment.root).report(experiment.table).relative_to(experiment.root)
    console.print(f"report: {where}/index.html", soft_wrap=True)


def end(asked, todo, began: float) -> None:
    """Collect, report, and tell what became of runs worked on since `began`; exit status 1 unless all are done."""
    from genae import study

    experiment = asked.shown()
    runs = study.Folders(experiment.root).runs
    for note in study.collect(asked.chosen(), study.Folders(experiment.root)):
        console.print(note, markup=False)
    show_report(experiment)
    for warning in [text for one in todo for text in study.warnings_since(one, runs, began)]:
        print(f"warning: {warning}", file=sys.stderr)
    failures = [failure for one in todo if (failure := study.failure_since(one, runs, began))]
    unfinished = [one for one in todo if study.next_task(one, runs)]
    for failure in failures:
        print(f"failed: {study.name_of(failure.run)}: {failure.reason}  (see {failure.log})", file=sys.stderr)
    if unfinished and not failures:
        print(f"unfinished: {', '.join(map(study.name_of, unfinished))}; run the same command again to go on", file=sys.stderr)
    if unfinished:
        raise typer.Exit(1)
