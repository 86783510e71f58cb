"""What `genae show --layers` prints, against the sizes of the released automodulator, typed from its description."""

import re
import subprocess
import sys

import pytest

from genae.models.layer_table import parts_of
from genae.registry import MODELS

# Resolution: channels before and after its block, of the decoder (it doubles the resolution) and of the encoder (it halves it).
DECODER = {8: (512, 512), 16: (512, 512), 32: (512, 512), 64: (512, 256), 128: (256, 128), 256: (128, 64)}
ENCODER = {256: (64, 128), 128: (128, 256), 64: (256, 512), 32: (512, 512), 16: (512, 512), 8: (512, 512)}


def test_the_layers_at_256_are_those_of_the_released_network():
    parts = {part.name: part for part in parts_of({"name": "automodulator"}, (3, 256, 256))}

    first, *blocks, colours = parts["decoder"].layers
    assert (first.shape, first.weights) == ((512, 4, 4), ("3x3 512->512", "512->1024")), "one convolution and its style"
    for layer, (resolution, (before, after)) in zip(blocks, DECODER.items(), strict=True):
        style = f"512->{2 * after}"
        assert layer.shape == (after, resolution, resolution)
        assert layer.weights == (f"3x3 {before}->{after}", style, f"3x3 {after}->{after}", style)
    assert (colours.shape, colours.weights) == ((3, 256, 256), ("1x1 64->3",))

    colours, *blocks, convolution, last = parts["encoder"].layers
    assert (colours.shape, colours.weights) == ((64, 256, 256), ("1x1 3->64",))
    for layer, (resolution, (before, after)) in zip(blocks, ENCODER.items(), strict=True):
        assert layer.shape == (after, resolution // 2, resolution // 2)
        assert layer.weights == (f"3x3 {before}->{after}", f"3x3 {after}->{after}")
    assert (convolution.shape, convolution.weights) == ((512, 4, 4), ("3x3 512->512",))
    assert (last.shape, last.weights) == ((512, 1, 1), ("4x4 512->512",))


def test_the_rows_of_a_part_have_the_parameters_that_it_uses():
    for name in ("automodulator", "vae-classic", "autoencoder"):
        for part in parts_of({"name": name}, (3, 32, 32)):
            own = sum(layer.parameters for layer in part.layers)
            assert own == part.used <= part.parameters


def test_an_extra_layer_is_one_more_row():
    decoder = {part.name: part for part in parts_of({"name": "automodulator", "extra_layer": 8}, (3, 32, 32))}["decoder"]
    assert [layer.shape[-1] for layer in decoder.layers] == [4, 8, 8, 16, 32, 32]


@pytest.mark.parametrize("name", ["automodulator", "vae-classic"])
def test_the_parameters_are_those_of_the_model_itself(name):
    model = MODELS.build({"name": name, **MODELS[name].small}, (3, 16, 16))
    parts = parts_of({"name": name, **MODELS[name].small}, (3, 16, 16))
    assert {part.name: part.parameters for part in parts} == {
        part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("decoder", "encoder")
    }


def test_genae_show_prints_the_parameters_used_at_32x32(repository):
    arguments = ["show", "quickstart", "--scale", "paper", "--row", "automodulator", "--layers"]
    smaller = ["data.resolution=32", "stages.autoencoder.schedule={total_kimg: 1, phases: [{resolution: 32, batch_size: 16, "]
    smaller[1] += "learning_rate: 0.001}]}"
    done = subprocess.run(
        [sys.executable, "-m", "genae", *arguments, *smaller], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^# decoder: 20\.2M parameters used at 32x32", done.stdout, re.MULTILINE)
    assert re.search(r"^# encoder: 20\.7M parameters used at 32x32", done.stdout, re.MULTILINE)
    assert re.search(r"^#   blocks\.1 +512 x 8 x 8 +5,771,264  3x3 512->512, 512->1024, 3x3", done.stdout, re.MULTILINE)
