"""The controls of DDPM++ that tell what a flow does from what less than a flow does: each trained and evaluated by the stages."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from indm.store.files import CHECKPOINT_FORMAT, SNAPSHOTS_FORMAT, read_weights
from indm.store.layout import Layout
from indm.suite.schema.names import LEARNED
from indm.suite.strict_yaml import parse_yaml, yaml_text
from tests.conftest import REPOSITORY
from tests.test_curve import call

PROTOCOL: dict[str, Any] = {"images": 4, "batch_size": 4, "time_draws": 2, "tolerance": None, "ode_steps": 4}
PROTOCOL |= {"log_det": "series", "log_det_tolerance": 1e-3}
# By variant: its model and what it changes of the training.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"learned-{name}": ("ddpmpp", {"latent": {"learned": name}, "flow_warmup_steps": 2}) for name in LEARNED},
    "normalised-input": ("ddpmpp", {"score": {"normalise_input": "running"}}),
}
OBJECTIVES = {f"learned-{name}": ("nll", "fid") for name in LEARNED}
RUNS = [
    f"digits-vp-{model}-{variant}-{objective}-s0"
    for variant, (model, _) in VARIANTS.items()
    for objective in OBJECTIVES.get(variant, ("nll",))
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite with a run of every variant, its data prepared."""
    folder = tmp_path_factory.mktemp("ladder")
    suite = parse_yaml((REPOSITORY / "params" / "smoke.yaml").read_text())
    suite["train"] |= {"steps": 8, "snapshots": [4, 8], "warmup_steps": 1}
    run = {"dataset": "digits", "sde": "vp", "seed": 0, "sample": {}}
    suite["runs"] = {
        name: run | {"model": model, "variant": variant, "objective": name.split("-")[-2], "train": train}
        for variant, (model, train) in VARIANTS.items()
        for name in RUNS
        if f"-{model}-{variant}-" in name
    }
    suite |= {"curve": PROTOCOL, "protocol": {}, "nll": PROTOCOL | {"uncorrected": True}}
    (folder / "smoke.yaml").write_text(yaml_text(suite))
    call(folder, "prepare", "--dataset", "digits")
    return folder


def weights(folder: Path, run: str) -> dict[str, Tensor]:
    return read_weights(Layout(folder / "results", "smoke").run(run) / "checkpoint.safetensors", CHECKPOINT_FORMAT)[0]


def result(folder: Path, run: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Layout(folder / "results", "smoke").run(run) / f"{name}.json").read_text())
    return content


@pytest.mark.parametrize("run", RUNS)
def test_every_control_is_trained_and_evaluated_like_any_run(results: Path, run: str) -> None:
    for stage in ("train", "nll", "curve"):
        call(results, stage, "--run", run)
    found = result(results, run, "nll")
    assert all(torch.tensor(found[key]).isfinite() for key in ("nll", "nelbo", "nelbo_no_reconstruction", "gap"))
    snapshots, spec = read_weights(
        Layout(results / "results", "smoke").run(run) / "snapshots.safetensors", SNAPSHOTS_FORMAT
    )
    trained = weights(results, run)
    last = {key.removeprefix("8."): value for key, value in snapshots.items() if key.startswith("8.")}
    assert all(torch.equal(value, trained[key]) for key, value in last.items())
    assert spec["flops"] == sorted(spec["flops"])


@pytest.mark.parametrize("run", [run for run in RUNS if "-learned-" in run and "range" not in run])
def test_learned_maps_are_trained_averaged_and_evaluated_as_flows_are(results: Path, run: str) -> None:
    found, counts, trained = result(results, run, "nll"), result(results, run, "train"), weights(results, run)
    assert (found["weights"], found["log_det"]) == ({"score": "ema", "flow": "ema"}, "closed form")
    assert found["log_det_bound"] == 0
    name = run.split("-")[4]
    assert counts["flow_parameters"] == {"scale": 1, "affine": 2 * 64, "linear": 64 * 65}[name]
    assert 0 <= counts["flow_warmup_flops_per_step"] < counts["train_flops_per_step"]
    for key in [key for key in trained if key.startswith("raw.flow.")]:
        assert trained[key].any()
        assert not torch.equal(trained[key], trained[key.replace("raw", "ema")])
