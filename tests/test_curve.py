"""Snapshots of a training, and the likelihoods along it, by the stages."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import indm.bench.stages.curve as stage
from indm.bench.cli import main
from indm.bench.suite.load import load_suite, suite_content
from indm.bench.trials import with_trial
from indm.data.levels import dequantise
from indm.diffusion.model import load_model
from indm.flows.build import Affine
from indm.report.numbers import alpha_of
from indm.seeding import derive_seed
from indm.store.files import CHECKPOINT_FORMAT, SNAPSHOTS_FORMAT, read_weights
from indm.store.layout import Layout
from indm.strict_yaml import parse_yaml, yaml_text
from tests.conftest import FROZEN, REPOSITORY
from tests.finished import run

RUN = "digits-vp-indm-control-nll-s0"
# As in the released evaluation.
WEIGHTS = {"score": "ema", "flow": "raw"}
PROTOCOL: dict[str, Any] = {"images": 4, "batch_size": 2, "time_draws": 2, "tolerance": 1e-2, "ode_steps": None}
PROTOCOL |= {"log_det": "series", "log_det_tolerance": 1e-3}


def call(folder: Path, stage: str, *arguments: str) -> None:
    done = CliRunner().invoke(
        main, [stage, "--suite", str(folder / "smoke.yaml"), "--out", str(folder / "results"), *arguments]
    )
    assert done.exit_code == 0, done.output


def write_suite(folder: Path, **train: Any) -> None:
    suite = parse_yaml((REPOSITORY / "params" / "smoke.yaml").read_text())
    run = {"dataset": "digits", "sde": "vp", "model": "indm", "variant": "control", "objective": "nll", "seed": 0}
    suite |= {"runs": {RUN: run | {"train": train, "sample": {}}}, "curve": PROTOCOL, "protocol": {}, "tune": {}}
    suite |= {"nll": PROTOCOL | {"uncorrected": True}, "weights": WEIGHTS}
    suite["grading"]["images"]["simple"] = None
    (folder / "smoke.yaml").write_text(yaml_text(suite))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run with everything that this file is about."""
    folder = tmp_path_factory.mktemp("curve")
    latent = {"standardise": True, "scale": 2.0}
    write_suite(folder, steps=6, flow_warmup_steps=2, snapshots=[1, 4, 6], latent=latent)
    call(folder, "prepare", "--dataset", "digits")
    call(folder, "train", "--run", RUN)
    return folder


def run_folder(folder: Path) -> Path:
    return Layout(folder / "results", "smoke").run(RUN)


@pytest.fixture(scope="module")
def curve(trained: Path) -> pd.DataFrame:
    """The run's curve, on a dataset said to have no validation split."""
    file = Layout(trained / "results", "smoke").data("digits") / "dataset.json"
    written = file.read_text()
    description = json.loads(written)
    description["counts"]["valid"] = 0
    file.write_text(json.dumps(description))
    # Not by the command line, which would see that the description is not the one that was written.
    run(stage, load_suite(trained / "smoke.yaml"), Layout(trained / "results", "smoke"), RUN)
    file.write_text(written)
    return pd.read_csv(run_folder(trained) / "curve.csv")


def test_last_snapshot_is_the_averaged_model_and_the_raw_flow(trained: Path) -> None:
    snapshots, spec = read_weights(run_folder(trained) / "snapshots.safetensors", SNAPSHOTS_FORMAT)
    checkpoint, described = read_weights(run_folder(trained) / "checkpoint.safetensors", CHECKPOINT_FORMAT)
    assert spec["model"] == described["model"]
    assert spec["steps"] == [1, 4, 6]
    expected = {key: value for key, value in checkpoint.items() if key.startswith(("ema.", "raw.flow."))}
    for step, equal in ((4, False), (6, True)):
        found = {key.partition(".")[2]: value for key, value in snapshots.items() if key.startswith(f"{step}.")}
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found) == equal


def test_last_row_is_the_final_number_of_the_same_split(trained: Path, curve: pd.DataFrame) -> None:
    call(trained, "nll", "--run", RUN)
    final = json.loads((run_folder(trained) / "nll.json").read_text())
    assert (curve["split"] == "test").all()
    likelihoods = ["nelbo", "nelbo_se", "nelbo_no_reconstruction", "nll", "nll_se", "gap", "gap_se"]
    for key in ("images", *likelihoods, "alpha_eps"):
        assert curve[key].iloc[-1] == pytest.approx(final[key], rel=1e-5), key
    assert (curve["log_det_bound"] == 1e-3).all()
    assert final["alpha_eps"] == pytest.approx(
        alpha_of(suite_content(load_suite(trained / "smoke.yaml")), RUN), abs=1e-12
    )
    assert (final["log_det"], final["log_det_bound"]) == ("series", 1e-3)


def test_rows_of_the_validation_split_are_of_its_images(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[torch.Tensor] = []

    def note(_: object, images: torch.Tensor, *__: object, **___: object) -> pd.DataFrame:
        met.append(images)
        return pd.DataFrame(dict.fromkeys(stage.NUMBERS, [0.0] * len(images)))

    monkeypatch.setattr(stage, "likelihoods", note)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    layout = Layout(tmp_path / "results", "smoke")
    run(stage, load_suite(tmp_path / "smoke.yaml"), layout, RUN)
    assert (pd.read_csv(run_folder(tmp_path) / "curve.csv")["split"] == "valid").all()
    images = torch.from_numpy(np.load(layout.data("digits") / "valid.npy"))
    assert [torch.equal(found, images[:4]) for found in met] == [True] * 3


def test_alpha_of_an_earlier_result_is_calculated_from_the_suite_where_that_fixes_it() -> None:
    suite = load_suite(FROZEN)
    name = next(run for run in suite.runs if run.startswith("digits-vp-ddpmpp"))
    late = with_trial(suite, name, 0, {"sde": {"eps": 0.05}})
    assert alpha_of(suite_content(late), name) == pytest.approx(np.exp(-(0.1 * 0.05 + 0.5 * 0.05**2 * 19.9) / 2))
    learned = with_trial(suite, name, 0, {"sde": {"vp": {"learned_range": True}}})
    assert np.isnan(alpha_of(suite_content(learned), name))


def test_likelihoods_are_of_the_weights_that_the_suite_names(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    found = {}
    for flow in ("ema", "raw"):
        suite = parse_yaml((trained / "smoke.yaml").read_text())
        suite["weights"] = {"score": "ema", "flow": flow}
        suite["curve"] = PROTOCOL | {"tolerance": None, "ode_steps": 1}
        suite["nll"] = suite["curve"] | {"uncorrected": False}
        (tmp_path / "smoke.yaml").write_text(yaml_text(suite))
        call(tmp_path, "nll", "--run", RUN)
        call(tmp_path, "curve", "--run", RUN)
        result = json.loads((run_folder(tmp_path) / "nll.json").read_text())
        assert result["weights"] == {"score": "ema", "flow": flow}
        found[flow] = result["nelbo"], *pd.read_csv(run_folder(tmp_path) / "curve.csv")["nelbo"]
    assert all(ema != raw for ema, raw in zip(found["ema"], found["raw"], strict=True))


def test_numbers_of_images_have_the_means_of_the_curve(trained: Path, curve: pd.DataFrame) -> None:
    images = pd.read_csv(run_folder(trained) / "curve_images.csv")
    assert list(images) == ["step", "image", "nelbo", "nelbo_no_reconstruction", "nll", "gap"]
    assert images["image"].tolist() == [0, 1, 2, 3] * 3
    by_step = images.groupby("step")
    for key in ("nelbo", "nelbo_no_reconstruction", "nll", "gap"):
        assert by_step[key].mean().tolist() == pytest.approx(curve[key].tolist(), rel=1e-5, abs=1e-5), key
        # Tables have six digits.
        assert by_step[key].sem().tolist() == pytest.approx(curve[f"{key}_se"].tolist(), abs=1e-4), key


def test_rows_count_the_operations(trained: Path, curve: pd.DataFrame) -> None:
    counts = json.loads((run_folder(trained) / "train.json").read_text())
    warm_up, joint = counts["flow_warmup_flops_per_step"], counts["train_flops_per_step"]
    assert 0 < warm_up < joint
    expected = [warm_up, 2 * warm_up + 2 * joint, 2 * warm_up + 4 * joint]
    assert curve["flops"].tolist() == pytest.approx(expected, rel=1e-5)
    assert list(curve["step"]) == [1, 4, 6]


def test_latent_is_standardised_over_the_training_split(trained: Path) -> None:
    images = torch.from_numpy(np.load(Layout(trained / "results", "smoke").data("digits") / "train.npy"))
    flow = load_model(run_folder(trained) / "checkpoint.safetensors", torch.device("cpu"), WEIGHTS).flow
    x = dequantise(images, 17, torch.Generator().manual_seed(0))
    assert isinstance(flow, Affine)
    latent = flow.factor * (x - flow.mean)
    assert latent.mean().item() == pytest.approx(0, abs=0.01)
    assert latent.std().item() == pytest.approx(2, abs=0.01)


def test_a_run_without_snapshots_has_no_curve(tmp_path: Path) -> None:
    write_suite(tmp_path, steps=1, snapshots=[])
    done = CliRunner().invoke(main, ["curve", "--suite", str(tmp_path / "smoke.yaml"), "--run", RUN])
    assert done.exit_code == 1
    assert f"found no job of stage curve for run '{RUN}', expected one of: none" in done.output


def test_the_flow_of_the_checkpoint_is_measured_on_the_first_test_images(trained: Path) -> None:
    call(trained, "flow", "--run", RUN)
    found = json.loads((run_folder(trained) / "flow.json").read_text())
    layout = Layout(trained / "results", "smoke")
    model = load_model(run_folder(trained) / "checkpoint.safetensors", torch.device("cpu"), WEIGHTS)
    levels = torch.from_numpy(np.load(layout.data("digits") / "test.npy"))[:8]
    generator = torch.Generator().manual_seed(derive_seed("digits", 0, "flow"))
    x = dequantise(levels, 17, generator).double()
    expected = model.flow.double()(x, "exact")[1] / (64 * np.log(2))
    assert (found["run"], found["images"], found["weights"]) == (RUN, 8, WEIGHTS)
    assert found["log_det"] == pytest.approx(expected.mean().item(), abs=0.02)
    assert found["log_det_se"] == pytest.approx(expected.std().item() / 8**0.5, abs=0.02)
    # The fixed map in front multiplies the data by 2 / d.
    assert found["gain_1"] == pytest.approx(model.flow.factor, rel=0.3)
