"""How many seeds would decide a claim: by simulation of planted effects, and what the table says where none would."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from indm.report.differences import compare
from indm.report.intervals import TAIL, interval
from indm.report.intervals import estimate as estimated
from indm.report.power import MOST_SEEDS, POWER_COLUMNS, power_table, seeds_needed
from indm.report.results import records
from indm.suite.claims import Claims
from tests.test_claims import CLAIM, LINEAR, NO_IMAGES, PLAIN, claims, exactly, of_images, planted, tables


def powered(values: pd.DataFrame, images: pd.DataFrame = NO_IMAGES, **changes: Any) -> dict[str, Any]:
    table = power_table(compare(values, images, claims(**changes)), "s")
    assert list(table) == POWER_COLUMNS
    (row,) = records(table)
    return row


@pytest.mark.parametrize("spread", [0.004, 0.007, 0.015])
@pytest.mark.parametrize("tail", [TAIL, TAIL / 4])
def test_seeds_needed_have_the_power_and_one_fewer_has_not(spread: float, tail: float) -> None:
    """Twice the smallest effect, planted 4,000 times: as many seeds lie above it in 80 %, one seed fewer does not."""
    pilot = exactly(0.5, spread, 4)
    seeds = seeds_needed([(pilot, 0.01)], tail)
    assert seeds is not None
    generator = np.random.default_rng(0)

    def power(n: int) -> float:
        drawn = generator.normal(0.02, spread, (4000, n))
        return float((stats.ttest_1samp(drawn, 0.01, axis=1, alternative="greater").pvalue <= tail).mean())

    error = 3 * np.sqrt(0.16 / 4000)
    assert power(seeds) >= 0.8 - error
    assert seeds == 3 or power(seeds - 1) <= 0.8 + error


def test_seeds_needed_are_those_of_the_noncentral_distribution() -> None:
    def short(n: float) -> float:
        point = stats.t.isf(TAIL, n - 1)
        return float(stats.nct.sf(point, n - 1, np.sqrt(n) * 0.01 / 0.02)) - 0.8

    assert seeds_needed([(exactly(0.0, 0.02, 5), 0.01)]) == int(np.ceil(optimize.brentq(short, 3, 100)))


def test_seeds_needed_of_crossed_differences() -> None:
    """Planted 500 times as a table of seeds and images."""
    spread, of_image, rest, images = 0.006, 0.03, 0.02, 100
    pilot = tables(0.0, spread**2, of_image**2, rest**2, 8, images, 1)[0]
    found = estimated(pilot)
    seeds = seeds_needed([(pilot, 0.01)])
    assert seeds is not None
    truth = (found.of_seeds * 8 - rest**2 / images, found.of_images * images, rest**2)
    power = [
        np.mean([interval(one).low > 0.01 for one in tables(0.02, *truth, n, images, 500)]) for n in (seeds - 1, seeds)
    ]
    assert power[1] >= 0.8 - 3 * np.sqrt(0.16 / 500)
    assert power[0] <= 0.8 + 3 * np.sqrt(0.16 / 500)


def test_the_table_names_the_control_that_needs_most() -> None:
    """Against the baseline one smallest effect is to be told, against a control two: its spread is three times as wide."""
    values = planted(PLAIN, seeds=5, noise=0.004)
    wide = values["variant"] == "standardised"
    values.loc[wide, "value"] += exactly(0.0, 0.03, 5)
    row = powered(values)
    assert (row["control"], row["assumed_effect"], row["n"]) == ("standardised", 0.02, 5)
    assert row["seeds_needed"] >= row["seeds_control"] > row["seeds_baseline"]
    assert row["note"] == ""
    numbers = values[values["metric"] == "nll"].set_index(["model", "variant", "seed"]).sort_index()["value"]
    paired = (numbers["ddpmpp", ""] - numbers["indm", ""]).astype(float)
    assert row["sd"] == pytest.approx(paired.std())
    assert row["seeds_baseline"] == seeds_needed([(paired.to_numpy(), 0.01)])


def test_seeds_needed_show_a_claim_against_everything_at_once() -> None:
    """Of arms that share the treatment, planted 4,000 times: each comparison alone needs fewer seeds than all together."""
    spread, others = 0.012, 5
    pilot = exactly(0.0, spread, 4)
    seeds, alone = (seeds_needed([(pilot, 0.01)] * count) for count in (others, 1))
    assert seeds is not None
    assert alone is not None

    def power(n: int) -> float:
        drawn = np.random.default_rng(0).normal(0, spread / np.sqrt(2), (4000, others + 1, n))
        found = stats.ttest_1samp(0.01 + drawn[:, 1:] - drawn[:, :1], 0.0, axis=2, alternative="greater")
        return float((found.pvalue <= TAIL).all(1).mean())

    error = 3 * np.sqrt(0.16 / 4000)
    assert power(seeds) >= 0.8 - error
    assert power(alone) < 0.65


def test_an_effect_that_was_found_changes_nothing() -> None:
    values = [planted(PLAIN | {("indm", ""): mean}, seeds=4, noise=0.005) for mean in (2.0, 3.0)]
    first, second = (power_table(compare(one, NO_IMAGES, claims(controls=[])), "s") for one in values)
    assert first["seeds_needed"].notna().all()
    pd.testing.assert_frame_equal(first, second)


def test_primary_rows_need_more() -> None:
    values = planted({("indm", ""): 2.0, ("ddpmpp", ""): 2.1}, seeds=5, noise=0.005)
    family = [CLAIM | {"id": name, "controls": [], "family": "primary"} for name in ("one", "two", "three", "four")]
    alone = CLAIM | {"controls": []}
    table = power_table(
        compare(values, NO_IMAGES, Claims.model_validate({"controls": {}, "claims": [*family, alone]})), "s"
    )
    needed = table["seeds_needed"].tolist()
    assert needed[:4] == [needed[0]] * 4
    assert needed[0] > needed[4]


def test_what_cannot_be_decided_says_why() -> None:
    noisy = powered(planted({("indm", ""): 2.0, ("ddpmpp", ""): 2.1}, 5, 0.1), controls=[])
    assert pd.isna(noisy["seeds_needed"])
    assert noisy["note"] == f"cannot be decided here against the baseline (more than {MOST_SEEDS} seeds)"
    close = planted(PLAIN, 5, 0.0)
    for variant, spread in {"": 0.024, "standardised": 0.048}.items():
        place = (close["model"] == "ddpmpp") & (close["variant"] == variant) & (close["metric"] == "nll")
        close.loc[place, "value"] += exactly(0.0, spread, 5)
    together = powered(close, controls=["standardised"])
    assert max(together["seeds_baseline"], together["seeds_control"]) <= MOST_SEEDS
    assert pd.isna(together["seeds_needed"])
    assert together["note"] == f"cannot be decided here against all of them together (more than {MOST_SEEDS} seeds)"
    generator = np.random.default_rng(0)
    lucky = generator.normal(0, 0.2, 40) + generator.normal(0, 1e-4, (3, 40))
    base = generator.normal(2.0, 0.3, 40) + generator.normal(0, 0.1, (3, 1))
    images = powered(*of_images({"indm": base - lucky, "ddpmpp": base}), controls=[])
    assert pd.isna(images["seeds_needed"])
    assert images["floor"] == pytest.approx(lucky.mean(0).std(ddof=1) / np.sqrt(40), rel=0.01)
    assert images["note"] == "cannot be decided here against the baseline (more images)"


def test_what_has_no_spread_or_no_effect_to_assume_says_so() -> None:
    assert powered(planted(PLAIN, 1, 0.005))["note"] == "one seed: the spread over seeds is not known"
    bound = powered(planted({("indm", ""): 2.0}, 4, 0.005), baseline={"value": 2.1}, controls=[], smallest=0.0)
    assert bound["note"] == "no smallest effect to assume a multiple of"
    assert bound["sd"] > 0
    alone = powered(planted({("indm", ""): 2.0, ("ddpmpp", ""): 2.1}, 4, 0.004))
    assert alone["note"] == "without standardised, scale: no two seeds here"
    assert alone["seeds_needed"] == alone["seeds_baseline"]
    assert (
        len(power_table(compare(planted({("indm", ""): 2.0}, 4, 0.005), NO_IMAGES, claims(baseline=LINEAR)), "s")) == 0
    )
