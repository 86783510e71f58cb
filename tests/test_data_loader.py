"""The loader: every image once an epoch, the same batch from the same count, exact averages, true mirrors."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genae.data.dataset import Dataset
from genae.data.loader import Loader, mirrored
from genae.pixels import blend, from_uint8
from genae.schedule import Phase


def phase(batch_size: int, resolution: int, fade: float = 1.0) -> Phase:
    return Phase(
        index=1,
        resolution=resolution,
        fade=fade,
        settled=fade == 1,
        batch_size=batch_size,
        learning_rate=1.0,
        margin=0.0,
        images_seen=0,
        epoch=0.0,
    )


def dataset(images: np.ndarray) -> Dataset:
    return Dataset("toy", "train", images, "no digest needed")


def noise(count: int, channels: int = 3, size: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


@settings(max_examples=40, deadline=None)
@given(num_images=st.integers(1, 40), batch_size=st.integers(1, 50), epochs=st.integers(1, 3), seed=st.integers(0, 99))
def test_every_image_is_seen_once_an_epoch_also_where_a_batch_runs_over_its_end(num_images, batch_size, epochs, seed):
    loader = Loader(dataset(noise(num_images)), seed=seed, flip=False)
    seen: list[int] = []
    while len(seen) < epochs * num_images:
        seen += loader.draw(len(seen), batch_size)[0].tolist()
    for epoch in range(epochs):
        assert sorted(seen[epoch * num_images : (epoch + 1) * num_images]) == list(range(num_images))


@settings(max_examples=25, deadline=None)
@given(images_seen=st.integers(0, 10_000), batch_size=st.integers(1, 30), seed=st.integers(0, 9))
def test_a_batch_is_a_pure_function_of_the_images_seen(images_seen, batch_size, seed):
    images = noise(23)
    undisturbed = Loader(dataset(images), seed=seed, flip=True)
    for earlier in range(0, 90, 30):
        undisturbed.batch(earlier, phase(30, 8))
    resumed = Loader(dataset(images), seed=seed, flip=True)
    assert torch.equal(undisturbed.batch(images_seen, phase(batch_size, 8)), resumed.batch(images_seen, phase(batch_size, 8)))


def test_batches_of_any_size_cut_the_same_sequence():
    loader = Loader(dataset(noise(10)), seed=3, flip=True)
    whole = loader.batch(7, phase(12, 8))
    parts = [loader.batch(7 + start, phase(4, 8)) for start in (0, 4, 8)]
    assert torch.equal(whole, torch.cat(parts))


def test_rows_of_a_batch_are_the_rows_that_the_whole_batch_has():
    loader = Loader(dataset(noise(10)), seed=3, flip=True)
    whole = loader.batch(5, phase(8, 8))
    ranks = [loader.batch(5, phase(8, 8), rows=slice(4 * rank, 4 * rank + 4)) for rank in range(2)]
    assert torch.equal(whole, torch.cat(ranks))


def test_epochs_and_seeds_have_orders_of_their_own():
    loader, other = (Loader(dataset(noise(50)), seed=seed, flip=False) for seed in (0, 1))
    orders = [loader.draw(0, 50)[0], loader.draw(50, 50)[0], other.draw(0, 50)[0]]
    assert len({tuple(order) for order in orders}) == 3


def test_half_of_the_images_are_mirrored_and_none_without_flip():
    images = noise(2_000, channels=1, size=4)
    _, flips = Loader(dataset(images), seed=0, flip=True).draw(0, 2_000)
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / 2_000**0.5  # four standard errors of a fair coin
    assert not Loader(dataset(images), seed=0, flip=False).draw(0, 2_000)[1].any()
    _, later = Loader(dataset(images), seed=0, flip=True).draw(2_000, 2_000)
    assert (flips != later).any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 4, 8, 32])
def test_a_flipped_image_is_the_mirror_of_the_stored_one(size: int, channels: int):
    images = noise(40, channels, size)
    assert np.array_equal(mirrored(images), images[..., ::-1])
    loader = Loader(dataset(images), seed=1, flip=True)
    indices, flips = loader.draw(0, 40)
    expected = np.stack([images[i, :, :, ::-1] if flipped else images[i] for i, flipped in zip(indices, flips, strict=True)])
    assert torch.equal(loader.batch(0, phase(40, size)), from_uint8(torch.from_numpy(expected.copy())))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("resolution", "fade"), [(16, 1.0), (8, 1.0), (2, 1.0), (16, 0.0), (16, 0.3), (4, 0.7)])
def test_a_batch_is_the_blend_of_the_images_at_the_phase(channels: int, resolution: int, fade: float):
    images = noise(6, channels, 16)
    loader = Loader(dataset(images), seed=1, flip=False)
    at = phase(6, resolution, fade)
    batch = loader.batch(0, at)
    stored = torch.from_numpy(images[loader.draw(0, 6)[0]])
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch, blend(from_uint8(stored), at.growth), rtol=0, atol=2e-6)


def test_a_lower_resolution_is_the_exact_mean_of_the_stored_numbers():
    images = noise(5, 3, 16)
    batch = Loader(dataset(images), seed=0, flip=False)
    indices = batch.draw(0, 5)[0]
    means = images[indices].astype(np.float64).reshape(5, 3, 4, 4, 4, 4).mean(axis=(3, 5))  # multiples of 1/16: no rounding
    expected = torch.from_numpy(means.astype(np.float32)) / 127.5 - 1
    assert torch.equal(batch.batch(0, phase(5, 4)), expected)


def test_a_fade_in_begins_at_the_half_resolution_and_ends_at_the_full():
    images = noise(4, 3, 8)
    loader = Loader(dataset(images), seed=0, flip=False)
    half, full = loader.batch(0, phase(4, 4)), loader.batch(0, phase(4, 8))
    doubled = half.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(loader.batch(0, phase(4, 8, fade=0.0)), doubled, rtol=0, atol=1e-6)
    torch.testing.assert_close(loader.batch(0, phase(4, 8, fade=1 - 1e-9)), full, rtol=0, atol=1e-6)


def test_a_batch_may_be_larger_than_the_data():
    indices, _ = Loader(dataset(noise(3)), seed=0, flip=False).draw(0, 10)
    assert Counter(indices.tolist()).most_common()[0][1] == 4  # three whole epochs of three, and one more
    assert Counter(indices.tolist()).most_common()[-1][1] == 3


def test_a_data_set_without_images_is_refused():
    with pytest.raises(ValueError, match="toy has no images"):
        Loader(dataset(noise(0)), seed=0, flip=False)
