"""Settings that a metric refuses, and with what words."""

import pytest

from genae.metrics.metric import check_at_least, short_count
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
