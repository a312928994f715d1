"""``indm import-checkpoint``: a released checkpoint in the place of a run's training."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor, nn

from indm.artifacts import CHECKPOINT_FORMAT, Layout, read_json, write_json, write_table, write_weights
from indm.diffusion import ImplicitNonlinearDiffusion
from indm.errors import ArtifactError
from indm.official import (
    Config,
    averaged_state,
    complete_config,
    import_flow,
    import_score,
    read_checkpoint,
    score_arguments,
)
from indm.stages.train import model_spec, write_snapshots

if TYPE_CHECKING:
    from indm.params import Suite

SDE_NAMES = {"vpsde": "vp", "vesde": "ve"}


def run(
    suite: "Suite",
    layout: Layout,
    name: str,
    *,
    config: Path,
    score: Path,
    flow: Path | None,
    wolf_config: Path | None,
    flow_weights: str,
) -> Path:
    """Write ``checkpoint.safetensors``, ``snapshots.safetensors``, ``train.csv`` (both empty) and ``train.json`` of a run.

    Arguments:
        suite: the suite.
        layout: where its files lie.
        name: the run.
        config: the released configuration as JSON.
        score: the released ``checkpoint_k.pth``.
        flow: the released ``flow_checkpoint_k.pth``, for a run with a flow.
        wolf_config: the released file under ``flow.model_config``; the paper's if None.
        flow_weights: ``ema``, or ``raw`` as in the released evaluation, which averages the score alone.

    Raises:
        ArtifactError: if a file is refused, or does not fit the run; the message lists the differences.
    """
    dataset = suite.runs[name].dataset
    description = read_json(layout.data(dataset) / "dataset.json")
    spec = model_spec(suite, name, description["shape"])
    released = complete_config(read_json(config))
    _check_fit(spec, released, name, has_flow=flow is not None)
    checkpoint = read_checkpoint(score)
    # The raw weights first: their entries have names, so what is wrong with a file is said best of them.
    weights = _named("raw", "noise.network", import_score(checkpoint["model"], released))
    weights |= _named("ema", "noise.network", import_score(averaged_state(checkpoint, str(score)), released))
    if flow is not None:
        flow_checkpoint = read_checkpoint(flow)
        wolf = None if wolf_config is None else read_json(wolf_config)
        options = {"frozen_prior_inverse": spec["flow"].get("frozen_prior_inverse", False)}
        weights |= _named("raw", "flow", import_flow(flow_checkpoint["model"], released, wolf, **options))
        average = averaged_state(flow_checkpoint, str(flow)) if flow_weights == "ema" else flow_checkpoint["model"]
        weights |= _named("ema", "flow", import_flow(average, released, wolf, **options))
    _check_weights(spec, weights, name)

    folder = layout.run(name)
    identity = {"run": name, "dataset": dataset, "seed": suite.runs[name].seed, "model": spec}
    step = {"step": int(checkpoint["step"])}
    write_weights(folder / "checkpoint.safetensors", weights, identity | step, CHECKPOINT_FORMAT)
    write_snapshots(folder, {}, identity | {"flops": []})
    write_table(folder / "train.csv", pd.DataFrame(columns=["step", "score_loss", "flow_loss"]))
    sources = {"config": config, "score": score, "flow": flow, "wolf_config": wolf_config}
    result = {
        "run": name,
        "steps": step["step"],
        "train_flops_per_step": None,
        "imported": {key: _signature(path) for key, path in sources.items() if path is not None},
        "flow_weights": flow_weights if flow is not None else None,
    }
    write_json(folder / "train.json", result)
    return folder


def _check_fit(spec: dict[str, Any], released: Config, name: str, *, has_flow: bool) -> None:
    """Compare what no shape of a tensor tells.

    Raises:
        ArtifactError: if the released configuration is not that of the run.
    """
    try:
        training, model, flow = released["training"], released["model"], released["flow"]["model"]
        found = {
            "sde": SDE_NAMES.get(training["sde"].lower(), training["sde"]),
            "sde.eps": training["truncation_time"],
            "flow": flow,
            **{f"train.score.{key}": value for key, value in score_arguments(released).items()},
        }
        keys = ("beta_min", "beta_max") if spec["sde"]["name"] == "vp" else ("sigma_min", "sigma_max")
        found |= {f"sde.{key}": model[key] for key in keys}
    except KeyError as error:
        raise ArtifactError(f"released configuration: found no key {error.args[0]!r}") from None
    expected = {"sde": spec["sde"]["name"], "sde.eps": spec["eps"], "flow": spec["flow"]["name"]}
    expected |= {f"sde.{key}": spec["sde"][key] for key in keys}
    expected |= {f"train.score.{key}": value for key, value in spec["score"].items() if key != "normalise_input"}
    expected |= {"train.score.channels_in": spec["shape"][0], "train.score.image_size": spec["shape"][1]}
    expected |= {"train.score.centered": spec["centered"]}
    wrong = [
        f"{key}: released {found.get(key)!r}, run {value!r}"
        for key, value in expected.items()
        if _plain(found.get(key)) != value
    ]
    if spec["score"]["normalise_input"]:
        wrong.append("train.score.normalise_input: released False, run True")
    if "affine" in spec["flow"]:
        wrong.append("train.latent: released standardise false and scale 1, run another")
    if has_flow != (spec["flow"]["name"] != "identity"):
        wrong.append(f"--flow: {'given' if has_flow else 'not given'}, the run's flow is {spec['flow']['name']}")
    if wrong:
        raise ArtifactError(f"run {name}: the released configuration is another one: {'; '.join(wrong)}")


def _plain(value: Any) -> Any:  # noqa: ANN401
    return list(value) if isinstance(value, tuple) else value


def _named(kind: str, part: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{kind}.{part}.{key}": value for key, value in module.state_dict().items()}


def _check_weights(spec: dict[str, Any], weights: dict[str, Tensor], name: str) -> None:
    """Load the weights into the run's own model.

    Raises:
        ArtifactError: if they do not fit it.
    """
    model = ImplicitNonlinearDiffusion(spec)
    for kind in ("raw", "ema"):
        state = {key.removeprefix(f"{kind}."): value for key, value in weights.items() if key.startswith(f"{kind}.")}
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ArtifactError(
                f"run {name}: the released weights do not fit: {' '.join(str(error).split())}"
            ) from None


def _signature(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        return {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
