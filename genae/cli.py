"""The `genae` command: arguments and nothing else. Bad input is one message on standard error and exit status 2."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from genae.features.weights import MissingWeights

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.partition(":")[0])
data_app = typer.Typer(no_args_is_help=True, help="Prepare, list and verify data sets.")
weights_app = typer.Typer(no_args_is_help=True, help="Fetch and check the published weights of extractors.")
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")

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


def main() -> None:
    """Run the command line: bad input, and what the system refuses, is one message and exit status 2."""
    try:
        app()
    except (ValueError, OSError, MissingWeights) as error:
        print(f"genae: {error}", file=sys.stderr)
        sys.exit(2)


@app.command()
def run(
    experiment: Experiment,
    overrides: Overrides = None,
    scale: Scale = None,
    rows: Rows = None,
    seeds: Seeds = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs side by side; as many as the processor has room for by default.")
    ] = None,
    retrain: Annotated[bool, typer.Option(help="Train again what is recorded but has no run directory any more.")] = False,
) -> None:
    """Train every row, measure every column, and print the table beside the paper's numbers. Skips what is done."""
    from genae import study, workers

    asked = _asked(experiment, overrides, scale, rows, seeds)
    chosen = asked.chosen()
    folders = study.Folders(chosen.root)
    began = time.time()
    todo = study.outstanding(chosen, folders, retrain=retrain)
    if todo:
        study.announce(todo, folders.runs)
        started = workers.start_local(folders, todo, jobs, began)
        try:
            study.watch(todo, folders, began, started, console)
        except KeyboardInterrupt:
            workers.stop_workers(started)
            console.print("stopped; run the same command again to go on")
            raise typer.Exit(130) from None
    _end(asked, todo, began)


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
    from genae import launcher

    asked = _asked(experiment, overrides, scale, rows, seeds)
    if cluster == "debug":
        _work_here(asked)
        return
    began = time.time()
    started = _launch(asked, cluster, jobs=jobs, dry=dry_run)
    if watch and not dry_run:
        launcher.stay(asked, cluster, began, lambda text: console.print(text, markup=False, soft_wrap=True))
        _end(asked, [*started.submitted, *started.in_flight], began)


@app.command()
def retry(
    experiment: Experiment,
    rows: Rows = None,
    seeds: Seeds = None,
    cluster: Annotated[str | None, typer.Option(help="Another cluster than that of the last launch.")] = None,
) -> None:
    """Submit again what failed or was lost, as the experiment's last launch was asked to; nodes that broke are left out."""
    from genae import launcher

    asked, before = launcher.asked_last(_asked(experiment, None, None, rows, seeds))
    _launch(asked, cluster or before, only=launcher.was_tried)


@app.command()
def cancel(experiment: Experiment, rows: Rows = None, seeds: Seeds = None) -> None:
    """Cancel the jobs of an experiment's runs. What they have done stays; launching again goes on from there."""
    from genae import launcher

    cancelled = launcher.cancel(*launcher.asked_last(_asked(experiment, None, None, rows, seeds)))
    console.print(
        f"cancelled {len(cancelled)} jobs: {', '.join(cancelled)}" if cancelled else "nothing was under way", markup=False
    )


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
    elif watch and console.is_terminal:
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
def evaluate(
    experiment: Experiment,
    overrides: Overrides = None,
    scale: Scale = None,
    rows: Rows = None,
    seeds: Seeds = None,
    columns: Annotated[str | None, typer.Option(help="Only these columns, separated by commas.")] = None,
) -> None:
    """Measure runs that are trained, or rows that need no training, without training any; print each number."""
    from genae import study
    from genae.evaluator import evaluate as measure

    chosen = _load(experiment, overrides, scale, rows, seeds)
    folders = study.Folders(chosen.root)
    only = _split(columns)
    for name in only or ():
        if name not in chosen.columns:
            from genae.registry import suggestion

            raise ValueError(f"unknown column {name!r}; {suggestion(name, chosen.columns)}")
    try:
        for one in chosen.runs:
            with study.directories(one, folders.runs)[-1].claim():
                measured = measure(one, folders.runs, only=only)
            for record in measured:
                value = record["status"] if record["value"] is None else f"{record['value']:.6g}"
                console.print(f"{study.name_of(one):40s} {record['column']:24s} {value}", soft_wrap=True, markup=False)
    finally:  # what was measured before something failed is collected too
        study.collect(chosen, folders)


@app.command()
def report(experiment: Experiment, overrides: Overrides = None, scale: Scale = None) -> None:
    """Redraw the report of an experiment from its records alone."""
    _report(_load(experiment, overrides, scale, None, None))


@app.command()
def show(
    experiment: Experiment,
    overrides: Overrides = None,
    scale: Scale = None,
    row: Annotated[str | None, typer.Option(help="Only this row.")] = None,
    seeds: Seeds = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="The layers of each model too, and how many parameters it uses.")
    ] = False,
) -> None:
    """What would be run: each run resolved, with its identity and directory; and the claims to decide. A dry run."""
    import yaml

    from genae import study

    chosen = _load(experiment, overrides, scale, row, seeds)
    folders = study.Folders(chosen.root)
    for one in chosen.runs:
        described = one.to_dict()
        described.pop("root")
        described["compute"] = {key: value for key, value in described["compute"].items() if value is not None}
        console.print(f"# {study.name_of(one)}  ({chosen.table}, scale {chosen.scale})", style="bold", soft_wrap=True)
        identities = [(stage.name, stage.identity) for stage in one.stages] or [("not trained", one.identity)]
        for (name, identity), place in zip(identities, study.directories(one, folders.runs), strict=True):
            console.print(f"# {name}: identity {identity}", soft_wrap=True)
            console.print(f"#   {place.path.relative_to(chosen.root)}", soft_wrap=True)
        if layers:
            from genae.models import layer_table

            for line in layer_table.lines(one.model, one.data):
                console.print(f"# {line}", soft_wrap=True, markup=False)
        sys.stdout.write(yaml.safe_dump(described, sort_keys=False, width=120) + "\n")
    for claim in [] if row else chosen.claims:
        console.print(f"# claim {claim.id}: {claim.text} ({claim.where})", style="bold", soft_wrap=True, markup=False)
        console.print(f"#   {claim.expression}", soft_wrap=True, markup=False)


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

    chosen = _load(experiment, overrides, scale, rows, seeds)
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


@app.command("list")
def list_all() -> None:
    """What there is: models, objectives, data sets, metrics, figures, experiments."""
    from genae.experiment import list_experiments, project_root
    from genae.registry import REGISTRIES

    for registry in REGISTRIES:
        console.print(f"{registry.kind}s", style="bold")
        for name in registry.names():
            console.print(f"  {name:22s} {registry[name].summary}", soft_wrap=True, markup=False)
    console.print("experiments", style="bold")
    for name in list_experiments(project_root(Path.cwd())):
        console.print(f"  {name}", markup=False)


@app.command()
def schema() -> None:
    """The JSON Schema of experiment files, for an editor to complete and check them with."""
    from genae.experiment import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=1) + "\n")


@app.command()
def check(module: Annotated[str, typer.Argument(help="A module that registers components, such as baselines.swae.")]) -> None:
    """Run the contract tests over what a module registers."""
    from genae.conformance import check as run_checks

    raise typer.Exit(run_checks(module))


@data_app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="A data set that `genae data list` knows, or `folder`.")],
    source: Annotated[Path, typer.Option(help="Where your copy of it is.")],
    pack: Annotated[str | None, typer.Option("--name", help="What to call the pack; needed for `folder`.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Pixels a side to store.")] = None,
    crop: Annotated[
        str | None, typer.Option(help="How to make images square: center, none, pad (in white), or a number of pixels.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="3 for colour, 1 for grey.")] = None,
    test_share: Annotated[float, typer.Option(help="Share of the images of `folder` kept for the test split.")] = 0.1,
    encoding: Annotated[
        str, typer.Option(help="array, bytes (kept as in the source, decoded when read), or auto: by size.")
    ] = "auto",
    replace: Annotated[bool, typer.Option(help="Put the new pack in the place of one of that name.")] = False,
) -> None:
    """Pack your own copy of a data set into memory-mapped arrays."""
    from rich.progress import Progress

    from genae.data import prepare

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"packing {name}", total=None)
        summary = prepare.prepare(
            name,
            source,
            pack=pack,
            resolution=resolution,
            crop=crop,
            channels=channels,
            test_share=test_share,
            encoding=encoding,
            replace=replace,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(str(summary), markup=False)


@data_app.command("list")
def data_list() -> None:
    """The data sets there are, and which are packed here."""
    from genae.data import prepare
    from genae.registry import DATASETS

    for name in DATASETS.names():
        console.print(f"{name:22s} {DATASETS[name].summary}", soft_wrap=True, markup=False)
    for pack in prepare.list_packs():
        console.print(f"packed: {pack.headline}", soft_wrap=True, markup=False)


@data_app.command("verify")
def data_verify(pack: Annotated[str | None, typer.Argument(help="A pack's name; every pack by default.")] = None) -> None:
    """Hash packs anew and compare with what was written when they were packed."""
    from genae.data import prepare

    names = [found.name for found in prepare.list_packs()] if pack is None else [pack]
    problems = {name: prepare.verify(name) for name in names}
    for name, found in problems.items():
        console.print(f"{name}: {'; '.join(found) or 'whole'}", soft_wrap=True, markup=False)
    raise typer.Exit(1 if any(problems.values()) else 0)


@weights_app.command("fetch")
def weights_fetch(names: Annotated[list[str], typer.Argument(help="Names that `genae weights check` lists.")]) -> None:
    """Download published weights to where nodes without a network find them."""
    from genae.features import weights

    weights.fetch(names)


@weights_app.command("check")
def weights_check() -> None:
    """Which published weights are here, and whether they are whole."""
    from genae.features import weights

    for name, state in weights.check():
        console.print(f"{name:22s} {state}", soft_wrap=True, markup=False)


def _asked(experiment: str, overrides: list[str] | None, scale: str | None, rows: str | None, seeds: str | None):
    from genae.experiment import Asked

    return Asked(
        experiment=experiment,
        scale=scale,
        rows=tuple(_split(rows)) if rows else None,
        seeds=tuple(_integer(seed) for seed in _split(seeds)) if seeds else None,
        overrides=tuple(overrides or ()),
    )


def _load(experiment: str, overrides: list[str] | None, scale: str | None, rows: str | None, seeds: str | None):
    return _asked(experiment, overrides, scale, rows, seeds).chosen()


def _split(names: str | None) -> list[str] | None:
    return [name.strip() for name in names.split(",")] if names else None


def _integer(text: str) -> int:
    if not text.lstrip("-").isdigit():
        raise ValueError(f"--seeds takes whole numbers separated by commas, not {text!r}")
    return int(text)


def _report(experiment) -> None:
    from genae import report, study

    console.print(report.terminal(report.redraw(experiment)))
    where = study.Folders(experiment.root).report(experiment.table).relative_to(experiment.root)
    console.print(f"report: {where}/index.html", soft_wrap=True)


def _end(asked, todo, began: float) -> None:
    """Collect, report, and tell what became of runs worked on since `began`; exit status 1 unless all are done."""
    from genae import study

    experiment = asked.shown()
    runs = study.Folders(experiment.root).runs
    for note in study.collect(asked.chosen(), study.Folders(experiment.root)):
        console.print(note, markup=False)
    _report(experiment)
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


def _work_here(asked) -> None:
    """`--cluster debug`: all the work in this process, where a debugger sees it, or in those that torchrun started."""
    import signal

    from genae import study
    from genae.parallel import join
    from genae.stop import Stop

    chosen = asked.chosen()
    folders = study.Folders(chosen.root)
    began, todo = time.time(), study.outstanding(chosen, folders)
    study.announce(todo, folders.runs)
    with Stop().on_signals(signal.SIGTERM, signal.SIGINT) as stop, join() as group:
        study.work(todo, folders.runs, began, stop, group=group)
        if not group.leads:
            return
    _end(asked, todo, began)


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
        console.print(f"genae status {asked.experiment} shows where they are", markup=False, soft_wrap=True)
    elif not started.in_flight:
        console.print("nothing to submit", markup=False)
    return started
