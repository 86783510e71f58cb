"""Named state to disk, whole or not at all."""

import pytest
import torch

from genae import checkpoint


def state(value=1.0):
    return {
        "model": {"weight": torch.full((3, 2), value), "count": torch.tensor(4)},
        "images_seen": 10,
        "average": None,
        "rates": [0.1, 2],
    }


def test_what_is_read_is_what_was_saved(tmp_path):
    saved = checkpoint.save(tmp_path, state(), 10)
    read = checkpoint.latest(tmp_path)
    assert read.digest == saved.digest
    assert read.path.name == "0000000010.pt"
    assert torch.equal(read.state["model"]["weight"], state()["model"]["weight"])
    assert read.state["rates"] == [0.1, 2]


def test_the_digest_is_of_the_content_and_of_all_of_it():
    assert checkpoint.digest(state()) == checkpoint.digest(dict(reversed(state().items())))
    changed = [state(2.0), state() | {"images_seen": 11}, state() | {"average": {}}, state() | {"rates": [0.1, 2, 3]}]
    retyped = state()
    retyped["model"]["count"] = torch.tensor(4, dtype=torch.int32)
    assert len({checkpoint.digest(s) for s in [state(), *changed, retyped]}) == 6


def test_a_layout_in_memory_does_not_change_the_digest():
    image = torch.randn(2, 3, 4, 4)
    assert checkpoint.digest(image) == checkpoint.digest(image.to(memory_format=torch.channels_last))


def test_the_last_two_are_kept(tmp_path):
    for count in (10, 20, 30):
        checkpoint.save(tmp_path, state(count), count)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000000020.pt", "0000000030.pt"]


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_torn_checkpoint_is_named_set_aside_and_the_one_before_it_used(tmp_path, kept):
    checkpoint.save(tmp_path, state(1), 10)
    path = checkpoint.save(tmp_path, state(2), 20).path
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    assert checkpoint.latest(tmp_path).state["model"]["weight"][0, 0] == 1  # a reader passes it over
    assert path.exists()
    said = []
    assert checkpoint.latest(tmp_path, said.append).state["model"]["weight"][0, 0] == 1  # its owner sets it aside
    assert "0000000020.pt" in said[0]
    assert (tmp_path / "0000000020.damaged").exists()


def test_an_altered_checkpoint_is_not_used(tmp_path):
    checkpoint.save(tmp_path, state(1), 10)
    later = checkpoint.save(tmp_path, state(2), 20)
    torch.save({"digest": later.digest, "state": state(3)}, later.path)
    said = []
    assert checkpoint.latest(tmp_path, said.append).state["images_seen"] == 10
    assert "was altered" in said[0]


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"digest": "x", "state": Evil()}, tmp_path / "0000000001.pt")
    with pytest.raises(checkpoint.Damaged, match="cannot be read"):
        checkpoint.read(tmp_path / "0000000001.pt")


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert checkpoint.latest(tmp_path) is None


def test_a_machine_out_of_memory_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, state(), 10)

    def refuse(*args, **settings):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(checkpoint.torch, "load", refuse)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        checkpoint.latest(tmp_path, lambda said: None)
    assert (tmp_path / "0000000010.pt").exists()


def test_the_first_tensor_that_is_not_finite_is_named():
    broken = {"a": torch.ones(2), "b": [{"c": torch.tensor([1.0, float("inf")])}], "d": torch.tensor(float("nan"))}
    assert checkpoint.first_not_finite(broken) == "b.0.c"
    assert checkpoint.first_not_finite(state()) is None


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    (tmp_path / ".0000000005.writing").write_bytes(b"half")
    checkpoint.save(tmp_path, state(), 10)
    assert [path.name for path in tmp_path.iterdir()] == ["0000000010.pt"]
