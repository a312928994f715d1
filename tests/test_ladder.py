"""The controls of DDPM++ that tell what a flow does from what less than a flow does: each trained and evaluated by the stages."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit
from torch import Tensor

from indm.diffusion.learned_range import LearnedRange
from indm.diffusion.model import load_model
from indm.diffusion.path import LinearPath, nelbo
from indm.diffusion.registered.vp import VP
from indm.diffusion.sde import T, importance_time
from indm.fields import LEARNED
from indm.store.files import CHECKPOINT_FORMAT, SNAPSHOTS_FORMAT, read_weights
from indm.store.layout import Layout
from indm.strict_yaml import parse_yaml, yaml_text
from tests.conftest import REPOSITORY
from tests.test_curve import call

PROTOCOL: dict[str, Any] = {"images": 4, "batch_size": 4, "time_draws": 2, "tolerance": None, "ode_steps": 4}
PROTOCOL |= {"log_det": "series", "log_det_tolerance": 1e-3}
# By variant: its model and what it changes of the training.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"learned-{name}": ("ddpmpp", {"latent": {"learned": name}, "flow_warmup_steps": 2}) for name in LEARNED},
    "learned-range": ("ddpmpp", {"sde": {"vp": {"learned_range": True}}, "reconstruction": True}),
    "normalised-input": ("ddpmpp", {"score": {"normalise_input": "running"}}),
    "frozen-flow": ("indm", {"fresh_score_after": 4, "flow_warmup_steps": 1}),
}
OBJECTIVES = dict.fromkeys(("frozen-flow", "learned-linear"), ("nll", "fid"))
RUNS = [
    f"digits-vp-{model}-{variant}-{objective}-s0"
    for variant, (model, _) in VARIANTS.items()
    for objective in OBJECTIVES.get(variant, ("nll",))
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite with a run of every variant, its data prepared."""
    folder = tmp_path_factory.mktemp("ladder")
    suite = parse_yaml((REPOSITORY / "params" / "smoke.yaml").read_text())
    suite["sample"] |= {"num_samples": 4, "batch_size": 4}
    suite["train"] |= {"steps": 8, "snapshots": [4, 8], "warmup_steps": 1}
    suite["grading"]["images"]["simple"] = None
    run = {"dataset": "digits", "sde": "vp", "seed": 0, "sample": {}}
    suite["runs"] = {
        name: run | {"model": model, "variant": variant, "objective": name.split("-")[-2], "train": train}
        for variant, (model, train) in VARIANTS.items()
        for name in RUNS
        if f"-{model}-{variant}-" in name
    }
    suite |= {"curve": PROTOCOL, "protocol": {}, "tune": {}, "nll": PROTOCOL | {"uncorrected": True}}
    (folder / "smoke.yaml").write_text(yaml_text(suite))
    call(folder, "prepare", "--dataset", "digits")
    return folder


def weights(folder: Path, run: str) -> dict[str, Tensor]:
    trained_here(folder, run)
    return read_weights(Layout(folder / "results", "smoke").run(run) / "checkpoint.safetensors", CHECKPOINT_FORMAT)[0]


def result(folder: Path, run: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Layout(folder / "results", "smoke").run(run) / f"{name}.json").read_text())
    return content


def trained_here(folder: Path, run: str) -> None:
    """Train a run, unless a test before has: which come before depends on which of several processes takes a test."""
    if not (Layout(folder / "results", "smoke").run(run) / "checkpoint.safetensors").is_file():
        call(folder, "train", "--run", run)


def evaluated_here(folder: Path, run: str) -> None:
    """Train a run and evaluate its likelihoods, unless a test before has."""
    trained_here(folder, run)
    if not (Layout(folder / "results", "smoke").run(run) / "nll.json").is_file():
        call(folder, "nll", "--run", run)


# Of learned maps, one of each kind of code; the other objective of a frozen flow is trained and evaluated as its likelihoods are.
SLOW = {
    "digits-vp-indm-frozen-flow-fid-s0",
    "digits-vp-ddpmpp-learned-linear-fid-s0",
    "digits-vp-ddpmpp-learned-scale-nll-s0",
    "digits-vp-ddpmpp-learned-affine-nll-s0",
    "digits-vp-ddpmpp-learned-filter-nll-s0",
}


def of(runs: Iterable[str]) -> list[Any]:
    return [pytest.param(run, marks=[pytest.mark.long] if run in SLOW else []) for run in runs]


@pytest.mark.parametrize("run", of(RUNS))
def test_every_control_is_trained_and_evaluated_like_any_run(results: Path, run: str) -> None:
    evaluated_here(results, run)
    for stage in ("curve", "sample"):
        call(results, stage, "--run", run)
    found = result(results, run, "nll")
    assert all(torch.tensor(found[key]).isfinite() for key in ("nll", "nelbo", "nelbo_no_reconstruction", "gap"))
    snapshots, spec = read_weights(
        Layout(results / "results", "smoke").run(run) / "snapshots.safetensors", SNAPSHOTS_FORMAT
    )
    trained = weights(results, run)
    last = {key.removeprefix("8."): value for key, value in snapshots.items() if key.startswith("8.")}
    assert all(torch.equal(value, trained[key]) for key, value in last.items())
    assert spec["flops"] == sorted(spec["flops"])


@pytest.mark.parametrize("run", of(run for run in RUNS if "-learned-" in run and "range" not in run))
def test_learned_maps_are_trained_averaged_and_evaluated_as_flows_are(results: Path, run: str) -> None:
    evaluated_here(results, run)
    found, counts, trained = result(results, run, "nll"), result(results, run, "train"), weights(results, run)
    assert (found["weights"], found["log_det"]) == ({"score": "ema", "flow": "ema"}, "closed form")
    assert found["log_det_bound"] == 0
    name = run.split("-")[4]
    assert (
        counts["flow_parameters"]
        == {"scale": 1, "affine": 2 * 64, "linear": 64 * 65, "filter": 2 * 64, "curve": 64}[name]
    )
    assert 0 <= counts["flow_warmup_flops_per_step"] < counts["train_flops_per_step"]
    for key in [key for key in trained if key.startswith("raw.flow.") and trained[key].numel()]:
        assert trained[key].any()
        assert not torch.equal(trained[key], trained[key.replace("raw", "ema")])


EPS = 1e-5
MEAN, VARIANCE = 0.3, 0.2


def exact_noise(sde: LearnedRange, z: Tensor, t: Tensor) -> Tensor:
    """The noise prediction of data N(MEAN, VARIANCE), which sees the ends as a network does: by alpha and sigma."""
    alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
    return sigma * (z - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)


def bound(sde: LearnedRange, x: Tensor, points: int) -> Tensor:
    """The code's bound of points x (N), its mean over noise and time exact but for the midpoint rule.

    The errors are quadratic in the noise: two draws, -1 and 1, have their mean.
    """
    u = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    t, z = importance_time(sde, u, EPS)

    def one(value: Tensor) -> Tensor:
        z0, noises = value.expand(points, 1), [torch.full((points, 1), sign, dtype=torch.float64) for sign in (-1, 1)]
        noise_fn = lambda z_t, times: exact_noise(sde, z_t, times)  # noqa: E731
        error = torch.stack([LinearPath(sde).error(noise_fn, z0, t, noise) for noise in noises]).mean()
        rest = torch.stack([LinearPath(sde).decoder(noise_fn, z0[:1], EPS, noise[:1]) for noise in noises]).mean(0)
        return nelbo(LinearPath(sde), z0[:1], x.new_zeros(1), error, z, EPS) + rest

    return torch.cat([one(value) for value in x]).mean()


def independent_bound(low: float, high: float, x: list[float]) -> float:
    """The same by the formula of the module's docstring, in NumPy alone."""
    nats = []
    for value in x:

        def error(a: float, value: float = value) -> float:
            alpha2, sigma2 = expit(-a), expit(a)
            total = alpha2 * VARIANCE + sigma2
            return float(alpha2 * sigma2 * (value - MEAN) ** 2 / total**2 + (alpha2 * VARIANCE / total) ** 2)

        integral = quad(lambda a: error(a) - 1, low, high, epsabs=1e-12, epsrel=1e-12, limit=500)[0]
        prior = (expit(-high) * value**2 + expit(high)) / 2
        nats.append(
            integral / 2 + (error(low) - 1) / 2 + prior + (math.log(2 * math.pi) + math.log1p(math.exp(high))) / 2
        )
    return sum(nats) / len(nats)


@pytest.mark.parametrize("moves", [(0.0, 0.0), (9.0, -6.0), (4.0, -9.0)])
def test_bound_and_its_gradient_reach_the_learned_ends(moves: tuple[float, float]) -> None:
    """Values and gradients against finite differences of another implementation, at ends where both matter."""
    sde, x = LearnedRange(VP(), EPS).double(), [-0.7, 0.1, 1.4]
    with torch.no_grad():
        sde.moves.copy_(torch.tensor(moves))
    low, high = sde.antiderivative(torch.tensor([EPS, T], dtype=torch.float64)).tolist()
    found = bound(sde, torch.tensor(x, dtype=torch.float64), 4000)
    assert found.item() == pytest.approx(independent_bound(low, high, x), abs=1e-6)
    found.backward()
    step = 1e-4
    expected = [
        (independent_bound(low + step, high, x) - independent_bound(low - step, high, x)) / (2 * step),
        (independent_bound(low, high + step, x) - independent_bound(low, high - step, x)) / (2 * step),
    ]
    assert sde.moves.grad is not None
    assert sde.moves.grad.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert max(map(abs, expected)) > (1e-6 if moves == (0.0, 0.0) else 1e-3)


def test_learned_range_starts_as_the_fixed_schedule() -> None:
    fixed, learned = VP(), LearnedRange(VP(), EPS)
    t = torch.cat([torch.logspace(-5, 0, 50, dtype=torch.float64), torch.linspace(EPS, 1, 50, dtype=torch.float64)])
    for name in ("alpha", "sigma", "log_snr", "drift", "diffusion", "antiderivative"):
        torch.testing.assert_close(getattr(learned, name)(t), getattr(fixed, name)(t), rtol=1e-9, atol=1e-12)


def test_learned_range_moves_with_the_score_and_is_evaluated_where_it_is(results: Path) -> None:
    run = next(run for run in RUNS if "learned-range" in run)
    trained = weights(results, run)
    raw, averaged = trained["raw.noise.sde.moves"], trained["ema.noise.sde.moves"]
    assert raw.all()
    assert not torch.equal(raw, averaged)
    path = Layout(results / "results", "smoke").run(run) / "checkpoint.safetensors"
    for kind, moves in (("raw", raw), ("ema", averaged)):
        sde = load_model(path, torch.device("cpu"), {"score": kind, "flow": "ema"}).sde
        ends = torch.tensor([EPS, T], dtype=torch.float64)
        torch.testing.assert_close(sde.antiderivative(ends) - VP().antiderivative(ends), moves.double())


@pytest.mark.parametrize("objective", ["nll", "fid"])
def test_frozen_flow_is_that_of_the_shorter_training_and_its_score_another(results: Path, objective: str) -> None:
    run = f"digits-vp-indm-frozen-flow-{objective}-s0"
    trained, counts = weights(results, run), result(results, run, "train")
    snapshots, spec = read_weights(
        Layout(results / "results", "smoke").run(run) / "snapshots.safetensors", SNAPSHOTS_FORMAT
    )
    flow = {key: value for key, value in trained.items() if key.startswith("ema.flow.")}
    for key, value in flow.items():
        assert torch.equal(value, trained[key.replace("ema", "raw")])
        assert torch.equal(value, snapshots[f"4.{key}"])
    assert not any(key.startswith("optimiser.flow") for key in trained)
    assert all(trained[key] == 4 for key in trained if key.startswith("optimiser.score") and key.endswith(".step"))
    warmup, joint, fresh = (counts[f"{phase}_flops_per_step"] for phase in ("flow_warmup", "train", "fresh_score"))
    assert fresh < joint
    assert spec["flops"] == [warmup + 3 * joint, warmup + 3 * joint + 4 * fresh]
    table = pd.read_csv(Layout(results / "results", "smoke").run(run) / "train.csv")
    # In the first step the flow trains alone.
    assert (table["score_loss"].notna() == (table["step"] > 1)).all()
