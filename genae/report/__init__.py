"""Records and published numbers, side by side: in the terminal, and as Markdown, CSV, LaTeX and one HTML file.

`build` makes a Report, a value, from an experiment, the records collected for its table and the pictures collected beside them;
everything else only words it. No number is typed in by hand, and none is computed in a renderer.
"""

from pathlib import Path

from genae import results, study
from genae.report import page, text
from genae.report.build import Report, build
from genae.report.text import terminal
from genae.spec import Experiment

__all__ = ["Report", "build", "redraw", "terminal", "write"]


def redraw(experiment: Experiment) -> Report:
    """The report of what is collected, written; it names the runs that failed and have not been tried again."""
    folders = study.Folders(experiment.root)
    failed = [failure for run in experiment.runs if (failure := study.failure_since(run, folders.runs, 0.0))]
    drawn = build(
        experiment,
        results.read(folders.records(experiment.table)),
        folders.pictures(experiment.table),
        failures=[f"{study.name_of(failure.run)} failed: {failure.reason}" for failure in failed],
    )
    write(drawn, folders.report(experiment.table))
    return drawn


def write(report: Report, folder: Path) -> None:
    """Write index.html (one file, nothing beside it is needed), index.md with its pictures, table.csv and table.tex.

    The same report writes the same bytes. Pictures of an earlier report that this one lacks are removed.
    """
    folder = Path(folder)
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    files = {f"{name}": contents for name, contents in text.picture_files(report).items()}
    for old in pictures.iterdir():
        if old.suffix in (".png", ".svg") and f"pictures/{old.name}" not in files:
            old.unlink()
    files |= {
        "index.html": page.html(report).encode(),
        "index.md": text.markdown(report).encode(),
        "table.csv": text.csv(report).encode(),
        "table.tex": text.latex(report).encode(),
    }
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    if not any(pictures.iterdir()):
        pictures.rmdir()
