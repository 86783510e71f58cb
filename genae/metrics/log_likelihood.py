"""`log-likelihood` of test vectors under the density that was learned, and `code-log-likelihood` of the codes of test images.

    1/N sum_i log p(x_i),  in nats per vector

which is what Yoo et al. (2019, Table 1) print of patches. The codes of images are in units of the autoencoder's own making:
their likelihoods compare densities of the same codes, and say nothing across autoencoders.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Dataset, Splits, Vectors
from genae.densities.gaussian import fit_gaussian
from genae.metrics.images import real_images
from genae.metrics.metric import Metric, NotDefined, check_at_least
from genae.models.autoencoder import Autoencoder
from genae.registry import METRICS

VECTORS_AT_ONCE = 1000


@dataclass(kw_only=True)
class MeanLogLikelihood(Metric):
    """The mean over the test split of log p(code), in nats.

    Details: `standard_error` of the mean over the split; `floor`, the same number of the Gaussian with the mean and covariance
    of the training split's codes (densities/gaussian.py), which any density worth its training is above. Where that
    covariance is singular there is no such number, and `floor_missing` says so.

    num_test: only the first so many of the test split; None for all.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"encode", "density"})
    direction: ClassVar[str] = "max"
    num_test: int | None = None

    def __post_init__(self) -> None:
        check_at_least(2, num_test=self.num_test)

    def codes(self, model: Autoencoder, data: Dataset | Vectors, context: Context) -> Iterator[Tensor]:
        """What the density is of, [n, D] at a time. Raises NotDefined."""
        raise NotImplementedError

    def measure(self, model: Autoencoder, data: Splits, context: Context) -> dict[str, float | str]:
        if "log_prob" not in model.density.provides:
            raise NotDefined("this density draws samples and has no likelihood")
        held_out = torch.cat(list(self.codes(model, self._held_out(data), context)))  # [N, D]
        nats = torch.cat([model.density.log_prob(some) for some in held_out.split(VECTORS_AT_ONCE)]).double()
        broken = int((~nats.isfinite()).sum())
        if broken:
            raise ValueError(f"{broken} of {len(nats)} vectors have no finite likelihood")
        error = nats.std(correction=0).item() / math.sqrt(len(nats))
        return {self.name: nats.mean().item(), "standard_error": error} | self._floor(model, data, held_out, context)

    def _floor(self, model: Autoencoder, data: Splits, held_out: Tensor, context: Context) -> dict[str, float | str]:
        try:
            fitted = fit_gaussian(torch.cat([codes.cpu() for codes in self.codes(model, data.train, context)]))
        except ValueError as reason:
            return {"floor_missing": str(reason)}
        nats = [fitted.log_prob(some.cpu().double()) for some in held_out.split(VECTORS_AT_ONCE)]
        return {"floor": torch.cat(nats).mean().item()}

    def _held_out(self, data: Splits) -> Dataset | Vectors:
        return data.test.first(self.num_test)

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        held_out = self._held_out(data)
        return super().protocol(data, context) | {
            "vectors": {"split": held_out.split, "digest": held_out.digest, "count": len(held_out)},
            "dtype": {"density": "float32", "mean": "float64"},
        }

    def notes(self) -> list[str]:
        return super().notes() + ([] if self.num_test is None else [f"first {self.num_test}"])


@METRICS.add("log-likelihood", small={"num_test": 8})
@dataclass(kw_only=True)
class LogLikelihood(MeanLogLikelihood):
    """Mean log likelihood of test vectors in nats, for a density of the vectors themselves."""

    name: ClassVar[str] = "log-likelihood"

    def codes(self, model: Autoencoder, data: Dataset | Vectors, context: Context) -> Iterator[Tensor]:
        if not isinstance(data, Vectors):
            raise NotDefined("the data are images; of their codes there is code-log-likelihood")
        for vectors in _batches(data, context):
            codes = model.encode(vectors)
            if not torch.equal(codes, vectors):
                raise NotDefined("the density is of the codes of the vectors, and not of the vectors; see code-log-likelihood")
            yield codes


@METRICS.add("code-log-likelihood", small={"num_test": 8})
@dataclass(kw_only=True)
class CodeLogLikelihood(MeanLogLikelihood):
    """Mean log likelihood of the codes of test images in nats; comparable only where the autoencoder is the same."""

    name: ClassVar[str] = "code-log-likelihood"
    of_one_autoencoder: ClassVar[bool] = True

    def codes(self, model: Autoencoder, data: Dataset | Vectors, context: Context) -> Iterator[Tensor]:
        batches = _batches(data, context) if isinstance(data, Vectors) else real_images(data, context)
        return (model.encode(batch) for batch in batches)


def _batches(data: Vectors, context: Context) -> Iterator[Tensor]:
    """The data set's vectors in order, float32 [n, D]."""
    for start in range(0, len(data), VECTORS_AT_ONCE):
        yield torch.tensor(data.vectors[start : start + VECTORS_AT_ONCE]).to(context.device)
