"""docs/paper-and-code-iae.md against the code: every setting that it names is there, with the default that it says."""

import json
import re

import pytest
import yaml

from genae.registry import DENSITIES, MODELS, OBJECTIVES
from genae.spec import KeepBest

ROW = re.compile(r"^\|(.*)\|$", re.MULTILINE)
KINDS = {"density": DENSITIES, "objective": OBJECTIVES, "model": MODELS}


@pytest.fixture(scope="module")
def settings(repository) -> list[tuple[str, str, str]]:
    """(kind and name, setting, default) of each row that names a setting."""
    text = (repository / "docs" / "paper-and-code-iae.md").read_text()
    rows = [[cell.strip() for cell in row.split(" |")] for row in ROW.findall(text) if not row.startswith("---")]
    assert all(len(row) == 4 for row in rows)
    found = []
    for _, _, setting, default in rows:
        match = re.fullmatch(r"(\w+) `([\w-]+)`: `(\w+)`", setting)
        if match:
            found.append((match[1], match[2], match[3], default.strip("`")))
    return found


def test_settings_have_the_defaults_of_the_page(settings):
    assert len(settings) >= 12
    for kind, name, setting, default in settings:
        found = KINDS[kind][name].settings[setting].default
        assert json.loads(json.dumps(found)) == yaml.safe_load(default), f"{kind} {name}: {setting}"


def test_the_split_that_chooses_is_the_validation_split():
    assert KeepBest(every_kimg=1.0).split == "validation"
