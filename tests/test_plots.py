"""Plots from records alone: well-formed, the same bytes again, in the reader's ink."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from genae import plots

CURVE = [
    {"images_seen": 1000 * step, "phase": step // 5, "terms": {"encoder/kl": 1 / step, "decoder/pixels": 2.0}}
    for step in range(1, 11)
]


def texts(svg):
    return [
        "".join(element.itertext()).strip() for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")
    ]


def lines_of(svg, colour):
    groups = [element for element in ElementTree.fromstring(svg).iter() if element.get("id", "").startswith("line2d")]
    return [group for group in groups if any(colour in path.get("style", "") for path in group)]


def test_each_loss_term_has_a_panel_and_each_seed_a_line_in_it():
    svg = plots.loss_curves({"seed 0": CURVE, "seed 1": CURVE})
    assert {"encoder/kl", "decoder/pixels", "seed 0", "seed 1", "images seen"} <= set(texts(svg))
    assert [len(lines_of(svg, colour)) for colour in plots.LINES[:3]] == [3, 3, 0]  # two panels and the key


def test_the_same_curves_give_the_same_bytes():
    assert plots.loss_curves({"seed 0": CURVE}) == plots.loss_curves({"seed 0": CURVE})


def test_ink_is_the_readers_own():
    svg = plots.loss_curves({"seed 0": CURVE})
    assert b"currentColor" in svg
    assert plots.INK.encode() not in svg
    assert b"prefers-color-scheme: dark" in svg


def test_a_spike_does_not_flatten_the_rest():
    spiked = [line | {"terms": {"kl": 1e6 if index == 0 else 0.5 + index / 1000}} for index, line in enumerate(CURVE * 30)]
    assert not any("1e6" in text or "000000" in text for text in texts(plots.loss_curves({"seed 0": spiked})))


def test_terms_that_are_missing_or_constant_are_drawn_all_the_same():
    gaps = [line | {"terms": {"kl": None if index < 5 else 0.0}} for index, line in enumerate(CURVE)]
    ElementTree.fromstring(plots.loss_curves({"seed 0": gaps}))
    ElementTree.fromstring(plots.loss_curves({"seed 0": [gaps[0]]}))


def test_curves_without_terms_are_refused():
    with pytest.raises(ValueError, match="no loss terms"):
        plots.loss_curves({"seed 0": [{"images_seen": 1, "phase": 0}]})


def test_ranks_are_joined_across_and_swapped_rows_are_in_colour():
    label = "VAE <&> $a_b$"
    svg = plots.order_comparison({"AE": 1, label: 2, "GAN": 3}, {"AE": 2, label: 1, "GAN": 3}, ["AE", label])
    assert texts(svg).count(label) == 2  # as it is, on both sides
    assert len(lines_of(svg, plots.LINES[1])) == 2
    assert len(lines_of(svg, plots.FAINT)) == 1


def test_ranks_of_different_rows_are_refused():
    with pytest.raises(ValueError, match="different rows: b, c"):
        plots.order_comparison({"a": 1, "b": 2}, {"a": 1, "c": 2})


def test_plots_import_neither_torch_nor_matplotlib_until_they_draw():
    code = "import sys; sys.modules['torch'] = sys.modules['matplotlib'] = None; import genae.plots"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def likelihoods(*points, name="validation/log_prob"):
    return [{"seconds": seconds, "terms": {name: value, "density/nats_per_dim": 1.0}} for seconds, value in points]


def test_likelihoods_against_seconds_have_a_colour_for_each_row_and_a_line_for_each_seed():
    rising = likelihoods((1.0, -20.0), (2.0, 10.0), (3.0, 15.0), (4.0, None))
    svg = plots.likelihood_curves({"LDE": [rising, rising], "MAF": [likelihoods((1.0, 9.0), (3.0, 12.0))], "GAN": [CURVE]})
    assert {"LDE", "MAF", "seconds of training", "held-out log likelihood, nats"} <= set(texts(svg))
    assert "GAN" not in texts(svg)
    assert [len(lines_of(svg, colour)) for colour in plots.LINES[:3]] == [3, 2, 0]  # and one of each in the key
    assert svg == plots.likelihood_curves({"LDE": [rising, rising], "MAF": [likelihoods((1.0, 9.0), (3.0, 12.0))]})


def test_the_clock_of_a_resumed_run_goes_on_where_it_stopped():
    lines = likelihoods((1.0, 1.0), (5.0, 2.0), (0.5, 3.0), (2.0, 4.0), (1.0, 5.0))
    assert plots._likelihoods(lines) == [(1.0, 1.0), (5.0, 2.0), (5.5, 3.0), (7.0, 4.0), (8.0, 5.0)]


def test_without_likelihoods_there_is_nothing_to_draw():
    assert plots.likelihood_curves({"VAE": [CURVE], "AE": []}) is None
