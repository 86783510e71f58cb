"""The pictures and files of a report, that it is redrawn the same, and that every format shows a label as it is."""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image, PngImagePlugin
from rich.console import Console

from genae import report, results
from genae.report import grid, text
from genae.spec import Claim, Column

FID = Column(id="fid", metric={"name": "fid", "num_generated": 2000})
STAND_IN = Column(id="lpips", metric={"name": "pd-efficientnet"}, in_place_of="lpips, celeba-hq")

# Pictures, files and redrawing


def picture(path, **chunks):
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngImagePlugin.PngInfo()
    for name, value in chunks.items():
        info.add_text(name, value)
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(path, pnginfo=info)


@pytest.fixture
def redrawn(experiment, record, tmp_path):
    """A report of two seeds, drawn from what was collected alone."""
    table = results.table_path(tmp_path / "results", "paper/table1")
    for seed in (0, 1):
        run = tmp_path / "runs" / str(seed)
        picture(run / "figures" / "samples.png", checkpoint="c" * 64, caption="Decoded from the prior, <uncurated>.")
        picture(run / "figures" / "old.png", checkpoint="e" * 64)
        progress = [{"images_seen": 100 * i, "phase": 0, "terms": {"kl": 1 / i}, "seconds": 60.0 * i} for i in range(1, 5)]
        (run / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in progress))
        results.collect(table, [record("vae", 1.0 + seed, seed=seed)])
        destination = results.figures_path(tmp_path / "results", "paper/table1", "vae", "faces", seed)
        results.collect_pictures(run / "figures", destination)
    figures = tmp_path / "results" / "paper" / "table1" / "figures"
    return report.build(experiment({"vae": ("V & <E>", {})}, seeds=(0, 1)), results.read(table), figures)


def test_pictures_are_the_first_seeds_and_of_the_checkpoint_that_was_measured(redrawn):
    assert [(p.name, p.seed, p.caption) for p in redrawn.pictures] == [("samples", 0, "Decoded from the prior, <uncurated>.")]
    assert "Left out: 2 pictures of another checkpoint than the numbers'." in redrawn.notes
    assert set(redrawn.curves) == {"vae"}
    assert b"seed 1" in redrawn.curves["vae"]


def test_pictures_stand_in_the_order_of_the_experiment(experiment, record, tmp_path):
    asked = experiment({"vae": {}})
    run = replace(asked.runs[0], figures=({"name": "samples"}, {"name": "mixing"}))
    for name in ("a-third", "mixing", "samples"):
        picture(tmp_path / "vae-faces-s0" / f"{name}.png")
    drawn = report.build(replace(asked, runs=(run,)), [record("vae", 1.0)], tmp_path)
    assert [shown.name for shown in drawn.pictures] == ["samples", "mixing", "a-third"]


def test_what_was_run_is_told(redrawn):
    facts = dict(grid.facts(redrawn))
    assert facts["training, all runs"] == "8.0 min"  # two runs of 240 s
    assert facts["images seen per run"] == "120 k"
    assert facts["code"] == "0123456789ab"
    assert grid.provenance(redrawn)[1][:5] == ("V & <E>", "faces", "1", "vae-1", "c" * 12)


class Page(HTMLParser):
    """Cells, links and pictures of a page."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.addresses, self.open = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[name] for name in ("src", "href", "srcset", "data") if name in attributes]
        if tag not in ("img", "meta", "link", "br"):
            self.open.append(tag)
        if tag == "th" and attributes.get("scope") == "row":
            self.rows.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["th"] and self.rows and "tbody" in self.open:
            self.rows[-1] += data


def test_a_report_is_written_whole_and_the_same_again(redrawn, tmp_path):
    folder = tmp_path / "reports" / "table 1"
    report.write(redrawn, folder)
    assert {file.name for file in folder.iterdir()} == {"index.html", "index.md", "table.csv", "table.tex", "pictures"}
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    picture(folder / "pictures" / "of-an-earlier-report.png")
    report.write(redrawn, folder)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_the_page_is_one_file_that_fetches_nothing(redrawn):
    page = report.page.html(redrawn)
    parsed = Page(page)
    assert parsed.open == []  # every tag is closed
    assert len(parsed.addresses) == 2  # the picture and the curve
    assert all(address.startswith("data:image/") for address in parsed.addresses)
    assert "url(" not in page
    assert "@import" not in page


def test_a_protocol_is_told_in_words_and_short(experiment, record):
    protocol = {
        "num_images": 2000,
        "crop": None,
        "weights": {"weights": "lite0", "sha256": "ab" * 32},
        "range": [-1, 1],
        "rounded": False,
    }
    drawn = report.build(experiment({"vae": {}}), [record("vae", 1.0, protocol=protocol)])
    said = "num images: 2000; weights: lite0; weights sha256: abababababab; range: [-1, 1]; rounded: no"
    assert grid.protocols(drawn) == [("fid", said)]
    assert said in report.page.html(drawn)


def test_the_pictures_that_the_markdown_shows_are_beside_it(redrawn, tmp_path):
    report.write(redrawn, tmp_path / "report")
    shown = re.findall(r"\]\((pictures/[^)]+)\)", (tmp_path / "report" / "index.md").read_text())
    assert sorted(shown) == ["pictures/vae-curves.svg", "pictures/vae-faces-s0-samples.png"]
    assert all((tmp_path / "report" / name).is_file() for name in shown)


def test_a_claim_stands_in_every_format_with_its_place_and_both_verdicts(experiment, record):
    claim = Claim(id="am3", text="Balanced PIONEER has the best FID", where="Sec. 4.1", expression="fid[vae] < fid[wae]")
    drawn = report.build(
        experiment({"vae": {"fid": 21.51}, "wae": {"fid": 28.84}}, claims=[claim]), [record("vae", 7.5), record("wae", 6.25)]
    )
    for page in (text.markdown(drawn), report.page.html(drawn), text.latex(drawn), on_terminal(drawn, 200)):
        words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>|[\\$]", "", page).replace("geq", "≥").replace("textless{}", "<"))
        assert "Balanced PIONEER has the best FID (Sec. 4.1)" in words
        assert re.search(r"fails, one seed:? ?fid of vae 7.500 ≥ wae 6.250", words)
        assert re.search(r"holds:? ?fid of vae 21.51 (<|&lt;) wae 28.84", words)
    assert "Claims" not in text.markdown(report.build(experiment({"vae": {}}), [record("vae", 1.0)]))


def test_a_report_without_any_record_is_a_table_of_what_is_to_be_done(experiment, printed, tmp_path):
    drawn = report.build(experiment({"vae": {"fid": 1.0}, "wae": {"fid": 2.0}}, [FID, STAND_IN]), [])
    assert printed(drawn) == {"vae": ["missing[a]", "missing[a]", "1"], "wae": ["missing[a]", "missing[a]", "2"]}
    report.write(drawn, tmp_path)
    assert not (tmp_path / "pictures").exists()


def on_terminal(drawn, width):
    console = Console(width=width, file=io.StringIO())
    console.print(report.terminal(drawn))
    return console.file.getvalue()


def test_blocks_that_do_not_fit_a_terminal_side_by_side_stand_in_turn(experiment, record):
    drawn = report.build(experiment({"a-long-row-name": {"fid": 1.0}}), [record("a-long-row-name", 2.0)])
    rows = [line.split() for line in on_terminal(drawn, 60).splitlines() if "a-long-row-name" in line]
    assert rows == [["a-long-row-name", "2.000", "1"]]
    rows = [line.split() for line in on_terminal(drawn, 30).splitlines() if "a-long-row-name" in line]
    assert rows == [["a-long-row-name", "2.000"], ["a-long-row-name", "1"]]


def test_the_terminal_shows_table_footnotes_and_order(experiment, record):
    rows = experiment({"a[b]": {"fid": 1.0}, "c": {"fid": 2.0}})
    drawn = report.build(rows, [record("a[b]", 2.0), record("c", 1.0), record("c", 1.0, identity="before")])
    shown = on_terminal(drawn, 100)
    for words in ("a[b]", "2.000", "ρ = −1.00 over 2 rows", "swapped: a[b] / c", "Left out: 1 record"):
        assert words in shown


def test_reports_import_no_torch():
    code = "import sys; sys.modules['torch'] = sys.modules['matplotlib'] = None; import genae.report"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Labels as they are, in every format

LABELS = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=30).filter(str.strip)
AWKWARD = (
    "+ Loss L_j",
    "a & b",
    "50%",
    "<b>",
    "x|y",
    "*z*",
    "# 1",
    "1. a",
    "[a](b)",
    "a\\b",
    "$a_b^c$",
    "~",
    "{}",
    "日本 é ±",
    "''",
    "--",
    "&amp;",
    "!`",
)


@pytest.fixture(scope="session")
def labelled(experiment, record):
    """To be called: a report whose first row has that label."""

    def labelled(label):
        return report.build(experiment({"vae": (label, {}), "wae": {}}), [record("vae", 1.0), record("wae", 2.0)])

    return labelled


def one_line(label):
    return " ".join(label.split())


def check_html(label, drawn):
    assert Page(report.page.html(drawn)).rows == [label, "wae"]


def check_markdown(label, drawn):
    tokens = MarkdownIt("commonmark").enable("table").parse(text.markdown(drawn))
    row = next(index for index, token in enumerate(tokens) if token.type == "tbody_open")
    cell = next(token for token in tokens[row:] if token.type == "inline")
    assert {child.type for child in cell.children} <= {"text", "text_special"}
    assert "".join(child.content for child in cell.children) == one_line(label)


def check_csv(label, drawn):
    assert [line["label"] for line in csv.DictReader(io.StringIO(text.csv(drawn), newline=""))] == [label, "wae"]


PRINTS_AS = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<",
    r"\textgreater{}": ">", r"\textbar{}": "|", r"\textasciigrave{}": "`", r"\&": "&", r"\%": "%", r"\$": "$", r"\#": "#",
    r"\_": "_", r"\{": "{", r"\}": "}", "{[}": "[", "{*}": "*", "''": '"', "-{}-": "--", "{}-": "-", r"$\pm$": "±",
}  # fmt: skip


def check_latex(label, drawn):
    tex = text.latex(drawn).partition("\\midrule\n")[2].partition(" & ")[0]
    found = re.split("(" + "|".join(map(re.escape, PRINTS_AS)) + ")", tex)
    plain = "".join(PRINTS_AS.get(part, part) for part in found)
    assert all(part in PRINTS_AS or not re.search(r"[\\&%$#_{}~^<>|`\[*]", part) for part in found)  # nothing special is left
    assert plain == one_line(label).replace("''", '"')  # the two print alike


@pytest.mark.parametrize("label", AWKWARD)
@pytest.mark.parametrize("check", [check_html, check_markdown, check_csv, check_latex])
def test_awkward_labels_are_shown_as_they_are(labelled, label, check):
    check(label, labelled(label))


@pytest.mark.parametrize("check", [check_html, check_markdown, check_csv])
@given(label=LABELS)
@settings(max_examples=40, deadline=None)
def test_any_label_is_shown_as_it_is(labelled, check, label):
    check(label, labelled(label))


@given(label=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30).filter(str.strip))
@settings(max_examples=60, deadline=None)
def test_any_ascii_label_is_what_latex_prints(labelled, label):
    assume("''" not in label.replace('"', "''") or "'" not in label)  # three apostrophes could be read either way
    check_latex(label, labelled(label))
