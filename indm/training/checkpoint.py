"""The files of a training that has ended: its checkpoint, its snapshots, its losses and a summary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from indm.errors import DivergenceError
from indm.process import precision_used
from indm.store.files import CHECKPOINT_FORMAT, SNAPSHOTS_FORMAT, write_json, write_table, write_weights
from indm.training.trainer import Trainer


def write_snapshots(folder: Path, snapshots: Mapping[int, Mapping[str, Tensor]], spec: Mapping[str, Any]) -> None:
    """Write ``snapshots.safetensors``: weights to evaluate by step, with what rebuilds their model."""
    weights = {f"{step}.{key}": value for step, state in snapshots.items() for key, value in state.items()}
    write_weights(folder / "snapshots.safetensors", weights, {**spec, "steps": list(snapshots)}, SNAPSHOTS_FORMAT)


def write_training(
    folder: Path,
    trainer: Trainer,
    curve: list[dict[str, float]],
    identity: dict[str, Any],
    counts: dict[str, int | None],
) -> None:
    """Write the trained weights with what rebuilds their model, the losses and a summary.

    Raises:
        DivergenceError: if a weight is not finite after the last step; nothing is written then.
    """
    model = trainer.averaged()
    weights = {f"raw.{key}": value for key, value in trainer.model.state_dict().items()}
    weights |= {f"ema.{key}": value for key, value in model.state_dict().items()}
    weights |= {f"optimiser.{key}": value for key, value in trainer.optimiser_state().items()}
    if wrong := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise DivergenceError(
            f"after step {identity['step']}: {len(wrong)} weights are not finite, {wrong[0]} among them, expected finite ones: "
            "lower lr, flow_lr or weight_decay"
        )
    spec = identity | {"model": trainer.model.spec}
    write_weights(folder / "checkpoint.safetensors", weights, spec, CHECKPOINT_FORMAT)
    # Steps that train one of the networks alone have no loss of the other.
    columns = dict.fromkeys(key for row in reversed(curve) for key in row)
    write_table(folder / "train.csv", pd.DataFrame(curve, columns=list(columns)))
    result = {
        "run": identity["run"],
        "steps": identity["step"],
        "precision": precision_used(trainer.optimisation.precision, next(trainer.model.parameters()).device),
        "score_parameters": sum(p.numel() for p in model.noise.parameters()),
        "flow_parameters": sum(p.numel() for p in model.flow.parameters()),
        **counts,
        "final": {key: value for key, value in curve[-1].items() if key != "step"},
    }
    write_json(folder / "train.json", result)
