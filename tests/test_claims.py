"""The claims: planted effects are graded for what they are, and mistakes in the file are named."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from indm.errors import ArtifactError, ParamsError
from indm.report.claims import CLAIM_COLUMNS, claims_table
from indm.report.grades import (
    EXPLAINED,
    INCONCLUSIVE,
    NO_DATA,
    NOT_SHOWN,
    SHOWN,
    Interval,
    grade,
    interval,
    repeatability,
)
from indm.report.results import records
from indm.report.values import VALUE_COLUMNS
from indm.suite.claims import Claims, load_claims
from indm.suite.strict_yaml import yaml_text
from tests.conftest import REPOSITORY

FILE = REPOSITORY / "params" / "claims.yaml"
METRIC = {"stage": "nll", "name": "nll", "sampler": None, "x": None, "transform": "signed"}
CHOICE = {"stage": "curve", "name": "nelbo", "sampler": None, "x": "last", "transform": "signed"}
LINEAR = {"model": "ddpmpp", "variant": "", "objective": None}
CLAIM: dict[str, Any] = {
    "id": "better",
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
    (row,) = records(claims_table(values, claims(**changes), "s"))
    return row


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


@pytest.mark.parametrize("effect", [0.0, -0.1, 0.005])
def test_no_effect_a_reversed_and_a_negligible_one_are_not_shown(effect: float) -> None:
    assert graded(planted(PLAIN | {("indm", ""): 2.1 - effect}, seeds=5, noise=0.001))["grade"] == NOT_SHOWN


@pytest.mark.parametrize("control", [2.0, 1.9])
def test_a_control_that_does_as_well_or_better_explains_an_effect(control: float) -> None:
    row = graded(planted(PLAIN | {("ddpmpp", "standardised"): control}, seeds=5, noise=0.005))
    assert (row["grade"], row["control"]) == (EXPLAINED, "standardised")
    assert row["control_low"] < 0


def test_noise_is_inconclusive() -> None:
    assert graded(planted(PLAIN, seeds=4, noise=0.2))["grade"] == INCONCLUSIVE


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_are_inconclusive(seeds: int) -> None:
    row = graded(planted(PLAIN, seeds=seeds, noise=0.005))
    assert (row["grade"], row["n"]) == (INCONCLUSIVE, seeds)
    assert "at least 3 are needed" in row["reason"]
    assert pd.isna(row["low"]) == (seeds == 1)


def test_a_control_that_was_not_run_leaves_a_claim_open() -> None:
    values = planted({cell: PLAIN[cell] for cell in [("indm", ""), ("ddpmpp", "")]}, seeds=5, noise=0.005)
    row = graded(values)
    assert row["grade"] == INCONCLUSIVE
    assert "controls to be run: standardised (0 seeds), scale (0 seeds)" in row["reason"]
    assert graded(values, controls=[])["grade"] == SHOWN


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
        planted(PLAIN, 5, 0.005),
        claims(where={"datasets": ["digits", "cifar10"], "sdes": [], "objectives": []}),
        "s",
    )
    assert two[["dataset", "grade"]].to_numpy().tolist() == [["digits", SHOWN], ["cifar10", NO_DATA]]
    alone = planted({("indm", ""): 2.0}, seeds=3, noise=0.0)
    assert "no run of the baseline" in graded(alone)["reason"]


def test_a_claim_is_graded_in_each_place_apart() -> None:
    values = planted(PLAIN, 5, 0.005)
    both = pd.concat([values, planted(PLAIN | {("indm", ""): 2.1}, 5, 0.001).assign(sde="ve")])
    table = claims_table(both, claims(), "s")
    assert list(table) == CLAIM_COLUMNS
    assert table[["sde", "grade"]].to_numpy().tolist() == [["vp", SHOWN], ["ve", NOT_SHOWN]]


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
    assert graded(both, **changes, direction="higher")["grade"] == NOT_SHOWN


def test_a_bound_is_a_baseline() -> None:
    values = planted({("indm", ""): 2.0}, 5, 0.001, shared=0.001)
    assert graded(values, baseline={"value": 2.1}, controls=[])["grade"] == SHOWN
    assert graded(values, baseline={"value": 1.9}, controls=[])["grade"] == NOT_SHOWN


def test_transform_and_range_of_x() -> None:
    """Over the steps that both arms have, 4 and 8 of those up to 16, in relative terms; 2 is the treatment's alone."""
    rows = [
        {"model": model, "variant": "", "seed": seed, "x": float(x), "value": value * 1000 / x}
        for seed in range(3)
        for model, steps, value in (("indm", (2, 4, 8, 64), 1.0), ("ddpmpp", (4, 8, 64), np.e))
        for x in steps
    ]
    same = {"dataset": "digits", "sde": "vp", "objective": "nll", "stage": "sweep", "metric": "fid", "sampler": "ode"}
    values = pd.DataFrame([same | row for row in rows], columns=VALUE_COLUMNS)
    metric = {"stage": "sweep", "name": "fid", "sampler": None, "x": [1.0, 16.0], "transform": "log"}
    row = graded(values, metric=metric, controls=[])
    assert row["effect"] == pytest.approx(1.0)
    assert (row["grade"], row["metric"]) == (SHOWN, "sweep, fid, x 1 to 16, log")


def test_intervals_cover_the_truth() -> None:
    """95 %, within the error of 400 draws; a bootstrap of few seeds covers somewhat less."""
    generator = np.random.default_rng(0)
    for n, draws, least in ((5, 400, 0.92), (12, 150, 0.86)):
        found = [interval(generator.normal(1.0, 1.0, n)) for _ in range(draws)]
        assert np.mean([low <= 1.0 <= high for _, low, high, _ in found]) >= least
    assert interval(np.ones(12)) == Interval(1.0, 1.0, 1.0, 12)


def test_grades_at_the_borders() -> None:
    at, below = Interval(1.0, 0.5, 1.5, 5), Interval(0.0, -0.1, 0.1, 5)
    assert grade(at, {}, 0.5).grade == SHOWN
    assert grade(at, {}, 0.6).grade == INCONCLUSIVE
    assert grade(at, {}, 1.5).grade == NOT_SHOWN
    assert grade(Interval(1.0, 0.0, 2.0, 5), {}, 0.0).grade == INCONCLUSIVE
    assert grade(at, {"a": at, "b": below}, 0.5).control == "b"
    assert grade(at, {"a": Interval(1.0, 0.9, 1.1, 2)}, 0.5).grade == INCONCLUSIVE


# The true effects against baseline and control, the noise of a seed's difference, and how often the grade must come.
STABLE = {
    SHOWN: ((0.1, 0.07), 0.014, 0.97),
    NOT_SHOWN: ((0.0, 0.0), 0.004, 0.97),
    EXPLAINED: ((0.1, 0.0), 0.014, 0.97),
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
    counts: dict[str, int] = dict.fromkeys((SHOWN, EXPLAINED, NOT_SHOWN, INCONCLUSIVE), 0)
    for _ in range(2000):
        first, *others = (interval(generator.normal(centre, deviation, n)) for centre in truth.values())
        counts[grade(first, dict(zip(["control"], others, strict=False)), 0.01).grade] += 1
    for name, count in counts.items():
        assert repeatability(name, against, controls, 0.01) == pytest.approx(count / 2000, abs=0.035), name


@pytest.mark.parametrize(("n", "mean"), [(10, 0.06), (10, 0.1), (12, 0.12)])
def test_repeatability_of_bootstrap_intervals(n: int, mean: float) -> None:
    """The same for 300 repetitions of ten and twelve seeds, standard deviation 0.1."""
    generator = np.random.default_rng(0)
    grades = [grade(interval(generator.normal(mean, 0.1, n)), {}, 0.01).grade for _ in range(300)]
    for name in (SHOWN, NOT_SHOWN, INCONCLUSIVE):
        assert repeatability(name, exactly(mean, 0.1, n), [], 0.01) == pytest.approx(grades.count(name) / 300, abs=0.07)


def test_a_control_that_is_not_run_leaves_the_verdict_inconclusive_for_other_seeds_too() -> None:
    against, control = exactly(0.1, 0.01, 5), exactly(-0.1, 0.01, 5)
    assert repeatability(INCONCLUSIVE, against, [np.empty(0)], 0.01) == pytest.approx(1)
    assert repeatability(SHOWN, against, [np.empty(0)], 0.01) == 0
    assert repeatability(EXPLAINED, against, [np.empty(0), control], 0.01) == pytest.approx(1)


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
    assert repeatability(SHOWN, same, [], 0.01) == 1
    assert repeatability(NOT_SHOWN, -same, [], 0.01) == 1
    assert repeatability(NOT_SHOWN, same, [], 0.25) == 1  # at the threshold
    assert repeatability(NOT_SHOWN, 0 * same, [], 0.0) == 1


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
        ({"unit": None}, "claim better, key unit: found None; allowed: "),
        ({"unitt": "x"}, "claim better, key unitt: unknown key"),
        ({"direction": "up"}, "claim better, key direction: found 'up'; allowed: "),
        ({"smallest_effect": -1.0}, "claim better, key smallest_effect: found -1.0; allowed: "),
        ({"controls": ["scale", "best"]}, "key claims: claims: found no control best; controls: "),
        ({"metric": METRIC | {"transform": "exp"}}, "claim better, key metric.transform: found 'exp'"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(yaml_text({"controls": CONTROLS, "claims": [CLAIM | changes]}))
    with pytest.raises(ParamsError) as caught:
        load_claims(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: {words}")


def test_other_mistakes_in_the_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    with pytest.raises(ParamsError, match=r"claims\.yaml: missing"):
        load_claims(path)
    several = CONTROLS | {"scale": CONTROLS["scale"] | {"choose_by": None}}
    for content, words in (
        ({"controls": several, "claims": [CLAIM]}, "key controls.scale: choose_by: a metric where"),
        ({"controls": CONTROLS, "claims": [CLAIM, CLAIM]}, "found the id better twice"),
        ({"controls": CONTROLS, "claims": [{"id": "x"}]}, "claim x, key statement: missing"),
        ([], "expected a mapping of the keys controls, claims"),
    ):
        path.write_text(yaml_text(content))
        with pytest.raises(ParamsError, match=words):
            load_claims(path)
