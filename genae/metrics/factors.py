"""What `factor-mixing`, `factor-conditional` and `factor-invariance` share: two codes share the layers out, what do factors do?

The papers show this by pictures only (Heljakka et al., 2020, Secs. 4.2, 4.3, A.4, A.5; 2019, Fig. 2); where the factors of the
data are known it can be counted. docs/factors.md defines each score in words.

A factor *follows* a face A and not a face B, in a picture made of the codes of both, if the factor regressor reads A's true
value off it: the very choice, or a number nearer to A's than to B's. Only pairs are counted in which the two differ, a number
by at least a quarter of its range. Judged by the truth, and not by what is read off reconstructions, the pairs are the same for
every row of a table, and what reconstructions lose shows in the ceiling.

Scored are the factors that the row carries: those read back from its plain reconstructions of test images. Where it carries
none of a scale that the score is about, the score is not defined: a decoder that ignores one of its two codes would be perfect
on what is left.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

import torch
from torch import Tensor

from genae.context import Context
from genae.data.dataset import Dataset, Factor, Splits
from genae.metrics.factor_regressor import FactorRegressor, Readings, factor_regressor, readback, recipe, truth_of
from genae.metrics.images import real_images
from genae.metrics.metric import NOISE_INPUTS, Metric, NotDefined, check_at_least
from genae.models.autoencoder import Autoencoder, mix

APART = 0.25  # of a number's range: pairs that are nearer to one another are not counted

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Faces:
    """Test images as the model and the regressor see them.

    codes: [N, D].  truth, drawn, reconstructed: the true factors, those read off the images, and off their reconstructions.
    carried: the factors that are read back well enough.  decoders: "" is the model's own, "untrained" one that never learned.
    """

    regressor: FactorRegressor
    codes: Tensor
    truth: Readings
    drawn: Readings
    reconstructed: Readings
    carried: tuple[Factor, ...]
    decoders: Mapping[str, Decode]
    batch_size: int

    def read(self, codes: Tensor, decoder: str = "") -> Readings:
        """The factors of what a decoder makes of codes [N, D] or [N, L, D]."""
        return _read(self.regressor, self.decoders[decoder], codes, self.batch_size)

    def carried_at(self, scale: str) -> list[Factor]:
        """The carried factors of a scale. Raises NotDefined where there is none."""
        return self.some([factor for factor in self.carried if factor.scale == scale], f"{scale} factor")

    def some(self, factors: list[Factor], what: str) -> list[Factor]:
        """These, if there are any. Raises NotDefined."""
        if factors:
            return factors
        names = ", ".join(factor.name for factor in self.carried) or "none"
        raise NotDefined(f"no {what} is read back from reconstructions; carried are: {names}")

    def details(self) -> dict[str, float | str]:
        """What a record says of them."""
        factors, carried = self.regressor.factors, {factor.name for factor in self.carried}
        names = {
            "carried": [factor.name for factor in factors if factor.name in carried],
            "not_carried": [factor.name for factor in factors if factor.name not in carried],
        }
        numbers = {}
        for factor in factors:
            name = factor.name
            numbers[f"{name}.drawn"] = readback(factor, self.drawn[name], self.truth[name])
            numbers[f"{name}.reconstructed"] = readback(factor, self.reconstructed[name], self.truth[name])
        return {key: ", ".join(value) or "none" for key, value in names.items()} | numbers


@dataclass(frozen=True)
class Trial:
    """Pictures whose first layers follow one code and whose others follow another, and what to make of their factors.

    first, second: codes [P, D].  score: readings of P pictures -> the score, under "", and its parts by name, all in [0, 1].
    ceiling: what would be read if every factor followed the code that it should, as well as plain reconstructions allow.
    chance: what is read off pictures that have nothing to do with what they should follow.
    """

    first: Tensor
    second: Tensor
    score: Callable[[Readings], dict[str, float]]
    ceiling: Readings
    chance: Readings


@dataclass(kw_only=True)
class FactorMetric(Metric):
    """A score in [0, 1] of the factors that the model carries, the mean over splits of the layers.

    carried_accuracy, carried_r2: what reading a factor back from reconstructions must come to, by choice or by number.
    num_images: only the first so many of the test split; None for all.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"decode", "encode", "layers"})
    needs_factors: ClassVar[bool] = True
    direction: ClassVar[str] = "max"
    carried_accuracy: float = 0.9
    carried_r2: float = 0.8
    num_images: int | None = None

    def __post_init__(self) -> None:
        check_at_least(2, num_images=self.num_images)

    def splits(self, num_layers: int) -> Sequence[int]:
        """How many of the layers are the first code's, each in turn. Raises NotDefined where there are none."""
        if num_layers < 2:
            raise NotDefined("the decoder has one layer, so nothing can be mixed")
        return range(1, num_layers)

    def trial(self, model: Autoencoder, faces: Faces, context: Context) -> Trial:
        """What is to be scored. Raises NotDefined where the factors that it is about are not carried."""
        raise NotImplementedError

    def measure(self, model: Autoencoder, data: Splits, context: Context) -> dict[str, float | str]:
        splits = self.splits(model.num_layers)
        faces = self._faces(model, data, context)
        trial = self.trial(model, faces, context)
        scored: dict[str, list[dict[str, float]]] = {who: [] for who in faces.decoders}
        for split in splits:
            codes = mix(trial.first, trial.second, split, model.num_layers)  # [P, L, D]
            for who in faces.decoders:
                scored[who].append(trial.score(faces.read(codes, who)))
        own = scored.pop("")
        beside = {who: _means(scores) for who, scores in scored.items()}
        beside |= {"ceiling": trial.score(trial.ceiling), "chance": trial.score(trial.chance)}

        values: dict[str, float | str] = {name or self.name: value for name, value in _means(own).items()}
        for who, scores in beside.items():
            values |= {f"{name}.{who}".lstrip("."): value for name, value in scores.items()}
        for split, scores in zip(splits, own, strict=True):
            values |= {f"{name}.j{split}".lstrip("."): value for name, value in scores.items()}
        return values | faces.details()

    def protocol(self, data: Splits, context: Context) -> dict[str, Any]:
        dataset = self._images(data)
        return super().protocol(data, context) | {
            "images": {"split": dataset.split, "digest": dataset.digest, "count": len(dataset)},
            "regressor": recipe(data.train),
            "apart": APART,
            "clipped": True,
            "rounded": False,
            "noise": NOISE_INPUTS,
            "seed": context.seed,
        }

    def notes(self) -> list[str]:
        settings = {"carried_accuracy": 0.9, "carried_r2": 0.8}
        loose = [
            f"{name.replace('_', ' ')} {getattr(self, name):g}"
            for name, usual in settings.items()
            if getattr(self, name) != usual
        ]
        return super().notes() + loose + ([] if self.num_images is None else [f"{self.num_images} images"])

    def _faces(self, model: Autoencoder, data: Splits, context: Context) -> Faces:
        """The test images: encoded, reconstructed, read."""
        if data.train.digest == data.test.digest:
            raise ValueError(f"{self.name} reads test images by what it learned from training images; here they are the same")
        dataset = self._images(data)
        regressor = factor_regressor(data.train, context.device)
        truth, drawn = truth_of(dataset), regressor.read(real_images(dataset, context))
        codes = torch.cat([model.encode(images) for images in real_images(dataset, context)])
        decoders: dict[str, Decode] = {"": model.decode}
        if context.untrained is not None:
            decoders["untrained"] = context.untrained().to(context.device).eval().decode
        reconstructed = _read(regressor, model.decode, codes, context.batch_size)
        carried = tuple(factor for factor in regressor.factors if self._carries(factor, reconstructed, truth))
        return Faces(regressor, codes, truth, drawn, reconstructed, carried, decoders, context.batch_size)

    def _images(self, data: Splits) -> Dataset:
        return data.test.first(self.num_images)

    def _carries(self, factor: Factor, reconstructed: Readings, truth: Readings) -> bool:
        read = readback(factor, reconstructed[factor.name], truth[factor.name])
        return read >= (self.carried_accuracy if factor.choices else self.carried_r2)


def shares(
    parts: Mapping[str, Iterable[Factor]], readings: Readings, truth: Readings, rows: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """By factor, the share of pictures that follow the row they should; and by part, the mean of its factors.

    parts: part -> its factors.  rows: part -> (the rows of `truth` to follow [P], the rows not to [P]).
    """
    found: dict[str, float] = {}
    for part, factors in parts.items():
        of_part = {factor.name: follows(factor, readings[factor.name], truth[factor.name], *rows[part]) for factor in factors}
        found |= {part: fmean(of_part.values())} | of_part
    return found


def follows(factor: Factor, reading: Tensor, truth: Tensor, own: Tensor, other: Tensor) -> float:
    """The share of readings [P] that follow rows `own` [P] of the truth [N] and not rows `other` [P], where the two differ."""
    mine, others = truth[own], truth[other]
    if factor.choices:
        differ, follow = mine != others, reading == mine
    else:
        differ = (mine - others).abs() >= APART * (factor.high - factor.low)
        follow = (reading - mine).abs() < (reading - others).abs()
    if not differ.any():
        raise ValueError(f"no two of the faces that were paired differ in {factor.name}; measure more of them")
    return follow[differ].double().mean().item()


def _means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: fmean(score[name] for score in scores) for name in scores[0]}


def _read(regressor: FactorRegressor, decode: Decode, codes: Tensor, batch_size: int) -> Readings:
    return regressor.read(decode(batch).clamp(-1, 1) for batch in codes.split(batch_size))
