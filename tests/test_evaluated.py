"""Suites that draw by image and leave out the ODE: from their rules over the stages to their tables."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from indm.bench.pipeline.jobs import Job, job_parameters, lasting_inputs
from indm.bench.stages import claims, table
from indm.bench.suite.load import load_suite, suite_content
from indm.bench.suite.schema.suite import Suite
from indm.errors import ArtifactError, ParamsError
from indm.measured import BAND_METRICS
from indm.report.figures import FIGURES, plot_figures
from indm.store.files import read_json, write_json, write_table
from indm.store.layout import Layout
from indm.strict_yaml import parse_yaml, yaml_text
from tests.conftest import REPOSITORY
from tests.made_up import write_made_up_runs
from tests.test_curve import call
from tests.test_planted import plant, planted_suite

PLAIN, FILTER = "digits-vp-ddpmpp-nll-s0", "digits-vp-ddpmpp-learned-filter-nll-s0"
BY_IMAGE: dict[str, Any] = {"images": 6, "batch_size": 4, "time_draws": 3, "tolerance": None, "ode_steps": 2}
BY_IMAGE |= {"log_det": "exact", "log_det_tolerance": None, "draws": "image", "control": "cosine"}
NLL = BY_IMAGE | {"uncorrected": True, "ode_images": 3}
CURVE = BY_IMAGE | {"ode_images": 0, "ode_steps": None}
FLOW = {"images": 6, "bands": {"time_draws": 3}}


def write_suite(folder: Path, **changes: Any) -> Path:
    """Write a suite of DDPM++ with and without a learned filter."""
    suite = parse_yaml((REPOSITORY / "params/smoke.yaml").read_text())
    same = {"dataset": "digits", "sde": "vp", "model": "ddpmpp", "objective": "nll", "seed": 0, "sample": {}}
    short = {"steps": 4, "snapshots": [2, 4]}
    runs = {PLAIN: same | {"variant": "", "train": short}}
    runs[FILTER] = same | {"variant": "learned-filter", "train": short | {"latent": {"learned": "filter"}}}
    suite |= {"runs": runs, "nll": NLL, "curve": CURVE, "flow": FLOW, "protocol": {}, "tune": {}}
    suite["toy2d"]["datasets"] = {}
    suite["grading"]["images"] = {"simple": "learned-filter", "scale": None}
    (folder / "smoke.yaml").write_text(yaml_text(suite | changes))
    return folder / "smoke.yaml"


@pytest.mark.parametrize(
    ("key", "section", "words"),
    [
        ("nll", NLL | {"tolerance": 1e-3, "ode_steps": None}, "key nll: found tolerance 0.001 with draws image"),
        ("nll", NLL | {"draws": "batch"}, "key nll: found control cosine with draws batch"),
        ("nll", NLL | {"ode_steps": None}, "key nll: found tolerance None and ode_steps None"),
        ("nll", NLL | {"ode_images": -1}, "nll.ode_images: found -1"),
        ("curve", CURVE | {"ode_images": 2, "ode_steps": 2}, "key curve.ode_images: found 2; allowed: 0"),
        ("curve", BY_IMAGE, "key curve.ode_images: found null; allowed: 0"),
    ],
)
def test_sections_that_contradict_themselves_are_refused(
    tmp_path: Path, key: str, section: dict[str, Any], words: str
) -> None:
    with pytest.raises(ParamsError) as error:
        load_suite(write_suite(tmp_path, **{key: section}))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_suites_without_the_keys_have_the_content_the_parameters_and_the_inputs_that_they_had() -> None:
    """Otherwise their published results would not be theirs."""
    new = {"draws", "control", "ode_images"}
    for path in sorted((REPOSITORY / "params").glob("*.yaml")):
        if path.stem in ("claims", "registrations"):
            continue
        suite = load_suite(path)
        content = suite_content(suite)
        if new & {*content["nll"], *content["curve"]}:
            continue
        assert "bands" not in (content.get("flow") or {})
        run = next(iter(suite.runs))
        for stage in ("nll", "curve", "flow"):
            parameters, inputs = (reader(suite, Job(stage, run)) for reader in (job_parameters, lasting_inputs))
            assert not new & set(parameters.get(stage) or {})
            assert not any(file.endswith("train.npy") for file in inputs)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained runs with their likelihoods, their curves and the effects of their maps."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_suite(folder)
    call(folder, "prepare", "--dataset", "digits")
    for run in (PLAIN, FILTER):
        for stage in ("train", "nll", "curve", "flow"):
            call(folder, stage, "--run", run)
    return folder


def run_folder(folder: Path, run: str) -> Path:
    return Layout(folder / "results", "smoke").run(run)


def test_numbers_of_the_stages_do_not_depend_on_batch_size_and_shards(evaluated: Path, tmp_path: Path) -> None:
    before = pd.read_csv(run_folder(evaluated, FILTER) / "nll.csv")
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    for size in (1, 100):
        write_suite(tmp_path, nll=NLL | {"batch_size": size}, curve=CURVE | {"batch_size": size})
        call(tmp_path, "nll", "--run", FILTER)
        found = pd.read_csv(run_folder(tmp_path, FILTER) / "nll.csv")
        pd.testing.assert_frame_equal(found, before, rtol=0, atol=2e-4)
    write_suite(tmp_path, shards={"nll": 2})
    for shard in ("1", "2"):
        call(tmp_path, "nll-shard", "--run", FILTER, "--shard", shard)
    call(tmp_path, "nll", "--run", FILTER)
    assert pd.read_csv(run_folder(tmp_path, FILTER) / "nll.csv").equals(before)


def test_results_say_what_they_are_of(evaluated: Path) -> None:
    nll = read_json(run_folder(evaluated, FILTER) / "nll.json")
    of_images = pd.read_csv(run_folder(evaluated, FILTER) / "nll.csv")
    assert (nll["images"], nll["ode_images"], nll["draws"], nll["control"]) == (6, 3, "image", "cosine")
    assert of_images["nll"].notna().tolist() == [True] * 3 + [False] * 3
    assert nll["nll"] == pytest.approx(of_images["nll"][:3].mean(), rel=1e-5)
    assert nll["gap"] == pytest.approx((of_images["nelbo"] - of_images["nll"])[:3].mean(), abs=1e-4)
    curve = pd.read_csv(run_folder(evaluated, FILTER) / "curve.csv")
    assert curve["ode_images"].tolist() == [0, 0]
    assert curve[["nll", "gap"]].isna().all(axis=None)
    assert curve["nelbo"].notna().all()


@pytest.mark.parametrize("run", [PLAIN, FILTER])
def test_shares_of_bands_add_up_to_the_bound_of_the_nll_stage(evaluated: Path, run: str) -> None:
    """Of the same images, times and noise, also for a run without a map."""
    flow, nll = (read_json(run_folder(evaluated, run) / f"{stage}.json") for stage in ("flow", "nll"))
    assert sum(flow[metric] for metric in BAND_METRICS) == pytest.approx(nll["nelbo"], abs=1e-4)
    assert all(flow[f"{metric}_se"] > 0 for metric in BAND_METRICS)
    assert (flow["log_det"] == 0) == (run == PLAIN)


# ----------------------------------------------------------------------------------------------------------------------
# Tables, on planted numbers


def leave_out(layout: Layout, runs: Any, stage: str, count: int) -> None:
    """Remove the NLLs of the results of a stage but for the first images, as the stage does."""
    of_ode = ["nll", "gap"]
    for run in runs:
        file = "nll.csv" if stage == "nll" else "curve_images.csv"
        images = pd.read_csv(layout.run(run) / file)
        images.loc[images["image"] >= count, of_ode] = np.nan
        write_table(layout.run(run) / file, images)
        if stage == "nll":
            numbers = {key: images[key].to_numpy(float) for key in of_ode}
            sound = {key: found[~np.isnan(found)] for key, found in numbers.items()}
            means = {key: float(found.mean()) if len(found) else np.nan for key, found in sound.items()}
            means |= {f"{key}_se": float(stats.sem(found)) if len(found) else np.nan for key, found in sound.items()}
            known = {key: None if np.isnan(value) else value for key, value in means.items()}
            content = json.loads((layout.run(run) / "nll.json").read_text())
            write_json(layout.run(run) / "nll.json", content | known | {"ode_images": count})
        else:
            curve = pd.read_csv(layout.run(run) / "curve.csv").assign(ode_images=count)
            curve[[*of_ode, *(f"{key}_se" for key in of_ode)]] = np.nan
            write_table(layout.run(run) / "curve.csv", curve)


def short_suite() -> Suite:
    """The planted suite's models of objective nll under VP."""
    suite = planted_suite()
    runs = {name: run for name, run in suite.runs.items() if (run.objective, run.sde) == ("nll", "vp")}
    study = suite.toy2d.model_copy(update={"datasets": {}})
    return suite.model_copy(update={"runs": runs, "toy2d": study})


@pytest.mark.parametrize("count", [0, 8])
def test_tables_have_empty_cells_where_no_ode_was_solved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    layout, suite = Layout(tmp_path / "results", "planted"), short_suite()
    write_made_up_runs(layout, suite, plant)
    shutil.copytree(REPOSITORY / "params", tmp_path / "params")
    monkeypatch.chdir(tmp_path)
    leave_out(layout, suite.runs, "nll", count)
    leave_out(layout, [name for name in suite.runs if suite.train_params(name).snapshots], "curve", 0)
    table.run(suite, layout)
    claims.run(suite, layout)
    found = pd.read_csv(layout.tables / "nll.csv")
    assert (found["ode_images"] == count).all()
    of_ode = ["nll", "nll_median", "nll_trimmed", "gap"]
    assert found[of_ode].notna().all(axis=None) == (count > 0)
    assert found[of_ode].isna().all(axis=None) == (count == 0)
    assert found["nelbo"].notna().all()
    verdicts = pd.read_csv(layout.tables / "claims.csv")
    graded = verdicts[(verdicts["objective"] == "nll") & (verdicts["sde"] == "vp")].groupby("id")["effect"].count()
    assert graded["better-nelbo"] >= 3
    assert (graded.get("better-nll", 0) >= 3) == (count > 0)
    with monkeypatch.context() as patch:
        patch.setattr(
            "indm.report.figures.FIGURES", {name: FIGURES[name] for name in ("learning-curve-step", "ablation")}
        )
        figures = plot_figures(layout.tables)
    assert set(figures) == {"learning-curve-step", "ablation"}
    # Its metrics head the columns of a figure, or label its panels.
    drawn = {name: svg.decode() for name, svg in figures.items()}
    assert "NELBO, bits/dim" in drawn["learning-curve-step"]
    assert "NLL, bits/dim" not in drawn["learning-curve-step"]
    assert ("<!-- NLL -->" in drawn["ablation"]) == (count > 0)


def test_an_nll_that_is_missing_without_a_reason_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, suite = Layout(tmp_path / "results", "planted"), short_suite()
    write_made_up_runs(layout, suite, plant)
    shutil.copytree(REPOSITORY / "params", tmp_path / "params")
    monkeypatch.chdir(tmp_path)
    run = next(iter(suite.runs))
    leave_out(layout, [run], "nll", 8)
    said = layout.run(run) / "nll.json"
    for expected, words in ((None, "found no nll, expected one for each image"), (3, "found 8 nll, expected 3")):
        content = {key: value for key, value in json.loads(said.read_text()).items() if key != "ode_images"}
        write_json(said, content | ({} if expected is None else {"ode_images": expected}))
        with pytest.raises(ArtifactError, match=words):
            table.run(suite, layout)
