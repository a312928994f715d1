"""The simulations behind docs/claims.md: their short cuts agree with the functions of a suite, and their rates hold."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import calibration
from benchmarks.calibration import COMPARISONS, DDPMPP, FEW_STEPS, NELBO, NUISANCES, QUESTION, ROWS, WORDS, Compared
from benchmarks.rates import LEVEL, Setting, coverage, fitted, lowest
from indm.bench.suite.claims import load_claims
from indm.bench.suite.load import load_suite
from indm.report.differences import COMPARISONS as KINDS
from indm.report.differences import Paired
from indm.report.grades import BETTER, NOT_BETTER, UNDECIDED, WORSE, grade
from indm.report.intervals import TAIL, Interval, estimate
from tests.conftest import REPOSITORY

QUESTIONS = 2000
# Situations in which a question's rates are kept, however many seeds it has.
KEPT = ("normal", "unequal variances", "heavy tails", "failures in INDM", "failures in DDPM++")


def test_words_are_given_as_each_comparison_is_graded() -> None:
    generator = np.random.default_rng(0)
    low = np.round(generator.normal(0, 1, 400), 1)
    high, sound = np.round(low + generator.uniform(0, 2, 400), 1), generator.integers(2, 5, 400)
    failed = generator.integers(0, 2, (400, 2))
    found = calibration.words(low, high, sound, failed[:, 0] - failed[:, 1])
    for i in range(400):
        one = grade(Paired((), np.empty(0), 6, *failed[i].tolist()), Interval(0.0, low[i], high[i], int(sound[i])), 1.0)
        assert [word for word in WORDS if found[word][i]] == [word for word in (one.word,) if word != UNDECIDED]
    assert all(found[word].any() for word in WORDS)


def test_estimates_are_distributed_as_those_of_tables_of_seeds_and_images() -> None:
    n, draws, images = 4, 500, calibration.IMAGES
    generator = np.random.default_rng(1)
    scale = np.sqrt(calibration.OVER_SEEDS**2 - calibration.INTERACTION**2 / images)
    tables = (
        scale * generator.normal(size=(n, 1))
        + calibration.OVER_IMAGES * generator.normal(size=(1, images))
        + calibration.INTERACTION * generator.normal(size=(n, images))
        for _ in range(draws)
    )
    whole = np.array([estimate(table)[:3] for table in tables]).T
    seeds = calibration.OVER_SEEDS * generator.normal(size=(draws, 1, n))
    short = calibration.estimated(generator, seeds, np.ones_like(seeds, bool), np.array([True]))
    luck = calibration.OVER_IMAGES / np.sqrt(images) * generator.normal(size=(draws, 1))
    for found, expected in zip((short.mean + luck, *short[1:3]), whole, strict=True):
        assert found.std() == pytest.approx(expected.std(), rel=0.15)
        assert np.median(found) == pytest.approx(np.median(expected), abs=0.25 * expected.std())


def test_a_question_has_the_primary_rows_of_its_claims() -> None:
    claims = [claim for claim in load_claims(REPOSITORY / "params/claims.yaml").claims if claim.family == "primary"]
    for objective, rows in ROWS.items():
        of_indm = [claim for claim in claims if claim.baseline is None and "digits" in claim.where.datasets]
        here = [claim for claim in of_indm if objective in claim.where.objectives]
        stages = {"nll": NELBO, "fid": calibration.FID, "sweep": FEW_STEPS}
        assert [stages[claim.metric.stage] for claim in here] == rows
    stated = load_suite(REPOSITORY / "params/digits-seeds.yaml").grading.rows
    assert len(KINDS) * stated == COMPARISONS


def test_decoders_are_chosen_by_the_runs_that_are_graded_and_samplers_by_others() -> None:
    """A choice among equals flatters the model that has it; a choice of samplers moves the truth."""

    def drawn(name: str, rows: list[str]) -> Compared:
        return calibration.draw(np.random.default_rng(0), QUESTIONS, rows, 3, NUISANCES[name])

    assert drawn("only INDM's decoders are equal", [NELBO]).error.mean() > 0.05
    assert drawn("only INDM's decoders differ", [NELBO]).error.mean() < -0.05
    assert abs(drawn("normal", [NELBO]).error.mean()) < 0.03
    few = drawn("samplers differ", [FEW_STEPS])
    assert {*np.unique(few.shift)} == {a - b for a in calibration.SAMPLERS for b in calibration.SAMPLERS}
    assert abs(np.corrcoef(few.shift.ravel(), few.error.ravel())[0, 1]) < 0.05


def test_what_is_wrong_to_say_of_a_gain() -> None:
    """Of each word in turn; the gain is the one between what was chosen."""
    ends = np.array([[2.0, -2.0, 0.0]])
    found = Compared(
        ends, {QUESTION: np.full((1, 3), 0.5)}, np.zeros((1, 3)), np.full((1, 3), 5), np.zeros((1, 3), int)
    )

    def wrong(gain: float, shift: float = 0.0) -> list[str]:
        # The interval stays where it is.
        moved = found._replace(error=ends - gain, shift=np.full((1, 3), shift))
        return [word for word, flags in calibration.wrong(moved, QUESTION, gain - shift).items() if flags.any()]

    assert wrong(0.0) == wrong(1.0) == wrong(0.0, shift=1.0) == [BETTER, WORSE]
    assert wrong(1.1) == [WORSE, NOT_BETTER]
    assert wrong(-1.1) == [BETTER]


@pytest.mark.parametrize("n", [3, 6])
@pytest.mark.parametrize("name", KEPT)
def test_few_questions_have_a_wrong_word(name: str, n: int) -> None:
    error = 3 * np.sqrt(TAIL / QUESTIONS)
    for row in calibration.rates(QUESTIONS, n, name):
        assert row["of"] != QUESTION or row["rate"] <= 100 * (TAIL + error), row


def test_failures_give_a_model_no_word() -> None:
    found = calibration.draw(np.random.default_rng(0), 400, [NELBO], 12, NUISANCES["failures in DDPM++"])
    said = calibration.words(found.error - 9.1, found.error - 9, found.sound, found.more)[WORSE]
    assert not said[:, DDPMPP - 1][found.more[:, DDPMPP - 1] < 0].any()
    assert said[:, DDPMPP:].all()


def test_the_table_of_the_page_has_the_published_rates_which_are_kept() -> None:
    published, page = pd.read_csv(calibration.OUT), (REPOSITORY / "docs/claims.md").read_text()
    assert calibration.largest(published) in page
    kept = published[(published["of"] == QUESTION) & published["numbers"].isin(KEPT)]
    error = 3 * np.sqrt(TAIL * (1 - TAIL) / 50_000)
    assert (kept[[str(n) for n in calibration.SEEDS]] <= 100 * (TAIL + error)).all(axis=None)


def test_a_polynomial_of_the_right_degree_finds_the_lowest_point_between_trials() -> None:
    tried = np.tile(np.linspace(-1, 1, 6), (3, 1))
    best = np.array([[-0.35], [0.0], [0.35]])
    losses = (tried - best) ** 2
    for degree in (2, 3):
        np.testing.assert_allclose(fitted(tried, losses, degree), best[:, 0], atol=0.01)
    assert lowest(tried, losses)[2] == pytest.approx(0.2)


def test_without_a_search_by_chance_the_interval_holds_its_level() -> None:
    """If a pilot's noise vanishes against the curvature, the fitted rate is the best one."""
    setting = Setting(curvature=0.04, asymmetry=1.0, pilots=10_000)
    covered, _, loss = coverage(setting, "parabola through a grid")
    assert covered == pytest.approx(LEVEL, abs=0.01)
    assert loss == pytest.approx(0, abs=2e-4)


def test_the_best_of_random_trials_misses_more_often_than_a_cubic_through_a_grid() -> None:
    setting = Setting()
    random, cubic = (coverage(setting, way)[0] for way in ("best of random trials", "cubic through a grid"))
    assert random < 0.88
    assert cubic > 0.93
