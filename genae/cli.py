"""The `genae` command: arguments and nothing else. Bad input is one message on standard error and exit status 2."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from genae import cluster_cli
from genae.arguments import Experiment, Overrides, Rows, Scale, Seeds, asked_for, console, end, load, show_report, split
from genae.features.weights import MissingWeights

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.partition(":")[0])
data_app = typer.Typer(no_args_is_help=True, help="Prepare, list and verify data sets.")
weights_app = typer.Typer(no_args_is_help=True, help="Fetch and check the published weights of extractors.")
app.add_typer(cluster_cli.app)  # its commands, beside the others
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")


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

    asked = asked_for(experiment, overrides, scale, rows, seeds)
    chosen = asked.chosen()
    folders = study.Folders(chosen.root)
    began = time.time()
    todo = study.outstanding(chosen, folders, retrain=retrain)
    if todo:
        study.check_densities(todo)
        study.announce(todo, folders.runs)
        started = workers.start_local(folders, todo, jobs, began)
        try:
            study.watch(todo, folders, began, started, console)
        except KeyboardInterrupt:
            workers.stop_workers(started)
            console.print("stopped; run the same command again to go on")
            raise typer.Exit(130) from None
    end(asked, todo, began)


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

    chosen = load(experiment, overrides, scale, rows, seeds)
    folders = study.Folders(chosen.root)
    only = None if columns is None else split(columns, "--columns")
    for name in only or ():
        if name not in chosen.columns:
            from genae.registry import suggestion

            raise ValueError(f"unknown column {name!r}; {suggestion(name, chosen.columns)}")
    trained = [one for one in chosen.runs if not (task := study.next_task(one, folders.runs)) or task.stage is None]
    waiting = ", ".join(study.name_of(one) for one in chosen.runs if one not in trained)
    if not trained:
        raise ValueError(f"not trained to its end: {waiting}; `genae run` trains")
    if waiting:
        print(f"passed over, as not trained to its end: {waiting}; `genae run` trains", file=sys.stderr)
    try:
        for one in trained:
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
    show_report(load(experiment, overrides, scale, None, None))


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

    chosen = load(experiment, overrides, scale, row, seeds)
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
