"""What provenance says of a project."""

import subprocess
from pathlib import Path

from genae import provenance


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
