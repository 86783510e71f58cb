"""Images seen -> what holds now."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genae.schedule import Growth, PhaseSettings, Schedule


def phase(resolution=4, **settings):
    return PhaseSettings(**{"resolution": resolution, "batch_size": 10, "learning_rate": 0.001} | settings)


GROWING = Schedule(total_kimg=6, phases=(phase(4, kimg=2, fade_kimg=1), phase(8, kimg=2, fade_kimg=1), phase(16, fade_kimg=1)))


def test_a_phase_begins_at_the_sum_of_the_lengths_before_it():
    assert GROWING.starts == (0, 2000, 4000)
    assert [GROWING.at(n).resolution for n in (0, 1999, 2000, 3999, 4000, 5999)] == [4, 4, 8, 8, 16, 16]


def test_a_phase_changes_at_the_first_step_that_begins_at_or_past_its_count():
    # Batches of 300 begin at 0, 300, ..., 1800, 2100: the one at 1800 is not cut, 2100 is the first of the new phase.
    assert GROWING.at(1800).index == 0
    assert GROWING.at(2100).index == 1


def test_fade_rises_linearly_from_0_to_1_over_fade_kimg():
    assert [GROWING.at(2000 + n).fade for n in (0, 250, 500, 999, 1000, 1500)] == [0, 0.25, 0.5, 0.999, 1, 1]


def test_nothing_fades_in_the_first_phase_though_it_settles_later():
    assert GROWING.at(0).fade == 1
    assert not GROWING.at(0).settled
    assert GROWING.at(1000).settled


def test_a_phase_of_the_same_resolution_does_not_fade():
    schedule = Schedule(total_kimg=2, phases=(phase(8, kimg=1), phase(8, fade_kimg=1)))
    assert schedule.at(1000).fade == 1


def test_epochs_are_images_seen_over_the_size_of_the_split():
    assert GROWING.at(1500, num_images=600).epoch == 2.5


def test_growth_is_the_resolution_and_the_fade():
    assert GROWING.at(2250).growth == Growth(8, 0.25)


def test_a_learning_rate_is_found_by_group_then_by_update():
    mapped = Schedule(total_kimg=1, phases=(phase(learning_rate={"encoder": 1e-4, "decoder": 5e-4}),)).at(0)
    assert mapped.rate("encoder", "all") == 1e-4
    assert mapped.rate("alphas", "decoder") == 5e-4
    with pytest.raises(ValueError, match="no learning_rate for 'all' / 'alphas'; the phase gives: encoder, decoder"):
        mapped.rate("alphas", "all")


@given(st.integers(0, 10_000))
def test_the_same_count_gives_the_same_phase(images_seen):
    assert GROWING.at(images_seen, 7) == GROWING.at(images_seen, 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"total_kimg": 0, "phases": (phase(),)}, "total_kimg must be positive"),
        ({"total_kimg": 1, "phases": ()}, "at least one phase"),
        ({"total_kimg": 1, "phases": (phase(4), phase(8))}, r"phases\[0\]: kimg may be left out only in the last phase"),
        ({"total_kimg": 1, "phases": (phase(4, kimg=2), phase(8))}, r"total_kimg 1 ends before phases\[1\] begins"),
        ({"total_kimg": 1, "phases": (phase(4, kimg=-1), phase(8))}, r"phases\[0\]: kimg must be positive"),
        ({"total_kimg": 1, "phases": (phase(batch_size=0),)}, r"phases\[0\]: batch_size must be positive"),
        ({"total_kimg": 1, "phases": (phase(margin=-0.1),)}, "must not be negative"),
    ],
)
def test_an_impossible_schedule_is_refused_with_the_culprit(settings, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**settings)
