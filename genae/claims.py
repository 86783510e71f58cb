"""What a paper says of its table, decided: each claim holds, fails, or is undecided. docs/claims.md says by which rules.

Two verdicts stand side by side and are never mixed: by our numbers at one scale, and by the numbers that the paper itself
prints. Logic has three values (Kleene): `each` is the least and `any` the greatest of fails < undecided < holds.
"""

import math
import operator
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from genae.expression import Expression, Inequality, Values, parse
from genae.registry import suggestion
from genae.spec import Claim, Experiment

Record = Mapping[str, Any]
Outcome = Literal["fails", "undecided", "holds"]
OUTCOMES: tuple[Outcome, ...] = ("fails", "undecided", "holds")
SIGNS = {"<": ("<", "≥"), "<=": ("≤", ">"), ">": (">", "≤"), ">=": ("≥", "<")}  # where it holds, and where it fails
HOLDS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
SHOWN = 2  # inequalities in a reason

# Student's t: 95 % of it lies within ± this, by degrees of freedom.
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 12: 2.179,
        15: 2.131, 20: 2.086, 30: 2.042, 60: 2.000, math.inf: 1.960}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """reason: the numbers that decided it, or what is missing, in one line.  one_seed: some of them have no spread to go by."""

    outcome: Outcome
    reason: str
    one_seed: bool = False

    @property
    def words(self) -> str:
        return f"{self.outcome}, one seed" if self.one_seed else self.outcome


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdicts: by our numbers, and by the paper's own."""

    claim: Claim
    ours: Verdict
    paper: Verdict


@dataclass(frozen=True)
class Number:
    """One row's number in one column.

    by_seed: what it is the mean of, {} for a published one.  bar: its published error bar.  run: numbers of one run share
    their seeds' luck, so their differences are taken seed by seed.  asked: the number of seeds that there should be.
    """

    value: float
    by_seed: Mapping[int, float] = field(default_factory=dict)
    bar: float | None = None
    run: tuple[str, str] = ("", "")
    asked: int = 0

    def __str__(self) -> str:
        if not self.by_seed:  # as it was printed
            return _minus(f"{self.value:g}" if self.bar is None else f"{self.value:g} ± {self.bar:g}")
        seeds = len(self.by_seed)
        few = f" (n = {seeds} of {self.asked})" if seeds < self.asked else ""
        if seeds == 1:
            return _digits(self.value, 4) + few
        error = statistics.stdev(self.by_seed.values()) / math.sqrt(seeds)
        return f"{_digits(self.value, 4)} ± {_digits(error, 2)}{few}"


@dataclass(frozen=True)
class Missing:
    """Why there is no number. what: "fid of layer".  why: "not measured yet"."""

    what: str
    why: str


class Source(Protocol):
    """Where numbers come from. columns: those that it has any of."""

    columns: Sequence[str]
    place: str  # "at scale desk", "in the paper"

    def number(self, values: Values, row: str) -> Number | Missing:
        """A number, or why there is none."""

    def others(self, values: Values, named: frozenset[str]) -> list[str]:
        """The rows that `others` means beside those that are named."""


def judge(experiment: Experiment, records: Iterable[Record]) -> tuple[Judgement, ...]:
    """Every claim of an experiment with its verdicts. records: those that its table shows, one per column, row and seed."""
    ours, paper = Records(experiment, list(records)), Published(experiment)
    return tuple(
        Judgement(claim, verdict(parse(claim.expression), ours), verdict(parse(claim.expression), paper))
        for claim in experiment.claims
    )


def verdict(expression: Expression, source: Source) -> Verdict:
    """What an expression comes to by one source of numbers."""
    if not expression.over:
        return _worded(_each(_decided(inequality, source) for inequality in expression.inequalities))
    found = expression.data_sets(source.columns)
    if not found:
        columns = " and ".join(dict.fromkeys(values.column for values in expression.values))
        return Verdict("undecided", f"no data set has {columns} {source.place}")
    by_data = [_each(_decided(inequality, source) for inequality in expression.on(data).inequalities) for data in found]
    if expression.over == "each":
        return _worded(_each(by_data))
    said = _worded(_most(by_data))
    count = [one.outcome for one in by_data].count("holds")
    return replace(said, reason=f"on {count} of {len(found)} data set{'s' if len(found) > 1 else ''}; {said.reason}")


def t_95(degrees: float) -> float:
    """Student's t for a 95 % interval; between the tabled degrees of freedom interpolated, never too small."""
    return float(np.interp(1 / degrees, [1 / tabled for tabled in reversed(T_95)], list(reversed(T_95.values()))))


def margin(terms: Sequence[tuple[float, Number]]) -> float:
    """How far a weighted sum of numbers must lie from zero to be told from it.

    Of ours: half of Welch's 95 % interval, t sqrt(v), with v the summed variances of the means of independent runs, and its
    degrees of freedom after Welch and Satterthwaite, v^2 / sum(v_i^2 / (n_i - 1)). Runs of one seed add nothing to it.
    Of published numbers: their error bars, as a root of summed squares.
    """
    by_run: dict[tuple[str, str], dict[int, float]] = {}
    for weight, number in terms:
        moved = by_run.setdefault(number.run, {})
        for seed, value in number.by_seed.items():
            moved[seed] = moved.get(seed, 0.0) + weight * (value - number.value)
    known = [list(moved.values()) for moved in by_run.values() if len(moved) > 1]
    parts = [(sum(m * m for m in moved) / (len(moved) - 1) / len(moved), len(moved) - 1) for moved in known]
    variance = sum(part for part, _ in parts)
    bars = math.hypot(*(weight * number.bar for weight, number in terms if number.bar is not None))
    if not variance:
        return bars
    shares = sum((part / variance) ** 2 / degrees for part, degrees in parts)
    return math.hypot(t_95(1 / shares) * math.sqrt(variance), bars)


# Where numbers come from.


class Records:
    """Our own numbers: the records that a table shows."""

    def __init__(self, experiment: Experiment, records: Sequence[Record]) -> None:
        self.experiment = experiment
        self.records = {(record["column"], record["row"], record["seed"]): record for record in records}
        self.columns = [column.id for column in experiment.columns.values() if not column.removed]
        self.place = f"at scale {experiment.scale}"

    def number(self, values: Values, row: str) -> Number | Missing:
        """The mean over seeds."""
        if values.column not in self.columns:
            return Missing(f"column {values.column}", f"not measured {self.place}")
        runs = [run for run in self.experiment.runs if run.row == row]
        if not runs:
            return Missing(f"row {row}", f"not run {self.place}")
        runs = [run for run in runs if values.column in {column.id for column in run.columns}]
        records = [self.records[place] for run in runs if (place := (values.column, row, run.seed)) in self.records]
        if not records:
            return Missing(f"{values.column} of {row}", "not measured yet" if runs else f"not measured {self.place}")
        valued = [record for record in records if record["value"] is not None]
        if not valued:
            return Missing(f"{values.column} of {row}", records[0]["status"])
        numbers = {record["seed"]: self._of(record, values) for record in valued}
        by_seed = {seed: number for seed, number in numbers.items() if number is not None}
        if not by_seed:
            return Missing(f"{values.name} of {row}", self._no_detail(values))
        return Number(statistics.fmean(by_seed.values()), by_seed, run=(row, runs[0].data_name), asked=len(runs))

    def _no_detail(self, values: Values) -> str:
        """Why a row has no such detail: a score may have it for some rows alone, as a factor that only they carry."""
        records = [record for (column, _, _), record in self.records.items() if column == values.column]
        known = {name for record in records for name, value in record["details"].items() if _is_number(value)}
        if values.detail in known:
            return "no such detail in any seed, but in other rows"
        return f"no such detail ({suggestion(values.detail or '', known)})"

    def others(self, values: Values, named: frozenset[str]) -> list[str]:
        """The paper's rows in this column; where it prints none, all that measure it and for which it is defined."""
        printed = _printed(self.experiment, values.column)
        measured = {run.row for run in self.experiment.runs if values.column in {column.id for column in run.columns}}
        undefined = {record["row"] for record in self.records.values() if _is_undefined(record, values.column)}
        return sorted((printed or measured - undefined) - named)

    def _of(self, record: Record, values: Values) -> float | None:
        value = record["details"].get(values.detail) if values.detail else record["value"]
        return value if _is_number(value) else None


class Published:
    """The numbers that the paper prints."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.columns = [column for column in experiment.columns if _printed(experiment, column)]
        self.place = "in the paper"

    def number(self, values: Values, row: str) -> Number | Missing:
        """A number as printed, with its error bar."""
        spec = self.experiment.rows[row]
        if values.detail or values.column not in self.columns:
            return Missing(values.column, "not in the paper's table")
        if values.column not in spec.published:
            return Missing(f"{values.column} of {row}", "not in the paper's table")
        return Number(spec.published[values.column], bar=spec.plus_minus.get(values.column))

    def others(self, values: Values, named: frozenset[str]) -> list[str]:
        """The rows with a number in this column."""
        return sorted((_printed(self.experiment, values.column) or set(self.experiment.rows)) - named)


def _printed(experiment: Experiment, column: str) -> set[str]:
    return {row.id for row in experiment.rows.values() if column in row.published}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_undefined(record: Record, column: str) -> bool:
    return record["column"] == column and record["status"].startswith("not defined")


# Deciding.


@dataclass(frozen=True)
class _Leaf:
    """One inequality between two numbers. distance: how far apart they are, by their size.  missing: what is not there."""

    outcome: Outcome
    said: str = ""
    distance: float = 0.0
    missing: tuple[Missing, ...] = ()
    one_seed: bool = False


@dataclass(frozen=True)
class _Found:
    """An outcome, and the inequalities that led to it, with those first that a reader should see first."""

    outcome: Outcome
    leaves: tuple[_Leaf, ...]


def _each(parts: Iterable[_Found]) -> _Found:
    """All of them: the least outcome."""
    return _combined(list(parts), min)


def _any(parts: Iterable[_Found]) -> _Found:
    """At least one of them: the greatest outcome, shown by the one inequality that is nearest to deciding otherwise."""
    found = _combined(list(parts), max)
    return replace(found, leaves=found.leaves[:1]) if found.outcome != "undecided" else found


def _combined(parts: Sequence[_Found], extreme: Callable[..., Outcome]) -> _Found:
    outcome = extreme((part.outcome for part in parts), key=OUTCOMES.index)
    clearest_first = outcome == {max: "holds", min: "fails"}[extreme]  # one would do; where all must agree, the closest call
    leaves = [leaf for part in parts if part.outcome == outcome for leaf in part.leaves]
    leaves.sort(key=lambda leaf: (-leaf.distance if clearest_first else leaf.distance, leaf.said))
    return _Found(outcome, tuple(leaves))


def _most(parts: Sequence[_Found]) -> _Found:
    """More than half of them hold, whatever comes of the undecided ones; or they cannot."""
    outcomes = [part.outcome for part in parts]
    if 2 * outcomes.count("holds") > len(outcomes):
        outcome = "holds"
    else:
        outcome = "fails" if 2 * outcomes.count("fails") >= len(outcomes) else "undecided"
    return _Found(outcome, tuple(leaf for part in parts if part.outcome == outcome for leaf in part.leaves))


def _worded(found: _Found) -> Verdict:
    """A verdict with its reason: what is missing, by its cause, and the inequalities."""
    missing: dict[str, dict[str, None]] = {}
    for gap in (gap for leaf in found.leaves for gap in leaf.missing):
        missing.setdefault(gap.why, {})[gap.what] = None
    said = [f"{why}: {_some(sorted(what), 2 * SHOWN, ', ')}" for why, what in sorted(missing.items())]
    inequalities = list(dict.fromkeys(leaf.said for leaf in found.leaves if leaf.said))
    said += [_some(inequalities, SHOWN, "; ")] if inequalities else []
    return Verdict(found.outcome, "; ".join(said), any(leaf.one_seed for leaf in found.leaves))


def _some(names: Sequence[str], most: int, between: str) -> str:
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return between.join([*names[:most], *more])


def _decided(inequality: Inequality, source: Source) -> _Found:
    """Each number of the left against each of the right; against any, where the least or greatest may be any of them."""
    left, right = (_numbers(side, inequality.named, source) for side in (inequality.left, inequality.right))
    if not left or not right:
        return _leaf(_Leaf("undecided", f"there are no other rows {source.place}"))
    less = inequality.comparison in ("<", "<=")
    of_left = _any if _extreme(inequality.left) == ("min" if less else "max") else _each  # the least is less: some number is
    of_right = _any if _extreme(inequality.right) == ("max" if less else "min") else _each
    table = [[_compared(inequality, one, two) for two in right] for one in left]
    if of_left is _any:  # `each` stands outside
        return of_right(of_left(column) for column in zip(*table, strict=True))
    return of_left(of_right(line) for line in table)


def _extreme(side: Values | float) -> str | None:
    return side.extreme if isinstance(side, Values) else None


def _numbers(side: Values | float, named: frozenset[str], source: Source) -> list[tuple[str, Number | Missing]]:
    """(row, its number, or why there is none) for each row of a side; a plain number has no row."""
    if not isinstance(side, Values):
        return [("", Number(side))]
    return [(row, source.number(side, row)) for row in side.rows or source.others(side, named)]


def _compared(inequality: Inequality, left: tuple[str, Number | Missing], right: tuple[str, Number | Missing]) -> _Found:
    """One number against another: told apart where they differ by more than `margin`, and where nothing is known of it."""
    (_, one), (_, two) = left, right
    missing = tuple(number for number in (one, two) if isinstance(number, Missing))
    if missing:
        return _leaf(_Leaf("undecided", missing=missing))
    if inequality.ratio and two.value <= 0:
        return _leaf(_Leaf("undecided", f"{inequality.right.name} of row {right[0]} is {two}, so there is no ratio"))
    factors = [side.factor if isinstance(side, Values) else 1.0 for side in (inequality.left, inequality.right)]
    a, b = factors[0] * one.value, factors[1] * two.value
    unclear = margin([(factors[0], one), (-factors[1], two)])
    if unclear and abs(a - b) <= unclear:
        outcome, sign = "undecided", "≈"
    elif HOLDS[inequality.comparison](a, b):
        outcome, sign = "holds", SIGNS[inequality.comparison][0]
    else:
        outcome, sign = "fails", SIGNS[inequality.comparison][1]
    size = abs(a) + abs(b)
    alone = len(one.by_seed) == 1 or len(two.by_seed) == 1
    return _leaf(_Leaf(outcome, _said(inequality, left, sign, right), abs(a - b) / size if size else 0.0, one_seed=alone))


def _leaf(leaf: _Leaf) -> _Found:
    return _Found(leaf.outcome, (leaf,))


def _said(inequality: Inequality, left: tuple[str, Number], sign: str, right: tuple[str, Number]) -> str:
    """An inequality in numbers: "fid of layer 51.31 > architecture 45.25"."""
    sides, told = [], ""
    for side, (row, number) in ((inequality.left, left), (inequality.right, right)):
        said = str(number)
        if isinstance(side, Values):
            said = f"{row} {said}" if side.name == told else f"{side.name} of {row} {said}"  # a column is named once
            said = f"{side.factor:g} × {said}" if side.factor != 1 and not inequality.ratio else said
            told = side.name
        sides.append(said)
    if inequality.ratio:
        ratio = _digits(left[1].value / right[1].value, 3)
        return f"{sides[0]} / {sides[1]} = {ratio} {sign} {inequality.right.factor:g}"
    return f"{sides[0]} {sign} {sides[1]}"


def _digits(value: float, digits: int) -> str:
    """A number to so many digits, though whole ones keep all of theirs; with a true minus sign."""
    if value and not 1e-4 <= abs(value) < 1e7:
        return _minus(f"{value:.{digits - 1}e}")
    places = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return _minus(f"{value:.{places}f}")


def _minus(text: str) -> str:
    return text.replace("-", "−")
