"""Adding a baseline costs what the guide says: one short module, one short file, nothing in genae/."""

import re

GUIDE = "docs/adding-a-baseline.md"


def written(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_the_example_is_at_most_40_lines_with_its_experiment(repository):
    module = (repository / "baselines" / "swae.py").read_text()
    experiment = (repository / "experiments" / "baselines" / "swae.yaml").read_text()
    assert len(written(module)) + len(written(experiment)) <= 40


def test_nothing_in_genae_knows_the_example(repository):
    for path in (repository / "genae").rglob("*.py"):
        assert not re.search(r"import .*swae|['\"]swae['\"]|sliced.wasserstein", path.read_text()), path


def test_the_guide_shows_the_example_as_it_is(repository):
    guide = (repository / GUIDE).read_text()
    files = (repository / "baselines" / "swae.py").read_text() + (
        repository / "experiments" / "baselines" / "swae.yaml"
    ).read_text()
    for block in re.findall(r"```(?:python|yaml)\n(.*?)```", guide, re.DOTALL):
        for line in written(block):
            assert line.strip() == "..." or line in files, line
