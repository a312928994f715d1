"""The trainings of the models of a comparison, whose operations are counted before and while they train."""

import multiprocessing
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from indm.bench.entries.entry import Maker, Rates, maker, without_map
from indm.bench.entries.tasks import Task, tasks_of
from indm.bench.entries.tracks import LoadedTrack, load_track

# Private, because an edit of modules that stages use would run all their jobs again.
from indm.bench.models.begin import _FlopCounter, step_flops
from indm.bench.models.spec import _shared, build_plan, model_spec
from indm.errors import ArtifactError, DivergenceError, IndmError
from indm.flows.contract import check_map
from indm.process import set_environment, set_up
from indm.progress import bar
from indm.seeding import derive_seed
from indm.training.trainer import Optimisation, Trainer

if TYPE_CHECKING:
    from indm.bench.suite.schema.train import TrainParams
    from indm.diffusion.model import ImplicitNonlinearDiffusion

# The first steps whose losses are kept, and trained again by ``indm verify``.
FIRST = 100
# The share of steps whose operations are counted, but at least so many, because counting takes as long as the step.
COUNTED, LEAST = 0.1, 10
# How much more than the count before the training their mean may be, because series have random lengths.
MORE = 0.1


@dataclass(frozen=True)
class Competitor:
    """A model of a comparison.

    Arguments:
        name: its role: ``entry``, ``ddpmpp`` or ``record``.
        path: the entry's file; None for DDPM++.
        rates: its rates.
    """

    name: str
    path: Path | None
    rates: Rates

    @property
    def make(self) -> Maker:
        """What builds its model."""
        return without_map if self.path is None else maker(self.path)


@dataclass(frozen=True)
class Job:
    """One training: a model, the number of its task, its seed, its steps, and how many of them are taken."""

    track: Path
    one: Competitor
    task: int
    seed: int
    steps: int
    until: int


@dataclass(frozen=True)
class Trained:
    """What is kept of a training.

    Arguments:
        job: the training.
        losses: the losses of the first steps, in nats per dimension.
        seconds: the mean time of a step.
        table: what was measured, with the columns of :data:`indm.bench.entries.tasks.MEASURED`; None if it was not finished.
    """

    job: Job
    losses: list[float]
    seconds: float
    table: pd.DataFrame | None


@cache
def _loaded(track: Path) -> tuple[LoadedTrack, list[Task]]:
    """Load a track and its tasks once in a process."""
    loaded = load_track(str(track))
    return loaded, tasks_of(loaded)


def run_jobs(jobs: list[Job], cores: int) -> list[Trained]:
    """Train on some cores, a process each; numbers do not depend on how many.

    Raises:
        DivergenceError: if a loss or a gradient is not finite.
        ArtifactError: if the code of an entry raises an exception, hides operations, or a trained map breaks the contract.
    """
    if cores == 1:
        return [run_job(job) for job in jobs]
    set_environment(1)
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), set_up, ("cpu", 1)) as pool:
        running = [pool.submit(run_job, job) for job in jobs]
        try:
            return [each.result() for each in running]
        finally:
            pool.shutdown(cancel_futures=True)


def run_job(job: Job) -> Trained:
    """Train a model, and measure it if its training is finished; see :func:`run_jobs`."""
    track, tasks = _loaded(job.track)
    task = tasks[job.task]
    with theirs(f"{job.one.name}, {task.name}, seed {job.seed}"):
        trainer, _ = _begin(track, job.one, task, job.seed, job.steps)
        losses, seconds = _steps(track, trainer, job, task)
        if job.until < job.steps:
            return Trained(job, losses, seconds, None)
        model = _averaged(trainer)
        if broken := next(check_map(deepcopy(model.flow).double(), task.checked(model, job.seed)), None):
            raise ArtifactError(f"after its training, it breaks the contract: {broken}")
        return Trained(job, losses, seconds, task.measure(model, job.seed))


def cost(track: LoadedTrack, one: Competitor) -> tuple[int, int]:
    """Count the operations of building a model, with the fit of its map, and of a step, which are equal on all tasks.

    Raises:
        ArtifactError: if the code of the entry raises an exception.
    """
    task = _loaded(track.file)[1][0]
    with theirs(one.name):
        trainer, built = _begin(track, one, task, 0, track.params.steps)
        return built, step_flops(trainer, task.batch(0, 0))


def _begin(track: LoadedTrack, one: Competitor, task: Task, seed: int, steps: int) -> tuple[Trainer, int]:
    """Build a model; return its trainer, and the operations that this took."""
    torch.manual_seed(derive_seed(task.name, seed, "train", "initialisation"))
    spec = model_spec(track.suite, track.content.run, list(task.shape))
    with _FlopCounter() as counter:
        model = one.make(spec)
        model.flow.fit(task.fitted)
    shared: dict[str, Any] = _shared(_params(track, steps), Optimisation) | one.rates.model_dump()
    return Trainer(model, Optimisation(objective="nll", **shared)), counter.total


def _params(track: LoadedTrack, steps: int) -> "TrainParams":
    return track.params.model_copy(update={"steps": steps})


def _steps(track: LoadedTrack, trainer: Trainer, job: Job, task: Task) -> tuple[list[float], float]:
    """Take the steps of a training; return the losses of the first ones, and the mean time of a step in seconds."""
    plan, losses, counts, start = build_plan(_params(track, job.steps)), [], [], time.perf_counter()
    expected = step_flops(trainer, task.batch(job.seed, 0))
    # Not from a seed, so that no file can know which steps are counted. No number in the results depends on it.
    counted = set(
        random.SystemRandom().sample(range(job.until), min(job.until, max(LEAST, round(COUNTED * job.until))))
    )
    for step in bar(f"{job.one.name} {task.name} s{job.seed}")(range(job.until)):
        draws = task.batch(job.seed, step)
        # Maps draw from torch's generator where they are not given one.
        torch.manual_seed(derive_seed(task.name, job.seed, "train", "dropout", step))
        with _FlopCounter() if step in counted else _Uncounted() as counter, _named(step):
            losses.append(trainer.step(draws, plan.learning_rate(step))["flow_loss"])
        counts += [counter.total] if step in counted else []
    _check_count(counts, expected)
    return losses[:FIRST], (time.perf_counter() - start) / job.until


class _Uncounted:
    """A step without a counter, which takes half as long."""

    total = 0

    def __enter__(self) -> "_Uncounted":
        return self

    def __exit__(self, *error: object) -> None:
        pass


@contextmanager
def _named(step: int) -> Iterator[None]:
    try:
        yield
    except DivergenceError as error:
        raise DivergenceError(f"training stopped at step {step}: {error}") from None


def _check_count(counts: list[int], expected: int) -> None:
    """Refuse steps with more operations than a step had before the training, beyond the chance of random series.

    Raises:
        ArtifactError: if their mean is larger by more than a tenth and three standard errors.
    """
    found = pd.Series(counts, dtype=float)
    error = 0.0 if len(found) < 2 else float(found.sem())
    if found.mean() - 3 * error > (1 + MORE) * expected:
        raise ArtifactError(
            f"found {found.mean():.4g} operations in a step while training, expected {expected:.4g} as counted before; a map must "
            "not compute more in later steps"
        )


@contextmanager
def theirs(place: str) -> Iterator[None]:
    """Report exceptions of an entry's code on one line that names the model."""
    try:
        yield
    except IndmError as error:
        raise type(error)(f"{place}: {error}; nothing is recorded") from None
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"{place}: found {type(error).__name__} ({words}), expected numbers; nothing is recorded"
        ) from None


def _averaged(trainer: Trainer) -> "ImplicitNonlinearDiffusion":
    """Return the model with averaged weights; :meth:`Trainer.averaged` builds it from a specification, which has no entry's map."""
    model = deepcopy(trainer.model)
    for name, network in (("score", model.noise), ("flow", model.flow)):
        if name in trainer.averages:
            network.load_state_dict(trainer.averages[name].module.state_dict())
    model.flow.update_norms()
    return model.eval().requires_grad_(False)
