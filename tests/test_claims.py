"""The claims: planted effects get the word that is true of them, and mistakes in the file are named."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache, reduce
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from indm.bench.suite.claims import load_claims
from indm.bench.suite.expand import suite_files
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.studies import MODELS
from indm.bench.suite.schema.suite import Suite
from indm.densities.cells import RIVALS
from indm.errors import ArtifactError, ParamsError
from indm.report.claims import Claims, GradingParams
from indm.report.differences import COMPUTE, CONTROL, FIXED_NUMBER, SIMPLE, STEPS, Comparison, Paired, compare
from indm.report.grades import BETTER, NOT_BETTER, UNDECIDED, WORSE, grade, repeatability, seeds_needed
from indm.report.intervals import CROSSED, OVER_IMAGES, STUDENT, TAIL, Interval, estimate, interval
from indm.report.numbers import IMAGE_COLUMNS, VALUE_COLUMNS
from indm.report.rows import records
from indm.report.verdicts import CLAIM_COLUMNS, claims_table, differences_table
from indm.strict_yaml import parse_yaml, yaml_text
from tests.conftest import REPOSITORY

FILE = REPOSITORY / "params" / "claims.yaml"
METRIC: dict[str, Any] = {"stage": "nll", "name": "gap"}
FEW_STEPS: dict[str, Any] = {"stage": "sweep", "name": "fid", "sampler": "ddim", "x": [1.0, 16.0], "transform": "log"}
CURVE = METRIC | {"stage": "curve", "x": [1.0, 1e9]}
LINEAR: dict[str, Any] = {"model": "ddpmpp"}
INDM: dict[str, Any] = {"model": "indm"}
SMALLEST: dict[str, Any] = {"effect": 0.01, "unit": "bits/dim", "why": "two decimals"}
CLAIM: dict[str, Any] = {
    "id": "better",
    "family": "exploratory",
    "question": "Is INDM better?",
    "statement": "INDM is better.",
    "source": "a section",
    "metric": METRIC,
    "where": {"datasets": ["digits"], "objectives": ["nll"]},
    "smallest": SMALLEST,
}
GRADING: dict[str, Any] = {"question": "q", "rows": 4, "decoder": "learned", "samplers": None}
GRADING |= {"images": {"simple": "standardised", "scale": "scale-5"}, "toy2d": {"simple": None, "scale": None}}
# Columns of values.csv, with the statement of a sampler's soundness.
COLUMNS = list(dict.fromkeys([*VALUE_COLUMNS, "sound"]))
IMAGES = list(dict.fromkeys([*IMAGE_COLUMNS, "nll_fixed", "nelbo_fixed"]))
NO_IMAGES = pd.DataFrame(columns=IMAGES)
PLACE = {"dataset": "digits", "sde": "vp", "objective": "nll"}
# Means of the planted numbers.
BOTH = {("indm", ""): 2.0, ("ddpmpp", ""): 2.1}
PLAIN = BOTH | {("ddpmpp", "same-compute"): 1.9, ("ddpmpp", "standardised"): 2.0, ("ddpmpp", "scale-5"): 2.08}


def claims(smallest: float = 0.01, **changes: Any) -> Claims:
    return Claims.model_validate({"claims": [CLAIM | {"smallest": SMALLEST | {"effect": smallest}} | changes]})


def planted(means: Mapping[tuple[str, str], float], seeds: int, noise: float, shared: float = 0.3) -> pd.DataFrame:
    """Plant a number for each model and variant: its mean, what the seed adds to all alike, and its own noise."""
    generator = np.random.default_rng(0)
    rows = [
        {"model": model, "variant": variant, "seed": seed, "value": mean + common + generator.normal(0, noise)}
        for seed, common in enumerate(generator.normal(0, shared, seeds))
        for (model, variant), mean in means.items()
    ]
    same = PLACE | {"suite": "s", "sampler": "", "stage": "nll", "metric": "gap"}
    return pd.DataFrame([same | row for row in rows], columns=COLUMNS).astype({"x": float, "sound": float})


def with_spread(table: pd.DataFrame, column: str = "value") -> pd.DataFrame:
    """Move numbers by as little as lets the differences of seeds differ, which would otherwise be refused."""
    return table.assign(**{column: table[column] + np.random.default_rng(2).normal(0, 1e-8, len(table))})


def trained(values: pd.DataFrame, steps: float = 9.0) -> pd.DataFrame:
    """Add that every run was trained, whether or not it has numbers."""
    runs = values.drop_duplicates([*PLACE, "model", "variant", "seed"])
    return runs.assign(stage="train", metric="steps", sampler="", x=np.nan, value=steps)


def compared(
    values: pd.DataFrame,
    images: pd.DataFrame = NO_IMAGES,
    bounds: Mapping[str, float] | None = None,
    grading: Mapping[str, Any] | None = None,
    **changes: Any,
) -> list[Comparison]:
    return compare(
        values, images, claims(**changes), GradingParams.model_validate(GRADING | dict(grading or {})), bounds
    )


def graded(*args: Any, **changes: Any) -> list[dict[str, Any]]:
    """Grade a claim at one place: a row for each comparison."""
    return records(claims_table(compared(*args, **changes), "s", GRADING["rows"]))


def at_steps(*args: Any, **changes: Any) -> dict[str, Any]:
    """Grade a claim against its first comparison."""
    return graded(*args, **changes)[0]


def word(*args: Any, **changes: Any) -> tuple[str, str]:
    row = at_steps(*args, **changes)
    return row["verdict"], row["reason"]


def counts(row: Mapping[str, Any]) -> list[int]:
    return [row[key] for key in ("n", "planned", "failed_treatment", "failed_against")]


def exactly(mean: float, deviation: float, n: int) -> NDArray[np.float64]:
    """Return n numbers of exactly this mean and standard deviation."""
    numbers = np.random.default_rng(1).normal(size=n)
    return mean + deviation * (numbers - numbers.mean()) / numbers.std(ddof=1)


def paired(differences: NDArray[np.float64], failed: tuple[int, int] = (0, 0)) -> Paired:
    return Paired(tuple(range(len(differences))), differences, len(differences), *failed)


# What is compared, and the words.


def test_a_claim_is_compared_with_three_models_and_with_its_controls() -> None:
    """Also with one that was not run; best-scale is the scale that the suite names, and no control is listed twice."""
    controls = ["standardised", "best-scale", "learned-scale", "frozen-flow"]
    found = graded(planted(PLAIN, seeds=5, noise=0.001), controls=controls)
    assert [(row["comparison"], row["against"], row["verdict"]) for row in found] == [
        (STEPS, "ddpmpp", BETTER),
        (COMPUTE, "ddpmpp same-compute", WORSE),
        (SIMPLE, "ddpmpp standardised", NOT_BETTER),
        (CONTROL, "ddpmpp scale-5", BETTER),
        (CONTROL, "ddpmpp learned-scale", UNDECIDED),
        (CONTROL, "indm frozen-flow", UNDECIDED),
    ]
    assert [row["reason"] for row in found[4:]] == ["not run", "not run"]
    assert list(found[0]) == CLAIM_COLUMNS
    none = {"simple": None, "scale": None}
    found = graded(planted(PLAIN, seeds=5, noise=0.001), controls=controls, grading={"images": none})
    assert [row["against"] for row in found[2:]] == [
        *("", "ddpmpp standardised", "ddpmpp learned-scale", "indm frozen-flow")
    ]
    assert (found[2]["verdict"], found[2]["reason"]) == (UNDECIDED, "the suite does not name one")


def test_differences_of_seeds_are_listed() -> None:
    found = compared(planted(PLAIN, seeds=5, noise=0.01))
    differences = differences_table(found, "s")
    rows = claims_table(found, "s", 4)
    assert differences["seed"].tolist() == 3 * [0, 1, 2, 3, 4]
    means = differences.groupby("comparison")["difference"].mean()
    assert means.to_dict() == pytest.approx(rows.set_index("comparison")["effect"].to_dict())
    spread = differences.groupby("comparison")["difference"].std()
    assert spread.to_dict() == pytest.approx(rows.set_index("comparison")["sd"].to_dict())


# The word of each interval, with the smallest effect 1; an end that touches a bound is not beyond it.
WORDS = {
    (2.0, 3.0): BETTER,
    (1.0, 3.0): UNDECIDED,
    (0.5, 2.0): UNDECIDED,
    (-3.0, 2.0): UNDECIDED,
    (-0.5, 1.0): NOT_BETTER,
    (-3.0, -1.0): NOT_BETTER,
    (-3.0, -2.0): WORSE,
}


@pytest.mark.parametrize("ends", WORDS)
def test_no_model_wins_by_its_failures(ends: tuple[float, float]) -> None:
    """A verdict is withheld if the model that would win failed on more seeds; and with fewer than three seeds, any is."""

    def told(failed: tuple[int, int], n: int = 5, planned: int = 7) -> str:
        return grade(Paired((), np.empty(0), planned, *failed), Interval(0.0, *ends, n), 1.0).word

    expected = WORDS[ends]
    assert [told(failed) for failed in ((0, 0), (2, 2))] == [expected, expected]
    assert told((2, 1)) == (UNDECIDED if expected == BETTER else expected)
    assert told((1, 2)) == (BETTER if expected == BETTER else UNDECIDED)
    assert [told((0, 0), n=2), told((0, 0), planned=0)] == [UNDECIDED, UNDECIDED]


# What the files of suites and claims say together.


@cache
def suites() -> list[Suite]:
    return [load_suite(path) for path in suite_files(REPOSITORY / "params")]


def measured(suite: Suite) -> pd.DataFrame:
    """Lay out a number for each metric of a claim in each run of a suite."""
    rows = [
        run.model_dump(include={*PLACE, "model", "variant", "seed"}) | {"stage": stage, "metric": metric}
        for name, run in suite.runs.items()
        for stage, metric in (("fid", "fid"), ("nll", "nelbo"), ("nll", "gap"), ("curve", "gap"), ("sweep", "fid"))
        if stage != "sweep" or run.objective in suite.sweep.objectives
        if stage != "curve" or suite.train_params(name).snapshots
    ]
    for job in suite.toy2d.datasets.values():
        place: dict[str, Any] = {"dataset": job.label, "sde": "", "objective": "", "stage": "toy2d", "seed": 0}
        names = ["nelbo_excess", "energy", *["true_gap"] * job.is_plane]
        trained = {(model, ""): names for model in ("indm", "ddpmpp")}
        trained |= {RIVALS[name]: names[:1] for name in suite.toy2d.lengths[job.length].rates if name in RIVALS}
        for (model, variant), metrics in trained.items():
            rows += [place | {"model": model, "variant": variant, "metric": metric} for metric in metrics]
    return pd.DataFrame(rows, columns=COLUMNS).assign(sampler="").drop_duplicates()


def test_suites_of_a_question_state_its_primary_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    # Which comparisons there are does not depend on their numbers, of which there are none here.
    monkeypatch.setattr("indm.report.differences._paired", lambda _tables, found, _arm: found)
    claims_of = Claims(claims=[claim for claim in load_claims(FILE).claims if claim.family == "primary"])
    stated: dict[str, set[int]] = defaultdict(set)
    counted: dict[str, int] = defaultdict(int)
    for suite in suites():
        found = compare(measured(suite), NO_IMAGES, claims_of, suite.grading)
        stated[suite.grading.question].add(suite.grading.rows)
        counted[suite.grading.question] += len({(one.claim.id, *one.place.values()) for one in found if one.is_primary})
    assert counted["small-images"] == 8
    for question, rows in stated.items():
        assert rows == {max(counted[question], 1)}, question


def test_controls_of_claims_about_known_densities_can_be_trained() -> None:
    controls = {name for claim in load_claims(FILE).claims if claim.metric.stage == "toy2d" for name in claim.controls}
    assert controls | {"same-compute"} <= {*get_args(MODELS)}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("grading.images.simple", "learned-filter", "images.simple: found 'learned-filter'; allowed: null, or"),
        ("grading.toy2d.scale", "scale-7", "toy2d.scale: found 'scale-7'; allowed: null, or a model of toy2d.lengths"),
        ("grading.samplers", {"indm": "ddim"}, "samplers: found no sampler for ddpmpp; allowed: null, or one for each"),
        ("sweep.samplers", ["dpm_solver_pp_2m"], "samplers.indm: found ode_heun; allowed: dpm_solver_pp_2m, of sweep"),
        ("datasets.digits.validation", 0, "decoder: found validation; allowed: learned or test, since digits has no"),
    ],
)
def test_a_mistake_in_the_grading_is_named(tmp_path: Path, key: str, value: Any, words: str) -> None:
    content = parse_yaml((REPOSITORY / "params/smoke.yaml").read_text())
    *sections, name = key.split(".")
    reduce(dict.__getitem__, sections, content)[name] = value
    (tmp_path / "smoke.yaml").write_text(yaml_text(content))
    with pytest.raises(ParamsError, match=f"key grading.{words}"):
        load_suite(tmp_path / "smoke.yaml")


def test_more_primary_rows_than_stated_are_refused() -> None:
    values = planted(BOTH, seeds=3, noise=0.001)
    found = compared(pd.concat([values, values.assign(sde="ve")]), family="primary")
    assert len(claims_table(found, "s", 2)) == 6
    with pytest.raises(ArtifactError, match=r"^key grading\.rows: found 1; allowed: at least 2, "):
        claims_table(found, "s", 1)


def test_intervals_of_primary_comparisons_share_an_error_rate() -> None:
    """Of four rows with three comparisons each a twelfth; a further control and an exploratory row are decided alone."""
    values = planted(PLAIN | {("ddpmpp", "learned-scale"): 2.1}, seeds=5, noise=0.01)
    numbers = values.set_index(["model", "variant", "seed"])["value"].astype(float).sort_index()

    def ends(variant: str, rows: int) -> tuple[float, float]:
        differences = numbers["ddpmpp", variant] - numbers["indm", ""]
        found = stats.ttest_1samp(differences, 0.0).confidence_interval(1 - 0.05 / rows)
        return float(found.low), float(found.high)

    for family, rows in (("primary", 12), ("exploratory", 1)):
        found = graded(values, family=family, controls=["learned-scale"])
        for row, variant in zip(found, ("", "same-compute", "standardised", "learned-scale"), strict=True):
            alone = row["comparison"] == CONTROL
            assert (row["low"], row["high"]) == pytest.approx(ends(variant, 1 if alone else rows)), row["against"]
            assert row["family"] == ("exploratory" if alone else family)


def test_a_number_that_stands_twice_is_refused() -> None:
    values = planted(BOTH, seeds=5, noise=0.005).assign(source="runs/a/nll.json")
    again = values[values["seed"] == 3].assign(value=9.0)
    with pytest.raises(
        ArtifactError, match=r"^runs/a/nll.json: found a number twice \(digits, vp, indm, nll, 3, nll, gap"
    ):
        graded(pd.concat([values, again]))


def test_a_claim_is_graded_where_the_treatment_was_trained_and_any_model_measured() -> None:
    values = planted(BOTH, 5, 0.001)
    other = planted(BOTH | {("indm", ""): 2.1}, 5, 0.001).assign(sde="ve")
    found = graded(pd.concat([values, other, other.assign(objective="fid")]))
    assert [(row["sde"], row["verdict"]) for row in found if row["comparison"] == STEPS] == [
        ("vp", BETTER),
        ("ve", NOT_BETTER),
    ]
    assert graded(pd.DataFrame(columns=COLUMNS)) == graded(values[values["model"] == "ddpmpp"]) == []
    assert word(values[values["model"] == "indm"]) == (UNDECIDED, "not run")


def test_seeds_are_paired() -> None:
    """The seeds' own spread, 0.3, would drown an effect of 0.1 that is not paired."""
    values = planted(BOTH, seeds=6, noise=0.005)
    values.loc[values["model"] == "ddpmpp", "seed"] += 2
    assert counts(at_steps(values)) == [4, 4, 0, 0]
    assert at_steps(planted(BOTH, seeds=6, noise=0.005))["sd"] < 0.02


def test_baseline_of_another_objective_and_direction_higher() -> None:
    values = planted({("ddpmpp", ""): 2.0}, 5, 0.001)
    both = pd.concat([values, planted({("ddpmpp", ""): 2.5}, 5, 0.001).assign(objective="fid")])
    changes: dict[str, Any] = {"treatment": LINEAR, "baseline": LINEAR | {"objective": "fid"}}
    both = with_spread(both)
    (row,) = graded(both, **changes)
    assert (row["comparison"], row["against"], row["effect"]) == (STEPS, "ddpmpp fid", pytest.approx(0.5, abs=0.01))
    assert word(both, **changes, direction="higher")[0] == WORSE


def test_a_baseline_of_equal_compute_is_compared_there() -> None:
    values = planted({("diffenc", ""): 2.0, ("ddpmpp", "same-compute"): 2.5}, 5, 0.001)
    (row,) = graded(values, treatment=LINEAR | {"model": "diffenc"}, baseline=LINEAR | {"variant": "same-compute"})
    assert (row["comparison"], row["effect"]) == (COMPUTE, pytest.approx(0.5, abs=0.01))


def test_a_treatment_of_one_objective_is_compared_at_its_objective_alone() -> None:
    values = pd.concat(planted(BOTH, seeds=5, noise=0.005).assign(objective=key) for key in ("nll", "fid"))
    found = graded(values, where={"datasets": ["digits"]}, treatment=INDM | {"objective": "fid"})
    assert {row["objective"] for row in found} == {"fid"}


def test_a_fixed_number_is_a_baseline() -> None:
    """It does not fail where all seeds of the treatment do."""
    values = planted({("indm", ""): 2.0, ("ddpmpp", ""): 2.0}, 5, 0.001, shared=0.001)
    for bound, expected in ((2.1, BETTER), (1.9, WORSE), (2.0, NOT_BETTER)):
        (row,) = graded(values, baseline={"value": bound})
        assert (row["comparison"], row["against"], row["verdict"]) == (FIXED_NUMBER, f"{bound:g}", expected)
    lost = pd.concat([values[values["model"] == "ddpmpp"], trained(values)])
    assert counts(at_steps(lost, baseline={"value": 2.1})) == [0, 5, 5, 0]


# Transforms, samplers and decoders.


def test_a_log_of_what_is_not_positive_has_failed() -> None:
    values = planted({("indm", ""): -2.0, ("ddpmpp", ""): 2.0}, 3, 0.005, shared=0.0)
    assert counts(at_steps(values, metric=METRIC | {"transform": "log"})) == [0, 3, 3, 0]


def swept(numbers: Mapping[tuple[str, int], float], sampler: str = "ddim", noise: float = 0.0) -> pd.DataFrame:
    """Lay out a sound FID for each model and number of steps, the same for five seeds but for their noise."""
    same = PLACE | {"stage": "sweep", "metric": "fid", "sampler": sampler, "variant": "", "sound": 1.0}
    generator = np.random.default_rng(0)
    rows = [
        {"model": model, "seed": seed, "x": float(steps), "value": value + generator.normal(0, noise)}
        for seed in range(5)
        for (model, steps), value in numbers.items()
    ]
    return with_spread(pd.DataFrame([same | row for row in rows], columns=COLUMNS))


def test_unsound_steps_are_left_out() -> None:
    """In a sweep, also those of which nothing is said; in two dimensions, those alone of which it is said."""
    values = swept({("indm", 4): 9.0, ("indm", 8): 1.0, ("ddpmpp", 4): 1.0, ("ddpmpp", 8): np.e})
    said = values.assign(sound=(values["x"] == 8).astype(float))
    unknown = values.assign(sound=np.nan)
    assert at_steps(said, metric=FEW_STEPS)["effect"] == pytest.approx(1)
    for found in (unknown, unknown.drop(columns="sound"), values.assign(sound=0.0)):
        assert word(found, metric=FEW_STEPS) == (UNDECIDED, "they have no numbers at the same steps")
    place = {"stage": "toy2d", "metric": "energy", "dataset": "moons", "sde": "", "objective": "", "sampler": ""}
    changes: dict[str, Any] = {"metric": {"stage": "toy2d", "name": "energy", "transform": "log"}, "where": {}}
    expected = (1 - np.log(9)) / 2
    assert at_steps(unknown.assign(**place), **changes)["effect"] == pytest.approx(expected)
    assert at_steps(unknown.drop(columns="sound").assign(**place), **changes)["effect"] == pytest.approx(expected)
    assert at_steps(said.assign(**place), **changes)["effect"] == pytest.approx(1)


def test_each_side_has_the_sampler_that_was_chosen_for_it_at_steps_where_both_are_sound() -> None:
    """By the other one's sampler, or at its other step, the words would be others."""
    own = swept({("indm", 4): 1.0, ("indm", 8): 1.0, ("ddpmpp", 4): 0.1, ("ddpmpp", 8): 0.1}, "ddim")
    other = swept({("indm", 4): 9.0, ("indm", 8): 9.0, ("ddpmpp", 4): 0.01, ("ddpmpp", 8): np.e}, "dpm_solver_pp_2m")
    other["sound"] = (other["x"] == 8).astype(float)
    values, chosen = pd.concat([own, other]), FEW_STEPS | {"sampler": "chosen"}
    samplers = {"indm": "ddim", "ddpmpp": "dpm_solver_pp_2m"}
    row = at_steps(values, metric=chosen, grading={"samplers": samplers})
    assert (row["verdict"], row["effect"]) == (BETTER, pytest.approx(1.0))
    assert row["protocol"] == "ddim against dpm_solver_pp_2m"
    assert word(values, metric=FEW_STEPS)[0] == WORSE
    verdict, reason = word(values, metric=chosen)
    assert (verdict, reason.startswith("samplers were not chosen")) == (UNDECIDED, True)


LIKELIHOODS = ("nelbo", "nelbo_fixed")


def decoded(numbers: Mapping[str, tuple[float, float]], stage: str = "nll", x: float = np.nan) -> pd.DataFrame:
    """Plant for each model what four seeds have by the learned decoder and by the fixed one."""
    found = [
        planted({(model, ""): mean}, 4, 0.001, shared=0.0).assign(metric=metric, stage=stage, x=x)
        for model, means in numbers.items()
        for metric, mean in zip(LIKELIHOODS, means, strict=True)
    ]
    return with_spread(pd.concat(found, ignore_index=True))


NELBO: dict[str, Any] = {"metric": {"stage": "nll", "name": "nelbo"}}
DECODED = {"indm": (5.0, 2.0), "ddpmpp": (3.0, 6.0)}


@pytest.mark.parametrize(
    ("decoder", "effect", "protocol"),
    [("learned", -2.0, "learned decoder"), ("test", 1.0, "fixed decoder against learned decoder")],
)
def test_a_decoder_is_stated_or_has_the_lower_bound(decoder: str, effect: float, protocol: str) -> None:
    row = at_steps(decoded(DECODED), grading={"decoder": decoder}, **NELBO)
    assert (row["effect"], row["protocol"]) == (pytest.approx(effect, abs=0.01), protocol)


def test_validation_chooses_the_decoder_of_a_cell_and_not_of_a_seed() -> None:
    """By the last snapshot's mean over seeds: of one seed, and of the first snapshot, the other decoder would be better."""
    grading = {"decoder": "validation"}
    early, last = {"indm": (1.0, 9.0), "ddpmpp": (9.0, 1.0)}, {"indm": (2.1, 2.0), "ddpmpp": (2.0, 2.1)}
    curves = [decoded(early, "curve", 10.0), decoded(last, "curve", 20.0)]
    one = curves[1]["seed"] == 1
    curves[1].loc[one, "value"] = 4.05 - curves[1].loc[one, "value"]
    values = pd.concat([decoded(DECODED), *curves])
    row = at_steps(values, grading=grading, **NELBO)
    assert row["effect"] == pytest.approx(1.0, abs=0.01)
    assert row["protocol"] == "fixed decoder against learned decoder"
    lacks = values[(values["stage"] == "nll") | (values["metric"] == "nelbo")]
    assert word(lacks, grading=grading, **NELBO) == (
        UNDECIDED,
        "numbers of both decoders, which choose one, are missing",
    )
    gaps = planted(BOTH, 4, 0.001)
    assert at_steps(gaps, grading=grading)["verdict"] == BETTER


def test_a_decoder_s_numbers_fail_beyond_the_bound_of_their_metric() -> None:
    values = decoded(DECODED)
    assert counts(at_steps(values, NO_IMAGES, {"nelbo": 2.5}, {"decoder": "test"}, **NELBO)) == [0, 4, 0, 4]
    assert counts(at_steps(values, NO_IMAGES, {"nelbo": 4.5}, {"decoder": "learned"}, **NELBO)) == [0, 4, 4, 0]


# Seeds that failed.

# How a seed fails: the number is missing, not finite, or beyond the suite's bound.
FAILURES: dict[str, Callable[[pd.DataFrame, "pd.Series[bool]"], pd.DataFrame]] = {
    "missing": lambda values, failed: values[~failed],
    "infinite": lambda values, failed: values.assign(value=values["value"].mask(failed, np.inf)),
    "beyond": lambda values, failed: values.assign(value=values["value"].mask(failed, 8.5)),
}


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize(("model", "ahead"), [("indm", 1), ("indm", -1), ("ddpmpp", 1), ("ddpmpp", -1)])
def test_a_seed_that_failed_in_one_model_is_left_out_and_counted(how: str, model: str, ahead: int) -> None:
    """The model that would win among the sound seeds does not, if it failed on more of them."""
    values = planted(BOTH | {("indm", ""): 2.1 - 0.1 * ahead}, seeds=6, noise=0.005)
    failed = (values["model"] == model) & (values["seed"] == 2)
    found = pd.concat([FAILURES[how](values, failed), trained(values)])
    row = at_steps(found, NO_IMAGES, {"gap": 8.0})
    assert counts(row) == [5, 6, *((1, 0) if model == "indm" else (0, 1))]
    winner_failed = (model == "indm") == (ahead == 1)
    assert row["verdict"] == (UNDECIDED if winner_failed else BETTER if ahead == 1 else WORSE)
    assert row["reason"].startswith("failures") == winner_failed
    # Without the bound, it is a number like others.
    assert (at_steps(found)["n"] == 6) == (how == "beyond")


def test_points_have_their_own_bound() -> None:
    """They are distances from the truth, so the bound on the NLL of images does not count, and vice versa."""
    values = planted(BOTH, seeds=6, noise=0.005).assign(stage="toy2d", dataset="moons", sound=1, metric="nll_excess")
    values.loc[(values["model"] == "ddpmpp") & (values["seed"] == 2), "value"] = 511.0
    of_points: dict[str, Any] = {"metric": {"stage": "toy2d", "name": "nll_excess"}, "where": {}}
    for bounds, failed in (({"nll": 1.0}, 0), ({"toy2d.nll_excess": 10.0}, 1), ({"toy2d.nelbo_excess": 1.0}, 0)):
        assert at_steps(values, NO_IMAGES, bounds, **of_points)["failed_against"] == failed
    images = planted(BOTH, seeds=6, noise=0.005)
    assert at_steps(images, NO_IMAGES, {"toy2d.gap": 1.0})["failed_against"] == 0


def test_what_one_model_was_not_measured_at_is_no_failure() -> None:
    """Of FIDs in other numbers of steps nothing is said."""
    values = planted(BOTH, seeds=4, noise=0.005).assign(x=100.0)
    row = at_steps(values.assign(x=values["x"].mask(values["model"] == "indm", 50.0)))
    assert (row["verdict"], counts(row)) == (UNDECIDED, [0, 4, 0, 0])


def test_seeds_without_a_number_in_either_model_have_failed_in_both() -> None:
    """They were planned: a further model was measured."""
    values = planted(PLAIN, seeds=4, noise=0.005)
    row = at_steps(pd.concat([values[values["variant"] != ""], trained(values)]))
    assert (row["verdict"], counts(row)) == (UNDECIDED, [0, 4, 4, 4])


@pytest.mark.parametrize(
    ("cells", "lost", "expected"), [(1, 1, WORSE), (2, 1, WORSE), (1, 3, UNDECIDED), (2, 5, UNDECIDED)]
)
def test_a_seed_that_fails_in_one_cell_of_a_sweep_has_failed(cells: int, lost: int, expected: str) -> None:
    """At 4 steps INDM is worse, so that without this cell the claim would be better."""
    numbers = {("indm", 4): 40.0, ("indm", 16): 2.0, ("ddpmpp", 4): 20.0, ("ddpmpp", 16): 2.1}
    values = swept(numbers, noise=0.01)
    gone = (values["model"] == "indm") & (values["seed"] < lost) & values["x"].isin([4.0, 16.0][:cells])
    row = at_steps(pd.concat([values[~gone], trained(values)]), metric=FEW_STEPS)
    assert (row["verdict"], counts(row)) == (expected, [5 - lost, 5, lost, 0])


# Intervals.


@pytest.mark.parametrize("n", [3, 10])
def test_intervals_are_students(n: int) -> None:
    """With the tails that they are asked for; of equal numbers, none."""
    assert interval(np.ones(n)) == Interval(1.0, 1.0, 1.0, n)
    numbers = np.random.default_rng(n).normal(0.3, 1.0, n)
    for many in (1, 4, 24):
        found, expected = (
            interval(numbers, TAIL / many),
            stats.ttest_1samp(numbers, 0.0).confidence_interval(1 - 0.05 / many),
        )
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


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


@pytest.mark.parametrize(("seeds", "images"), [(3, 100), (10, 360)])
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


def of_images(numbers: Mapping[str, NDArray[np.float64]], **more: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Plant numbers (S, I) of images for each model, and with them their means as values."""
    same = PLACE | {"suite": "s", "stage": "nll", "variant": "", "x": np.nan}
    rows, values = [], []
    for model, found in numbers.items():
        for seed, of_seed in enumerate(found):
            run = same | {"model": model, "seed": seed} | more
            values.append(run | {"metric": "gap", "sampler": "", "value": of_seed.mean()})
            rows += [run | {"image": image, "gap": value} for image, value in enumerate(of_seed)]
    return with_spread(pd.DataFrame(values, columns=COLUMNS)), with_spread(pd.DataFrame(rows, columns=IMAGES), "gap")


def test_a_claim_about_likelihoods_crosses_seeds_and_images() -> None:
    """All seeds agree on an effect that few of the images have: other seeds would repeat it, other images need not."""
    generator = np.random.default_rng(0)
    luck = 0.4 * (np.arange(40) % 20 == 0) + generator.normal(0, 1e-4, (3, 40))
    base = generator.normal(2.0, 0.3, 40) + generator.normal(0, 0.1, (3, 1))
    values, images = of_images({"indm": base - luck, "ddpmpp": base})
    alone, row = at_steps(values), at_steps(values, images)
    assert (alone["verdict"], alone["test"], pd.isna(alone["images"])) == (BETTER, STUDENT, True)
    assert row["effect"] == pytest.approx(alone["effect"])
    assert (row["verdict"], row["n"], row["images"], row["test"]) == (UNDECIDED, 3, 40, CROSSED)
    assert (row["low"], row["high"]) == pytest.approx(interval(luck)[1:3])
    assert row["repeatability"] == pytest.approx(repeatability(paired(luck), 0.01)[UNDECIDED])


def test_images_have_the_numbers_of_the_chosen_decoder() -> None:
    """A column without numbers counts as none."""
    base = np.random.default_rng(0).normal(2.0, 0.3, (3, 40))
    values, images = of_images({"indm": base - 0.1, "ddpmpp": base})
    higher = {name: values["value"] + 9 + (name == "nelbo") for name in LIKELIHOODS}
    values = pd.concat(values.assign(metric=name, value=found) for name, found in higher.items())
    images = images.drop(columns=["nelbo", "nelbo_fixed"]).rename(columns={"gap": "nelbo_fixed"}).assign(nelbo=np.nan)
    for decoder, expected in (("test", 40), ("learned", None)):
        row = at_steps(values, images, grading={"decoder": decoder}, **NELBO)
        assert row["effect"] == pytest.approx(0.1)
        assert (None if pd.isna(row["images"]) else row["images"]) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(rows.index[5:40]), "found 5 images, expected the 40 that runs of the dataset have"),
        (lambda rows: rows.replace({"image": {39: 40}}), "found 40 images, expected the 41 that runs of the"),
        (lambda rows: rows.replace({"image": {39: 38}}), "found image 38 twice, expected each once"),
    ],
    ids=["fewer", "others", "twice"],
)
def test_a_run_of_other_images_is_refused(change: Callable[[pd.DataFrame], pd.DataFrame], message: str) -> None:
    """Else all seeds would be compared by the few images that they share."""
    values, images = of_images({"indm": np.full((3, 40), 2.0), "ddpmpp": np.full((3, 40), 2.1)})
    one = (images["model"] == "indm") & (images["seed"] == 1)
    images = pd.concat([images[~one], change(images[one])])
    with pytest.raises(ArtifactError, match=rf"^nll\.csv of digits, vp, (indm|ddpmpp), nll, \d: {message}"):
        compared(values, images)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_single_training_has_an_interval_over_images(seeds: int) -> None:
    """For these weights: however wide the seeds lie apart, it does not widen."""
    generator = np.random.default_rng(0)
    base = generator.normal(2.0, 0.3, 40)
    gain = 0.1 + generator.normal(0, 0.02, (seeds, 40)) + np.array([[0.0], [0.5]])[:seeds]
    row = at_steps(*of_images({"indm": base - gain, "ddpmpp": base * np.ones((seeds, 1))}))
    expected = stats.ttest_1samp(gain.mean(0), 0.0).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert (row["verdict"], row["n"], row["images"], row["test"]) == (UNDECIDED, seeds, 40, OVER_IMAGES)


def linear_log(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = numbers.mean(1, keepdims=True)
    return np.log(mean) + numbers / mean - 1


def test_a_transform_is_of_the_mean_over_images() -> None:
    """Each image counts by the linear part of the logarithm at their mean."""
    generator = np.random.default_rng(0)
    treated, other = (generator.normal(mean, 0.3, 50) + generator.normal(0, 0.01, (3, 50)) for mean in (0.2, 0.5))
    values, images = of_images({"indm": treated, "ddpmpp": other})
    metric = METRIC | {"transform": "log"}
    alone, row = at_steps(values, metric=metric), at_steps(values, images, metric=metric)
    assert row["effect"] == pytest.approx(alone["effect"])
    assert (row["low"], row["high"]) == pytest.approx(interval(linear_log(other) - linear_log(treated))[1:3])


def test_a_run_whose_mean_over_images_is_beyond_the_bound_has_failed() -> None:
    """Single images may be."""
    base = np.random.default_rng(0).normal(2.0, 1.0, (5, 40))
    values, images = of_images({"indm": base - 0.1, "ddpmpp": base + 5 * (np.arange(5) == 3)[:, None]})
    row = at_steps(values, images, {"gap": 3.0})
    assert (counts(row), row["images"], row["effect"]) == ([4, 5, 0, 1], 40, pytest.approx(0.1))


# Learning curves.


def test_a_learning_curve_averages_its_steps_for_each_image() -> None:
    generator = np.random.default_rng(0)
    steps = [of_images({model: generator.normal(mean, 0.1, (3, 20)) for model, mean in (("indm", 2.0), ("ddpmpp", 2.1))},
                       stage="curve", x=x) for x in (10.0, 20.0)]  # fmt: skip
    values, images = (pd.concat(found) for found in zip(*steps, strict=True))
    row = at_steps(pd.concat([values, trained(values, 20.0)]), images, metric=CURVE)
    assert row["images"] == 20
    numbers = images.groupby(["model", "seed", "image"])["gap"].mean().unstack()
    expected = interval((numbers.loc["ddpmpp"] - numbers.loc["indm"]).to_numpy())
    assert (row["effect"], row["low"], row["high"]) == pytest.approx(expected[:3])


def curves(lengths: Mapping[str, float], numbers: Mapping[str, Mapping[float, float]]) -> pd.DataFrame:
    """Lay out learning curves: steps of each model's training, and its numbers by the step of the snapshot; of three seeds."""
    same = PLACE | {"suite": "s", "variant": "", "sampler": "", "stage": "curve", "metric": "gap"}
    rows = [
        same | {"model": model, "seed": seed, "x": x, "value": value}
        for seed in range(3)
        for model, found in numbers.items()
        for x, value in found.items()
    ]
    values = with_spread(pd.DataFrame(rows, columns=COLUMNS))
    return pd.concat([values, *(trained(values[values["model"] == name], steps) for name, steps in lengths.items())])


def test_a_learning_curve_compares_equal_shares_of_each_training() -> None:
    """DDPM++ is trained about twice as long; at as many steps as the treatment's it would be compared with other shares."""
    numbers = {"indm": {10.0: 1.0, 20.0: 0.7, 40.0: 0.5}, "ddpmpp": {20.0: 1.1, 41.0: 0.9, 81.0: 0.8}}
    row = at_steps(curves({"indm": 40.0, "ddpmpp": 81.0}, numbers), metric=CURVE)
    assert row["effect"] == pytest.approx((0.1 + 0.2 + 0.3) / 3)


def test_shares_are_of_the_training_and_not_of_its_last_snapshot() -> None:
    """The same curve in both models, of which one has no snapshot at the end: all of its seeds have failed."""
    curve = {125.0: 1.0, 250.0: 0.5, 500.0: 0.2, 1000.0: 0.1}
    early = {step: value for step, value in curve.items() if step < 1000}
    lengths = {"indm": 1000.0, "ddpmpp": 1000.0}
    for model, failed in (("ddpmpp", [0, 3]), ("indm", [3, 0])):
        numbers = {name: early if name == model else curve for name in lengths}
        assert counts(at_steps(curves(lengths, numbers), metric=CURVE))[2:] == failed


def test_same_compute_has_snapshots_at_the_shares_of_indms() -> None:
    for suite in suites():
        plain = {
            (run.dataset, run.sde, run.objective): name
            for name, run in suite.runs.items()
            if run.model == "indm" and not run.variant
        }
        for name, run in suite.runs.items():
            train, indm = suite.train_params(name), plain.get((run.dataset, run.sde, run.objective))
            if indm and run.objective == "nll" and run.variant in ("", "same-compute") and train.snapshots:
                own = suite.train_params(indm)
                assert [round(step * own.steps / train.steps) for step in train.snapshots] == own.snapshots, name


# A rerun, and the seeds that would decide.

# Seeds, mean and deviation of the differences, and the tail of their interval.
REPEATED = [(3, 0.1, 0.03, TAIL), (3, -0.05, 0.03, TAIL / 12), (5, 0.06, 0.05, TAIL), (9, 0.0, 0.02, TAIL / 12)]
REPEATED += [(6, 0.012, 0.003, TAIL)]


def rates(drawn: NDArray[np.float64], tail: float) -> dict[str, float]:
    """Return how often each word is given."""
    words = [grade(paired(one), interval(one, tail), 0.01).word for one in drawn]
    return {name: words.count(name) / len(words) for name in (BETTER, WORSE, NOT_BETTER, UNDECIDED)}


@pytest.mark.parametrize(("n", "mean", "deviation", "tail"), REPEATED)
def test_repeatability_is_how_often_repetitions_agree(n: int, mean: float, deviation: float, tail: float) -> None:
    """Were what was found the truth: 2,000 repetitions by the same number of other seeds, smallest effect 0.01."""
    expected = rates(np.random.default_rng(0).normal(mean, deviation, (2000, n)), tail)
    found = repeatability(paired(exactly(mean, deviation, n)), 0.01, tail)
    assert sum(found.values()) == pytest.approx(1)
    assert found == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("mean", [-0.06, 0.06])
@pytest.mark.parametrize(("of_seeds", "of_images"), [(0.004, 0.001), (0.004, 0.05), (0.002, 0.3)])
def test_repeatability_of_crossed_intervals(mean: float, of_seeds: float, of_images: float) -> None:
    """Were what was found the truth: 500 repetitions by other seeds and images."""
    rest, found = 0.01, tables(mean, of_seeds, of_images, 0.01, 4, 60, 1)[0]
    _, part_of_seeds, part_of_images, *_ = estimate(found)
    truth = (4 * part_of_seeds - rest / 60, 60 * part_of_images, rest)
    expected = rates(tables(found.mean(), *truth, 4, 60, 500), TAIL)
    assert repeatability(paired(found), 0.01) == pytest.approx(expected, abs=0.06)


def test_a_rerun_withholds_what_failures_withhold() -> None:
    for sign, won, failed in ((1, BETTER, (1, 0)), (-1, WORSE, (0, 1)), (0, NOT_BETTER, (0, 1))):
        sure = exactly(0.1 * sign, 0.001, 5)
        assert repeatability(paired(sure), 0.01)[won] == pytest.approx(1)
        withheld = repeatability(paired(sure, failed), 0.01)
        assert (withheld[won], withheld[UNDECIDED]) == (0, pytest.approx(1))
        assert repeatability(paired(sure, failed[::-1]), 0.01)[won] == pytest.approx(1)


@pytest.mark.parametrize("noise", [0.0, 1e-12])
def test_seeds_without_any_spread_are_no_evidence(noise: float) -> None:
    """As if the results of one seed had been copied to the others; two seeds decide nothing anyway."""
    with pytest.raises(ArtifactError, match=r"found the same difference, .*, for all 3 seeds"):
        graded(planted(BOTH, seeds=3, noise=noise))
    assert at_steps(planted(BOTH, seeds=2, noise=noise))["verdict"] == UNDECIDED
    assert at_steps(planted(BOTH, seeds=3, noise=1e-5))["verdict"] == BETTER


def test_seeds_that_agree_to_the_last_digit_repeat() -> None:
    """Also at the bounds."""
    same = np.full(3, 0.25)
    for differences, smallest, expected in ((same, 0.01, BETTER), (-same, 0.01, WORSE), (same, 0.25, NOT_BETTER)):
        assert repeatability(paired(differences), smallest)[expected] == 1
    assert repeatability(paired(-same), 0.25)[NOT_BETTER] == repeatability(paired(0 * same), 0.0)[NOT_BETTER] == 1


@pytest.mark.parametrize("spread", [0.004, 0.007, 0.015])
@pytest.mark.parametrize("tail", [TAIL, TAIL / 12])
def test_seeds_needed_have_the_power_and_one_fewer_has_not(spread: float, tail: float) -> None:
    """For twice the smallest effect, by the noncentral distribution; what was found changes nothing."""
    found = {seeds_needed(exactly(mean, spread, 4), 0.01, tail) for mean in (0.0, 0.5)}

    def short(n: float) -> float:
        return float(stats.nct.sf(stats.t.isf(tail, n - 1), n - 1, np.sqrt(n) * 0.01 / spread)) - 0.8

    assert found == {str(int(np.ceil(optimize.brentq(short, 2, 100))))}


def test_seeds_needed_of_crossed_differences() -> None:
    """Planted 500 times as a table of seeds and images."""
    spread, of_image, rest, images = 0.006, 0.03, 0.02, 100
    pilot = tables(0.0, spread**2, of_image**2, rest**2, 8, images, 1)[0]
    found, seeds = estimate(pilot), int(seeds_needed(pilot, 0.01))
    truth = (found.of_seeds * 8 - rest**2 / images, found.of_images * images, rest**2)
    power = [rates(tables(0.02, *truth, n, images, 500), TAIL)[BETTER] for n in (seeds - 1, seeds)]
    error = 3 * np.sqrt(0.16 / 500)
    assert power[0] - error <= 0.8 <= power[1] + error


def test_what_no_number_of_seeds_decides_says_so() -> None:
    assert seeds_needed(exactly(0.0, 0.1, 5), 0.01) == "over 50"
    assert seeds_needed(exactly(0.0, 0.1, 5), 0.0) == seeds_needed(np.ones(1), 0.01) == "unknown"
    lucky = np.random.default_rng(0).normal(0, 0.2, 40) + np.random.default_rng(1).normal(0, 1e-4, (3, 40))
    assert seeds_needed(lucky, 0.01) == "more images"
    row = at_steps(planted(BOTH, seeds=5, noise=0.005))
    assert row["to_decide"] == seeds_needed(exactly(0.0, row["sd"], 5), 0.01)


# The file.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"smallest": SMALLEST | {"unit": "NA"}}, ".smallest.unit: found 'NA'; allowed: another text"),
        ({"smallest": SMALLEST | {"effect": -1.0}}, ".smallest.effect: found -1.0; allowed: "),
        ({"unitt": "x"}, ".unitt: unknown key"),
        ({"direction": "up"}, ".direction: found 'up'; allowed: "),
        ({"controls": ["scale-2", "best"]}, ".controls: found 'best'; allowed: exponent-10, "),
        ({"baseline": LINEAR | {"variant": "mine"}}, ".baseline.variant: found 'mine'; allowed: "),
        ({"metric": METRIC | {"x": [3.0, 1.0]}}, ".metric: x: found [3.0, 1.0]; allowed: the smaller number first"),
        ({"metric": METRIC | {"stage": "fid"}}, ".metric: name: found 'gap'; allowed: fid, fid_infinity, kid, "),
        ({"metric": METRIC | {"sampler": "pc"}}, ".metric: sampler: found 'pc'; allowed: no name"),
        ({"metric": FEW_STEPS | {"sampler": "ode"}}, ".metric: sampler: found 'ode'; allowed: chosen, ancestral, "),
        ({"metric": METRIC | {"transform": "log"}, "baseline": {"value": 0.0}}, ": baseline: found 0; allowed: "),
        ({"where": {"datasets": ["digitz"]}}, ": where.datasets: found 'digitz'; allowed: celeba64, celeba64-6000, "),
        ({"metric": METRIC | {"stage": "toy2d"}}, ": where.datasets: found 'digits'; allowed: no name, "),
        ({"treatment": LINEAR}, ": baseline: found null; allowed: a model or a number"),
        ({"baseline": LINEAR, "controls": ["scale-2"]}, ": controls: found scale-2; allowed: []"),
        ({"baseline": INDM | {"objective": "nll"}}, ": claim better: found the same numbers, from indm, for "),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(yaml_text({"claims": [CLAIM | changes]}))
    with pytest.raises(ParamsError) as caught:
        load_claims(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: key claims.{changes.get('id', 'better')}{words}")


def test_other_mistakes_in_the_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    with pytest.raises(ParamsError, match=r"claims\.yaml: missing"):
        load_claims(path)
    (tmp_path / "own.yaml").write_text("runs: {a: {model: ddpmpp, variant: another}, b: {model: indm, variant: mine}}")
    path.write_text(yaml_text({"claims": [CLAIM | {"controls": ["another"]}]}))
    assert load_claims(path).claims[0].controls == ["another"]
    for content, words in (
        ({"claims": [CLAIM, CLAIM]}, "found the id better twice"),
        ({"claims": [{"id": "x"}]}, "key claims.x.statement: missing"),
        ([], "expected a mapping of the keys claims"),
    ):
        path.write_text(yaml_text(content))
        with pytest.raises(ParamsError, match=words):
            load_claims(path)
