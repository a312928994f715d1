"""The trainings of the models of a comparison, whose operations are counted before and while they train."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch

from indm.bench.entries.apart import Work, apart, one_apart
from indm.bench.entries.entry import Entry, Maker, Rates, check_contract, maker, without_map
from indm.bench.entries.measured import measure
from indm.bench.entries.tasks import Task, tasks_of
from indm.bench.entries.tracks import LoadedTrack, load_track

# Private, because an edit of modules that stages use would run all their jobs again.
from indm.bench.models.begin import _FlopCounter, step_flops
from indm.bench.models.spec import _shared, build_plan, model_spec
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.errors import ArtifactError, DivergenceError, IndmError
from indm.progress import bar, say
from indm.seeding import derive_seed
from indm.store.scratch import Scratch
from indm.training.losses import Optimisation
from indm.training.trainer import Trainer

if TYPE_CHECKING:
    from indm.bench.suite.schema.train import TrainParams

# The first steps whose losses are kept, and trained again by ``indm verify``.
FIRST = 100
# Torch's own operators, because this is imported before any entry.
OPERATORS = frozenset(torch._C._dispatch_get_all_op_names())
# How much more than the count before the training their mean may be, because series have random lengths.
MORE = 0.1


@dataclass(frozen=True)
class Competitor:
    """A model of a comparison.

    Arguments:
        name: its role: ``entry``, ``ddpmpp`` or ``record``.
        label: its name for readers.
        entry: the entry as it was read, which does not change when somebody edits its file; None for DDPM++.
        rates: its rates.
    """

    name: str
    label: str
    entry: Entry | None
    rates: Rates

    @property
    def make(self) -> Maker:
        """What builds its model; an entry is imported."""
        return without_map if self.entry is None else maker(self.entry.path, self.entry.source)


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


def _prepare(track: Path) -> None:
    """Read what trainings need, before their process is sealed."""
    for task in _loaded(track)[1]:
        task.read()


def run_jobs(jobs: list[Job], cores: int, scratch: Scratch) -> list[Trained]:
    """Train on some cores, each model in a process of its own; numbers do not depend on how many.

    Arguments:
        jobs: the trainings.
        cores: how many run at a time.
        scratch: where each waits for the others when it is finished; those that are there do not run again.

    Raises:
        DivergenceError: if a loss or a gradient is not finite.
        ArtifactError: if the code of an entry raises an exception, hides operations, or a trained map breaks the contract.
    """
    # Read at once and kept, because an entry that trains could change the files.
    found = {job.name: _load(scratch, job) for job in jobs if scratch.path(job.name).is_file()}
    missing = [job for job in jobs if job.name not in found]
    start, done = time.monotonic(), len(found)
    trainings = [_work(job.name, job.track, job.one, partial(run_job, job)) for job in missing]
    for number, (place, trained) in enumerate(apart(trainings, cores), 1):
        found[missing[place].name] = trained
        _save(scratch, trained)
        left = (time.monotonic() - start) / number * (len(missing) - number)
        say(f"{trained.job.name}: {done + number} of {len(jobs)} trainings, about {left / 60:.0f} min left")
    return [found[job.name] for job in jobs]


def run_alone(job: Job) -> Trained:
    """Run a training in a process of its own; see :func:`run_jobs`."""
    found = one_apart(_work(job.name, job.track, job.one, partial(run_job, job)))
    assert isinstance(found, Trained)
    return found


def costs(track: LoadedTrack, models: list[Competitor], cores: int = 1) -> dict[str, "Cost"]:
    """Check the contract of each model of a comparison, and count its operations, each in a process of its own.

    Raises:
        ArtifactError: if an entry breaks the contract, or its code raises an exception.
    """
    work = [_work(one.name, track.file, one, partial(_checked_cost, track.file, one)) for one in models]
    found = dict(apart(work, cores))
    return {one.name: found[number] for number, one in enumerate(models)}


def _work(name: str, track: Path, one: Competitor, function: Any) -> Work:
    return Work(name, partial(_prepare, track), one.entry.path if one.entry else None, function)


def _checked_cost(track: Path, one: Competitor) -> "Cost":
    loaded, tasks = _loaded(track)
    if one.entry is not None:
        check_contract(one.entry.path, one.entry.source, tasks[0].shape)
    return cost(loaded, one)


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
        spec = model_spec(track.suite, track.content.run, list(task.shape))
        return Trained(job, losses, seconds, measure(_averaged(trainer), spec, task, job.seed))


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
    """Build a model; return its trainer, and the operations that this took.

    Raises:
        ArtifactError: if its score network does not begin as DDPM++'s does with this seed.
    """
    # An entry is imported first, because its file may seed torch.
    make, draws = one.make, derive_seed(task.name, seed, "train", "initialisation")
    spec = model_spec(track.suite, track.content.run, list(task.shape))
    torch.manual_seed(draws)
    plain = without_map(spec).noise.state_dict()
    torch.manual_seed(draws)
    with _Counter() as counter:
        model = make(spec)
        model.flow.fit(task.fitted)
    _check_begins_alike(model.noise.state_dict(), plain)
    shared: dict[str, Any] = _shared(_params(track, steps), Optimisation) | one.rates.model_dump()
    return Trainer(model, Optimisation(objective="nll", **shared)), counter.total


def _check_begins_alike(found: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> None:
    """Refuse a score network that does not begin as DDPM++'s does with the same seed: pairs would not be pairs.

    Raises:
        ArtifactError: if their weights have other names or values.
    """
    if found.keys() != plain.keys() or not all(torch.equal(found[name], plain[name]) for name in plain):
        raise ArtifactError(
            "found a score network that begins otherwise than DDPM++'s with this seed, expected the same weights; do not seed "
            "torch, and leave the network as the track has it"
        )


def _params(track: LoadedTrack, steps: int) -> "TrainParams":
    return track.params.model_copy(update={"steps": steps})


def _steps(track: LoadedTrack, trainer: Trainer, job: Job, task: Task) -> tuple[list[float], float]:
    """Take the steps of a training; return the losses of the first ones, and the mean time of a step in seconds."""
    plan, start = build_plan(_params(track, job.steps)), time.perf_counter()
    losses, counts = [], []
    expected = step_flops(trainer, task.batch(job.seed, 0))
    for step in bar(job.name)(range(job.until)):
        draws = task.batch(job.seed, step)
        # Maps draw from torch's generator where they are not given one.
        seed = derive_seed(task.name, job.seed, "train", "dropout", step)
        torch.manual_seed(seed)
        # All steps are counted, because a step can see whether it is.
        with _Counter() as counter, _named(step):
            losses.append(trainer.step(draws, plan.learning_rate(step))["flow_loss"])
        counts.append(counter.total)
        if torch.initial_seed() != seed:
            raise ArtifactError(
                f"found that step {step} seeds torch, expected the seeds of the training; take this out"
            )
    _check_count(counts, expected)
    return losses[:FIRST], (time.perf_counter() - start) / job.until


class _Counter(_FlopCounter):
    """Refuses operators other than torch's, because nobody can count the operations in them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() not in OPERATORS:
            raise ArtifactError(f"found the operator {func}, expected torch's own, whose operations can be counted")
        return super().__torch_dispatch__(func, types, args, kwargs)


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


def _averaged(trainer: Trainer) -> ImplicitNonlinearDiffusion:
    """Return the model with averaged weights; :meth:`Trainer.averaged` builds it from a specification, which has no entry's map."""
    model = deepcopy(trainer.model)
    for name, network in (("score", model.noise), ("flow", model.flow)):
        if name in trainer.averages:
            network.load_state_dict(trainer.averages[name].module.state_dict())
    model.flow.update_norms()
    return model.eval().requires_grad_(False)
