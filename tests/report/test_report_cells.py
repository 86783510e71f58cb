"""The cells of a report: numbers, ours beside the paper's, words where there is none, and what a score is read beside."""

import csv
import io
import json
from dataclasses import replace

import pytest

from genae import report
from genae.report import beside, grid, text
from genae.spec import Column, StageSpec

FID = Column(id="fid", metric={"name": "fid", "num_generated": 2000})
SSIM = Column(id="ssim", metric={"name": "ssim"}, direction="max")
STAND_IN = Column(id="lpips", metric={"name": "pd-efficientnet"}, in_place_of="lpips, celeba-hq")

# Numbers


def test_a_cell_is_the_mean_and_the_standard_deviation_over_seeds(experiment, record, printed):
    # mean of 1, 2, 3 is 2; with n - 1 the variance is (1 + 0 + 1) / 2 = 1
    drawn = report.build(experiment({"vae": {}}, seeds=(0, 1, 2)), [record("vae", seed + 1.0, seed=seed) for seed in range(3)])
    assert (drawn.cells["vae", "fid"].mean, drawn.cells["vae", "fid"].std) == (2.0, 1.0)
    assert printed(drawn) == {"vae": ["2.000 ± 1.000"]}
    assert "n = 3 seeds" in grid.caption(drawn)[0]


def test_one_seed_has_no_spread_and_the_caption_says_n_is_one(experiment, record, printed):
    drawn = report.build(experiment({"vae": {}}), [record("vae", 2.0)])
    assert printed(drawn) == {"vae": ["2.000"]}
    assert "n = 1" in grid.caption(drawn)[0]
    assert "±" not in text.markdown(drawn)


@pytest.mark.parametrize(
    ("largest", "decimals"), [(206.3, 1), (45.25, 2), (5.0, 3), (0.267, 4), (1e-12, 15), (0.0, 2), (12345.0, 0)]
)
def test_numbers_are_printed_with_four_digits_of_the_largest(experiment, record, largest, decimals):
    drawn = report.build(experiment({"a": {}, "b": {}}), [record("a", largest), record("b", 0.0)])
    assert drawn.measures[0].decimals == decimals


@pytest.mark.parametrize(("column", "best"), [(FID, "a"), (SSIM, "b")])
def test_the_best_of_ours_is_marked_whatever_the_paper_has(experiment, record, column, best):
    drawn = report.build(
        experiment({"a": {column.id: 9.0}, "b": {column.id: 0.0}}, [column]),
        [record("a", 1.0, column), record("b", 2.0, column)],
    )
    assert [row for row in "ab" if drawn.cells[row, column.id].best] == [best]


def test_means_that_print_alike_are_both_best_and_a_number_alone_is_not(experiment, record):
    rows = experiment({"a": {}, "b": {}, "c": {}})
    drawn = report.build(rows, [record("a", 10.0), record("b", 10.001), record("c", 10.02)])
    assert [drawn.cells[row, "fid"].best for row in "abc"] == [True, True, False]
    assert not report.build(rows, [record("a", 10.0)]).cells["a", "fid"].best


def test_likelihoods_of_codes_have_a_best_for_each_autoencoder(experiment, record):
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


def test_the_numbers_of_each_seed_are_kept_beside_their_mean(experiment, record):
    drawn = report.build(experiment({"vae": {}}, seeds=(0, 1)), [record("vae", 0.1), record("vae", 0.3, seed=1)])
    assert next(csv.DictReader(io.StringIO(text.csv(drawn))))["values"] == "0.1 0.3"
    assert 'title="each seed: 0.1000, 0.3000"' in report.page.html(drawn)


# Ours beside the paper's


def test_at_scale_paper_stand_ours_the_papers_and_the_difference(experiment, record, printed):
    drawn = report.build(experiment({"vae": {"fid": 45.25}, "gan": {}}, scale="paper"), [record("vae", 47.0, scale="paper")])
    assert printed(drawn)["vae"] == ["47.00", "45.25", "+1.75"]
    assert printed(drawn)["gan"][1:] == ["–", "–"]
    assert next(csv.DictReader(io.StringIO(text.csv(drawn))))["difference"] == "1.75"


def test_at_any_other_scale_nothing_is_subtracted_and_the_blocks_stand_side_by_side(experiment, record, printed):
    drawn = report.build(experiment({"vae": {"fid": 45.25}}), [record("vae", 47.0)])
    table = grid.grid(drawn)
    assert table.groups == [("", 1), ("ours", 1), ("paper", 1)]
    assert printed(drawn) == {"vae": ["47.00", "45.25"]}
    for words in (text.markdown(drawn), text.latex(drawn), report.page.html(drawn)):
        assert "1.75" not in words
        assert "never subtracted" in words
    assert next(csv.DictReader(io.StringIO(text.csv(drawn))))["difference"] == ""


def test_the_papers_error_bars_stand_beside_its_numbers(experiment, record, printed):
    drawn = report.build(experiment({"vae": {"fid": 153.28}}, plus_minus={"vae": {"fid": 1.78}}), [record("vae", 1.0)])
    assert printed(drawn)["vae"][1] == "153.28 ± 1.78"


def test_a_changed_column_says_what_it_stands_in_place_of(experiment, record):
    drawn = report.build(experiment({"vae": {"lpips": 0.1}}, [STAND_IN]), [record("vae", 0.2, STAND_IN)])
    assert drawn.measures[0].header == "pd-efficientnet, synthetic-faces (in place of lpips, celeba-hq)"
    assert grid.grid(drawn).headers == ["", f"{drawn.measures[0].header} ↓", "lpips ↓"]


def test_a_column_at_another_size_says_both_sizes(experiment, record):
    smaller = Column(id="fid", metric={"name": "fid"}, in_place_of="128x128")
    drawn = report.build(experiment({"vae": {"fid": 1.0}}, [smaller]), [record("vae", 2.0, smaller)])
    assert drawn.measures[0].header == "fid, synthetic-faces at 16x16 (in place of 128x128)"


def test_a_removed_column_keeps_the_papers_numbers_and_says_so(experiment, record, printed):
    removed = Column(id="ppl", metric={"name": "ppl"}, removed=True)
    drawn = report.build(experiment({"vae": {"fid": 1.0, "ppl": 83.52}}, [FID, removed]), [record("vae", 2.0)])
    assert printed(drawn) == {"vae": ["2.000", "1", "83.52"]}
    assert "Not measured at scale desk, the paper's numbers kept: ppl." in grid.caption(drawn)


def test_without_published_numbers_there_are_only_ours(experiment, record):
    drawn = report.build(experiment({"vae": {}}), [record("vae", 2.0)])
    assert grid.grid(drawn).headers == ["", "fid ↓"]
    assert "paper" not in " ".join(grid.caption(drawn))


# What stands where there is no number


def test_absent_numbers_are_spelled_out(experiment, record, printed):
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


def test_a_mean_of_fewer_seeds_says_which_are_absent(experiment, record, printed):
    drawn = report.build(experiment({"vae": {}}, seeds=(0, 1, 2)), [record("vae", 1.0), record("vae", 3.0, seed=2)])
    assert printed(drawn) == {"vae": ["2.000 ± 1.414[a]"]}  # sqrt((1 + 1) / 1)
    assert grid.grid(drawn).footnotes == {"a": "n = 2 of 3; seed 1 missing"}


def test_a_row_of_published_numbers_alone_is_not_missing(experiment, record, printed):
    asked = experiment({"vae": {"fid": 1.0}, "gan": {"fid": 2.0}})
    asked = replace(asked, runs=tuple(run for run in asked.runs if run.row == "vae"))
    assert printed(report.build(asked, [record("vae", 1.0)]))["gan"] == ["–", "2"]


# What a score is read beside


def test_a_score_stands_beside_chance_the_ceiling_and_an_untrained_decoder(experiment, record):
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


def test_columns_without_such_details_have_no_line(experiment, record):
    drawn = report.build(experiment({"vae": {}}), [record("vae", 2.0)])
    assert beside.beside(drawn) == []
    assert "Beside the scores" not in text.markdown(drawn) + report.page.html(drawn)


def test_a_column_says_its_floor_and_which_rows_are_not_better(experiment, record):
    likelihood = Column(id="log-likelihood", metric={"name": "log-likelihood"}, direction="max")
    records = [record("lde", 150.0 + seed, likelihood, seed, details={"floor": 137.0}) for seed in (0, 1)]
    records += [record("made", 130.0 + seed, likelihood, seed, details={"floor": 137.0}) for seed in (0, 1)]
    drawn = report.build(experiment({"lde": ("LDE", {}), "made": ("MADE", {})}, [likelihood], seeds=(0, 1)), records)
    assert "log-likelihood: the floor is 137.0; not better than theirs: MADE." in drawn.notes
    alone = report.build(experiment({"lde": ("LDE", {})}, [likelihood], seeds=(0, 1)), records[:2])
    assert "log-likelihood: the floor is 137.0; every row is better." in alone.notes


def test_a_table_of_log_likelihoods_shows_them_against_seconds(experiment, record, tmp_path):
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
