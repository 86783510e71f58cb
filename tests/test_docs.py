"""Every command that README and docs show is run by a test: here, or by the one named; every relative link leads somewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from genae.conformance.tiny_copies import COPIES, write_copy
from genae.data.sources import SOURCES

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{page.name}" for page in (Path(__file__).parent.parent / "docs").glob("*.md")),
]
SHOWN = re.compile(r"(?:^|^ {4,}|`)((?:genae|make) [a-z][^`#\n|]*)", re.MULTILINE)

# What stands in for a reader's own words, and the commands that are examples of a form rather than to be typed.
ELSEWHERE = {
    "make quickstart": "tests/test_quickstart.py, in a folder of its own",
    "make test": ".ci/run",
    "make lint": "make test",
    "make test-slow": ".ci/run",
    "make test-slurm": ".ci/run",
    "make bench": "tests/test_benchmarks.py",
    "make slurm-up": "tests/slurm/test_tutorial.py",
    "genae launch automodulator-2020/table2a": "tests/slurm/test_tutorial.py, of the quickstart: it needs SLURM",
    "genae launch --cluster local": "tests/test_launch_overhead.py",
    "genae run quickstart --scale desk": "tests/test_quickstart.py",
    "genae run --jobs N": "tests/test_quickstart.py; the number of jobs is the processors'",
    "genae weights fetch inception-2015": "tests/test_features.py, from a server of its own: it needs a network",
    "genae weights fetch vgg19": "tests/test_features.py, from a server of its own: it needs a network",
    "genae weights fetch NAME ...": "tests/test_features.py",
    "genae check MODULE": "genae check baselines.swae",
    "genae check your.module": "genae check baselines.swae",
}
WORDS = {"FILE": "quickstart", "EXPERIMENT": "quickstart", "key.path=value ...": "model.latent_dim=8", "NAME": "my-birds"}
INCOMPLETE = {"genae run", "genae report", "genae launch", "genae data prepare"}  # named in a sentence, not shown


def commands() -> list[str]:
    """Every command that a page shows, once; but for docs/slurm.md, whose commands tests/slurm/test_tutorial.py runs."""
    root = Path(__file__).parent.parent
    pages = [page for page in PAGES if page != "docs/slurm.md"]
    found = [match.strip() for page in pages for match in SHOWN.findall((root / page).read_text())]
    return sorted({command.removesuffix(" > genae.schema.json") for command in found} - INCOMPLETE)


@pytest.fixture(scope="module")
def sandbox(repository, tmp_path_factory):
    """A copy of the experiments whose quickstart is over in seconds and has run, with tiny imitations of data sets."""
    root = tmp_path_factory.mktemp("docs")
    for name in ("experiments", "baselines", "setup.cfg"):
        copied = shutil.copytree if (repository / name).is_dir() else shutil.copy
        copied(repository / name, root / name)
    shorten(root / "experiments" / "quickstart.yaml")
    shorten(root / "experiments" / "baselines" / "swae.yaml")
    for source in COPIES:
        write_copy(source, root / "copies" / source)
    assert run("genae run quickstart", root).returncode == 0
    return root


def shorten(path: Path) -> None:
    """Few images, for training and measuring."""
    text = yaml.safe_load(path.read_text())
    desk = text.get("scales", {}).get("desk", {})
    for row in desk.get("rows", text["rows"]).values():
        row["stages"]["autoencoder"]["schedule"]["total_kimg"] = 0.1
    if desk:
        desk["shared"]["data"]["count"] = 100
        desk["shared"]["columns"]["fid"]["metric"]["num_generated"] = 100
        desk["shared"]["columns"]["ppl"]["metric"]["num_pairs"] = 20
    else:
        text["rows"]["swae"]["data"] |= {"num_train": 200, "num_test": 50}
    path.write_text(yaml.safe_dump(text, sort_keys=False))


def run(command: str, root: Path) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", *command.split()]
    environment = os.environ | {"GENAE_CACHE": str(root / "cache")}
    return subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_commands_are_found_at_all():
    assert {"make quickstart", "genae list", "genae check baselines.swae"} <= set(commands())


def order(command: str) -> tuple[bool, str]:
    return "verify" in command, command  # a pack is verified once it is there


def marked(command: str) -> Any:
    """Checks of baselines run the contract tests, which the whole suite does too: one of them in `make test` is enough."""
    slow = command.startswith("genae check baselines.") and command != "genae check baselines.swae"
    return pytest.param(command, marks=pytest.mark.slow) if slow else command


@pytest.mark.parametrize("command", [marked(command) for command in sorted(set(commands()) - set(ELSEWHERE), key=order)])
def test_a_command_that_a_page_shows_does_what_it_says(sandbox, command):
    for word, own in WORDS.items():
        command = command.replace(word, own)
    if "--source DIR" in command:
        source = command.split()[3]
        command = command.replace("DIR", f"copies/{source}").replace("--resolution 64", "--resolution 16")
        command += "" if "resolution" in command or SOURCES[source].crop is None else " --resolution 16"
    elif "verify" in command:
        run("genae data prepare folder --source copies/folder --name my-birds --resolution 16", sandbox)
    done = run(command, sandbox)
    assert done.returncode == 0, done.stdout + done.stderr


def test_commands_said_to_run_elsewhere_are_still_shown_and_do(repository):
    assert set(ELSEWHERE) <= set(commands())
    targets = re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE)
    for command, where in ELSEWHERE.items():
        place = where.split(",")[0].split(";")[0]
        assert place in commands() or (repository / place).exists(), where
        assert command.split()[0] == "genae" or command.split()[1] in targets


@pytest.mark.parametrize("page", PAGES)
def test_no_page_waits_to_be_filled_in(repository, page):
    assert not re.search(r"[A-Z]+_HERE|TODO|FIXME", (repository / page).read_text())


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(repository, page):
    path = repository / page
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    for link in links:
        assert (path.parent / link).exists(), link
