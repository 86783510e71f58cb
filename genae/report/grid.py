"""A report's table as rows of printed cells, and the sentences around it: the same in every format.

At scale `paper` each column is ours, the paper's and their difference. At any other scale the two are unlike, stand in two
blocks and are never subtracted.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from genae.report.build import MISSING, Cell, Measure, Picture, Report, Trained
from genae.report.order import sentence

DASH = "–"
LIKELIHOODS = (
    "Held-out log likelihood in nats against seconds of training, a line for each seed. The lowest fifth, where training"
    " begins, lies below the axis."
)
ARROWS = {"min": "↓", "max": "↑"}


@dataclass(frozen=True)
class Printed:
    """One cell as text.

    kind: decides its looks; a `word` stands where a number should.  marks: letters of footnotes.  hint: what is behind a mean.
    """

    text: str
    kind: Literal["label", "ours", "paper", "difference", "word", "dash"] = "ours"
    best: bool = False
    marks: tuple[str, ...] = ()
    hint: str = ""


@dataclass
class Grid:
    """groups: (title, number of columns) above the headers, the label column's first.  footnotes: letter -> text."""

    groups: list[tuple[str, int]] = field(default_factory=lambda: [("", 1)])
    headers: list[str] = field(default_factory=lambda: [""])
    lines: list[list[Printed]] = field(default_factory=list)
    footnotes: dict[str, str] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        """The letter of a footnote, the same for the same text."""
        letters = {said: letter for letter, said in self.footnotes.items()}
        letter = letters.get(text) or _letter(len(self.footnotes))
        self.footnotes[letter] = text
        return letter


def grid(report: Report) -> Grid:
    """The table of a report, laid out."""
    table = Grid()
    for row, label in report.rows.items():
        marks = (table.mark(report.row_notes[row]),) if row in report.row_notes else ()
        table.lines.append([Printed(label, "label", marks=marks)])
    if not report.has_published:
        _add(table, report, "", [(measure, "ours") for measure in report.measures])
    elif report.same_kind:
        for measure in report.measures:
            kinds = ("ours", "paper", "difference") if _is_published(report, measure) else ("ours",)
            _add(table, report, headed(measure), [(measure, kind) for kind in kinds])
    else:
        _add(table, report, "ours", [(measure, "ours") for measure in report.measures if not measure.removed])
        _add(table, report, "paper", [(measure, "paper") for measure in report.measures if _is_published(report, measure)])
    return table


def headed(measure: Measure) -> str:
    """A column's header with its direction: "fid-2k ↓"."""
    return f"{measure.header} {ARROWS[measure.direction]}"


def caption(report: Report) -> list[str]:
    """How to read the table, a sentence each; none where nothing is measured."""
    if not report.measures:
        return []
    if report.num_seeds == 1:
        sentences = ["One seed (n = 1), so no spread over seeds is known."]
    else:
        sentences = [f"Mean ± standard deviation over n = {report.num_seeds} seeds, unless a note says otherwise."]
    sentences.append("↓ lower is better, ↑ higher is better; the best of ours is bold.")
    apart = [measure.id for measure in report.measures if measure.of_one_autoencoder]
    if apart:
        sentences.append(
            f"Rows of unlike autoencoders do not compare in {', '.join(apart)}; bold is the best of each autoencoder."
        )
    if report.has_published and report.same_kind:
        sentences.append("Difference: ours minus the paper's.")
    elif report.has_published:
        sentences.append(
            f"At scale {report.scale} ours are of other data, sizes or metrics than the paper's: the two blocks are never "
            "subtracted, and only the order of their rows is compared."
        )
    removed = [measure.id for measure in report.measures if measure.removed]
    if removed:
        sentences.append(f"Not measured at scale {report.scale}, the paper's numbers kept: {', '.join(removed)}.")
    return sentences


def orders(report: Report) -> list[tuple[Measure, str]]:
    """(column, what its order comparison says) for each column that has one."""
    return [(measure, sentence(measure.order, report.rows)) for measure in report.measures if measure.order]


def order_key(report: Report) -> str:
    """What the words of an order comparison mean."""
    said = "ρ is Spearman's rank correlation of the rows' order, ours against the paper's."
    if any(measure.order and measure.order.undecided for measure in report.measures):
        said += (
            " A pair is undecided where its two numbers are no further apart than the standard deviation of their difference,"
            " over seeds or by the paper's own error bars."
        )
    return said


def claims_key(report: Report) -> str:
    """What the verdicts on claims go by."""
    here = "" if report.same_kind else f" At scale {report.scale} a column is what stands in its place there."
    return (
        "By our numbers: means over seeds ± their standard errors. An inequality is decided where Welch's 95 % interval of the "
        "difference of its two sides leaves out zero, else undecided (≈). By the paper's own: the numbers as printed, "
        f"undecided within their error bars.{here}"
    )


def protocols(report: Report) -> list[tuple[str, str]]:
    """(header, protocol in words) for each column that has numbers. What is unset goes without saying."""
    said = []
    for measure in report.measures:
        words = [f"{_words(name)}: {_value(value)}" for name, value in measure.protocol.items() if value is not None]
        if words:
            said.append((measure.header, "; ".join(words)))
    return said


def facts(report: Report) -> list[tuple[str, str]]:
    """What was run, in a few words each: (name, value)."""
    done = [run for run in report.runs if run.record]
    found = [("scale", report.scale), ("rows", str(len(report.rows))), ("seeds", str(report.num_seeds))]
    images = sorted({run.images_seen for run in done if run.images_seen})
    if images:
        most = f" to {_thousands(images[-1])}" if len(images) > 1 else ""
        found.append(("images seen per run", _thousands(images[0]) + most))
    seconds = [run.training_seconds for run in done if run.training_seconds]
    if seconds:
        found.append(("training, all runs", duration(sum(seconds))))
    commits = list(dict.fromkeys(code(run) for run in done))
    if commits:
        found.append(("code", ", ".join(commits)))
    return found


PROVENANCE = ("row", "data", "seed", "identity", "checkpoint", "images seen", "trained for", "code", "device", "measured")


def provenance(report: Report) -> list[tuple[str, ...]]:
    """A line for each run under the headers PROVENANCE."""
    return [
        (
            report.rows[run.row],
            run.data_name,
            str(run.seed),
            run.identity[:12],
            run.record.get("checkpoint", DASH)[:12] if run.record else MISSING,
            f"{run.images_seen:,}" if run.images_seen is not None else DASH,
            duration(run.training_seconds) if run.training_seconds else DASH,
            code(run) if run.record else DASH,
            _device(run.record) if run.record else DASH,
            _date(run.record.get("time")),
        )
        for run in report.runs
    ]


def code(run: Trained) -> str:
    """The commit of a run's records, and whether it had uncommitted changes."""
    commit = (run.record.get("commit") or "no commit")[:12]
    dirty = run.record.get("dirty")
    return f"{commit} with changes {dirty}" if isinstance(dirty, str) else f"{commit} with changes" if dirty else commit


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would say."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def number(value: float, decimals: int, *, signed: bool = False) -> str:
    """A number in text, with a true minus sign; in powers of ten where it would run long."""
    sign = "+" if signed else ""
    form = ".3e" if decimals > 8 or abs(value) >= 1e7 else f".{decimals}f"
    return f"{value:{sign}{form}}".replace("-", "−")


def caption_of(picture: Picture) -> str:
    """What stands under a picture: its own caption, else its name, and whose it is."""
    text = picture.caption or picture.name.replace("-", " ").capitalize()
    return f"{text} ({picture.data}, seed {picture.seed})"


def _add(table: Grid, report: Report, title: str, columns: Sequence[tuple[Measure, str]]) -> None:
    if not columns:
        return
    table.groups.append((title, len(columns)))
    for measure, kind in columns:
        by_column = report.has_published and report.same_kind  # then the group names the column, the header ours or theirs
        paper = f"{measure.id} {ARROWS[measure.direction]}" if kind == "paper" else headed(measure)
        table.headers.append(kind if by_column else paper)
        for line, row in zip(table.lines, report.rows, strict=True):
            line.append(_printed(table, report, measure, report.cells[row, measure.id], kind))


def _printed(table: Grid, report: Report, measure: Measure, cell: Cell, kind: str) -> Printed:
    if kind == "difference":
        decimals = max(measure.decimals, measure.paper_decimals)
        return Printed(DASH if cell.difference is None else number(cell.difference, decimals, signed=True), "difference")
    if kind == "paper":
        if cell.published is None:
            return Printed(DASH, "paper")
        bar = "" if cell.plus_minus is None else f" ± {number(cell.plus_minus, measure.paper_decimals)}"
        return Printed(number(cell.published, measure.paper_decimals) + bar, "paper")
    if cell.mean is not None:
        marks = (table.mark(f"n = {len(cell.values)} of {report.num_seeds}; {_reasons(cell)}"),) if cell.absent else ()
        spread = "" if cell.std is None else f" ± {number(cell.std, measure.decimals)}"
        each = ", ".join(number(value, measure.decimals) for value in cell.values)
        hint = f"each seed: {each}" if len(cell.values) > 1 else ""
        return Printed(number(cell.mean, measure.decimals) + spread, "ours", cell.best, marks, hint)
    if not cell.absent:  # nothing was to be measured: a row of published numbers alone, or a column removed
        return Printed(DASH, "dash")
    reasons = list(dict.fromkeys(cell.absent.values()))
    words = list(dict.fromkeys(reason.partition(":")[0] for reason in reasons))
    if reasons == [MISSING]:
        return Printed(MISSING, "word", marks=(table.mark(f"not measured yet; `{report.command}` does it"),))
    told = [reason for reason in reasons if ":" in reason]
    if len(reasons) > 1:
        return Printed(", ".join(words), "word", marks=(table.mark(_reasons(cell)),))
    return Printed(words[0], "word", marks=(table.mark(told[0]),) if told else ())


def _reasons(cell: Cell) -> str:
    """Why seeds have no number: "seed 1 missing, seed 2 failed: ..."."""
    return ", ".join(f"seed {seed} {reason}" for seed, reason in sorted(cell.absent.items()))


def _is_published(report: Report, measure: Measure) -> bool:
    return any(report.cells[row, measure.id].published is not None for row in report.rows)


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else _letter(index // 26 - 1) + _letter(index % 26)


def _words(name: str) -> str:
    """The name of a nested setting in words: `weights.weights` is "weights", `images.num_reference` "images num reference"."""
    return " ".join(dict.fromkeys(name.split("."))).replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    text = str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{32,}", text) else text


def _thousands(images: int) -> str:
    return f"{images / 1e6:g} M" if images >= 1e6 else f"{images / 1e3:g} k" if images >= 1e3 else str(images)


def _device(record: Mapping[str, Any]) -> str:
    threads = record.get("threads")
    return f"{record['device']}, {threads} thread{'s' if threads > 1 else ''}" if threads else record["device"]


def _date(time: float | str | None) -> str:
    if time is None:
        return DASH
    moment = datetime.fromisoformat(time) if isinstance(time, str) else datetime.fromtimestamp(time, UTC)
    return moment.strftime("%Y-%m-%d %H:%M")
