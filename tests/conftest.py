"""What every test shares: one thread, float32 by default, a log of what ran, and a cache of the session's own."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from genae.registry import REGISTRIES

torch.set_num_threads(1)


class OutcomeLog:
    """One line per test in a file: its outcome and its id.

    It is opened before the first test: tests put faults into what opens files, and reports are written while these last.
    """

    def __init__(self, path: str) -> None:
        self.file = Path(path).open("a", buffering=1)  # noqa: SIM115 (closed when pytest ends)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome == "skipped":
            self.file.write(f"{report.outcome}\t{report.nodeid}\n")

    def pytest_unconfigure(self):
        self.file.close()


def pytest_configure(config):
    if os.environ.get("CI"):
        from hypothesis import settings

        settings.register_profile("ci", derandomize=True, deadline=None)
        settings.load_profile("ci")
    log = os.environ.get("GENAE_TEST_LOG")
    if log and not hasattr(config, "workerinput"):  # the workers' reports reach the process that started them
        config.pluginmanager.register(OutcomeLog(log))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder of the project."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def toy_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Iterator[Path]:
    """A user's project, whose `stand_ins` has components with settings and nothing behind them. Nothing stays registered."""
    for registry in REGISTRIES:
        registry.names()  # so that what is kept is all of it
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(sys, "path", list(sys.path))
    imported = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    shutil.copy(repository / "tests" / "bad_experiments" / "stand_ins.py", tmp_path)
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "experiments").mkdir()
    yield tmp_path
    registered = {entry.factory.__module__ for registry in REGISTRIES for entry in registry._entries.values()}
    for module in registered - imported:  # so that importing it again registers it again
        del sys.modules[module]
