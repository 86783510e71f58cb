"""Reports: what stands in a cell, what is said about it, and that every format shows a label as it is."""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image, PngImagePlugin
from rich.console import Console
from scipy.stats import spearmanr

from genae import report, results
from genae.report import beside, grid, text
from genae.report.order import Standing, compare, ranks, sentence
from genae.spec import Claim, Column, Compute, Experiment, RowSpec, RunSpec, StageSpec

FID = Column(id="fid", metric={"name": "fid", "num_generated": 2000})
SSIM = Column(id="ssim", metric={"name": "ssim"}, direction="max")
STAND_IN = Column(id="lpips", metric={"name": "pd-efficientnet"}, in_place_of="lpips, celeba-hq")


def experiment(rows, columns=(FID,), seeds=(0,), scale="desk", plus_minus=None, note=None, claims=()):
    """rows: {id: {column id: published number}}, or {id: (label, {...})}."""
    rows = {row: given if isinstance(given, tuple) else (row, given) for row, given in rows.items()}
    plus_minus = plus_minus or {}
    root = Path("/project")
    runs = [
        RunSpec(
            table="paper/table1",
            row=row,
            scale=scale,
            data_name="faces",
            data={"name": "synthetic-faces", "resolution": 16},
            flip=False,
            seed=seed,
            model={"name": "vae"},
            stages=(),
            columns=tuple(columns),
            figures=(),
            compute=Compute(),
            imports=(),
            root=root,
            identity=f"{row}-{seed}",
        )
        for row in rows
        for seed in seeds
    ]
    return Experiment(
        path=root / "experiments" / "paper" / "table1.yaml",
        root=root,
        table="paper/table1",
        title=None,
        source="Someone (2020), Table 1",
        caption=None,
        scale=scale,
        imports=(),
        rows={
            row: RowSpec(id=row, label=label, published=published, plus_minus=plus_minus.get(row, {}), note=note)
            for row, (label, published) in rows.items()
        },
        columns={column.id: column for column in columns},
        seeds=tuple(seeds),
        claims=tuple(claims),
        runs=tuple(runs),
    )


def record(row, value, column=FID, seed=0, **changes):
    return {
        "table": "paper/table1",
        "row": row,
        "data_name": "faces",
        "scale": "desk",
        "column": column.id,
        "metric": column.metric["name"],
        "label": column.metric["name"],
        "direction": column.direction,
        "value": value,
        "status": "ok",
        "details": {},
        "protocol": {"num_generated": 2000},
        "settings": {"metric": column.metric, "measure_on": column.measure_on},
        "identity": f"{row}-{seed}",
        "checkpoint": "c" * 64,
        "images_seen": 120_000,
        "data": {"train": "a", "test": "b"},
        "seed": seed,
        "commit": "0123456789abcdef",
        "dirty": None,
        "device": "cpu",
        "threads": 1,
        "seconds": 1.0,
        "time": 1.0e9,
    } | changes


def printed(drawn):
    """The table as text: {row label: [cell, ...]} with the letters of footnotes in brackets."""
    table = grid.grid(drawn)
    return {line[0].text: ["".join([cell.text, *(f"[{m}]" for m in cell.marks)]) for cell in line[1:]] for line in table.lines}


# Numbers


def test_a_cell_is_the_mean_and_the_standard_deviation_over_seeds():
    # mean of 1, 2, 3 is 2; with n - 1 the variance is (1 + 0 + 1) / 2 = 1
    drawn = report.build(experiment({"vae": {}}, seeds=(0, 1, 2)), [record("vae", seed + 1.0, seed=seed) for seed in range(3)])
    assert (drawn.cells["vae", "fid"].mean, drawn.cells["vae", "fid"].std) == (2.0, 1.0)
    assert printed(drawn) == {"vae": ["2.000 ± 1.000"]}
    assert "n = 3 seeds" in grid.caption(drawn)[0]


def test_one_seed_has_no_spread_and_the_caption_says_n_is_one():
    drawn = report.build(experiment({"vae": {}}), [record("vae", 2.0)])
    assert printed(drawn) == {"vae": ["2.000"]}
    assert "n = 1" in grid.caption(drawn)[0]
    assert "±" not in text.markdown(drawn)


@pytest.mark.parametrize(
    ("largest", "decimals"), [(206.3, 1), (45.25, 2), (5.0, 3), (0.267, 4), (1e-12, 15), (0.0, 2), (12345.0, 0)]
)
def test_numbers_are_printed_with_four_digits_of_the_largest(largest, decimals):
    drawn = report.build(experiment({"a": {}, "b": {}}), [record("a", largest), record("b", 0.0)])
    assert drawn.measures[0].decimals == decimals


@pytest.mark.parametrize(("column", "best"), [(FID, "a"), (SSIM, "b")])
def test_the_best_of_ours_is_marked_whatever_the_paper_has(column, best):
    drawn = report.build(
        experiment({"a": {column.id: 9.0}, "b": {column.id: 0.0}}, [column]),
        [record("a", 1.0, column), record("b", 2.0, column)],
    )
    assert [row for row in "ab" if drawn.cells[row, column.id].best] == [best]


def test_means_that_print_alike_are_both_best_and_a_number_alone_is_not():
    rows = experiment({"a": {}, "b": {}, "c": {}})
    drawn = report.build(rows, [record("a", 10.0), record("b", 10.001), record("c", 10.02)])
    assert [drawn.cells[row, "fid"].best for row in "abc"] == [True, True, False]
    assert not report.build(rows, [record("a", 10.0)]).cells["a", "fid"].best


def test_likelihoods_of_codes_have_a_best_for_each_autoencoder():
    column = Column(id="nats", metric={"name": "code-log-likelihood"}, direction="max", of_one_autoencoder=True)
    rows = experiment({row: {} for row in ["ae-gaussian", "ae-lde", "vae-gaussian", "vae-lde", "wae-lde"]}, [column])
    stage = {"name": "autoencoder", "objective": {}, "schedule": None, "optimizer": {}, "average": None}
    runs = [replace(run, stages=(StageSpec(identity=run.row.split("-")[0], **stage),)) for run in rows.runs]
    nats = {"ae-gaussian": 5.0, "ae-lde": 6.0, "vae-gaussian": 90.0, "vae-lde": 80.0, "wae-lde": 70.0}
    drawn = report.build(replace(rows, runs=tuple(runs)), [record(row, value, column) for row, value in nats.items()])
    assert [row for row in nats if drawn.cells[row, "nats"].best] == ["ae-lde", "vae-gaussian"]  # wae-lde is alone
    assert any("best of each autoencoder" in sentence for sentence in grid.caption(drawn))


def test_very_small_and_very_large_numbers_are_printed_in_powers_of_ten():
    assert grid.number(1.5e-12, 15) == "1.500e−12"
    assert grid.number(-12_345_678.0, 0) == "−1.235e+07"
    assert grid.number(2.0, 2, signed=True) == "+2.00"


def test_the_numbers_of_each_seed_are_kept_beside_their_mean():
    drawn = report.build(experiment({"vae": {}}, seeds=(0, 1)), [record("vae", 0.1), record("vae", 0.3, seed=1)])
    assert next(csv.DictReader(io.StringIO(text.csv(drawn))))["values"] == "0.1 0.3"
    assert 'title="each seed: 0.1000, 0.3000"' in report.page.html(drawn)


# Ours beside the paper's


def test_at_scale_paper_stand_ours_the_papers_and_the_difference():
    drawn = report.build(experiment({"vae": {"fid": 45.25}, "gan": {}}, scale="paper"), [record("vae", 47.0, scale="paper")])
    assert printed(drawn)["vae"] == ["47.00", "45.25", "+1.75"]
    assert printed(drawn)["gan"][1:] == ["–", "–"]
    assert next(csv.DictReader(io.StringIO(text.csv(drawn))))["difference"] == "1.75"


def test_at_any_other_scale_nothing_is_subtracted_and_the_blocks_stand_side_by_side():
    drawn = report.build(experiment({"vae": {"fid": 45.25}}), [record("vae", 47.0)])
    table = grid.grid(drawn)
    assert table.groups == [("", 1), ("ours", 1), ("paper", 1)]
    assert printed(drawn) == {"vae": ["47.00", "45.25"]}
    for words in (text.markdown(drawn), text.latex(drawn), report.page.html(drawn)):
        assert "1.75" not in words
        assert "never subtracted" in words
    assert next(csv.DictReader(io.StringIO(text.csv(drawn))))["difference"] == ""


def test_the_papers_error_bars_stand_beside_its_numbers():
    drawn = report.build(experiment({"vae": {"fid": 153.28}}, plus_minus={"vae": {"fid": 1.78}}), [record("vae", 1.0)])
    assert printed(drawn)["vae"][1] == "153.28 ± 1.78"


def test_a_changed_column_says_what_it_stands_in_place_of():
    drawn = report.build(experiment({"vae": {"lpips": 0.1}}, [STAND_IN]), [record("vae", 0.2, STAND_IN)])
    assert drawn.measures[0].header == "pd-efficientnet, synthetic-faces (in place of lpips, celeba-hq)"
    assert grid.grid(drawn).headers == ["", f"{drawn.measures[0].header} ↓", "lpips ↓"]


def test_a_column_at_another_size_says_both_sizes():
    smaller = Column(id="fid", metric={"name": "fid"}, in_place_of="128x128")
    drawn = report.build(experiment({"vae": {"fid": 1.0}}, [smaller]), [record("vae", 2.0, smaller)])
    assert drawn.measures[0].header == "fid, synthetic-faces at 16x16 (in place of 128x128)"


def test_a_removed_column_keeps_the_papers_numbers_and_says_so():
    removed = Column(id="ppl", metric={"name": "ppl"}, removed=True)
    drawn = report.build(experiment({"vae": {"fid": 1.0, "ppl": 83.52}}, [FID, removed]), [record("vae", 2.0)])
    assert printed(drawn) == {"vae": ["2.000", "1", "83.52"]}
    assert "Not measured at scale desk, the paper's numbers kept: ppl." in grid.caption(drawn)


def test_without_published_numbers_there_are_only_ours():
    drawn = report.build(experiment({"vae": {}}), [record("vae", 2.0)])
    assert grid.grid(drawn).headers == ["", "fid ↓"]
    assert "paper" not in " ".join(grid.caption(drawn))


# What stands where there is no number


def test_absent_numbers_are_spelled_out():
    weights = "needs weights: genae weights fetch inception-2015"
    drawn = report.build(
        experiment({"none": {}, "undefined": {}, "weights": {}, "failed": {}}),
        [
            record("undefined", None, status="not defined"),
            record("weights", None, status=weights),
            record("failed", None, status="failed: the value is nan"),
        ],
    )
    assert printed(drawn) == {
        "none": ["missing[a]"],
        "undefined": ["not defined"],
        "weights": ["needs weights[b]"],
        "failed": ["failed[c]"],
    }
    assert grid.grid(drawn).footnotes == {
        "a": "not measured yet; `genae run experiments/paper/table1.yaml --scale desk` does it",
        "b": weights,
        "c": "failed: the value is nan",
    }


def test_a_mean_of_fewer_seeds_says_which_are_absent():
    drawn = report.build(experiment({"vae": {}}, seeds=(0, 1, 2)), [record("vae", 1.0), record("vae", 3.0, seed=2)])
    assert printed(drawn) == {"vae": ["2.000 ± 1.414[a]"]}  # sqrt((1 + 1) / 1)
    assert grid.grid(drawn).footnotes == {"a": "n = 2 of 3; seed 1 missing"}


def test_a_row_of_published_numbers_alone_is_not_missing():
    asked = experiment({"vae": {"fid": 1.0}, "gan": {"fid": 2.0}})
    asked = replace(asked, runs=tuple(run for run in asked.runs if run.row == "vae"))
    assert printed(report.build(asked, [record("vae", 1.0)]))["gan"] == ["–", "2"]


# Which records count


def test_records_of_older_settings_are_left_out_and_counted():
    drawn = report.build(
        experiment({"vae": {}}),
        [
            record("vae", 1.0),
            record("vae", 9.0, identity="before"),
            record("vae", 9.0, settings={"metric": {"name": "fid", "num_generated": 50}, "measure_on": None}, time=2e9),
            record("vae", 9.0, identity="elsewhere", scale="paper"),  # another scale: neither shown nor told
        ],
    )
    assert printed(drawn) == {"vae": ["1.000"]}
    assert drawn.notes == ("Left out: 2 records of other settings than the experiment file's.",)


def test_of_two_checkpoints_the_later_is_shown_and_it_is_said():
    drawn = report.build(experiment({"vae": {}}), [record("vae", 1.0), record("vae", 2.0, checkpoint="d" * 64, time=2e9)])
    assert printed(drawn) == {"vae": ["2.000"]}
    assert drawn.notes == ("vae, seed 0: measured again, of another checkpoint; the latest number is shown.",)


def test_columns_of_different_checkpoints_are_told():
    drawn = report.build(
        experiment({"vae": {}}, [FID, SSIM]), [record("vae", 1.0), record("vae", 2.0, SSIM, checkpoint="d" * 64)]
    )
    assert drawn.notes == ("vae, seed 0: its columns are of different checkpoints.",)


def test_pictures_stand_in_the_order_of_the_experiment(tmp_path):
    asked = experiment({"vae": {}})
    run = replace(asked.runs[0], figures=({"name": "samples"}, {"name": "mixing"}))
    for name in ("a-third", "mixing", "samples"):
        picture(tmp_path / "vae-faces-s0" / f"{name}.png")
    drawn = report.build(replace(asked, runs=(run,)), [record("vae", 1.0)], tmp_path)
    assert [shown.name for shown in drawn.pictures] == ["samples", "mixing", "a-third"]


def test_unlike_protocols_in_one_column_are_refused_by_name():
    unlike = {"num_generated": 5000, "reference": {"split": "train"}}
    with pytest.raises(ValueError, match="column 'fid' has numbers of unlike protocols") as refused:
        report.build(experiment({"a": {}, "b": {}}), [record("a", 1.0), record("b", 2.0, protocol=unlike)])
    assert "num_generated: 2000 (a s0); 5000 (b s0)" in str(refused.value)
    assert 'reference.split: absent (a s0); "train" (b s0)' in str(refused.value)


def test_the_protocol_of_what_was_not_measured_does_not_matter():
    rows = experiment({"a": {}, "b": {}})
    drawn = report.build(rows, [record("a", 1.0), record("b", None, status="not defined", protocol={})])
    assert drawn.measures[0].protocol == {"num_generated": 2000}


def test_rows_that_saw_other_data_are_told():
    drawn = report.build(experiment({"a": {}, "b": {}}), [record("a", 1.0), record("b", 1.0, data={"train": "x", "test": "b"})])
    assert drawn.notes == ("The rows did not all see the same version of faces.",)


# What a score is read beside


def test_a_score_stands_beside_chance_the_ceiling_and_an_untrained_decoder():
    mixing = Column(id="mixing", metric={"name": "factor-mixing"}, direction="max")
    of_seed = [
        {"chance": 0.4, "ceiling": 0.9, "untrained": 0.5, "carried": "hair_style, skin_tone", "not_carried": "azimuth"},
        {"chance": 0.5, "ceiling": 1.0, "untrained": 0.5, "carried": "azimuth, hair_style, skin_tone", "not_carried": "none"},
    ]
    records = [record("layer", 0.7 + 0.1 * seed, mixing, seed, details=of_seed[seed]) for seed in (0, 1)]
    records += [record("layer", 30.0, FID, seed) for seed in (0, 1)]
    drawn = report.build(experiment({"layer": ("Loss L_j", {})}, [FID, mixing], seeds=(0, 1)), records)
    carried, lost = "hair style, skin tone, azimuth (1 of 2 seeds)", "azimuth (1 of 2 seeds)"
    assert beside.beside(drawn) == [("factor-mixing: Loss L_j", "0.750", "0.450", "0.950", "0.500", carried, lost)]
    assert "| factor-mixing: Loss L\\_j | 0.750 | 0.450 | 0.950 | 0.500 |" in text.markdown(drawn)
    assert "<h2>Beside the scores</h2>" in report.page.html(drawn)


def test_columns_without_such_details_have_no_line():
    drawn = report.build(experiment({"vae": {}}), [record("vae", 2.0)])
    assert beside.beside(drawn) == []
    assert "Beside the scores" not in text.markdown(drawn) + report.page.html(drawn)


def test_a_column_says_its_floor_and_which_rows_are_not_better():
    likelihood = Column(id="log-likelihood", metric={"name": "log-likelihood"}, direction="max")
    records = [record("lde", 150.0 + seed, likelihood, seed, details={"floor": 137.0}) for seed in (0, 1)]
    records += [record("made", 130.0 + seed, likelihood, seed, details={"floor": 137.0}) for seed in (0, 1)]
    drawn = report.build(experiment({"lde": ("LDE", {}), "made": ("MADE", {})}, [likelihood], seeds=(0, 1)), records)
    assert "log-likelihood: the floor is 137.0; not better than theirs: MADE." in drawn.notes
    alone = report.build(experiment({"lde": ("LDE", {})}, [likelihood], seeds=(0, 1)), records[:2])
    assert "log-likelihood: the floor is 137.0; every row is better." in alone.notes


def test_a_table_of_log_likelihoods_shows_them_against_seconds(tmp_path):
    likelihood = Column(id="log-likelihood", metric={"name": "log-likelihood"}, direction="max")
    folder = tmp_path / "lde-faces-s0"
    folder.mkdir()
    lines = [{"images_seen": 10 * step, "seconds": step, "terms": {"validation/log_prob": 1.0 * step}} for step in (1, 2, 3)]
    (folder / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = experiment({"lde": ("LDE", {})}, [likelihood])
    drawn = report.build(asked, [record("lde", 150.0, likelihood)], tmp_path)
    assert b"seconds of training" in drawn.likelihoods
    assert "Held-out log likelihood against seconds" in report.page.html(drawn)
    assert "(pictures/likelihoods.svg)" in text.markdown(drawn)
    assert text.picture_files(drawn)["pictures/likelihoods.svg"] == drawn.likelihoods
    other = report.build(experiment({"lde": ("LDE", {})}), [record("lde", 2.0)], tmp_path)
    assert other.likelihoods is None


# The order of rows


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


def test_a_report_compares_the_order_of_each_column():
    rows = experiment({"a": {"fid": 1.0}, "b": {"fid": 2.0}, "c": {"fid": 3.0}})
    drawn = report.build(rows, [record("a", 2.0), record("b", 1.0), record("c", 3.0)])
    said = "order: ρ = 0.50 over 3 rows; swapped: a / b; one seed, so no difference is tested"  # 1 - 6 * 2 / (3 * 8)
    assert [words for _, words in grid.orders(drawn)] == [said]
    for page in (text.markdown(drawn), report.page.html(drawn)):
        assert "swapped: a / b" in page


# Pictures, files and redrawing


def picture(path, **chunks):
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngImagePlugin.PngInfo()
    for name, value in chunks.items():
        info.add_text(name, value)
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(path, pnginfo=info)


@pytest.fixture
def redrawn(tmp_path):
    """A report of two seeds, drawn from what was collected alone."""
    table = results.table_path(tmp_path / "results", "paper/table1")
    for seed in (0, 1):
        run = tmp_path / "runs" / str(seed)
        picture(run / "figures" / "samples.png", checkpoint="c" * 64, caption="Decoded from the prior, <uncurated>.")
        picture(run / "figures" / "old.png", checkpoint="e" * 64)
        progress = [{"images_seen": 100 * i, "phase": 0, "terms": {"kl": 1 / i}, "seconds": 60.0 * i} for i in range(1, 5)]
        (run / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in progress))
        results.collect(table, [record("vae", 1.0 + seed, seed=seed)])
        destination = results.figures_path(tmp_path / "results", "paper/table1", "vae", "faces", seed)
        results.collect_pictures(run / "figures", destination)
    figures = tmp_path / "results" / "paper" / "table1" / "figures"
    return report.build(experiment({"vae": ("V & <E>", {})}, seeds=(0, 1)), results.read(table), figures)


def test_pictures_are_the_first_seeds_and_of_the_checkpoint_that_was_measured(redrawn):
    assert [(p.name, p.seed, p.caption) for p in redrawn.pictures] == [("samples", 0, "Decoded from the prior, <uncurated>.")]
    assert "Left out: 2 pictures of another checkpoint than the numbers'." in redrawn.notes
    assert set(redrawn.curves) == {"vae"}
    assert b"seed 1" in redrawn.curves["vae"]


def test_what_was_run_is_told(redrawn):
    facts = dict(grid.facts(redrawn))
    assert facts["training, all runs"] == "8.0 min"  # two runs of 240 s
    assert facts["images seen per run"] == "120 k"
    assert facts["code"] == "0123456789ab"
    assert grid.provenance(redrawn)[1][:5] == ("V & <E>", "faces", "1", "vae-1", "c" * 12)


class Page(HTMLParser):
    """Cells, links and pictures of a page."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.addresses, self.open = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[name] for name in ("src", "href", "srcset", "data") if name in attributes]
        if tag not in ("img", "meta", "link", "br"):
            self.open.append(tag)
        if tag == "th" and attributes.get("scope") == "row":
            self.rows.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["th"] and self.rows and "tbody" in self.open:
            self.rows[-1] += data


def test_a_report_is_written_whole_and_the_same_again(redrawn, tmp_path):
    folder = tmp_path / "reports" / "table 1"
    report.write(redrawn, folder)
    assert {file.name for file in folder.iterdir()} == {"index.html", "index.md", "table.csv", "table.tex", "pictures"}
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    picture(folder / "pictures" / "of-an-earlier-report.png")
    report.write(redrawn, folder)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_the_page_is_one_file_that_fetches_nothing(redrawn):
    page = report.page.html(redrawn)
    parsed = Page(page)
    assert parsed.open == []  # every tag is closed
    assert len(parsed.addresses) == 2  # the picture and the curve
    assert all(address.startswith("data:image/") for address in parsed.addresses)
    assert "url(" not in page
    assert "@import" not in page


def test_a_protocol_is_told_in_words_and_short():
    protocol = {
        "num_images": 2000,
        "crop": None,
        "weights": {"weights": "lite0", "sha256": "ab" * 32},
        "range": [-1, 1],
        "rounded": False,
    }
    drawn = report.build(experiment({"vae": {}}), [record("vae", 1.0, protocol=protocol)])
    said = "num images: 2000; weights: lite0; weights sha256: abababababab; range: [-1, 1]; rounded: no"
    assert grid.protocols(drawn) == [("fid", said)]
    assert said in report.page.html(drawn)


def test_the_pictures_that_the_markdown_shows_are_beside_it(redrawn, tmp_path):
    report.write(redrawn, tmp_path / "report")
    shown = re.findall(r"\]\((pictures/[^)]+)\)", (tmp_path / "report" / "index.md").read_text())
    assert sorted(shown) == ["pictures/vae-curves.svg", "pictures/vae-faces-s0-samples.png"]
    assert all((tmp_path / "report" / name).is_file() for name in shown)


def test_a_claim_stands_in_every_format_with_its_place_and_both_verdicts():
    claim = Claim(id="am3", text="Balanced PIONEER has the best FID", where="Sec. 4.1", expression="fid[vae] < fid[wae]")
    drawn = report.build(
        experiment({"vae": {"fid": 21.51}, "wae": {"fid": 28.84}}, claims=[claim]), [record("vae", 7.5), record("wae", 6.25)]
    )
    for page in (text.markdown(drawn), report.page.html(drawn), text.latex(drawn), on_terminal(drawn, 200)):
        words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>|[\\$]", "", page).replace("geq", "≥").replace("textless{}", "<"))
        assert "Balanced PIONEER has the best FID (Sec. 4.1)" in words
        assert re.search(r"fails, one seed:? ?fid of vae 7.500 ≥ wae 6.250", words)
        assert re.search(r"holds:? ?fid of vae 21.51 (<|&lt;) wae 28.84", words)
    assert "Claims" not in text.markdown(report.build(experiment({"vae": {}}), [record("vae", 1.0)]))


def test_a_report_without_any_record_is_a_table_of_what_is_to_be_done(tmp_path):
    drawn = report.build(experiment({"vae": {"fid": 1.0}, "wae": {"fid": 2.0}}, [FID, STAND_IN]), [])
    assert printed(drawn) == {"vae": ["missing[a]", "missing[a]", "1"], "wae": ["missing[a]", "missing[a]", "2"]}
    report.write(drawn, tmp_path)
    assert not (tmp_path / "pictures").exists()


def on_terminal(drawn, width):
    console = Console(width=width, file=io.StringIO())
    console.print(report.terminal(drawn))
    return console.file.getvalue()


def test_blocks_that_do_not_fit_a_terminal_side_by_side_stand_in_turn():
    drawn = report.build(experiment({"a-long-row-name": {"fid": 1.0}}), [record("a-long-row-name", 2.0)])
    rows = [line.split() for line in on_terminal(drawn, 60).splitlines() if "a-long-row-name" in line]
    assert rows == [["a-long-row-name", "2.000", "1"]]
    rows = [line.split() for line in on_terminal(drawn, 30).splitlines() if "a-long-row-name" in line]
    assert rows == [["a-long-row-name", "2.000"], ["a-long-row-name", "1"]]


def test_the_terminal_shows_table_footnotes_and_order():
    rows = experiment({"a[b]": {"fid": 1.0}, "c": {"fid": 2.0}})
    drawn = report.build(rows, [record("a[b]", 2.0), record("c", 1.0), record("c", 1.0, identity="before")])
    shown = on_terminal(drawn, 100)
    for words in ("a[b]", "2.000", "ρ = −1.00 over 2 rows", "swapped: a[b] / c", "Left out: 1 record"):
        assert words in shown


def test_reports_import_no_torch():
    code = "import sys; sys.modules['torch'] = sys.modules['matplotlib'] = None; import genae.report"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Labels as they are, in every format

LABELS = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=30).filter(str.strip)
AWKWARD = (
    "+ Loss L_j",
    "a & b",
    "50%",
    "<b>",
    "x|y",
    "*z*",
    "# 1",
    "1. a",
    "[a](b)",
    "a\\b",
    "$a_b^c$",
    "~",
    "{}",
    "日本 é ±",
    "''",
    "--",
    "&amp;",
    "!`",
)


def labelled(label):
    return report.build(experiment({"vae": (label, {}), "wae": {}}), [record("vae", 1.0), record("wae", 2.0)])


def one_line(label):
    return " ".join(label.split())


def check_html(label):
    assert Page(report.page.html(labelled(label))).rows == [label, "wae"]


def check_markdown(label):
    tokens = MarkdownIt("commonmark").enable("table").parse(text.markdown(labelled(label)))
    row = next(index for index, token in enumerate(tokens) if token.type == "tbody_open")
    cell = next(token for token in tokens[row:] if token.type == "inline")
    assert {child.type for child in cell.children} <= {"text", "text_special"}
    assert "".join(child.content for child in cell.children) == one_line(label)


def check_csv(label):
    assert [line["label"] for line in csv.DictReader(io.StringIO(text.csv(labelled(label)), newline=""))] == [label, "wae"]


PRINTS_AS = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<",
    r"\textgreater{}": ">", r"\textbar{}": "|", r"\textasciigrave{}": "`", r"\&": "&", r"\%": "%", r"\$": "$", r"\#": "#",
    r"\_": "_", r"\{": "{", r"\}": "}", "{[}": "[", "{*}": "*", "''": '"', "-{}-": "--", "{}-": "-", r"$\pm$": "±",
}  # fmt: skip


def check_latex(label):
    tex = text.latex(labelled(label)).partition("\\midrule\n")[2].partition(" & ")[0]
    found = re.split("(" + "|".join(map(re.escape, PRINTS_AS)) + ")", tex)
    plain = "".join(PRINTS_AS.get(part, part) for part in found)
    assert all(part in PRINTS_AS or not re.search(r"[\\&%$#_{}~^<>|`\[*]", part) for part in found)  # nothing special is left
    assert plain == one_line(label).replace("''", '"')  # the two print alike


@pytest.mark.parametrize("label", AWKWARD)
@pytest.mark.parametrize("check", [check_html, check_markdown, check_csv, check_latex])
def test_awkward_labels_are_shown_as_they_are(label, check):
    check(label)


@pytest.mark.parametrize("check", [check_html, check_markdown, check_csv])
@given(label=LABELS)
@settings(max_examples=40, deadline=None)
def test_any_label_is_shown_as_it_is(check, label):
    check(label)


@given(label=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30).filter(str.strip))
@settings(max_examples=60, deadline=None)
def test_any_ascii_label_is_what_latex_prints(label):
    assume("''" not in label.replace('"', "''") or "'" not in label)  # three apostrophes could be read either way
    check_latex(label)
