"""The training of one model on one task with one seed, whose operations are counted in every step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch

# Private, because an edit of modules that stages use would run all their jobs again.
from indm.bench.models.begin import _FlopCounter, step_flops
from indm.bench.models.spec import _shared, build_plan, model_spec
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.errors import ArtifactError, DivergenceError, IndmError
from indm.flows.contract import check_map
from indm.progress import bar
from indm.seeding import derive_seed
from indm.training.trainer import Optimisation, Trainer

if TYPE_CHECKING:
    from indm.bench.entries.entry import Maker, Rates
    from indm.bench.entries.tasks import Task
    from indm.bench.entries.tracks import LoadedTrack
    from indm.bench.suite.schema.train import TrainParams

# The first steps whose losses are kept, and trained again by ``indm verify``.
FIRST = 100
# A step may take this much more than was counted before: a flow's series have random lengths.
COUNTED = 0.1


@dataclass(frozen=True)
class Competitor:
    """A model of a comparison.

    Arguments:
        name: its name in tables.
        make: what builds it.
        rates: its rates.
    """

    name: str
    make: "Maker"
    rates: "Rates"


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Arguments:
        model: the model with averaged weights.
        losses: the losses of the first steps, in nats per dimension.
        flops: the mean number of operations of a step, as counted while training.
        seconds: the mean time of a step.
    """

    model: ImplicitNonlinearDiffusion
    losses: list[float]
    flops: float
    seconds: float


class Trainings:
    """The trainings of a track.

    Arguments:
        track: the track.
    """

    def __init__(self, track: "LoadedTrack") -> None:
        self.track = track

    def cost(self, one: Competitor, task: "Task") -> tuple[int, int]:
        """Count the operations of building a model, with the fit of its map, and of a step."""
        with self._theirs(one):
            trainer, built = self._begin(one, task, 0, self.track.params)
            return built, step_flops(trainer, task.batch(0, 0))

    def train(self, one: Competitor, task: "Task", seed: int, steps: int, until: int | None = None) -> Trained:
        """Train a model for a number of steps, or only the first ones of as long a training.

        Raises:
            DivergenceError: if a loss or a gradient is not finite.
            ArtifactError: if the code of the entry raises an exception.
        """
        params = self.track.params.model_copy(update={"steps": steps})
        with self._theirs(one, seed):
            trainer, _ = self._begin(one, task, seed, params)
            return self._steps(trainer, one, task, seed, params, steps if until is None else min(until, steps))

    def measure(self, one: Competitor, task: "Task", seed: int, model: ImplicitNonlinearDiffusion) -> pd.DataFrame:
        """Check the trained map where it is measured, and measure the model.

        Raises:
            ArtifactError: if the trained map breaks the contract.
        """
        with self._theirs(one, seed):
            broken = next(check_map(deepcopy(model.flow).double(), task.checked(model, seed)), None)
            if broken:
                raise ArtifactError(f"breaks the contract after its training on {task.name}: {broken}")
            return task.measure(model, seed)

    def _begin(self, one: Competitor, task: "Task", seed: int, params: "TrainParams") -> tuple[Trainer, int]:
        torch.manual_seed(derive_seed(task.name, seed, "train", "initialisation"))
        spec = model_spec(self.track.suite, self.track.content.run, list(task.shape))
        with _FlopCounter() as counter:
            model = one.make(spec)
            model.flow.fit(task.fitted)
        shared = _shared(params, Optimisation) | one.rates.model_dump()
        return Trainer(model, Optimisation(objective="nll", **shared)), counter.total

    def _steps(
        self, trainer: Trainer, one: Competitor, task: "Task", seed: int, params: "TrainParams", until: int
    ) -> Trained:
        plan, losses, start = build_plan(params), [], time.perf_counter()
        counter = _FlopCounter()
        for step in bar(f"{one.name} {task.name} s{seed}")(range(until)):
            draws = task.batch(seed, step)
            # Maps draw from torch's generator where they are not given one.
            torch.manual_seed(derive_seed(task.name, seed, "train", "dropout", step))
            try:
                with counter:
                    losses.append(trainer.step(draws, plan.learning_rate(step))["flow_loss"])
            except DivergenceError as error:
                raise DivergenceError(f"training stopped at step {step}: {error}") from None
        seconds = (time.perf_counter() - start) / until
        return Trained(_averaged(trainer), losses[:FIRST], counter.total / until, seconds)

    @contextmanager
    def _theirs(self, one: Competitor, seed: int | None = None) -> Iterator[None]:
        """Report exceptions of an entry's code on one line that names the entry; nothing is recorded then."""
        place = one.name if seed is None else f"{one.name}, seed {seed}"
        try:
            yield
        except IndmError as error:
            raise type(error)(f"{place}: {error}; nothing is recorded") from None
        except Exception as error:
            words = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{place}: found {type(error).__name__} ({words}), expected numbers; nothing is recorded") from None


def _averaged(trainer: Trainer) -> ImplicitNonlinearDiffusion:
    """Return the model with averaged weights; :meth:`Trainer.averaged` builds it from its specification, which has no entry's map."""
    model = deepcopy(trainer.model)
    for name, network in (("score", model.noise), ("flow", model.flow)):
        if name in trainer.averages:
            network.load_state_dict(trainer.averages[name].module.state_dict())
    model.flow.update_norms()
    return model.eval().requires_grad_(False)
