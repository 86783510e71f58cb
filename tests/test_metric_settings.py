"""Settings that a metric refuses, and with what words; what every protocol says."""

import numpy as np
import pytest
import torch

from genae.context import Context
from genae.data.dataset import Dataset, Splits
from genae.metrics.metric import check_at_least, short_count
from genae.networks.blocks import Noise
from genae.registry import METRICS


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "fid", "num_generated": 1}, "num_generated must be at least 2, not 1"),
        ({"name": "fd-efficientnet", "num_reference": 0}, "num_reference must be at least 2, not 0"),
        ({"name": "mse", "num_images": 0}, "num_images must be at least 1, not 0"),
        ({"name": "lpips", "num_images": -3}, "num_images must be at least 1, not -3"),
        ({"name": "ppl", "num_pairs": 0}, "num_pairs must be at least 1, not 0"),
        ({"name": "ppl", "epsilon": 0.0}, "epsilon must be positive, not 0.0"),
        ({"name": "ppl-efficientnet", "trim_percent": 50.0}, "trim_percent must be from 0 to 50, not 50.0"),
        ({"name": "decode-seconds", "repeats": 0}, "repeats must be at least 1, not 0"),
        ({"name": "encode-seconds", "batch_size": 0}, "batch_size must be at least 1, not 0"),
    ],
)
def test_a_count_that_cannot_be_is_refused_by_name(spec, words):
    with pytest.raises(ValueError, match=f"^{words}$"):
        METRICS.build(spec)


def test_a_setting_that_is_left_open_passes():
    check_at_least(1, num_images=None)


def test_round_thousands_are_short_and_other_counts_whole():
    assert [short_count(count) for count in (500, 1000, 1500, 50_000)] == ["500", "1k", "1500", "50k"]


DECODING = [name for name in METRICS.names() if name != "encode-seconds" and "decode" in METRICS.build({"name": name}).needs]


@pytest.mark.parametrize("name", DECODING)
def test_the_protocol_of_a_metric_that_decodes_says_what_noise_inputs_are(name, tmp_path, monkeypatch):
    monkeypatch.setenv("GENAE_CACHE", str(tmp_path))
    metric, data = (
        METRICS.build({"name": name}),
        Splits(lambda split: Dataset(split, split, np.zeros((4, 3, 8, 8), "uint8"), split)),
    )
    assert metric.protocol(data, Context())["noise"] == "one fixed draw"


def test_noise_inputs_are_what_the_protocols_say():
    layer = Noise(2, "a layer").eval()
    with torch.no_grad():
        layer.scale.fill_(1)
    images = layer(torch.zeros(3, 2, 8, 8))
    assert images.std() > 0.5
    assert torch.equal(images[0], images[2])  # of one batch
    assert torch.equal(images[:1], layer(torch.zeros(1, 2, 8, 8)))  # of another call
