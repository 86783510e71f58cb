"""A stage that trains a density: on the codes of the stage before, shared between rows, resumed exactly, kept at its best."""

import json
import time

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import genae
from genae import checkpoint, study, trainer
from genae.data.dataset import Vectors
from genae.data.datasets import open_dataset
from genae.densities.density import Density, check_vectors
from genae.experiment import ExperimentError, load
from genae.pixels import from_uint8
from genae.registry import DATASETS, DENSITIES, MODELS
from genae.rundir import RunDir
from genae.stop import Stop


class Independent(Density):
    """A Gaussian per dimension, whose mean and spread are learned by steps from 0 and 1."""

    def __init__(self, dim: int, *, standardize: bool = False) -> None:
        super().__init__(dim, standardize=standardize)
        self.net = nn.ParameterDict({"mean": torch.zeros(dim), "log_std": torch.zeros(dim)})

    def _conditionals(self, vectors):
        return torch.distributions.Normal(self.net["mean"], self.net["log_std"].exp()).log_prob(vectors)

    def _sample(self, n, generator):
        return torch.randn(n, self.dim, generator=generator) * self.net["log_std"].exp() + self.net["mean"]


def ramp(split: str, *, count: int = 300, num_validation: int = 50) -> Vectors:
    """Vectors about (1, -2), the same in every split but for the draws."""
    generator = np.random.default_rng(["train", "validation", "test"].index(split))
    values = generator.normal([1.0, -2.0], [0.5, 2.0], (count if split == "train" else num_validation, 2)).astype(np.float32)
    return Vectors("ramp", split, values, f"ramp {split} {len(values)}")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(DENSITIES._entries, "independent", None)
    monkeypatch.setitem(DATASETS._entries, "ramp", None)
    del DENSITIES._entries["independent"], DATASETS._entries["ramp"]
    DENSITIES.add("independent")(Independent)
    DATASETS.add("ramp")(ramp)


PHASE = {"batch_size": 20, "learning_rate": 0.02}
AUTOENCODER = {"objective": {"name": "reconstruction"}, "schedule": {"total_kimg": 0.1, "phases": [PHASE]}}
DENSITY = {"density": {"name": "independent"}, "schedule": {"total_kimg": 0.2, "phases": [PHASE]}}


def table(folder, rows, **shared):
    faces = {"name": "fashion-mnist", "resolution": 8, "count": 60}
    model = {"name": "autoencoder", "latent_dim": 3, "width": 4}
    shared = {"data": faces, "model": model, "metrics": [{"name": "mse"}], "compute": {"log_kimg": 0.04}} | shared
    text = {"table": "test/densities", "shared": shared, "rows": rows}
    folder.mkdir(exist_ok=True)
    (folder / "table.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    return folder / "table.yaml"


def train(path):
    experiment = load(path)
    runs = study.Folders(experiment.root).runs
    study.work(experiment.runs, runs, time.time(), Stop())
    for run in experiment.runs:
        assert not study.failure_since(run, runs, 0), study.failure_since(run, runs, 0)
    return experiment, runs


def final(run, runs):
    return checkpoint.latest(RunDir.of(runs, run.label, run.identity).checkpoints)


def test_rows_that_differ_in_their_density_share_the_autoencoder_and_train_it_once(tmp_path):
    rows = {
        "plain": {"stages": {"autoencoder": AUTOENCODER}},
        "one": {"stages": {"autoencoder": AUTOENCODER, "density": DENSITY}},
        "two": {
            "stages": {
                "autoencoder": AUTOENCODER,
                "density": DENSITY | {"density": {"name": "independent", "standardize": True}},
            }
        },
    }
    experiment, runs = train(table(tmp_path, rows))
    plain, one, two = experiment.runs
    assert plain.identity == one.stages[0].identity == two.stages[0].identity
    assert len({plain.identity, one.identity, two.identity}) == 3
    assert len(list(runs.glob("autoencoder-*"))) == 3

    # The encoder in the trained density's checkpoint is the one that the first stage left.
    encoder = final(plain, runs).state["model"]
    carried = final(one, runs).state["encoded_by"]
    assert encoder.keys() == carried.keys()
    assert all(torch.equal(encoder[key], carried[key]) for key in encoder)


def test_a_density_is_trained_on_the_codes_of_the_unmirrored_training_images_in_eval_mode(tmp_path):
    experiment, runs = train(table(tmp_path, {"row": {"stages": {"autoencoder": AUTOENCODER, "density": DENSITY}}}))
    (run,) = experiment.runs
    directory = RunDir.of(runs, run.label, run.identity)
    kept = np.load(directory.codes / "train.npy")
    model = genae.load(directory.path)
    images = from_uint8(torch.from_numpy(np.array(open_dataset(run.data, "train").images)))
    with torch.inference_mode():
        np.testing.assert_allclose(kept, model.eval().encode(images).numpy(), rtol=1e-5, atol=1e-5)


def test_a_trained_model_samples_from_its_density(tmp_path):
    experiment, runs = train(table(tmp_path, {"row": {"stages": {"autoencoder": AUTOENCODER, "density": DENSITY}}}))
    (run,) = experiment.runs
    model = genae.load(RunDir.of(runs, run.label, run.identity).path)
    assert {"density", "sample", "encode"} <= model.provides
    drawn = model.sample_codes(4000, torch.Generator().manual_seed(0))
    learned = model.density.net
    torch.testing.assert_close(drawn.mean(0), learned["mean"].data, atol=0.1, rtol=0)
    torch.testing.assert_close(drawn.std(0), learned["log_std"].exp().data, atol=0.1, rtol=0)
    assert learned["mean"].abs().max() > 0.05, "it learned something"


def test_standardising_changes_neither_what_a_likelihood_is_of_nor_what_a_sample_is():
    vectors = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 20.0]) + 5
    density = Independent(2, standardize=True)
    density.begin(vectors)
    spread, mean = vectors.std(0, correction=0), vectors.mean(0)
    expected = torch.distributions.Normal(mean, spread).log_prob(vectors)
    torch.testing.assert_close(density.conditionals(vectors), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(density.log_prob(vectors), expected.sum(1), atol=1e-4, rtol=1e-4)
    drawn = density.sample(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.std(0) / spread, torch.ones(2), atol=0.03, rtol=0)


@pytest.mark.parametrize("keep_best", [None, {"every_kimg": 0.06}])
def test_vectors_train_a_density_without_an_autoencoder_and_resume_exactly(tmp_path, keep_best, monkeypatch):
    monkeypatch.setattr(trainer, "STATUS_SECONDS", 0.0)  # so that each step is told, and may be the last
    stage = {"density": DENSITY | {"keep_best": keep_best}}
    row = {"row": {"stages": stage, "columns": {}, "metrics": []}}

    def last(folder, stops):
        path = table(folder, row, data={"name": "ramp"}, model={"name": "identity"}, metrics=[])
        experiment = load(path)
        (run,), runs = experiment.runs, study.Folders(experiment.root).runs
        for stop_at in stops:
            stop = Stop()

            def watch(progress, stop=stop, stop_at=stop_at):
                stop.requested = progress.images_seen >= stop_at

            with pytest.raises(study.Interrupted):
                trainer.train(run, 0, runs, stop=stop, watch=watch)
        directory = trainer.train(run, 0, runs)
        lines = [json.loads(line) for line in directory.progress.read_text().splitlines()]
        lines = [(line["images_seen"], line["terms"]) for line in lines]
        return checkpoint.latest(directory.checkpoints), lines, directory

    undisturbed, lines, directory = last(tmp_path / "a", [])
    resumed, lines_again, _ = last(tmp_path / "b", [60, 140])
    assert resumed.digest == undisturbed.digest
    assert lines == lines_again
    scores = [terms.get("validation/log_prob") for _, terms in lines]
    assert [seen for seen, _ in lines] == [40, 80, 120, 160, 200]
    if keep_best:  # looked at after 60, 120, 180 and 200, and logged from then on
        assert scores[0] is None
        assert scores[1] < scores[2] == scores[3] < scores[4]
    else:
        assert scores == [None] * 5
    model = genae.load(directory.path)
    assert (model.density.net["mean"] - torch.tensor([1.0, -2.0])).abs().max() < 1.9


def test_the_best_weights_on_the_validation_split_are_the_ones_that_are_evaluated(tmp_path):
    # A learning rate that leaves the optimum again: the last weights are worse than some before.
    phases = [PHASE | {"kimg": 0.6, "learning_rate": 0.1}, PHASE | {"learning_rate": 5.0}]
    stage = DENSITY | {"schedule": {"total_kimg": 0.8, "phases": phases}, "keep_best": {"every_kimg": 0.1}}
    row = {"row": {"stages": {"density": stage}}}
    experiment, runs = train(table(tmp_path, row, data={"name": "ramp"}, model={"name": "identity"}, metrics=[]))
    (run,) = experiment.runs
    state = final(run, runs).state
    assert state["best"]["images_seen"] < 800
    model = genae.load(RunDir.of(runs, run.label, run.identity).path)
    held_out = torch.from_numpy(ramp("validation").vectors)
    assert float(model.density.log_prob(held_out).mean().detach()) == pytest.approx(state["best"]["score"], abs=1e-5)
    last = Independent(2)
    last.load_state_dict(state["model"])
    assert float(last.log_prob(held_out).mean().detach()) < state["best"]["score"] - 0.1


def refusal(path):
    with pytest.raises(ExperimentError) as caught:
        load(path)
    return str(caught.value)


def test_what_a_density_stage_cannot_have_is_said_when_the_file_is_read(tmp_path):
    def said(first, second=None):
        stages = {"autoencoder": AUTOENCODER, "density": first} | ({"more": second} if second else {})
        return refusal(table(tmp_path, {"row": {"stages": stages}}))

    phases = [PHASE | {"resolution": 8}]
    assert "no resolution" in said(DENSITY | {"schedule": {"total_kimg": 0.1, "phases": phases}})
    assert "'independent'" in said(DENSITY | {"density": {"name": "independant"}})
    assert "no stage can follow 'density'" in said(DENSITY, AUTOENCODER)
    assert "trains none" in said(AUTOENCODER | {"keep_best": {"every_kimg": 1.0}})
    averaged = {"average": {"parts": ["net"], "half_life_kimg": 1.0}, "keep_best": {"every_kimg": 1.0}}
    assert "average" in said(DENSITY | averaged)
    assert "validation" in said(DENSITY | {"keep_best": {"every_kimg": 1.0, "split": "train"}})


@pytest.mark.parametrize(
    ("density", "said"),
    [
        ({"density": {"name": "lde", "mixtures": 0}}, "mixtures must be at least 1"),
        ({"objective": {"name": "elbo"}}, "objective 'elbo' needs"),
        ({"keep_best": {"every_kimg": 1.0}}, "hold one out with num_validation"),
    ],
)
def test_what_would_stop_a_density_is_said_before_the_autoencoder_is_trained(tmp_path, density, said):
    path = table(tmp_path, {"row": {"stages": {"autoencoder": AUTOENCODER, "density": DENSITY | density}}})
    with pytest.raises(ValueError, match=said) as caught:
        study.check_densities(load(path).runs)
    assert str(caught.value).startswith("row 'row', stage 'density': ")


def test_keep_best_looks_at_one_vector_at_least(tmp_path):
    stages = {"autoencoder": AUTOENCODER, "density": DENSITY | {"keep_best": {"every_kimg": 1.0, "count": 0}}}
    assert "keep_best.count: must be at least 1" in refusal(table(tmp_path, {"row": {"stages": stages}}))


def test_vectors_are_refused_where_an_autoencoder_is_to_be_trained(tmp_path):
    row = {"row": {"stages": {"autoencoder": AUTOENCODER}}}
    path = table(tmp_path, row, data={"name": "ramp"}, model={"name": "identity"}, metrics=[])
    assert "no resolution" in refusal(path) or "which resolution" in refusal(path)


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (torch.tensor([[1.0, 2.0], [1.0, 3.0]]), "dimensions 0 of the vectors never vary"),
        (torch.tensor([[1.0, 2.0], [0.0, float("nan")], [2.0, 1.0]]), "1 of 3 vectors hold NaN or infinity.* number 1"),
        (torch.tensor([[1.0, 2.0]]), "1 vectors"),
        (torch.zeros(4, 3), r"2 dimensions was given vectors of shape \(4, 3\)"),
    ],
)
def test_vectors_of_which_no_density_can_be_learned_are_refused(vectors, said):
    with pytest.raises(ValueError, match=said):
        check_vectors(vectors, 2)


def test_a_row_whose_weights_were_chosen_on_the_test_split_says_so(tmp_path):
    kept = {
        split: {"stages": {"density": DENSITY | {"keep_best": {"every_kimg": 0.1, "split": split}}}}
        for split in ("validation", "test")
    }
    kept["test"]["note"] = "as released"
    path = table(tmp_path, kept, data={"name": "ramp"}, model={"name": "identity"}, metrics=[])
    rows = load(path).rows
    assert rows["test"].note == "as released; its weights were chosen on the test split"
    assert rows["validation"].note is None


def test_codes_drawn_from_a_density_lie_where_the_models_codes_do():
    model = MODELS.build({"name": "automodulator", **MODELS["automodulator"].small}, (1, 8, 8))
    model.density = Independent(model.latent.dim)
    codes = model.sample_codes(50, torch.Generator().manual_seed(0))
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(50))
