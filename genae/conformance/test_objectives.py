"""What holds for every registered objective with every model that provides what it needs, third-party ones included."""

import dataclasses
import functools
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genae.conformance.names import buildable, registered
from genae.models.autoencoder import Generator
from genae.objectives.objective import Objective, Terms, Update
from genae.registry import MODELS, OBJECTIVES
from genae.schedule import Phase

SIZE, BATCH_SIZE = 16, 8
OURS = {"objective": registered(OBJECTIVES), "model": registered(MODELS)}


def build_model(name: str, seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    return MODELS.build({"name": name, **MODELS[name].small}, (3, SIZE, SIZE)).to(memory_format=torch.channels_last)


BUILT = {name: build_model(name) for name in buildable(MODELS)}
PROVIDES = {name: model.provides for name, model in BUILT.items() if list(model.parameters())}  # there is something to train
PAIRS = [
    (objective, model)
    for objective in OBJECTIVES.names()
    for model in PROVIDES
    if (objective in OURS["objective"] or model in OURS["model"]) and OBJECTIVES[objective].factory.needs <= PROVIDES[model]
]


@functools.cache
def follows_growth(objective: str, model: str) -> bool:
    """Whether the objective passes the phase's growth on to a model that grows; one that does not serves full size only."""
    if "growth" not in PROVIDES[model]:
        return False
    training = Training(objective, model)
    try:
        training.step(0, phases_from(SIZE // 2)[0])
    except ValueError:  # the encoder's, that the images are too small for it
        return False
    return True


def phases(objective: str, model: str) -> list[Phase]:
    return phases_from(SIZE // 2 if follows_growth(objective, model) else SIZE)


def phases_from(first: int) -> list[Phase]:
    """Three phases: the second grows to the full size, if the first is smaller, and fades in; the third has settled."""
    second_fade = 0.5 if first < SIZE else 1.0
    common = {"batch_size": BATCH_SIZE, "learning_rate": 1e-3, "margin": 0.5, "images_seen": 0, "epoch": 0.0}
    return [
        Phase(index=0, resolution=first, fade=1.0, settled=True, **common),
        Phase(index=1, resolution=SIZE, fade=second_fade, settled=False, **common),
        Phase(index=2, resolution=SIZE, fade=1.0, settled=True, **common),
    ]


def batch(number: int, phase: Phase) -> Tensor:
    """Smooth pictures, the same for the same number."""
    coarse = torch.rand(BATCH_SIZE, 3, 4, 4, generator=torch.Generator().manual_seed(number)) * 2 - 1
    return nn.functional.interpolate(coarse, phase.resolution, mode="bilinear").contiguous(memory_format=torch.channels_last)


def parameters_of(update: Update) -> list[nn.Parameter]:
    groups = [update.parameters] if isinstance(update.parameters, list) else update.parameters.values()
    return [parameter for group in groups for parameter in group]


class Training:
    """A model, an objective and plain optimisers: as little of a trainer as the contract asks for."""

    def __init__(self, objective: str, model: str, seed: int = 0, learning_rate: float = 1e-3) -> None:
        self.model = build_model(model, seed)
        self.objective: Objective = OBJECTIVES.build({"name": objective, **OBJECTIVES[objective].small})
        self.learning_rate = learning_rate
        self.phase_index = -1
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.list_updates()

    def list_updates(self) -> None:
        """Ask for the updates, keeping what the optimisers know of parameters that are still there."""
        self.updates = self.objective.updates(self.model)
        before = self.optimizers  # a parameter of two updates has two optimisers that know of it
        listed = {update.name: parameters_of(update) for update in self.updates}  # one that is listed twice has one optimiser
        self.optimizers = {
            name: torch.optim.Adam(parameters, lr=self.learning_rate, betas=(0.0, 0.99)) for name, parameters in listed.items()
        }
        for name, optimizer in self.optimizers.items():
            known = before[name].state if name in before else {}
            optimizer.state.update({p: known[p] for p in listed[name] if p in known})

    def begin(self, phase: Phase) -> None:
        if phase.index != self.phase_index:
            self.objective.enter(phase)
            self.phase_index = phase.index
            self.list_updates()

    def terms(self, update: Update, number: int, phase: Phase, generator: torch.Generator) -> Terms:
        self.model.train().requires_grad_(False)
        for parameter in parameters_of(update):
            parameter.requires_grad_(True)
        return update.terms(self.model, batch(number, phase), phase, generator)

    def step(self, number: int, phase: Phase, images: int | None = None) -> list[Terms]:
        """One training step, its draws seeded by its number; images: the number of the batch, if it is another."""
        self.begin(phase)
        torch.manual_seed(number)
        generator = torch.Generator().manual_seed(number)
        found = []
        for update in self.updates:
            found.append(self.terms(update, number if images is None else images, phase, generator))
            sum(found[-1].values()).backward()
            self.optimizers[update.name].step()
            self.optimizers[update.name].zero_grad()
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "phase_index": self.phase_index,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.objective.load_state_dict(state["objective"])
        self.list_updates()
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.phase_index = state["phase_index"]


def assert_same(a: Any, b: Any) -> None:
    """Equal to the last bit, through dicts and lists."""
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b


@pytest.mark.parametrize(("objective", "model"), PAIRS)
def test_terms_are_finite_scalars_with_a_gradient(objective, model):
    training = Training(objective, model)
    for number, phase in enumerate(phases(objective, model)):
        for terms in training.step(number, phase):
            assert terms
            for value in terms.values():
                assert value.ndim == 0
                assert math.isfinite(value.item())
            assert sum(terms.values()).requires_grad


@pytest.mark.parametrize(("objective", "model"), PAIRS)
def test_an_update_reaches_all_its_parameters_in_use_and_a_step_changes_no_others(objective, model):
    training = Training(objective, model)
    for number, phase in enumerate(phases(objective, model)):
        training.step(number, phase)  # off the start, where some gradients are zero
        in_use = used_parameters(training.model, phase)
        everything = {p for update in training.updates for p in parameters_of(update)} | set(training.model.parameters())
        in_updates = set()
        for update in training.updates:
            before = {p: p.detach().clone() for p in everything}
            sum(training.terms(update, number, phase, torch.Generator().manual_seed(0)).values()).backward()
            own = set(parameters_of(update))
            # The harness has frozen the rest of the model, so this is that nothing is missed; the other half is below.
            assert own & in_use <= {p for p in everything if p.grad is not None}
            training.optimizers[update.name].step()
            training.optimizers[update.name].zero_grad()
            changed = {p for p in everything if not torch.equal(p, before[p])}
            assert changed, f"update {update.name!r} changes nothing"
            assert changed <= own, f"update {update.name!r} writes to parameters that it does not list"
            in_updates |= own
        assert in_use <= in_updates, "some parameters of the model are in no update"


def used_parameters(model: Generator, phase: Phase) -> set[nn.Parameter]:
    """Those that encoding and decoding at the phase's growth depend on."""
    model.requires_grad_(True)
    total = model.decode(model.prior(2, torch.Generator().manual_seed(0)), phase.growth).sum()
    if "encode" in model.provides:
        total = total + model.encode(batch(0, phase), phase.growth).sum()
    if "discriminate" in model.provides:
        total = total + model.discriminate(batch(0, phase), phase.growth).sum()
    gradients = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    return {p for p, gradient in zip(model.parameters(), gradients, strict=True) if gradient is not None}


@pytest.mark.parametrize(("objective", "model"), PAIRS)
def test_the_same_draws_give_the_same_terms(objective, model):
    first, second = (Training(objective, model) for _ in range(2))
    for number, phase in enumerate(phases(objective, model)):
        assert_same(first.step(number, phase), second.step(number, phase))


@pytest.mark.parametrize(("objective", "model"), PAIRS)
def test_training_resumed_is_training_undisturbed_to_the_last_bit(objective, model):
    order = [phase for phase in phases(objective, model) for _ in range(4)]  # 12 steps
    undisturbed = Training(objective, model)
    for number, phase in enumerate(order):
        undisturbed.step(number, phase)

    for saved_after in (3, 4, 6):  # within the first phase, at its end, within the next
        before, file = Training(objective, model), io.BytesIO()
        for number, phase in enumerate(order[:saved_after]):
            before.step(number, phase)
        torch.save(before.state_dict(), file)
        file.seek(0)
        after = Training(objective, model, seed=1)  # from another start, so that nothing is right by luck
        after.load_state_dict(torch.load(file, weights_only=True))
        for number, phase in enumerate(order[saved_after:], start=saved_after):
            after.step(number, phase)
        assert_same(after.state_dict(), undisturbed.state_dict())


@pytest.mark.parametrize(("objective", "model"), PAIRS)
def test_updates_asked_for_again_are_the_same_parameters(objective, model):
    training = Training(objective, model)
    training.begin(phases(objective, model)[0])
    again = training.objective.updates(training.model)
    assert [update.name for update in again] == [update.name for update in training.updates]
    for one, other in zip(again, training.updates, strict=True):
        assert [id(p) for p in parameters_of(one)] == [id(p) for p in parameters_of(other)]


@pytest.mark.parametrize(
    ("objective", "model"), [pair for pair in PAIRS if len(Training(*pair).objective.updates(build_model(pair[1]))) == 1]
)
def test_a_loss_of_one_update_falls_on_one_batch(objective, model):
    training = Training(objective, model, learning_rate=3e-3)
    phase = dataclasses.replace(phases_from(SIZE)[2], index=0)
    losses = [sum(training.step(number, phase, images=0)[0].values()).item() for number in range(30)]
    start, end = sum(losses[:3]) / 3, sum(losses[-5:]) / 5
    assert end < start - 0.2 * abs(start) or end < 1e-6  # a model that is a bijection reconstructs from the start


@pytest.mark.parametrize("objective", OURS["objective"])
def test_an_objective_that_keeps_nothing_refuses_what_is_not_its_own(objective):
    fresh = OBJECTIVES.build({"name": objective, **OBJECTIVES[objective].small})
    if not fresh.state_dict():
        with pytest.raises(ValueError, match="nonsense"):
            fresh.load_state_dict({"nonsense": 1})
