"""Effects that are planted in the result files of a suite are graded for what they are, by the stages table and claims."""

import shutil
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest

from indm.bench.stages import claims, table
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import RunParams, Suite
from indm.report.claims import GradingParams
from indm.report.grades import BETTER, MEANINGS, NOT_BETTER, UNDECIDED, WORSE
from indm.report.rows import records
from indm.store.files import write_table
from indm.store.layout import Layout
from tests.conftest import REPOSITORY
from tests.made_up import write_made_up_runs

SMOKE = load_suite(REPOSITORY / "params/smoke.yaml")
SEEDS = 3
NOISE = 2e-4
MODELS = [
    ("indm", ""),
    *(("ddpmpp", variant) for variant in ("", "same-compute", "learned-scale")),
    ("indm", "frozen-flow"),
]
SAMPLERS = {"indm": "ddim", "ddpmpp": "dpm_solver_pp_2m"}
CONTROLS = {"simple": "learned-scale", "scale": None}
GRADING = {
    "question": "q",
    "rows": 8,
    "decoder": "learned",
    "samplers": SAMPLERS,
    "images": CONTROLS,
    "toy2d": CONTROLS,
}


def planted_suite() -> Suite:
    cells = [("vp", *model, objective, SEEDS) for model in MODELS for objective in ("nll", "fid")]
    cells += [("ve", *model, "nll", 1) for model in MODELS[:2]]
    keys, same = ("sde", "model", "variant", "objective", "seed"), {"dataset": "digits", "train": {}, "sample": {}}
    found = [dict(zip(keys, (*cell, seed), strict=True)) for *cell, seeds in cells for seed in range(seeds)]
    runs = [RunParams.model_validate(same | run) for run in found]
    sampling = {"objectives": ["fid"], "samplers": [*SAMPLERS.values()], "steps": [4, 16, 32]}
    study = SMOKE.toy2d.model_copy(update={"datasets": {"moons": SMOKE.toy2d.datasets["moons-tiny"]}})
    changes = {"suite": "planted", "runs": {run.identity: run for run in runs}, "toy2d": study, "flow": None}
    changes |= {
        "protocol": {},
        "tune": {},
        "sweep": SMOKE.sweep.model_copy(update=sampling),
        "grading": GradingParams.model_validate(GRADING),
    }
    return SMOKE.model_copy(update=changes)


# Means of a metric, of the plain DDPM++ where a model has none of its own; at few steps, by each sampler.
Means = dict[tuple[str, str], float]
PLANTED: dict[str, Means] = {
    "nll": {("ddpmpp", ""): 2.1, ("indm", ""): 2.0},
    "nelbo": {
        ("ddpmpp", ""): 2.3,
        ("indm", ""): 2.1,
        ("ddpmpp", "same-compute"): 2.0,
        ("ddpmpp", "learned-scale"): 2.1,
    },
    "curve nll": {("ddpmpp", ""): 2.1},
    "curve nelbo": {("ddpmpp", ""): 2.2, ("indm", ""): 2.3},
    "fid": {("ddpmpp", ""): 10.0},
    "ddim": {("ddpmpp", ""): 5.0, ("indm", ""): 10.0},
    "dpm_solver_pp_2m": {("ddpmpp", ""): 20.0, ("indm", ""): 40.0},
}
PLANTED_KNOWN: dict[str, Means] = {
    "nll_excess": {("ddpmpp", ""): 0.5, ("indm", ""): 0.3},
    "nelbo_excess": {("ddpmpp", ""): 0.5, ("indm", ""): 0.495},
    "true_gap": {("ddpmpp", ""): 0.2, ("indm", ""): 0.1},
    "energy_16": {("ddpmpp", ""): 0.05, ("indm", ""): 0.02, ("ddpmpp", "learned-scale"): 0.01},
}


def number(means: Means, model: str, variant: str, seed: int, kind: str) -> float:
    """Return a mean with the noise of a run."""
    generator = np.random.default_rng([seed, sum(map(ord, model + variant + kind))])
    return means.get((model, variant), means["ddpmpp", ""]) * (1 + NOISE * generator.normal())


def plant(run: RunParams, metric: str) -> float:
    # FIDs of INDM are now better and now worse.
    lucky = (0.8, 1.3, 0.9)[run.seed] if (run.model, metric) == ("indm", "fid") else 1
    return lucky * number(PLANTED[metric], run.model, run.variant, run.seed, metric + run.objective)


def rows_known() -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for (model, variant), seed in product(MODELS, range(SEEDS)):
        found = {name: number(means, model, variant, seed, name) for name, means in PLANTED_KNOWN.items()}
        rows.append({"model": model, "variant": variant, "seed": seed, **found})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], str]:
    """Return the word of every comparison of claims.csv, by its claim, place and kind."""
    layout, suite = Layout(tmp_path_factory.mktemp("planted"), "planted"), planted_suite()
    write_made_up_runs(layout, suite, plant)
    write_table(layout.suite_folder / "toy2d/moons.csv", rows_known())
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(REPOSITORY / "params", root / "params")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        table.run(suite, layout)
        claims.run(suite, layout)
    found = pd.read_csv(layout.tables / "claims.csv", keep_default_na=False)
    keys = ("id", "dataset", "sde", "objective", "comparison")
    return {tuple(row[key] for key in keys): row["verdict"] for row in records(found)}


# What is planted for a claim in a place: the words at equal steps, at equal compute and over the simple control.
EXPECTED: dict[tuple[str, ...], tuple[str, ...]] = {
    ("better-nelbo", "digits", "vp", "nll"): (BETTER, WORSE, NOT_BETTER),
    ("better-nll", "digits", "vp", "fid"): (BETTER, BETTER, BETTER),
    ("nearly-mle-training", "digits", "vp", "nll"): (WORSE, WORSE, WORSE),
    ("lower-fid", "digits", "vp", "fid"): (UNDECIDED, UNDECIDED, UNDECIDED),
    # By one sampler for both, INDM would be worse.
    ("coarse-discretisation", "digits", "vp", "fid"): (BETTER, BETTER, BETTER),
    ("coarse-discretisation-ddim", "digits", "vp", "fid"): (WORSE, WORSE, WORSE),
    # One seed.
    ("better-nelbo", "digits", "ve", "nll"): (UNDECIDED, UNDECIDED, UNDECIDED),
    ("better-nelbo-known", "moons-tiny", "", ""): (NOT_BETTER, NOT_BETTER, NOT_BETTER),
    ("smaller-gap-known", "moons-tiny", "", ""): (BETTER, BETTER, BETTER),
    ("better-nll-known", "moons-tiny", "", ""): (BETTER, BETTER, BETTER),
    ("coarse-discretisation-known", "moons-tiny", "", ""): (BETTER, BETTER, WORSE),
}


@pytest.mark.parametrize("place", EXPECTED, ids=" ".join)
def test_a_planted_effect_is_graded_for_what_it_is(words: dict[tuple[str, ...], str], place: tuple[str, ...]) -> None:
    kinds = ("equal steps", "equal compute", "simple control")
    assert tuple(words[*place, kind] for kind in kinds) == EXPECTED[place]


def test_every_word_is_planted() -> None:
    assert {word for found in EXPECTED.values() for word in found} == set(MEANINGS)
