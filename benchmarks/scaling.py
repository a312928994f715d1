"""Count what a suite costs, from the operations of its networks.

    python -m benchmarks.scaling [--suite params/paper.yaml ...] [--rate 40]

Prints the operations of every run and stage of the first suite, hours and disk of all at an assumed rate, and what a training
step of INDM costs in steps of DDPM++. Networks are built without memory (torch's device ``meta``), so this takes seconds on a
laptop. docs/scaling.md says what is assumed.
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from indm import facts
from indm.bench.models.spec import model_spec
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.fields import PC, PREDICTOR
from indm.registry import DATASETS
from indm.report.names import name as in_words

SUITES = [Path(f"params/{name}.yaml") for name in ("paper", "paper-seeds", "cifar10", "cifar10-check")]
# A suite for each pair of networks whose steps are compared.
COMPARED = [Path(f"params/{name}.yaml") for name in ("digits", "fashion-full", "cifar10", "paper")]
# Network calls of the adaptive ODE, and evaluations of a block in the flow's inverse: orders of magnitude, not measured here.
ODE_CALLS = {1e-5: 300, 1e-4: 150}
INVERSE_CALLS = 10
# In forward passes: a gradient of the weights, a gradient of the input alone, and a step of the flow's likelihood (one pass, on
# average five products with the Jacobian, and four for the gradients).
WEIGHTS, INPUT, FLOW = 3, 2, 10
FEATURES = 2048


class Passes(NamedTuple):
    """Operations of a forward pass for one image of score network and flow; parameters, of both and of the flow."""

    score: float
    flow: float
    parameters: int
    flow_parameters: int


def passes(suite: Suite, name: str) -> Passes:
    """Count the operations of a run's networks."""
    shape = DATASETS[suite.runs[name].dataset].shape
    with torch.device("meta"), torch.no_grad():
        model = ImplicitNonlinearDiffusion(model_spec(suite, name, list(shape))).eval()
        x = torch.zeros(1, *shape)
        with FlopCounterMode(display=False) as score:
            model.noise.network(x, torch.zeros(1))
        with FlopCounterMode(display=False) as flow:
            model.flow(x, "none")
    parameters = [sum(p.numel() for p in module.parameters()) for module in (model, model.flow)]
    return Passes(score.get_total_flops(), flow.get_total_flops(), *parameters)


def stages(suite: Suite, name: str, cost: Passes) -> dict[str, float]:
    """Count the operations of the stages of a run."""
    run, train, sample = suite.runs[name], suite.train_params(name), suite.sample_params(name)
    calls = ODE_CALLS[sample.tolerance] if sample.sampler == "ode" else sample.steps
    calls *= 1 + (sample.corrector_steps if sample.corrector_snr else 0)
    draw = calls * cost.score + INVERSE_CALLS * cost.flow
    # Without a corrector, there are no images by pc.
    samplers = [sampler for sampler in suite.sweep.samplers if sampler != PC or sample.corrector_snr]
    per_step = (
        (facts.sampler(PREDICTOR).calls or 0) + sample.corrector_steps
        if sampler == PC
        else facts.sampler(sampler).calls or 0
        for sampler in samplers
    )
    swept = sum(suite.sweep.steps) * sum(per_step) * cost.score
    swept += len(suite.sweep.steps) * len(samplers) * INVERSE_CALLS * cost.flow
    test, solutions = suite.nll.images or images(suite, run.dataset, "test"), 1 + suite.nll.uncorrected
    return {
        "train": train.steps * train.batch_size * step(suite, name, cost),
        "sample": sample.num_samples * draw,
        "nll": test * (solutions * _likelihood(suite.nll.tolerance, cost) + suite.nll.time_draws * cost.score),
        "curve": len(train.snapshots)
        * (suite.curve.images or test)
        * (_likelihood(suite.curve.tolerance, cost) + suite.curve.time_draws * cost.score),
        "sweep": suite.sweep.num_samples * swept * (run.objective in suite.sweep.objectives),
    }


def images(suite: Suite, dataset: str, *splits: str) -> int:
    """Count the images of some splits of a dataset whose size is known before it is read."""
    counts = DATASETS[dataset].holding_out(suite.datasets[dataset].validation).counts or {}
    return sum(counts[split] for split in splits)


def step(suite: Suite, name: str, cost: Passes) -> float:
    """Count the operations of a training step for each image of its batch."""
    alternating = suite.runs[name].objective == "fid" and suite.train_params(name).alternate and cost.flow > 0
    return WEIGHTS * cost.score + FLOW * cost.flow + alternating * (INPUT * cost.score + cost.flow)


def step_ratios(paths: Iterable[Path]) -> list[str]:
    """Return the lines of a table: a training step of INDM over a step of DDPM++, for each dataset, SDE and objective."""
    lines = ["| suite | dataset | SDE | `nll` | `fid` |", "|---|---|---|--:|--:|"]
    for suite in map(load_suite, paths):
        runs = [(name, run) for name, run in suite.runs.items() if not run.variant]
        # One run for each of them: seeds cost the same.
        names = {(run.dataset, run.sde, run.objective, run.model): name for name, run in runs}
        steps = {key: step(suite, name, passes(suite, name)) for key, name in names.items()}
        for dataset, sde in dict.fromkeys(key[:2] for key in steps):
            found = [
                [steps.get((dataset, sde, objective, model)) for model in ("indm", "ddpmpp")]
                for objective in ("nll", "fid")
            ]
            cells = [f"{indm / ddpmpp:.1f}" if indm and ddpmpp else "" for indm, ddpmpp in found]
            lines.append(f"| `{suite.suite}` | {dataset} | {in_words(sde)} | {' | '.join(cells)} |")
    return lines


def _likelihood(tolerance: float | None, cost: Passes) -> float:
    """One solution of the ODE with its divergence, and the flow's log-determinant by 22 terms of its series."""
    return ODE_CALLS[tolerance or 1e-5] * INPUT * cost.score + 23 * cost.flow


def disk(suite: Suite, name: str, cost: Passes) -> float:
    """Bytes of a run: weights, their average and Adam's moments, twice while training, and snapshots; images."""
    shape = DATASETS[suite.runs[name].dataset].shape
    snapshots = len(suite.train_params(name).snapshots)
    tensors = 4 * (2 * 4 * cost.parameters + snapshots * (cost.parameters + cost.flow_parameters))
    return tensors + suite.sample_params(name).num_samples * shape[0] * shape[1] * shape[2]


def hours(work: Mapping[str, Mapping[str, float]], shards: Mapping[str, int], rate: float, gpus: int) -> float:
    """Hours on a number of GPUs: longest runs first, each on one GPU, or on GPUs / runs of them where there are more.

    After its training a run's other stages need it no longer, and go where a GPU is free, each in its number of shards.
    """
    shared = max(1, gpus // len(work))
    free = [0.0] * max(1, gpus // shared)
    ready: list[tuple[float, float]] = []
    for run in sorted(work.values(), key=lambda run: -run["train"]):
        slot = free.index(min(free))
        free[slot] += run["train"] / shared
        for stage in run.keys() - {"train"}:
            ready += [(free[slot], run[stage] / shards.get(stage, 1))] * shards.get(stage, 1)
    slots = [time for time in free for _ in range(shared)]
    for start, amount in sorted(ready, key=lambda item: (item[0], -item[1])):
        slot = slots.index(min(slots))
        slots[slot] = max(slots[slot], start) + amount
    return max(slots) / rate / 3600


def table(costs: Mapping[str, Passes], work: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the lines of a table of a suite's runs."""
    lines = [
        "| run | parameters, 10^6 | GFLOP of a pass: score, flow | train | sample | nll | curve | sweep |",
        "|---" * 8 + "|",
    ]
    for name, cost in costs.items():
        cells = " | ".join(f"{value / 1e18:.2f}" for value in work[name].values())
        lines.append(
            f"| {name} | {cost.parameters / 1e6:.1f} | {cost.score / 1e9:.1f}, {cost.flow / 1e9:.1f} | {cells} |"
        )
    return lines


def short(number: float) -> str:
    """Write a number with about two digits."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def total(suite: Suite, costs: Mapping[str, Passes], work: Mapping[str, Mapping[str, float]], rate: float) -> str:
    """Return the line of a suite in the table of suites: its operations, its disk, and hours with and without shards."""
    operations = sum(value for run in work.values() for value in run.values())
    size = sum(disk(suite, name, cost) for name, cost in costs.items())
    size += 4 * FEATURES * sum(images(suite, name, "train", "test") for name in suite.datasets)
    cells = [suite.suite, f"{len(work)}", short(operations / 1e18), f"{size / 1e9:.0f} GB"]
    for gpus in (1, 8, 64):
        elapsed, whole = (short(hours(work, shards, rate * 1e12, gpus)) for shards in (suite.shards.model_dump(), {}))
        cells.append(elapsed if elapsed == whole else f"{elapsed} (without shards {whole})")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the tables: the runs of a suite, and suites with their hours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=Path, nargs="+", default=SUITES)
    parser.add_argument("--rate", type=float, default=40.0, help="assumed, 10^12 operations a second of a GPU")
    arguments = parser.parse_args()
    totals = ["| suite | runs | 10^18 operations | disk | hours on 1 GPU | on 8 | on 64 |", "|---" * 7 + "|"]
    for path in arguments.suite:
        suite = load_suite(path)
        costs = {name: passes(suite, name) for name in suite.runs}
        work = {name: stages(suite, name, cost) for name, cost in costs.items()}
        if path.stem == arguments.suite[0].stem:
            print("\n".join(table(costs, work)), end="\n\n")
        totals.append(total(suite, costs, work, arguments.rate))
    print("\n".join([*totals, "", *step_ratios(COMPARED)]))


if __name__ == "__main__":
    main()
