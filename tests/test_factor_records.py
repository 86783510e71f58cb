"""What a factor metric leaves in a record, where it is defined and where it is not; and the picture of the factors in docs."""

import importlib.util

import numpy as np
import pytest
import yaml
from PIL import Image

from genae.evaluator import evaluate
from genae.experiment import load

TINY = {"latent_dim": 8, "channels": [8, 8, 4]}
FACES = {"name": "synthetic-faces", "resolution": 16, "num_train": 96, "num_test": 32}
LOOSE = {"name": "factor-mixing", "num_pairs": 200, "carried_accuracy": 0.0, "carried_r2": -1.0e9}


@pytest.fixture
def record(tmp_path, monkeypatch):
    """What evaluating an untrained row records: record(model name, data, metric)."""
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "setup.cfg").touch()

    def evaluated(model: str, data: dict, metric: dict) -> dict:
        shared = {"data": data, "columns": {"score": {"metric": metric}}}
        path = tmp_path / "factors.yaml"
        path.write_text(yaml.safe_dump({"table": "a/b", "shared": shared, "rows": {"row": {"model": {"name": model, **TINY}}}}))
        (run,) = load(path).runs
        (found,) = evaluate(run, tmp_path / "runs")
        return found

    return evaluated


def test_a_record_names_the_factors_in_words_and_holds_three_numbers_beside_the_score(record):
    found = record("automodulator", FACES, LOOSE)
    details = found["details"]
    assert (found["status"], details["not_carried"]) == ("ok", "none")
    assert details["carried"].startswith("azimuth, head_shape, hair_style")
    assert {"chance", "ceiling", "untrained", "j1", "j2", "coarse", "fine", "azimuth.j1", "azimuth.drawn"} <= details.keys()
    assert details["untrained"] == found["value"]  # the row never trained
    assert found["protocol"]["regressor"]["revision"] >= 1


def test_what_is_not_carried_is_not_scored_and_the_cell_says_why(record):
    found = record("automodulator", FACES, {"name": "factor-mixing"})
    assert found["value"] is None
    assert found["status"].startswith("not defined: no coarse factor is read back from reconstructions; carried are: ")


@pytest.mark.parametrize(
    ("model", "data"),
    [("automodulator", {"name": "fashion-mnist", "resolution": 16, "count": 20}), ("vae-classic", FACES)],
    ids=["data without factors", "a decoder without layers"],
)
def test_without_factors_or_layers_it_is_not_defined(record, model, data):
    found = record(model, data, {"name": "factor-mixing"})
    assert (found["value"], found["status"]) == (None, "not defined")


def test_the_picture_of_the_factors_shows_the_faces_as_they_are_drawn(repository):
    spec = importlib.util.spec_from_file_location("factors", repository / "docs/figures/factors.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with Image.open(script.PICTURE) as picture:
        assert np.array_equal(np.asarray(picture), script.sheet())
