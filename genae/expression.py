"""The language of claims: what the expression of a claim says, as values. docs/claims.md explains it by examples.

    claim      = [ ("each" | "most") "data" ":" ] inequality { "and" inequality }
    inequality = side comparison side  |  term "/" term comparison number
    side       = [ number "*" ] term  |  number
    term       = values  |  ( "min" | "max" ) "(" values ")"
    values     = column [ "." detail ] "[" ( row { "," row } | "others" ) "]"
    comparison = "<" | "<=" | ">" | ">="

Ids of columns and rows may contain hyphens, and those of columns one slash, so an operator stands apart from them by spaces.
"""

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from genae.registry import suggestion

Comparison = Literal["<", "<=", ">", ">="]
COMPARISONS = ("<", "<=", ">", ">=")
TOKEN = re.compile(r"\s*(<=|>=|[<>()\[\],:*/]|[-+]?[A-Za-z0-9][^\s<>=()\[\],:*]*|\S)")
NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*(?:/[A-Za-z0-9][A-Za-z0-9-]*)?)(?:\.([A-Za-z0-9_]+(?:[./-][A-Za-z0-9_]+)*))?")
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
ROW = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")


@dataclass(frozen=True)
class Values:
    """The numbers of one column in some rows.

    column: its id; under `each data:` the part before the slash stands for one column per data set.  detail: another number
    of the same records.  rows: empty for `others`.  extreme: the least or greatest of them instead of each.  factor: positive.
    """

    column: str
    detail: str | None
    rows: tuple[str, ...]
    extreme: Literal["min", "max"] | None = None
    factor: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.column}.{self.detail}" if self.detail else self.column


@dataclass(frozen=True)
class Inequality:
    """left comparison right. ratio: it was written `left / right comparison factor`, the factor being the right side's now."""

    left: Values | float
    comparison: Comparison
    right: Values | float
    ratio: bool = False

    @property
    def values(self) -> tuple[Values, ...]:
        return tuple(side for side in (self.left, self.right) if isinstance(side, Values))

    @property
    def named(self) -> frozenset[str]:
        """The rows that it names, which are none of its `others`."""
        return frozenset(row for values in self.values for row in values.rows)


@dataclass(frozen=True)
class Expression:
    """What decides a claim: all the inequalities, on each or on most of the data sets where `over` says so."""

    inequalities: tuple[Inequality, ...]
    over: Literal["each", "most"] | None = None

    @property
    def values(self) -> tuple[Values, ...]:
        return tuple(values for inequality in self.inequalities for values in inequality.values)

    def data_sets(self, columns: Collection[str]) -> list[str]:
        """The short names of data sets for which all its columns are among these; in their order."""
        wanted = {values.column for values in self.values if "/" not in values.column}
        short_names = dict.fromkeys(column.partition("/")[2] for column in columns if "/" in column)
        return [data for data in short_names if all(f"{column}/{data}" in columns for column in wanted)]

    def on(self, data: str) -> "Expression":
        """The expression on one data set: `fid` is `fid/faces` then."""
        return Expression(tuple(_on(inequality, data) for inequality in self.inequalities))


def parse(text: str) -> Expression:
    """The expression that a text says. Raises ValueError with what was expected, and where."""
    return _Parser(text).expression()


def check(expression: Expression, rows: Collection[str], columns: Collection[str] | None) -> None:
    """Refuses rows and columns that the table does not have. columns: those of all its scales; None where not all are known."""
    for row in sorted({row for inequality in expression.inequalities for row in inequality.named}):
        if row not in rows:
            raise ValueError(f"there is no row {row!r}; {suggestion(row, rows)}")
    if columns is None:
        return
    per_data_set = {column.partition("/")[0] for column in columns if "/" in column}
    for values in expression.values:
        known = {*columns, *per_data_set} if expression.over else set(columns)
        if values.column not in known:
            raise ValueError(f"there is no column {values.column!r}; {suggestion(values.column, known)}")
    if expression.over and not expression.data_sets(columns):
        used = sorted({values.column for values in expression.values})
        raise ValueError(
            f"`{expression.over} data:` finds no data set in the columns {', '.join(used)}; known: {_all(sorted(columns))}"
        )


def _on(inequality: Inequality, data: str) -> Inequality:
    def side(given: Values | float) -> Values | float:
        shared = isinstance(given, Values) and "/" not in given.column
        return replace(given, column=f"{given.column}/{data}") if shared else given

    return replace(inequality, left=side(inequality.left), right=side(inequality.right))


class _Parser:
    """Recursive descent: one method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.tokens = TOKEN.findall(text)
        self.at = 0

    def expression(self) -> Expression:
        over = None
        if self.peek() in ("each", "most") and self.peek(1) == "data":
            over = self.take()
            self.take()
            self.expect(":")
        inequalities = [self.inequality()]
        while self.peek() == "and":
            self.take()
            inequalities.append(self.inequality())
        if self.peek():
            raise self.unexpected("`and` or the end")
        return Expression(tuple(inequalities), over)

    def inequality(self) -> Inequality:
        left = self.side()
        divided = self.peek() == "/" and isinstance(left, Values)
        if divided:
            self.take()
            right = self.term()
        if self.peek() not in COMPARISONS:
            raise self.unexpected(f"one of {_all(COMPARISONS)}")
        comparison = self.take()
        if divided:
            right = replace(right, factor=self.positive(self.number()) / left.factor)
            found = Inequality(replace(left, factor=1.0), comparison, right, ratio=True)
        else:
            found = Inequality(left, comparison, self.side())
        if not found.values:
            raise ValueError(f"an inequality is about a column, such as fid[automodulator]; {found.left:g} is a number")
        if not found.named:
            raise ValueError("`others` are the rows that the same inequality does not name, and it names none")
        return found

    def side(self) -> Values | float:
        if not self.is_number():
            return self.term()
        number = self.number()
        if self.peek() != "*":
            return number
        self.take()
        return replace(self.term(), factor=self.positive(number))

    def term(self) -> Values:
        if self.peek() not in ("min", "max") or self.peek(1) != "(":
            return self.values()
        extreme = self.take()
        self.take()
        values = replace(self.values(), extreme=extreme)
        self.expect(")")
        return values

    def values(self) -> Values:
        name = NAME.fullmatch(self.peek())
        if not name:
            raise self.unexpected("a column and its rows, such as fid[automodulator]")
        self.take()
        self.expect("[")
        return Values(name[1], name[2], tuple(self.rows()))

    def rows(self) -> Iterator[str]:
        if self.peek() == "others" and self.peek(1) == "]":
            self.at += 2
            return
        while True:
            if not ROW.fullmatch(self.peek()):
                raise self.unexpected("a row")
            yield self.take()
            if self.peek() != ",":
                break
            self.take()
        self.expect("]")

    def number(self) -> float:
        if not self.is_number():
            raise self.unexpected("a number")
        number = float(self.take())
        if not math.isfinite(number):
            raise ValueError("a number must be finite")
        return number

    def positive(self, number: float) -> float:
        if number <= 0:
            raise ValueError(f"a factor or ratio must be positive, not {number:g}")
        return number

    def is_number(self) -> bool:
        return bool(NUMBER.fullmatch(self.peek())) and self.peek(1) != "["

    def peek(self, ahead: int = 0) -> str:
        """The next token, empty at the end."""
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, token: str) -> None:
        if self.peek() != token:
            raise self.unexpected(f"{token!r}")
        self.take()

    def unexpected(self, wanted: str) -> ValueError:
        found = repr(self.peek()) if self.peek() else "nothing"
        after = f" after {self.tokens[self.at - 1]!r}" if self.at else ""
        return ValueError(f"expected {wanted}{after}, not {found}")


def _all(names: Collection[str]) -> str:
    return ", ".join(names) or "none"
