"""The search of hyper-parameters: what is suggested, kept and resumed, what a trial is, and what is chosen."""

import math
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from scipy.stats import rankdata, spearmanr

from indm.arrays import read_array
from indm.bench.stages import prepare, reference, train, tune
from indm.bench.suite.load import load_suite, suite_content
from indm.bench.suite.schema.suite import Suite
from indm.bench.trials import with_trial
from indm.bench.tuning import trial as trial_module
from indm.bench.tuning.study import STARTUP, Study
from indm.bench.tuning.trial import MEASURED, over_seeds
from indm.diffusion.evaluation import Evaluation, bounds, likelihoods
from indm.diffusion.model import load_model
from indm.errors import ArtifactError, DataError, ParamsError, StoppedError
from indm.report.numbers import collect
from indm.report.trials import best, spread
from indm.report.tuning import length_rule, rank_agreement, tuned_table, tuning_table
from indm.store.files import read_json, write_json, write_table
from indm.store.layout import Layout
from indm.strict_yaml import parse_yaml, yaml_text
from indm.training.batches import Draws
from indm.training.trainer import Trainer
from tests.conftest import REPOSITORY
from tests.finished import run, work

NLL, FID, OTHER = "digits-vp-indm-nll-s0", "digits-vp-ddpmpp-fid-s0", "digits-vp-ddpmpp-nll-s0"
OUTPUTS = ("tune.csv", "tune.json")
PROTOCOL: dict[str, Any] = {"batch_size": 64, "time_draws": 50, "tolerance": None, "ode_steps": 2}
PROTOCOL |= {"log_det_tolerance": None}
ONE_RATE = {"lr": {"low": 1e-3, "high": 1e-1, "log": True}}
LOG_RATE = {"lr": (1e-4, 1.0, True)}
CPU = torch.device("cpu")


def suite_of(name: str = NLL, **search: Any) -> Suite:
    """The smoke suite with one arm, smaller models, saved after every step, and with other values in its search."""
    content = parse_yaml((REPOSITORY / "params/smoke.yaml").read_text()) | {"save_seconds": 0.0}
    content["train"]["score"] |= {"multipliers": [1], "attention_resolutions": []}
    content["train"]["flow"]["blocks"] = [1]
    content["tune"] = {name: content["tune"][name] | search}
    return Suite.model_validate(content)


# More trials than are drawn at random.
SUITE = suite_of(trials=6, confirm={"steps": 6, "trials": 3}, lengths=[4, 8])


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("results"), "smoke")
    prepare.run(SUITE, layout, "digits", data_root=None)
    reference.run(SUITE, layout, "digits")
    return layout


def forget(layout: Layout, name: str = NLL) -> None:
    """Remove the study of an arm, and what it gave."""
    for path in [*layout.scratch(name, "tune").rglob("*"), *(layout.run(name) / output for output in OUTPUTS)]:
        if path.is_file() or path.is_symlink():
            path.unlink()


def outputs(layout: Layout, name: str = NLL) -> dict[str, bytes]:
    return {output: (layout.run(name) / output).read_bytes() for output in OUTPUTS}


def searched(layout: Layout, suite: Suite = SUITE, name: str = NLL) -> dict[str, bytes]:
    run(tune, suite, layout, name)
    return outputs(layout, name)


@pytest.fixture(scope="module")
def undisturbed(layout: Layout) -> dict[str, bytes]:
    """What a search that nothing disturbs writes."""
    found = searched(layout)
    forget(layout)
    return found


# What Optuna suggests and keeps.


def told(study: Study, count: int, value: Any = lambda lr: (math.log10(lr) + 2) ** 2) -> list[float]:
    """Run trials whose target is known: the lowest at a rate of 0.01."""
    rates = []
    for number in range(count):
        rates.append(study.parameters(number)["lr"])
        study.once(number, 1, lambda: {"target": value(rates[-1])})
    return rates


def test_suggestions_come_nearer_to_an_optimum_that_is_known(tmp_path: Path) -> None:
    """Of four decades; the later half of random trials would be a decade off on average, whatever came before."""
    distances = []
    for seed in range(6):
        rates = told(Study(tmp_path / f"{seed}.journal", "a", LOG_RATE, ("digits", seed)), 24)
        distances.append(np.abs(np.log10(rates) + 2))
    early, late = np.mean(distances, axis=0)[:STARTUP], np.mean(distances, axis=0)[12:]
    assert late.mean() < 0.6 * early.mean()
    assert late.mean() < 0.6


def test_a_study_that_is_opened_again_suggests_the_same(tmp_path: Path) -> None:
    whole = told(Study(tmp_path / "whole.journal", "a", LOG_RATE, ("digits", 1)), 8)
    for count in range(1, 9):
        assert told(Study(tmp_path / "cut.journal", "a", LOG_RATE, ("digits", 1)), count) == whole[:count]
    assert whole != told(Study(tmp_path / "other.journal", "a", LOG_RATE, ("digits", 2)), 8)
    assert len(set(whole)) == 8


def test_random_trials_of_arms_share_what_their_spaces_share(tmp_path: Path) -> None:
    both = Study(tmp_path / "both.journal", "b", {"flow_lr": (1e-3, 1.0, True)} | LOG_RATE, ("digits", 1))
    assert told(both, STARTUP) == told(Study(tmp_path / "one.journal", "a", LOG_RATE, ("digits", 1)), STARTUP)


def test_suggestions_stay_in_their_range_and_are_what_is_written(tmp_path: Path) -> None:
    narrow = {"lr": (0.010001, 0.010002, True), "ema_decay": (0.5, 0.9, False)}
    study = Study(tmp_path / "study.journal", "a", narrow, ("digits", 1))
    for number in range(8):
        found = study.parameters(number)
        assert 0.010001 <= found["lr"] <= 0.010002
        assert 0.5 <= found["ema_decay"] <= 0.9
        assert float(f"{found['ema_decay']:.6g}") == found["ema_decay"]
        study.once(number, 1, lambda: {"target": 1.0})


def test_a_trial_that_failed_is_kept_and_the_next_one_learns_from_it(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    # Above 0.1, all fail.
    rates = told(
        Study(path, "a", LOG_RATE, ("digits", 1)), 20, lambda lr: None if lr > 0.1 else (math.log10(lr) + 2) ** 2
    )
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    trials = optuna.load_study(study_name="a", storage=storage).trials
    assert [trial.params["lr"] for trial in trials] == rates
    failed = [trial.state == optuna.trial.TrialState.PRUNED for trial in trials]
    assert failed == [rate > 0.1 for rate in rates]
    assert any(failed[:STARTUP])
    assert np.mean(failed[10:]) < np.mean(failed[:STARTUP])


def test_a_file_of_another_key_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.journal"
    told(Study(path, "a", LOG_RATE, ("digits", 1)), 3)
    study = Study(path, "b", LOG_RATE, ("digits", 1))
    assert study.rows == {}
    assert "removing the trials of other parameters, data, code or versions" in capsys.readouterr().err


def test_half_a_line_and_a_dead_lock_do_no_harm(tmp_path: Path) -> None:
    """What a power cut leaves of a line, and a killed process of Optuna's lock."""
    whole = told(Study(tmp_path / "whole.journal", "a", LOG_RATE, ("digits", 1)), 5)
    path = tmp_path / "cut.journal"
    told(Study(path, "a", LOG_RATE, ("digits", 1)), 3)
    path.write_bytes(path.read_bytes()[:-40])
    path.with_name("cut.journal.lock").symlink_to(path)
    started = time.monotonic()
    study = Study(path, "a", LOG_RATE, ("digits", 1))
    assert len(study.short.trials) == 2
    assert told(study, 5) == whole
    assert told(Study(path, "a", LOG_RATE, ("digits", 1)), 5) == whole
    assert time.monotonic() - started < 20


# What a trial is.


def test_a_trial_is_the_training_of_its_run_by_its_hyper_parameters(
    layout: Layout, undisturbed: dict[str, bytes]
) -> None:
    """The same weights as stage train gives a run of the trial's seed: so the same bounds, of raw and averaged flow."""
    (layout.run(NLL)).mkdir(parents=True, exist_ok=True)
    (layout.run(NLL) / "tune.csv").write_bytes(undisturbed["tune.csv"])
    (row,) = pd.read_csv(layout.run(NLL) / "tune.csv").query("trial == 1 and phase == 'short'").to_dict("records")
    changes = {key: row[key] for key in ("lr", "flow_lr", "ema_decay")} | {"steps": 4, "snapshots": []}
    alone = with_trial(SUITE, NLL, SUITE.tune[NLL].seeds[0], changes)
    folder = run(train, alone, layout, NLL).folder
    images = torch.from_numpy(read_array(layout.data("digits") / "valid.npy"))
    evaluation = Evaluation(**SUITE.curve.model_dump(exclude={"images", "log_det"}), uncorrected=False)
    for flow, column in (("ema", "valid_nelbo"), ("raw", "valid_nelbo_raw_flow")):
        model = load_model(folder / "checkpoint.safetensors", CPU, {"score": "ema", "flow": flow})
        values = bounds(model, images[: SUITE.curve.images], 17, evaluation, seed=("digits", 1), device=CPU)
        assert values.mean().item() == pytest.approx(row[column], abs=1e-4)
        assert (values.std() / math.sqrt(len(values))).item() == pytest.approx(row[f"{column}_se"], rel=1e-3)
        # The same bound as stage curve's, by other draws: in another unit or scale of the data it would be a bit off.
        fine = Evaluation(**PROTOCOL, uncorrected=False)
        arguments: dict[str, Any] = {"seed": ("digits", 1), "device": CPU}
        found = bounds(model, images[:64], 17, fine, **arguments)
        table = likelihoods(model, images[:64], 17, fine, description="", once=lambda _, make: make(), **arguments)
        difference = found.numpy() - table["nelbo"]
        assert abs(difference.mean()) < 5 * difference.sem() < 0.5
    assert row["target"] == row["valid_nelbo"]
    assert row["flops"] == pytest.approx(2 * 4 * read_json(folder / "train.json")["train_flops_per_step"], rel=1e-5)


@pytest.mark.long
def test_fid_is_against_validation_images(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that draws them has FID 0; one that draws test images has not."""
    suite = suite_of(FID)
    found = {}
    for split in ("valid", "test"):
        images = read_array(layout.data("digits") / f"{split}.npy")
        monkeypatch.setattr(trial_module, "draw_levels", lambda *_, images=images, **__: (images, 1.0))
        content = suite.model_dump(exclude_unset=True)
        content["curve"]["images"] = None
        table = pd.read_csv(run(tune, Suite.model_validate(content), layout, FID).folder / "tune.csv")
        found[split] = table["target"].iloc[0]
        forget(layout, FID)
    assert abs(found["valid"]) < 1e-6
    assert found["test"] > 0.01


def test_a_failed_trial_is_a_row_with_its_line_and_the_search_goes_on(
    layout: Layout, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, bad = Trainer.step, pd.read_csv(_text(undisturbed))["lr"][0]

    def diverge(self: Trainer, draws: Draws, lr_factor: float, *, flow_alone: bool = False) -> dict[str, float]:
        if self.peaks["score"] == bad and self.averages["score"].updates == 2:
            draws = replace(draws, x=draws.x * math.nan)
        return step(self, draws, lr_factor, flow_alone=flow_alone)

    monkeypatch.setattr(Trainer, "step", diverge)
    run(tune, SUITE, layout, NLL)
    table = pd.read_csv(layout.run(NLL) / "tune.csv")
    first = table.iloc[0]
    assert (first["state"], math.isnan(first["target"])) == ("failed", True)
    assert first["reason"].startswith("training stopped at step 2: loss nan")
    # Two steps of four.
    assert first["flops"] == pytest.approx((table["flops"][1] - first["flops"]) / 2, rel=1e-5)
    assert list(table["state"][1:6]) == ["complete"] * 5
    assert 0 not in set(table["trial"][6:])
    found = read_json(layout.run(NLL) / "tune.json")
    assert found["failed"] == 1
    assert found["best"]["trial"] != 0
    forget(layout)


def test_a_search_whose_trials_all_fail_has_no_best(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indm.training.loop.learning_rate", lambda *_: math.inf)
    run(tune, SUITE, layout, NLL)
    assert read_json(layout.run(NLL) / "tune.json")["best"] is None
    assert list(pd.read_csv(layout.run(NLL) / "tune.csv")["state"]) == ["failed"] * 6
    table = tuned_table(results(layout, NLL))
    assert table[["target", "lr"]].isna().all(axis=None)
    assert list(table["failed"]) == [6, 6]
    forget(layout)


def test_nothing_is_chosen_by_test_images(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    description = read_json(layout.data("digits") / "dataset.json")
    description["counts"]["valid"] = 0
    monkeypatch.setattr(tune, "read_json", lambda _: description)
    with pytest.raises(DataError, match=r"valid\.npy"):
        run(tune, SUITE, layout, NLL)


# What is resumed.


class PowerCutError(Exception):
    """What a test raises in the place of a kill."""


def test_a_finished_search_trains_nothing_again(
    layout: Layout, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(layout)
    for output in OUTPUTS:
        (layout.run(NLL) / output).unlink()

    def train_nothing(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(trial_module, "begin_training", train_nothing)
    assert searched(layout) == undisturbed
    # Nor where images would be drawn otherwise, since the bound needs none.
    content = SUITE.model_dump(exclude_unset=True)
    content["sample"] |= {"steps": 7}
    assert searched(layout, Suite.model_validate(content)) == undisturbed
    # Nor a shorter one, which has the first of its trials.
    shorter = searched(layout, suite_of(trials=2, lengths=[]))
    assert pd.read_csv(_text(shorter))["target"].tolist()[:2] == pd.read_csv(_text(undisturbed))["target"].tolist()[:2]
    forget(layout)


@pytest.mark.parametrize(
    ("name", "changes", "same"),
    [
        (NLL, {"train": {"lr": 0.5, "steps": 9}}, True),
        (NLL, {"train": {"batch_size": 32}}, False),
        (NLL, {"sample": {"steps": 7}, "fid": {"bootstrap": 7}}, True),
        (FID, {"sample": {"steps": 7}}, False),
        (FID, {"fid": {"bootstrap": 7}}, False),
        # Its trainings round differently.
        (NLL, {"compile": True}, False),
    ],
)
def test_trials_are_kept_as_long_as_nothing_changes_that_they_depend_on(
    layout: Layout, name: str, changes: dict[str, Any], same: bool
) -> None:
    """They set by themselves what is searched, and for how many steps they train."""
    suite = suite_of(name)
    content = suite.model_dump(exclude_unset=True)
    for section, change in changes.items():
        content[section] = content[section] | change if isinstance(change, dict) else change
    keys = [work(tune, found, layout, name).key for found in (suite, Suite.model_validate(content))]
    assert (keys[0] == keys[1]) == same


@pytest.mark.long
def test_a_longer_search_goes_on_from_a_shorter_one(layout: Layout, undisturbed: dict[str, bytes]) -> None:
    searched(layout, suite_of(trials=5, lengths=[]))
    assert searched(layout) == undisturbed
    forget(layout)


def cut_at(training: str, before: int | None) -> Any:
    """Make a progress bar that ends everything before a step of a training, or, of ``None``, when it is about to be measured."""

    def bar(label: str) -> Any:
        def progress(steps: range) -> Iterator[int]:
            for step in steps:
                if training in label and step == before:
                    raise PowerCutError
                yield step
            if training in label and before is None:
                raise PowerCutError

        return progress

    return bar


@pytest.mark.slow
def test_a_search_that_is_cut_off_anywhere_has_the_same_bytes(layout: Layout, undisturbed: dict[str, bytes]) -> None:
    """Amid a trial, before one, before one is measured; amid one that is trained again, and amid one of another length."""
    cuts = [
        ("trial 0, 4 steps", 2),
        ("trial 1, 4 steps", 0),
        ("trial 2, 4 steps", None),
        (", 6 steps", 5),
        (", 8 steps", 7),
    ]
    for training, before in cuts:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tune, "bar", cut_at(training, before))
            with pytest.raises(PowerCutError):
                run(tune, SUITE, layout, NLL)
        assert not (layout.run(NLL) / "tune.csv").is_file()
    assert searched(layout) == undisturbed
    assert sorted(path.name for path in layout.scratch(NLL, "tune").iterdir()) == ["lock", "study.journal"]
    forget(layout)


@pytest.mark.long
def test_a_search_that_is_asked_to_stop_keeps_its_state(
    layout: Layout, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_in_the_second_step(label: str) -> Any:
        def steps(found: Iterable[int]) -> Iterator[int]:
            for step in found:
                if step == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield step

        return steps

    with monkeypatch.context() as patch:
        patch.setattr(tune, "bar", stop_in_the_second_step)
        with pytest.raises(StoppedError, match=r"SIGTERM.*step 2 .*/tune/0-4-1/"):
            run(tune, SUITE, layout, NLL)
    assert searched(layout) == undisturbed
    forget(layout)


# What is chosen.


def _text(found: dict[str, bytes]) -> Any:
    return BytesIO(found["tune.csv"])


def rows_of(*targets: float, phase: str = "short") -> list[dict[str, Any]]:
    return [
        {"trial": i, "phase": phase, "target": target, "target_se": 0.5, "valid_nelbo": -target}
        for i, target in enumerate(targets)
    ]


def test_trials_trained_again_are_spread_over_the_ranking() -> None:
    rows = rows_of(5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 7.0)
    assert [row["target"] for row in spread(rows, 3, "nll")] == [1.0, 4.0, 7.0]
    assert [row["target"] for row in spread(rows, 4, "nll")] == [1.0, 3.0, 5.0, 7.0]
    assert [row["target"] for row in spread(rows[:2], 3, "nll")] == [1.0, 5.0]
    assert spread([], 3, "nll") == []


def test_the_best_at_full_length_is_chosen() -> None:
    short, full = rows_of(3.0, 1.0, 2.0), [{"trial": 2, "phase": "confirm", "target": 0.9}]
    assert best(short, "nll") == short[1]
    assert best([*short, *rows_of(0.8, 0.7, phase="confirm")[:1], *full], "nll")["target"] == 0.8  # type: ignore[index]
    assert best(rows_of(1.0, 1.0), "nll") == rows_of(1.0)[0]
    assert best([], "nll") is best([], "fid") is None


def test_the_nelbo_decides_between_fids_within_a_standard_error() -> None:
    """Which is the lower, the higher the FID in these rows."""
    rows = rows_of(2.0, 1.6, 1.2, 1.1, 1.7)
    assert best(rows, "fid") == rows[1]
    assert best(rows, "nll") == rows[3]
    assert [row["target"] for row in spread(rows, 3, "fid")] == [1.6, 1.2, 2.0]
    assert best([*rows, *rows_of(2.8, 2.2, phase="confirm")], "fid") == rows_of(2.8, 2.2, phase="confirm")[1]


def test_a_trial_with_several_seeds_is_judged_by_their_mean() -> None:
    """Errors over images by their root mean square; costs add up, and one failure is a failure."""
    one, other = (
        dict.fromkeys(MEASURED) | {"target": target, "target_se": error, "reason": "", "flops": 10, "seconds": 1.5}
        for target, error in ((2.0, 0.3), (3.0, 0.4))
    )
    both = over_seeds([one, other])
    assert (both["target"], both["flops"], both["seconds"], both["reason"]) == (2.5, 20, 3.0, "")
    assert both["target_se"] == pytest.approx(0.125**0.5)
    assert both["valid_nelbo_raw_flow"] is None
    failed = over_seeds([one, other | dict.fromkeys(MEASURED) | {"reason": "it diverged"}])
    assert (failed["target"], failed["reason"], failed["flops"]) == (None, "it diverged", 20)


def test_each_trial_is_trained_with_each_seed(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the same trials with one seed each; here suggestions do not depend on the seed."""
    monkeypatch.setattr(Study, "parameters", lambda _, trial: {"lr": (0.004, 0.02)[trial]})
    tables = []
    for seeds in ([1], [5], [1, 5]):
        forget(layout)
        searched(layout, suite_of(trials=2, lengths=[], seeds=seeds, space=ONE_RATE))
        tables.append(pd.read_csv(layout.run(NLL) / "tune.csv"))
    forget(layout)
    one, other, both = (table["target"].to_numpy() for table in tables)
    assert abs(one - other).min() > 1e-4
    assert both == pytest.approx((one + other) / 2, rel=1e-5)
    assert tables[2]["flops"].tolist() == pytest.approx((2 * tables[0]["flops"]).tolist(), rel=1e-5)


@pytest.mark.parametrize("count", [3, 5, 7])
def test_rank_agreement_is_spearmans_with_an_exact_p(count: int) -> None:
    generator = np.random.default_rng(count)
    x, y = generator.normal(size=count), generator.normal(size=count)
    rho, p = rank_agreement(list(x), list(y))
    assert rho is not None
    assert rho == pytest.approx(spearmanr(x, y).statistic)
    orders = np.array(list(permutations(range(count))))
    others = np.corrcoef(rankdata(x), rankdata(y)[orders])[0, 1:]
    assert p == pytest.approx(np.mean(others >= rho - 1e-9))
    assert rank_agreement(list(x), list(3 * x)) == (pytest.approx(1.0), pytest.approx(1 / math.factorial(count)))
    assert rank_agreement(list(x), [1.0] * count) == (None, None)
    assert rank_agreement([1.0, 2.0], [1.0, 2.0]) == (None, None)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([2.5, 2.3, 2.295, 2.2], "200 steps are enough"),
        ([2.5, 2.3, 2.35, 2.4], "200 steps are enough"),
        ([2.5, 2.495, 2.3, 2.0], "100 steps are enough"),
        ([2.5, 2.4, 2.3, 2.2], "more than 800 steps are needed"),
        ([2.5], ""),
    ],
)
def test_length_rule(targets: list[float], said: str) -> None:
    assert length_rule(pd.DataFrame({"steps": [100, 200, 400, 800][: len(targets)], "target": targets})) == said


HEAD = "trial,phase,steps,lr,state,reason,target,target_se,train_nelbo,train_nelbo_se,valid_nelbo,valid_nelbo_se,"
HEAD += "valid_nelbo_raw_flow,valid_nelbo_raw_flow_se,flops\n"
CHEAP = """0,short,4,0.01,complete,,2.5,.1,2,.1,2.5,.1,,,10
1,short,4,0.02,complete,,2.4,.1,2,.1,2.4,.1,,,20
2,short,4,0.03,complete,,2.6,.1,2,.1,2.6,.1,,,30
"""
DEAR = """0,short,4,0.01,complete,,2.3,.1,2,.1,2.3,.1,,,15
1,short,4,0.02,failed,it diverged,,,,,,,,,29
2,short,4,0.03,complete,,2.1,.1,2,.1,2.1,.1,,,45
0,confirm,8,0.01,complete,,2.0,.1,2,.1,2.0,.1,,,60
2,confirm,8,0.03,complete,,1.9,.1,2,.1,1.9,.1,,,75
2,length,8,0.03,complete,,1.9,.1,2,.1,1.9,.1,,,75
2,length,32,0.03,complete,,1.895,.1,2,.1,1.895,.1,,,99
"""


def results(layout: Layout, *names: str, searched: bool = True) -> Any:
    """Read the results of some runs, and of their searches."""
    stages = ("train", "sample", "nll", *(["tune"] if searched else []))
    numbers = dict.fromkeys(("nll", "nelbo", "nelbo_no_reconstruction", "gap", "fid", "nfe", "num_samples"), 1.0)
    words = {"sampler": "ancestral", "extractor": "digits-cnn"}
    for name in names:
        for kind in ("samples", "fid", "nll", "train"):
            write_json(layout.run(name) / f"{kind}.json", {"run": name, "images": 1, "steps": 4} | numbers | words)
        write_table(layout.run(name) / "nll.csv", pd.DataFrame([{"image": 0} | numbers]))
    return collect(layout.suite_folder, suite_content(SUITE), dict.fromkeys(stages, names))


def read_searches(root: Path, searches: dict[str, str]) -> Any:
    """Read the results of some runs, with the rows of their searches."""
    layout = Layout(root, "smoke")
    for name, rows in searches.items():
        layout.run(name).mkdir(parents=True)
        (layout.run(name) / "tune.csv").write_text(HEAD + rows)
    return results(layout, *searches)


def test_two_readings_of_a_search(tmp_path: Path) -> None:
    """The dear arm has its best trial too late for the compute of the cheap one."""
    found = read_searches(tmp_path, {OTHER: CHEAP, NLL: DEAR})
    table = tuned_table(found).set_index(["model", "reading"])
    assert table["target"].to_dict() == {
        ("ddpmpp", "same trials"): 2.4,
        ("ddpmpp", "same compute"): 2.4,
        ("indm", "same trials"): 1.9,
        ("indm", "same compute"): 2.0,
    }
    assert table["trials"].tolist() == [3, 3, 3, 2]
    assert table["failed"].tolist() == [0, 0, 1, 1]
    assert table["flops"].tolist() == [30, 30, 45, 29]
    assert table["lr"].tolist() == [0.02, 0.02, 0.03, 0.01]
    assert table["steps"].tolist() == [4, 4, 8, 8]
    assert table["at_end"].tolist() == ["", "", "lr", "lr"]
    # The lengths are of trial 2: they say nothing of trial 0.
    assert table["length_rule"].tolist() == ["", "", "8 steps are enough", ""]
    trials = tuning_table(found)
    assert len(trials) == 10
    assert trials.query("state == 'failed'")["reason"].tolist() == ["it diverged"]
    assert trials["gain_per_doubling"].dropna().tolist() == [pytest.approx(0.0025)]


@pytest.mark.parametrize(
    ("confirmed", "chosen"),
    [
        # The best of the first two is not among those confirmed: the worse one, which is, must not be taken for it.
        (
            "1,confirm,8,0.02,complete,,1.8,.1,2,.1,1.8,.1,,,60\n2,confirm,8,0.03,complete,,1.7,.1,2,.1,1.7,.1,,,75\n",
            (2, 0),
        ),
        (
            "0,confirm,8,0.01,complete,,1.9,.1,2,.1,1.9,.1,,,60\n1,confirm,8,0.02,complete,,1.8,.1,2,.1,1.8,.1,,,75\n",
            (2, 1),
        ),
        # It is, and fails at that length.
        ("0,confirm,8,0.01,failed,why,,,,,,,,,60\n1,confirm,8,0.02,complete,,1.8,.1,2,.1,1.8,.1,,,75\n", (2, 1)),
        ("0,confirm,8,0.01,failed,why,,,,,,,,,60\n", (2, 0)),
    ],
)
def test_trials_confirmed_decide_where_the_best_is_among_them(
    tmp_path: Path, confirmed: str, chosen: tuple[int, int]
) -> None:
    """Of a dear arm with three trials, the last the best, of which two are affordable: the trial of each reading."""
    short = """0,short,4,0.01,complete,,2.3,.1,2,.1,2.3,.1,,,14
1,short,4,0.02,complete,,2.4,.1,2,.1,2.4,.1,,,28
2,short,4,0.03,complete,,2.1,.1,2,.1,2.1,.1,,,45
"""
    table = tuned_table(read_searches(tmp_path, {OTHER: CHEAP, NLL: short + confirmed})).query("model == 'indm'")
    assert tuple(table["trial"]) == chosen


def test_a_suite_without_a_search_has_no_rows(tmp_path: Path) -> None:
    found = results(Layout(tmp_path, "smoke"), NLL, searched=False)
    assert (len(tuned_table(found)), len(tuning_table(found))) == (0, 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("complete,,2.5", "failed,why,2.5", "row 1: found state failed and target 2.5, expected one for comp"),
        ("complete,,2.5", "complete,,", "row 1: found state complete and target nan, expected one for comp"),
        (",10\n", ",\n", "row 1, column flops: found nan, expected a finite number"),
    ],
)
def test_a_table_that_is_no_search_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=f"tune.csv: {message}"):
        read_searches(tmp_path, {NLL: CHEAP.replace(old, new)})


# What a suite may say.

# For the FLOPs of INDM.
STEPS = 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"lr": {"low": 1.0, "high": 0.1, "log": True}}}, f"{NLL}.space.lr.low: found 1.0"),
        ({"space": {"lr": {"low": 0.0, "high": 0.1, "log": True}}}, "found 0.0"),
        ({"space": {"lrr": {"low": 0.1, "high": 0.2, "log": True}}}, "space.lrr: found 0.1 to 0.2"),
        ({"space": {"ema_decay": {"low": 0.5, "high": 1.5, "log": True}}}, "space.ema_decay: found 0.5 to 1.5"),
        ({"confirm": {"steps": 4, "trials": 3}}, "confirm.steps: found 4"),
        ({"confirm": {"steps": 8, "trials": 2}}, "confirm.trials: found 2"),
        ({"lengths": [8, 4]}, r"lengths: found \[8, 4\]"),
        ({"lengths": [2, 4], "steps": 8}, "lengths: found 2"),
        ({"lengths": [], "steps": 3}, "steps: found 3"),
    ],
)
def test_a_mistake_in_a_search_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = parse_yaml((REPOSITORY / "params/smoke.yaml").read_text())
    content["tune"][NLL] |= changes
    content["runs"][NLL]["train"] |= {"flow_warmup_steps": 3}
    refused(tmp_path, content, message)


def refused(folder: Path, content: dict[str, Any], message: str) -> None:
    (folder / "smoke.yaml").write_text(yaml_text(content))
    with pytest.raises(ParamsError, match=message.replace("{}", r"\{\}").replace("(", r"\(")):
        load_suite(folder / "smoke.yaml")


@pytest.mark.parametrize(
    ("key", "found"), [("trials", 4), ("steps", 5), ("seeds", [1, 2]), ("confirm", {"steps": 8, "trials": 3})]
)
def test_arms_that_are_compared_have_the_same_search(tmp_path: Path, key: str, found: Any) -> None:
    """Else one would be chosen by long trainings, and one by short ones."""
    content = parse_yaml((REPOSITORY / "params/smoke.yaml").read_text())
    content["tune"][NLL] |= {"trials": 3, "lengths": []}
    rate = {"lr": {"low": 0.1, "high": 0.2, "log": True}}
    content["tune"][OTHER] = content["tune"][NLL] | {"space": rate, key: found}
    refused(tmp_path, content, rf"key tune.{OTHER}.{key}: found .*; allowed: .*, as for {NLL}")
    # With the arm of the other objective, no arm is compared.
    content["tune"][NLL][key] = found
    (tmp_path / "smoke.yaml").write_text(yaml_text(content))
    load_suite(tmp_path / "smoke.yaml")


@pytest.mark.parametrize("first", [True, False])
def test_same_compute_is_searched_at_its_own_length(tmp_path: Path, first: bool) -> None:
    """Its trials are longer than its plain model's by the factor by which its training is longer."""
    content, name = parse_yaml((REPOSITORY / "params/smoke.yaml").read_text()), "digits-vp-ddpmpp-same-compute-nll-s0"
    content["runs"][name] = content["runs"][OTHER] | {"variant": "same-compute", "train": {"steps": STEPS}}
    rate = {"lr": {"low": 0.1, "high": 0.2, "log": True}}
    plain = content["tune"][NLL] | {"space": rate, "lengths": []}
    longer = plain | {"steps": round(plain["steps"] * STEPS / content["train"]["steps"])}
    content["tune"] = {name: longer, OTHER: plain} if first else {OTHER: plain, name: longer}
    (tmp_path / "smoke.yaml").write_text(yaml_text(content))
    load_suite(tmp_path / "smoke.yaml")
    content["tune"][name] = longer | {"steps": plain["steps"]}
    refused(tmp_path, content, f"key tune.{name}.steps: found {plain['steps']}; allowed: {longer['steps']}")


def test_an_arm_is_a_run_with_what_is_searched(tmp_path: Path) -> None:
    content = parse_yaml((REPOSITORY / "params/smoke.yaml").read_text())
    rates = {key: {"low": 0.1, "high": 0.2, "log": True} for key in ("lr", "flow_lr")}
    content["tune"][FID] |= {"space": rates}
    refused(tmp_path, content, f"key tune.{FID}.space: found flow_lr; allowed: keys that affect its training")
    content["tune"][FID] |= {"space": {"lr": rates["lr"]}, "lengths": [4]}
    refused(tmp_path, content, rf"key tune.{FID}.lengths: found \[4\]; allowed: \[\]")
    content["tune"] = {"nobody": content["tune"][NLL]}
    refused(tmp_path, content, "key tune.nobody: no such run; allowed: digits-ve-ddpmpp-fid-s0, ")
