"""Stage ``train``: one model, raw and averaged weights in one checkpoint, and snapshots of the averaged ones.

With several processes (the suite's key), each computes its part of every batch, and the first alone writes.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from indm.artifacts import (
    CHECKPOINT_FORMAT,
    SNAPSHOTS_FORMAT,
    Layout,
    read_json,
    write_json,
    write_table,
    write_weights,
)
from indm.data import moments
from indm.diffusion import ImplicitNonlinearDiffusion
from indm.distributed import (
    add_up,
    any_process,
    copy_from_first,
    first,
    group,
    launch,
    started_by_torchrun,
    wait_for_all,
)
from indm.errors import DivergenceError, ParamsError, StoppedError
from indm.resume import EARLIER, Scratch, open_scratch, say, sigterm_noted, work_key
from indm.seeding import derive_seed
from indm.stages.common import bar, read_split, set_up
from indm.training import Draws, History, Trainer, draw, step_flops, train

if TYPE_CHECKING:
    from indm.params import FlowParams, LatentParams, Suite, TrainParams


STANDARD = (0.0, 1.0)


def model_spec(
    suite: "Suite", name: str, shape: list[int], data_moments: tuple[float, float] = STANDARD
) -> dict[str, Any]:
    """Describe the model of run ``name`` by what rebuilds it.

    Arguments:
        suite: the suite.
        name: the run.
        shape: (C, H, W) of an image.
        data_moments: mean and standard deviation of the training images' pixels, for a run that standardises its latent.
    """
    run, parameters = suite.runs[name], suite.train_params(name)
    return {
        "shape": shape,
        "sde": {"name": run.sde} | getattr(parameters.sde, run.sde).model_dump(),
        "eps": parameters.sde.eps,
        "centered": parameters.centered,
        "score": parameters.score.model_dump(),
        "flow": (_flow_spec(parameters.flow) if run.model == "indm" else {"name": "identity"})
        | _affine_spec(parameters.latent, data_moments),
    }


def _flow_spec(flow: "FlowParams") -> dict[str, Any]:
    residual = flow.model_dump(exclude={"wolf"})
    return residual if flow.wolf is None else residual | flow.wolf.model_dump()


def _affine_spec(latent: "LatentParams", data_moments: tuple[float, float]) -> dict[str, Any]:
    """Describe the map in front of the flow; nothing where it is the identity, as in released models."""
    mean, std = data_moments if latent.standardise else STANDARD
    affine = {"scale": latent.scale, "mean": mean, "std": std}
    return {"affine": affine} if latent.standardise or latent.scale != 1 else {}


def build_trainer(
    suite: "Suite", name: str, shape: list[int], device: torch.device, data_moments: tuple[float, float] = STANDARD
) -> Trainer:
    """Build the trainer of a run, its weights drawn from torch's generator; see :func:`model_spec`."""
    parameters = suite.train_params(name)
    model = ImplicitNonlinearDiffusion(model_spec(suite, name, shape, data_moments)).to(device)
    copy_from_first(model.state_dict().values())
    return Trainer(
        model,
        objective=suite.runs[name].objective,
        lr=parameters.lr,
        flow_lr=parameters.flow_lr,
        weight_decay=parameters.weight_decay,
        grad_clip=parameters.grad_clip,
        ema_decay=parameters.ema_decay,
        flow_ema_decay=parameters.flow_ema_decay,
        alternate=parameters.alternate,
        micro_batches=parameters.micro_batches,
        precision=parameters.precision,
        soft_truncation=parameters.soft_truncation,
        reconstruction=parameters.reconstruction,
    )


def run(suite: "Suite", layout: Layout, name: str) -> Path:
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
    EARLIER["train"] = launch(suite.processes, _join, type(suite), content, layout, name)
    return layout.run(name)


def _join(kind: type["Suite"], content: dict[str, Any], layout: Layout, name: str) -> float:
    """Train as one of several processes; return the seconds of :data:`indm.resume.EARLIER`."""
    suite = kind.model_validate(content)
    with group(set_up(suite.device, suite.threads, suite.processes)) as device:
        _train(suite, layout, name, device)
    return EARLIER.get("train", 0.0)


def _train(suite: "Suite", layout: Layout, name: str, device: torch.device) -> Path:
    """Train in this process, alone or as one of several."""
    run, parameters, folder = suite.runs[name], suite.train_params(name), layout.run(name)
    description = read_json(layout.data(run.dataset) / "dataset.json")
    images, levels = read_split(layout.data(run.dataset), "train"), description["levels"]
    data_moments = moments(images, levels, parameters.centered) if parameters.latent.standardise else STANDARD
    # Without the model in it: DDPM++ and INDM of one seed see the same batches, times and noise.
    seed = (run.dataset, run.seed, "train")
    torch.manual_seed(derive_seed(*seed, "initialisation"))
    trainer = build_trainer(suite, name, description["shape"], device, data_moments)
    begin = partial(draw, images, levels, parameters.batch_size, seed, 0, device, centered=parameters.centered)
    flops = _flops(trainer, begin())
    warmup_flops = _flops(trainer, begin(), flow_alone=True) if parameters.flow_warmup_steps else None
    key = _key(suite, name, description["sha256"], device)
    with _shared_scratch(layout.scratch(name, "train"), key, device) as scratch, sigterm_noted() as stop:
        # All of several processes stop after the same step.
        keeper = Keeper(
            scratch,
            trainer,
            parameters.snapshots,
            suite.save_seconds,
            stopping=lambda: any_process(stop.is_set(), device),
        )
        curve = _loop(
            trainer, keeper, images, levels, parameters, seed, device, progress=bar(name) if first() else iter
        )
        if first():
            identity = {"run": name, "dataset": run.dataset, "seed": run.seed}
            counts = {"train_flops_per_step": flops, "flow_warmup_flops_per_step": warmup_flops}
            _write(folder, trainer, curve, identity | {"step": parameters.steps}, counts)
            cumulative = [_cumulative(step, parameters, flops, warmup_flops or 0) for step in parameters.snapshots]
            write_snapshots(folder, keeper.snapshots(), identity | {"flops": cumulative, "model": trainer.model.spec})
    return folder


def _loop(
    trainer: Trainer,
    keeper: "Keeper",
    images: Tensor,
    levels: int,
    parameters: "TrainParams",
    seed: tuple[str | int, ...],
    device: torch.device,
    progress: Callable[[range], Iterable[int]],
) -> list[dict[str, float]]:
    """Train from where the keeper has been, and return the losses.

    Raises:
        DivergenceError: if a loss or a gradient is not finite; it says what is kept.
    """
    try:
        return train(
            trainer,
            images,
            levels,
            steps=parameters.steps,
            batch_size=parameters.batch_size,
            warmup_steps=parameters.warmup_steps,
            schedule=parameters.schedule,
            log_every=parameters.log_every,
            seed=seed,
            device=device,
            random_flip=parameters.random_flip,
            flow_warmup_steps=parameters.flow_warmup_steps,
            history=keeper.restore(),
            after_step=keeper,
            progress=progress,
        )
    except DivergenceError as error:
        raise DivergenceError(f"{error}; {keeper.kept()}") from None


def _key(suite: "Suite", name: str, data: Mapping[str, str], device: torch.device) -> str:
    """Hash what a training depends on, the machine too: gone on with by another, its bytes would be neither's."""
    return work_key(
        "train",
        run=suite.runs[name].model_dump(exclude={"train", "sample"}),
        train=suite.train_params(name).model_dump(),
        data=data,
        machine=[device.type, suite.threads, suite.processes],
    )


def _cumulative(step: int, parameters: "TrainParams", flops: int, warmup_flops: int) -> int:
    """Add up the operations of all steps up to one; the first warm up the flow alone."""
    warmup = min(step, parameters.flow_warmup_steps)
    return flops * (step - warmup) + warmup_flops * warmup


def _flops(trainer: Trainer, draws: Draws, *, flow_alone: bool = False) -> int:
    """Count the operations of a step, of all processes together."""
    count = torch.tensor(step_flops(trainer, draws, flow_alone=flow_alone), device=draws.x.device)
    return int(add_up(count).item())


@contextmanager
def _shared_scratch(folder: Path, key: str, device: torch.device) -> Iterator[Scratch]:
    """Open the scratch of a training: the first process locks, cleans, writes and removes it, the others only read."""
    if first():
        with open_scratch(folder, key) as scratch:
            wait_for_all(device)
            yield scratch
    else:
        wait_for_all(device)
        yield Scratch(folder, key)


class Keeper:
    """Keeps, while a run trains, what it goes on from when it has been killed.

    Arguments:
        scratch: where.
        trainer: the state.
        steps: those after which the averaged weights are kept.
        seconds: between two savings of the state.
        stopping: whether a process has been asked to stop.
    """

    def __init__(
        self, scratch: Scratch, trainer: Trainer, steps: list[int], seconds: float, stopping: Callable[[], bool]
    ) -> None:
        self.scratch, self.trainer, self.steps = scratch, trainer, steps
        self.seconds, self.stopping = seconds, stopping
        self.saved, self.saved_at = 0, time.monotonic()

    def restore(self) -> History:
        """Give the trainer the state that was saved last, if one was, and return its history."""
        found = self.scratch.load("state")
        if found is None or len(self.snapshots()) < sum(step <= found[1]["history"]["done"] for step in self.steps):
            return History()
        tensors, spec = found
        self.trainer.load_state(tensors)
        self.saved = spec["history"]["done"]
        if first():
            say(f"goes on after step {self.saved}, from {self.scratch.path('state')}")
        return History(**spec["history"])

    def __call__(self, history: History) -> None:
        """Keep what is due after a step.

        Raises:
            StoppedError: if the process has been asked to stop; the state has been saved then.
        """
        if history.done in self.steps and first():
            self.scratch.save(f"snapshot-{history.done}", self.trainer.averaged().state_dict())
        stopping = self.stopping()
        if first() and (stopping or time.monotonic() - self.saved_at >= self.seconds):
            self.scratch.save("state", self.trainer.state(), {"history": asdict(history)})
            self.saved, self.saved_at = history.done, time.monotonic()
        if stopping:
            raise StoppedError(f"stopped by SIGTERM; {self.kept()}; run it again to go on")

    def kept(self) -> str:
        """Say what has been saved."""
        if not self.saved:
            return "no state had been saved"
        return f"the state of after step {self.saved} is kept in {self.scratch.path('state')}"

    def snapshots(self) -> dict[int, dict[str, Tensor]]:
        """Read the snapshots, by step."""
        return {step: found[0] for step in self.steps if (found := self.scratch.load(f"snapshot-{step}"))}


def write_snapshots(folder: Path, snapshots: Mapping[int, Mapping[str, Tensor]], spec: Mapping[str, Any]) -> None:
    """Write ``snapshots.safetensors``: averaged weights by step, with what rebuilds their model."""
    weights = {f"{step}.{key}": value for step, state in snapshots.items() for key, value in state.items()}
    write_weights(folder / "snapshots.safetensors", weights, {**spec, "steps": list(snapshots)}, SNAPSHOTS_FORMAT)


def _write(
    folder: Path,
    trainer: Trainer,
    curve: list[dict[str, float]],
    identity: dict[str, Any],
    counts: dict[str, int | None],
) -> None:
    """Write the trained weights with what rebuilds their model, the losses and a summary."""
    model = trainer.averaged()
    weights = {f"raw.{key}": value for key, value in trainer.model.state_dict().items()}
    weights |= {f"ema.{key}": value for key, value in model.state_dict().items()}
    weights |= {f"optimiser.{key}": value for key, value in trainer.optimiser_state().items()}
    spec = identity | {"model": trainer.model.spec}
    write_weights(folder / "checkpoint.safetensors", weights, spec, CHECKPOINT_FORMAT)
    # The columns of the last row: steps that train the flow alone have fewer.
    write_table(folder / "train.csv", pd.DataFrame(curve, columns=list(curve[-1])))
    result = {
        "run": identity["run"],
        "steps": identity["step"],
        "score_parameters": sum(p.numel() for p in model.noise.parameters()),
        "flow_parameters": sum(p.numel() for p in model.flow.parameters()),
        **counts,
        "final": {key: value for key, value in curve[-1].items() if key != "step"},
    }
    write_json(folder / "train.json", result)
