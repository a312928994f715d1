"""Suite cifar10 whole, made small: its runs, samplers and evaluations, on archives of the true format, with random weights."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from indm.strict_yaml import parse_yaml, yaml_text
from tests.checkout import copy_checkout, do_jobs, run
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.long]

STANDIN = "standin32"
STEPS, VALIDATION = 3, 4
# The steps of DDPM++ with the FLOPs of INDM, to the nearest step.
SAME_COMPUTE = {"nll": 4, "fid": 6}


def small() -> dict[str, Any]:
    """Return what suite cifar10 says, with the sizes of suite smoke-images: one seed, some steps, stand-ins for the data."""
    text = (REPOSITORY / "params/cifar10.yaml").read_text().replace("cifar10", STANDIN)
    full = parse_yaml(text)
    for entry in full["runs"].values():
        entry["seeds"] = entry["seeds"][:1]
        longer = entry["variant"] == "same-compute"
        entry["train"] = entry["train"] | {"steps": SAME_COMPUTE[entry["objective"]] if longer else STEPS}
        if entry["train"].get("snapshots", True):
            entry["train"]["snapshots"] = [1, STEPS]
    return {
        "suite": "small",
        "based_on": "smoke-images",
        "datasets": {STANDIN: full["datasets"][STANDIN] | {"validation": VALIDATION}},
        "reference": {STANDIN: full["reference"][STANDIN] | {"extractor": "inception-v3-random"}},
        "weights": full["weights"],
        "sample": {"sampler": full["sample"]["sampler"], "grid": full["sample"]["grid"]},
        "sweep": {"objectives": full["sweep"]["objectives"], "samplers": full["sweep"]["samplers"]},
        "grading": full["grading"],
        "runs": full["runs"],
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the small suite."""
    checkout = copy_checkout(tmp_path_factory.mktemp("cifar10"))
    (checkout / "params/small.yaml").write_text(yaml_text(small()))
    # Stand-ins have no verdicts of their own.
    claims = checkout / "params/claims.yaml"
    claims.write_text(claims.read_text().replace("cifar10", STANDIN))
    # It also counts what the controls cost.
    assert run(checkout, "python", "-m", "indm", "validate", "--suite", "small").returncode == 0
    do_jobs(checkout, "small")
    return checkout / "results/small"


def test_every_arm_has_its_numbers(results: Path) -> None:
    fid, nll = (pd.read_csv(results / f"tables/{kind}.csv") for kind in ("fid", "nll"))
    models = fid[~fid["model"].str.startswith("real")]
    assert len(models) == len(nll) == 8
    assert models[["fid", "kid", "is", "precision", "recall"]].notna().all(axis=None)
    assert nll[["nll", "nelbo", "gap"]].notna().all(axis=None)


def test_the_claims_of_both_objectives_are_graded(results: Path) -> None:
    claims = pd.read_csv(results / "tables/claims.csv").query("dataset == @STANDIN")
    assert set(claims["objective"]) == {"nll", "fid"}
    assert claims["effect"].notna().any()


def test_the_validation_images_are_those_that_the_suite_holds_out(results: Path) -> None:
    counts = json.loads((results / f"data/{STANDIN}/dataset.json").read_text())["counts"]
    assert counts == {"train": 20 - VALIDATION, "valid": VALIDATION, "test": 4}


def test_the_learning_curves_and_the_sweep_are_of_every_arm_that_has_them(results: Path) -> None:
    curve = pd.read_csv(results / "tables/learning_curve.csv")
    sweep = pd.read_csv(results / "tables/discretization.csv")
    assert set(curve["objective"]) == {"nll"}
    assert set(sweep["sampler"]) == {"euler_maruyama", "ancestral", "ode_euler", "ddim", "ode_heun", "dpm_solver_pp_2m"}
    for table in (curve, sweep):
        assert table[["model", "variant"]].drop_duplicates().shape[0] == 4
