"""The weights that did best on a split which training does not see, of all that training passed through."""

import copy
from typing import Any

import torch
from torch import Tensor

from genae.densities.density import Density
from genae.spec import KeepBest

LOOKED_AT_ONCE = 10_000


class BestWeights:
    """Looks at a density now and then, and keeps the weights of the highest mean log density.

    vectors: [M, D], what it is looked at on.
    """

    def __init__(self, density: Density, settings: KeepBest, vectors: Tensor) -> None:
        if "log_prob" not in density.provides:
            raise ValueError("keep_best compares likelihoods, and this density has none")
        self.density = density
        self.settings = settings
        self.vectors = vectors[: settings.count]
        self.score: float | None = None
        self.latest: float | None = None
        self.images_seen = 0
        self.weights: dict[str, Any] | None = None

    @torch.no_grad()
    def look(self, images_seen: int) -> None:
        """Find the mean log density now, in nats: `latest`. The weights are kept where it is the highest so far."""
        self.density.eval()
        parts = [self.density.log_prob(part).double().sum() for part in self.vectors.split(LOOKED_AT_ONCE)]
        self.latest = float(torch.stack(parts).sum() / len(self.vectors))
        if self.score is None or self.latest > self.score:
            self.score, self.images_seen = self.latest, images_seen
            self.weights = copy.deepcopy(self.density.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "latest": self.latest, "images_seen": self.images_seen, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score, self.latest = state["score"], state["latest"]
        self.images_seen, self.weights = state["images_seen"], state["weights"]
