"""The JSON Schema of experiment files: an editor completes and checks with it what `load` reads."""

import json
import re

import pytest
import yaml

from genae.experiment import import_modules, json_schema, list_experiments, load

# What adding a baseline looks like: the file of the acid test, with the stand-ins' names.
NEW_BASELINE = """
table: baselines/swae
imports: [stand_ins]
rows:
  swae:
    data: {name: toy-images, resolution: 16}
    model: {name: toy-vae, latent_dim: 8}
    stages:
      autoencoder:
        objective: {name: toy-elbo}
        schedule: {total_kimg: 20, phases: [{resolution: 16, batch_size: 64, learning_rate: 0.002}]}
    metrics: [{name: toy-mse}]
"""
KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": int | float,
}


def fits(value, schema, root):
    """Whether a value fits a schema, for the words of JSON Schema that genae writes."""
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    kind = schema.get("type")
    if kind and (not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind in ("integer", "number"))):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "anyOf" in schema and not any(fits(value, choice, root) for choice in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(fits(value, choice, root) for choice in schema["oneOf"]) != 1:
        return False
    if "not" in schema and fits(value, schema["not"], root):
        return False
    if "minimum" in schema and value < schema["minimum"]:
        return False
    if isinstance(value, list):
        return all(fits(item, schema.get("items", {}), root) for item in value)
    if not isinstance(value, dict):
        return True
    if not set(schema.get("required", [])) <= value.keys():
        return False
    pattern = schema.get("propertyNames", {}).get("pattern", "")
    if not all(re.search(pattern, key) for key in value):
        return False
    others = schema.get("additionalProperties", {})
    return all(
        fits(inner, schema["properties"][key], root)
        if key in schema.get("properties", {})
        else others is not False and fits(inner, others, root)
        for key, inner in value.items()
    )


def as_json(text):
    """A YAML text as JSON has it: all keys are texts (YAML 1.1 reads the key `on` as true)."""
    return json.loads(json.dumps(yaml.safe_load(text)).replace('"true": ', '"on": '))


@pytest.fixture
def schema(toy_project):
    import_modules(["stand_ins"], toy_project)
    return json_schema()


def test_the_schema_is_plain_json(schema):
    assert json.loads(json.dumps(schema)) == schema


def test_a_new_baselines_file_fits_and_loads(schema, toy_project):
    (toy_project / "swae.yaml").write_text(NEW_BASELINE)
    assert fits(as_json(NEW_BASELINE), schema, schema)
    assert load("swae.yaml").runs[0].model["latent_dim"] == 8


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("latent_dim: 8", "latent_dm: 8"),
        ("latent_dim: 8", "latent_dim: 8.5"),
        ("latent_dim: 8", "latent_dim: -8"),
        ("latent_dim: 8", "latent_dim: 8, norm: bach"),
        ("name: toy-vae", "name: toy-vea"),
        ("total_kimg", "total_king"),
        ("batch_size: 64", "batch_size: many"),
        ("    metrics:", "    metric:"),
        ("  swae:", "  swae_1:"),
        ("table: baselines/swae\n", ""),
    ],
)
def test_what_load_refuses_does_not_fit(schema, right, wrong):
    assert right in NEW_BASELINE
    assert not fits(as_json(NEW_BASELINE.replace(right, wrong, 1)), schema, schema)


def test_an_overlay_may_give_a_part_of_a_component_or_null(schema):
    overlay = "scales: {desk: {shared: {model: {latent_dim: 2}, columns: {error: null}}, rows: {swae: null}, seeds: [0]}}"
    assert fits(as_json(NEW_BASELINE + overlay), schema, schema)


def test_settings_carry_their_defaults_and_what_the_docstring_says_of_them(schema):
    (model,) = (choice for choice in schema["$defs"]["model"]["oneOf"] if choice.get("title") == "toy-vae")
    assert model["required"] == ["name", "latent_dim"]
    assert model["properties"]["dropout"] == {"type": "number", "default": 0.0}
    assert model["properties"]["channels"]["items"] == {"type": "integer", "minimum": 1}
    phase = schema["$defs"]["schedule"]["properties"]["phases"]["anyOf"][0]["items"]
    assert phase["additionalProperties"] is False
    compute = schema["$defs"]["compute"]["properties"]
    assert compute["precision"]["description"] == "of the network's arithmetic while training."
    assert compute["log_kimg"]["description"] == "thousands of images between lines of progress.jsonl."
    assert compute["log_kimg"]["default"] == 1.0


def test_every_experiment_of_this_project_fits(repository, toy_project):
    for path in list_experiments(repository).values():
        experiment = as_json(path.read_text())
        import_modules(experiment.get("imports", []), repository)
        assert fits(experiment, json_schema(), json_schema()), path
