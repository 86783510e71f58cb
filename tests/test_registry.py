"""Names in YAML -> factories."""

import pytest

from genae.registry import DATASETS, MODELS, REGISTRIES, Registry


@pytest.fixture
def registry():
    made = Registry("model", "models")
    made._loaded = True  # only what the test adds
    return made


def test_a_spec_builds_the_factory_with_its_settings(registry):
    @registry.add("pair")
    def pair(shape, *, dim: int = 4):
        """A pair. More."""
        return shape, dim

    assert registry.build({"name": "pair", "dim": 7}, "shape") == ("shape", 7)
    assert list(registry["pair"].settings) == ["dim"]
    assert registry["pair"].summary == "A pair. More."


def test_an_unknown_name_is_answered_with_the_nearest_and_all(registry):
    registry.add("automodulator")(lambda shape: None)
    registry.add("vae-adain")(lambda shape: None)
    with pytest.raises(
        ValueError, match=r"unknown model 'automodulater'; did you mean 'automodulator'\? known: automodulator, vae-adain"
    ):
        registry["automodulater"]


def test_a_name_taken_by_another_factory_is_refused(registry):
    def first(shape): ...
    def second(shape): ...

    registry.add("same")(first)
    registry.add("same")(first)  # the same module imported again
    with pytest.raises(ValueError, match="'same' is registered twice"):
        registry.add("same")(second)


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_every_kind_has_something_and_every_entry_says_what_it_is(registry):
    assert registry.names()
    for name in registry.names():
        assert registry[name].summary, f"{registry.kind} {name} has no docstring"
        assert set(registry[name].small) <= set(registry[name].settings)


def test_the_first_look_up_finds_what_the_folder_holds():
    assert {"automodulator", "vae-classic", "vae-adain"} <= set(MODELS.names())
    assert {"fashion-mnist", "synthetic-faces", "folder"} <= set(DATASETS.names())


def test_lists_and_keys_from_yaml_reach_the_factory_as_its_annotations_want_them(registry):
    @registry.add("typed")
    def typed(
        shape,
        *,
        pair: tuple[float, float] = (0.0, 1.0),
        maybe: tuple[int, ...] | None = None,
        rows: list[tuple[str, ...]] | None = None,
        channels: dict[int, tuple[int, ...]] | int = 8,
        free=None,
    ):
        return pair, maybe, rows, channels, free

    spec = {"pair": [0.5, 1.0], "maybe": [1], "rows": [["a"]], "channels": {"4": [8, 8]}, "free": [[1]]}
    assert registry.build({"name": "typed", **spec}, "shape") == ((0.5, 1.0), (1,), [("a",)], {4: (8, 8)}, [[1]])
    assert registry.build({"name": "typed"}, "shape") == ((0.0, 1.0), None, None, 8, None)
