"""The state of one stage's training, and the step that moves it."""

from collections import Counter
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from genae.best import BestWeights
from genae.densities.density import Density
from genae.ema import AveragedParts
from genae.models.autoencoder import Generator
from genae.objectives.objective import Objective, Update
from genae.parallel import ALONE, Group
from genae.randomness import generator_for, seed_for
from genae.registry import suggestion
from genae.schedule import Phase
from genae.spec import Average, StageSpec

OPTIMIZERS = {"adam": torch.optim.Adam}


class Training:
    """Every piece of state that a stage's training has, the objective's included, and the step that moves it."""

    def __init__(
        self,
        model: Generator | Density,
        objective: Objective,
        stage: StageSpec,
        *,
        seed: int,
        precision: str = "float32",
        best: BestWeights | None = None,
        group: Group = ALONE,
    ) -> None:
        lacking = objective.needs - model.provides
        if lacking:
            raise ValueError(f"objective {stage.objective['name']!r} needs a model that provides {', '.join(sorted(lacking))}")
        self.model = model
        self.objective = objective
        self.stage = stage
        self.seed = seed
        self.precision = precision
        self.images_seen = 0
        self.phase_index = -1  # of the phase last entered
        self.average = AveragedParts(model, Average(**stage.average)) if stage.average else None
        self.best = best
        self.group = group
        self.sums: dict[str, Tensor] = {}  # loss terms since the last line of progress.jsonl, on the device
        self.steps = 0  # since then
        self.updates: list[Update] = []
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._set_up_updates()
        self._check_learning_rates()
        group.span(model)

    def step(self, images: Tensor, phase: Phase) -> None:
        """One training step: each update of the objective in turn, on images [N, C, H, W] in [-1, 1] at the phase's growth.

        Where a density is trained: on codes [N, D].  On several processes, within their `Group.step`: all with all the images.
        """
        if phase.index != self.phase_index:
            self.objective.enter(phase)
            self.phase_index = phase.index
            self._set_up_updates()  # a phase may have grown the objective's own parameters
        key = (self.seed, self.stage.name, self.images_seen)
        torch.manual_seed(seed_for("step", *key))  # what a module draws by itself: noise inputs, dropout
        generator = generator_for(images.device, "terms", *key)

        self.model.train()
        for update in self.updates:
            optimizer = self.optimizers[update.name]
            for group in optimizer.param_groups:
                group["lr"] = phase.rate(group["name"], update.name)
            self._move_only(update)
            with self._autocast(images.device):
                terms = update.terms(self.model, images, phase, generator)
            sum(terms.values()).backward()
            self.group.average(parameter for group in optimizer.param_groups for parameter in group["params"])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            for name, value in terms.items():
                name, value = f"{update.name}/{name}", value.detach()
                self.sums[name] = self.sums[name] + value if name in self.sums else value
        if self.average:
            self.average.update(len(images))
        self.images_seen += len(images)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "images_seen": self.images_seen,
            "phase_index": self.phase_index,
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            **({"best": self.best.state_dict()} if self.best else {}),
            "objective": self.objective.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "sums": dict(self.sums),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.model.device
        self.images_seen, self.phase_index, self.steps = state["images_seen"], state["phase_index"], state["steps"]
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.load_state_dict(state["average"])
        if self.best:
            self.best.load_state_dict(state["best"])
        self.objective.load_state_dict(state["objective"])
        self._set_up_updates()
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])

    def means(self) -> dict[str, float]:
        """The mean of each loss term since the last call, which starts anew. One copy to the host for all."""
        names = list(self.sums)
        values = (torch.stack([self.sums[name].double() for name in names]) / self.steps).tolist() if names else []
        self.sums, self.steps = {}, 0
        times = Counter(update.name for update in self.updates)  # in each step
        return {name: value / times[name.partition("/")[0]] for name, value in zip(names, values, strict=True)}

    def _set_up_updates(self) -> None:
        """Ask the objective for its updates; optimisers keep what they know of parameters that are still there."""
        before = self.optimizers
        self.updates, self.optimizers = self.objective.updates(self.model), {}
        settings = {key: value for key, value in self.stage.optimizer.items() if key != "name"}
        for update in self.updates:
            if update.name in self.optimizers:  # listed again, to be taken again
                continue
            parameters = update.parameters
            named = parameters if isinstance(parameters, dict) else {update.name: parameters}
            groups = [{"params": list(group), "name": name} for name, group in named.items()]
            optimizer = OPTIMIZERS[self.stage.optimizer["name"]](groups, lr=0.0, fused=True, **settings)
            if update.name in before:
                known = before[update.name].state
                for group in optimizer.param_groups:
                    optimizer.state.update({p: known[p] for p in group["params"] if p in known})
            self.optimizers[update.name] = optimizer
        self._movable = {
            update.name: {id(p) for group in self.optimizers[update.name].param_groups for p in group["params"]}
            for update in self.updates
        }
        self._parameters = {
            id(p): p
            for p in [
                *self.model.parameters(),
                *(p for o in self.optimizers.values() for group in o.param_groups for p in group["params"]),
            ]
        }

    def _check_learning_rates(self) -> None:
        """Refuse, before the first step, a learning rate that some phase lacks or that nothing has."""
        groups = [(group["name"], name) for name, optimizer in self.optimizers.items() for group in optimizer.param_groups]
        known = {name for pair in groups for name in pair} | self.objective.later_groups
        for index, (settings, start) in enumerate(zip(self.stage.schedule.phases, self.stage.schedule.starts, strict=True)):
            rates = settings.learning_rate if isinstance(settings.learning_rate, dict) else {}
            for name in rates:
                if name not in known:
                    raise ValueError(f"phases[{index}].learning_rate names {name!r}; {suggestion(name, known)}")
            for group, update in groups:
                self.stage.schedule.at(start).rate(group, update)

    def _move_only(self, update: Update) -> None:
        """Freeze everything but the parameters of this update, so that gradients reach exactly those."""
        movable = self._movable[update.name]
        for number, parameter in self._parameters.items():
            parameter.requires_grad_(number in movable)

    def _autocast(self, device: torch.device):
        return nullcontext() if self.precision == "float32" else torch.autocast(device.type, getattr(torch, self.precision))
