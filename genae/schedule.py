"""Images seen -> what holds now. Pure: the same count gives the same phase, whoever asks and however often."""

from dataclasses import dataclass
from typing import NamedTuple


class Growth(NamedTuple):
    """How far a progressively grown network has grown: its resolution, and how much of the newest block is blended in.

    fade: 0 shows only the previous resolution (upsampled), 1 only the newest block.
    """

    resolution: int
    fade: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PhaseSettings:
    """One entry of `phases:` in YAML.

    resolution: of the images; None is the data's own. A stage on codes has none.

    kimg: thousands of images this phase lasts; the last phase may leave it out and run to `total_kimg`.
    fade_kimg: the first thousands of images in which the phase's newest resolution is blended in.
    learning_rate: a number, or a mapping from update (or parameter group) to number.
    margin: M_gap of Heljakka et al. (2020), Eq. 6, in the paper's units; 0 turns the clamp off.
    """

    resolution: int | None = None
    batch_size: int
    learning_rate: float | dict[str, float]
    kimg: float | None = None
    fade_kimg: float = 0.0
    margin: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What holds at one moment of training.

    index: number of the phase, from 0.  fade: see Growth.  settled: the phase's fade-in time is over (true of the first phase
    only after its `fade_kimg` too: the released automodulator weighs its loss by this, though nothing fades at 4x4).
    images_seen: the clock.  epoch: images seen / images in the training split, a float.
    """

    index: int
    resolution: int | None
    fade: float
    settled: bool
    batch_size: int
    learning_rate: float | dict[str, float]
    margin: float
    images_seen: int
    epoch: float

    @property
    def growth(self) -> Growth | None:
        return None if self.resolution is None else Growth(self.resolution, self.fade)

    def rate(self, group: str, update: str) -> float:
        """The learning rate of a parameter group of an update: by the group's name, else the update's, else the one for all."""
        if not isinstance(self.learning_rate, dict):
            return self.learning_rate
        for name in (group, update):
            if name in self.learning_rate:
                return self.learning_rate[name]
        raise ValueError(f"no learning_rate for {update!r} / {group!r}; the phase gives: {', '.join(self.learning_rate)}")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """`schedule:` in YAML. A phase changes at the first step that begins at or past its image count; no batch is cut."""

    total_kimg: float
    phases: tuple[PhaseSettings, ...]

    def __post_init__(self) -> None:
        if self.total_kimg <= 0:
            raise ValueError(f"total_kimg must be positive, not {self.total_kimg}")
        if not self.phases:
            raise ValueError("a schedule needs at least one phase")
        for index, phase in enumerate(self.phases):
            where = f"phases[{index}]"
            if phase.kimg is None and index < len(self.phases) - 1:
                raise ValueError(f"{where}: kimg may be left out only in the last phase")
            for name in ("resolution", "batch_size", "kimg"):
                value = getattr(phase, name)
                if value is not None and value <= 0:
                    raise ValueError(f"{where}: {name} must be positive, not {value}")
            for name in ("fade_kimg", "margin"):
                if getattr(phase, name) < 0:
                    raise ValueError(f"{where}: {name} must not be negative, not {getattr(phase, name)}")
        if self.starts[-1] >= self.total_images:
            raise ValueError(f"total_kimg {self.total_kimg} ends before phases[{len(self.phases) - 1}] begins")

    @property
    def total_images(self) -> int:
        return round(1000 * self.total_kimg)

    @property
    def starts(self) -> tuple[int, ...]:
        """The image count at which each phase begins."""
        counts, start = [], 0.0
        for phase in self.phases:
            counts.append(round(1000 * start))
            start += phase.kimg or 0.0
        return tuple(counts)

    def at(self, images_seen: int, num_images: int = 1) -> Phase:
        """The phase in force once `images_seen` images have been trained on, of a split of `num_images`."""
        index = max(i for i, start in enumerate(self.starts) if start <= images_seen)
        settings = self.phases[index]
        into, fade_images = images_seen - self.starts[index], 1000 * settings.fade_kimg
        settled = into >= fade_images
        grows = index > 0 and (settings.resolution or 0) > (self.phases[index - 1].resolution or 0)
        return Phase(
            index=index,
            resolution=settings.resolution,
            fade=1.0 if settled or not grows else into / fade_images,
            settled=settled,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            margin=settings.margin,
            images_seen=images_seen,
            epoch=images_seen / num_images,
        )
