"""Stage ``train``: one model, raw and averaged weights in one checkpoint, and snapshots of those to evaluate.

With several processes (the suite's key), each computes its part of every batch, and the first alone writes.
"""

import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import torch

from indm.data.levels import moments
from indm.errors import ParamsError
from indm.process import set_up, sigterm_noted
from indm.progress import bar
from indm.seeding import derive_seed
from indm.stamps import job_stamp
from indm.store.files import read_json
from indm.store.finished import Finished
from indm.store.layout import Layout
from indm.store.prepared import read_split
from indm.store.scratch import work_key
from indm.training.batches import Draws, draw
from indm.training.checkpoint import write_snapshots, write_training
from indm.training.distributed import add_up, any_process, first, group, launch, started_by_torchrun
from indm.training.flops import cumulative_flops, step_flops
from indm.training.keeper import Keeper, shared_scratch
from indm.training.loop import Plan, train
from indm.training.spec import STANDARD, build_plan, build_trainer
from indm.training.trainer import Trainer

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

# Of a training: both networks, before them the flow alone, after them a new score alone.
PHASES = ("train", "flow_warmup", "fresh_score")


def run(suite: "Suite", layout: Layout, name: str) -> Finished:
    """Write ``checkpoint.safetensors``, ``snapshots.safetensors``, ``train.csv`` (the losses) and ``train.json``.

    Raises:
        NoGpuError: if there are fewer GPUs than processes.
        ParamsError: if ``torchrun`` has started another number of processes than the suite says.
    """
    if started_by_torchrun():
        started = int(os.environ["WORLD_SIZE"])
        if started != suite.processes:
            raise ParamsError(
                f"found {started} processes, expected {suite.processes}, the suite's key: make them agree"
            )
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        with group(set_up(suite.device, suite.threads, here)) as device:
            return _train(suite, layout, name, device)
    device = set_up(suite.device, suite.threads, suite.processes)
    if suite.processes == 1:
        return _train(suite, layout, name, device)
    # The models of a run's overrides are made when they are imported, and cannot be sent.
    content = suite.model_dump(exclude_unset=True)
    finished: Finished = launch(suite.processes, _join, type(suite), content, layout, name)
    return finished


def _join(kind: type["Suite"], content: dict[str, Any], layout: Layout, name: str) -> Finished:
    """Train as one of several processes."""
    suite = kind.model_validate(content)
    with group(set_up(suite.device, suite.threads, suite.processes)) as device:
        return _train(suite, layout, name, device)


def _train(suite: "Suite", layout: Layout, name: str, device: torch.device) -> Finished:
    """Train in this process, alone or as one of several."""
    run, parameters = suite.runs[name], suite.train_params(name)
    description = read_json(layout.data(run.dataset) / "dataset.json")
    images, levels = read_split(layout.data(run.dataset), "train"), description["levels"]
    data_moments = moments(images, levels, parameters.centered) if parameters.latent.standardise else STANDARD
    # Without the model in it: DDPM++ and INDM of one seed see the same batches, times and noise.
    seed = (run.dataset, run.seed, "train")
    torch.manual_seed(derive_seed(*seed, "initialisation"))
    trainer, plan = build_trainer(suite, name, description["shape"], device, data_moments), build_plan(parameters)
    begin = partial(draw, images, levels, plan.batch_size, seed, 0, device, centered=parameters.centered)
    flops = _phases(trainer, plan, begin)
    key = _key(suite, name, description["sha256"], device)
    with shared_scratch(layout.scratch(name, "train"), key, device) as scratch, sigterm_noted() as stop:
        # All of several processes stop after the same step.
        asked = partial(_asked_to_stop, stop, device)
        keeper = Keeper(scratch, trainer, parameters.snapshots, suite.save_seconds, stopping=asked)
        history, progress = keeper.restore(), bar(name) if first() else iter
        with keeper.explaining():
            curve = train(
                trainer,
                images,
                levels,
                plan,
                seed=seed,
                device=device,
                history=history,
                after_step=keeper,
                progress=progress,
            )
        if first():
            _write(suite, layout, name, trainer, curve, keeper, flops)
    return Finished(layout.run(name), scratch.earlier)


def _asked_to_stop(stop: Event, device: torch.device) -> bool:
    return any_process(stop.is_set(), device)


def _write(
    suite: "Suite",
    layout: Layout,
    name: str,
    trainer: Trainer,
    curve: list[dict[str, float]],
    keeper: Keeper,
    flops: dict[str, tuple[int, int]],
) -> None:
    """Write what has been trained; ``flops``: see :func:`_phases`."""
    run, parameters, folder = suite.runs[name], suite.train_params(name), layout.run(name)
    identity = {"run": name, "dataset": run.dataset, "seed": run.seed}
    counts = {f"{phase}_flops_per_step": flops[phase][1] if phase in flops else None for phase in PHASES}
    write_training(folder, trainer, curve, identity | {"step": parameters.steps}, counts)
    cumulative = [cumulative_flops(step, sorted(flops.values())) for step in parameters.snapshots]
    write_snapshots(folder, keeper.snapshots(), identity | {"flops": cumulative, "model": trainer.model.spec})


def _key(suite: "Suite", name: str, data: Mapping[str, str], device: torch.device) -> str:
    """Hash what a training depends on, the machine too: gone on with by another, its bytes would be neither's."""
    return work_key(
        job_stamp(suite, "train", name),
        run=suite.runs[name].model_dump(exclude={"train", "sample"}),
        train=suite.train_params(name).model_dump(),
        data=data,
        machine=[device.type, suite.threads, suite.processes],
    )


def _phases(trainer: Trainer, plan: Plan, begin: Callable[[], Draws]) -> dict[str, tuple[int, int]]:
    """Say of each phase of a training, by its name in :data:`PHASES`, its first step and the operations of one of its steps."""
    phases = {"train": (plan.flow_warmup_steps, _flops(trainer, begin()))}
    if plan.flow_warmup_steps:
        phases["flow_warmup"] = 0, _flops(trainer, begin(), flow_alone=True)
    if plan.fresh_score_after is not None:
        frozen = deepcopy(trainer)
        frozen.freeze_flow()
        phases["fresh_score"] = plan.fresh_score_after, _flops(frozen, begin())
    return phases


def _flops(trainer: Trainer, draws: Draws, *, flow_alone: bool = False) -> int:
    """Count the operations of a step, of all processes together."""
    count = torch.tensor(step_flops(trainer, draws, flow_alone=flow_alone), device=draws.x.device)
    return int(add_up(count).item())
