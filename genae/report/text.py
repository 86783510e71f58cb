"""A report as plain text: the terminal, Markdown, CSV and LaTeX."""

import csv as csv_format
import io
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from genae import plots
from genae.report.beside import BESIDE, KEY, beside
from genae.report.build import Picture, Report
from genae.report.grid import (
    LIKELIHOODS,
    PROVENANCE,
    Grid,
    Printed,
    caption,
    caption_of,
    claims_key,
    facts,
    grid,
    order_key,
    orders,
    protocols,
    provenance,
)

CSV_COLUMNS = (
    "table", "scale", "row", "label", "column", "header", "direction", "n", "mean", "std", "values", "best", "absent",
    "published", "published_plus_minus", "difference",
)  # fmt: skip

CLAIMS = ("", "the paper says", "by our numbers", "by the paper's own")
TERMINAL_HEADER = 14  # characters abreast


def terminal(report: Report) -> Any:
    """What a terminal prints: a rich renderable. Where the blocks of the table do not fit side by side, they stand in turn."""
    from rich.console import Group
    from rich.text import Text

    laid_out = grid(report)
    under = [*caption(report), *_footnotes(laid_out), *(f"{m.header}: {said}" for m, said in orders(report)), *report.notes]
    under += [f"{who}: {', '.join(map(' '.join, zip(BESIDE[1:5], numbers, strict=False)))}" for who, *numbers in beside(report)]
    title = Text(_plain(report.title), style="bold")
    claims = [] if not report.claims else ["", Text("Claims", style="bold"), *_claims_told(report)]
    shown = _Blocks(laid_out) if report.measures else Text(f"{len(report.pictures)} pictures")
    return Group("", title, shown, *(Text(_plain(line), style="dim") for line in under), *claims)


def _claims_told(report: Report) -> Iterator[Any]:
    """The claims for a terminal: the paper's words, then a line for each verdict."""
    from rich.padding import Padding
    from rich.text import Text

    styles = {"holds": "green", "fails": "red", "undecided": "yellow"}
    for judged in report.claims:
        yield Text(f"{judged.claim.id}: {_plain(judged.claim.text)} ({_plain(judged.claim.where)})")
        for whose, verdict in (("ours", judged.ours), ("paper's own numbers", judged.paper)):
            said = Text.assemble((f"{whose}: ", "dim"), (verdict.words, styles[verdict.outcome]), f": {verdict.reason}")
            yield Padding(said, (0, 0, 0, 2))
    yield Text(claims_key(report), style="dim")


@dataclass
class _Blocks:
    """A grid as one table where the terminal is wide enough, else as a table for each group of columns."""

    grid: Grid

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.measure import Measurement

        ends = list(itertools.accumulate(width for _, width in self.grid.groups))
        whole = self._table(range(1, ends[-1]))
        if len(ends) < 3 or Measurement.get(console, options.update(width=1000), whole).maximum <= options.max_width:
            yield whole
        else:
            yield from (self._table(range(start, end)) for start, end in itertools.pairwise(ends))

    def _table(self, columns: Iterable[int]) -> Any:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        styles = {"label": "", "ours": "", "paper": "cyan", "difference": "dim", "word": "yellow", "dash": "dim"}
        columns = list(columns)
        table = Table("", header_style="dim", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        titles = [title for title, width in self.grid.groups for _ in range(width)]
        for index in columns:
            header = textwrap.wrap(self.grid.headers[index], TERMINAL_HEADER, break_long_words=False)
            table.add_column(Text("\n".join(filter(None, [titles[index], *header]))), justify="right", overflow="fold")
        for line in self.grid.lines:
            cells = [line[0], *(line[index] for index in columns)]
            table.add_row(*(Text(_with_marks(cell), style="bold green" if cell.best else styles[cell.kind]) for cell in cells))
        return table


def csv(report: Report) -> str:
    """One line per row and column of the table, numbers in full: for other programs. Differences at scale paper only."""
    out = io.StringIO(newline="")
    writer = csv_format.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row, label in report.rows.items():
        for measure in report.measures:
            cell = report.cells[row, measure.id]
            absent = "; ".join(f"seed {seed}: {reason}" for seed, reason in sorted(cell.absent.items()))
            about = (report.table, report.scale, row, label, measure.id, measure.header, measure.direction)
            ours = (len(cell.values), cell.mean, cell.std, " ".join(map(repr, cell.values)), int(cell.best), absent)
            paper = (cell.published, cell.plus_minus, cell.difference if report.same_kind else None)
            writer.writerow([*about, *ours, *paper])
    return out.getvalue()


def latex(report: Report) -> str:
    """A table environment; its tabular stands alone too. Needs the package booktabs and nothing else."""
    laid_out = grid(report)
    head = [r"\toprule"]
    if any(title for title, _ in laid_out.groups):
        spans, rules, at = [], [], 1
        for title, width in laid_out.groups:
            spans.append(rf"\multicolumn{{{width}}}{{c}}{{{_tex(title)}}}" if title else "")
            rules += [rf"\cmidrule(lr){{{at}-{at + width - 1}}}"] if title else []
            at += width
        head += [" & ".join(spans) + r" \\", " ".join(rules)]
    head += [" & ".join(map(_tex_header, laid_out.headers)) + r" \\", r"\midrule"]
    body = [" & ".join(map(_tex_cell, line)) + r" \\" for line in laid_out.lines]
    about = [*caption(report), *(f"{header}: {protocol}." for header, protocol in protocols(report))]
    under = [rf"$^{{{letter}}}$ {_tex(text)}." for letter, text in laid_out.footnotes.items()]
    under += [_tex(f"{measure.header}: {said}.") for measure, said in orders(report)]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(_full_stop(report.title))} {_tex(' '.join(about))}}}",
        rf"\label{{tab:{_tex_label(report)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(laid_out.headers) - 1)}}}",
        *head,
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if under:
        lines += ["", r"\smallskip", r"{\footnotesize " + " ".join(under) + r"\par}"]
    return "\n".join([*lines, r"\end{table}", *_tex_claims(report)]) + "\n"


def _tex_claims(report: Report) -> list[str]:
    """A second table: the claims and their verdicts."""
    if not report.claims:
        return []
    return [
        "",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(_full_stop(report.title))} Claims. {_tex(claims_key(report))}}}",
        rf"\label{{tab:{_tex_label(report)}-claims}}",
        r"\footnotesize",
        r"\begin{tabular}{lp{.28\linewidth}p{.28\linewidth}p{.28\linewidth}}",
        r"\toprule",
        " & ".join(map(_tex, CLAIMS)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_tex, line)) + r" \\" for line in _claims(report)),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def _tex_label(report: Report) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", report.table)


def _claims(report: Report) -> list[tuple[str, ...]]:
    """A line for each claim under the headers CLAIMS."""
    return [
        (
            judged.claim.id,
            f"{judged.claim.text} ({judged.claim.where})",
            f"{judged.ours.words}: {judged.ours.reason}",
            f"{judged.paper.words}: {judged.paper.reason}",
        )
        for judged in report.claims
    ]


def markdown(report: Report) -> str:
    """The report for a repository's own pages: tables and pictures, which stand in `pictures/` beside it."""
    laid_out = grid(report)
    lines = [f"# {_md(report.title)}", ""]
    for text in filter(None, (report.source, report.caption)):
        lines += [_md(text), ""]
    lines += [" · ".join(f"{name}: **{_md(value)}**" for name, value in facts(report)), ""]
    if report.measures or laid_out.footnotes:
        cells = [list(map(_md_cell, line)) for line in laid_out.lines]
        lines += _md_table(map(_md, _single_headers(laid_out)), cells, right=True)
    lines += ["", " ".join(map(_md, caption(report))), ""]
    lines += [f"- <sup>{letter}</sup> {_md_with_code(text)}" for letter, text in laid_out.footnotes.items()]
    lines += [f"- {_md(note)}" for note in report.notes] + [""]
    if beside(report):
        told = [list(map(_md, line)) for line in beside(report)]
        lines += ["## Beside the scores", "", *_md_table(map(_md, BESIDE), told), "", _md(KEY), ""]
    if orders(report):
        lines += ["## Order of rows, ours against the paper's", ""]
        lines += [f"- **{_md(measure.header)}** (paper: {_md(measure.id)}): {_md(said)}" for measure, said in orders(report)]
        lines += ["", _md(order_key(report)), ""]
    if report.claims:
        judged = [list(map(_md, line)) for line in _claims(report)]
        lines += ["## Claims", "", *_md_table(map(_md, CLAIMS), judged), "", _md(claims_key(report)), ""]
    if report.pictures or report.curves:
        lines += ["## Pictures", ""]
    if report.likelihoods:
        lines += [f"![{LIKELIHOODS}](pictures/likelihoods.svg)", ""]
    for row, label in report.rows.items():
        mine = [picture for picture in report.pictures if picture.row == row]
        if mine or row in report.curves:
            lines += [f"### {_md(label)}", ""]
        for picture in mine:
            said = caption_of(picture)
            lines += [f"![{_md(said)}](pictures/{picture_name(picture)})", "", _md(said), ""]
        if row in report.curves:
            lines += [f"![Loss terms against images seen](pictures/{row}-curves.svg)", ""]
    if protocols(report):
        lines += ["## Protocol", "", *(f"- **{_md(header)}**: {_md(protocol)}" for header, protocol in protocols(report)), ""]
    lines += ["## Runs", "", *_md_table(PROVENANCE, [list(map(_md, line)) for line in provenance(report)]), ""]
    lines += ["## Run it again", "", "```", report.command, "```"]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def picture_name(picture: Picture) -> str:
    return f"{picture.row}-{picture.data_name}-s{picture.seed}-{picture.name}.png"


def picture_files(report: Report) -> dict[str, bytes]:
    """The files that the Markdown shows, by path beside it."""
    files = {f"pictures/{picture_name(picture)}": picture.png for picture in report.pictures}
    files |= {"pictures/likelihoods.svg": report.likelihoods} if report.likelihoods else {}
    return files | {f"pictures/{row}-curves.svg": svg for row, svg in report.curves.items()}


def order_chart(report: Report, column: str) -> bytes:
    """An SVG of one column's ranks, ours and the paper's."""
    order = next(measure.order for measure in report.measures if measure.id == column)
    unique = {row: label if list(report.rows.values()).count(label) == 1 else row for row, label in report.rows.items()}
    paper, ours = ({unique[row]: rank for row, rank in side.items()} for side in (order.paper_ranks, order.our_ranks))
    return plots.order_comparison(paper, ours, {unique[row] for pair in order.swapped for row in pair})


def _single_headers(laid_out: Grid, between: str = ": ") -> list[str]:
    """Headers for formats without a row of groups above them."""
    titles = [title for title, width in laid_out.groups for _ in range(width)]
    return [between.join(filter(None, [title, header])) for title, header in zip(titles, laid_out.headers, strict=True)]


def _with_marks(cell: Printed) -> str:
    return _plain(cell.text) + "".join(f" [{letter}]" for letter in cell.marks)


def _footnotes(laid_out: Grid) -> list[str]:
    return [f"[{letter}] {text}" for letter, text in laid_out.footnotes.items()]


def _plain(text: str) -> str:
    """One line: a label's line breaks would break a table."""
    return " ".join(text.split())


def _full_stop(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _md_table(headers: Iterable[str], lines: Sequence[Sequence[str]], right: bool = False) -> list[str]:
    headers = list(headers)
    rule = ["---"] + ["--:" if right else "---"] * (len(headers) - 1)
    return [f"| {' | '.join(line)} |" for line in (headers, rule, *lines)]


def _md(text: str) -> str:
    """Text that Markdown (CommonMark, with tables) shows as it is."""
    text = re.sub(r"([\\`*_{}\[\]<>|~#&!])", r"\\\1", _plain(text))
    return re.sub(r"^([-+]|\d+[.)])(?=\s|$)", lambda start: start[0][:-1] + "\\" + start[0][-1], text)


def _md_with_code(text: str) -> str:
    """The same, but for what stands between backticks."""
    return "".join(f"`{part}`" if index % 2 else _md_inner(part) for index, part in enumerate(text.split("`")))


def _md_inner(text: str) -> str:
    """Escaped with its outer spaces kept, between two pieces of code."""
    core = _md(text)
    return f"{' ' if text[:1] == ' ' else ''}{core}{' ' if text[-1:] == ' ' and core else ''}"


def _md_cell(cell: Printed) -> str:
    text = _md(cell.text)
    return (f"**{text}**" if cell.best else text) + "".join(f" <sup>{letter}</sup>" for letter in cell.marks)


TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "`": r"\textasciigrave{}", '"': "''", "[": "{[}", "*": "{*}",  # \\ would take a [ or a * after it for its own
    "±": r"$\pm$", "−": r"$-$", "–": "--", "×": r"$\times$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "∞": r"$\infty$",
    "≤": r"$\leq$", "≥": r"$\geq$", "Δ": r"$\Delta$", "Σ": r"$\Sigma$", "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$",
    "δ": r"$\delta$", "ε": r"$\varepsilon$", "θ": r"$\theta$", "λ": r"$\lambda$", "μ": r"$\mu$", "π": r"$\pi$", "ρ": r"$\rho$",
    "≈": r"$\approx$", "σ": r"$\sigma$", "φ": r"$\varphi$",
}  # fmt: skip


def _tex(text: str) -> str:
    """Text that LaTeX prints as it is. Other scripts are left to the engine: XeLaTeX and LuaLaTeX print them."""
    text = "".join(TEX.get(character, character) for character in _plain(text).replace("--", "-\0-"))
    return text.replace("\0", "{}")  # two hyphens, not a dash


def _tex_header(text: str) -> str:
    """A header, its parts one above the other: "pd-efficientnet, synthetic-faces (in place of ...)" would widen its column."""
    parts = [_tex(part) for part in re.split(r"(?<=,) | (?=\()", text)]
    return parts[0] if len(parts) == 1 else r"\shortstack[r]{" + r"\\ ".join(parts) + "}"


def _tex_cell(cell: Printed) -> str:
    marks = "".join(rf"$^{{{letter}}}$" for letter in cell.marks)
    text = _tex(cell.text)
    return (rf"\textbf{{{text}}}" if cell.best else text) + marks
