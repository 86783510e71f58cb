"""The objectives in this package pass the phase's growth on; a baseline's may leave it out, and then serves full size only."""

import pytest
import torch

from genae.registry import MODELS, OBJECTIVES
from genae.schedule import Phase

OURS = [name for name in OBJECTIVES.names() if OBJECTIVES[name].factory.__module__.startswith("genae.")]


@pytest.mark.parametrize("name", OURS)
def test_every_objective_trains_a_model_that_has_not_fully_grown(name):
    model = MODELS.build({"name": "vae-adain", "latent_dim": 4, "channels": [4]}, (3, 16, 16))  # provides all there is
    objective = OBJECTIVES.build({"name": name, **OBJECTIVES[name].small})
    assert objective.needs <= model.provides
    phase = Phase(
        index=0, resolution=8, fade=0.5, settled=False, batch_size=4, learning_rate=1e-3, margin=0, images_seen=0, epoch=0
    )
    objective.updates(model)
    objective.enter(phase)
    for update in objective.updates(model):
        terms = update.terms(model, torch.zeros(4, 3, 8, 8), phase, torch.Generator().manual_seed(0))
        assert all(value.isfinite() for value in terms.values())
