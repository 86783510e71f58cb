"""How long a model takes per image: the median over repeats of the time of a batch, after one that does not count."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from genae.context import Context, seconds_of
from genae.data.dataset import Splits
from genae.metrics.images import real_images
from genae.metrics.metric import NOISE_INPUTS, Metric, check_at_least
from genae.models.autoencoder import Autoencoder, Generator
from genae.registry import METRICS


@dataclass(kw_only=True)
class Seconds(Metric):
    """Seconds per image. batch_size: images at a time.  repeats: batches timed."""

    name: ClassVar[str]
    repeatable: ClassVar[bool] = False
    batch_size: int = 16
    repeats: int = 20

    def __post_init__(self) -> None:
        check_at_least(1, batch_size=self.batch_size, repeats=self.repeats)

    def work(self, model: Generator, data: Splits, context: Context) -> Callable[[], Tensor]:
        """What is timed, on one batch that is already on the device."""
        raise NotImplementedError

    def measure(self, model: Generator, data: Splits, context: Context) -> dict[str, float]:
        work = self.work(model, data, context)
        seconds_of(work, context.device)  # the first call allocates
        times = [seconds_of(work, context.device) / self.batch_size for _ in range(self.repeats)]
        return {self.name: statistics.median(times), "fastest": min(times), "slowest": max(times)}

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        return super().protocol(data, context) | {"device": context.device.type, "threads": torch.get_num_threads()}

    def notes(self) -> list[str]:
        return super().notes() + ([] if self.batch_size == Seconds.batch_size else [f"batches of {self.batch_size}"])


@METRICS.add("encode-seconds", small={"batch_size": 2, "repeats": 2})
@dataclass(kw_only=True)
class EncodeSeconds(Seconds):
    """Seconds to encode an image."""

    name: ClassVar[str] = "encode-seconds"
    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode"})

    def work(self, model: Autoencoder, data: Splits, context: Context) -> Callable[[], Tensor]:
        images = torch.cat(list(real_images(data.test.first(self.batch_size), context)))
        images = images[torch.arange(self.batch_size, device=images.device) % len(images)]  # again from the first, if too few
        return lambda: model.encode(images)


@METRICS.add("decode-seconds", small={"batch_size": 2, "repeats": 2})
@dataclass(kw_only=True)
class DecodeSeconds(Seconds):
    """Seconds to decode an image."""

    name: ClassVar[str] = "decode-seconds"

    def work(self, model: Generator, data: Splits, context: Context) -> Callable[[], Tensor]:
        codes = model.prior(self.batch_size, context.generator("codes to time")).to(context.device)
        return lambda: model.decode(codes)

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        return super().protocol(data, context) | {"noise": NOISE_INPUTS}
