"""Stage ``train``: one model, raw and averaged weights in one checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from indm.artifacts import CHECKPOINT_FORMAT, Layout, read_json, write_json, write_table, write_weights
from indm.diffusion import ImplicitNonlinearDiffusion
from indm.seeding import derive_seed
from indm.stages.common import bar, read_split, set_up
from indm.training import Trainer, train

if TYPE_CHECKING:
    from indm.params import FlowParams, Suite


def model_spec(suite: "Suite", name: str, shape: list[int]) -> dict[str, Any]:
    """Describe the model of run ``name`` by what rebuilds it."""
    run, parameters = suite.runs[name], suite.train_params(name)
    return {
        "shape": shape,
        "sde": {"name": run.sde} | getattr(parameters.sde, run.sde).model_dump(),
        "eps": parameters.sde.eps,
        "centered": parameters.centered,
        "score": parameters.score.model_dump(),
        "flow": _flow_spec(parameters.flow) if run.model == "indm" else {"name": "identity"},
    }


def _flow_spec(flow: "FlowParams") -> dict[str, Any]:
    residual = flow.model_dump(exclude={"wolf"})
    return residual if flow.wolf is None else residual | flow.wolf.model_dump()


def build_trainer(suite: "Suite", name: str, shape: list[int], device: torch.device) -> Trainer:
    """Build the trainer of run ``name`` for images of a shape (C, H, W), its weights drawn from torch's generator."""
    parameters = suite.train_params(name)
    return Trainer(
        ImplicitNonlinearDiffusion(model_spec(suite, name, shape)).to(device),
        objective=suite.runs[name].objective,
        lr=parameters.lr,
        flow_lr=parameters.flow_lr,
        weight_decay=parameters.weight_decay,
        grad_clip=parameters.grad_clip,
        ema_decay=parameters.ema_decay,
        flow_ema_decay=parameters.flow_ema_decay,
        alternate=parameters.alternate,
        micro_batches=parameters.micro_batches,
        soft_truncation=parameters.soft_truncation,
        reconstruction=parameters.reconstruction,
    )


def run(suite: "Suite", layout: Layout, name: str) -> Path:
    """Write ``checkpoint.safetensors``, ``train.csv`` (the learning curve) and ``train.json``."""
    device = set_up(suite.device, suite.threads)
    run, parameters, folder = suite.runs[name], suite.train_params(name), layout.run(name)
    description = read_json(layout.data(run.dataset) / "dataset.json")
    # Without the model in it: DDPM++ and INDM of one seed see the same batches, times and noise.
    seed = (run.dataset, run.seed, "train")
    torch.manual_seed(derive_seed(*seed, "initialisation"))
    trainer = build_trainer(suite, name, description["shape"], device)
    curve = train(
        trainer,
        read_split(layout.data(run.dataset), "train"),
        description["levels"],
        steps=parameters.steps,
        batch_size=parameters.batch_size,
        warmup_steps=parameters.warmup_steps,
        schedule=parameters.schedule,
        log_every=parameters.log_every,
        seed=seed,
        device=device,
        random_flip=parameters.random_flip,
        progress=bar(name),
    )
    identity = {"run": name, "dataset": run.dataset, "seed": run.seed, "step": parameters.steps}
    _write(folder, trainer, curve, identity)
    return folder


def _write(folder: Path, trainer: Trainer, curve: list[dict[str, float]], identity: dict[str, Any]) -> None:
    """Write the trained weights with what rebuilds their model, the learning curve and a summary."""
    model = trainer.averaged()
    weights = {f"raw.{key}": value for key, value in trainer.model.state_dict().items()}
    weights |= {f"ema.{key}": value for key, value in model.state_dict().items()}
    weights |= {f"optimiser.{key}": value for key, value in trainer.optimiser_state().items()}
    spec = identity | {"model": trainer.model.spec}
    write_weights(folder / "checkpoint.safetensors", weights, spec, CHECKPOINT_FORMAT)
    write_table(folder / "train.csv", pd.DataFrame(curve))
    result = {
        "run": identity["run"],
        "steps": identity["step"],
        "score_parameters": sum(p.numel() for p in model.noise.parameters()),
        "flow_parameters": sum(p.numel() for p in model.flow.parameters()),
        "final": {key: value for key, value in curve[-1].items() if key != "step"},
    }
    write_json(folder / "train.json", result)
