"""A plan as text for a terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genae.plan import Plan, StagePlan


def show(plan: Plan, console: Console) -> None:
    """The plan for a terminal: a line for each row (and for each of its stages, where they are several), totals, and notes."""
    console.print(f"{plan.table}, scale {plan.scale}", style="bold", markup=False)
    console.print(_table(plan))
    totals = plan.totals
    untold = [name for name, (size, _) in plan.data.items() if size is None]
    data = [f"{name} {_size(size) or 'of unknown size'} ({how})" for name, (size, how) in plan.data.items()]
    kept = f"{_size(totals['disk_bytes'])} of checkpoints and {_size(totals['data_bytes'])} of data, at most at once"
    beside = f", and {', '.join(untold)}, whose size is unknown" if untold else ""
    lines = [
        ("images/s", plan.basis + "."),
        ("data", "; ".join(data) or "none"),
        ("disk", f"{kept}{beside}."),
        ("evaluation", plan.evaluation + "."),
        *(("note", note) for note in plan.notes),
    ]
    below = Table.grid(padding=(0, 1))
    for name, said in lines:
        below.add_row(Text(name, "bold"), Text(said))
    console.print(below)


def _table(plan: Plan) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_footer=True, padding=(0, 1, 0, 0))
    totals = plan.totals
    footers = {
        "row": "outstanding",
        "runs": f"{totals['outstanding']}/{totals['runs']}",
        "images": _count(totals["images"]),
        "images/s": "",
        "h/run": "",
        "hours": _hours(3600 * totals["gpu_hours"]),
        "memory": _size(totals["memory_bytes"]),
        "disk": _size(totals["disk_bytes"]),
    }
    for name, footer in footers.items():
        drawn.add_column(name, footer, justify="left" if name == "row" else "right", overflow="fold", no_wrap=name != "row")
    several = {row.row for row in plan.rows if sum(other.row == row.row for other in plan.rows) > 1}
    for row in plan.rows:
        label = f"{row.row}/{row.data_name}" if row.row in several else row.row
        runs = f"{row.outstanding}/{row.runs}"
        if not row.outstanding or not row.stages:
            drawn.add_row(label, runs, "done" if row.stages else "0", *[""] * 5)
            continue
        whole = row.whole
        drawn.add_row(label, runs, *_cells(whole))
        for stage in row.stages if len(row.stages) > 1 else ():
            drawn.add_row(f"  {stage.name}", "", *_cells(stage), style="dim")
    return drawn


def _cells(stage: StagePlan) -> list[str]:
    """What there is to say of a stage; "?" is what could not be told, nothing what need not be."""
    told = [
        _count(stage.images),
        _count(stage.images_per_second),
        _hours(stage.seconds),
        _hours(stage.gpu_seconds),
        _size(stage.memory_bytes),
        _size(stage.disk_bytes),
    ]
    return [cell or ("?" if stage.problem else "") for cell in told]


def _count(value: float | None) -> str:
    """Three digits: 0.25, 14.3, 920, 27.5k, 35.0M."""
    if value is None:
        return ""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= unit:
            scale = 1e3 if name == "k" else unit
            return f"{value / scale:.3g}{name}"
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return ""
    hours = seconds / 3600
    if hours >= 100_000:
        return _count(hours)
    return f"{hours:,.0f}" if hours >= 100 or not hours else f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"


def _size(size: float | None) -> str:
    if size is None:
        return ""
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / 1e6:.3g} MB" if size else "0"
