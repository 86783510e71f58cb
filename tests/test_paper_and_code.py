"""docs/paper-and-code.md against the rows of Table 1: these differ in what the page lists, by its values, and in no more."""

import re
from typing import Any

import pytest
import yaml

from genae.experiment import load

ROW = re.compile(r"^\| (\d+) \|(.*)\|$", re.MULTILINE)
ROWS = ("layer-robust", "released-code")
TABLE1 = "experiments/automodulator-2020/table1.yaml"


@pytest.fixture(scope="module")
def page(repository) -> dict[int, list[str]]:
    """Number -> the other cells: paper, code, setting, and the two rows' values."""
    found = ROW.findall((repository / "docs" / "paper-and-code.md").read_text())
    assert len({number for number, _ in found}) == len(found)
    return {int(number): [cell.strip() for cell in rest.split(" |")] for number, rest in found}


@pytest.fixture(scope="module")
def resolved(repository) -> dict[str, dict[str, Any]]:
    """Each row -> its settings by key path, at scale paper."""
    runs = {run.row: run.to_dict() for run in load(repository / TABLE1, scale="paper").runs}
    found = {}
    for row in ROWS:
        (stage,) = runs[row]["stages"]
        decides = {key: runs[row][key] for key in ("data", "flip", "model")}
        decides |= {key: stage[key] for key in ("objective", "schedule", "optimizer", "average")}
        found[row] = dict(leaves("", decides))
    return found


def leaves(path: str, value: Any):
    """(key path, value) of everything below; a list of numbers is one value, a list of phases is not."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(f"{path}.{key}".lstrip("."), inner)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, inner in enumerate(value):
            yield from leaves(f"{path}.{index}", inner)
    else:
        yield path, value


def parts(cell: str) -> list[str]:
    """What stands between backticks on each line of a cell, and nothing else may."""
    lines = cell.split("<br>")
    assert all(re.fullmatch(r"`[^`]+`", line) for line in lines), cell
    return [line.strip("`") for line in lines]


def listed(page: dict[int, list[str]]) -> list[tuple[str, Any, Any]]:
    """(key path, value in layer-robust, value in released-code) of every setting on the page."""
    found = []
    for _, _, setting, *values in page.values():
        if setting.startswith("not a setting, because "):
            assert values == ["", ""]
            continue
        paper, released = ([yaml.safe_load(value) for value in parts(cell)] for cell in values)
        found += zip(parts(setting), paper, released, strict=True)
    return found


def test_the_nineteen_are_all_there_and_each_is_a_setting_or_says_why_not(page):
    assert set(range(1, 20)) <= set(page)
    for number, (paper, code, setting, *_) in page.items():
        assert paper, number
        assert code, number
        assert setting.startswith(("`", "not a setting, because ")), number


def test_the_rows_have_the_values_that_the_page_gives(page, resolved):
    for path, paper, released in listed(page):
        assert resolved["layer-robust"][path] == paper, path
        assert resolved["released-code"][path] == released, path


def test_released_code_differs_from_layer_robust_in_exactly_what_the_page_lists(page, resolved):
    paper, released = (resolved[row] for row in ROWS)
    assert paper.keys() == released.keys()
    different = {path for path in paper if paper[path] != released[path]}
    assert different == {path for path, ours, theirs in listed(page) if ours != theirs}
    assert len(different) >= 12, "a page that lists nothing would agree too"


def test_the_invariance_is_added_or_replacing_where_the_page_says(repository):
    runs = load(repository / "experiments/automodulator-2020/invariance.yaml", scale="paper").runs
    forms = {run.row: run.stages[0].objective["invariance"] for run in runs}
    assert {"added", "replacing"} <= set(forms.values())
    for run in runs:
        if forms[run.row] != "none":
            assert (run.model["extra_layer"], run.model["noise"]) == (8, False)
