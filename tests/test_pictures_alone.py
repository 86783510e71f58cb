"""A table of pictures: nothing is measured, and all that is said of a run stands in its pictures."""

import json
import re

import pytest
import yaml

from genae import report, results, study
from genae.experiment import load
from genae.stop import Stop

FIGURES = [{"name": "style-mixing", "layers": [1, 1], "rows": 1}, {"name": "samples", "rows": 1, "columns": 2}]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """An experiment of one row that only shows pictures, and the folders of its project."""
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "setup.cfg").touch()

    def written(figures=FIGURES, **row):
        text = {
            "table": "paper/fig1",
            "title": "Figure 1",
            "shared": {"data": {"name": "fashion-mnist", "resolution": 8, "count": 12}},
            "rows": {"one": {"model": {"name": "vae-adain", "latent_dim": 4, "channels": [4]}, "figures": figures, **row}},
        }
        (tmp_path / "fig1.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
        return load(tmp_path / "fig1.yaml"), study.Folders(tmp_path)

    return written


def done(experiment, folders) -> None:
    """What `genae run` does."""
    study.work(study.outstanding(experiment, folders), folders.runs, 0.0, Stop())
    assert study.collect(experiment, folders) == []


def redrawn(experiment, folders) -> report.Report:
    return report.build(experiment, results.read(folders.records("paper/fig1")), folders.pictures("paper/fig1"))


def test_it_is_run_collected_and_then_done(table):
    experiment, folders = table()
    (run,) = study.outstanding(experiment, folders)
    done(experiment, folders)
    assert study.outstanding(experiment, folders) == []
    assert len(list(folders.pictures_of(run).glob("*.png"))) == 2
    assert not folders.records("paper/fig1").exists()
    assert study.outstanding(experiment, folders, retrain=True) == [run]


def test_another_picture_or_another_run_is_outstanding_again(table):
    done(*table())
    experiment, folders = table([*FIGURES, {"name": "samples", "rows": 2}])
    assert len(study.outstanding(experiment, folders)) == 1
    done(experiment, folders)
    assert study.outstanding(experiment, folders) == []
    assert len(redrawn(experiment, folders).pictures) == 3
    other = table(model={"name": "vae-adain", "latent_dim": 5, "channels": [4]})
    assert len(study.outstanding(*other)) == 1
    assert redrawn(*other).pictures == ()  # those of the first run are not passed off as this one's


def test_pictures_that_the_same_run_drew_for_another_table_stay_there(table):
    experiment, folders = table()
    done(experiment, folders)
    fewer, _ = table(FIGURES[:1])
    assert fewer.runs[0].identity == experiment.runs[0].identity
    study.collect(fewer, folders)
    (picture,) = redrawn(fewer, folders).pictures
    assert picture.name.startswith("style-mixing-")


def test_pictures_stand_in_the_files_order_with_what_they_show(table, tmp_path):
    experiment, folders = table()
    done(experiment, folders)
    drawn = redrawn(experiment, folders)
    assert [re.sub(r"-[0-9a-f]{6}$", "", picture.name) for picture in drawn.pictures] == ["style-mixing", "samples"]
    assert "layer 1 (4x4) from the image at the left" in drawn.pictures[0].caption
    (run,) = drawn.runs
    (texts, _) = (results.texts_of(path) for path in folders.pictures_of(experiment.runs[0]).glob("*.png"))
    made_by = json.loads(texts["made_by"])
    assert (run.identity, run.record["checkpoint"]) == (made_by["identity"], made_by["checkpoint"])
    assert run.images_seen == 0

    report.write(drawn, tmp_path / "report")
    page, markdown = ((tmp_path / "report" / name).read_text() for name in ("index.html", "index.md"))
    assert page.count("<table>") == 1  # of the runs; there is none of numbers
    assert "lower is better" not in page + markdown
    assert made_by["checkpoint"][:12] in page
    assert markdown.count("](pictures/") == 2


def test_a_rows_note_is_not_lost_where_there_is_no_table_of_numbers(table, tmp_path):
    experiment, folders = table(note="Not the paper's own source images.")
    done(experiment, folders)
    report.write(redrawn(experiment, folders), tmp_path / "report")
    for name in ("index.html", "index.md"):
        assert "Not the paper" in (tmp_path / "report" / name).read_text()
