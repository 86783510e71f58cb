"""Which records a report counts, which it leaves out and says so, and which it refuses to put in one column."""

from dataclasses import replace

import pytest

from genae import report
from genae.spec import Column

FID = Column(id="fid", metric={"name": "fid", "num_generated": 2000})
SSIM = Column(id="ssim", metric={"name": "ssim"}, direction="max")


def test_records_of_older_settings_are_left_out_and_counted(experiment, record, printed):
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


def test_of_two_checkpoints_the_later_is_shown_and_it_is_said(experiment, record, printed):
    drawn = report.build(experiment({"vae": {}}), [record("vae", 1.0), record("vae", 2.0, checkpoint="d" * 64, time=2e9)])
    assert printed(drawn) == {"vae": ["2.000"]}
    assert drawn.notes == ("vae, seed 0: measured again, of another checkpoint; the latest number is shown.",)


def test_columns_of_different_checkpoints_are_told(experiment, record):
    drawn = report.build(
        experiment({"vae": {}}, [FID, SSIM]), [record("vae", 1.0), record("vae", 2.0, SSIM, checkpoint="d" * 64)]
    )
    assert drawn.notes == ("vae, seed 0: its columns are of different checkpoints.",)


def test_unlike_protocols_in_one_column_are_refused_by_name(experiment, record):
    unlike = {"num_generated": 5000, "reference": {"split": "train"}}
    with pytest.raises(ValueError, match="column 'fid' has numbers of unlike protocols") as refused:
        report.build(experiment({"a": {}, "b": {}}), [record("a", 1.0), record("b", 2.0, protocol=unlike)])
    assert "num_generated: 2000 (a s0); 5000 (b s0)" in str(refused.value)
    assert 'reference.split: absent (a s0); "train" (b s0)' in str(refused.value)


def test_the_protocol_of_what_was_not_measured_does_not_matter(experiment, record):
    rows = experiment({"a": {}, "b": {}})
    drawn = report.build(rows, [record("a", 1.0), record("b", None, status="not defined", protocol={})])
    assert drawn.measures[0].protocol == {"num_generated": 2000}


def test_rows_that_saw_other_data_are_told(experiment, record):
    drawn = report.build(experiment({"a": {}, "b": {}}), [record("a", 1.0), record("b", 1.0, data={"train": "x", "test": "b"})])
    assert drawn.notes == ("The rows did not all see the same version of faces.",)


def test_a_report_of_overridden_settings_says_so_and_how_to_make_it_again(experiment, record):
    changed = replace(experiment({"a": {}}), overrides=("model.latent_dim=8", "note=two words"))
    drawn = report.build(changed, [record("a", 1.0), record("a", 2.0, identity="the file's own")])
    assert drawn.notes[0] == "Not as the experiment file has it, but with model.latent_dim=8, note=two words."
    assert "Left out: 1 record of other settings than these overrides'." in drawn.notes
    assert drawn.command == "genae run experiments/paper/table1.yaml model.latent_dim=8 'note=two words' --scale desk"
