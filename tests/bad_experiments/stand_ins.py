"""Components for the experiment files beside this one: constructors with settings, and nothing behind them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from genae.registry import DATASETS, FIGURES, METRICS, MODELS, OBJECTIVES


@DATASETS.add("toy-images")
def toy_images(split: str, *, resolution: int = 32) -> None: ...


@MODELS.add("toy-vae")
def toy_vae(
    shape: tuple,
    *,
    latent_dim: int,
    channels: tuple[int, ...] = (16, 32),
    dropout: float = 0.0,
    norm: Literal["batch", "group"] = "batch",
) -> None: ...


@OBJECTIVES.add("toy-elbo")
@dataclass(kw_only=True)
class ToyElbo:
    kl_weight: float = 1.0
    free_bits: bool = False

    def __post_init__(self) -> None:
        if self.kl_weight < 0:
            raise ValueError(f"kl_weight must not be negative, not {self.kl_weight}")


@METRICS.add("toy-mse")
@dataclass(kw_only=True)
class ToyMse:
    num_images: int | None = None


@METRICS.add("toy-psnr")
@dataclass(kw_only=True)
class ToyPsnr:
    direction: ClassVar[str] = "max"
    crop: Literal["none", "face"] = "none"


@METRICS.add("toy-ssim")
@dataclass(kw_only=True)
class ToySsim:
    direction: ClassVar[str] = "max"


@FIGURES.add("toy-samples")
@dataclass(kw_only=True)
class ToySamples:
    num_rows: int = 4
