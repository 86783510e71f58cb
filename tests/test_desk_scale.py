"""Scale `desk` of the automodulator papers: which runs the tables share, and that a laptop can hold them."""

from pathlib import Path

import pytest

from genae.experiment import list_experiments, load, project_root

ROOT = project_root(Path(__file__))
TABLES = [
    "automodulator-2020/table1",
    "automodulator-2020/table2a",
    "automodulator-2020/table2b",
    "automodulator-2020/invariance",
    "automodulator-2020/pioneers",
    "automodulator-2019/table1",
]


def runs(table: str, row: str | None = None, data: str | None = None) -> dict[tuple, str]:
    """The identities of a table's runs at scale desk, by row, data set and seed."""
    found = load(ROOT / "experiments" / f"{table}.yaml", scale="desk").runs
    return {
        (run.row, run.data["name"], run.seed): run.identity
        for run in found
        if row in (None, run.row) and data in (None, run.data["name"])
    }


def test_the_automodulator_of_every_table_is_one_run():
    automodulator = runs("automodulator-2020/table1", "layer-robust")
    for table in ("automodulator-2020/table2a", "automodulator-2020/table2b", "automodulator-2019/table1"):
        for (_, data, seed), identity in runs(table, "automodulator", "synthetic-faces").items():
            assert identity == automodulator["layer-robust", data, seed]
    for (_, data, seed), identity in runs("automodulator-2020/invariance", "regular").items():
        assert identity == automodulator["layer-robust", data, seed]


def test_balanced_pioneer_of_every_table_is_one_run():
    pioneer = runs("automodulator-2020/table2a", "b-pioneer")
    for table in ("automodulator-2020/table2b", "automodulator-2019/table1", "automodulator-2020/pioneers"):
        for key, identity in runs(table, "b-pioneer", "synthetic-faces").items():
            assert identity == pioneer[key]


def test_both_tables_of_generative_models_share_all_their_runs():
    assert set(runs("automodulator-2019/table1").values()) == set(runs("automodulator-2020/table2b").values())


@pytest.mark.parametrize(
    ("tables", "count"),
    [
        (TABLES[:1], 12),  # three rows of the paper and the released code, three seeds
        (TABLES[:2], 12 + 15),  # five rows more
        (TABLES, 12 + 15 + 8 + 2 + 2),  # eight for 2b and 2019, two with L_inv, AGE and PIONEER
    ],
)
def test_each_distinct_run_is_trained_once(tables, count):
    assert len({identity for table in tables for identity in runs(table).values()}) == count


def test_no_figure_trains_a_run_that_no_table_trains():
    of_tables = {identity for table in TABLES for identity in runs(table).values()}
    for name in list_experiments(ROOT):
        if name.startswith("automodulator-") and "/fig" in name:
            assert set(runs(name).values()) <= of_tables, name


def test_a_desk_run_needs_no_download_and_at_most_180_thousand_images_of_16x16():
    for table in TABLES:
        for run in load(ROOT / "experiments" / f"{table}.yaml", scale="desk").runs:
            assert run.data["name"] in ("synthetic-faces", "fashion-mnist")
            assert run.data["resolution"] == 16
            assert run.total_images <= 180_000
            assert run.compute.threads == 1
