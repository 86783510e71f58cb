"""The order of a report's rows beside the paper's: ranks, rho, and which pairs are swapped or undecided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from genae import report
from genae.report import grid, text
from genae.report.order import Standing, compare, ranks, sentence


def standings(**values):
    return {row: value if isinstance(value, Standing) else Standing(value) for row, value in values.items()}


def test_two_neighbours_swapped_among_four():
    # d^2 sums to 1 + 1, so rho = 1 - 6 * 2 / (4 * (16 - 1)) = 0.8
    order = compare(standings(a=2.0, b=1.0, c=3.0, d=4.0), standings(a=10.0, b=20.0, c=30.0, d=40.0), "min")
    assert order.rho == pytest.approx(0.8)
    assert order.swapped == (("a", "b"),)
    assert sentence(order, dict(zip("abcd", "ABCD", strict=True))) == (
        "order: ρ = 0.80 over 4 rows; swapped: A / B; one seed, so no difference is tested"
    )


def test_the_best_is_first_in_either_direction():
    order = compare(standings(a=1.0, b=2.0), standings(a=5.0, b=7.0), "max")
    assert (order.our_ranks, order.paper_ranks) == ({"a": 2, "b": 1}, {"a": 2, "b": 1})


def test_ties_share_a_mean_rank():
    assert ranks({"a": 1.0, "b": 3.0, "c": 3.0, "d": 9.0}) == {"a": 1, "b": 2.5, "c": 2.5, "d": 4}


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=9))
def test_rho_is_scipys_with_any_ties(pairs):
    ours, paper = ({str(i): Standing(float(pair[side])) for i, pair in enumerate(pairs)} for side in (0, 1))
    order = compare(ours, paper, "min")
    if len({p[0] for p in pairs}) == 1 or len({p[1] for p in pairs}) == 1:
        assert order.rho is None
    else:
        assert order.rho == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)


@pytest.mark.parametrize(("b", "swapped", "undecided"), [(5.0, (), (("a", "b"),)), (5.01, (("a", "b"),), ())])
def test_a_pair_within_the_spread_over_seeds_is_undecided(b, swapped, undecided):
    # the difference of the two has the standard deviation sqrt(3^2 + 4^2) = 5
    order = compare(standings(a=Standing(0.0, 3.0), b=Standing(b, 4.0)), standings(a=2.0, b=1.0), "min")
    assert (order.swapped, order.undecided, order.untested) == (swapped, undecided, ())


def test_a_pair_within_the_papers_own_error_bars_is_undecided():
    paper = standings(a=Standing(153.28, 1.78), b=Standing(153.71, 0.28))
    assert compare(standings(a=1.0, b=2.0), paper, "max").undecided == (("a", "b"),)


def test_rows_of_one_seed_among_others_are_named():
    order = compare(standings(a=Standing(1.0, 0.1), b=2.0), standings(a=1.0, b=2.0), "min")
    assert sentence(order, {"a": "A", "b": "B"}) == "order: ρ = 1.00 over 2 rows; no pair swapped; one seed only: B"


def test_rows_without_a_number_on_one_side_are_not_ordered():
    assert compare(standings(a=1.0, b=2.0), standings(a=1.0, c=2.0), "min") is None
    assert compare(standings(a=1.0, b=2.0, x=0.0), standings(a=1.0, b=2.0), "min").rows == ("a", "b")


def test_a_report_compares_the_order_of_each_column(experiment, record):
    rows = experiment({"a": {"fid": 1.0}, "b": {"fid": 2.0}, "c": {"fid": 3.0}})
    drawn = report.build(rows, [record("a", 2.0), record("b", 1.0), record("c", 3.0)])
    said = "order: ρ = 0.50 over 3 rows; swapped: a / b; one seed, so no difference is tested"  # 1 - 6 * 2 / (3 * 8)
    assert [words for _, words in grid.orders(drawn)] == [said]
    for page in (text.markdown(drawn), report.page.html(drawn)):
        assert "swapped: a / b" in page
