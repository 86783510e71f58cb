"""The objectives in this package pass the phase's growth on; a baseline's may leave it out, and then serves full size only.

But for that of densities, which do not grow.
"""

import pytest
import torch

from genae.latent import Gaussian
from genae.models.adversarial import AdversarialGenerator
from genae.models.autoencoder import Generator
from genae.networks.adain import AdaInDecoder
from genae.networks.discriminator import Discriminator
from genae.registry import MODELS, OBJECTIVES
from genae.schedule import Phase

OURS = [
    name
    for name in OBJECTIVES.names()
    if OBJECTIVES[name].factory.__module__.startswith("genae.")
    and not OBJECTIVES[name].factory.needs & {"log_prob", "discriminate_codes"}  # of models that do not grow
]
SHAPE = (3, 16, 16)


def model_for(needs: frozenset[str]) -> Generator:
    if "discriminate" in needs:
        decoder, discriminator = AdaInDecoder(4, SHAPE, channels=[4]), Discriminator(SHAPE, channels=[4])
        return AdversarialGenerator(Gaussian(4), decoder, discriminator)
    return MODELS.build({"name": "vae-adain", "latent_dim": 4, "channels": [4]}, SHAPE)  # provides all else there is


@pytest.mark.parametrize("name", OURS)
def test_every_objective_trains_a_model_that_has_not_fully_grown(name):
    objective = OBJECTIVES.build({"name": name, **OBJECTIVES[name].small})
    model = model_for(objective.needs)
    assert objective.needs <= model.provides
    phase = Phase(
        index=0, resolution=8, fade=0.5, settled=False, batch_size=4, learning_rate=1e-3, margin=0, images_seen=0, epoch=0
    )
    objective.updates(model)
    objective.enter(phase)
    for update in objective.updates(model):
        terms = update.terms(model, torch.zeros(4, 3, 8, 8), phase, torch.Generator().manual_seed(0))
        assert all(value.isfinite() for value in terms.values())
