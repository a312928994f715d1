"""A search that takes the lowest point of a cubic: the fit, the grids, what is resumed, and what files and tables say."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.rates import Setting, fitted
from indm.bench.pipeline.jobs import Job, job_parameters
from indm.bench.pipeline.stages import STAGES
from indm.bench.stages import tune
from indm.bench.suite.schema.suite import Suite
from indm.bench.tuning.cubic import lowest_point
from indm.bench.tuning.trial import MEASURED, Arm
from indm.report.figures import FIGURES
from indm.report.tuning import tuned_table, tuning_table
from indm.store.files import read_json
from indm.store.layout import Layout
from indm.store.scratch import Work
from indm.strict_yaml import parse_yaml
from tests.conftest import REPOSITORY
from tests.test_tune import FID, NLL, OTHER, refused, results, suite_of

LOW, HIGH = 2.5e-3, 5.0e-2
LR = {"lr": {"low": LOW, "high": HIGH, "log": True}}
BOTH = {"flow_lr": {"low": 1e-4, "high": 1e-1, "log": True}} | LR
CUBIC: dict[str, Any] = {"choose": "cubic", "trials": 6, "seeds": [1, 2], "confirm": None, "lengths": []}
# The lowest loss, at a rate of 0.01, and its curvature.
BEST, CURVATURE = math.log(1e-2), 0.05
GRID = np.linspace(math.log(LOW), math.log(HIGH), 6)
SUITE = suite_of()
Loss = Callable[[dict[str, float], int], float | None]


class PowerCutError(Exception):
    """What a test raises in the place of a kill."""


def parabola(parameters: dict[str, float], seed: int) -> float:
    return 4 + CURVATURE * (math.log(parameters["lr"]) - BEST) ** 2


def search(root: Path, loss: Loss, *, name: str = NLL, **changes: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    """Run the stage with losses that are known instead of trainings, and return what it has written; ``None`` fails."""
    layout, content = Layout(root, "smoke"), SUITE.model_dump(exclude_unset=True)
    content["tune"] = {name: {"steps": 4, "space": LR} | CUBIC | changes}
    suite = Suite.model_validate(content)

    def arms(*_: Any) -> list[Arm]:
        return [
            Arm(suite, name, ("digits", seed), root, {}, None, None, None)  # type: ignore[arg-type]
            for seed in suite.tune[name].seeds
        ]

    def train(arm: Arm, parameters: dict[str, float], steps: int, *_: Any) -> dict[str, Any]:
        target = loss(parameters, arm.seed[1])
        numbers = {"target": target, "target_se": 0.03, "valid_nelbo": target}
        found = dict.fromkeys(MEASURED) | (numbers if target is not None else {})
        return found | {"reason": "" if target is not None else "it diverged", "flops": steps, "seconds": 0.0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "_arms", arms)
        patch.setattr(Arm, "run", train)
        tune.run(suite, layout, name, work=Work(layout.scratch(name, "tune"), "a", "b"))
    return read_json(layout.run(name) / "tune.json"), pd.read_csv(layout.run(name) / "tune.csv")


# The fit.


@pytest.mark.parametrize("best", [-0.9, -0.2, 0.35, 0.8])
@pytest.mark.parametrize("skew", [-0.2, 0.0, 0.2])
def test_the_lowest_point_of_an_exact_cubic_is_found(best: float, skew: float) -> None:
    places = np.linspace(-1, 1, 6)
    found = lowest_point(list(places), list(3 + (places - best) ** 2 + skew * (places - best) ** 3))
    assert found.place == pytest.approx(best, abs=1e-9)
    assert found.height == pytest.approx(3, abs=1e-9)
    assert found.residual == pytest.approx(0, abs=1e-9)
    assert (found.end, found.is_rough) == ("", False)


@pytest.mark.parametrize(("slope", "end"), [(1.0, "lower"), (-1.0, "upper")])
def test_the_lowest_point_does_not_leave_the_trials(slope: float, end: str) -> None:
    places = [0.0, 1.0, 2.0, 3.0, 4.0]
    found = lowest_point(places, [slope * place for place in places])
    assert (found.place, found.end) == (places[0 if slope > 0 else -1], end)


def test_the_residual_is_of_the_trials_about_the_cubic_and_large_if_one_rate_is_too_high() -> None:
    """One trial that hardly learns bends the cubic everywhere."""
    places, noise = np.linspace(-1, 1, 6), np.array([1, -2, 1, 1, -2, 1]) * 0.001
    found = lowest_point(list(places), list(4 + places**2 + noise))
    expected = np.polyfit(places, noise, 3, full=True)[1][0]
    assert found.residual == pytest.approx(math.sqrt(expected / 2))
    assert not found.is_rough
    assert lowest_point(list(places), [3.9, 3.85, 3.8, 3.85, 3.95, 8.0]).is_rough


def test_it_is_the_choice_of_which_the_simulation_tells_the_coverage() -> None:
    setting = Setting()
    generator = np.random.default_rng(0)
    tried = np.tile(setting.width * np.linspace(-0.5, 0.5, 6), (200, 1))
    losses = setting.loss(tried - 0.3) + 0.013 * generator.standard_normal(tried.shape)
    found = [lowest_point(list(tried[0]), list(row)).place for row in losses]
    np.testing.assert_allclose(found, fitted(tried, losses, 3), atol=0.51 * setting.width / 200)


# The search.


def test_trials_are_equidistant_log_rates_and_the_planted_rate_is_found(tmp_path: Path) -> None:
    found, table = search(tmp_path, parabola)
    short = table[table["phase"] == "short"]
    np.testing.assert_allclose(np.log(short["lr"]), GRID, atol=1e-3)
    assert found["best"]["parameters"] == {"lr": pytest.approx(1e-2, rel=1e-3)}
    assert found["best"]["target"] == pytest.approx(4, abs=1e-5)
    assert (found["trainings"], found["failed"], found["best"]["note"]) == (6, 0, "")
    last = table.iloc[-1]
    assert (last["phase"], last["lr"], last["state"]) == ("fitted", found["best"]["parameters"]["lr"], "complete")
    assert last["residual"] == pytest.approx(found["best"]["residual"], rel=1e-5)
    assert last["flops"] == short["flops"].max()


def test_a_planted_rate_is_found_with_the_error_of_least_squares(tmp_path: Path) -> None:
    r"""Its variance is :math:`\operatorname{Var} p'(r^*) / (2 \kappa)^2`, and of p' it is that of a linear estimate."""
    spread, seeds, searches = 0.004, 2, 25
    generator = np.random.default_rng(1)

    def noisy(parameters: dict[str, float], seed: int) -> float:
        return parabola(parameters, seed) + spread * generator.standard_normal()

    errors = []
    for number in range(searches):
        found, _ = search(tmp_path / str(number), noisy)
        errors.append(math.log(found["best"]["parameters"]["lr"]) - BEST)
    powers = np.vander(GRID - BEST, 4, increasing=True)
    # The slope at the best rate is the second coefficient.
    slope = math.sqrt(np.linalg.inv(powers.T @ powers)[1, 1]) * spread / math.sqrt(seeds)
    expected = slope / (2 * CURVATURE)
    assert abs(np.mean(errors)) < 3.5 * expected / math.sqrt(searches)
    # Three and a half standard errors of a standard deviation.
    assert np.std(errors) == pytest.approx(expected, rel=3.5 / math.sqrt(2 * searches))


def test_the_second_rate_is_chosen_at_the_first(tmp_path: Path) -> None:
    """The best rate of the score network depends on the flow's, which stands in the middle of its range."""
    middle, calls = math.log(math.sqrt(1e-4 * 1e-1)), []

    def coupled(parameters: dict[str, float], seed: int) -> float:
        calls.append(dict(parameters))
        lr, flow_lr = math.log(parameters["lr"]), math.log(parameters["flow_lr"])
        return (lr - BEST + 0.2 * (flow_lr - middle)) ** 2 + 0.1 * (flow_lr - math.log(5e-3)) ** 2

    found, table = search(tmp_path, coupled, space=BOTH)
    assert table["phase"].tolist() == [*(["short"] * 6), "fitted", *(["short"] * 6), "fitted"]
    assert table["trial"].dropna().tolist() == list(range(12))
    first, second = table[:7], table[7:]
    np.testing.assert_allclose(first["flow_lr"], math.exp(middle), rtol=1e-3)
    assert second["lr"].unique().tolist() == [first["lr"].iloc[-1]] == [pytest.approx(1e-2, rel=1e-3)]
    # Where the sum of the two parabolas is the lowest at this rate of the score network.
    lowest = (0.04 * middle + 0.1 * math.log(5e-3)) / 0.14
    assert math.log(found["best"]["parameters"]["flow_lr"]) == pytest.approx(lowest, abs=2e-3)
    assert found["best"]["parameters"]["lr"] == first["lr"].iloc[-1]
    assert len(calls) == 2 * 12


def test_the_order_of_the_space_does_not_matter(tmp_path: Path) -> None:
    """Work that a kill left does not tell it."""
    tables = [
        search(tmp_path / str(i), parabola, space=space)[1] for i, space in enumerate((BOTH, LR | BOTH, {**LR, **BOTH}))
    ]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], table)


def test_a_fid_is_fitted_by_its_logarithm(tmp_path: Path) -> None:
    def lognormal(parameters: dict[str, float], seed: int) -> float:
        return math.exp(2 * (math.log(parameters["lr"]) - BEST) ** 2)

    found, _ = search(tmp_path, lognormal, name=FID)
    assert found["best"]["parameters"]["lr"] == pytest.approx(1e-2, rel=1e-3)
    assert found["best"]["target"] == pytest.approx(1, rel=1e-3)


# What goes wrong.


def failing_above(rate: float) -> Loss:
    return lambda parameters, seed: None if parameters["lr"] > rate else parabola(parameters, seed)


def test_the_fit_leaves_failed_trials_out(tmp_path: Path) -> None:
    found, table = search(tmp_path, failing_above(0.04))
    assert table["state"].tolist() == [*(["complete"] * 5), "failed", "complete"]
    assert found["best"]["parameters"]["lr"] == pytest.approx(1e-2, rel=2e-3)
    assert (found["failed"], found["best"]["note"]) == (1, "")


def test_with_fewer_than_five_trials_the_best_one_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, table = search(tmp_path, failing_above(0.02))
    assert found["best"]["parameters"]["lr"] in table["lr"][:4].tolist()
    assert found["best"]["parameters"]["lr"] == pytest.approx(
        math.exp(min(GRID, key=lambda x: abs(x - BEST))), rel=1e-3
    )
    assert found["best"]["residual"] is None
    assert "4 of 6 trials were completed" in found["best"]["note"]
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert found["best"]["note"] in line


def test_without_a_completed_trial_there_is_no_choice(tmp_path: Path) -> None:
    found, table = search(tmp_path, lambda *_: None, space=BOTH)
    assert found["best"] is None
    # The second rate is not searched at a first one that does not exist.
    assert table["state"].tolist() == ["failed"] * 6
    found, table = search(
        tmp_path / "second",
        lambda values, _: parabola(values, 0) if values["flow_lr"] == 3.162e-3 else None,
        space=BOTH,
    )
    assert found["best"] is None
    assert table["phase"].tolist() == [*(["short"] * 6), "fitted", *(["short"] * 6)]


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda parameters, _: parameters["lr"], "lower end of the trials: widen its range beyond 0.0025"),
        (lambda parameters, _: -parameters["lr"], "upper end of the trials: widen its range beyond 0.05"),
        (
            lambda parameters, _: -parameters["lr"] if parameters["lr"] < 0.04 else None,
            "upper end of the trials: the trials beyond it failed",
        ),
        (lambda parameters, _: 8.0 if parameters["lr"] > 0.04 else parabola(parameters, 0), "the residual is large"),
    ],
)
def test_a_doubtful_fit_says_why_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], loss: Loss, said: str
) -> None:
    found, table = search(tmp_path, loss)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert said in found["best"]["note"] == table["note"].iloc[-1]


# What is resumed.


@pytest.mark.parametrize("cut", [1, 6, 11, 12, 13, 23])
def test_a_search_that_is_killed_has_the_same_bytes(tmp_path: Path, cut: int) -> None:
    """Amid a trial, and before and after the first rate is chosen."""

    def loss(parameters: dict[str, float], seed: int) -> float:
        return parabola(parameters, seed) + 0.01 * math.sin(1e5 * parameters["lr"] + seed) + parameters["flow_lr"]

    written = []
    for folder in ("whole", "cut"):
        calls = 0

        def dying(parameters: dict[str, float], seed: int) -> float:
            nonlocal calls
            calls += 1
            if calls == cut + 1 and folder == "cut":  # noqa: B023 - called within the iteration
                raise PowerCutError
            return loss(parameters, seed)

        if folder == "cut":
            with pytest.raises(PowerCutError):
                search(tmp_path / folder, dying, space=BOTH)
        search(tmp_path / folder, dying, space=BOTH)
        written.append([path.read_bytes() for path in sorted((tmp_path / folder).rglob("tune.*"))])
        # A trial that was cut off between its seeds begins again, and no other.
        assert calls <= 24 + (2 if folder == "cut" else 0)
    assert len(written[0]) == 2
    assert written[0] == written[1]


def test_another_number_of_trials_is_another_grid() -> None:
    grows = STAGES["tune"].grows
    assert grows is not None
    assert f"tune.{NLL}.trials" in grows(suite_of(trials=6), NLL)
    assert f"tune.{NLL}.trials" not in grows(suite_of(**CUBIC), NLL)


def test_a_search_that_does_not_choose_by_a_cubic_has_its_old_parameters() -> None:
    assert "choose" not in job_parameters(suite_of(), Job("tune", NLL))[f"tune.{NLL}"]


# What tables say.


def test_tables_show_the_lowest_point_its_residual_and_every_trial(tmp_path: Path) -> None:
    search(tmp_path, lambda parameters, _: -parameters["lr"], name=OTHER)

    def falling(parameters: dict[str, float], seed: int) -> float | None:
        return None if parameters["lr"] > 0.04 else parabola(parameters, seed) - 0.01 * math.log(parameters["flow_lr"])

    search(tmp_path, falling, space=BOTH)
    names, layout = (OTHER, NLL), Layout(tmp_path, "smoke")
    found = results(layout, *names)
    table = tuned_table(found).set_index("model")
    assert table["reading"].tolist() == ["same trials"] * 2
    assert table["trials"].tolist() == [6, 12]
    assert table["failed"].tolist() == [0, 1]
    assert table["at_end"].tolist() == ["lr", "flow_lr"]
    assert table["note"]["ddpmpp"] == "lr: lowest at the upper end of the trials: widen its range beyond 0.05"
    assert table["lr"]["indm"] == pytest.approx(1e-2, rel=2e-3)
    assert table["flow_lr"]["indm"] == 0.1
    assert table["target"]["indm"] == pytest.approx(4 - 0.01 * math.log(0.1), abs=1e-4)
    assert table["residual"].notna().all()
    trials = tuning_table(found)
    assert trials["phase"].value_counts().to_dict() == {"short": 18, "fitted": 3}
    assert "residual" not in tuning_table(results(layout, NLL, searched=False)).columns
    drawn = FIGURES["tuning"].draw(trials, tuned_table(found))
    labels = {text.get_text() for text in drawn.legends[0].get_texts()}
    assert labels == {"trial", "lowest point of a cubic", "failed"}


# What a suite may say.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 4}, "trials: found 4; allowed: at least 5"),
        ({"confirm": {"steps": 8, "trials": 3}}, "confirm: found a section; allowed: null"),
        ({"lengths": [4, 8]}, r"lengths: found \[4, 8\]; allowed: \[\]"),
        ({"choose": "parabola"}, "choose"),
    ],
)
def test_a_mistake_in_a_search_by_a_cubic_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = parse_yaml((REPOSITORY / "params/smoke.yaml").read_text())
    content["tune"][NLL] |= CUBIC | changes
    refused(tmp_path, content, message)


def test_models_that_are_compared_are_chosen_alike(tmp_path: Path) -> None:
    content = parse_yaml((REPOSITORY / "params/smoke.yaml").read_text())
    content["tune"] = {NLL: content["tune"][NLL] | CUBIC, OTHER: content["tune"][NLL] | CUBIC | {"space": LR}}
    content["tune"][OTHER]["choose"] = "best"
    refused(tmp_path, content, f'key tune.{OTHER}.choose: found "best"; allowed: "cubic", as for {NLL}')
