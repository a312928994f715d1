"""Measure the bound's variance by time draws and control variate, what numbers owe to the batch size, and the time of a likelihood.

    python -m benchmarks.bound [--datasets digits cifar10] [--data-root FOLDER] [--images 24] [--repeats 6] [--steps 300]
        [--models FOLDER]

One thread, float32. On digits the models are published weights: DDPM++ and INDM. On CIFAR-10, whose archive or folder lies in
FOLDER (default: INDM_DATA, or data; left out if it is not there), they are DDPM++ with and without a learned curve and filter, of
suite cifar10-1000, trained for some steps first, or read from the folder of models of an earlier execution. Prints

- the variance over repeats of the bound of one image, with new times and noise at the same dequantised image, and the variance of
  the paired difference of both models, which meet the same times and noise; each also times the processor's seconds for 100
  images, relative to ten draws with the control variate of the pixels;
- the largest difference that batch sizes 1, 7 and 100 make to the numbers of an image, for draws by batch and by image;
- the processor's seconds of a likelihood of 100 images: ten draws with the ODE, and forty with the ODE and without.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from indm.bench.models.begin import begin_training
from indm.bench.suite.load import load_suite
from indm.bench.trials import with_trial
from indm.data.levels import dequantise_by
from indm.diffusion.draws import beside, of_images, uniform
from indm.diffusion.evaluation import Evaluation, control_of, likelihoods
from indm.diffusion.likelihood import GaussianControl, strata
from indm.diffusion.model import ImplicitNonlinearDiffusion, build_model
from indm.diffusion.sde import importance_time
from indm.errors import DataError
from indm.library import load_run
from indm.process import set_up
from indm.registry import DATASETS
from indm.training.loop import History
from tests.checkout import REPOSITORY

CPU = torch.device("cpu")
DRAWS = (10, 20, 40, 80)
BATCHES = (1, 7, 100)
TIMED = 100
# Numbers of DDPM++ first, and of the model with which it is compared.
DIGITS = {"DDPM++": "digits-vp-ddpmpp-nll-s4", "INDM": "digits-vp-indm-nll-s4"}
CIFAR10 = {
    "DDPM++": "cifar10-vp-ddpmpp-nll-s311",
    "curve and filter": "cifar10-vp-ddpmpp-learned-curve-filter-nll-s311",
}
# Averages over as few steps as a short training has.
DECAY = 0.98
BEFORE = Evaluation(TIMED, 10, None, 32, 1e-4, uncorrected=False)
AFTER = replace(BEFORE, time_draws=40, draws="image", control="cosine")


@dataclass(frozen=True)
class Study:
    """Two models of a dataset, by their names, and its images as levels, uint8, shape (N, C, H, W)."""

    dataset: str
    levels: int
    models: dict[str, ImplicitNonlinearDiffusion]
    train: Tensor
    test: Tensor


def digits() -> Study:
    """Load published weights and the digits."""
    splits = DATASETS["digits"].load(split_seed=0)
    train, test = (torch.from_numpy(next(splits[split].pieces())) for split in ("train", "test"))
    return Study("digits", 17, {name: load_run(run).model for name, run in DIGITS.items()}, train, test)


def cifar10(root: Path | None, steps: int, folder: Path | None) -> Study:
    """Load CIFAR-10, and train both models on it or load them.

    Raises:
        DataError: if the images are not there.
    """
    splits = DATASETS["cifar10"].load(0, root=root)
    train, test = (torch.cat([*map(torch.from_numpy, splits[split].pieces())]) for split in ("train", "test"))
    models = {}
    for name, run in CIFAR10.items():
        path = folder / f"{run}-{steps}.safetensors" if folder else None
        if path and path.is_file():
            models[name] = _read(path)
            continue
        models[name] = trained(run, steps, train)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            spec = {"spec": json.dumps(models[name].spec)}
            save_file({key: value.contiguous() for key, value in models[name].state_dict().items()}, path, spec)
    return Study("cifar10", 256, models, train, test)


def _read(path: Path) -> ImplicitNonlinearDiffusion:
    """Read a model that an earlier execution has trained."""
    with safe_open(path, framework="pt") as file:
        model = build_model(json.loads(file.metadata()["spec"]))
        names = list(file.keys())
        model.load_state_dict({name: file.get_tensor(name) for name in names})
    return model.eval().requires_grad_(False)


def trained(run: str, steps: int, train: Tensor) -> ImplicitNonlinearDiffusion:
    """Train a run of suite cifar10-1000 for fewer steps, and return its averaged model."""
    short = {"steps": steps, "snapshots": [], "warmup_steps": steps // 10, "ema_decay": DECAY, "flow_ema_decay": DECAY}
    suite = with_trial(load_suite(REPOSITORY / "params/cifar10-1000.yaml"), run, 311, short)
    training = begin_training(suite, run, train, {"levels": 256, "shape": list(train.shape[1:])}, CPU)
    training.train(history=History(), after_step=lambda *_: None, progress=iter)
    return training.trainer.averaged()


class Clock:
    """Adds up the processor's seconds of calls, by a name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, function: Callable[[], Any]) -> Any:
        started = time.process_time()
        found = function()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started
        return found


@torch.no_grad()
def bounds(
    study: Study, model: ImplicitNonlinearDiffusion, images: Tensor, draws: int, repeat: int, clock: Clock
) -> dict[str, Tensor]:
    """Evaluate the terms of the bound that are random, with each control variate: (B,) each, in bits/dim.

    The images are dequantised in the same way in each repeat.
    """
    numbers, dims = range(len(images)), images[0].numel()
    of_pixels = of_images(numbers, study.dataset, "bound")
    x = dequantise_by(images, uniform(of_pixels, images.shape, torch.float32), study.levels, model.centered)
    z0 = model.flow(x, "none", beside(of_pixels))[0]
    controls = _controls(study, model)
    errors = {name: control.expectation(z0, model.eps) for name, control in controls.items()}
    errors["none"] = torch.zeros(len(z0))
    for t, noise in strata(model.sde, z0, model.eps, draws, of_images(numbers, study.dataset, "bound", draws, repeat)):
        error = clock("none", partial(model.path.error, model.noise, z0, t, noise))
        errors["none"] = errors["none"] + error / draws
        for name, control in controls.items():
            drawn = clock(name, partial(control.draw, z0, t, noise))
            errors[name] = errors[name] + (error - drawn) / draws
    scale = importance_time(model.sde, torch.zeros(1, dtype=torch.float64), model.eps)[1].item() / 2
    return {name: scale * error.double() / (dims * math.log(2)) for name, error in errors.items()}


def _controls(study: Study, model: ImplicitNonlinearDiffusion) -> dict[str, GaussianControl]:
    """Fit the control variate in both bases, once for each model."""
    if model not in _FITTED:
        bases = {basis: replace(AFTER, control=basis) for basis in ("pixels", "cosine")}
        _FITTED[model] = {
            basis: control_of(model, study.train, study.levels, evaluation, CPU) for basis, evaluation in bases.items()
        }
    return _FITTED[model]


_FITTED: dict[ImplicitNonlinearDiffusion, dict[str, GaussianControl]] = {}


def variances(study: Study, count: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of draws and control variate: variances over repeats, averaged over images, and seconds."""
    images, (first, second) = study.test[:count], study.models.values()
    for draws in DRAWS:
        clock = Clock()
        found = [
            (bounds(study, first, images, draws, repeat, clock), bounds(study, second, images, draws, repeat, Clock()))
            for repeat in range(repeats)
        ]
        for control in ("none", "pixels", "cosine"):
            one = torch.stack([pair[0][control] for pair in found])
            other = torch.stack([pair[1][control] for pair in found])
            network = clock.seconds["none"]
            elapsed = network + (clock.seconds[control] if control != "none" else 0.0)
            yield {
                "dataset": study.dataset,
                "draws": draws,
                "control": control,
                "variance": one.var(0).mean().item(),
                "of the difference": (one - other).var(0).mean().item(),
                "s for 100 images": elapsed / repeats / count * TIMED,
            }


def print_variances(study: Study, count: int, repeats: int) -> None:
    """Print the table of variances, also times seconds relative to ten draws with the control variate of the pixels."""
    rows = pd.DataFrame(variances(study, count, repeats))
    first = rows[(rows["draws"] == DRAWS[0]) & (rows["control"] == "pixels")].iloc[0]
    columns = ["variance", "of the difference"]
    for column in columns:
        ratio = rows[column] * rows["s for 100 images"] / (first[column] * first["s for 100 images"])
        rows[f"{column}, times s, ratio"] = ratio
    print(f"\n## {study.dataset}: {' against '.join(study.models)}, {count} images, {repeats} repeats\n")
    _print(rows.drop(columns="dataset"))


def batch_sizes(study: Study, count: int) -> Iterator[dict[str, Any]]:
    """Yield the largest difference between batch sizes in the numbers of an image, by draws and model, in bits/dim."""
    for name, model in study.models.items():
        for draws in ("batch", "image"):
            evaluation = replace(
                BEFORE if draws == "batch" else AFTER, time_draws=2, ode_steps=4, log_det_tolerance=1e-4
            )
            tables = [numbers(study, model, count, replace(evaluation, batch_size=size)) for size in BATCHES]
            row = {"dataset": study.dataset, "model": name, "draws": draws}
            for key in ("nelbo", "nll"):
                row[key] = max((one[key] - other[key]).abs().max() for one, other in combinations(tables, 2))
            yield row


def numbers(study: Study, model: ImplicitNonlinearDiffusion, count: int, evaluation: Evaluation) -> pd.DataFrame:
    """Evaluate the likelihoods of test images, in bits/dim."""
    return likelihoods(
        model,
        study.test[:count],
        study.levels,
        evaluation,
        seed=(study.dataset, 0),
        device=CPU,
        description="",
        once=lambda _, make: make(),
        training=lambda: study.train,
    )


def times(study: Study, count: int) -> Iterator[dict[str, Any]]:
    """Yield the processor's seconds of a likelihood of 100 images, measured on some of them."""
    ways = {
        "10 draws by batch, ODE": BEFORE,
        "40 draws by image, ODE": AFTER,
        "40 draws by image, ODE of a tenth": replace(AFTER, ode_images=max(1, count // 10)),
        "40 draws by image, no ODE": replace(AFTER, ode_images=0),
    }
    for name, model in study.models.items():
        row: dict[str, Any] = {"dataset": study.dataset, "model": name}
        for way, evaluation in ways.items():
            started = time.process_time()
            numbers(study, model, count, evaluation)
            row[way] = (time.process_time() - started) * TIMED / count
        yield row


def _print(table: pd.DataFrame) -> None:
    texts = table.map(lambda value: f"{value:.3g}" if isinstance(value, float) else str(value))
    print(" | ".join(["", *texts, ""]).strip())
    print("|" + "---|" * len(texts.columns))
    for row in texts.itertuples(index=False):
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--images", type=int, default=24, help="test images")
    parser.add_argument("--repeats", type=int, default=6, help="repeats from which a variance is estimated")
    parser.add_argument("--steps", type=int, default=300, help="training steps on CIFAR-10")
    parser.add_argument("--models", type=Path, help="folder that keeps the models trained on CIFAR-10")
    parser.add_argument("--datasets", nargs="+", default=["digits", "cifar10"], choices=["digits", "cifar10"])
    arguments = parser.parse_args()
    set_up("cpu", 1)
    make: dict[str, Callable[[], Study]]
    make = {"digits": digits, "cifar10": partial(cifar10, arguments.data_root, arguments.steps, arguments.models)}
    for dataset in arguments.datasets:
        try:
            study = make[dataset]()
        except DataError as error:
            print(f"{dataset} is left out: {error}")
            continue
        print_variances(study, arguments.images, arguments.repeats)
        print("\nLargest difference between batch sizes 1, 7 and 100, bits/dim\n")
        _print(pd.DataFrame(batch_sizes(study, arguments.images)))
        print("\nSeconds of a likelihood of 100 images\n")
        _print(pd.DataFrame(times(study, arguments.images)))


if __name__ == "__main__":
    main()
