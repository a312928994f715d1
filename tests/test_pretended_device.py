"""On a pretended device stages end, losses are the CPU's, the host seldom waits, and what lies in the wrong place fails."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.utils import backend_registration

from indm.bench.cli import main
from indm.bench.pipeline.stages import STAGES
from indm.bench.suite.load import load_suite
from indm.flows.sources import draw_probe, draw_series
from indm.strict_yaml import parse_yaml, yaml_text
from indm.training.batches import Batch, Draws, draw, step_batch
from indm.training.trainer import Optimisation, Trainer
from tests import pretended_device
from tests.conftest import REPOSITORY
from tests.pretended_device import COUNTS, NAME, Counts, counted
from tests.test_training import FLOWS, OPTIONS, SEED, images, model

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices that are written in Python",
)
Call = Callable[..., Any]
CASES = [("identity", "nll"), ("identity", "fid"), ("resflow", "nll"), ("resflow", "fid"), ("wolf", "nll")]


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    """Call functions of this module in a process that has the device."""
    with pretended_device.process() as call:
        yield call


def trainer_of(flow: str, objective: str, place: str, **options: Any) -> Trainer:
    return Trainer(model(flow).to(place), Optimisation(objective=objective, **OPTIONS | options))


def batch_of(step: int, place: str) -> Batch:
    return step_batch(images(), 17, 8, SEED, step, torch.device(place))


def drawn_by_the_cpu(step: int, place: str) -> Draws:
    """Draw on the CPU, and move it: the flow's draws too are then the CPU's, whose generator it is."""
    draws = draw(images(), 17, 8, SEED, step)
    return replace(draws, x=draws.x.to(place), u=draws.u.to(place), noise=draws.noise.to(place))


def three_steps(flow: str, objective: str, place: str) -> list[dict[str, float]]:
    """Train on the same draws everywhere."""
    trainer = trainer_of(flow, objective, place)
    return [trainer.step(drawn_by_the_cpu(step, place), 1.0) for step in range(3)]


@pytest.mark.parametrize(("flow", "objective"), CASES)
def test_three_steps_have_the_losses_of_the_cpu(call: Call, flow: str, objective: str) -> None:
    for found, expected in zip(
        call(three_steps, flow, objective, NAME), three_steps(flow, objective, "cpu"), strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-4)


def counts_of_a_step(flow: str, objective: str) -> Counts:
    """Count the second step, which has its optimisers' moments."""
    trainer = trainer_of(flow, objective, NAME, micro_batches=2)
    trainer.step(batch_of(0, NAME), 1.0)
    with counted() as counts:
        trainer.step(batch_of(1, NAME), 1.0)
    return counts


@pytest.mark.parametrize(("flow", "objective"), CASES)
def test_a_step_waits_for_the_device_once(call: Call, flow: str, objective: str) -> None:
    """But for a flow's spectral norms, whose decompositions CUDA checks. Up go levels, a byte each; back, some numbers."""
    counts = call(counts_of_a_step, flow, objective)
    assert counts.synchronisations - counts.names["aten::_linalg_eigh"] == 1
    assert bool(counts.names["aten::_linalg_eigh"]) == (FLOWS[flow].get("bound") == "spectral")
    assert counts.bytes_to_device == 8 * 64
    assert counts.bytes_to_host <= 10 * 8


def numbers(draws: Draws) -> list[Tensor]:
    """Draw all that a step draws; each number of terms for all images, a row for each of them."""
    series = list(draw_series(draws.x, 3, 2.0, "gaussian", draws.generator))
    found = [draws.x, draws.u, draws.noise, draws.fresh().u, draws.fresh().noise, *(probe for _, probe in series)]
    terms = torch.tensor([terms for terms, _ in series]).expand(len(draws.x), -1)
    return [*(value.cpu() for value in found), terms]


def draws_of(pieces: int, processes: int) -> tuple[list[Any], list[int]]:
    """Return what the processes draw for eleven images in micro-batches, in the images' order, and how many numbers each draws."""
    parts, counts = [], []
    for number in range(processes):
        with counted() as found:
            batch = step_batch(images(), 17, 11, SEED, 0, torch.device(NAME), random_flip=True)
            parts.append([numbers(draws) for draws in batch.shares(pieces, number, processes)])
        counts.append(found.drawn)
    in_order = [part[piece] for piece in range(pieces) for part in parts]
    return [torch.cat(x).tolist() for x in zip(*in_order, strict=True)], counts


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_draw_on_the_device_what_one_does_and_none_draws_for_another(
    call: Call, pieces: int, processes: int
) -> None:
    """Of 11 images no process takes more than its part, rounded up, of each micro-batch. Before, each drew for all of them."""
    whole, (all_numbers,) = call(draws_of, pieces, 1)
    shares, counts = call(draws_of, pieces, processes)
    assert shares == whole
    assert sum(counts) == all_numbers
    sizes = [[6, 5], [11]][pieces == 1]
    assert max(counts) <= all_numbers * sum(math.ceil(size / processes) for size in sizes) / 11


def moments() -> list[list[float]]:
    """Return mean, deviation and the correlation between neighbours, of images and of entries, of what a step draws."""
    batch = step_batch(torch.zeros(500, 1, 8, 8, dtype=torch.uint8), 1, 500, SEED, 0, torch.device(NAME))
    (draws,) = batch.shares(1, 0, 1)
    found = []
    for value in (draws.x, draws.noise, draws.fresh().noise, draw_probe(draws.x, "rademacher", draws.generator)):
        x = value.cpu().flatten(1)
        x = (x - x.mean()) / x.std()
        between = [(x[1:] * x[:-1]).mean().item(), (x[:, 1:] * x[:, :-1]).mean().item()]
        found.append([value.mean().item(), value.std().item(), *between])
    return found


def test_draws_on_the_device_have_their_distributions(call: Call) -> None:
    """Of 32,000 numbers: uniform on [-1, 1), normal, and signs; 0.03 is more than five standard errors of each."""
    for found, deviation in zip(call(moments), (3**-0.5, 1, 1, 1), strict=True):
        assert found == pytest.approx([0, deviation, 0, 0], abs=0.03)


def step_with_noise_of_the_cpu() -> None:
    draws = drawn_by_the_cpu(0, NAME)
    trainer_of("identity", "nll", NAME).step(replace(draws, noise=draws.noise.cpu()), 1.0)


def step_with_a_model_of_the_cpu() -> None:
    trainer_of("resflow", "nll", "cpu").step(batch_of(0, NAME), 1.0)


@pytest.mark.parametrize(
    "mistake",
    [step_with_noise_of_the_cpu, step_with_a_model_of_the_cpu],
)
def test_mistakes_of_place_fail(call: Call, mistake: Callable[[], None]) -> None:
    with pytest.raises(RuntimeError, match=r"tensors|generator"):
        call(mistake)


def count_what_waits() -> list[int]:
    """Do what waits on CUDA, and what does not; return the waits of each."""
    x, found = torch.arange(4.0, device=NAME), []
    for ask in (
        lambda: x.sum().item(),
        lambda: x.tolist(),
        lambda: bool(x[0] > 1),
        lambda: x[x > 1],
        lambda: x.nonzero(),
        lambda: x.cpu(),
        lambda: torch.zeros(4).to(NAME),
        lambda: torch.tensor([1.0], device=NAME),
        lambda: torch.zeros(4).to(NAME, non_blocking=True),
        lambda: torch.zeros(4, device=NAME) + x * torch.tensor(2.0),
    ):
        with counted() as counts:
            ask()
        found.append(counts.synchronisations)
    return found


def test_waits_are_counted(call: Call) -> None:
    assert call(count_what_waits) == [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]


# Of each suite, what keeps its stages and makes them shorter; the device is the machine's best.
SHORTER: dict[str, dict[str, Any]] = {
    "smoke": {
        "train": {"steps": 4, "snapshots": [2, 4], "log_every": 2},
        "sweep": {"steps": [2]},
        "grading": {"images": {"simple": None, "scale": None}},
        "runs": ["digits-ve-ddpmpp-fid-s0", "digits-vp-indm-fid-s0", "digits-vp-indm-nll-s0"],
        "tune": ["digits-vp-indm-nll-s0"],
    },
    "smoke-images": {
        "train": {"steps": 2, "snapshots": [2]},
        "datasets": ["standin32"],
        "reference": ["standin32"],
        "runs": ["standin32-vp-indm-nll-s0", "standin32-ve-ddpmpp-fid-s0"],
    },
}


def write_suite(folder: Path, name: str) -> Path:
    """Write a suite made shorter."""
    content = parse_yaml((REPOSITORY / f"params/{name}.yaml").read_text()) | {"device": "auto"}
    for section, change in SHORTER[name].items():
        old = content[section]
        content[section] = old | change if isinstance(change, dict) else {key: old[key] for key in change}
    file = folder / f"{name}.yaml"
    file.write_text(yaml_text(content))
    return file


def run_stages(file: Path) -> dict[str, int]:
    """Run every job of a suite that computes, and count the operators of the device by stage."""
    suite, operators = load_suite(file), {}
    for name, stage in list(STAGES.items())[: list(STAGES).index("table")]:
        before = COUNTS.operators
        for subject in stage.subjects(suite):
            command = [name, "--suite", str(file), "--out", str(file.parent / "results"), f"--{stage.subject}", subject]
            done = CliRunner().invoke(main, command)
            assert done.exit_code == 0, f"{command}: {done.output}" + repr(done.exception)
        operators[name] = COUNTS.operators - before
    return operators


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", SHORTER)
def test_stages_run_on_the_device(call: Call, tmp_path: Path, name: str) -> None:
    operators = call(run_stages, write_suite(tmp_path, name))
    suite = load_suite(tmp_path / f"{name}.yaml")
    # Data are prepared on the CPU, where two-dimensional models are trained too: they are too small for a GPU.
    on_cpu = {"prepare", "toy2d"}
    expected = {stage for stage in operators if STAGES[stage].subjects(suite)} - on_cpu
    assert {stage for stage, count in operators.items() if count} == expected
    losses = [row for path in tmp_path.rglob("train.csv") for row in path.read_text().splitlines()[1:]]
    assert losses
    assert all(math.isfinite(float(value)) for row in losses for value in row.split(","))
