"""Every figure of the automodulator papers: its file shows what the caption states, of which data, and trains nothing more.

The table is typed from the papers' captions; where text and caption disagree, the caption holds. `desk` has drawn faces in the
place of faces and garments in that of LSUN Cars.
"""

import functools
from pathlib import Path
from typing import Any

import pytest

from genae.experiment import load

FOLDER = Path(__file__).parent.parent / "experiments"
TABLES = [
    "automodulator-2019/table1",
    "automodulator-2020/table1",
    "automodulator-2020/table2a",
    "automodulator-2020/table2b",
    "automodulator-2020/invariance",
]
FACES, GARMENTS = ("synthetic-faces", 16), ("fashion-mnist", 16)

# figure: what the caption says is shown, on which data at scale paper, and what stands for these at desk.
SAMPLES, RECONSTRUCTIONS, INTERPOLATION, EVERY_BAND = "samples", "reconstructions", "interpolation", "style-mixing: every band"
COARSE_KEPT, INTERMEDIATE_KEPT = "conditional-samples: coarse", "conditional-samples: intermediate"
COARSE_MIXED, INTERMEDIATE_MIXED = "style-mixing: coarse", "style-mixing: intermediate"
DRIVEN, SEARCH = "enforced-identity: 1-2", "inversion"
CAPTIONS: dict[str, dict[tuple[str, int], list[str]]] = {
    # "Conditional sampling of 256x256 random face images based on 'coarse' and 'intermediate' latent features"
    "automodulator-2019/fig2": {("ffhq", 256): [COARSE_KEPT, INTERMEDIATE_KEPT]},
    "automodulator-2019/fig3": {("ffhq", 256): [SAMPLES]},  # "Random uncurated FFHQ samples at 256x256."
    "automodulator-2019/fig4": {("ffhq", 256): [EVERY_BAND]},  # "coarse, intermediate or fine layers" (Sec. B)
    "automodulator-2019/fig5": {("celeba-hq", 128): [INTERPOLATION]},  # "random test set CELEBA-HQ images in 128x128"
    # "(a) Style-mixing example [...]. (b-c) Random samples at 256x256."
    "automodulator-2020/fig4": {("ffhq", 256): [EVERY_BAND, SAMPLES], ("celeba-hq", 256): [SAMPLES]},
    "automodulator-2020/fig5": {
        ("celeba-hq", 256): [DRIVEN]
    },  # "'coarse' styles from each top row image"; Sec. 4.3: layers 1-2
    "automodulator-2020/fig6": {("ffhq", 256): [SAMPLES]},  # "FFHQ at a resolution 256x256"
    "automodulator-2020/fig7": {("celeba-hq", 256): [SAMPLES]},  # "CELEBA-HQ at resolution 256x256"
    "automodulator-2020/fig8": {("lsun-bedrooms", 256): [SAMPLES], ("lsun-cars", 256): [SAMPLES]},
    "automodulator-2020/fig9": {("ffhq", 256): [RECONSTRUCTIONS]},  # "256x256 resolution with images from the FFHQ test set"
    "automodulator-2020/fig10": {("celeba-hq", 256): [RECONSTRUCTIONS]},
    "automodulator-2020/fig11": {("ffhq", 256): [COARSE_KEPT, INTERMEDIATE_KEPT]},  # "256x256 random face images"
    "automodulator-2020/fig12": {("celeba-hq", 128): [INTERPOLATION]},  # "random test set CELEBA-HQ images in 128x128"
    "automodulator-2020/fig13": {("ffhq", 256): [COARSE_MIXED, INTERMEDIATE_MIXED]},
    "automodulator-2020/fig14": {("lsun-cars", 256): [COARSE_MIXED, INTERMEDIATE_MIXED]},
    "automodulator-2020/fig15": {("ffhq", 256): [SEARCH]},  # A.6: both "trained on FFHQ"
}
STANDS_FOR = {"ffhq": FACES, "celeba-hq": FACES, "lsun-cars": GARMENTS, "lsun-bedrooms": None}
ROWS = {"automodulator-2020/fig5": ["regular", "invariance-added", "invariance-replacing"]}
ROWS["automodulator-2020/fig15"] = ["automodulator", "stylegan"]


@functools.cache
def experiment(name: str, scale: str):
    return load(FOLDER / f"{name}.yaml", scale=scale)


def words(figure: dict[str, Any]) -> str:
    """A figure with the layers that it shows, as the table above has it."""
    if "layers" not in figure:
        return figure["name"]
    layers = figure["layers"]
    shown = "every band" if layers is None else layers if isinstance(layers, str) else "-".join(map(str, layers))
    return f"{figure['name']}: {shown}"


def shown(name: str, scale: str) -> dict[str, dict[tuple[str, int], list[str]]]:
    """By row: {(data set, resolution): figures}."""
    found: dict[str, dict[tuple[str, int], list[str]]] = {}
    for run in experiment(name, scale).runs:
        found.setdefault(run.row, {})[run.data["name"], run.data["resolution"]] = list(map(words, run.figures))
    return found


def test_there_is_a_file_for_each_figure_and_no_other():
    files = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("automodulator-*/fig*.yaml")}
    assert files == set(CAPTIONS)


@pytest.mark.parametrize("name", CAPTIONS)
def test_at_scale_paper_a_figure_shows_what_its_caption_states(name):
    assert shown(name, "paper") == {row: CAPTIONS[name] for row in ROWS.get(name, ["automodulator"])}


@pytest.mark.parametrize("name", CAPTIONS)
def test_at_scale_desk_it_shows_the_same_of_what_stands_for_the_data(name):
    expected: dict[tuple[str, int], list[str]] = {}
    for (data, _), figures in CAPTIONS[name].items():
        if STANDS_FOR[data]:
            expected[STANDS_FOR[data]] = max(figures, expected.get(STANDS_FOR[data], []), key=len)
    assert shown(name, "desk") == {row: expected for row in ROWS.get(name, ["automodulator"])}


@pytest.mark.parametrize("scale", ["paper", "desk"])
@pytest.mark.parametrize("name", CAPTIONS)
def test_a_figure_trains_nothing_that_no_table_trains(name, scale):
    trained = {run.identity for table in TABLES for run in experiment(table, scale).runs}
    assert {run.identity for run in experiment(name, scale).runs} <= trained


@pytest.mark.parametrize("scale", ["paper", "desk"])
@pytest.mark.parametrize("name", CAPTIONS)
def test_a_figure_says_where_in_the_paper_it_stands(name, scale):
    figure = experiment(name, scale)
    paper, _, number = name.partition("/fig")
    assert f"({paper[-4:]})" in figure.source
    assert figure.source.endswith(f"Fig. {number}")
    assert figure.table == name
    assert figure.caption


def test_inversion_is_measured_as_appendix_a6_says():
    columns = experiment("automodulator-2020/fig15", "paper").columns
    metric, measured_on = columns["inversion"].metric, columns["inversion"].measure_on
    assert metric["name"] == "inversion"
    assert (metric["iterations"], metric["num_images"], metric["batch_size"]) == (200, 1000, 1)  # "1000 CELEBA-HQ images"
    assert (metric["crop"], metric["codes"], metric["loss_net"]) == ("face", "per-layer", "vgg")  # "18x512"; "VGG16 feature"
    assert (measured_on["name"], measured_on["split"], measured_on["count"]) == ("celeba-hq", "test", 1000)
    assert columns["lpips"].measure_on == measured_on
    assert columns["lpips"].metric["crop"] == "face"
    assert columns["encode-seconds"].metric["batch_size"] == 1
    assert experiment("automodulator-2020/fig15", "paper").rows["automodulator"].published == {"encode-seconds": 0.0079}
