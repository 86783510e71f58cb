"""Snapshots of a project: what is in them, what tells one from another, and what provenance says of them."""

import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from genae import provenance, snapshot
from genae.experiment import load
from genae.registry import MODELS

PHASES = [{"resolution": 8, "batch_size": 10, "learning_rate": 0.002}]
ROW = {
    "data": {"name": "fashion-mnist", "resolution": 8, "count": 30},
    "model": {"name": "vae-classic", **MODELS["vae-classic"].small},
    "stages": {"autoencoder": {"objective": {"name": "elbo"}, "schedule": {"total_kimg": 0.04, "phases": PHASES}}},
    "metrics": [{"name": "mse"}],
}


def git(root: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *settings, "-C", root, *arguments], check=True, capture_output=True)


def commit(root: Path) -> None:
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")


def checkout(root: Path, **modules: str) -> Path:
    """A repository in which these modules are committed, by what is in their files."""
    root.mkdir(parents=True)
    git(root, "init", "-q")
    for name, text in modules.items():
        (root / f"{name}.py").write_text(text)
    commit(root)
    return root


@pytest.fixture
def root(tmp_path):
    return checkout(tmp_path / "project", mine="VERSION = 1\n")


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "snapshots"


# What tells one from another.


def test_code_that_is_committed_after_a_launch_is_launched_again_as_clean(root, kept):
    (root / "mine.py").write_text("VERSION = 2\n")
    dirty = snapshot.take(root, kept)
    commit(root)
    clean = snapshot.take(root, kept)
    assert (clean / "mine.py").read_text() == (dirty / "mine.py").read_text()
    assert provenance.code(clean) == provenance.code(root) | {"snapshot": clean.name}
    assert provenance.code(dirty)["dirty"]
    assert provenance.code(clean)["dirty"] is None


def test_a_file_that_is_edited_while_it_is_copied_is_kept_under_the_digest_of_the_copy(root, kept, monkeypatch):
    def copy_after_an_edit(given, place):
        Path(given).write_text("VERSION = 2\n")
        return shutil.copy(given, place)

    with monkeypatch.context() as patched:
        patched.setattr(snapshot.shutil, "copy2", copy_after_an_edit)
        edited = snapshot.take(root, kept)
    (root / "mine.py").write_text("VERSION = 1\n")
    again = snapshot.take(root, kept)
    assert (edited / "mine.py").read_text() == "VERSION = 2\n"
    assert (again / "mine.py").read_text() == "VERSION = 1\n"
    (root / "mine.py").write_text("VERSION = 2\n")
    assert snapshot.take(root, kept) == edited


def test_nothing_is_left_beside_the_snapshots(root, kept):
    first = snapshot.take(root, kept)
    assert snapshot.take(root, kept) == first
    assert list(kept.iterdir()) == [first]


# How much is copied.


def test_too_much_that_git_does_not_keep_is_refused_and_the_largest_named(root, kept, monkeypatch):
    monkeypatch.setattr(snapshot, "MOST_UNTRACKED", 1000)
    (root / "data").mkdir()
    (root / "data" / "faces.bin").write_bytes(b"0" * 900)
    (root / "data" / "names.txt").write_bytes(b"0" * 90)
    snapshot.take(root, kept)
    (root / "data" / "more.txt").write_bytes(b"0" * 90)
    with pytest.raises(ValueError, match=r"The largest file is data/faces\.bin: add it, or its folder, to \.gitignore"):
        snapshot.take(root, kept)
    (root / ".gitignore").write_text("data/\n")
    assert not (snapshot.take(root, kept) / "data").exists()


def test_what_git_keeps_and_results_may_be_large(root, kept, monkeypatch):
    (root / "table.bin").write_bytes(b"0" * 2000)
    commit(root)
    (root / "results").mkdir()
    (root / "results" / "weights.bin").write_bytes(b"0" * 2000)
    monkeypatch.setattr(snapshot, "MOST_UNTRACKED", 1000)
    assert (snapshot.take(root, kept) / "table.bin").exists()


# Submodules and links.


def test_a_submodule_and_one_in_it_are_copied(root, kept, tmp_path):
    inner, outer = checkout(tmp_path / "inner", low="LOW = 1\n"), checkout(tmp_path / "outer", high="HIGH = 1\n")
    git(outer, "submodule", "add", str(inner), "within")
    commit(outer)
    git(root, "submodule", "add", str(outer), "vendor/outer")
    git(root, "submodule", "update", "--init", "--recursive")
    commit(root)
    (root / "vendor" / "outer" / "within" / "new.py").write_text("NEW = 1\n")  # and nobody added it yet
    copy = snapshot.take(root, kept) / "vendor" / "outer"
    assert (copy / "high.py").read_text() == "HIGH = 1\n"
    assert {path.name for path in (copy / "within").iterdir()} == {"low.py", "new.py"}


def test_a_submodule_that_was_not_fetched_is_left_out(root, kept, tmp_path):
    git(root, "submodule", "add", str(checkout(tmp_path / "outer", high="HIGH = 1\n")), "outer")
    commit(root)
    git(root, "submodule", "deinit", "-f", "outer")
    copy = snapshot.take(root, kept)
    assert (copy / "mine.py").exists()
    assert not (copy / "outer").exists()


@pytest.mark.parametrize("in_git", [True, False])
def test_links_to_folders_lead_into_the_snapshot_or_to_where_they_led(tmp_path, kept, in_git):
    root = checkout(tmp_path / "project", mine="VERSION = 1\n")
    for folder in (root / "package", root / "results", tmp_path / "outside"):
        folder.mkdir()
        (folder / "part.py").write_text("PART = 1\n")
    (root / "below").mkdir()
    (root / "below" / "inside").symlink_to("../package")
    (root / "absolute").symlink_to(root / "package")
    (root / "generated").symlink_to("results")
    (root / "outside").symlink_to("../outside")
    (root / "itself").symlink_to(".")
    (root / "nowhere").symlink_to("nothing")
    if not in_git:
        shutil.rmtree(root / ".git")
    copy = snapshot.take(root, kept)
    for link in ("below/inside", "absolute"):
        assert (copy / link / "part.py").resolve() == copy / "package" / "part.py"
    assert (copy / "itself").resolve() == copy
    assert (copy / "generated").resolve() == root / "results"  # which is not copied
    assert (copy / "outside" / "part.py").resolve() == tmp_path / "outside" / "part.py"
    assert not os.path.lexists(copy / "nowhere")
    assert not (copy / "results").exists()


def test_a_link_that_leads_elsewhere_makes_another_snapshot(root, kept):
    (root / ".gitignore").write_text("one/\ntwo/\n")
    for folder in ("one", "two"):
        (root / folder).mkdir()
    (root / "link").symlink_to("one")
    git(root, "add", ".")
    first = snapshot.take(root, kept)
    (root / "link").unlink()
    (root / "link").symlink_to("two")
    assert snapshot.take(root, kept) != first


# What git ignores.


def table(root: Path, name: str, rows: dict, **keys) -> Path:
    path = root / "experiments" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"table": name, **keys, "rows": rows}))
    return path


def test_an_experiment_that_git_ignores_is_in_the_snapshot_with_all_that_it_uses(root, kept, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (root / "setup.cfg").touch()
    (root / ".gitignore").write_text("experiments/\nhidden_*\n")
    (root / "hidden_parts.py").write_text("PARTS = 1\n")
    (root / "hidden_package").mkdir()
    (root / "hidden_package" / "__init__.py").touch()
    (root / "hidden_package" / "model.py").write_text("import hidden_parts\n")
    (root / "hidden_notes.txt").touch()
    table(root, "snapshot/below", {"row": ROW}, imports=["hidden_package.model"])
    table(root, "snapshot/between", {"row": {"use": "snapshot/below/row"}})
    path = table(root, "snapshot/table", {"row": {"use": "snapshot/between/row"}})
    table(root, "snapshot/other", {"row": ROW})
    for module in ("hidden_package", "hidden_package.model", "hidden_parts"):
        monkeypatch.delitem(sys.modules, module, raising=False)

    given = load(path)
    assert not (snapshot.take(root, kept) / "experiments").exists()
    copy = snapshot.take(root, kept, snapshot.needed_by(given))
    assert {path.stem for path in (copy / "experiments" / "snapshot").iterdir()} == {"below", "between", "table"}
    assert {path.name for path in copy.glob("hidden_*")} == {"hidden_package", "hidden_parts.py"}
    assert {path.name for path in (copy / "hidden_package").glob("*.py")} == {"__init__.py", "model.py"}
    assert load(copy / "experiments" / "snapshot" / "table.yaml").runs[0].stages == given.runs[0].stages
    (root / "hidden_parts.py").write_text("PARTS = 2\n")
    assert snapshot.take(root, kept, snapshot.needed_by(given)) != copy


def test_what_is_needed_beyond_a_link_is_there_by_the_link(root, kept, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "part.py").write_text("PART = 1\n")
    (root / ".gitignore").write_text("link\n")
    (root / "link").symlink_to(tmp_path / "outside")
    copy = snapshot.take(root, kept, [root / "link" / "part.py", tmp_path / "outside" / "part.py"])
    assert (copy / "link").is_symlink()
    assert (copy / "link" / "part.py").read_text() == "PART = 1\n"


def test_an_environment_in_the_project_is_none_of_its_modules(root, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = table(root, "snapshot/table", {"row": ROW})
    (root / "environment").mkdir()
    for name, folder in {"its_own": root, "installed": root / "environment"}.items():
        module = types.ModuleType(name)
        module.__file__ = str(folder / f"{name}.py")
        Path(module.__file__).touch()
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(snapshot, "INSTALLED", [root / "environment"])
    assert snapshot.needed_by(load(path)) == {path, root / "its_own.py"}


# Provenance.


def test_results_of_a_project_in_a_larger_repository_are_no_change_to_its_code(tmp_path):
    top = checkout(tmp_path / "top", mine="VERSION = 1\n")
    project = top / "some" / "project"
    for folder in ("results", "reports"):
        (project / folder).mkdir(parents=True)
        (project / folder / "kept.jsonl").write_text("{}\n")
    commit(top)
    assert provenance.code(project)["dirty"] is None
    for folder in ("results", "reports"):
        (project / folder / "kept.jsonl").write_text("{}\n{}\n")
        (project / folder / "new.jsonl").write_text("{}\n")
    assert provenance.code(project)["dirty"] is None
    (top / "mine.py").write_text("VERSION = 2\n")
    assert provenance.code(project)["dirty"]
