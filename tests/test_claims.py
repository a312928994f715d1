"""The claims: planted effects are graded for what they are, and mistakes in the file are named."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from indm.diffusion.sde import build_sde
from indm.errors import ArtifactError, ParamsError
from indm.measured import METRICS
from indm.report.claims import CLAIM_COLUMNS, claims_table, differences_table, effects_table
from indm.report.differences import Paired, compare
from indm.report.grades import (
    BEATEN,
    BETTER,
    BEYOND,
    CONTRADICTED,
    INCONCLUSIVE,
    MATCHED,
    MEANINGS,
    NO_DATA,
    NOT_RUN,
    NOT_TESTABLE,
    OPEN,
    RULED_OUT,
    SHOWN,
    SINGLE,
    Effect,
    Scale,
    effect_of,
    holds,
    is_the_flow,
    of_control,
    repeatability,
)
from indm.report.intervals import CROSSED, OVER_IMAGES, STUDENT, TAIL, Interval, estimate, interval
from indm.report.results import Results, records
from indm.report.values import IMAGE_COLUMNS, VALUE_COLUMNS, images_table
from indm.suite.claims import Claims, load_claims
from indm.suite.expand import suite_files
from indm.suite.load import load_suite, suite_sha256
from indm.suite.schema.suite import Suite
from indm.suite.strict_yaml import yaml_text
from indm.toy2d.cells import train_cells
from indm.toy2d.data import draw_splits
from tests.conftest import REPOSITORY

FILE = REPOSITORY / "params" / "claims.yaml"
METRIC: dict[str, Any] = {"stage": "nll", "name": "nll"}
LINEAR: dict[str, Any] = {"model": "ddpmpp"}
CLAIM: dict[str, Any] = {
    "id": "better",
    "family": "exploratory",
    "question": "Is INDM better?",
    "statement": "INDM is better.",
    "source": "a section",
    "metric": METRIC,
    "controls": ["standardised", "scale"],
    "where": {"datasets": ["digits"], "objectives": ["nll"]},
    "smallest": {"effect": 0.01, "unit": "bits/dim", "why": "two decimals"},
}
CONTROLS: dict[str, dict[str, Any]] = {
    "standardised": {"variants": ["standardised"]},
    "scale": {"variants": ["scale-3", "scale-5"], "choose_by": {"stage": "curve", "name": "nelbo", "x": "last"}},
}
# Columns of values.csv, with the statement of a sampler's soundness.
COLUMNS = list(dict.fromkeys([*VALUE_COLUMNS, "sound"]))
# Means of the planted numbers; scale-5 is the better on the test split and scale-3 on the validation split.
PLAIN = {("indm", ""): 2.0, ("ddpmpp", ""): 2.1, ("ddpmpp", "standardised"): 2.08, ("ddpmpp", "scale-3"): 2.07}
PLAIN |= {("ddpmpp", "scale-5"): 1.9}
NO_IMAGES = pd.DataFrame(columns=IMAGE_COLUMNS)
VALIDATION = {"scale-3": 2.0, "scale-5": 2.2}


def claims(smallest: float = 0.01, **changes: Any) -> Claims:
    claim = CLAIM | {"smallest": CLAIM["smallest"] | {"effect": smallest}} | changes
    return Claims.model_validate({"controls": CONTROLS, "claims": [claim]})


def planted(
    means: dict[tuple[str, str], float], seeds: int, noise: float, seed: int = 0, shared: float = 0.3
) -> pd.DataFrame:
    """Plant a number for each model and variant: its mean, what the seed adds to all alike, and its own noise."""
    generator = np.random.default_rng(seed)
    rows = []
    for run_seed, common in enumerate(generator.normal(0, shared, seeds)):
        for (model, variant), mean in means.items():
            value = mean + common + generator.normal(0, noise)
            row = {"model": model, "variant": variant, "seed": run_seed}
            rows.append(row | {"stage": "nll", "metric": "nll", "value": value})
            if variant in VALIDATION:
                rows.append(row | {"stage": "curve", "metric": "nelbo", "x": 10.0, "value": 0.0})
                rows.append(row | {"stage": "curve", "metric": "nelbo", "x": 20.0, "value": VALIDATION[variant]})
    same = {"suite": "s", "dataset": "digits", "sde": "vp", "objective": "nll", "sampler": ""}
    return pd.DataFrame([same | row for row in rows], columns=VALUE_COLUMNS).astype({"x": float})


def graded(values: pd.DataFrame, failed_beyond: Mapping[str, float] | None = None, **changes: Any) -> dict[str, Any]:
    (row,) = records(claims_table(compare(values, NO_IMAGES, claims(**changes), failed_beyond), "s"))
    return row


def effects(values: pd.DataFrame, failed_beyond: Mapping[str, float] | None = None, **changes: Any) -> pd.DataFrame:
    table = effects_table(compare(values, NO_IMAGES, claims(**changes), failed_beyond), "s")
    return table.set_index("against")


def test_effects_are_listed_against_the_baseline_and_every_control_those_without_a_run_too() -> None:
    """As in the table of claims, to the last digit; and so are the differences of the seeds."""
    values = planted({key: PLAIN[key] for key in PLAIN if key != ("ddpmpp", "standardised")}, seeds=5, noise=0.001)
    table = effects(values)
    assert table["role"].to_dict() == {"ddpmpp": "baseline", "standardised": "control", "scale (scale-3)": "control"}
    assert table["verdict"].to_dict() == {"ddpmpp": SHOWN, "standardised": NOT_RUN, "scale (scale-3)": BEATEN}
    assert table["n"].tolist() == [5, 0, 5]
    assert table["planned"].tolist() == [5, 0, 5]
    assert table.loc["standardised", ["effect", "low", "high"]].isna().all()
    row = graded(values)
    ends = ["effect", "low", "high"]
    assert [table.loc["ddpmpp", key] for key in ends] == [row[key] for key in ends]
    assert row["control"] == "scale (scale-3)"
    assert [table.loc["scale (scale-3)", key] for key in ends] == [row[f"control_{key}"] for key in ends]
    differences = differences_table(compare(values, NO_IMAGES, claims()), "s")
    means = differences.groupby("against")["difference"].mean()
    assert means.to_dict() == pytest.approx(table["effect"].dropna().to_dict())
    assert differences["seed"].tolist() == 2 * [0, 1, 2, 3, 4]


def test_a_claim_is_shown_and_beyond_every_control() -> None:
    row = graded(planted(PLAIN, seeds=5, noise=0.005))
    assert (row["holds"], row["flow"]) == (SHOWN, BEYOND)
    assert row["effect"] == pytest.approx(0.1, abs=0.01)
    assert row["low"] < row["effect"] < row["high"]
    found = [row[key] for key in ("n", "test", "dataset", "sde", "objective", "planned", "failed_treatment")]
    assert found == [5, "Student t", "digits", "vp", "nll", 5, 0]
    # Chosen on the validation split: on the test split scale-5 would have matched INDM.
    assert row["control"] == "scale (scale-3)"
    assert row["control_effect"] == pytest.approx(0.07, abs=0.01)


@pytest.mark.parametrize(("effect", "expected"), [(0.0, RULED_OUT), (-0.1, CONTRADICTED), (0.005, RULED_OUT)])
def test_no_effect_a_reversed_and_a_negligible_one_are_not_shown(effect: float, expected: str) -> None:
    assert graded(planted(PLAIN | {("indm", ""): 2.1 - effect}, seeds=5, noise=0.001))["holds"] == expected


@pytest.mark.parametrize(("control", "flow"), [(2.0, MATCHED), (1.9, BETTER), (2.005, MATCHED)])
def test_a_control_that_leaves_at_most_the_smallest_effect_matches_or_does_better(control: float, flow: str) -> None:
    """Whether or not INDM beats it by less than that."""
    values = planted(PLAIN | {("ddpmpp", "standardised"): control}, seeds=5, noise=0.0003)
    row = graded(values)
    assert (row["holds"], row["flow"], row["control"]) == (SHOWN, flow, "standardised")
    assert row["control_high"] <= row["smallest_effect"]
    assert effects(values).loc["standardised", "verdict"] == flow
    # Of several, the one whose interval ends first.
    both = values.assign(value=values["value"].mask((values["variant"] == "scale-3") & (values["stage"] == "nll"), 1.5))
    assert graded(both)["control"] == "scale (scale-3)"


def test_a_claim_that_does_not_hold_is_asked_about_the_flow_too() -> None:
    row = graded(planted(PLAIN | {("indm", ""): 2.2}, seeds=5, noise=0.001))
    assert (row["holds"], row["flow"]) == (CONTRADICTED, BETTER)


def test_a_control_that_noise_hides_leaves_open_whether_it_is_the_flow() -> None:
    """Not to be told apart is not to be alike."""
    row = graded(planted(PLAIN | {("ddpmpp", "standardised"): 2.0}, seeds=5, noise=0.02))
    assert (row["flow"], row["control"]) == (OPEN, "standardised")
    assert row["flow_reason"] == "not separated from: standardised"
    assert row["control_high"] > row["smallest_effect"]


def test_what_a_claim_without_controls_is_is_not_asked() -> None:
    row = graded(planted(PLAIN, seeds=5, noise=0.005), controls=[])
    assert (row["holds"], row["flow"], row["control"], row["flow_reason"]) == (SHOWN, "", "", "")


@pytest.mark.parametrize("runs", [True, False])
def test_same_compute_is_always_named(runs: bool) -> None:
    name = "same-compute"
    means = PLAIN | {("ddpmpp", name): 2.0} if runs else PLAIN
    found = CLAIM | {"controls": ["standardised", name]}
    file = Claims.model_validate({"controls": CONTROLS | {name: {"variants": [name]}}, "claims": [found]})
    (row,) = records(claims_table(compare(planted(means, 5, 0.0003), NO_IMAGES, file), "s"))
    assert row["flow"] == (MATCHED if runs else OPEN)
    last = row["flow_reason"].rpartition("; ")[2]
    assert re.fullmatch(rf"{name}: [-0-9.e]+ \[[-0-9.e]+, [-0-9.e]+\]" if runs else f"{name} was not run here", last)


def test_noise_is_inconclusive() -> None:
    assert graded(planted(PLAIN, seeds=4, noise=0.2))["holds"] == INCONCLUSIVE


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_decide_nothing(seeds: int) -> None:
    row = graded(planted(PLAIN, seeds=seeds, noise=0.005))
    assert (row["holds"], row["flow"], row["n"]) == (SINGLE, OPEN, seeds)
    assert pd.isna(row["repeatability"])
    assert "at least 3 are needed" in row["reason"]
    assert pd.isna(row["low"]) == (seeds == 1)


def test_a_control_that_was_not_run_leaves_open_whether_it_is_the_flow() -> None:
    """And not whether the claim holds."""
    values = planted({cell: PLAIN[cell] for cell in [("indm", ""), ("ddpmpp", "")]}, seeds=5, noise=0.005)
    row = graded(values)
    assert (row["holds"], row["flow"], row["flow_reason"]) == (SHOWN, OPEN, "to be run: standardised, scale")
    few = planted(PLAIN, seeds=5, noise=0.005)
    few = few[(few["variant"] != "standardised") | (few["seed"] < 2)]
    assert graded(few)["flow_reason"] == "to be run: standardised (2 sound seeds)"
    assert effects(few).loc["standardised", "verdict"] == NOT_RUN


@cache
def variants_2d(scales: tuple[float, ...]) -> list[dict[str, str]]:
    """Name the models of the 2-D study, from a training of one step."""
    training = load_suite(REPOSITORY / "params" / "smoke.yaml").toy2d.training.model_dump()
    training |= {"scales": list(scales), "width": 4, "couplings": 1, "steps": 1, "flow_warmup_steps": 1}
    cells = train_cells(
        "moons", [0], draw_splits("moons", 40, 0.0, [0], "train"), build_sde("vp"), eps=1e-3, **training
    )
    return [{"model": cell.model, "variant": cell.variant} for cell in cells]


def identities(suite: Suite) -> list[dict[str, Any]]:
    """List what a suite measures: a row for each cell and stage, and for each model of its 2-D studies."""
    rows = []
    for name, run in suite.runs.items():
        stages = ["fid", "nll"]
        stages += ["curve"] if suite.train_params(name).snapshots else []
        stages += ["sweep"] if run.objective in suite.sweep.objectives else []
        cell = run.model_dump(include={"dataset", "sde", "model", "variant", "objective"})
        rows += [cell | {"stage": stage} for stage in stages]
    for dataset in suite.toy2d.datasets:
        place = {"dataset": dataset, "sde": "", "objective": "", "stage": "toy2d"}
        rows += [place | model for model in variants_2d(tuple(suite.toy2d.training.scales))]
    return records(pd.DataFrame(rows).drop_duplicates())


@pytest.mark.parametrize("path", suite_files(REPOSITORY / "params"), ids=lambda path: path.stem)
def test_a_claim_can_be_shown_or_says_which_controls_a_suite_lacks(path: Path) -> None:
    """Every claim in every suite, its effect planted: as large as can be, against everything."""
    suite, found = load_suite(path), load_claims(FILE)
    runs, samplers = identities(suite), {*suite.sweep.samplers, None}
    for claim in (claim for claim in found.claims if claim.controls):
        rows = [
            run
            | {"metric": metric.name, "seed": seed, "sampler": sampler, "x": 8.0, "sound": 1.0}
            | {"value": 2.0 - ((run["model"], run["variant"]) == ("indm", ""))}
            for run in runs
            for metric in [
                claim.metric,
                *[control.choose_by for control in found.controls.values() if control.choose_by],
            ]
            if metric.stage == run["stage"]
            for sampler in (suite.sweep.samplers if metric.stage == "sweep" else [""])
            for seed in range(3)
        ]
        steps = {"stage": "train", "metric": "steps", "sampler": "", "x": np.nan, "value": 8.0}
        rows += [row | steps for row in rows if row["sde"]]
        values = pd.DataFrame(rows, columns=COLUMNS).drop_duplicates()
        for row in records(
            claims_table(compare(values, NO_IMAGES, Claims(controls=found.controls, claims=[claim])), "s")
        ):
            if row["holds"] == NO_DATA:
                continue
            place = [row[key] for key in ("dataset", "sde", "objective")]
            here = {run["variant"] for run in runs if [run[key] for key in ("dataset", "sde", "objective")] == place}
            absent = [
                name
                for name in claim.controls
                if not here & {*found.controls[name].variants} or found.controls[name].sampler not in samplers
            ]
            lacking = [sampler for sampler in claim.metric.sampler or [] if sampler not in samplers]
            assert row["holds"] == (INCONCLUSIVE if lacking else SHOWN), (claim.id, place, row["reason"])
            assert row["flow"] == (OPEN if absent or lacking else BEYOND), (claim.id, place, row["flow_reason"])
            assert all(name in row["flow_reason"] for name in lacking or absent), (claim.id, place)
            assert row["sde"] != "" or not absent, f"{claim.id}: the 2-D study has every control"


def test_a_number_that_stands_twice_is_refused() -> None:
    values = planted(PLAIN, seeds=5, noise=0.005).assign(source="runs/a/nll.json")
    again = values[(values["stage"] == "nll") & (values["seed"] == 3)].assign(value=9.0)
    with pytest.raises(
        ArtifactError, match=r"^runs/a/nll.json: found a number twice \(digits, vp, indm, nll, 3, nll, nll"
    ):
        graded(pd.concat([values, again]))


def test_no_data_is_said() -> None:
    empty = pd.DataFrame(columns=VALUE_COLUMNS)
    assert graded(empty)["holds"] == NO_DATA
    two = claims_table(
        compare(
            planted(PLAIN, 5, 0.005),
            NO_IMAGES,
            claims(where={"datasets": ["digits", "cifar10"]}),
        ),
        "s",
    )
    assert two[["dataset", "holds"]].to_numpy().tolist() == [["digits", SHOWN], ["cifar10", NO_DATA]]
    alone = planted({("indm", ""): 2.0}, seeds=3, noise=0.0)
    assert "no run of the baseline" in graded(alone)["reason"]


def test_a_log_of_what_is_not_positive_has_failed() -> None:
    values = planted({("indm", ""): -2.0, ("ddpmpp", ""): 2.0}, 3, 0.005, shared=0.0)
    row = graded(values, controls=[], metric=METRIC | {"transform": "log"})
    assert (row["holds"], row["n"], row["failed_treatment"], row["failed_baseline"]) == (SINGLE, 0, 3, 0)


def test_a_claim_is_graded_in_each_place_apart() -> None:
    values = planted(PLAIN, 5, 0.005)
    both = pd.concat([values, planted(PLAIN | {("indm", ""): 2.1}, 5, 0.001).assign(sde="ve")])
    table = claims_table(compare(both, NO_IMAGES, claims()), "s")
    assert list(table) == CLAIM_COLUMNS
    assert table[["sde", "holds"]].to_numpy().tolist() == [["vp", SHOWN], ["ve", RULED_OUT]]


def test_seeds_are_paired() -> None:
    """The seeds' own spread, 0.3, would drown an effect of 0.1 that is not paired."""
    values = planted(PLAIN, seeds=5, noise=0.005)
    others = values["model"] == "ddpmpp"
    values.loc[others, "seed"] += 3
    row = graded(values)
    assert row["n"] == 2


def test_baseline_of_another_objective_and_direction_higher() -> None:
    values = planted({("ddpmpp", ""): 2.0}, 5, 0.001)
    both = pd.concat([values, planted({("ddpmpp", ""): 2.5}, 5, 0.001).assign(objective="fid")])
    changes: dict[str, Any] = {"treatment": LINEAR, "baseline": LINEAR | {"objective": "fid"}, "controls": []}
    assert graded(both, **changes)["effect"] == pytest.approx(0.5, abs=0.01)
    assert graded(both, **changes, direction="higher")["holds"] == CONTRADICTED


def test_a_bound_is_a_baseline() -> None:
    values = planted({("indm", ""): 2.0}, 5, 0.001, shared=0.001)
    assert graded(values, baseline={"value": 2.1}, controls=[])["holds"] == SHOWN
    assert graded(values, baseline={"value": 1.9}, controls=[])["holds"] == CONTRADICTED


def swept(numbers: dict[tuple[str, int], float], seeds: int = 3, noise: float = 0.0) -> pd.DataFrame:
    """Lay out a sound FID for each model and number of steps, the same for all seeds but for their noise."""
    same = {"dataset": "digits", "sde": "vp", "objective": "nll", "stage": "sweep", "metric": "fid", "sampler": "ode"}
    generator = np.random.default_rng(0)
    rows = [
        {"model": model, "variant": "", "seed": seed, "x": float(steps), "value": value + generator.normal(0, noise)}
        for seed in range(seeds)
        for (model, steps), value in numbers.items()
    ]
    return pd.DataFrame([same | row for row in rows], columns=COLUMNS).assign(sound=1.0)


FEW_STEPS: dict[str, Any] = {"stage": "sweep", "name": "fid", "x": [1.0, 16.0], "transform": "log"}


def test_transform_and_range_of_x() -> None:
    """Over the steps up to 16, in relative terms."""
    numbers = {(model, x): fid * 1000 / x for model, fid in (("indm", 1.0), ("ddpmpp", np.e)) for x in (4, 8, 64)}
    row = graded(swept(numbers), metric=FEW_STEPS, controls=[])
    assert row["effect"] == pytest.approx(1.0)
    assert (row["holds"], row["metric"]) == (SHOWN, "sweep, fid, x 1 to 16, log")


def test_few_steps_are_the_mean_of_samplers_each_at_its_sound_points() -> None:
    """One sampler has two sound points and the other one: both weigh the same."""
    first = swept({("indm", 4): 9.0, ("indm", 8): 1.0, ("ddpmpp", 4): 1.0, ("ddpmpp", 8): np.e})
    first["sound"] = (first["x"] == 8).astype(float)
    second = swept({(model, x): fid for model, fid in (("indm", 1.0), ("ddpmpp", np.e**2)) for x in (4, 8)})
    values = pd.concat([first.assign(sampler="a"), second.assign(sampler="b")])
    assert graded(values, metric=FEW_STEPS, controls=[])["effect"] == pytest.approx(1.5)
    for unknown in (values.drop(columns="sound"), values.assign(sound=np.nan), values.assign(sound=0)):
        row = graded(unknown, metric=FEW_STEPS, controls=[])
        assert (row["holds"], row["reason"]) == (
            NO_DATA,
            "no run of the baseline shares a seed with one of the treatment",
        )


def test_two_dimensions_need_no_statement_of_soundness_and_follow_it_where_there_is_one() -> None:
    values = swept({("indm", 4): 9.0, ("indm", 8): 1.0, ("ddpmpp", 4): 1.0, ("ddpmpp", 8): np.e})
    values = values.assign(stage="toy2d", metric="w1", dataset="moons", sde="", objective="", sampler="")
    changes: dict[str, Any] = {"metric": FEW_STEPS | {"stage": "toy2d", "name": "w1"}, "controls": [], "where": {}}
    expected = (1 - np.log(9)) / 2
    assert graded(values.assign(sound=np.nan), **changes)["effect"] == pytest.approx(expected)
    assert graded(values.drop(columns="sound"), **changes)["effect"] == pytest.approx(expected)
    assert graded(values.assign(sound=(values["x"] == 8).astype(float)), **changes)["effect"] == pytest.approx(1)


def test_a_control_by_another_solver_is_compared_where_that_is_sound() -> None:
    """In as many steps, once for each of the claim's samplers, which have two points where the solver has one."""
    euler = swept({("indm", 4): 4.0, ("indm", 8): 1.0, ("ddpmpp", 4): 9.0, ("ddpmpp", 8): 9.0})
    solver = swept({("ddpmpp", 4): 0.1, ("ddpmpp", 8): np.e}).assign(sampler="dpm_solver_pp_2m")
    solver["sound"] = (solver["x"] == 8).astype(float)
    values = pd.concat([euler.assign(sampler="ode_euler"), solver])
    control = {"variants": [""], "sampler": "dpm_solver_pp_2m"}
    claim = CLAIM | {"metric": FEW_STEPS | {"sampler": ["ode_euler"]}, "controls": ["better-solver"]}
    file = Claims.model_validate({"controls": {"better-solver": control}, "claims": [claim]})
    (row,) = records(claims_table(compare(values, NO_IMAGES, file), "s"))
    assert (row["flow"], row["control_effect"]) == (BEYOND, pytest.approx(1.0))
    (row,) = records(claims_table(compare(values[values["sampler"] == "ode_euler"], NO_IMAGES, file), "s"))
    assert (row["flow"], row["flow_reason"]) == (OPEN, "to be run: better-solver")


def test_a_sampler_that_no_arm_has_leaves_a_claim_open() -> None:
    """By the other one alone, the claim would be shown."""
    values = swept({("indm", 4): 2.0, ("ddpmpp", 4): 20.0}).assign(sampler="ode_euler")
    asked = FEW_STEPS | {"sampler": ["euler_maruyama", "ode_euler"]}
    assert graded(values, metric=FEW_STEPS | {"sampler": ["ode_euler"]}, controls=[])["holds"] == SHOWN
    beside = pd.concat([values, values[values["model"] == "ddpmpp"].assign(variant="standardised")])
    row = graded(beside, metric=asked, controls=["standardised"])
    assert (row["holds"], row["flow"]) == (INCONCLUSIVE, OPEN)
    assert row["reason"] == "no sound number by euler_maruyama"
    assert row["flow_reason"].startswith("no sound number by euler_maruyama")
    assert pd.isna(row["repeatability"])
    assert effects(beside, metric=asked, controls=["standardised"])["verdict"].tolist() == [INCONCLUSIVE, OPEN]
    row = graded(values, metric=FEW_STEPS | {"sampler": ["euler_maruyama"]}, controls=[])
    assert (row["holds"], row["reason"]) == (NO_DATA, "no sound number by euler_maruyama")


# How a seed fails: the number is missing, not finite, or beyond the suite's bound.
FAILURES: dict[str, Callable[[pd.DataFrame, "pd.Series[bool]"], pd.DataFrame]] = {
    "missing": lambda values, failed: values[~failed],
    "infinite": lambda values, failed: values.assign(value=values["value"].mask(failed, np.inf)),
    "beyond": lambda values, failed: values.assign(value=values["value"].mask(failed, 8.5)),
}


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("arm", ["indm", "ddpmpp"])
def test_a_seed_that_failed_in_one_arm_is_left_out_counted_and_said(how: str, arm: str) -> None:
    """Shown among the sound seeds, but not where INDM fails on more of them."""
    values = planted(PLAIN, seeds=6, noise=0.005)
    trained = values[values["stage"] == "nll"].assign(stage="train", metric="steps", value=9.0)
    failed = (values["model"] == arm) & (values["variant"] == "") & (values["seed"] == 2) & (values["stage"] == "nll")
    found = pd.concat([FAILURES[how](values, failed), trained])
    row, table = graded(found, {"nll": 8.0}), effects(found, {"nll": 8.0})
    counts = (1, 0) if arm == "indm" else (0, 1)
    assert (row["n"], row["planned"], row["failed_treatment"], row["failed_baseline"]) == (5, 6, *counts)
    assert row["holds"] == (INCONCLUSIVE if arm == "indm" else SHOWN)
    assert f"of 6 seeds {counts[0]} of the treatment and {counts[1]} of baseline failed" in row["reason"]
    assert row["low"] > row["smallest_effect"]
    assert row["flow"] == (OPEN if arm == "indm" else BEYOND)
    assert ("fails on more seeds than: standardised, scale (scale-3)" in row["flow_reason"]) == (arm == "indm")
    assert table["failed_treatment"].tolist() == 3 * [counts[0]]
    assert table["failed_against"].tolist() == [counts[1], 0, 0]
    assert table["n"].tolist() == ([5, 5, 5] if arm == "indm" else [5, 6, 6])
    # Without the bound, it is a number like others.
    assert (graded(found)["n"] == 6) == (how == "beyond")


def test_points_have_their_own_bound() -> None:
    """Theirs are nats, so the bound on the NLL of images does not count, and vice versa: one published seed has 511."""
    values = planted({("indm", ""): 2.0, ("ddpmpp", ""): 2.1}, seeds=6, noise=0.005)
    values = values[values["stage"] == "nll"].assign(stage="toy2d", dataset="moons", sound=1)
    values.loc[(values["model"] == "ddpmpp") & (values["seed"] == 2), "value"] = 511.0
    of_points: dict[str, Any] = {
        "metric": METRIC | {"stage": "toy2d"},
        "where": {"datasets": ["moons"]},
        "controls": [],
    }
    for bounds, failed in (({"nll": 1.0}, 0), ({"toy2d.nll": 10.0}, 1), ({"toy2d.nelbo": 1.0}, 0)):
        assert graded(values, bounds, **of_points)["failed_baseline"] == failed
    images = planted({("indm", ""): 2.0, ("ddpmpp", ""): 2.1}, seeds=6, noise=0.005)
    assert graded(images, {"toy2d.nll": 1.0}, controls=[])["failed_baseline"] == 0


def test_as_many_failures_in_both_arms_withhold_nothing() -> None:
    values = planted({("indm", ""): 2.0, ("ddpmpp", ""): 2.1}, seeds=6, noise=0.005)
    for model, seed in (("indm", 1), ("ddpmpp", 2)):
        values.loc[(values["model"] == model) & (values["seed"] == seed), "value"] = np.nan
    row = graded(values, controls=[])
    assert (row["holds"], row["n"], row["failed_treatment"], row["failed_baseline"]) == (SHOWN, 4, 1, 1)


def test_what_one_arm_was_not_measured_at_is_no_failure() -> None:
    """Of FIDs in other numbers of steps nothing is said."""
    values = planted({("indm", ""): 2.0, ("ddpmpp", ""): 2.1}, seeds=4, noise=0.005).assign(x=100.0)
    row = graded(values.assign(x=values["x"].mask(values["model"] == "indm", 50.0)), controls=[])
    assert (row["n"], row["planned"], row["failed_treatment"], row["failed_baseline"]) == (0, 4, 0, 0)
    assert row["holds"] == SINGLE


def test_seeds_without_a_number_in_either_arm_were_planned_all_the_same() -> None:
    """They count among the primary rows, as they did before the run."""
    values = planted({("indm", ""): 2.0, ("ddpmpp", ""): 2.1, ("ddpmpp", "standardised"): 2.1}, seeds=4, noise=0.005)
    trained = values[values["stage"] == "nll"].assign(stage="train", metric="steps", value=9.0)
    lost = (values["stage"] == "nll") & (values["variant"] == "")
    row = graded(pd.concat([values[~lost], trained]), controls=["standardised"])
    assert (row["n"], row["planned"], row["failed_treatment"], row["failed_baseline"]) == (0, 4, 4, 4)


def test_a_seed_that_fails_in_one_cell_of_a_sweep_has_failed() -> None:
    """At 4 steps INDM is worse, so that without this cell the claim would be shown; in all cells, it is known by its training."""
    numbers = {("indm", 4): 40.0, ("indm", 16): 2.0, ("ddpmpp", 4): 20.0, ("ddpmpp", 16): 3.0}
    values = swept(numbers, seeds=5, noise=0.01)
    assert graded(values, metric=FEW_STEPS, controls=[])["holds"] == CONTRADICTED
    trained = values[values["x"] == 4.0].assign(stage="train", metric="steps", sampler="", x=np.nan, value=100.0)
    for cells in ([4.0], [4.0, 16.0]):
        failed = (values["model"] == "indm") & (values["seed"] == 1) & values["x"].isin(cells)
        row = graded(pd.concat([values[~failed], trained]), metric=FEW_STEPS, controls=[])
        assert (row["holds"], row["n"], row["failed_treatment"]) == (CONTRADICTED, 4, 1)
    failed = (values["model"] == "indm") & (values["seed"] < 3)
    row = graded(pd.concat([values[~failed], trained]), metric=FEW_STEPS, controls=[])
    assert (row["holds"], row["n"], row["planned"], row["failed_treatment"]) == (SINGLE, 2, 5, 3)
    failed = values["model"] == "indm"
    row = graded(pd.concat([values[~failed], trained]), metric=FEW_STEPS, controls=[])
    assert (row["holds"], row["n"], row["planned"], row["failed_treatment"]) == (SINGLE, 0, 5, 5)


def test_a_suite_without_a_bound_has_the_hash_that_it_had() -> None:
    suite = load_suite(REPOSITORY / "params/smoke.yaml")
    content = suite.model_dump(exclude_unset=True)
    assert "failed_beyond" not in content
    bounded = Suite.model_validate(content | {"failed_beyond": {"nll": 8.0}})
    assert suite_sha256(bounded) != suite_sha256(suite)


def test_primary_rows_are_counted_as_planned() -> None:
    """Each interval of a family of four leaves out a fourth; a fifth row, which failed everywhere, still counts."""
    values = planted({("indm", ""): 2.1, ("ddpmpp", ""): 2.1}, seeds=5, noise=0.001)
    other = values.assign(sde="ve", value=np.nan)
    names = ("one", "two", "three", "four")
    family = [CLAIM | {"id": name, "controls": [], "family": "primary"} for name in names]
    found = Claims.model_validate({"controls": {}, "claims": [*family, CLAIM | {"controls": []}]})

    def expected(rows: int) -> tuple[float, float]:
        ends = stats.ttest_1samp(differences_of(values), 0.0).confidence_interval(1 - 0.05 / rows)
        return float(ends.low), float(ends.high)

    first, *_, last = records(claims_table(compare(values, NO_IMAGES, found), "s"))
    assert (first["low"], first["high"]) == pytest.approx(expected(4))
    assert (last["low"], last["high"]) == pytest.approx(expected(1))
    paired = compare(values, NO_IMAGES, found)[0].baseline
    assert first["repeatability"] == pytest.approx(repeatability(paired, Scale(0.01), 4)[first["holds"]])
    both = records(claims_table(compare(pd.concat([values, other]), NO_IMAGES, found), "s"))
    assert (both[0]["low"], both[0]["high"]) == pytest.approx(expected(8))
    # A row of two seeds is not planned to decide anything.
    few = records(claims_table(compare(pd.concat([values, other[other["seed"] < 2]]), NO_IMAGES, found), "s"))
    assert (few[0]["low"], few[0]["high"]) == pytest.approx(expected(4))


def test_an_interval_against_a_control_ends_as_one_of_those_that_were_run() -> None:
    """Any of them may match INDM; it begins as that against the baseline."""
    values = planted({key: PLAIN[key] for key in PLAIN if key[1] != "scale-5"}, seeds=5, noise=0.01)
    numbers = (
        values[values["metric"] == "nll"].set_index(["variant", "model", "seed"])["value"].astype(float).sort_index()
    )
    difference = numbers["standardised", "ddpmpp"] - numbers["", "indm"]
    for controls, run in ((["standardised", "scale"], 2), (["standardised"], 1)):
        found = effects(values, controls=controls).loc["standardised"]
        low, high = (stats.ttest_1samp(difference, 0.0).confidence_interval(1 - 0.05 / many) for many in (1, run))
        assert (found["low"], found["high"]) == pytest.approx((low.low, high.high))
    alone = values[values["variant"] != "scale-3"]
    assert effects(alone).loc["standardised", "high"] == pytest.approx(high.high)


GAP: dict[str, Any] = {"metric": METRIC | {"name": "gap"}, "floor": 0.0}


def gaps(indm: float, ddpmpp: float, standardised: float | None = None, noise: float = 0.001) -> pd.DataFrame:
    means = {("indm", ""): indm, ("ddpmpp", ""): ddpmpp}
    means |= {} if standardised is None else {("ddpmpp", "standardised"): standardised}
    return planted(means, seeds=5, noise=noise, shared=0.0).assign(metric="gap")


@pytest.mark.parametrize(
    ("indm", "ddpmpp", "expected", "without"),
    [
        (0.01, 0.1, SHOWN, SHOWN),
        # Beyond 0 a gain does not count: DDPM++'s gap is none.
        (-0.1, 0.005, NOT_TESTABLE, SHOWN),
        (-0.1, -0.05, NOT_TESTABLE, SHOWN),
        (0.1, 0.01, CONTRADICTED, CONTRADICTED),
        # No gap in either: neither is worse.
        (-0.05, -0.1, NOT_TESTABLE, CONTRADICTED),
        (0.1, 0.0, CONTRADICTED, CONTRADICTED),
        (0.05, 0.05, RULED_OUT, RULED_OUT),
        (0.004, 0.004, NOT_TESTABLE, RULED_OUT),
    ],
)
def test_a_gain_counts_down_to_the_floor(indm: float, ddpmpp: float, expected: str, without: str) -> None:
    values = gaps(indm, ddpmpp)
    row = graded(values, **GAP, controls=[])
    assert row["holds"] == expected, row["reason"]
    assert graded(values, metric=GAP["metric"], controls=[])["holds"] == without
    if expected == NOT_TESTABLE:
        high = effects(values, **GAP, controls=[])["against_high"].iloc[0]
        ceiling = f"the gap of DDPM++ is at most {high:.3g}, so no gain can exceed the smallest effect of 0.01"
        assert row["reason"].startswith(ceiling)


def test_whether_the_baselines_gap_is_small_must_be_known() -> None:
    """The effect lies above the smallest one, but the baseline's mean gap on both sides of it."""
    values = gaps(-0.5, 0.012, noise=0.004)
    row = graded(values, **GAP, controls=[])
    assert row["holds"] == INCONCLUSIVE
    assert row["reason"].startswith("the gap of DDPM++ may be as small as")


def test_mean_gaps_have_intervals_of_their_own() -> None:
    values = gaps(0.05, 0.2, 0.1, noise=0.01)
    table = effects(values, **GAP, controls=["standardised"])
    numbers = values.set_index(["variant", "model", "seed"])["value"].astype(float).sort_index()
    for against, key in (("ddpmpp", ""), ("standardised", "standardised")):
        treatment, other = (
            stats.ttest_1samp(numbers[arm], 0.0).confidence_interval(0.95) for arm in (("", "indm"), (key, "ddpmpp"))
        )
        found = [table.loc[against, key] for key in ("treatment_low", "against_low", "against_high")]
        assert found == pytest.approx([treatment.low, other.low, other.high])
    assert effects(values, metric=GAP["metric"])["against_low"].isna().all()


def test_a_control_without_a_gap_is_not_beaten() -> None:
    """INDM's gap is smaller, beyond where that counts."""
    changes = GAP | {"controls": ["standardised"]}
    assert graded(gaps(-0.1, 0.2, 0.1), **changes)["flow"] == BEYOND
    row = graded(gaps(-0.1, 0.2, -0.02), **changes)
    assert (row["holds"], row["flow"], row["flow_reason"]) == (SHOWN, OPEN, "not separated from: standardised")
    assert row["control_low"] > 0
    assert graded(gaps(-0.1, 0.2, -0.02), metric=GAP["metric"], controls=["standardised"])["flow"] == BEYOND


def test_a_treatment_of_one_objective_is_compared_at_its_objective_alone() -> None:
    values = pd.concat(planted(PLAIN, seeds=5, noise=0.005).assign(objective=key) for key in ("nll", "fid"))
    where = {"datasets": ["digits"]}
    treatment = {"model": "indm", "objective": "fid"}
    assert graded(values, where=where, treatment=treatment)["objective"] == "fid"


@pytest.mark.parametrize("n", [3, 5, 12])
def test_intervals_cover_the_truth(n: int) -> None:
    """95 %, within the error of 2,000 draws."""
    generator = np.random.default_rng(0)
    found = [interval(generator.normal(1.0, 1.0, n)) for _ in range(2000)]
    assert np.mean([one.low <= 1.0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.016)
    assert interval(np.ones(n)) == Interval(1.0, 1.0, 1.0, n)


@pytest.mark.parametrize("n", [3, 10])
def test_intervals_are_students(n: int) -> None:
    """With the tails that they are asked for."""
    numbers = np.random.default_rng(n).normal(0.3, 1.0, n)
    found, other = interval(numbers), interval(numbers, TAIL / 4, TAIL / 20)
    expected = [stats.ttest_1samp(numbers, 0.0).confidence_interval(1 - 0.05 / many) for many in (1, 4, 20)]
    assert (found.low, found.high) == pytest.approx((expected[0].low, expected[0].high))
    assert (other.low, other.high) == pytest.approx((expected[1].low, expected[2].high))


def test_ends_of_several_comparisons_hold_together() -> None:
    """Seven controls that share a treatment, each at the smallest effect: INDM is seldom said to be matched."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        treatment = generator.normal(0, 1, 5)
        controls = [1 + generator.normal(0, 1, 5) - treatment for _ in range(7)]
        found.append([min(interval(one, TAIL, tail).high for one in controls) <= 1 for tail in (TAIL / 7, TAIL)])
    together, apart = np.mean(found, axis=0)
    assert together <= TAIL + 3 * np.sqrt(TAIL / 1000)
    assert apart > 0.05


# Variances of seeds, images, and their interaction.
VARIANCES = {
    "images": (0.0, 1.0, 0.01),
    "images and interaction": (0.0, 1.0, 1.0),
    "both": (0.01, 3.0, 1.0),
    "seeds": (1.0, 0.0, 0.1),
    "seeds and interaction": (0.01, 0.0, 1.0),
    "interaction": (0.0, 0.0, 1.0),
}
SIMULATIONS = 400


def tables(
    mean: float, of_seeds: float, of_images: float, rest: float, seeds: int, images: int, draws: int
) -> NDArray[np.float64]:
    """Draw tables of seeds and images from a mean and variances: shape (draws, S, I)."""
    generator = np.random.default_rng(0)
    a = generator.normal(0, of_seeds**0.5, (draws, seeds, 1))
    b = generator.normal(0, of_images**0.5, (draws, 1, images))
    return mean + a + b + generator.normal(0, rest**0.5, (draws, seeds, images))


@pytest.mark.parametrize(("seeds", "images"), [(3, 100), (3, 360), (5, 100), (10, 360)])
@pytest.mark.parametrize("vary", VARIANCES)
def test_crossed_intervals_cover_the_mean_over_other_seeds_and_images(vary: str, seeds: int, images: int) -> None:
    """In 92 to 99 % of the simulations, within their error; seeds alone, which all met the same images, far too seldom."""
    drawn = tables(1.0, *VARIANCES[vary], seeds, images, SIMULATIONS)
    crossed, alone = ([interval(one) for one in found] for found in (drawn, drawn.mean(2)))
    covers = [np.mean([one.low <= 1.0 <= one.high for one in found]) for found in (crossed, alone)]
    assert 0.92 <= covers[0] <= 0.99
    if vary == "images":
        assert covers[1] < 0.25
    assert {(one.n, one.images) for one in crossed} == {(seeds, images)}


def test_variance_of_a_crossed_mean_has_its_expectation() -> None:
    drawn = tables(0.0, 0.02, 1.0, 0.5, 4, 60, 2000)
    found = np.array([estimate(one)[1:3] for one in drawn])
    assert found[:, 0].mean() == pytest.approx(0.02 / 4 + 0.5 / 240, rel=0.1)
    assert found[:, 1].mean() == pytest.approx(1.0 / 60, rel=0.05)
    assert found.sum(1).mean() == pytest.approx(drawn.mean((1, 2)).var(), rel=0.1)
    assert estimate(drawn[0].mean(1))[1:3] == (pytest.approx(estimate(drawn[0]).of_seeds), 0)


def of_images(
    planted: dict[str, NDArray[np.float64]], metric: str = "nll", **more: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Plant numbers (S, I) of images for each model, and with them their means as values."""
    same = {
        "suite": "s",
        "dataset": "digits",
        "sde": "vp",
        "objective": "nll",
        "stage": "nll",
        "variant": "",
        "x": np.nan,
    }
    rows, values = [], []
    for model, numbers in planted.items():
        for seed, of_seed in enumerate(numbers):
            run = same | {"model": model, "seed": seed} | more
            values.append(run | {"metric": metric, "sampler": "", "value": of_seed.mean()})
            rows += [run | {"image": image, metric: value} for image, value in enumerate(of_seed)]
    return pd.DataFrame(values, columns=VALUE_COLUMNS), pd.DataFrame(rows, columns=IMAGE_COLUMNS)


def test_a_claim_about_likelihoods_crosses_seeds_and_images() -> None:
    """All seeds agree on an effect that few of the images have: other seeds would repeat it, other images need not."""
    generator = np.random.default_rng(0)
    luck = 0.4 * (np.arange(40) % 20 == 0) + generator.normal(0, 1e-4, (3, 40))
    base = generator.normal(2.0, 0.3, 40) + generator.normal(0, 0.1, (3, 1))
    values, images = of_images({"indm": base - luck, "ddpmpp": base})
    (alone,) = records(claims_table(compare(values, NO_IMAGES, claims(controls=[])), "s"))
    assert (alone["holds"], alone["test"]) == (SHOWN, STUDENT)
    assert pd.isna(alone["images"])
    (row,) = records(claims_table(compare(values, images, claims(controls=[])), "s"))
    assert row["effect"] == pytest.approx(alone["effect"])
    assert (row["holds"], row["n"], row["images"]) == (INCONCLUSIVE, 3, 40)
    assert row["test"] == CROSSED
    assert "more seeds or images are needed" in row["reason"]
    assert (row["low"], row["high"]) == pytest.approx(interval(luck)[1:3])
    assert row["repeatability"] == pytest.approx(repeatability(paired(luck), Scale(0.01))[INCONCLUSIVE])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(rows.index[5:40]), "found 5 images, expected the 40 that runs of the dataset have"),
        (
            lambda rows: rows.replace({"image": {39: 40}}),
            "found 40 images, expected the 41 that runs of the dataset have",
        ),
        (lambda rows: rows.replace({"image": {39: 38}}), "found image 38 twice, expected each once"),
    ],
    ids=["fewer", "others", "twice"],
)
def test_a_run_of_other_images_is_refused(change: Callable[[pd.DataFrame], pd.DataFrame], message: str) -> None:
    """Else all seeds would be compared by the few images that they share."""
    values, images = of_images({"indm": np.full((3, 40), 2.0), "ddpmpp": np.full((3, 40), 2.1)})
    one = (images["model"] == "indm") & (images["seed"] == 1)
    images = pd.concat([images[~one], change(images[one])])
    with pytest.raises(ArtifactError, match=rf"^nll\.csv of digits, vp, (indm|ddpmpp), nll, \d: {message}; delete"):
        compare(values, images, claims(controls=[]))
    results = cast(Results, SimpleNamespace(suite="s", images=images.rename(columns={"x": "step"})))
    with pytest.raises(ArtifactError, match=message):
        images_table(results)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_single_training_has_an_interval_over_images(seeds: int) -> None:
    """For these weights: however wide the seeds lie apart, it does not widen."""
    generator = np.random.default_rng(0)
    base = generator.normal(2.0, 0.3, 40)
    gain = 0.1 + generator.normal(0, 0.02, (seeds, 40)) + np.array([[0.0], [0.5]])[:seeds]
    values, images = of_images({"indm": base - gain, "ddpmpp": base * np.ones((seeds, 1))})
    (row,) = records(claims_table(compare(values, images, claims(controls=[])), "s"))
    expected = stats.ttest_1samp(gain.mean(0), 0.0).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert (row["holds"], row["n"], row["images"], row["test"]) == (SINGLE, seeds, 40, OVER_IMAGES)
    assert row["reason"].endswith("the interval is over images, for these weights alone")


def linear_log(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = numbers.mean(1, keepdims=True)
    return np.log(mean) + numbers / mean - 1


def test_a_transform_is_of_the_mean_over_images() -> None:
    """Each image counts by the linear part of the logarithm at their mean."""
    generator = np.random.default_rng(0)
    treated, other = (generator.normal(mean, 0.3, 50) + generator.normal(0, 0.01, (3, 50)) for mean in (0.2, 0.5))
    values, images = of_images({"indm": treated, "ddpmpp": other}, "gap")
    metric = METRIC | {"name": "gap", "transform": "log"}
    (alone,), (row,) = (
        records(claims_table(compare(values, found, claims(metric=metric, controls=[])), "s"))
        for found in (NO_IMAGES, images)
    )
    assert row["effect"] == pytest.approx(alone["effect"])
    table = linear_log(other) - linear_log(treated)
    assert row["high"] - row["low"] == pytest.approx(np.diff(interval(table)[1:3])[0])
    assert row["low"] < alone["low"]


def test_a_run_whose_mean_over_images_is_beyond_the_bound_has_failed() -> None:
    """Single images may be."""
    base = np.random.default_rng(0).normal(2.0, 1.0, (5, 40))
    values, images = of_images({"indm": base - 0.1, "ddpmpp": base + 5 * (np.arange(5) == 3)[:, None]})
    (row,) = records(claims_table(compare(values, images, claims(controls=[]), {"nll": 3.0}), "s"))
    assert (row["n"], row["failed_treatment"], row["failed_baseline"], row["images"]) == (4, 0, 1, 40)
    assert row["effect"] == pytest.approx(0.1)


def test_a_learning_curve_averages_its_steps_for_each_image() -> None:
    generator = np.random.default_rng(0)
    steps = [of_images({model: generator.normal(mean, 0.1, (3, 20)) for model, mean in (("indm", 2.0), ("ddpmpp", 2.1))},
                       stage="curve", x=x) for x in (10.0, 20.0)]  # fmt: skip
    values, images = (pd.concat(found) for found in zip(*steps, strict=True))
    trained = values[values["x"] == 20.0].assign(stage="train", metric="steps", value=20.0)
    values = pd.concat([values, trained])
    (row,) = records(claims_table(compare(values, images, claims(metric=CURVE, controls=[])), "s"))
    assert row["images"] == 20
    numbers = images.groupby(["model", "seed", "image"])["nll"].mean().unstack()
    expected = interval((numbers.loc["ddpmpp"] - numbers.loc["indm"]).to_numpy())
    assert (row["effect"], row["low"], row["high"]) == pytest.approx(expected[:3])


CURVE = METRIC | {"stage": "curve", "x": [1.0, 1e9]}


def curves(lengths: dict[str, float], numbers: dict[str, dict[float, float]]) -> pd.DataFrame:
    """Lay out learning curves: steps of each model's training, and its numbers by the step of the snapshot; of three seeds."""
    same = {"suite": "s", "dataset": "digits", "sde": "vp", "objective": "nll", "variant": "", "sampler": ""}
    rows = [
        same | {"model": model, "seed": seed, "stage": stage, "metric": metric, "x": x, "value": value}
        for seed in range(3)
        for model, length in lengths.items()
        for stage, metric, x, value in [
            ("train", "steps", np.nan, length),
            *[("curve", "nll", x, value) for x, value in numbers[model].items()],
        ]
    ]
    return pd.DataFrame(rows, columns=VALUE_COLUMNS)


def test_a_learning_curve_compares_equal_shares_of_each_training() -> None:
    """The baseline is trained about twice as long; at as many steps as the treatment's it would be compared with other shares."""
    numbers = {"indm": {10.0: 1.0, 20.0: 0.7, 40.0: 0.5}, "ddpmpp": {20.0: 1.1, 41.0: 0.9, 81.0: 0.8}}
    row = graded(curves({"indm": 40.0, "ddpmpp": 81.0}, numbers), metric=CURVE, controls=[])
    assert row["effect"] == pytest.approx((0.1 + 0.2 + 0.3) / 3)


def test_shares_are_of_the_training_and_not_of_its_last_snapshot() -> None:
    """The same curve in both arms, of which one has no snapshot at the end: all of its seeds have failed."""
    curve = {125.0: 1.0, 250.0: 0.5, 500.0: 0.2, 1000.0: 0.1}
    early = {step: value for step, value in curve.items() if step < 1000}
    lengths = {"indm": 1000.0, "ddpmpp": 1000.0}
    for arm, failed in (("ddpmpp", [0, 3]), ("indm", [3, 0])):
        numbers = {model: early if model == arm else curve for model in lengths}
        row = graded(curves(lengths, numbers), metric=CURVE, controls=[])
        assert (row["holds"], [row["failed_treatment"], row["failed_baseline"]]) == (SINGLE, failed)


@pytest.mark.parametrize("path", suite_files(REPOSITORY / "params"), ids=lambda path: path.stem)
def test_controls_of_learning_curves_have_snapshots_at_the_shares_of_indms(path: Path) -> None:
    suite = load_suite(path)
    (claim,) = (claim for claim in load_claims(FILE).claims if claim.id == "nearly-mle-training")
    plain = {
        (run.dataset, run.sde, run.objective): name
        for name, run in suite.runs.items()
        if run.model == "indm" and not run.variant
    }
    for name, run in suite.runs.items():
        train = suite.train_params(name)
        indm = plain.get((run.dataset, run.sde, run.objective))
        if indm and run.objective == "nll" and run.variant in ("", *claim.controls) and train.snapshots:
            own = suite.train_params(indm)
            assert [round(step * own.steps / train.steps) for step in train.snapshots] == own.snapshots, name


def paired(
    differences: NDArray[np.float64], failed: tuple[int, int] = (0, 0), treatment: NDArray[np.float64] | None = None
) -> Paired:
    """Pair numbers of these differences, of a treatment whose numbers are 0 if they are not given."""
    treated = np.zeros_like(differences) if treatment is None else treatment
    return Paired(tuple(range(len(differences))), treated, treated + differences, 1, len(differences), *failed)


# Where an interval lies, the smallest effect being 1: below 0, reaching over 0, between, reaching over 1, over both, above.
SIGNS = {
    "-": (-2.0, -1.0),
    "-0": (-1.0, 0.5),
    "0": (0.2, 0.8),
    "01": (0.5, 2.0),
    "-01": (-1.0, 2.0),
    "1": (2.0, 3.0),
}


def placed(sign: str, n: int = 5, fails: bool = False, low: float = 9.0, high: float = 9.0, own: float = 9.0) -> Effect:
    """Place an effect: its interval, whether the treatment fails on more seeds, and the ends of the mean gaps."""
    found = Interval(float(np.mean(SIGNS[sign])), *SIGNS[sign], n)
    return Effect(found, n, int(fails), 0, treatment_low=own, against_low=low, against_high=high)


def test_bounds_that_an_interval_touches_are_not_passed() -> None:
    at = Effect(Interval(1.0, 0.5, 1.5, 5), 5, 0, 0, 0.0, 0.5, 1.0)
    for smallest, expected in ((0.4, SHOWN), (0.5, INCONCLUSIVE), (1.4, INCONCLUSIVE), (1.5, RULED_OUT)):
        assert holds(at, Scale(smallest)).grade == expected
    assert holds(at, Scale(0.49, 0.0)).grade == SHOWN
    assert holds(at._replace(against_low=0.49), Scale(0.49, 0.0)).grade == INCONCLUSIVE
    assert holds(at, Scale(1.0, 0.0)).grade == NOT_TESTABLE
    below = at._replace(found=Interval(-1.0, -2.0, 0.0, 5))
    assert holds(below, Scale(0.0)).grade == RULED_OUT
    below = at._replace(found=Interval(-1.0, -2.0, -0.1, 5), against_high=3.0)
    assert holds(below, Scale(0.0)).grade == CONTRADICTED
    assert holds(below, Scale(0.0, 0.0)).grade == RULED_OUT
    assert holds(below._replace(treatment_low=0.01), Scale(0.0, 0.0)).grade == CONTRADICTED
    control = Effect(Interval(0.5, 0.0, 1.0, 5), 5)
    assert [of_control(control, Scale(smallest)) for smallest in (0.9, 1.0)] == [OPEN, MATCHED]
    assert [of_control(below, Scale(0.0, floor)) for floor in (None, 0.0)] == [BETTER, MATCHED]
    assert of_control(below._replace(treatment_low=0.01), Scale(0.0, 0.0)) == BETTER
    assert of_control(control._replace(found=Interval(0.5, 0.01, 1.0, 5)), Scale(0.9)) == BEATEN


def conditions(
    sign: str, n: int, planned: int, fails: bool, floor: bool, low: float, high: float, own: float
) -> list[str]:
    """List the first answers that hold, each by its own words."""
    better, reversed_, small = sign == "1", sign == "-", sign in ("-", "-0", "0")
    would = better and (not floor or low > 1)
    told = {
        NO_DATA: planned == 0,
        SINGLE: n < 3,
        SHOWN: would and not fails,
        # What would be shown is nothing else.
        INCONCLUSIVE: would,
        CONTRADICTED: reversed_ and (not floor or own > 0),
        NOT_TESTABLE: floor and high <= 1,
        RULED_OUT: small,
    }
    return [*(grade for grade, holding in told.items() if holding), INCONCLUSIVE]


def test_every_pattern_has_the_first_grade_whose_words_hold() -> None:
    """The truth table of the first question, wherever intervals lie and whatever failed."""
    found = set()
    ends = [(low, high, own) for low, high in ((0.5, 0.8), (0.5, 2.0), (1.5, 2.0)) for own in (-1.0, 1.0)]
    for sign, (n, planned), fails, floor, (low, high, own) in product(
        SIGNS, ((0, 0), (0, 5), (2, 5), (5, 5)), (False, True), (False, True), ends
    ):
        effect = placed(sign, n, fails, low, high, own)._replace(planned=planned)
        grade = holds(effect, Scale(1.0, 0.0 if floor else None)).grade
        assert grade == conditions(sign, n, planned, fails, floor, low, high, own)[0], (
            sign,
            n,
            fails,
            floor,
            low,
            high,
            own,
        )
        found.add(grade)
    assert found == set(MEANINGS["holds"])


def test_every_pattern_of_controls_has_one_answer_to_the_second_question() -> None:
    """Better where some end below 0, matched where some end by the smallest effect, beyond where all begin above 0; else open."""
    controls = [
        (sign, n, fails, low) for sign in SIGNS for n in (2, 5) for fails in (False, True) for low in (-1.0, 1.0)
    ]
    found = set()
    for first, second, floor, own in product(controls, controls, (None, 0.0), (-1.0, 1.0)):
        effects = {
            str(i): placed(sign, n, fails, low, own=own) for i, (sign, n, fails, low) in enumerate((first, second))
        }
        better = [sign == "-" and n == 5 and (floor is None or own > 0) for sign, n, *_ in (first, second)]
        matched = [sign in ("-", "-0", "0") and n == 5 for sign, n, *_ in (first, second)]
        beaten = [
            sign in ("0", "01", "1") and n == 5 and not fails and (floor is None or low > 0)
            for sign, n, fails, low in (first, second)
        ]
        expected = BETTER if any(better) else MATCHED if any(matched) else BEYOND if all(beaten) else OPEN
        verdict = is_the_flow(effects, Scale(1.0, floor))
        assert verdict.grade == expected, (first, second, floor)
        assert verdict.reason
        found.add(expected)
    assert found == set(MEANINGS["flow"])


def test_the_control_that_is_named() -> None:
    """Of those that do better, or else match, the one whose interval ends first; else the one that leaves the smallest effect."""
    assert is_the_flow({"a": placed("0"), "b": placed("-")}, Scale(1.0)).control == "b"
    assert is_the_flow({"a": placed("1"), "b": placed("01"), "c": placed("1", 2)}, Scale(1.0)).control == "b"
    assert is_the_flow({"a": placed("1", 2)}, Scale(1.0)).control == ""


def test_the_order_in_which_meanings_are_told_is_the_precedence() -> None:
    assert [*MEANINGS["holds"]] == [NO_DATA, SINGLE, SHOWN, CONTRADICTED, NOT_TESTABLE, RULED_OUT, INCONCLUSIVE]
    assert [*MEANINGS["flow"]] == [BETTER, MATCHED, BEYOND, OPEN]


def differences_of(values: pd.DataFrame) -> NDArray[np.float64]:
    numbers = values.pivot(index="seed", columns="model", values="value").astype(float)
    return (numbers["ddpmpp"] - numbers["indm"]).to_numpy()


# The true effect, the noise of a seed's difference, and how often the grade must come.
STABLE = {
    SHOWN: (0.1, 0.014, 0.97),
    RULED_OUT: (0.002, 0.003, 0.97),
    CONTRADICTED: (-0.1, 0.014, 0.97),
    INCONCLUSIVE: (0.1, 0.28, 0.9),
}


@pytest.mark.parametrize("expected", STABLE)
def test_grades_are_stable_under_other_seeds(expected: str) -> None:
    """200 simulations of five seeds each, smallest effect 0.01."""
    effect, noise, least = STABLE[expected]
    generator = np.random.default_rng(0)
    scale = Scale(0.01)
    found = [holds(effect_of(paired(generator.normal(effect, noise, 5)), scale, 1), scale).grade for _ in range(200)]
    rate = found.count(expected) / len(found)
    assert rate >= least, f"{rate}: {pd.Series(found).value_counts().to_dict()}"


def exactly(mean: float, deviation: float, n: int) -> NDArray[np.float64]:
    """Return n numbers of exactly this mean and standard deviation."""
    numbers = np.random.default_rng(1).normal(size=n)
    return mean + deviation * (numbers - numbers.mean()) / numbers.std(ddof=1)


# Seeds, mean and deviation of the differences.
REPEATED = [(3, 0.1, 0.03), (3, -0.05, 0.03), (5, 0.06, 0.05), (9, 0.0, 0.02), (6, 0.012, 0.003)]


@pytest.mark.parametrize(
    ("n", "mean", "deviation", "gap"),
    [(*case, gap) for case in REPEATED for gap in (None, 0.008, 0.05) if gap is None or case[1] >= 0],
)
@pytest.mark.parametrize("rows", [1, 4])
def test_repeatability_is_how_often_repetitions_agree(
    n: int, mean: float, deviation: float, rows: int, gap: float | None
) -> None:
    """Were what was found the truth: 2,000 repetitions by the same number of other seeds, smallest effect 0.01.

    Of a claim with a floor the baseline's gaps are drawn beside the differences, which they do not depend on. The treatment's do,
    where it is contradicted.
    """
    generator = np.random.default_rng(0)
    scale = Scale(0.01, None if gap is None else 0.0)

    def numbers(differences: NDArray[np.float64], other: NDArray[np.float64]) -> Paired:
        return paired(differences, treatment=other - differences)

    grades = []
    for _ in range(2000):
        found = numbers(generator.normal(mean, deviation, n), generator.normal(gap or 0.0, 0.002, n))
        grades.append(holds(effect_of(found, scale, rows), scale).grade)
    other = exactly(gap or 0.0, 0.002, n)[::-1]
    probabilities = repeatability(numbers(exactly(mean, deviation, n), other), scale, rows)
    assert sum(probabilities.values()) == pytest.approx(1)
    for name in MEANINGS["holds"]:
        assert probabilities.get(name, 0) == pytest.approx(grades.count(name) / 2000, abs=0.05), name


@pytest.mark.parametrize("mean", [-0.06, 0.02, 0.06, 0.1])
@pytest.mark.parametrize(("of_seeds", "of_images"), [(0.004, 0.001), (0.004, 0.05), (0.002, 0.3)])
def test_repeatability_of_crossed_intervals(mean: float, of_seeds: float, of_images: float) -> None:
    """Were what was found the truth: 500 repetitions by other seeds and images, smallest effect 0.01."""
    found = tables(mean, of_seeds, of_images, 0.01, 4, 60, 1)[0]
    _, part_of_seeds, part_of_images, *_ = estimate(found)
    rest = 0.01
    truth = (4 * part_of_seeds - rest / 60, 60 * part_of_images, rest)
    scale = Scale(0.01)
    drawn = tables(found.mean(), *truth, 4, 60, 500)
    grades = [holds(effect_of(paired(one), scale, 1), scale).grade for one in drawn]
    probabilities = repeatability(paired(found), scale)
    for name in MEANINGS["holds"]:
        assert probabilities.get(name, 0) == pytest.approx(grades.count(name) / 500, abs=0.06), name


def test_a_treatment_that_fails_more_would_not_be_shown_again() -> None:
    sure = exactly(0.1, 0.01, 5)
    assert repeatability(paired(sure), Scale(0.01))[SHOWN] == pytest.approx(1)
    withheld = repeatability(paired(sure, failed=(1, 0)), Scale(0.01))
    assert (withheld[SHOWN], withheld[INCONCLUSIVE]) == (0, pytest.approx(1))


def test_a_verdict_that_other_seeds_might_not_repeat_is_called_borderline() -> None:
    values = planted(PLAIN, seeds=5, noise=0.005)
    sure = graded(values)
    assert (sure["holds"], sure["repeatability"]) == (SHOWN, pytest.approx(1, abs=0.01))
    assert "borderline" not in sure["reason"]
    border = graded(values, smallest=sure["low"] - 1e-6)
    assert border["holds"] == SHOWN
    assert border["repeatability"] == pytest.approx(0.5, abs=0.15)
    rerun = f"probability {border['repeatability']:.2f} that a rerun with new seeds gives the same verdict"
    assert border["reason"].endswith(f"; borderline: {rerun}")


def test_seeds_that_agree_to_the_last_digit_repeat() -> None:
    same = np.full(3, 0.25)
    assert repeatability(paired(same), Scale(0.01))[SHOWN] == 1
    assert repeatability(paired(-same), Scale(0.01))[CONTRADICTED] == 1
    assert repeatability(paired(same), Scale(0.25))[RULED_OUT] == 1  # at the threshold
    assert repeatability(paired(0 * same), Scale(0.0))[RULED_OUT] == 1


def test_claims_of_an_abstract_name_its_version() -> None:
    """The first claims a transport closer to optimal; the third has sampling robustness in its place."""
    sources = {claim.id: claim.source for claim in load_claims(FILE).claims}
    for claim, source in sources.items():
        assert "abstract" not in source or re.match(r"arXiv:2205\.13699v[13], ", source), claim
    assert sources["shorter-paths-2d"].startswith("arXiv:2205.13699v1")
    assert sources["coarse-discretisation"].startswith("arXiv:2205.13699v3")


def test_the_claims_of_the_paper_are_a_valid_file() -> None:
    """Gaps have a floor, and whatever is asked about the flow is asked about the same compute too."""
    file = load_claims(FILE)
    ids = {claim.id for claim in file.claims}
    assert {"smaller-gap", "nearly-mle-training", "coarse-discretisation", "shorter-paths-2d", "fid-of-celeba"} <= ids
    for claim in file.claims:
        assert not claim.controls or "same-compute" in claim.controls, claim.id
        assert (claim.floor is not None) == (claim.metric.name == "gap" and bool(claim.controls)), claim.id


SMALLEST = CLAIM["smallest"]
INDM: dict[str, Any] = {"model": "indm"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"family": "secondary"}, "claim better, key family: found 'secondary'; allowed: "),
        ({"metric": METRIC | {"sampler": "pc"}}, "claim better, key metric.sampler: found 'pc'; allowed: "),
        ({"smallest": SMALLEST | {"unit": None}}, "claim better, key smallest.unit: found None; allowed: "),
        ({"unitt": "x"}, "claim better, key unitt: unknown key"),
        ({"direction": "up"}, "claim better, key direction: found 'up'; allowed: "),
        ({"smallest": SMALLEST | {"effect": -1.0}}, "claim better, key smallest.effect: found -1.0; allowed: "),
        ({"controls": ["scale", "best"]}, "key claims: claims: found no control best; controls: "),
        ({"metric": METRIC | {"transform": "exp"}}, "claim better, key metric.transform: found 'exp'"),
        (
            {"metric": METRIC | {"x": [3.0, 1.0]}},
            "claim better, key metric: x: found [3.0, 1.0]; allowed: the smaller number first",
        ),
        (
            {"metric": METRIC | {"transform": "log"}, "baseline": {"value": 0.0}},
            "claim better, key claims: baseline: found 0; allowed: above 0, since metric.transform is log",
        ),
        (
            {"metric": METRIC | {"transform": "log"}, "floor": 0.0},
            "claim better, key claims: floor: found 0; allowed: null, unless signed numbers are to be lower",
        ),
        (
            {"direction": "higher", "floor": 0.5},
            "claim better, key claims: floor: found 0.5; allowed: null, unless signed numbers are to be lower",
        ),
        ({"id": "null"}, "claim null, key id: found 'null'; allowed: another text, since tables would be read without"),
        (
            {"smallest": SMALLEST | {"unit": "NA"}},
            "claim better, key smallest.unit: found 'NA'; allowed: another text, since tables would be read without",
        ),
        ({"smallest": SMALLEST | {"why": ""}}, "claim better, key smallest.why: found ''; allowed: another text"),
        (
            {"metric": METRIC | {"name": "nlll"}},
            "claim better, key metric: name: found 'nlll'; allowed: nelbo, nelbo_fixed, nll, nll_fixed, nll_uncorrected, gap, "
            "of stage nll",
        ),
        (
            {"metric": METRIC | {"stage": "fid", "name": "gap"}},
            "claim better, key metric: name: found 'gap'; allowed: fid, fid_infinity, kid, is, ",
        ),
        (
            {"metric": FEW_STEPS | {"sampler": ["euler_maruyama", "ode_eulr"]}},
            "claim better, key metric: sampler: found 'ode_eulr'; allowed: ancestral, ddim, dpm_solver_pp_2m, euler_maruyama, ",
        ),
        (
            {"metric": METRIC | {"sampler": ["ode"]}},
            "claim better, key metric: sampler: found 'ode'; allowed: no name, since stage nll has none",
        ),
        (
            {"where": CLAIM["where"] | {"datasets": ["digits", "digitz"]}},
            "claim better, key claims: where.datasets: found 'digitz'; allowed: celeba64, cifar10, digits, ",
        ),
        (
            {"metric": METRIC | {"stage": "toy2d"}},
            "claim better, key claims: where.datasets: found 'digits'; allowed: moons, checkerboard, eight-gaussians, of stage",
        ),
        (
            {"metric": METRIC | {"stage": "toy2d"}, "where": CLAIM["where"] | {"datasets": []}},
            "claim better, key claims: where.objectives: found 'nll'; allowed: no name, since stage toy2d has none",
        ),
        (
            {"baseline": INDM},
            "key claims: claim better: found the same numbers, from indm, nll, for treatment and baseline; allowed: another",
        ),
        (
            {"baseline": INDM | {"objective": "nll"}},
            "key claims: claim better: found the same numbers, from indm, nll, for treatment and baseline; allowed: another",
        ),
        (
            {"treatment": LINEAR | {"variant": "scale-5"}},
            "key claims: claim better: found the same numbers, from ddpmpp, scale-5, nll, for treatment and scale; allowed: ",
        ),
        (
            {"baseline": LINEAR | {"variant": "standardised"}},
            "key claims: claim better: found the same numbers, from ddpmpp, standardised, nll, for baseline and standardised",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(yaml_text({"controls": CONTROLS, "claims": [CLAIM | changes]}))
    with pytest.raises(ParamsError) as caught:
        load_claims(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: {words}")


SOLVER = CONTROLS["standardised"] | {"variants": [""], "sampler": "dpm_solver_pp_2m"}
SWEPT = CLAIM | {"metric": FEW_STEPS}
ONE_SAMPLER = FEW_STEPS | {"sampler": ["dpm_solver_pp_2m"]}


def test_names_of_metrics_are_those_that_suites_have_measured() -> None:
    """Those of the published tables; clean_fid and legacy_fid are of images of CIFAR-10 alone.

    Tables of suites that were published before the fixed decoder have the bound without the reconstruction in its place.
    """
    tables = [pd.read_csv(path) for path in REPOSITORY.glob("docs/results/*/tables/values.csv")]
    found = pd.concat(tables).groupby("stage")["metric"].unique()
    since = {"nelbo_fixed", "nll_fixed", "fid_infinity"}
    assert {stage: {*found[stage]} - {"nelbo_no_reconstruction"} - since for stage in METRICS} == {
        stage: {*names} - {"clean_fid", "legacy_fid"} - since for stage, names in METRICS.items()
    }


def test_other_mistakes_in_the_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    with pytest.raises(ParamsError, match=r"claims\.yaml: missing"):
        load_claims(path)
    (tmp_path / "own.yaml").write_text("runs: {a: {model: ddpmpp, variant: another}, b: {model: indm, variant: mine}}")
    path.write_text(yaml_text({"controls": CONTROLS | {"own": {"variants": ["another"]}}, "claims": [CLAIM]}))
    assert load_claims(path).controls["own"].variants == ["another"]
    several = CONTROLS | {"scale": CONTROLS["scale"] | {"choose_by": None}}
    for content, words in (
        ({"controls": several, "claims": [CLAIM]}, "key controls.scale: choose_by: found variants"),
        ({"controls": CONTROLS, "claims": [CLAIM, CLAIM]}, "found the id better twice"),
        (
            {"controls": CONTROLS | {"standardised": SOLVER | {"sampler": "dpm_solver_pp"}}, "claims": [SWEPT]},
            "controls.standardised.sampler, in claim better: found 'dpm_solver_pp'; allowed: ancestral, .*, of stage sweep",
        ),
        (
            {"controls": CONTROLS | {"standardised": SOLVER}, "claims": [SWEPT | {"metric": ONE_SAMPLER}]},
            "claim better: found the same numbers, from ddpmpp, nll, dpm_solver_pp_2m, for baseline and standardised",
        ),
        (
            {"controls": {"nan": CONTROLS["standardised"]} | CONTROLS, "claims": [CLAIM]},
            r"key controls\.nan\.\[key\]: found 'nan'; allowed: another text",
        ),
        ({"controls": CONTROLS, "claims": [{"id": "x"}]}, "claim x, key statement: missing"),
        (
            {"controls": CONTROLS | {"standardised": {"variants": ["same-computee"]}}, "claims": [CLAIM]},
            r"key controls\.standardised\.variants: found 'same-computee'; allowed: another, learned-affine, .*, same-compute, ",
        ),
        (
            {"controls": CONTROLS | {"standardised": {"variants": ["frozen-flow"]}}, "claims": [CLAIM]},
            "found 'frozen-flow'; allowed: another, .* of model ddpmpp",
        ),
        (
            {"controls": CONTROLS, "claims": [CLAIM | {"baseline": LINEAR | {"variant": "mine"}}]},
            r"claim better, key baseline\.variant: found 'mine'; allowed: another, ",
        ),
        ([], "expected a mapping of the keys controls, claims"),
    ):
        path.write_text(yaml_text(content))
        with pytest.raises(ParamsError, match=words):
            load_claims(path)
