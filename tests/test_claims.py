"""The claims: planted effects are graded for what they are, and mistakes in the file are named."""

import re
from collections.abc import Callable
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
from indm.report.claims import CLAIM_COLUMNS, claims_table, effects_table
from indm.report.differences import compare
from indm.report.grades import (
    CONTRADICTED,
    EXPLAINED,
    INCONCLUSIVE,
    MEANINGS,
    NO_DATA,
    NOT_SEPARATED,
    RULED_OUT,
    SHOWN,
    SINGLE,
    control_intervals,
    grade,
    holm,
    holm_tail,
    repeatability,
)
from indm.report.intervals import CROSSED, OVER_IMAGES, STUDENT, TAIL, Interval, estimate, interval, p_value
from indm.report.results import Results, records
from indm.report.values import IMAGE_COLUMNS, VALUE_COLUMNS, images_table
from indm.suite.claims import Claims, load_claims
from indm.suite.expand import suite_files
from indm.suite.load import load_suite
from indm.suite.measured import METRICS
from indm.suite.schema.suite import Suite
from indm.suite.strict_yaml import yaml_text
from indm.toy2d.cells import train_cells
from indm.toy2d.data import draw_splits
from tests.conftest import REPOSITORY

FILE = REPOSITORY / "params" / "claims.yaml"
METRIC = {"stage": "nll", "name": "nll", "sampler": None, "x": None, "transform": "signed"}
CHOICE = {"stage": "curve", "name": "nelbo", "sampler": None, "x": "last", "transform": "signed"}
LINEAR = {"model": "ddpmpp", "variant": "", "objective": None}
CLAIM: dict[str, Any] = {
    "id": "better",
    "family": "exploratory",
    "question": "Is INDM better?",
    "statement": "INDM is better.",
    "source": "a section",
    "metric": METRIC,
    "treatment": {"model": "indm", "variant": "", "objective": None},
    "baseline": LINEAR,
    "controls": ["standardised", "scale"],
    "where": {"datasets": ["digits"], "sdes": [], "objectives": ["nll"]},
    "direction": "lower",
    "smallest_effect": 0.01,
    "unit": "bits/dim",
    "why": "two decimals",
}
CONTROLS: dict[str, dict[str, Any]] = {
    "standardised": {"model": "ddpmpp", "variants": ["standardised"], "objective": None, "choose_by": None},
    "scale": {"model": "ddpmpp", "variants": ["scale-3", "scale-5"], "objective": None, "choose_by": CHOICE},
}
# Means of the planted numbers; scale-5 is the better on the test split and scale-3 on the validation split.
PLAIN = {("indm", ""): 2.0, ("ddpmpp", ""): 2.1, ("ddpmpp", "standardised"): 2.08, ("ddpmpp", "scale-3"): 2.07}
PLAIN |= {("ddpmpp", "scale-5"): 1.9}
NO_IMAGES = pd.DataFrame(columns=IMAGE_COLUMNS)
VALIDATION = {"scale-3": 2.0, "scale-5": 2.2}


def claims(**changes: Any) -> Claims:
    return Claims.model_validate({"controls": CONTROLS, "claims": [CLAIM | changes]})


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


def graded(values: pd.DataFrame, **changes: Any) -> dict[str, Any]:
    (row,) = records(claims_table(compare(values, NO_IMAGES, claims(**changes)), "s"))
    return row


def test_effects_are_listed_against_the_baseline_and_every_control_those_without_a_run_too() -> None:
    values = planted(
        {key: mean for key, mean in PLAIN.items() if key != ("ddpmpp", "standardised")}, seeds=5, noise=0.001
    )
    table = effects_table(compare(values, NO_IMAGES, claims()), "s")
    assert table[["against", "role"]].to_numpy().tolist() == [
        ["ddpmpp", "baseline"],
        ["scale (scale-3)", "control"],
        ["standardised", "control"],
    ]
    assert table["effect"].tolist()[:2] == [pytest.approx(0.1, abs=0.005), pytest.approx(0.07, abs=0.005)]
    assert table["n"].tolist()[:2] == [5, 5]
    assert table.loc[2, ["effect", "low", "high", "end"]].isna().all()
    (row,) = records(claims_table(compare(values, NO_IMAGES, claims()), "s"))
    first = table.iloc[0]
    assert [first[key] for key in ("effect", "low", "high", "end")] == [
        row[key] for key in ("effect", "low", "high", "end")
    ]


def test_an_effect_is_shown_with_its_interval_and_its_strongest_control() -> None:
    row = graded(planted(PLAIN, seeds=5, noise=0.005))
    assert row["grade"] == SHOWN
    assert row["effect"] == pytest.approx(0.1, abs=0.01)
    assert row["low"] < row["effect"] < row["high"]
    assert (row["n"], row["test"], row["dataset"], row["sde"], row["objective"]) == (
        5,
        "Student t",
        "digits",
        "vp",
        "nll",
    )
    # Chosen on the validation split: on the test split scale-5 would have explained the claim.
    assert row["control"] == "scale (scale-3)"
    assert row["control_effect"] == pytest.approx(0.07, abs=0.01)


@pytest.mark.parametrize(("effect", "expected"), [(0.0, RULED_OUT), (-0.1, CONTRADICTED), (0.005, RULED_OUT)])
def test_no_effect_a_reversed_and_a_negligible_one_are_not_shown(effect: float, expected: str) -> None:
    assert graded(planted(PLAIN | {("indm", ""): 2.1 - effect}, seeds=5, noise=0.001))["grade"] == expected


@pytest.mark.parametrize("control", [2.0, 1.9])
def test_a_control_that_does_as_well_or_better_explains_an_effect(control: float) -> None:
    row = graded(planted(PLAIN | {("ddpmpp", "standardised"): control}, seeds=5, noise=0.002))
    assert (row["grade"], row["control"]) == (EXPLAINED, "standardised")
    assert row["control_low"] < 0
    assert row["control_end"] <= row["smallest_effect"]


def test_a_control_that_noise_hides_explains_nothing() -> None:
    """Not to be told apart is not to be alike."""
    row = graded(planted(PLAIN | {("ddpmpp", "standardised"): 2.0}, seeds=5, noise=0.02))
    assert (row["grade"], row["control"]) == (NOT_SEPARATED, "standardised")
    assert row["reason"].startswith("shown against the baseline, but not separated from standardised")
    assert row["control_high"] > row["smallest_effect"]


def test_a_control_that_leaves_less_than_the_smallest_effect_is_named() -> None:
    """The treatment beats it, by less than would be worth a claim."""
    row = graded(planted(PLAIN | {("ddpmpp", "standardised"): 2.005}, seeds=5, noise=0.0003))
    assert row["grade"] == SHOWN
    assert row["reason"] == "better than the baseline and every control; than standardised by no more than 0.01"


def test_noise_is_inconclusive() -> None:
    assert graded(planted(PLAIN, seeds=4, noise=0.2))["grade"] == INCONCLUSIVE


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_decide_nothing(seeds: int) -> None:
    row = graded(planted(PLAIN, seeds=seeds, noise=0.005))
    assert (row["grade"], row["n"]) == (SINGLE, seeds)
    assert pd.isna(row["repeatability"])
    assert pd.isna(row["p"])
    assert "at least 3 are needed" in row["reason"]
    assert pd.isna(row["low"]) == (seeds == 1)


def test_a_control_that_a_suite_does_not_have_leaves_a_claim_open() -> None:
    values = planted({cell: PLAIN[cell] for cell in [("indm", ""), ("ddpmpp", "")]}, seeds=5, noise=0.005)
    row = graded(values)
    assert row["grade"] == NOT_SEPARATED
    assert pd.isna(row["p"])
    absent = "cannot be shown here: standardised, scale are not in this suite for digits, vp, nll"
    assert row["reason"] == f"shown against the baseline; {absent}"
    assert graded(values, controls=[])["grade"] == SHOWN
    # Whatever the verdict is: more seeds would not do.
    assert absent in graded(values, smallest_effect=0.5)["reason"]
    elsewhere = planted(PLAIN, seeds=5, noise=0.005).assign(sde="ve")
    both = claims_table(compare(pd.concat([values, elsewhere]), NO_IMAGES, claims()), "s").set_index("sde")
    assert both["grade"].to_dict() == {"vp": NOT_SEPARATED, "ve": SHOWN}


def test_a_control_of_too_few_seeds_is_to_be_run() -> None:
    values = planted(PLAIN, seeds=5, noise=0.005)
    few = values[(values["variant"] != "standardised") | (values["seed"] < 2)]
    assert graded(few)["reason"] == "shown against the baseline; controls to be run: standardised (2 seeds)"


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
            | {"metric": metric.name, "seed": seed, "sampler": sampler, "x": 8.0}
            | {"value": 2.0 - (run["model"] == "indm")}
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
        values = pd.DataFrame(rows, columns=VALUE_COLUMNS).drop_duplicates()
        for row in records(
            claims_table(compare(values, NO_IMAGES, Claims(controls=found.controls, claims=[claim])), "s")
        ):
            if row["grade"] == NO_DATA:
                continue
            place = [row[key] for key in ("dataset", "sde", "objective")]
            here = {run["variant"] for run in runs if [run[key] for key in ("dataset", "sde", "objective")] == place}
            absent = [
                name
                for name in claim.controls
                if not here & {*found.controls[name].variants} or found.controls[name].sampler not in samplers
            ]
            reason = (
                f"cannot be shown here: {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not in this suite"
            )
            assert row["grade"] == (NOT_SEPARATED if absent else SHOWN), (claim.id, place, row["reason"])
            assert (reason in row["reason"]) == bool(absent), (claim.id, place, row["reason"])
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
    assert graded(empty)["grade"] == NO_DATA
    two = claims_table(
        compare(
            planted(PLAIN, 5, 0.005),
            NO_IMAGES,
            claims(where={"datasets": ["digits", "cifar10"], "sdes": [], "objectives": []}),
        ),
        "s",
    )
    assert two[["dataset", "grade"]].to_numpy().tolist() == [["digits", SHOWN], ["cifar10", NO_DATA]]
    alone = planted({("indm", ""): 2.0}, seeds=3, noise=0.0)
    assert "no run of the baseline" in graded(alone)["reason"]


def test_a_log_of_what_is_not_positive_is_no_data_and_said() -> None:
    values = planted({("indm", ""): -2.0, ("ddpmpp", ""): 2.0}, 3, 0.005, shared=0.0)
    with np.errstate(invalid="ignore"):
        row = graded(values, controls=[], metric=METRIC | {"transform": "log"})
    assert (row["grade"], row["reason"].rpartition(", ")[2]) == (NO_DATA, "whose log is taken")


def test_a_claim_is_graded_in_each_place_apart() -> None:
    values = planted(PLAIN, 5, 0.005)
    both = pd.concat([values, planted(PLAIN | {("indm", ""): 2.1}, 5, 0.001).assign(sde="ve")])
    table = claims_table(compare(both, NO_IMAGES, claims()), "s")
    assert list(table) == CLAIM_COLUMNS
    assert table[["sde", "grade"]].to_numpy().tolist() == [["vp", SHOWN], ["ve", RULED_OUT]]


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
    changes = {"treatment": LINEAR, "baseline": LINEAR | {"objective": "fid"}, "controls": []}
    assert graded(both, **changes)["effect"] == pytest.approx(0.5, abs=0.01)
    assert graded(both, **changes, direction="higher")["grade"] == CONTRADICTED


def test_a_bound_is_a_baseline() -> None:
    values = planted({("indm", ""): 2.0}, 5, 0.001, shared=0.001)
    assert graded(values, baseline={"value": 2.1}, controls=[])["grade"] == SHOWN
    assert graded(values, baseline={"value": 1.9}, controls=[])["grade"] == CONTRADICTED


def swept(numbers: dict[tuple[str, int], float], seeds: int = 3) -> pd.DataFrame:
    """Lay out an FID for each model and number of steps, the same for all seeds."""
    same = {"dataset": "digits", "sde": "vp", "objective": "nll", "stage": "sweep", "metric": "fid", "sampler": "ode"}
    rows = [
        {"model": model, "variant": "", "seed": seed, "x": float(steps), "value": value}
        for seed in range(seeds)
        for (model, steps), value in numbers.items()
    ]
    return pd.DataFrame([same | row for row in rows], columns=VALUE_COLUMNS)


FEW_STEPS = {"stage": "sweep", "name": "fid", "sampler": None, "x": [1.0, 16.0], "transform": "log"}


def test_transform_and_range_of_x() -> None:
    """Over the steps up to 16, in relative terms."""
    numbers = {(model, x): fid * 1000 / x for model, fid in (("indm", 1.0), ("ddpmpp", np.e)) for x in (4, 8, 64)}
    row = graded(swept(numbers), metric=FEW_STEPS, controls=[])
    assert row["effect"] == pytest.approx(1.0)
    assert (row["grade"], row["metric"]) == (SHOWN, "sweep, fid, x 1 to 16, log")


@pytest.mark.parametrize(
    ("model", "seeds", "name"),
    [("indm", [0], "treatment"), ("indm", [0, 1, 2], "treatment"), ("ddpmpp", [1, 2], "baseline")],
)
def test_a_model_is_not_judged_only_where_it_does_not_fail(model: str, seeds: list[int], name: str) -> None:
    """At 4 steps INDM is worse; where one arm has no number there, the other steps alone would show the claim."""
    values = swept({("indm", 4): 40.0, ("indm", 16): 2.0, ("ddpmpp", 4): 20.0, ("ddpmpp", 16): 3.0})
    assert graded(values, metric=FEW_STEPS, controls=[])["grade"] == CONTRADICTED
    failed = (values["model"] == model) & values["seed"].isin(seeds) & (values["x"] == 4.0)
    row = graded(values[~failed], metric=FEW_STEPS, controls=[], family="primary")
    assert row["grade"] == INCONCLUSIVE
    assert row["reason"] == (
        f"some cells have no number, and are left out: {name}, ode, 4 steps ({len(seeds)} of 3 seeds)"
    )
    assert pd.isna(row["p"])
    assert pd.isna(row["repeatability"])


def test_a_sampler_that_no_arm_has_leaves_a_claim_open() -> None:
    """By the other one alone, the claim would be shown."""
    values = swept({("indm", 4): 2.0, ("ddpmpp", 4): 20.0}).assign(sampler="ode_euler")
    asked = FEW_STEPS | {"sampler": ["euler_maruyama", "ode_euler"]}
    changes: dict[str, Any] = {"controls": [], "family": "primary"}
    assert graded(values, metric=FEW_STEPS | {"sampler": ["ode_euler"]}, **changes)["grade"] == SHOWN
    row = graded(values, metric=asked, **changes)
    assert row["grade"] == INCONCLUSIVE
    assert row["reason"] == "some cells have no number, and are left out: euler_maruyama (no arm has it)"
    assert pd.isna(row["p"])
    row = graded(values, metric=FEW_STEPS | {"sampler": ["euler_maruyama"]}, **changes)
    assert (row["grade"], row["reason"]) == (NO_DATA, "no run; euler_maruyama (no arm has it)")


@pytest.mark.parametrize(
    ("model", "seeds", "name"),
    [
        ("indm", [4], "treatment"),
        ("indm", [0, 1, 2, 3, 4], "treatment"),
        ("ddpmpp", [2, 3, 4], "baseline"),
        ("ddpmpp", [0, 1, 2, 3, 4], "baseline"),
    ],
)
def test_a_seed_that_fails_in_every_cell_is_not_left_out(model: str, seeds: list[int], name: str) -> None:
    """It has no number in the sweep, and is known by its training."""
    values = swept({("indm", 4): 2.0, ("indm", 16): 1.0, ("ddpmpp", 4): 20.0, ("ddpmpp", 16): 3.0}, seeds=5)
    trained = values[values["x"] == 4.0].assign(stage="train", metric="steps", sampler="", x=np.nan, value=100.0)
    failed = (values["model"] == model) & values["seed"].isin(seeds)
    row = graded(pd.concat([values[~failed], trained]), metric=FEW_STEPS, controls=[], family="primary")
    assert row["grade"] == INCONCLUSIVE
    missing = [f"{name}, ode, {steps} steps ({len(seeds)} of 5 seeds)" for steps in (4, 16)]
    assert row["reason"] == f"some cells have no number, and are left out: {'; '.join(missing)}"
    assert pd.isna(row["p"])


def test_a_treatment_of_one_objective_is_compared_at_its_objective_alone() -> None:
    values = pd.concat(planted(PLAIN, seeds=5, noise=0.005).assign(objective=key) for key in ("nll", "fid"))
    where = {"datasets": ["digits"], "sdes": [], "objectives": []}
    treatment = {"model": "indm", "variant": "", "objective": "fid"}
    assert graded(values, where=where, treatment=treatment)["objective"] == "fid"


@pytest.mark.parametrize("n", [3, 5, 12])
def test_intervals_cover_the_truth(n: int) -> None:
    """95 %, within the error of 2,000 draws."""
    generator = np.random.default_rng(0)
    found = [interval(generator.normal(1.0, 1.0, n)) for _ in range(2000)]
    assert np.mean([one.low <= 1.0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.016)
    assert interval(np.ones(n)) == Interval(1.0, 1.0, 1.0, n, end=1.0)


@pytest.mark.parametrize("n", [3, 10])
def test_intervals_and_p_values_are_students(n: int) -> None:
    numbers = np.random.default_rng(n).normal(0.3, 1.0, n)
    found, test = interval(numbers), stats.ttest_1samp(numbers, 0.1, alternative="greater")
    expected = stats.ttest_1samp(numbers, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert p_value(estimate(numbers), 0.1) == pytest.approx(test.pvalue)


@pytest.mark.parametrize("shape", [(3,), (8,), (3, 40), (5, 360)])
def test_a_p_value_is_at_most_a_fortieth_where_the_interval_lies_above(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        numbers = generator.normal(0.1, 1.0, shape) + generator.normal(0, 0.3, shape[-1])
        found, low, high = estimate(numbers), *interval(numbers)[1:3]
        assert [p_value(found, bound) for bound in (low, found.mean, high)] == pytest.approx([TAIL, 0.5, 1 - TAIL])
        assert p_value(found, low - 1e-6) < TAIL < p_value(found, low + 1e-6)


def test_p_values_of_no_effect_are_evenly_spread() -> None:
    """Of the crossed statistic at most evenly: it covers somewhat more than 95 %."""
    drawn = tables(0.0, 0.01, 1.0, 1.0, 5, 60, 1000)
    found = np.array([p_value(estimate(one), 0.0) for one in drawn])
    for level in (0.01, 0.025, 0.1, 0.5):
        assert (found <= level).mean() <= level + 3 * np.sqrt(level / 1000)
    assert (found <= 0.5).mean() == pytest.approx(0.5, abs=0.05)
    alone = np.array([p_value(estimate(one), 0.0) for one in np.random.default_rng(0).normal(size=(2000, 3))])
    assert stats.kstest(alone, "uniform").pvalue > 0.01


def test_a_mean_without_variance_is_certain() -> None:
    for numbers in (np.full(3, 0.1), np.full((3, 5), 0.1)):
        assert [p_value(estimate(numbers), bound) for bound in (0.0, 0.1, 0.2)] == [0, 1, 1]


def test_ends_of_several_comparisons_hold_together() -> None:
    """Seven controls that share a treatment, each at the smallest effect: a claim is seldom said to be explained."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        treatment = generator.normal(0, 1, 5)
        controls = {str(i): 1 + generator.normal(0, 1, 5) - treatment for i in range(7)}
        ends = [one.ends for one in control_intervals(controls).values()]
        alone = [interval(control).high for control in controls.values()]
        found.append((min(ends) <= 1, min(alone) <= 1))
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
    assert (alone["grade"], alone["test"]) == (SHOWN, STUDENT)
    assert pd.isna(alone["images"])
    (row,) = records(claims_table(compare(values, images, claims(controls=[])), "s"))
    assert row["effect"] == pytest.approx(alone["effect"])
    assert (row["grade"], row["n"], row["images"]) == (INCONCLUSIVE, 3, 40)
    assert row["test"] == CROSSED
    assert "more seeds or images are needed" in row["reason"]
    assert (row["low"], row["high"]) == pytest.approx(interval(luck)[1:3])
    assert row["repeatability"] == pytest.approx(repeatability(luck, [], 0.01)[INCONCLUSIVE])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(rows.index[5:40]), "found 5 images, expected 40, all that runs of the dataset have"),
        (
            lambda rows: rows.replace({"image": {39: 40}}),
            "found 40 images, expected 41, all that runs of the dataset have",
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
    assert (row["grade"], row["n"], row["images"], row["test"]) == (SINGLE, seeds, 40, OVER_IMAGES)
    assert row["reason"].endswith("the interval is over images, for these weights alone")


def linear_log(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = numbers.mean(1, keepdims=True)
    return np.log(mean) + numbers / mean - 1


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ("abs", lambda treated, other: np.sign(other.mean(1, keepdims=True)) * other + treated),
        ("log", lambda treated, other: linear_log(other) - linear_log(treated)),
    ],
)
def test_a_transform_is_of_the_mean_over_images(transform: str, expected: Any) -> None:
    """The gaps of single images have both signs, those of the runs need not: |mean|, not the mean of |.|."""
    generator = np.random.default_rng(0)
    sign = -1 if transform == "abs" else 1
    treated, other = (
        generator.normal(mean, 0.3, 50) + generator.normal(0, 0.01, (3, 50)) for mean in (sign * 0.2, 0.5)
    )
    values, images = of_images({"indm": treated, "ddpmpp": other}, "gap")
    metric = METRIC | {"name": "gap", "transform": transform}
    (alone,), (row,) = (
        records(claims_table(compare(values, found, claims(metric=metric, controls=[])), "s"))
        for found in (NO_IMAGES, images)
    )
    assert row["effect"] == pytest.approx(alone["effect"])
    table = expected(treated, other)
    assert row["high"] - row["low"] == pytest.approx(np.diff(interval(table)[1:3])[0])
    assert row["low"] < alone["low"]


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
    """The same curve in both arms, of which one has no snapshot at the end: no effect, and the cell that lacks is named."""
    curve = {125.0: 1.0, 250.0: 0.5, 500.0: 0.2, 1000.0: 0.1}
    early = {step: value for step, value in curve.items() if step < 1000}
    lengths = {"indm": 1000.0, "ddpmpp": 1000.0}
    for arm, name in (("ddpmpp", "baseline"), ("indm", "treatment")):
        numbers = {model: early if model == arm else curve for model in lengths}
        row = graded(curves(lengths, numbers), metric=CURVE, controls=[])
        assert (row["effect"], row["grade"]) == (0.0, INCONCLUSIVE)
        assert row["reason"] == f"some cells have no number, and are left out: {name}, 1000 steps (3 of 3 seeds)"


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


def test_grades_at_the_borders() -> None:
    """A bound that an interval touches is not passed."""
    at = Interval(1.0, 0.5, 1.5, 5)
    for smallest, expected in ((0.4, SHOWN), (0.5, INCONCLUSIVE), (1.4, INCONCLUSIVE), (1.5, RULED_OUT)):
        assert grade(at, {}, smallest).grade == expected
    assert grade(Interval(1.0, 0.0, 2.0, 5), {}, 0.0).grade == INCONCLUSIVE
    assert grade(Interval(-1.0, -2.0, 0.0, 5), {}, 0.0).grade == RULED_OUT
    assert grade(Interval(-1.0, -2.0, -0.1, 5), {}, 0.0).grade == CONTRADICTED
    assert grade(at, {"a": Interval(0.5, 0.0, 1.0, 5)}, 0.4).grade == NOT_SEPARATED
    assert grade(at, {"a": Interval(0.0, -0.4, 0.4, 5)}, 0.4).grade == EXPLAINED
    assert grade(at, {}, 0.4, p_adjusted=TAIL).grade == SHOWN
    # As one of several of which any may decide, an interval ends later.
    assert grade(at._replace(end=1.6), {}, 1.5).grade == INCONCLUSIVE
    assert grade(Interval(-1.0, -2.0, -0.1, 5, end=0.1), {}, 0.2).grade == RULED_OUT
    assert grade(at, {"a": Interval(0.0, -0.4, 0.4, 5, end=0.5)}, 0.4).grade == NOT_SEPARATED
    assert grade(at, {"a": at, "b": Interval(0.0, -0.1, 0.1, 5)}, 0.4).control == "b"


# Where an interval lies, the smallest effect being 1: below 0, then reaching over 0, between, reaching over 1, over both, above.
SIGNS = {
    "-": (-2.0, -1.0),
    "-0": (-1.0, 0.5),
    "0": (0.2, 0.8),
    "01": (0.5, 2.0),
    "-01": (-1.0, 2.0),
    "1": (2.0, 3.0),
}


def placed(sign: str, n: int = 5) -> Interval:
    return Interval(float(np.mean(SIGNS[sign])), *SIGNS[sign], n)


def conditions(
    baseline: str, n: int, controls: list[tuple[str, int]], absent: bool, adjusted: float | None
) -> set[str]:
    """Say which grades hold, each by its own words, whatever the others are."""
    nothing, few = n == 0, 0 < n < 3
    better, reversed_, small = baseline == "1", baseline == "-", baseline in ("-0", "0")
    decided = not nothing and not few
    run = [sign for sign, seeds in controls if seeds >= 3]
    complete = len(run) == len(controls) and not absent
    beaten = complete and all(sign in ("0", "01", "1") for sign in run)
    after_holm = adjusted is None or adjusted <= 0.025
    explains = any(sign in ("-", "-0", "0") for sign in run)
    shown = better and beaten and after_holm
    holds = {
        NO_DATA: nothing,
        SINGLE: few,
        SHOWN: decided and shown,
        EXPLAINED: decided and better and not shown and explains,
        NOT_SEPARATED: decided and better and not beaten and not explains,
        CONTRADICTED: decided and reversed_,
        RULED_OUT: decided and small,
        INCONCLUSIVE: decided
        and (baseline in ("01", "-01") or (better and beaten and not after_holm and not explains)),
    }
    return {name for name, holding in holds.items() if holding}


def test_every_pattern_of_signs_has_one_grade() -> None:
    """The truth table: wherever intervals lie, whatever was run, before and after Holm's adjustment."""
    control = [*product(SIGNS, (5,)), ("1", 2)]
    patterns = [
        (*head, [*controls], *tail)
        for head in product(SIGNS, (0, 2, 5))
        for controls in [(), *product(control), *product(control, repeat=2)]
        for tail in product((False, True), (None, 0.02, 0.03))
    ]
    found = set()
    for baseline, n, controls, absent, adjusted in patterns:
        holding = conditions(baseline, n, controls, absent, adjusted)
        assert len(holding) == 1, (baseline, n, controls, absent, adjusted)
        intervals = {str(i): placed(*one) for i, one in enumerate(controls)}
        verdict = grade(placed(baseline, n), intervals, 1.0, ["absent"] if absent else [], adjusted)
        assert {verdict.grade} == holding, (baseline, n, controls, absent, adjusted)
        found |= holding
    assert found == set(MEANINGS)


def test_a_grade_is_the_first_whose_words_hold() -> None:
    """The order in which meanings are told is the precedence."""
    assert [*MEANINGS] == [
        NO_DATA, SINGLE, SHOWN, EXPLAINED, NOT_SEPARATED, CONTRADICTED, RULED_OUT, INCONCLUSIVE
    ]  # fmt: skip
    both = {"a": placed("0")}
    assert grade(placed("1"), both, 1.0).grade == SHOWN
    assert grade(placed("1"), both | {"b": placed("-01")}, 1.0).grade == EXPLAINED
    assert grade(placed("1"), both, 1.0, p_adjusted=0.03).grade == EXPLAINED


def test_holms_adjustment() -> None:
    """By hand; and the largest p-value that it lets pass is where it lets pass."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm_tail([]) == TAIL
    generator = np.random.default_rng(0)
    for _ in range(500):
        p, *others = generator.uniform(0, 0.04, 4)
        assert (holm([p, *others])[0] <= TAIL) == (p <= holm_tail(others))


def test_a_primary_claim_that_holms_adjustment_takes_away_is_not_shown() -> None:
    """Of three primary rows, two large and one whose interval only just lies above: adjusted it is not, alone it is."""
    values = planted({("indm", ""): 2.0, ("ddpmpp", ""): 2.1}, seeds=4, noise=0.01)
    change = {"controls": [], "family": "primary"}
    p = graded(values, **change)["p"]
    row = graded(values, **change)
    smallest = interval(differences_of(values)).low - 1e-4
    exploratory = CLAIM | {"controls": [], "smallest_effect": smallest}
    family = [exploratory | {"id": name, "family": "primary"} for name in ("one", "two", "three")]
    assert graded(values, controls=[], smallest_effect=smallest)["grade"] == SHOWN
    found = Claims.model_validate({"controls": {}, "claims": [*family, exploratory]})
    rows = records(claims_table(compare(values, NO_IMAGES, found), "s"))
    assert [row["grade"] for row in rows] == [INCONCLUSIVE] * 3 + [SHOWN]
    assert rows[0]["p"] == rows[3]["p"] < TAIL < rows[0]["p_adjusted"] == pytest.approx(3 * rows[0]["p"])
    assert pd.isna(rows[3]["p_adjusted"])
    assert rows[0]["reason"].startswith("not shown after Holm's adjustment: p 0.07")
    assert (row["p"], row["p_adjusted"], row["grade"]) == (p, p, SHOWN)


def test_primary_rows_end_together() -> None:
    """Of four of which any may be ruled out, each ends as one of four comparisons; an exploratory one ends alone."""
    values = planted({("indm", ""): 2.1, ("ddpmpp", ""): 2.1}, seeds=5, noise=0.001)
    values.loc[values["model"] == "indm", "value"] += 0.002
    family = [CLAIM | {"id": name, "controls": [], "family": "primary"} for name in ("one", "two", "three", "four")]
    found = Claims.model_validate({"controls": {}, "claims": [*family, CLAIM | {"controls": []}]})
    first, *_, last = records(claims_table(compare(values, NO_IMAGES, found), "s"))
    differences = differences_of(values)
    expected = [stats.ttest_1samp(differences, 0.0).confidence_interval(1 - 0.05 / rows).high for rows in (4, 1)]
    assert [first["end"], last["end"]] == pytest.approx(expected)
    assert first["high"] == last["high"] == pytest.approx(expected[1])
    assert first["repeatability"] == pytest.approx(repeatability(differences, [], 0.01, TAIL, 4)[first["grade"]])


@pytest.mark.parametrize("rows", [1, 4])
def test_repeatability_where_several_rows_end_together(rows: int) -> None:
    """A row that is now and then ruled out, contradicted or explained: 2,000 repetitions."""
    generator = np.random.default_rng(0)
    for mean, control in ((-0.01, 0.0), (0.04, -0.006)):
        drawn = [mean + exactly(0.0, 0.01, 5), control + exactly(0.0, 0.01, 5)]
        grades = []
        for _ in range(2000):
            against, other = generator.normal(mean, 0.01, 5), generator.normal(control, 0.01, 5)
            grades.append(grade(interval(against, rows), control_intervals({"a": other}, rows), 0.01).grade)
        probabilities = repeatability(drawn[0], drawn[1:], 0.01, TAIL, rows)
        for name in MEANINGS:
            assert probabilities.get(name, 0) == pytest.approx(grades.count(name) / 2000, abs=0.035), name


def differences_of(values: pd.DataFrame) -> NDArray[np.float64]:
    numbers = values.pivot(index="seed", columns="model", values="value").astype(float)
    return (numbers["ddpmpp"] - numbers["indm"]).to_numpy()


def test_a_p_value_is_the_largest_of_baseline_and_controls() -> None:
    values = planted(PLAIN, seeds=5, noise=0.03)
    numbers = (
        values[values["metric"] == "nll"].set_index(["model", "variant", "seed"]).sort_index()["value"].astype(float)
    )
    p = [
        stats.ttest_1samp(numbers["ddpmpp", variant] - numbers["indm", ""], bound, alternative="greater").pvalue
        for variant, bound in (("", 0.01), ("standardised", 0.0), ("scale-3", 0.0))
    ]
    assert graded(values)["p"] == pytest.approx(max(p))


# The true effects against baseline and control, the noise of a seed's difference, and how often the grade must come.
STABLE = {
    SHOWN: ((0.1, 0.07), 0.014, 0.97),
    RULED_OUT: ((0.0, 0.0), 0.003, 0.97),
    CONTRADICTED: ((-0.1, 0.0), 0.014, 0.97),
    EXPLAINED: ((0.1, 0.0), 0.003, 0.97),
    NOT_SEPARATED: ((0.2, 0.009), 0.03, 0.9),
    INCONCLUSIVE: ((0.1, 0.07), 0.28, 0.9),
}


@pytest.mark.parametrize("expected", STABLE)
def test_grades_are_stable_under_other_seeds(expected: str) -> None:
    """200 simulations of five seeds each, smallest effect 0.01."""
    (effect, control), noise, least = STABLE[expected]
    generator = np.random.default_rng(0)
    found = []
    for _ in range(200):
        against, other = (interval(generator.normal(mean, noise, 5)) for mean in (effect, control))
        found.append(grade(against, {"control": other}, 0.01).grade)
    rate = found.count(expected) / len(found)
    assert rate >= least, f"{rate}: {pd.Series(found).value_counts().to_dict()}"


def exactly(mean: float, deviation: float, n: int) -> NDArray[np.float64]:
    """Return n numbers of exactly this mean and standard deviation."""
    numbers = np.random.default_rng(1).normal(size=n)
    return mean + deviation * (numbers - numbers.mean()) / numbers.std(ddof=1)


@pytest.mark.parametrize(
    ("n", "mean", "deviation"), [(3, 0.1, 0.03), (3, -0.05, 0.03), (5, 0.06, 0.05), (9, 0.0, 0.02)]
)
@pytest.mark.parametrize("control", [None, 0.0, 0.04])
def test_repeatability_is_how_often_repetitions_agree(
    n: int, mean: float, deviation: float, control: float | None
) -> None:
    """Were what was found the truth: 2,000 repetitions by the same number of other seeds, smallest effect 0.01."""
    generator = np.random.default_rng(0)
    truth = {"": mean} | ({} if control is None else {"control": control})
    found = {name: exactly(centre, deviation, n) for name, centre in truth.items()}
    against, *controls = found.values()
    grades = []
    for _ in range(2000):
        first, *others = (generator.normal(centre, deviation, n) for centre in truth.values())
        compared = control_intervals(dict(zip(["control"], others, strict=False)))
        grades.append(grade(interval(first), compared, 0.01).grade)
    probabilities = repeatability(against, controls, 0.01)
    assert sum(probabilities.values()) == pytest.approx(1)
    for name in MEANINGS:
        assert probabilities.get(name, 0) == pytest.approx(grades.count(name) / 2000, abs=0.035), name


@pytest.mark.parametrize("tail", [TAIL, TAIL / 4])
def test_repeatability_under_holms_adjustment_and_with_controls_that_share_the_treatment(tail: float) -> None:
    """Two controls, one of which leaves less than the smallest effect: 2,000 repetitions beside others as they are."""
    generator = np.random.default_rng(0)
    means, noise, n = (0.03, 0.012, 0.006), 0.004, 6
    drawn = exactly(0.0, noise, n)
    grades = []
    for _ in range(2000):
        treated, *others = generator.normal(0, noise / np.sqrt(2), (4, n))
        against, *controls = (mean + other - treated for mean, other in zip(means, others, strict=True))
        p = max(p_value(estimate(against), 0.01), *(p_value(estimate(control), 0.0) for control in controls))
        compared = control_intervals({str(i): control for i, control in enumerate(controls)})
        grades.append(grade(interval(against), compared, 0.01, p_adjusted=p * TAIL / tail).grade)
    probabilities = repeatability(means[0] + drawn, [mean + drawn for mean in means[1:]], 0.01, tail)
    assert sum(probabilities.values()) == pytest.approx(1)
    for name in MEANINGS:
        assert probabilities.get(name, 0) == pytest.approx(grades.count(name) / 2000, abs=0.08), name


@pytest.mark.parametrize("mean", [-0.06, 0.02, 0.06, 0.1])
@pytest.mark.parametrize(("of_seeds", "of_images"), [(0.004, 0.001), (0.004, 0.05), (0.002, 0.3)])
def test_repeatability_of_crossed_intervals(mean: float, of_seeds: float, of_images: float) -> None:
    """Were what was found the truth: 500 repetitions by other seeds and images, smallest effect 0.01."""
    found = tables(mean, of_seeds, of_images, 0.01, 4, 60, 1)[0]
    _, part_of_seeds, part_of_images, *_ = estimate(found)
    rest = 0.01
    truth = (4 * part_of_seeds - rest / 60, 60 * part_of_images, rest)
    grades = [grade(interval(one), {}, 0.01).grade for one in tables(found.mean(), *truth, 4, 60, 500)]
    probabilities = repeatability(found, [], 0.01)
    for name in MEANINGS:
        assert probabilities.get(name, 0) == pytest.approx(grades.count(name) / 500, abs=0.06), name


def test_a_control_that_is_not_run_leaves_the_verdict_open_for_other_seeds_too() -> None:
    against, control = exactly(0.1, 0.01, 5), exactly(-0.1, 0.01, 5)
    alone, beside = (repeatability(against, [np.empty(0), *more], 0.01) for more in ([], [control]))
    assert (alone[NOT_SEPARATED], alone[SHOWN]) == (pytest.approx(1), 0)
    assert beside[EXPLAINED] == pytest.approx(1)


def test_a_verdict_that_other_seeds_might_not_repeat_is_called_borderline() -> None:
    values = planted(PLAIN, seeds=5, noise=0.005)
    sure = graded(values)
    assert (sure["grade"], sure["repeatability"]) == (SHOWN, pytest.approx(1, abs=0.01))
    assert "borderline" not in sure["reason"]
    border = graded(values, smallest_effect=sure["low"] - 1e-6)
    assert border["grade"] == SHOWN
    assert border["repeatability"] == pytest.approx(0.5, abs=0.15)
    assert border["reason"].endswith(f"other seeds would say the same with probability {border['repeatability']:.2f}")


def test_seeds_that_agree_to_the_last_digit_repeat() -> None:
    same = np.full(3, 0.25)
    assert repeatability(same, [], 0.01)[SHOWN] == 1
    assert repeatability(-same, [], 0.01)[CONTRADICTED] == 1
    assert repeatability(same, [], 0.25)[RULED_OUT] == 1  # at the threshold
    assert repeatability(0 * same, [], 0.0)[RULED_OUT] == 1


def test_claims_of_an_abstract_name_its_version() -> None:
    """The first claims a transport closer to optimal; the third has sampling robustness in its place."""
    sources = {claim.id: claim.source for claim in load_claims(FILE).claims}
    for claim, source in sources.items():
        assert "abstract" not in source or re.match(r"arXiv:2205\.13699v[13], ", source), claim
    assert sources["shorter-paths-2d"].startswith("arXiv:2205.13699v1")
    assert sources["coarse-discretisation"].startswith("arXiv:2205.13699v3")


def test_the_claims_of_the_paper_are_a_valid_file() -> None:
    ids = {claim.id for claim in load_claims(FILE).claims}
    assert {"smaller-gap", "nearly-mle-training", "coarse-discretisation", "shorter-paths-2d", "fid-of-celeba"} <= ids


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"family": "secondary"}, "claim better, key family: found 'secondary'; allowed: "),
        ({"metric": METRIC | {"sampler": "pc"}}, "claim better, key metric.sampler: found 'pc'; allowed: "),
        ({"unit": None}, "claim better, key unit: found None; allowed: "),
        ({"unitt": "x"}, "claim better, key unitt: unknown key"),
        ({"direction": "up"}, "claim better, key direction: found 'up'; allowed: "),
        ({"smallest_effect": -1.0}, "claim better, key smallest_effect: found -1.0; allowed: "),
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
            {"metric": METRIC | {"transform": "abs"}, "baseline": {"value": -0.05}},
            "claim better, key claims: baseline: found -0.05; allowed: at least 0, since metric.transform is abs",
        ),
        ({"id": "null"}, "claim null, key id: found 'null'; allowed: another text, since tables would be read without"),
        (
            {"unit": "NA"},
            "claim better, key unit: found 'NA'; allowed: another text, since tables would be read without",
        ),
        ({"why": ""}, "claim better, key why: found ''; allowed: another text"),
        (
            {"metric": METRIC | {"name": "nlll"}},
            "claim better, key metric: name: found 'nlll'; allowed: nll, nll_uncorrected, nelbo, nelbo_no_reconstruction, gap, "
            "of stage nll",
        ),
        (
            {"metric": METRIC | {"stage": "fid", "name": "gap"}},
            "claim better, key metric: name: found 'gap'; allowed: fid, kid, is, ",
        ),
        (
            {"metric": FEW_STEPS | {"sampler": ["euler_maruyama", "ode_eulr"]}},
            "claim better, key metric: sampler: found 'ode_eulr'; allowed: ancestral, dpm_solver_pp_2m, euler_maruyama, ",
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
            {"baseline": CLAIM["treatment"]},
            "key claims: claim better: found treatment and baseline to have the same numbers, of indm, nll; allowed: another",
        ),
        (
            {"baseline": CLAIM["treatment"] | {"objective": "nll"}},
            "key claims: claim better: found treatment and baseline to have the same numbers, of indm, nll; allowed: another",
        ),
        (
            {"treatment": LINEAR | {"variant": "scale-5"}},
            "key claims: claim better: found treatment and scale to have the same numbers, of ddpmpp, scale-5, nll; allowed: ",
        ),
        (
            {"baseline": LINEAR | {"variant": "standardised"}},
            "key claims: claim better: found baseline and standardised to have the same numbers, of ddpmpp, standardised, nll",
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
    """Those of the published tables; clean_fid and legacy_fid are of images of CIFAR-10 alone."""
    tables = [pd.read_csv(path) for path in REPOSITORY.glob("docs/results/*/tables/values.csv")]
    found = pd.concat(tables).groupby("stage")["metric"].unique()
    assert {stage: {*found[stage]} for stage in METRICS} == {
        stage: {*names} - {"clean_fid", "legacy_fid"} for stage, names in METRICS.items()
    }


def test_other_mistakes_in_the_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    with pytest.raises(ParamsError, match=r"claims\.yaml: missing"):
        load_claims(path)
    several = CONTROLS | {"scale": CONTROLS["scale"] | {"choose_by": None}}
    for content, words in (
        ({"controls": several, "claims": [CLAIM]}, "key controls.scale: choose_by: a metric where"),
        ({"controls": CONTROLS, "claims": [CLAIM, CLAIM]}, "found the id better twice"),
        (
            {"controls": CONTROLS | {"standardised": SOLVER | {"sampler": "dpm_solver_pp"}}, "claims": [SWEPT]},
            "controls.standardised.sampler, in claim better: found 'dpm_solver_pp'; allowed: ancestral, .*, of stage sweep",
        ),
        (
            {"controls": CONTROLS | {"standardised": SOLVER}, "claims": [SWEPT | {"metric": ONE_SAMPLER}]},
            "claim better: found baseline and standardised to have the same numbers, of ddpmpp, nll, dpm_solver_pp_2m",
        ),
        (
            {"controls": {"nan": CONTROLS["standardised"]} | CONTROLS, "claims": [CLAIM]},
            r"key controls\.nan\.\[key\]: found 'nan'; allowed: another text",
        ),
        ({"controls": CONTROLS, "claims": [{"id": "x"}]}, "claim x, key statement: missing"),
        ([], "expected a mapping of the keys controls, claims"),
    ):
        path.write_text(yaml_text(content))
        with pytest.raises(ParamsError, match=words):
            load_claims(path)
