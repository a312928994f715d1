"""``indm import-checkpoint``: a released checkpoint instead of a run's training."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from indm.bench.models.spec import model_spec
from indm.released.checkpoint import averaged_state, check_moment, read_checkpoint
from indm.released.flow import import_flow
from indm.released.importing import check_fit, check_weights, named
from indm.released.score import import_score
from indm.released.settings import complete_config
from indm.store.files import CHECKPOINT_FORMAT, read_json, write_json, write_table, write_weights
from indm.store.layout import Layout
from indm.store.provenance import Finished
from indm.training.saving import write_snapshots

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def run(
    suite: "Suite",
    layout: Layout,
    name: str,
    *,
    config: Path,
    score: Path,
    flow: Path | None,
    wolf_config: Path | None,
) -> Finished:
    """Write a run's ``checkpoint.safetensors``, ``train.json``, and empty ``snapshots.safetensors`` and ``train.csv``.

    Arguments:
        suite: the suite.
        layout: the paths of its files.
        name: the run.
        config: the released configuration as JSON.
        score: the released ``checkpoint_k.pth``.
        flow: the released ``flow_checkpoint_k.pth``, for a run with a flow.
        wolf_config: the released file under ``flow.model_config``; the paper's file if None.

    Raises:
        ArtifactError: if a file is refused or does not fit the run; the message lists the differences.
    """
    dataset = suite.runs[name].dataset
    description = read_json(layout.data(dataset) / "dataset.json")
    spec = model_spec(suite, name, description["shape"])
    released = complete_config(read_json(config))
    check_fit(spec, released, name, has_flow=flow is not None)
    checkpoint = read_checkpoint(score)
    # The raw weights first, because their entries have names, which makes the errors in a file easier to describe.
    weights = named("raw", "noise.network", import_score(checkpoint["model"], released))
    weights |= named("ema", "noise.network", import_score(averaged_state(checkpoint, str(score)), released))
    if flow is not None:
        flow_checkpoint = read_checkpoint(flow)
        wolf = None if wolf_config is None else read_json(wolf_config)
        options = {"frozen_prior_inverse": spec["flow"].get("frozen_prior_inverse", False)}
        weights |= named("raw", "flow", import_flow(flow_checkpoint["model"], released, wolf, **options))
        average = averaged_state(flow_checkpoint, str(flow))
        check_moment(checkpoint, flow_checkpoint, (score, flow))
        weights |= named("ema", "flow", import_flow(average, released, wolf, **options))
    counts = check_weights(spec, weights, name)

    folder = layout.run(name)
    identity = {"run": name, "dataset": dataset, "seed": suite.runs[name].seed, "model": spec}
    step = {"step": checkpoint["step"]}
    write_weights(folder / "checkpoint.safetensors", weights, identity | step, CHECKPOINT_FORMAT)
    write_snapshots(folder, {}, identity | {"flops": []})
    write_table(folder / "train.csv", pd.DataFrame(columns=["step", "score_loss", "flow_loss"]))
    sources = {"config": config, "score": score, "flow": flow, "wolf_config": wolf_config}
    result = {
        "run": name,
        "steps": step["step"],
        **counts,
        "train_flops_per_step": None,
        "imported": {key: _signature(path) for key, path in sources.items() if path is not None},
    }
    write_json(folder / "train.json", result)
    return Finished(folder)


def _signature(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        return {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
