"""Every value of scale `paper` that "Unpriortized Autoencoder" (Yoo et al., 2019) or its released code states, typed from
there; and every row of its tables at that scale is real: it builds, and each of its stages takes a step.
"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from genae.conformance.random_weights import write_random_weights
from genae.experiment import import_modules, list_experiments, load, project_root
from genae.features import weights
from genae.features.weights import WEIGHTS
from genae.identity import canonical
from genae.registry import DENSITIES, MODELS, OBJECTIVES
from genae.training import Training

ROOT = project_root(Path(__file__))
TABLES = ("table1", "table2", "fig2", "fig5", "fig6")
SHAPES = {
    "bsds300-patches": (63,),
    "mnist": (1, 28, 28),
    "tfd": (1, 48, 48),
    "two-domains": (3, 64, 64),
    "celeba": (3, 128, 128),
}
TRAIN = {"mnist": 55.0, "tfd": 101.0, "two-domains": 90.0, "celeba": 162.77, "bsds300-patches": 2700.0}  # thousands of images


def paper(table: str):
    return load(ROOT / "experiments" / "iae-2019" / f"{table}.yaml", scale="paper")


def run(table: str, row: str, data: str | None = None):
    return next(run for run in paper(table).runs if run.row == row and data in (None, run.data_name))


def epochs_of(run, index: int) -> tuple[float, list[float]]:
    """How many epochs a stage lasts, and those at which its learning rate halves."""
    schedule, thousands = run.stages[index].schedule, TRAIN[run.data["name"]]
    rates = [phase.learning_rate for phase in schedule.phases]
    assert all(after == pytest.approx(before / 2) for before, after in pairwise(rates))
    halved = [start / 1000 / thousands for start in schedule.starts[1:]]
    return round(schedule.total_kimg / thousands, 3), [round(epoch, 3) for epoch in halved]


# "Table 1: Log-likelihood and 2 standard deviations (5 trials)", LDE of K = 1, 10, 30, 100.
@pytest.mark.parametrize("mixtures", [1, 10, 30, 100])
def test_the_lde_of_table_1_is_trained_as_released(mixtures):
    chosen = run("table1", f"lde-k{mixtures}")
    (stage,) = chosen.stages
    assert stage.density["mixtures"] == mixtures
    assert stage.density["width"] == 16
    assert stage.density["standardize"] is False
    assert stage.optimizer["betas"] == [0.5, 0.999]
    assert {phase.batch_size for phase in stage.schedule.phases} == {128}
    assert stage.schedule.phases[0].learning_rate == 1e-4
    assert epochs_of(chosen, 0) == (250, [30 * k for k in range(1, 9)])
    assert stage.objective["floor"] == 0
    assert stage.keep_best["split"] == "validation"
    assert stage.keep_best["every_kimg"] == 5 * 2700


def test_the_row_as_released_bounds_its_loss_and_watches_the_test_set():
    released, ours = run("table1", "lde-k30-released"), run("table1", "lde-k30")
    (its,), (our,) = released.stages, ours.stages
    assert its.objective == our.objective | {"floor": 1e-12}
    assert its.keep_best == our.keep_best | {"split": "test"}
    assert (its.density, its.schedule, its.optimizer) == (our.density, our.schedule, our.optimizer)
    assert "test split" in paper("table1").rows["lde-k30-released"].note


def test_table_1_has_five_trials_and_the_published_mixtures():
    assert paper("table1").seeds == (0, 1, 2, 3, 4)
    for row in ("rnade-deep", "made-mog", "maf-mog"):  # "(K=10)"
        assert run("table1", row).stages[0].density["num_components"] == 10


def test_table_1_prints_the_papers_numbers():
    numbers = {row.id: (row.published["log-likelihood"], row.plus_minus.get("log-likelihood")) for row in rows_of("table1")}
    assert numbers == {
        "rnade-deep": (155.2, None),
        "made-mog": (153.71, 0.28),
        "real-nvp": (153.28, 1.78),
        "maf-mog": (156.36, 0.28),
        "maf-ddsf": (157.73, 0.04),
        "lde-k1": (152.68, 0.52),
        "lde-k10": (157.75, 0.06),
        "lde-k30": (158.02, 0.06),
        "lde-k100": (157.03, 0.30),
    }


def rows_of(table: str):
    return [row for row in paper(table).rows.values() if row.published]


def test_table_2_prints_the_papers_numbers():
    numbers = {row.id: (*row.published.values(), *row.plus_minus.values()) for row in rows_of("table2")}
    assert numbers == {
        "deep-gsn": (214, 1890, 1, 29),
        "gan": (225, 2057, 2, 26),
        "gmmn-ae": (282, 2204, 2, 20),
        "aae": (340, 2252, 2, 16),
        "vae-iaf": (272, 2),
        "evae": (337, 2371, 2, 20),
        "ae-lde": (326, 2476, 2, 33),
        "iae-lde": (326, 2507, 2, 32),
    }


# "The dimensionality of the latent vector used was 8 for MNIST and 15 for TFD. K of LDE is 30". The rest as released.
@pytest.mark.parametrize(
    ("row", "data", "dim", "warmup", "epochs", "halved"),
    [
        ("ae-lde", "mnist", 8, None, 280, [20, 50, 100, 200]),
        ("iae-lde", "mnist", 8, 96, 390, [20, 50, 100, 200]),
        ("ae-lde", "tfd", 15, None, 60, [20, 50]),
        ("iae-lde", "tfd", 15, 120, 130, [20, 50, 100]),
    ],
)
def test_ae_and_iae_of_table_2_are_trained_as_released(row, data, dim, warmup, epochs, halved):
    chosen = run("table2", row, data)
    autoencoder, density = chosen.stages
    assert chosen.model["latent_dim"] == dim
    assert chosen.model["output"] == "sigmoid"
    assert autoencoder.objective["warmup_epochs"] == warmup
    assert autoencoder.objective["perceptual_weight"] == 0  # "trained our generative models without perceptual loss"
    assert autoencoder.schedule.phases[0].learning_rate == 1e-3
    assert epochs_of(chosen, 0) == (epochs, halved)
    assert density.density["mixtures"] == 30
    assert density.schedule.phases[0].learning_rate == 2e-4
    assert epochs_of(chosen, 1) == (200, [15, 35, 60, 100])
    for stage in chosen.stages:
        assert stage.optimizer["betas"] == [0.5, 0.999]
        assert {phase.batch_size for phase in stage.schedule.phases} == {128}


def test_the_window_of_table_2_is_the_papers():
    columns = paper("table2").columns
    for data, lowest, highest, count in (("mnist", 0.1, 0.29, 20), ("tfd", 0.001, 0.196, 40)):  # arange(.1, .3, .01), ...
        metric = columns[f"parzen/{data}"].metric
        assert metric["num_generated"] == 10_000  # "MNIST(10K)"
        assert (metric["lowest"], metric["highest"], metric["num_sigmas"], metric["spacing"]) == (
            lowest,
            highest,
            count,
            "linear",
        )
    assert run("table2", "gan", "mnist").data["num_validation"] == 5000  # a random 55,000 and 5,000
    assert run("table2", "gan", "mnist").data["resolution"] == 28
    assert run("table2", "gan", "tfd").data["resolution"] == 48


# "an 100-dimensional latent vector using the Shoes and CelebA datasets with a size of 64x64"; N(-3, I) and N(3, I).
def test_figure_5_has_the_papers_sizes_and_priors():
    for row in ("aae-gaussian", "aae-two-gaussians", "ae", "iae"):
        chosen = run("fig5", row)
        assert chosen.model["latent_dim"] == 100
        assert [chosen.data[key]["name"] for key in ("first", "second")] == ["celeba", "shoes"]
        assert {chosen.data[key]["resolution"] for key in ("first", "second")} == {64}
        assert chosen.stages[0].objective["perceptual_weight"] == 0.1  # "with the beta of 0.1"
    assert run("fig5", "aae-gaussian").model["prior"] == "gaussian"
    assert run("fig5", "aae-two-gaussians").model["prior"] == "two-gaussians"
    assert run("fig5", "ae").stages[0].objective["warmup_epochs"] is None
    assert run("fig5", "iae").stages[0].objective["warmup_epochs"] == 100
    assert epochs_of(run("fig5", "iae"), 0) == (150, [20, 50, 100])


def test_figure_6_is_trained_as_released():
    assert {run("fig6", row).model["latent_dim"] for row in ("aae", "ae-lde", "iae-lde")} == {200}
    assert epochs_of(run("fig6", "ae-lde"), 0) == (130, [20, 50, 100])
    assert epochs_of(run("fig6", "iae-lde"), 0) == (190, [20, 50, 100])
    assert run("fig6", "iae-lde").stages[0].objective["warmup_epochs"] == 100
    for row in ("ae-lde", "iae-lde"):
        assert run("fig6", row).stages[1].density["mixtures"] == 30  # "The LDE with 30 mixture of Gaussian"
        assert epochs_of(run("fig6", row), 1) == (200, [15, 35, 60, 100])


def test_figure_2_has_two_dimensions():
    assert {chosen.model["latent_dim"] for chosen in paper("fig2").runs} == {2}


# Every row is real.


def distinct():
    """A stage of each distinct network, loss and size of the tables, by a name that tells them apart."""
    found, seen = {}, set()
    for table in TABLES:
        for chosen in paper(table).runs:
            for index, stage in enumerate(chosen.stages):
                key = canonical([chosen.model, chosen.data["name"], stage.objective, stage.density])
                if key not in seen:
                    seen.add(key)
                    found[f"{table}/{chosen.row}/{chosen.data_name}/{stage.name}"] = (chosen, index)
    return found


CASES = distinct()


@pytest.fixture(scope="module")
def vgg19(tmp_path_factory):
    """Random weights that pass for the published ones: the loss reads no others."""
    folder = tmp_path_factory.mktemp("weights")
    write_random_weights(folder, "vgg19")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENAE_WEIGHTS", str(folder))
        digest = weights.sha256_of(folder / WEIGHTS["vgg19"].file)
        patch.setitem(WEIGHTS, "vgg19", replace(WEIGHTS["vgg19"], sha256=digest))
        yield


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_row_of_the_paper_builds_and_takes_a_step(case, vgg19):
    chosen, index = CASES[case]
    import_modules(chosen.imports, chosen.root)
    stage, shape = chosen.stages[index], SHAPES[chosen.data["name"]]
    torch.manual_seed(0)
    model = MODELS.build(chosen.model, shape)
    generator = torch.Generator().manual_seed(0)
    if stage.density:
        batch = torch.randn(4, model.latent.dim, generator=generator).sigmoid()
        trained = DENSITIES.build(stage.density, model.latent.dim)
        trained.begin(torch.randn(200, model.latent.dim, generator=generator).sigmoid())
    else:
        batch, trained = torch.rand(4, *shape, generator=generator) * 2 - 1, model
    training = Training(trained, OBJECTIVES.build(stage.objective), stage, seed=0)
    before = {name: value.clone() for name, value in trained.named_parameters()}
    training.step(batch, stage.schedule.at(0))
    assert all(abs(value) < float("inf") for value in training.means().values())  # NaN fails too
    assert any(not torch.equal(value, before[name]) for name, value in trained.named_parameters())


def test_every_table_of_the_paper_is_among_the_steps():
    assert {case.split("/")[0] for case in CASES} == set(TABLES)
    assert set(TABLES) | {"matrix"} == {name.split("/")[1] for name in list_experiments(ROOT) if name.startswith("iae-2019/")}
