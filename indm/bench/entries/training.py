"""The trainings of the models of a comparison, whose operations are counted before and while they train."""

import multiprocessing
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
from indm.progress import bar, say
from indm.seeding import derive_seed
from indm.store.scratch import Scratch
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
        label: its name for readers.
        path: the entry's file; None for DDPM++.
        rates: its rates.
    """

    name: str
    label: str
    path: Path | None
    rates: Rates

    @property
    def make(self) -> Maker:
        """What builds its model."""
        return without_map if self.path is None else maker(self.path)


@dataclass(frozen=True)
class Job:
    """One training: a model, the number and name of its task, its seed, its steps, and how many of them are taken."""

    track: Path
    one: Competitor
    task: int
    task_name: str
    seed: int
    steps: int
    until: int

    @property
    def name(self) -> str:
        """Its name, which is also that of the file in which it waits for the others."""
        return f"{self.one.name}-{self.task_name}-s{self.seed}"


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

    def of(self, split: str) -> pd.DataFrame:
        """Return what was measured on a split."""
        assert self.table is not None
        return self.table[self.table["split"] == split]


class Cost(NamedTuple):
    """The operations of a model."""

    build: int
    step: int


@cache
def _loaded(track: Path) -> tuple[LoadedTrack, list[Task]]:
    """Load a track and its tasks once in a process."""
    loaded = load_track(str(track))
    return loaded, tasks_of(loaded)


def run_jobs(jobs: list[Job], cores: int, scratch: Scratch) -> list[Trained]:
    """Train on some cores, a process each; numbers do not depend on how many.

    Arguments:
        jobs: the trainings.
        cores: how many run at a time.
        scratch: where each waits for the others when it is finished; those that are there do not run again.

    Raises:
        DivergenceError: if a loss or a gradient is not finite.
        ArtifactError: if the code of an entry raises an exception, hides operations, or a trained map breaks the contract.
    """
    missing = [job for job in jobs if not scratch.path(job.name).is_file()]
    start, done = time.monotonic(), len(jobs) - len(missing)
    for number, trained in enumerate(_each(missing, cores), 1):
        _save(scratch, trained)
        left = (time.monotonic() - start) / number * (len(missing) - number)
        say(f"{trained.job.name}: {done + number} of {len(jobs)} trainings, about {left / 60:.0f} min left")
    return [_load(scratch, job) for job in jobs]


def _each(jobs: list[Job], cores: int) -> Iterator[Trained]:
    """Run trainings, and yield each when it is finished."""
    if cores == 1:
        yield from map(run_job, jobs)
        return
    set_environment(1)
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), set_up, ("cpu", 1)) as pool:
        running = [pool.submit(run_job, job) for job in jobs]
        try:
            for each in as_completed(running):
                yield each.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _save(scratch: Scratch, trained: Trained) -> None:
    table = trained.table
    assert table is not None
    tensors = {name: torch.tensor(table[name].to_numpy(dtype=float)) for name in ("item", "nelbo", "nelbo_fixed")}
    tensors["losses"] = torch.tensor(trained.losses, dtype=torch.float64)
    scratch.save(trained.job.name, tensors, {"splits": list(table["split"]), "step_seconds": trained.seconds})


def _load(scratch: Scratch, job: Job) -> Trained:
    found = scratch.load(job.name)
    assert found is not None
    tensors, spec = found
    columns = {name: tensors[name].numpy() for name in ("item", "nelbo", "nelbo_fixed")}
    table = pd.DataFrame({"split": spec["splits"]} | columns).astype({"item": int})
    return Trained(job, tensors["losses"].tolist(), spec["step_seconds"], table)


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


def cost(track: LoadedTrack, one: Competitor) -> Cost:
    """Count the operations of building a model, with the fit of its map, and of a step, which are equal on all tasks.

    Raises:
        ArtifactError: if the code of the entry raises an exception.
    """
    task = _loaded(track.file)[1][0]
    with theirs(one.name):
        trainer, built = _begin(track, one, task, 0, track.params.steps)
        return Cost(built, step_flops(trainer, task.batch(0, 0)))


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
    plan, start = build_plan(_params(track, job.steps)), time.perf_counter()
    losses, counts = [], []
    expected, counted = step_flops(trainer, task.batch(job.seed, 0)), _counted(job.until)
    for step in bar(job.name)(range(job.until)):
        draws = task.batch(job.seed, step)
        # Maps draw from torch's generator where they are not given one.
        torch.manual_seed(derive_seed(task.name, job.seed, "train", "dropout", step))
        with _FlopCounter() if step in counted else _Uncounted() as counter, _named(step):
            losses.append(trainer.step(draws, plan.learning_rate(step))["flow_loss"])
        if step in counted:
            counts.append(counter.total)
    _check_count(counts, expected)
    return losses[:FIRST], (time.perf_counter() - start) / job.until


def _counted(steps: int) -> set[int]:
    """Choose the steps whose operations are counted.

    Not from a seed, so that no file can know them. No number in the results depends on them.
    """
    count = min(steps, max(LEAST, round(COUNTED * steps)))
    return set(random.SystemRandom().sample(range(steps), count))


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
    error = 0.0 if len(found) < 2 else float(found.std() / len(found) ** 0.5)
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
