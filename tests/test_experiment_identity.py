"""Identity: equal for runs that end in the same weights, different for all others, and chained from stage to stage."""

import itertools
import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from genae.experiment import load
from genae.registry import MODELS, OBJECTIVES

TABLE = {
    "table": "paper/one",
    "imports": ["stand_ins"],
    "rows": {
        "vae": {
            "data": {"name": "toy-images", "resolution": 16},
            "model": {"name": "toy-vae", "latent_dim": 8},
            "stages": {
                "autoencoder": {
                    "objective": {"name": "toy-elbo"},
                    "schedule": {"total_kimg": 4, "phases": [{"resolution": 16, "batch_size": 4, "learning_rate": 0.001}]},
                    "average": {"parts": ["decoder"], "half_life_kimg": 10},
                },
                "density": {
                    "objective": {"name": "toy-elbo", "kl_weight": 2.0},
                    "schedule": {"total_kimg": 1, "phases": [{"resolution": 16, "batch_size": 4, "learning_rate": 0.001}]},
                },
            },
        }
    },
}

# Every kind of thing that decides the weights, each with another value than TABLE's; those of the second stage apart.
DECIDE = [
    ("data.resolution", 32),
    ("flip", False),
    ("model.latent_dim", 9),
    ("model.channels", [8]),
    ("model.dropout", 0.5),
    ("model.norm", "group"),
    ("compute.precision", "bfloat16"),
    ("stages.autoencoder.objective.kl_weight", 0.5),
    ("stages.autoencoder.objective.free_bits", True),
    ("stages.autoencoder.schedule.total_kimg", 5),
    ("stages.autoencoder.schedule.phases.0.resolution", 8),
    ("stages.autoencoder.schedule.phases.0.batch_size", 5),
    ("stages.autoencoder.schedule.phases.0.learning_rate", 0.002),
    ("stages.autoencoder.schedule.phases.0.learning_rate", {"encoder": 0.001}),
    ("stages.autoencoder.schedule.phases.0.fade_kimg", 1),
    ("stages.autoencoder.schedule.phases.0.margin", 0.2),
    ("stages.autoencoder.optimizer.eps", 0.001),
    ("stages.autoencoder.optimizer.betas", [0.9, 0.99]),
    ("stages.autoencoder.optimizer.weight_decay", 0.1),
    ("stages.autoencoder.average", None),
    ("stages.autoencoder.average.half_life_kimg", 11),
]
DECIDE_LATER = [("stages.density.objective.kl_weight", 3), ("stages.density.schedule.total_kimg", 2)]
DO_NOT_DECIDE = [
    ("metrics", [{"name": "toy-mse"}]),
    ("columns", {"sharp": {"metric": {"name": "toy-psnr"}}}),
    ("figures", [{"name": "toy-samples"}]),
    ("compute.threads", 2),
    ("compute.device", "cuda"),
    ("compute.compile", True),
    ("compute.checkpoint_seconds", 5),
    ("compute.log_kimg", 5),
]


@pytest.fixture
def run_of(toy_project):
    """The one run of a table, written to a file of its own."""
    numbers = itertools.count()

    def write_and_load(table=TABLE, overrides=(), seeds=None):
        path = toy_project / "experiments" / f"{next(numbers)}.yaml"
        path.write_text(yaml.safe_dump(table, sort_keys=False))
        texts = [f"{key}={json.dumps(value)}" for key, value in overrides]
        (run,) = load(path, overrides=texts, seeds=seeds).runs
        return run

    return write_and_load


def chain(run):
    return [stage.identity for stage in run.stages]


def reordered(value, random):
    """The same mappings with their keys in another order; stages, whose order means something, keep theirs."""
    if isinstance(value, list):
        return [reordered(item, random) for item in value]
    if not isinstance(value, dict):
        return value
    keys = list(value)
    if "density" not in keys:
        random.shuffle(keys)
    return {key: reordered(value[key], random) for key in keys}


def test_the_order_of_keys_does_not_matter(run_of):
    before = chain(run_of())

    @settings(max_examples=10, deadline=None)
    @given(st.randoms(use_true_random=False))
    def same(random):
        assert chain(run_of(reordered(TABLE, random))) == before

    same()


@pytest.mark.parametrize(("key", "value"), DECIDE)
def test_whatever_decides_the_weights_changes_every_stage(run_of, key, value):
    for before, after in zip(chain(run_of()), chain(run_of(overrides=[(key, value)])), strict=True):
        assert before != after


@pytest.mark.parametrize(("key", "value"), DECIDE_LATER)
def test_a_later_stage_leaves_the_identity_of_the_one_before_it(run_of, key, value):
    before, after = chain(run_of()), chain(run_of(overrides=[(key, value)]))
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_what_does_not_decide_the_weights_leaves_the_identity(run_of):
    before = chain(run_of())

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.sampled_from(DO_NOT_DECIDE), unique_by=lambda change: change[0]))
    def same(changes):
        assert chain(run_of(overrides=changes)) == before

    same()


def test_any_two_different_sets_of_settings_differ(run_of):
    seen = {}

    @settings(max_examples=25, deadline=None)
    @given(st.sets(st.sampled_from(range(len(DECIDE)))))
    def differ(chosen):
        changes = [DECIDE[index] for index in sorted(chosen)]
        last = {}
        for key, value in changes:
            last[key] = value
        if {"stages.autoencoder.average", "stages.autoencoder.average.half_life_kimg"} <= last.keys():
            return  # a half-life cannot be laid on an average that was removed
        key = json.dumps(last, sort_keys=True)
        identity = run_of(overrides=changes).identity
        assert seen.setdefault(key, identity) == identity
        assert len(set(seen.values())) == len(seen)

    differ()


def test_table_row_and_caption_are_no_part_of_it(run_of):
    renamed = {**TABLE, "table": "other/two", "caption": "Another", "rows": {"other-row": TABLE["rows"]["vae"]}}
    assert chain(run_of(renamed)) == chain(run_of())
    assert run_of(renamed).identity == run_of().identity == chain(run_of())[-1]


def test_the_seed_is_part_of_it(run_of):
    assert run_of(seeds=[0]).identity != run_of(seeds=[1]).identity


def test_the_stages_name_is_part_of_it(run_of):
    # A step's random numbers come from (seed, stage, images seen).
    stages = {"other": TABLE["rows"]["vae"]["stages"]["autoencoder"]}
    alone = {"autoencoder": TABLE["rows"]["vae"]["stages"]["autoencoder"]}
    one, other = ({**TABLE, "rows": {"vae": {**TABLE["rows"]["vae"], "stages": which}}} for which in (alone, stages))
    assert run_of(one).identity == chain(run_of())[0]
    assert run_of(other).identity != run_of(one).identity


def test_a_row_without_stages_is_its_data_model_and_seed(run_of):
    bare = {**TABLE, "rows": {"vae": {**TABLE["rows"]["vae"], "stages": {}}}}
    assert run_of(bare).identity == run_of(bare, overrides=[("flip", False)]).identity
    assert len({run_of(bare).identity, run_of(bare, [("model.latent_dim", 9)]).identity, run_of(bare, seeds=[1]).identity}) == 3


def test_a_whole_number_is_the_same_as_the_float_it_stands_for(run_of):
    for key, whole, real in (
        ("objective.kl_weight", 2, 2.0),
        ("schedule.total_kimg", 4, 4.0),
        ("schedule.phases.0.margin", 1, 1.0),
    ):
        path = f"stages.autoencoder.{key}"
        assert run_of(overrides=[(path, whole)]).identity == run_of(overrides=[(path, real)]).identity


def test_a_default_written_out_is_the_default(run_of):
    written = [
        ("model.channels", [16, 32]),
        ("stages.autoencoder.optimizer", {"name": "adam", "betas": [0.0, 0.99], "weight_decay": 0}),
    ]
    assert run_of(overrides=written).identity == run_of().identity


def test_a_setting_added_later_is_left_out_at_the_value_that_repeats_what_was_before(run_of):
    def named(name, setting=None):
        return run_of(overrides=[("model", {"name": name, "latent_dim": 8, **(setting or {})})])

    before = named("toy-vae").identity

    # The same model a year later: a setting more, declared to repeat the old behaviour at False and (1, 2).
    entries = MODELS._entries

    def toy_vae(shape, *, latent_dim: int, channels: tuple[int, ...] = (16, 32), dropout: float = 0.0, norm: str = "batch"): ...

    def later(
        shape,
        *,
        latent_dim: int,
        channels: tuple[int, ...] = (16, 32),
        dropout: float = 0.0,
        norm: str = "batch",
        residual: bool = False,
        taps: tuple[int, ...] = (1, 2),
    ): ...

    del entries["toy-vae"]
    MODELS.add("toy-vae", added={"residual": False, "taps": (1, 2)})(later)
    assert named("toy-vae").identity == before
    assert named("toy-vae", {"residual": False, "taps": [1, 2]}).identity == before
    assert len({before, named("toy-vae", {"residual": True}).identity, named("toy-vae", {"taps": [3]}).identity}) == 3

    del entries["toy-vae"]
    MODELS.add("toy-vae", revision=2)(toy_vae)
    assert named("toy-vae").identity != before


def test_a_raised_revision_changes_the_stages_from_it_on(run_of):
    run_of()  # imports what the table names
    factory = OBJECTIVES["toy-elbo"].factory
    OBJECTIVES.add("toy-late")(factory)
    change = [("stages.density.objective", {"name": "toy-late"})]
    before = chain(run_of(overrides=change))
    OBJECTIVES.add("toy-late", revision=2)(factory)
    after = chain(run_of(overrides=change))
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_the_identity_of_a_pinned_run_never_changes(run_of):
    # Written down when the chain was first defined: committed results are found by it.
    assert [identity[:12] for identity in chain(run_of())] == ["a4cc6f70e875", "36011bd103bc"]
