"""What is drawn from records alone, without a model: loss curves, likelihoods, and the order of rows beside the paper's.

Pictures are SVG with a transparent ground, whose ink follows a reader's light or dark theme. The same numbers give the same
bytes, so that a committed report changes only where a number does.
"""

import io
import itertools
import math
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#0a0b0c"  # stands for the reader's ink while drawing, and is replaced in the SVG
LINES = ("#3f7fd0", "#d9772b", "#2f9e75", "#a05fc0", "#c9a227", "#c4506b")  # of middling lightness: seen on white and on black
DASHES = ("-", (0, (5, 2)), (0, (1, 1)))  # of the first six rows of a plot, the next six, ...
FAINT = "#8b929b"
STYLE = "<style>svg{color:#444b54}@media (prefers-color-scheme: dark){svg{color:#b9c0c8}}</style>"
PANELS_ABREAST = 4
LIKELIHOOD = "/log_prob"  # the end of a term that is a mean log likelihood of held-out data: "validation/log_prob"
BELOW = 0.2  # the share of likelihoods, of the beginnings of training, that may lie below the axis


def loss_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """An SVG with a small panel for each loss term against images seen, and in it a line for each curve (one seed, usually).

    curves: {label: lines of a progress file, or of a thinned one}. Terms differ in scale, so each panel has its own axis,
    linear, over 98 % of the values: a first spike does not flatten the rest. Dotted uprights mark where a phase began.
    """
    terms = list(dict.fromkeys(name for lines in curves.values() for line in lines for name in line.get("terms", {})))
    if not terms:
        raise ValueError("the curves have no loss terms to draw")
    abreast = min(PANELS_ABREAST, len(terms))
    deep = math.ceil(len(terms) / abreast)
    figure = _figure(2.35 * abreast, 1.5 * deep + 0.25 * (len(curves) > 1))
    axes = figure.subplots(deep, abreast, squeeze=False, sharex=True)
    for panel, term in zip(axes.flat, terms, strict=False):
        _draw_term(panel, term, curves)
    for spare in axes.flat[len(terms) :]:
        spare.set_visible(False)
    for panel in axes.flat[max(0, len(terms) - abreast) : len(terms)]:
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("images seen", color=INK, fontsize=7)
    if len(curves) > 1:
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=6, frameon=False, fontsize=7, labelcolor=INK)
    return _svg(figure)


def likelihood_curves(curves: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> bytes | None:
    """An SVG of held-out log likelihood against seconds of training: a colour for each row, a line for each of its seeds.

    curves: {row label: the lines of a progress file, or of a thinned one, for each seed}. None where no line has a likelihood.
    """
    drawn = {label: [points for lines in seeds if (points := _likelihoods(lines))] for label, seeds in curves.items()}
    drawn = {label: seeds for label, seeds in drawn.items() if seeds}
    if not drawn:
        return None
    figure = _figure(7.0, 3.4)
    axes = figure.subplots()
    for index, (label, seeds) in enumerate(drawn.items()):
        style = {"color": LINES[index % len(LINES)], "linestyle": DASHES[index // len(LINES) % len(DASHES)], "linewidth": 1.1}
        for number, points in enumerate(seeds):
            axes.plot(*zip(*points, strict=True), label=label if number == 0 else None, **style)
    heights = sorted(value for seeds in drawn.values() for points in seeds for _, value in points)
    low, high = heights[int(BELOW * (len(heights) - 1))], heights[-1]
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds of training", color=INK, fontsize=7)
    axes.set_ylabel("held-out log likelihood, nats", color=INK, fontsize=7)
    axes.tick_params(colors=INK, labelsize=6.5, length=2, width=0.5)
    _bare(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=7, labelcolor=INK)
    return _svg(figure)


def order_comparison(paper: Mapping[str, float], ours: Mapping[str, float], swapped: Collection[str] = ()) -> bytes:
    """An SVG of ranks, 1 the best at the top: the paper's at the left, ours at the right, a line for each row.

    paper, ours: {row label: rank}, of the same rows; rows that tie share a mean rank. The rows in `swapped` are in colour.
    """
    if paper.keys() != ours.keys():
        raise ValueError(f"ranks of different rows: {', '.join(sorted(paper.keys() ^ ours.keys()))}")
    figure = _figure(4.6, 0.55 + 0.27 * len(paper))
    axes = figure.subplots()
    axes.axis("off")
    axes.set_xlim(-1.15, 2.15)
    axes.set_ylim(max([*paper.values(), *ours.values()]) + 0.5, 0.1)
    for label in paper:
        moved = label in swapped
        ends = [paper[label], ours[label]]
        colour = LINES[1] if moved else FAINT
        axes.plot([0, 1], ends, color=colour, linewidth=1.8 if moved else 1.1, marker="o", markersize=3.5)
    for at, side, ranks, title in ((-0.06, "right", paper, "paper"), (1.06, "left", ours, "ours")):
        axes.text(at, 0.35, title, ha=side, va="center", fontsize=7, color=FAINT)
        shared: dict[float, list[str]] = {}
        for label, rank in ranks.items():
            shared.setdefault(rank, []).append(label)
        for rank, labels in shared.items():
            axes.text(at, rank, ", ".join(labels), ha=side, va="center", fontsize=8, color=INK, parse_math=False)
    return _svg(figure)


def _draw_term(panel: "Axes", term: str, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    heights: list[float] = []
    starts: set[int] = set()
    for colour, (label, lines) in zip(_colours(len(curves)), curves.items(), strict=True):
        points = [(line["images_seen"], line.get("terms", {}).get(term)) for line in lines]
        points = [(seen, value) for seen, value in points if value is not None and math.isfinite(value)]
        panel.plot(*zip(*points, strict=True) if points else ([], []), color=colour, linewidth=1.1, label=label)
        heights += [value for _, value in points]
        pairs = itertools.pairwise(lines)
        starts |= {line["images_seen"] for before, line in pairs if before.get("phase") != line.get("phase")}
    for start in starts:
        panel.axvline(start, color=FAINT, linewidth=0.6, linestyle=(0, (1, 3)))
    if heights:
        heights.sort()
        low, high = heights[int(0.01 * (len(heights) - 1))], heights[math.ceil(0.99 * (len(heights) - 1))]
        margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        panel.set_ylim(low - margin, high + margin)
    panel.set_title(term, loc="left", color=INK, fontsize=8, parse_math=False)
    panel.tick_params(colors=INK, labelsize=6.5, length=2, width=0.5)
    panel.locator_params(axis="y", nbins=3)
    panel.locator_params(axis="x", nbins=4)
    panel.xaxis.set_major_formatter(_thousands)
    _bare(panel)


def _likelihoods(lines: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(seconds of training, log likelihood) of the lines that have one. Where a run was resumed, its clock begins anew."""
    points = []
    before = latest = 0.0
    for line in lines:
        seconds = line.get("seconds")
        if seconds is None:
            continue
        before, latest = (before + latest if seconds < latest else before), seconds
        for name, value in line.get("terms", {}).items():
            if name.endswith(LIKELIHOOD) and value is not None and math.isfinite(value):
                points.append((before + seconds, value))
    return points


def _bare(panel: "Axes") -> None:
    """The axes at the left and below alone, faint."""
    for name, spine in panel.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set(color=FAINT, linewidth=0.6)


def _colours(count: int) -> list[str]:
    return [LINES[index % len(LINES)] for index in range(count)]


def _thousands(value: float, position: int | None = None) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _figure(width: float, height: float) -> "Figure":
    """A figure in inches, apart from pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: "Figure") -> bytes:
    import matplotlib as mpl

    out = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": "genae"}  # text stays text; ids repeat
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a reader's own fonts will have it
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue().replace(INK, "currentColor").replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans'")
    svg = re.sub(
        r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg
    )  # hundredths of a point: half the size
    head, tag, rest = svg.partition("<defs>")
    return (head + STYLE + tag + rest).encode()
