"""How the parts of a file make rows: the order of overlays, several data sets, columns that outlive their metric, `use`."""

import json

import pytest

from genae.experiment import ExperimentError, RunSpec, find, list_experiments, load, project_root

TRAINED = """
  stages:
    autoencoder:
      objective: {name: toy-elbo}
      schedule:
        total_kimg: 4
        phases:
          - {resolution: 8, batch_size: 4, learning_rate: 0.001, kimg: 2}
          - {resolution: 16, batch_size: 4, learning_rate: 0.001}
"""
HEAD = "table: paper/one\nimports: [stand_ins]\n"


@pytest.fixture
def table(toy_project):
    """Writes a file and loads it."""

    def write_and_load(text, **options):
        path = toy_project / "experiments" / "one.yaml"
        path.write_text(HEAD + text)
        return load(path, **options)

    return write_and_load


def runs_by_row(experiment):
    return {run.row: run for run in experiment.runs}


def test_a_row_says_only_its_difference(table):
    experiment = table(f"""
shared:
  data: {{name: toy-images, resolution: 16}}
  model: {{name: toy-vae, latent_dim: 8}}{TRAINED}
rows:
  vae: {{}}
  wide: {{model: {{channels: [64]}}}}
""")
    runs = runs_by_row(experiment)
    assert runs["vae"].model == {"name": "toy-vae", "latent_dim": 8, "channels": [16, 32], "dropout": 0.0, "norm": "batch"}
    assert runs["wide"].model == {**runs["vae"].model, "channels": [64]}
    assert list(experiment.rows) == ["vae", "wide"]


def test_later_parts_win_in_the_order_that_the_documentation_states(table):
    # Each part sets one setting more than the part after it lets stand.
    text = """
shared: {data: {name: toy-images}, model: {name: toy-vae, latent_dim: 1, dropout: 0.1, norm: group, channels: [1]}}
rows: {vae: {model: {latent_dim: 2, dropout: 0.2, norm: batch, channels: [2]}}, other: {}}
scales:
  desk:
    shared: {model: {latent_dim: 3, dropout: 0.3, channels: [3]}}
    rows: {vae: {model: {latent_dim: 4, dropout: 0.4}}}
"""
    settings = {"name": "toy-vae", "norm": "batch", "channels": [3], "dropout": 0.4}
    assert runs_by_row(table(text, overrides=["model.latent_dim=5"]))["vae"].model == {**settings, "latent_dim": 5}
    assert runs_by_row(table(text))["other"].model == {**settings, "norm": "group", "latent_dim": 3, "dropout": 0.3}
    paper = runs_by_row(table(text, scale="paper"))
    assert paper["vae"].model == {"name": "toy-vae", "latent_dim": 2, "dropout": 0.2, "norm": "batch", "channels": [2]}


def test_a_mapping_with_a_name_replaces_the_component_whole_and_a_list_replaces_a_list(table):
    experiment = table("""
shared: {data: {name: toy-images}, model: {name: toy-vae, latent_dim: 1, dropout: 0.1, channels: [1, 2, 3]}}
rows: {merged: {model: {channels: [4]}}, replaced: {model: {name: toy-vae, latent_dim: 2}}}
""")
    runs = runs_by_row(experiment)
    assert (runs["merged"].model["dropout"], runs["merged"].model["channels"]) == (0.1, [4])
    assert (runs["replaced"].model["dropout"], runs["replaced"].model["channels"]) == (0.0, [16, 32])


def test_null_removes_in_an_overlay_and_is_a_value_in_a_component_given_whole(table):
    text = f"""
shared:
  data: {{name: toy-images, resolution: 16}}
  model: {{name: toy-vae, latent_dim: 1, dropout: 0.1}}{TRAINED}      average: {{parts: [decoder], half_life_kimg: 10}}
  metrics: [{{name: toy-mse, num_images: null}}]
rows:
  plain: {{}}
  raw: {{stages: {{autoencoder: {{average: null}}}}, model: {{dropout: null}}}}
  released: {{stages: {{autoencoder: {{average: {{half_life_kimg: null, decay_per_step: 0.999}}}}}}}}
  untrained: {{stages: {{autoencoder: null}}}}
"""
    runs = runs_by_row(table(text))
    assert runs["plain"].stages[0].average == {"parts": ["decoder"], "half_life_kimg": 10.0, "decay_per_step": None}
    assert runs["raw"].stages[0].average is None
    assert runs["raw"].model["dropout"] == 0.0
    assert runs["released"].stages[0].average == {"parts": ["decoder"], "half_life_kimg": None, "decay_per_step": 0.999}
    assert runs["untrained"].stages == ()
    assert runs["untrained"].total_images == 0


def test_defaults_are_filled_in(table):
    (run,) = table(f"""
shared:
  data: {{name: toy-images}}{TRAINED}
rows: {{vae: {{model: {{name: toy-vae, latent_dim: 8}}}}}}
""").runs
    assert run.stages[0].optimizer == {"name": "adam", "betas": [0.0, 0.99], "eps": 1e-8, "weight_decay": 0.0}
    assert run.stages[0].average is None
    assert (run.flip, run.seed, run.precision, run.compute.threads) == (True, 0, "float32", 1)
    assert (run.label, run.data_name, run.scale) == ("toy-vae-toy-images-s0", "toy-images", "paper")
    assert run.total_images == 4000


def test_a_run_survives_the_way_to_disk_and_back(table):
    experiment = table(f"""
shared:
  data: {{name: toy-images, resolution: 16}}
  model: {{name: toy-vae, latent_dim: 8}}{TRAINED}
  metrics: [{{name: toy-psnr, crop: face}}]
  figures: [{{name: toy-samples}}]
  compute: {{threads: 2, precision: bfloat16}}
rows: {{vae: {{}}}}
""")
    (run,) = experiment.runs
    assert RunSpec.from_dict(json.loads(json.dumps(run.to_dict()))) == run


# Overrides.

OVERRIDDEN = f"""
shared:
  data: {{name: toy-images, resolution: 16}}
  model: {{name: toy-vae, latent_dim: 1}}{TRAINED}
  metrics: [{{name: toy-mse}}]
rows: {{vae: {{}}, wide: {{model: {{latent_dim: 2}}}}}}
scales: {{desk: {{shared: {{model: {{latent_dim: 3}}}}, rows: {{wide: {{model: {{latent_dim: 4}}}}}}}}}}
seeds: [7]
"""


@pytest.mark.parametrize("form", ["model.latent_dim=5", "shared.model.latent_dim=5"])
def test_an_override_without_a_row_is_for_every_row(table, form):
    assert [run.model["latent_dim"] for run in table(OVERRIDDEN, overrides=[form]).runs] == [5, 5]


def test_an_override_of_a_row_wins_whatever_the_order(table):
    for overrides in (
        ["rows.vae.model.latent_dim=6", "model.latent_dim=5"],
        ["model.latent_dim=5", "rows.vae.model.latent_dim=6"],
    ):
        assert [run.model["latent_dim"] for run in table(OVERRIDDEN, overrides=overrides).runs] == [6, 5]


def test_an_override_reaches_into_lists_by_index(table):
    for form in ("phases.1.batch_size=9", "phases[1].batch_size=9"):
        experiment = table(OVERRIDDEN, overrides=[f"stages.autoencoder.schedule.{form}"])
        assert [phase.batch_size for phase in experiment.runs[0].stages[0].schedule.phases] == [4, 9]


def test_an_override_may_give_a_component_whole_or_remove_it(table):
    experiment = table(OVERRIDDEN, overrides=["model={name: toy-vae, latent_dim: 9, norm: group}", "stages.autoencoder=null"])
    assert experiment.runs[0].model["norm"] == "group"
    assert experiment.runs[0].stages == ()


def test_overrides_of_data_columns_metrics_and_seeds(table):
    assert table(OVERRIDDEN, overrides=["data.resolution=64"]).runs[0].data["resolution"] == 64
    assert table(OVERRIDDEN, overrides=["columns.toy-mse.metric.num_images=10"]).columns["toy-mse"].metric["num_images"] == 10
    columns = table(OVERRIDDEN, overrides=["metrics=[{name: toy-psnr}]"]).columns
    assert {key: column.removed for key, column in columns.items()} == {"toy-mse": True, "toy-psnr": False}
    assert table(OVERRIDDEN, overrides=["seeds=[0, 1]"]).seeds == (0, 1)
    assert table(OVERRIDDEN, overrides=["compute.threads=4"]).runs[0].compute.threads == 4


def test_an_override_of_a_column_is_for_the_table_whichever_rows_are_run(table):
    experiment = table(OVERRIDDEN, rows=["wide"], overrides=["columns.toy-mse.metric.num_images=10"])
    assert experiment.columns["toy-mse"].metric["num_images"] == 10


def test_asking_for_rows_and_seeds_chooses_runs_but_keeps_the_table(table):
    experiment = table(OVERRIDDEN, rows=["wide"], seeds=[3, 4], overrides=["model.latent_dim=5"])
    assert [(run.row, run.seed) for run in experiment.runs] == [("wide", 3), ("wide", 4)]
    assert list(experiment.rows) == ["vae", "wide"]


# Scales and seeds.


def test_the_scale_is_desk_where_the_file_has_one_else_paper(table):
    assert table(OVERRIDDEN).scale == "desk"
    assert table("rows: {vae: {data: {name: toy-images}, model: {name: toy-vae, latent_dim: 1}}}").scale == "paper"


def test_seeds_are_those_of_the_scale_else_of_the_file_else_zero(table):
    rows = "rows: {vae: {data: {name: toy-images}, model: {name: toy-vae, latent_dim: 1}}}\n"
    assert table(rows).seeds == (0,)
    assert table(rows + "seeds: [1, 2]\n").seeds == (1, 2)
    assert table(rows + "seeds: [1, 2]\nscales: {desk: {seeds: [5]}}\n").seeds == (5,)
    assert table(rows + "seeds: [1, 2]\nscales: {desk: {seeds: [5]}}\n", scale="paper").seeds == (1, 2)


def test_a_file_that_only_the_overlay_completes_loads_at_that_scale_alone(table):
    text = """
rows: {vae: {model: {name: toy-vae, latent_dim: 1}}}
scales: {desk: {shared: {data: {name: toy-images}, metrics: [{name: toy-mse}]}}}
"""
    assert len(table(text).runs) == 1
    with pytest.raises(ExperimentError, match=r"rows\.vae\.data: missing"):
        table(text, scale="paper")


def test_a_row_of_published_numbers_alone_is_in_the_table_and_is_not_run(table):
    experiment = table("""
shared: {data: {name: toy-images}, metrics: [{name: toy-mse}]}
rows:
  vae: {model: {name: toy-vae, latent_dim: 1}, published: {toy-mse: 1, }, plus_minus: {toy-mse: 0.5}}
  theirs: {label: Theirs, note: as printed, published: {toy-mse: 2}}
scales: {desk: {rows: {vae: null}}}
""")
    assert experiment.runs == ()
    assert (experiment.rows["theirs"].label, experiment.rows["theirs"].note) == ("Theirs", "as printed")
    assert (experiment.rows["vae"].published, experiment.rows["vae"].plus_minus) == ({"toy-mse": 1.0}, {"toy-mse": 0.5})


# Several data sets.

SEVERAL = """
shared:
  data: {faces: {name: toy-images, resolution: 32}, rooms: {name: toy-images, resolution: 64}}
  model: {name: toy-vae, latent_dim: 1}
  metrics: [{name: toy-mse}, {name: toy-psnr}]
rows:
  vae: {on: {rooms: {model: {latent_dim: 2}, flip: false}}}
"""


def test_a_row_runs_on_every_data_set_and_on_says_what_holds_on_one(table):
    experiment = table(SEVERAL + "seeds: [0, 1]\n")
    assert [(run.data_name, run.seed, run.model["latent_dim"], run.flip) for run in experiment.runs] == [
        ("faces", 0, 1, True),
        ("faces", 1, 1, True),
        ("rooms", 0, 2, False),
        ("rooms", 1, 2, False),
    ]


def test_on_is_laid_right_after_its_row_so_a_scale_wins(table):
    experiment = table(SEVERAL + "scales: {desk: {shared: {model: {latent_dim: 3}}}}\n")
    assert [run.model["latent_dim"] for run in experiment.runs] == [3, 3]
    assert [run.flip for run in experiment.runs] == [True, False]


def test_metrics_make_a_column_per_data_set_and_a_run_has_those_of_its_own(table):
    experiment = table(SEVERAL)
    assert list(experiment.columns) == ["toy-mse/faces", "toy-mse/rooms", "toy-psnr/faces", "toy-psnr/rooms"]
    assert [column.id for column in experiment.runs[1].columns] == ["toy-mse/rooms", "toy-psnr/rooms"]
    assert (experiment.columns["toy-mse/faces"].direction, experiment.columns["toy-psnr/faces"].direction) == ("min", "max")


def test_a_data_set_removed_at_a_scale_takes_its_columns_with_it(table):
    experiment = table(SEVERAL + "scales: {desk: {shared: {data: {rooms: null}}}}\n")
    assert [run.data_name for run in experiment.runs] == ["faces"]
    removed = {key for key, column in experiment.columns.items() if column.removed}
    assert removed == {"toy-mse/rooms", "toy-psnr/rooms"}


def test_one_data_set_takes_the_place_of_several_and_the_other_way_round(table):
    one = table(SEVERAL + "scales: {desk: {shared: {data: {name: toy-images}}}}\n")
    assert [run.data_name for run in one.runs] == ["toy-images"]
    text = "shared: {data: {name: toy-images}, model: {name: toy-vae, latent_dim: 1}}\nrows: {vae: {}}\n"
    several = table(text + "scales: {desk: {shared: {data: {faces: {name: toy-images}}}}}\n")
    assert [run.data_name for run in several.runs] == ["faces"]


def test_a_column_of_a_data_set_that_a_scale_lacks_is_removed_there(table):
    text = SEVERAL.replace(
        "metrics: [{name: toy-mse}, {name: toy-psnr}]", "columns: {error: {metric: {name: toy-mse}, data: faces}}"
    )
    experiment = table(text + "scales: {desk: {shared: {data: {name: toy-images}}}, half: {shared: {data: {faces: null}}}}\n")
    assert experiment.columns["error"].removed
    assert table(text + "scales: {desk: {shared: {data: {faces: null}}}}\n").columns["error"].removed


# Columns.

COLUMNS = """
shared:
  data: {name: toy-images, resolution: 64}
  model: {name: toy-vae, latent_dim: 1}
  columns:
    sharpness:
      metric: {name: toy-psnr, crop: face}
      data: toy-images
      measure_on: {name: toy-images, split: train, count: 100}
    error: {metric: {name: toy-mse}}
rows: {vae: {published: {sharpness: 20, error: 0.1}}}
scales:
  desk: {shared: {data: {resolution: 16}, columns: {sharpness: {metric: {name: toy-ssim}}}}}
  small: {shared: {columns: {error: null, sharpness: {metric: {crop: none}}}}}
"""


def test_a_column_measures_on_the_data_it_names(table):
    column = table(COLUMNS, scale="paper").columns["sharpness"]
    assert column.measure_on == {"name": "toy-images", "resolution": 32, "split": "train", "count": 100}
    assert (column.metric, column.direction, column.in_place_of) == ({"name": "toy-psnr", "crop": "face"}, "max", None)


def test_a_column_whose_metric_is_exchanged_says_for_what_it_stands(table):
    columns = table(COLUMNS).columns
    assert columns["sharpness"].in_place_of == "toy-psnr, toy-images"
    assert columns["sharpness"].direction == "max"
    assert columns["error"].in_place_of == "64x64"


def test_a_column_removed_at_a_scale_stays_with_the_papers_numbers(table):
    experiment = table(COLUMNS, scale="small")
    assert experiment.columns["error"].removed
    assert [column.id for column in experiment.runs[0].columns] == ["sharpness"]
    assert experiment.columns["sharpness"].in_place_of is None  # the same metric with another setting
    assert experiment.rows["vae"].published["error"] == 0.1


def test_rows_may_not_measure_different_things_under_one_column(table):
    text = """
shared: {data: {name: toy-images}, model: {name: toy-vae, latent_dim: 1}, metrics: [{name: toy-mse}]}
rows: {vae: {}, other: {columns: {toy-mse: {metric: {num_images: 10}}}}}
"""
    with pytest.raises(ExperimentError, match="another row measures column 'toy-mse' otherwise"):
        table(text)


# Other files.


def test_use_takes_another_files_row_with_its_identity(toy_project, table):
    (toy_project / "experiments" / "paper").mkdir()
    (toy_project / "experiments" / "paper" / "two.yaml").write_text(f"""
table: paper/two
imports: [stand_ins]
shared:
  data: {{name: toy-images, resolution: 16}}{TRAINED}
  metrics: [{{name: toy-psnr}}]
rows:
  vae: {{model: {{name: toy-vae, latent_dim: 3}}}}
scales: {{desk: {{shared: {{model: {{latent_dim: 2}}}}}}}}
""")
    text = """
shared: {metrics: [{name: toy-mse}]}
rows: {theirs: {use: paper/two/vae}, wider: {use: paper/two/vae, model: {latent_dim: 9}}}
scales: {desk: {seeds: [0]}}
"""
    runs = runs_by_row(table(text))
    assert runs["theirs"].identity == load("paper/two").runs[0].identity
    assert runs["wider"].model["latent_dim"] == 9
    assert [column.id for column in runs["theirs"].columns] == ["toy-mse"]
    assert runs_by_row(table(text, scale="paper"))["theirs"].model["latent_dim"] == 3


def test_experiments_are_found_by_name_and_by_path(toy_project, monkeypatch):
    path = toy_project / "experiments" / "paper" / "two.yaml"
    path.parent.mkdir()
    path.write_text("")
    assert list_experiments(toy_project) == {"paper/two": path}
    for name in ("paper/two", "experiments/paper/two.yaml", str(path)):
        assert find(name).resolve() == path
    monkeypatch.chdir(path.parent)
    assert find("paper/two") == path


def test_the_root_is_the_nearest_project_else_the_files_own_folder(tmp_path):
    (tmp_path / "project" / "experiments").mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").touch()
    assert project_root(tmp_path / "project" / "experiments" / "one.yaml") == tmp_path / "project"
    assert project_root(tmp_path / "project") == tmp_path / "project"
    assert project_root(tmp_path / "one.yaml") == tmp_path


def test_anchors_and_merge_keys_work_as_yaml_says(table):
    experiment = table("""
shared: {data: {name: toy-images}}
rows:
  vae: {model: &vae {name: toy-vae, latent_dim: 8, dropout: 0.5}}
  wide: {model: {<<: *vae, dropout: 0.1}}
""")
    assert runs_by_row(experiment)["wide"].model["latent_dim"] == 8
    assert runs_by_row(experiment)["wide"].model["dropout"] == 0.1


def test_every_experiment_of_this_project_loads_at_every_scale(repository, monkeypatch):
    monkeypatch.chdir(repository)
    experiments = list_experiments(repository)
    assert "quickstart" in experiments
    for path in experiments.values():
        assert load(path, scale="paper").rows
        assert load(path).rows


def test_the_file_that_the_documentation_begins_with_loads_at_both_scales(repository, toy_project):
    text = (repository / "docs" / "experiments.md").read_text().split("```yaml\n")[1].split("```")[0]
    (toy_project / "documented.yaml").write_text(text)
    desk, paper = load("documented.yaml"), load("documented.yaml", scale="paper")
    assert (desk.runs[0].data["name"], paper.runs[0].data["name"]) == ("synthetic-faces", "celeba-hq")
    assert (desk.scale, desk.seeds) == ("desk", (0, 1, 2))
    assert [column.in_place_of for column in desk.columns.values()] == ["celeba-hq"] * 3
