"""Records on disk: whole lines whatever happens, what supersedes what, and pictures within their budget."""

import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from genae import results

LABELS = {"table": "paper/table1", "row": "vae", "data_name": "faces", "scale": "desk"}


def record(value=1.0, **changes):
    return {
        "column": "fid",
        "metric": "fid",
        "label": "fid-2k",
        "direction": "min",
        "value": value,
        "status": "ok",
        "details": {},
        "protocol": {"num_generated": 2000, "crop": None},
        "identity": "ab" * 32,
        "checkpoint": "cd" * 32,
        "images_seen": 1000,
        "seed": 0,
        "time": "2026-01-01T00:00:00+00:00",
    } | changes


def test_appended_records_are_read_back_in_order(tmp_path):
    path = tmp_path / "run" / "records.jsonl"
    for value in (1.0, 2.0, 3.0):
        results.append(path, record(value))
    assert [line["value"] for line in results.read(path)] == [1.0, 2.0, 3.0]


def test_a_file_that_is_not_there_holds_no_records(tmp_path):
    assert results.read(tmp_path / "records.jsonl") == []


@given(cut=st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_a_crash_at_any_byte_of_the_last_line_loses_nothing_before_it(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("run") / "records.jsonl"
    results.append(path, record(1.0, label="é" * 5))
    results.append(path, record(2.0, label="é" * 5))
    whole = path.read_bytes()
    path.write_bytes(whole[: -min(cut, whole.index(b"\n"))])  # the first line stays whole

    values = [line["value"] for line in results.read(path)]
    assert values == ([1.0, 2.0] if cut == 1 else [1.0])  # without its newline only, the last line is complete
    results.append(path, record(3.0))
    assert [line["value"] for line in results.read(path)] == [*values, 3.0]
    assert path.read_bytes().endswith(b"\n")


def test_reading_leaves_a_torn_line_alone_since_its_writer_may_be_at_work(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": ')
    assert results.read(path) == [{"a": 1}]
    assert path.read_bytes() == b'{"a": 1}\n{"b": '


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text('{"a": 1}\n<<<<<<< HEAD\n{"b": 2}\n')
    with pytest.raises(ValueError, match=r"table\.jsonl, line 2: not a record"):
        results.read(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_json_lacks_is_kept_as_a_failure(tmp_path, value):
    results.append(tmp_path / "r.jsonl", record(value, details={"tail": value, "deep": [value]}))
    (line,) = results.read(tmp_path / "r.jsonl")
    assert line["value"] is None
    assert line["status"] == f"failed: the value is {value}"
    assert line["details"] == {"tail": str(value), "deep": [str(value)]}


def test_protocols_are_one_key_whatever_the_order_of_their_settings_and_tuples_or_lists():
    one = record(protocol={"a": (1, 2), "b": {"c": 1, "d": 2}})
    two = record(protocol={"b": {"d": 2, "c": 1}, "a": [1, 2]})
    assert results.key(one) == results.key(two)
    assert results.key(one) != results.key(record(protocol={"a": [1, 2], "b": {"c": 1, "d": 3}}))


def test_of_one_key_the_later_record_holds_wherever_it_stands():
    early, late = record(1.0), record(2.0, time="2026-01-02T00:00:00+00:00")
    assert results.current([early, late]) == [late]
    assert results.current([late, early]) == [late]
    assert results.current([record(1.0), record(2.0)])[0]["value"] == 2.0  # at one time, the last written


def test_records_of_another_checkpoint_metric_or_protocol_stand_side_by_side():
    records = [record(), record(checkpoint="ef" * 32), record(metric="ppl"), record(protocol={}), record(identity="01" * 32)]
    assert results.current(records) == records


def test_of_two_checkpoints_of_one_run_the_table_shows_the_later_and_says_what_gave_way():
    old, new = record(1.0), record(2.0, checkpoint="ef" * 32, time="2026-01-02T00:00:00+00:00")
    assert results.latest([new, old]) == ([new], [old])


def test_missing_weights_here_do_not_hide_what_was_measured_elsewhere():
    value = record(1.0)
    absent = record(None, status="needs weights: genae weights fetch inception-2015", time="2026-01-02T00:00:00+00:00")
    assert results.current([value, absent]) == [value]
    assert results.latest([value, absent | {"protocol": {}}])[0] == [value]
    retrained = absent | {"checkpoint": "ef" * 32}
    assert results.latest([value, retrained])[0] == [retrained]  # of the new checkpoint nothing was measured


def test_collect_labels_sorts_and_writes_the_same_bytes_again(tmp_path):
    path = results.table_path(tmp_path, "paper/table1")
    later = record(column="ppl", metric="ppl")
    held = results.collect(path, [later, record()], LABELS)
    assert path == tmp_path / "paper" / "table1.jsonl"
    assert [line["column"] for line in held] == ["fid", "ppl"]
    assert all(line["table"] == "paper/table1" and line["row"] == "vae" for line in results.read(path))
    before = path.read_bytes()
    results.collect(path, [record(), later], LABELS)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["table1.jsonl"]  # no lock and nothing half written stays


def test_collect_replaces_what_a_new_record_supersedes_and_keeps_the_rest(tmp_path):
    path = tmp_path / "t.jsonl"
    results.collect(path, [record(1.0), record(5.0, seed=1, identity="01" * 32)], LABELS)
    held = results.collect(path, [record(2.0, time="2026-01-02T00:00:00+00:00")], LABELS)
    assert [(line["seed"], line["value"]) for line in held] == [(0, 2.0), (1, 5.0)]


def test_one_run_may_serve_two_rows_of_a_table(tmp_path):
    path = tmp_path / "t.jsonl"
    results.collect(path, [record()], LABELS)
    results.collect(path, [record()], LABELS | {"row": "same-again"})
    assert [line["row"] for line in results.read(path)] == ["same-again", "vae"]


def test_collect_refuses_a_record_without_its_place(tmp_path):
    with pytest.raises(ValueError, match="does not say its table, row, data_name, scale"):
        results.collect(tmp_path / "t.jsonl", [record()])


def test_processes_that_collect_at_once_lose_no_record(tmp_path):
    path = tmp_path / "t.jsonl"
    code = """
import json, sys
from pathlib import Path
from genae import results
path, base, labels = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
for run in range(20):
    results.collect(path, [base | {"identity": f"{sys.argv[4]}-{run}"}], labels)
"""
    arguments = [sys.executable, "-c", code, str(path), json.dumps(record()), json.dumps(LABELS)]
    workers = [subprocess.Popen([*arguments, name]) for name in ("a", "b", "c")]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert {line["identity"] for line in results.read(path)} == {f"{name}-{run}" for name in "abc" for run in range(20)}


def test_results_import_no_torch():
    code = "import sys; sys.modules['torch'] = None; import genae.results"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_killed_collect_left_behind_does_no_harm_and_goes(tmp_path):
    path = tmp_path / "t.jsonl"
    results.collect(path, [record(1.0)], LABELS)
    (tmp_path / ".t.jsonl.new").write_bytes(b'{"half": ')
    (tmp_path / ".t.jsonl.lock").touch()
    figures = run_with_pictures(tmp_path / "run", {"a.png": png(8)})
    (tmp_path / ".out.new").mkdir()
    (tmp_path / ".out.new" / "half.png").touch()
    results.collect(path, [record(2.0, checkpoint="ef" * 32)], LABELS)
    results.collect_pictures(figures, tmp_path / "out")
    assert [line["value"] for line in results.read(path)] == [1.0, 2.0]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.png"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "run", "t.jsonl"]


def test_export_flattens_nested_fields():
    table = results.export([record(2.5), record(None, status="not defined")])
    assert list(table["protocol.num_generated"]) == [2000, 2000]
    assert table["value"].tolist()[0] == 2.5
    assert "details" not in table


def png(side, seed=0, **text):
    noise = np.random.Generator(np.random.Philox(seed)).integers(0, 256, (side, side, 3), dtype=np.uint8)
    out = io.BytesIO()
    chunks = PngImagePlugin.PngInfo()
    for name, value in text.items():
        chunks.add_text(name, value)
    Image.fromarray(noise).save(out, "PNG", pnginfo=chunks)
    return out.getvalue()


def run_with_pictures(folder, pictures, progress=()):
    (folder / "figures").mkdir(parents=True)
    for name, contents in pictures.items():
        (folder / "figures" / name).write_bytes(contents)
    (folder / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in progress))
    return folder / "figures"


def test_small_pictures_are_copied_byte_for_byte_with_their_curve(tmp_path):
    figures = run_with_pictures(tmp_path / "run", {"samples.png": png(16)}, [{"images_seen": 32, "terms": {"kl": 0.5}}])
    assert results.collect_pictures(figures, tmp_path / "out") == []
    assert (tmp_path / "out" / "samples.png").read_bytes() == png(16)
    assert results.read(tmp_path / "out" / "curve.jsonl") == [{"images_seen": 32, "terms": {"kl": 0.5}}]


def test_the_curve_of_two_stages_counts_images_over_both(tmp_path):
    lines = {
        "one": [{"images_seen": 10, "stage": "a"}, {"images_seen": 20, "stage": "a"}],
        "two": [{"images_seen": 10, "stage": "b"}],
    }
    for name, progress in lines.items():
        run_with_pictures(tmp_path / name, {}, progress)
    stages = [tmp_path / name / "progress.jsonl" for name in lines]
    results.collect_pictures(tmp_path / "two" / "figures", tmp_path / "out", progress=stages)
    curve = results.read(tmp_path / "out" / "curve.jsonl")
    assert [(line["stage"], line["images_seen"]) for line in curve] == [("a", 10), ("a", 20), ("b", 30)]


def test_pictures_stay_within_the_limit_and_what_was_done_is_said(tmp_path):
    # noise in 24 bits: about 3 bytes a pixel, in 256 colours about 1; so 200 px -> 120 kB -> 40 kB, 300 px -> 270 kB -> 90 kB
    figures = run_with_pictures(tmp_path / "run", {"large.png": png(300), "middle.png": png(200), "small.png": png(20)})
    notes = results.collect_pictures(figures, tmp_path / "out", limit_bytes=100_000)
    kept = {file.name: file.stat().st_size for file in (tmp_path / "out").glob("*.png")}
    assert set(kept) == {"middle.png", "small.png"}
    assert sum(kept.values()) <= 100_000
    assert any(note.startswith("large.png is reduced to 256 colours: 270 kB became") for note in notes)
    assert any(note.startswith("large.png (") and "left out" in note for note in notes)


def test_a_reduced_picture_keeps_its_caption_and_checkpoint(tmp_path):
    figures = run_with_pictures(tmp_path / "run", {"p.png": png(100, caption="Blätter", checkpoint="ab")})
    results.collect_pictures(figures, tmp_path / "out", limit_bytes=20_000)
    assert Image.open(tmp_path / "out" / "p.png").text == {"caption": "Blätter", "checkpoint": "ab"}


def test_collected_pictures_replace_those_of_before(tmp_path):
    for name in ("old", "new"):
        figures = run_with_pictures(tmp_path / name, {f"{name}.png": png(8)})
        results.collect_pictures(figures, tmp_path / "figures" / "out")
    assert [file.name for file in (tmp_path / "figures" / "out").iterdir()] == ["new.png"]
    assert [file.name for file in (tmp_path / "figures").iterdir()] == ["out"]


def test_a_thinned_curve_averages_stretches_and_keeps_phases_apart():
    lines = [{"images_seen": 10 * (i + 1), "phase": int(i >= 4), "terms": {"kl": float(i)}} for i in range(8)]
    # 8 lines in at most 5: one is kept for the change of phase, which leaves 4 stretches of 2 lines
    assert results.thin(lines, 5) == [
        {"images_seen": 20, "phase": 0, "terms": {"kl": 0.5}},
        {"images_seen": 40, "phase": 0, "terms": {"kl": 2.5}},
        {"images_seen": 60, "phase": 1, "terms": {"kl": 4.5}},
        {"images_seen": 80, "phase": 1, "terms": {"kl": 6.5}},
    ]


@given(phases=st.lists(st.integers(0, 3), max_size=60), limit=st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_a_thinned_curve_has_at_most_its_limit_of_lines_and_the_true_end(phases, limit):
    lines = [{"images_seen": i, "phase": phase, "terms": {"kl": 1.0}} for i, phase in enumerate(phases)]
    thinned = results.thin(lines, limit)
    assert len(thinned) <= max(limit, 0)
    assert not lines or thinned[-1]["images_seen"] == lines[-1]["images_seen"]
    assert all(line["terms"]["kl"] == 1.0 for line in thinned)


def test_a_diverged_term_is_absent_from_a_thinned_curve():
    assert results.thin([{"images_seen": 1, "terms": {"kl": math.nan}}])[0]["terms"] == {"kl": None}
