"""What must start at once, or run on a log-in node, imports no torch."""

import subprocess
import sys

import pytest

WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Refuse())
"""


def run(code):
    return subprocess.run([sys.executable, "-c", WITHOUT_TORCH + code], capture_output=True, text=True, check=False)


LIGHT = ["cli", "rundir", "results", "provenance", "cache", "launcher", "plots", "claims", "report", "registry", "schedule"]
OF_CLUSTERS = ["shared_files", "slurm", "announced", "status", "logs", "snapshot", "cluster", "plan"]


@pytest.mark.parametrize("module", [*LIGHT, *OF_CLUSTERS])
def test_a_light_module_imports_no_torch(module):
    done = run(f"import genae.{module}")
    assert done.returncode == 0, done.stderr


def test_help_needs_no_torch():
    done = run("sys.argv = ['genae', '--help']; from genae.cli import main; main()")
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


def test_the_refusal_in_these_tests_works():
    assert "torch was imported" in run("import torch").stderr
