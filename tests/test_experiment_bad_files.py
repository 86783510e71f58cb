"""Every file of tests/bad_experiments is refused at load, and says so in one screen: where, which key, what is wrong, what to
write. What it must say stands in the file itself, after `# expect:` (the line, the key path, the words)."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genae.cli import main
from genae.experiment import ExperimentError, find, load
from genae.registry import DATASETS

FILES = sorted((Path(__file__).parent / "bad_experiments").glob("*.yaml"))


@pytest.fixture
def bad_project(toy_project):
    for path in FILES:
        shutil.copy(path, toy_project)
    return toy_project


def refusal(path, **options):
    with pytest.raises(ExperimentError) as caught:
        load(path, **options)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize("name", [path.name for path in FILES])
def test_a_bad_file_is_refused_with_file_line_key_and_what_to_write(bad_project, name):
    expected = re.findall(r"^# expect: (.+)$", (bad_project / name).read_text(), re.MULTILINE)
    assert expected

    message = refusal(bad_project / name)

    for line in expected:
        assert f"{name}:{line}" in message
    assert len(message.splitlines()) < 25
    assert "Traceback" not in message
    assert "pydantic" not in message
    assert str(bad_project) not in message or name == "unknown-module.yaml"  # which must say where it has looked


def test_there_are_at_least_thirty_kinds_of_bad_files():
    assert len({path.stem for path in FILES}) >= 30


def test_the_line_that_is_named_is_shown(bad_project):
    message = refusal(bad_project / "misspelt-setting.yaml")
    assert message.splitlines()[1] == "    17 |     model: {name: toy-vae, latent_dm: 8}"


def test_a_file_that_is_not_text_is_refused(toy_project):
    path = toy_project / "latin.yaml"
    path.write_bytes("table: paper/one\nsource: Müller\n".encode("latin-1"))
    assert refusal(path) == "latin.yaml:2: not UTF-8 text"


def test_a_control_character_is_refused_with_its_line(toy_project):
    path = toy_project / "control.yaml"
    path.write_text("table: paper/one\nsource: a\x07b\n")
    assert refusal(path).startswith("control.yaml:2: broken YAML")


def test_rows_that_use_one_another_in_a_circle_are_refused(toy_project):
    for here, there in (("one", "two"), ("two", "one")):
        text = f"table: {here}\nrows: {{vae: {{use: {there}/vae}}}}\n"
        (toy_project / "experiments" / f"{here}.yaml").write_text(text)
    assert "in a circle: two/vae -> one/vae -> two/vae" in refusal("one")


def test_a_module_that_cannot_import_something_else_fails_as_python_does(toy_project):
    (toy_project / "halfway.py").write_text("import nothing_of_this_name\n")
    (toy_project / "experiments" / "one.yaml").write_text("table: one\nimports: [halfway]\nrows: {vae: {}}\n")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        load("one")


def test_a_name_that_is_registered_twice_is_told_at_the_import(toy_project):
    (toy_project / "again.py").write_text(
        "from genae.registry import MODELS\n@MODELS.add('toy-vae')\ndef mine(shape, *, dim: int = 8): ...\n"
    )
    (toy_project / "experiments" / "one.yaml").write_text("table: one\nimports: [stand_ins, again]\nrows: {vae: {}}\n")
    message = refusal("one")
    assert message.startswith("experiments/one.yaml:2: imports[1]: importing 'again': model 'toy-vae' is registered twice")


def test_an_unknown_experiment_lists_what_there_is(toy_project):
    (toy_project / "experiments" / "quickstart.yaml").write_text("table: quickstart\nrows: {}\n")
    with pytest.raises(ExperimentError) as caught:
        find("quickstrat")
    assert str(caught.value) == "there is no experiment 'quickstrat'; did you mean 'quickstart'? known: quickstart"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.latent_dm=8",
            "command line: model.latent_dm: model 'toy-vae' has no setting 'latent_dm'; did you mean 'latent_dim'?",
        ),
        ("model.latent_dim=8.5", "command line: model.latent_dim: must be a whole number, not 8.5"),
        (
            "model.dropout=1e-3",
            "command line: model.dropout: must be a number, not the text '1e-3'; YAML reads 1e-3 as text: write 1.0e-3",
        ),
        ("modle.latent_dim=8", "command line: modle.latent_dim: 'modle' cannot be overridden; did you mean 'model'?"),
        (
            "rows.vea.model.latent_dim=8",
            "command line: rows.vea.model.latent_dim: there is no row 'vea' in this table; did you mean 'vae'?",
        ),
        ("rows.vae=8", "command line: rows.vae: write rows.<row>.key.path=value"),
        ("table=other", "command line: table: 'table' cannot be overridden"),
        ("model.latent_dim", "command line: an override is key.path=value, such as model.dim=8"),
        ("model={name: toy-vae", "command line: model: broken YAML"),
        ("stages.autoencoder.schedule.phases.7.margin=1", "'7' is not the index of an item; this list has 2, counted from 0"),
        ("seeds=[0, x]", "command line: seeds[1]: a seed is a whole number from 0, not the text 'x'"),
        ("metrics.0.crop=face", "command line: metrics.0.crop: give the whole list, or override a column"),
    ],
)
def test_a_bad_override_names_the_command_line(toy_project, repository, override, message):
    text = (repository / "tests" / "bad_experiments" / "duplicate-setting.yaml").read_text()
    (toy_project / "good.yaml").write_text(text.replace(", latent_dim: 16", ""))
    assert message in refusal("good.yaml", overrides=[override])


def test_unknown_rows_and_scales_and_impossible_seeds_are_refused(toy_project, repository):
    text = (repository / "tests" / "bad_experiments" / "duplicate-setting.yaml").read_text()
    (toy_project / "good.yaml").write_text(text.replace(", latent_dim: 16", ""))
    assert refusal("good.yaml", rows=["vae-wid"]) == (
        "good.yaml: it has no row 'vae-wid'; did you mean 'vae-wide'? known: vae, vae-wide"
    )
    for seeds in ([], [0, 0], [-1]):
        assert refusal("good.yaml", seeds=seeds) == f"seeds are different whole numbers from 0, not {seeds}"
    assert refusal("good.yaml", scale="desk") == "good.yaml: it has no scale 'desk'; known: paper"


def test_a_setting_of_any_registered_data_set_is_checked(toy_project):
    @DATASETS.add("toy-patches")
    def toy_patches(split, *, pairs: list[tuple[int, float]] | None = None, names: dict[str, bool] | None = None): ...

    def message(setting):
        path = toy_project / "one.yaml"
        path.write_text(f"table: one\nimports: [stand_ins]\nrows:\n  vae:\n    data: {{name: toy-patches, {setting}}}\n")
        return refusal(path)

    assert "data.pairs[0]: must be a list of 2 (a whole number, a number), not a list of 1" in message("pairs: [[1]]")
    assert "data.pairs[0][1]: must be a number, not the text 'x'" in message("pairs: [[1, x]]")
    assert "data.names.wide: must be true or false, not 1" in message("names: {wide: 1}")
    assert "data.pairs: must be a list of items, each a list of 2 (a whole number, a number) or null, not 3" in message(
        "pairs: 3"
    )


# Whatever stands anywhere in a file, it loads or is refused: nothing else happens.

RICH = """
table: paper/one
title: One
imports: [stand_ins]
shared:
  data: {faces: {name: toy-images, resolution: 16}, rooms: {name: toy-images, resolution: 16}}
  on: {rooms: {flip: false}}
  figures: [{name: toy-samples, num_rows: 2}]
  compute: {threads: 1, precision: float32}
rows:
  vae:
    label: VAE
    note: a note
    published: {toy-mse/faces: 0.21}
    plus_minus: {toy-mse/faces: 0.01}
    model: {name: toy-vae, latent_dim: 8, channels: [8, 8]}
    stages:
      autoencoder:
        objective: {name: toy-elbo, kl_weight: 0.5}
        schedule: {total_kimg: 2, phases: [{resolution: 16, batch_size: 4, learning_rate: {encoder: 0.001}}]}
        optimizer: {name: adam, betas: [0.0, 0.99], eps: 1.0e-8}
        average: {parts: [decoder], half_life_kimg: 10}
    metrics: [{name: toy-mse}]
    columns: {sharp: {metric: {name: toy-psnr}, data: faces, measure_on: {name: toy-images, split: test, count: 10}}}
scales:
  desk:
    seeds: [0, 1]
    shared: {data: {rooms: null}}
    rows: {vae: {model: {latent_dim: 4}, columns: {sharp: {metric: {name: toy-ssim}}}}}
seeds: [0]
claims: [{id: c1, text: Better, where: Sec. 4, expression: "toy-mse/faces[vae] < 1"}]
"""
VALUES = [
    None,
    True,
    0,
    -3,
    7,
    2.5,
    1e300,
    "",
    "x",
    "1e-3",
    "faces",
    "paper/one/vae",
    [],
    ["x"],
    [None],
    [[1]],
    {},
    {"name": None},
]
VALUES += [{"name": "x"}, {"name": ["x"]}, {"name": "toy-mse"}, {"x": None}, {"x": {"y": 1}}, {"": 1}, {"name": "toy-images"}]


def places(value, path=()):
    """The path of everything that stands in a value."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def with_another(value, path, other):
    """The value with another at a path."""
    if not path:
        return other
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = with_another(value[path[0]], path[1:], other)
    return copied


def test_whatever_stands_in_a_file_it_loads_or_is_refused(toy_project):
    good = yaml.safe_load(RICH.replace("  on:", '  "on":'))
    everywhere = list(places(good))
    path = toy_project / "experiments" / "one.yaml"

    @settings(max_examples=120, deadline=None)
    @given(st.sampled_from(everywhere), st.sampled_from(VALUES), st.sampled_from(["desk", "paper"]))
    @example((), good, "desk")
    @example((), good, "paper")
    def loads_or_is_refused(place, value, scale):
        path.write_text(yaml.safe_dump(with_another(good, place, value), sort_keys=False))
        message = ""
        try:
            assert load(path, scale=scale).table
        except ExperimentError as error:
            message = str(error)
        assert not message or (value is not good and message.startswith("experiments/one.yaml:"))
        assert len(message.splitlines()) < 25

    loads_or_is_refused()


@pytest.mark.parametrize("name", [path.name for path in FILES])
def test_the_command_line_answers_a_bad_file_with_one_message_and_exit_status_2(bad_project, name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["genae", "run", str(bad_project / name)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("genae: ")
    assert "Traceback" not in said.err
    assert len(said.err.splitlines()) < 25
    assert not (bad_project / "results").exists()
