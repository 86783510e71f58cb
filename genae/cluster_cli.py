"""The commands that speak of clusters: plan, launch, follow, cancel, retry."""

import json
import sys
import time
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.console import Console

from genae.arguments import ClusterName, Experiment, Overrides, Rows, Scale, Seeds, asked_for, console, end, load

app = typer.Typer()


@app.command()
def launch(
    experiment: Experiment,
    overrides: Overrides = None,
    cluster: ClusterName = "slurm",
    scale: Scale = None,
    rows: Rows = None,
    seeds: Seeds = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="On this machine (--cluster local): runs side by side.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what sbatch would get; submit nothing.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, submit again what is lost, and end with the last run.")] = False,
) -> None:
    """Submit what is neither done nor under way to a cluster, and return. Launch again to continue."""
    from genae import cluster as clusters
    from genae import launcher

    asked = asked_for(experiment, overrides, scale, rows, seeds)
    if not dry_run and clusters.find(cluster).cluster == "debug":
        _work_here(asked)
        return
    began = time.time()
    started = _launch(asked, cluster, jobs=jobs, dry=dry_run)
    if watch and not dry_run:
        try:
            launcher.stay(asked, cluster, began, lambda text: console.print(text, markup=False, soft_wrap=True), jobs)
        except KeyboardInterrupt:
            print(f"no longer watching; the jobs go on, and `genae cancel {quote(experiment)}` ends them", file=sys.stderr)
            raise
        end(asked, [*started.submitted, *started.in_flight], began)


@app.command()
def retry(
    experiment: Experiment,
    rows: Rows = None,
    seeds: Seeds = None,
    cluster: Annotated[str | None, typer.Option(help="Another cluster than that of the last launch.")] = None,
) -> None:
    """Submit again what failed or was lost, as the experiment's last launch was asked to; nodes that broke are left out."""
    from genae import launcher

    asked, before = launcher.asked_last(asked_for(experiment, None, None, rows, seeds))
    _launch(asked, cluster or before, only=launcher.was_tried)


@app.command()
def cancel(experiment: Experiment, rows: Rows = None, seeds: Seeds = None) -> None:
    """Cancel the jobs of an experiment's runs. What they have done stays; launching again goes on from there."""
    from genae import launcher

    asked = asked_for(experiment, None, None, rows, seeds)
    launcher.asked_last(asked)  # or say that it never was
    ended, needed = launcher.cancel(asked)
    count = f"{len(ended)} job{'s'[: len(ended) > 1]}"
    if ended or not needed:
        console.print(
            f"cancelled {count}: {', '.join(ended)}" if ended else "nothing was under way", markup=False, soft_wrap=True
        )
    for job, names in needed.items():
        console.print(f"job {job} goes on: {', '.join(names)} needs it too", markup=False, soft_wrap=True)


@app.command("status")
def show_status(
    experiment: Annotated[str | None, typer.Argument(help="An experiment, or a table; all of them by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects, for programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking until nothing is in flight any more.")] = False,
) -> None:
    """What each run is doing: its state, node, progress, pace, time left, loss, restarts, and why it failed or waits."""
    from genae import status
    from genae.experiment import project_root

    if as_json and watch:
        raise ValueError("--json tells once and --watch keeps telling; give one of them")
    root = project_root(Path(experiment) if experiment and Path(experiment).is_file() else Path.cwd())
    runs, table = root / "results" / "runs", status.table_of(experiment, root) if experiment else None
    states = status.read(runs, table)
    why_none = None if states else status.why_none(runs, experiment, root)
    if as_json:
        sys.stdout.write(json.dumps([state.to_dict() for state in states], indent=1) + "\n")
    elif why_none:
        console.print(why_none, soft_wrap=True, markup=False)
    elif watch:
        states = status.watch(lambda: status.read(runs, table), console)
    else:
        status.show(states, console)
    if any(state.state == "failed" for state in states):
        raise typer.Exit(1)


@app.command("logs")
def show_logs(
    run: Annotated[str, typer.Argument(help="As `genae status` names it, or its directory, or enough of either.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> None:
    """The log of what works on a run, or worked on it last; of a failed run, its traceback too."""
    from genae import logs, status
    from genae.experiment import project_root

    runs = project_root(Path.cwd()) / "results" / "runs"
    state = logs.find(status.read(runs), run)
    log = logs.log(state, runs)
    print(f"{state.name} ({state.state}): {log.worker}", flush=True)
    for text in logs.follow(log, wait=follow):
        sys.stdout.write(text)
        sys.stdout.flush()
    if failure := logs.failure_of(state):
        where = f" on {failure['node']}" if failure.get("node") else ""
        print(f"==> failed{where} <==\n{failure['traceback']}", end="")


@app.command()
def plan(
    experiment: Experiment,
    overrides: Overrides = None,
    scale: Scale = None,
    rows: Rows = None,
    seeds: Seeds = None,
    gpu: Annotated[
        str | None, typer.Option(help="Estimate for this kind of GPU (h100, a100, rtx4090 ...) from the FLOPs of a step.")
    ] = None,
    images_per_second: Annotated[
        float | None, typer.Option(min=1e-9, help="Take this pace for every run, over its whole length; nothing is timed.")
    ] = None,
    utilisation: Annotated[float, typer.Option(help="Of a GPU's peak, the share that training is assumed to reach.")] = 0.3,
    seconds: Annotated[float, typer.Option(min=0.01, help="Of one step that is timed, about.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="One object, for programs.")] = False,
) -> None:
    """What the outstanding runs would cost: images, hours, memory and disk, before any of it is spent. Needs no data."""
    from genae import plan as planning
    from genae import study
    from genae.plan_table import show as show_plan

    chosen = load(experiment, overrides, scale, rows, seeds)
    with Console(stderr=True).status("") as shown:
        made = planning.make(
            chosen,
            study.Folders(chosen.root),
            gpu=gpu,
            images_per_second=images_per_second,
            utilisation=utilisation,
            seconds=seconds,
            tell=lambda row: shown.update(f"looking at {row}"),
        )
    if as_json:
        sys.stdout.write(json.dumps(made.to_dict(), indent=1) + "\n")
    else:
        show_plan(made, console)


def _work_here(asked) -> None:
    """`--cluster debug`: all the work in this process, where a debugger sees it, or in those that torchrun started."""
    import signal

    from genae import study
    from genae.parallel import join
    from genae.stop import Stop

    chosen = asked.chosen()
    folders = study.Folders(chosen.root)
    began, todo = time.time(), study.outstanding(chosen, folders)
    with Stop().on_signals(signal.SIGTERM, signal.SIGINT) as stop, join() as group:
        if group.leads:
            study.announce(todo, folders.runs)
        study.work(todo, folders.runs, began, stop, group=group)
        if not group.leads:
            return
    end(asked, todo, began)


def _launch(asked, cluster: str, *, only=None, jobs: int | None = None, dry: bool = False):
    """Submit, and say what was submitted. Returns it."""
    from genae import launcher, study

    started = launcher.launch(asked, cluster, only=only, jobs=jobs, dry=dry)
    for warning in started.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for script in started.scripts:
        sys.stdout.write(script + "\n")
    if dry:
        return started
    if started.in_flight:
        console.print(f"under way already: {', '.join(map(study.name_of, started.in_flight))}", markup=False, soft_wrap=True)
    if started.submitted:
        count = len(started.submitted)
        console.print(f"submitted {count} run{'s'[: count > 1]} to {cluster}: jobs {', '.join(started.jobs)}", soft_wrap=True)
        console.print(f"genae status {quote(asked.experiment)} shows where they are", markup=False, soft_wrap=True)
    elif not started.in_flight:
        console.print("nothing to submit", markup=False)
    return started
