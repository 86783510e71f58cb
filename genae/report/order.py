"""The order of a table's rows, ours beside the paper's: all that can be compared across unlike data and metrics."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Pair = tuple[str, str]


@dataclass(frozen=True)
class Standing:
    """A row's number in one column, and how far it is known.

    spread: standard deviation over seeds, or the paper's own error bar; None where there is none to go by (one seed).
    """

    value: float
    spread: float | None = None


@dataclass(frozen=True)
class Order:
    """One column's two orders of the rows that have a number on both sides.

    rho: Spearman's rank correlation, ties at their mean rank; None where one side is all ties, or one row is alone.
    swapped: pairs that the paper has in one order and we in the other.
    undecided: pairs no further apart, on one side, than the standard deviation of their difference; ties are among them.
    untested: rows whose own number has no spread (one seed): between two of them only a tie is undecided.
    """

    rows: tuple[str, ...]
    rho: float | None
    swapped: tuple[Pair, ...]
    undecided: tuple[Pair, ...]
    untested: tuple[str, ...]
    our_ranks: Mapping[str, float]
    paper_ranks: Mapping[str, float]


def compare(ours: Mapping[str, Standing], paper: Mapping[str, Standing], direction: str) -> Order | None:
    """The order comparison of one column by row; None with fewer than two rows that both sides have.

    direction: "min" or "max", whichever is better.
    """
    rows = [row for row in paper if row in ours]
    if len(rows) < 2:
        return None
    sign = 1 if direction == "min" else -1
    our_ranks = ranks({row: sign * ours[row].value for row in rows})
    paper_ranks = ranks({row: sign * paper[row].value for row in rows})
    swapped, undecided = [], []
    for one, two in itertools.combinations(rows, 2):
        if _close(ours[one], ours[two]) or _close(paper[one], paper[two]):
            undecided.append((one, two))
        elif (our_ranks[one] < our_ranks[two]) != (paper_ranks[one] < paper_ranks[two]):
            swapped.append((one, two))
    return Order(
        rows=tuple(rows),
        rho=_correlation([our_ranks[row] for row in rows], [paper_ranks[row] for row in rows]),
        swapped=tuple(swapped),
        undecided=tuple(undecided),
        untested=tuple(row for row in rows if ours[row].spread is None),
        our_ranks=our_ranks,
        paper_ranks=paper_ranks,
    )


def ranks(values: Mapping[str, float]) -> dict[str, float]:
    """1 for the smallest; values that tie share the mean of the ranks they take up."""
    ordered = sorted(values.values())
    return {name: ordered.index(value) + (ordered.count(value) + 1) / 2 for name, value in values.items()}


def sentence(order: Order, labels: Mapping[str, str]) -> str:
    """What an order comparison says, in one line: "order: rho = 0.80 over 4 rows; swapped: a / b"."""
    rho = "undefined (ties)" if order.rho is None else f"{order.rho:.2f}".replace("-", "−")
    parts = [f"order: ρ = {rho} over {len(order.rows)} rows"]
    parts.append(f"swapped: {_listed(order.swapped, labels)}" if order.swapped else "no pair swapped")
    if order.undecided:
        parts.append(f"undecided: {_listed(order.undecided, labels)}")
    if order.untested == order.rows:
        parts.append("one seed, so no difference is tested")
    elif order.untested:
        parts.append(f"one seed only: {', '.join(labels[row] for row in order.untested)}")
    return "; ".join(parts)


def _close(one: Standing, two: Standing) -> bool:
    """Whether two numbers are no further apart than the standard deviation of their difference: sqrt(s1^2 + s2^2)."""
    return abs(one.value - two.value) <= math.hypot(one.spread or 0.0, two.spread or 0.0)


def _correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson's correlation, of ranks Spearman's; None where one side does not vary."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    scale = math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))
    return covariance / scale if scale else None


def _listed(pairs: Sequence[Pair], labels: Mapping[str, str], most: int = 6) -> str:
    listed = ", ".join(f"{labels[one]} / {labels[two]}" for one, two in pairs[:most])
    return listed + (f" and {len(pairs) - most} more" if len(pairs) > most else "")
