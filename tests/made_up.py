"""Results folders of made-up numbers, for tests of tables, figures and pages alone: nothing here was measured."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from indm.bench.suite.schema.suite import RunParams, Suite
from indm.measured import BAND_METRICS, FLOW_METRICS
from indm.report.page.contents import Contents
from indm.store.files import write_json, write_table
from indm.store.layout import Layout

SUITE = "made-up"
PLACE = ("dataset", "sde", "objective")
CELLS: list[dict[str, Any]] = [
    {"suite": SUITE, "dataset": "digits", "sde": sde, "model": model, "variant": variant, "objective": objective}
    | {"seeds": 3}
    for (sde, objective), (model, variant) in product(
        [("ve", "fid"), ("vp", "fid"), ("vp", "nll")],
        [("ddpmpp", ""), ("indm", ""), ("ddpmpp", "standardised"), ("ddpmpp", "same-compute")],
    )
]
RUNS = {
    f"digits-{cell['sde']}-{cell['model']}{cell['variant'] and '-' + cell['variant']}-{cell['objective']}-s{seed}": cell
    | {"seed": seed, "steps": 2000, "batch_size": 64}
    for cell in CELLS
    for seed in (0, 1)
}
CONTENTS = Contents(
    suite=SUITE,
    sha256="0123456789abcdef" * 4,
    stages={run: ["train", "sample", "fid", "nll"] for run in RUNS}
    | {"digits": ["prepare", "reference"], "": ["table"]},
    runs=RUNS,
    datasets=["digits"],
    protocol=["digits"],
    toy2d=["moons"],
    planes=["moons-long"],
)

# What is measured of the map of each model: without one, only the share of each frequency band in the bound.
SHOWN_OF_MAPS = {"ddpmpp": BAND_METRICS, "indm": [*FLOW_METRICS, *BAND_METRICS]}


def write_made_up_results(root: Path) -> Path:
    """Write every file that a page reads, for the suite ``made-up``; return the suite's folder."""
    folder = root / SUITE
    generator = np.random.default_rng(0)
    for name, rows in _tables(generator).items():
        write_table(folder / "tables" / f"{name}.csv", pd.DataFrame(rows))
    for run in RUNS:
        (folder / "runs" / run).mkdir(parents=True)
        for kind, shape in (("samples", (64, 64)), ("neighbours", (16, 64)), ("diffusion", (64, 64))):
            noise = generator.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(noise).save(folder / "runs" / run / f"{kind}.png")
        for stage in ("train", "sample", "fid", "nll"):
            record = made_up_record(generator, SUITE, stage, run)
            write_json(folder / "runs" / run / "provenance" / f"{stage}.json", record)
    description = {"levels": 17, "shape": [1, 8, 8], "counts": {"train": 1257}, "source": "made up"}
    write_json(folder / "data" / "digits" / "dataset.json", description)
    write_json(folder / "data" / "digits" / "reference.json", {"extractor": "digits-cnn"})
    return folder


def numbers(root: Path) -> set[float]:
    """Return every number in the CSV and JSON files below a folder."""
    found: set[float] = set()
    for path in root.rglob("*.csv"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        found |= {float(text) for text in table.to_numpy().ravel() if _is_float(text)}
    for path in root.rglob("*.json"):
        found |= set(_leaves(json.loads(path.read_text())))
    return found


def _leaves(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        children = value.values() if isinstance(value, dict) else value
        return [leaf for child in children for leaf in _leaves(child)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


HALF, SMALLEST = 0.024, 0.01
# The unit and the statement of each claim.
CLAIMS = {
    "likelihood": ("bits/dim", "INDM has a lower NLL."),
    "bound": ("bits/dim", "INDM has a lower NELBO."),
    "image-quality": ("FID", "INDM has a lower FID."),
    "few-steps": ("FID", "INDM loses less FID at ten steps."),
    "curve": ("bits/dim", "INDM learns faster."),
    "two": ("bits/dim", "INDM is closer to a known density."),
}
# Claim, dataset, SDE and objective, comparison, compared model, effect.
COMPARED: list[tuple[str, tuple[str, str, str], str, str, float | None]] = [
    ("likelihood", ("digits", "vp", "fid"), "equal steps", "ddpmpp", 0.0531),
    ("likelihood", ("digits", "vp", "fid"), "equal compute", "ddpmpp same-compute", None),
    ("likelihood", ("digits", "vp", "fid"), "simple control", "ddpmpp standardised", -0.0162),
    ("likelihood", ("digits", "vp", "fid"), "control", "ddpmpp learned-scale", 0.0417),
    ("bound", ("digits", "vp", "fid"), "equal steps", "ddpmpp", 0.0523),
    ("bound", ("digits", "vp", "fid"), "equal compute", "ddpmpp same-compute", -0.0271),
    ("image-quality", ("digits", "vp", "fid"), "equal steps", "ddpmpp", -0.041),
    ("few-steps", ("digits", "vp", "fid"), "equal steps", "ddpmpp", 0.021),
    ("few-steps", ("digits", "vp", "nll"), "equal steps", "ddpmpp", -0.082),
    ("curve", ("digits", "vp", "fid"), "equal steps", "ddpmpp", 0.031),
    ("two", ("moons-long", "", ""), "equal steps", "ddpmpp", 0.036),
]


def _claims() -> list[dict[str, Any]]:
    """Make up the table of claims: each word of a verdict, a model that was not run, and a seed that failed."""
    return [
        {"suite": SUITE, "id": name, **dict(zip(PLACE, place, strict=True)), "comparison": kind, "against": against}
        | {"family": "exploratory" if kind == "control" or name == "curve" else "primary", "treatment": "indm"}
        | {"smallest_effect": SMALLEST, "unit": CLAIMS[name][0], "protocol": "learned decoder", "source": "made up"}
        | {"planned": 4, "failed_treatment": 0, "failed_against": int(kind == "control"), "metric": "nll, nll, signed"}
        | {"question": f"Is it so that {CLAIMS[name][1]}", "statement": CLAIMS[name][1], **_graded(effect)}
        for name, place, kind, against, effect in COMPARED
    ]


def _graded(effect: float | None) -> dict[str, Any]:
    if effect is None:
        return {"verdict": "undecided", "reason": "not run", "n": 0}
    low, high = effect - HALF, effect + HALF
    words = {"better": low > SMALLEST, "worse": high < -SMALLEST, "not better": high <= SMALLEST, "undecided": True}
    word = next(word for word, applies in words.items() if applies)
    graded = {"verdict": word, "reason": f"made up, {word}", "effect": effect, "low": low, "high": high, "n": 3}
    repeats = 0.7 if word == "undecided" else 0.95
    return graded | {"images": None, "repeatability": repeats, "to_decide": "17", "test": "Student t"}


def _tables(generator: np.random.Generator) -> dict[str, list[dict[str, Any]]]:
    def some(scale: float, error: float, name: str) -> dict[str, float]:
        return {name: scale + error * generator.normal(), f"{name}_se": error * generator.uniform(0.6, 1.4)}

    protocol = {"sampler": "ancestral", "nfe": 100, "num_samples": 1000, "extractor": "digits-cnn"}
    real = {"suite": SUITE, "dataset": "digits", "model": "real (test split)", "num_samples": 360}
    real["extractor"] = "digits-cnn"
    grid = product(CELLS, ["euler_maruyama", "pc", "ode_heun"], [5, 20, 100])
    variants = [cell for cell in CELLS if cell["variant"]]
    return {
        "claims": _claims(),
        "differences": [
            {key: row[key] for key in ("suite", *PLACE, "id", "comparison", "against")}
            | {"seed": seed, "difference": row["effect"] + 0.01 * (seed - 1)}
            for row in _claims()
            if "effect" in row
            for seed in range(3)
        ],
        "comparison": [
            cell
            | {"metric": "fid", "sampler": "ancestral", **some(0.3, 0.05, "ours"), "published": 2.28}
            | {"published_source": "made up", "verdict": "not comparable"}
            | {"protocol_differences": "another extractor"}
            for cell in CELLS[:4]
        ],
        "fid": [
            cell | protocol | some(0.3, 0.05, "fid") | some(0.01, 0.004, "kid") | {"fid_image_se": 0.06}
            for cell in CELLS
        ]
        + [real | some(0.1, 0.03, "fid") | some(-0.005, 0.004, "kid")],
        "nll": [cell | some(2.1, 0.02, "nll") | some(2.2, 0.02, "nelbo") | some(0.0, 0.01, "gap") for cell in CELLS],
        "discretization": [
            cell
            | {"sampler": sampler, "steps": steps, "sound": int(steps > 5)}
            | (
                {"nfe": steps, "num_samples": 1000, "skip": None}
                | some(8 / steps + 0.2, 0.03, "fid")
                | {"fid_low": 7 / steps + 0.1, "fid_high": 9 / steps + 0.3}
                | some(1 / steps, 0.004, "kid")
                if (sampler, cell["sde"], steps) != ("euler_maruyama", "vp", 5)
                else {"skip": "beta / N > 1: the variance would be negative"}
            )
            for cell, sampler, steps in grid
        ],
        "learning_curve": [
            cell
            | {"split": "valid", "step": step, "images": step * 128}
            | {"flops": step * (2.5e9 if cell["model"] == "ddpmpp" else 4.1e9)}
            | some(2 + 60 / step, 0.02, "nelbo")
            | some(1.95 + 50 / step, 0.02, "nll")
            | some(0.05 + 10 / step, 0.01, "gap")
            for cell, step in product(CELLS, [125, 250, 500, 1000, 2000])
        ],
        "ablation": [
            cell
            | some(2.1, 0.02, "nll")
            | some(0.3, 0.05, "fid")
            | (
                {"pairs": 3}
                | some(-0.02, 0.01, "nelbo_difference")
                | some(-0.02, 0.01, "nll_difference")
                | some(0.05, 0.03, "log_fid_difference")
                if cell in variants
                else {}
            )
            for cell in CELLS
        ],
        "protocol": [
            {"suite": SUITE, "dataset": "digits", "sde": "vp", "model": "ddpmpp", "variant": "", "objective": "fid"}
            | {"seeds": 1, "factor": factor, "setting": setting, "fid": 0.31, "fid_image_se": 0.02}
            | {"difference": 0.1 * generator.normal(), "difference_image_se": 0.03, "note": note}
            for factor, setting, note in [
                ("num_samples", "250", ""),
                ("num_samples", "infinity", "linear in 1/N"),
                ("reference", "test", ""),
                ("implementation", "clean-fid", ""),
                ("rounding", "jpeg", "quality 75"),
                ("denoise", "none", ""),
                ("weights", "score raw, flow raw", ""),
            ]
        ],
        "toy2d": [
            {"suite": SUITE, "dataset": f"moons-{length}", "sde": "", "model": model, "variant": "", "objective": ""}
            | {"seeds": 3, "parameters": 4321, "train_flops": flops}
            | some(0.2, 0.02, "nelbo_excess")
            | some(0.012, 0.002, "energy_10")
            | some(1.3, 0.05, "path_ratio")
            for length, flops in (("short", 1.5e12), ("long", 6e12))
            for model in ("ddpmpp", "indm")
        ],
        "compute": [
            cell
            | {"score_parameters": 123456, "flow_parameters": 7890 * (cell["model"] == "indm"), "ms_per_step": 12.25}
            for cell in CELLS
        ],
        "values": [
            cell | {"seed": 0, "stage": "fid", "metric": "fid", "value": 0.31, "path": "runs/x/fid.json"}
            for cell in CELLS
        ],
        "tuned": [
            _arm(model)
            | {"reading": reading, "trials": 6, "failed": 1, "lr": 0.0123, "trial": 2, "steps": 400, "flops": 1.5e12}
            | {"target": 2.09, "target_image_se": 0.03, "rank_agreement": 0.8, "rank_agreement_p": 0.167}
            | {"length_rule": "400 steps are enough"}
            for model in ("ddpmpp", "indm")
            for reading in ("same trials", "same compute")
        ],
        "tuning": [_trial(generator, model, number) for model in ("ddpmpp", "indm") for number in range(8)],
        "flow": [
            cell
            | {"images": 64}
            | {key: value for name in SHOWN_OF_MAPS[cell["model"]] for key, value in some(1.2, 0.02, name).items()}
            for cell in CELLS
            if cell["variant"] == ""
        ],
    }


def _arm(model: str) -> dict[str, Any]:
    return {"suite": SUITE, "dataset": "digits", "sde": "vp", "model": model, "variant": "", "objective": "nll"}


def _trial(generator: np.random.Generator, model: str, number: int) -> dict[str, Any]:
    """Trials of an arm: the fifth fails, and the last two are of the first two, trained again for longer."""
    phase = {"trial": number % 6, "phase": "short" if number < 6 else "confirm", "steps": 200 if number < 6 else 400}
    # A trial that is trained again has its own.
    lr = 10 ** np.random.default_rng(number % 6).uniform(-3, -1)
    space = {"lr": lr, "flow_lr": lr / 4 if model == "indm" else None}
    if number == 4:
        return _arm(model) | phase | space | {"state": "failed", "reason": "training stopped at step 7", "flops": 1e12}
    numbers = {"target": 2.1 + generator.uniform(), "target_image_se": 0.03, "flops": 1e12 * (number + 1)}
    return _arm(model) | phase | space | {"state": "complete", "reason": ""} | numbers


def made_up_record(generator: np.random.Generator, suite: str, stage: str, subject: str) -> dict[str, Any]:
    return {
        "suite": suite,
        "stage": stage,
        "subject": subject,
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "uncommitted_changes": False,
        "versions": {"python": "3.11", "torch": "2.13"},
        "machine": "made-up, 2 CPUs",
        "device": "cpu",
        "threads": 1,
        "seconds": round(float(generator.uniform(1, 90)), 3),
        "peak_memory_mib": round(float(generator.uniform(200, 700)), 1),
    }


def write_made_up_runs(
    layout: Layout, suite: Suite, plant: Callable[[RunParams, str], float], images: int = 20
) -> None:
    """Write the result files that stage ``table`` reads of every run of a suite, with planted numbers.

    Arguments:
        layout: where they lie.
        suite: the suite; its 2-D data and its study of protocols are not written.
        plant: the mean over images of a run's metric: ``nll``, ``nelbo``, ``curve nll``, ``curve nelbo``, ``fid``, or that of a
            sampler.
        images: test images; each adds its luck to all runs alike, and a little to each.
    """
    generator = np.random.default_rng(0)
    luck = generator.normal(0, 0.3, images)
    for name, run in suite.runs.items():
        folder, same = layout.run(name), {"run": name}
        write_json(folder / "train.json", same | {"steps": 20})
        protocol = {"sampler": "ancestral", "nfe": 10.0, "num_samples": 40}
        write_json(folder / "samples.json", same | protocol | {"steps": 10})
        write_json(folder / "fid.json", same | {"extractor": "made-up", "fid": plant(run, "fid"), "fid_se": 0.1})
        of_images = _likelihoods(generator, luck, plant(run, "nll"), plant(run, "nelbo"))
        write_table(folder / "nll.csv", of_images)
        write_json(folder / "nll.json", same | {"images": images} | _of_means(of_images))
        curve = [
            _likelihoods(generator, luck, plant(run, "curve nll"), plant(run, "curve nelbo")).assign(step=step)
            for step in suite.train_params(name).snapshots
        ]
        if curve:
            write_table(folder / "curve_images.csv", pd.concat(curve))
            head = {"flops": 1.0, "images": images, "log_det_bound": 0.0, "split": "valid"}
            steps = [head | {"step": table["step"].iloc[0]} | _of_means(table) for table in curve]
            write_table(folder / "curve.csv", pd.DataFrame(steps))
        if run.objective in suite.sweep.objectives:
            write_table(folder / "sweep.csv", pd.DataFrame(_swept(suite, run, plant)))
    for name in suite.datasets:
        write_json(layout.data(name) / "reference.json", {"extractor": "made-up", "floors": {}})


def _swept(suite: Suite, run: RunParams, plant: Callable[[RunParams, str], float]) -> list[dict[str, Any]]:
    head = {"skip": "", "nfe": 10, "num_samples": 40, "fid_se": 0.1, "kid": 0.1, "kid_se": 0.1}
    head |= {"grid": suite.sweep.grid}
    cells = product(suite.sweep.samplers, suite.sweep.steps)
    return [head | {"sampler": sampler, "steps": steps, "fid": plant(run, sampler)} for sampler, steps in cells]


def _likelihoods(generator: np.random.Generator, luck: NDArray[np.float64], nll: float, nelbo: float) -> pd.DataFrame:
    """Make up the likelihoods of images whose means are those given."""
    of_images = pd.DataFrame({"image": np.arange(len(luck))})
    for name, mean in (("nll", nll), ("nelbo", nelbo)):
        own = luck + generator.normal(0, 0.001, len(luck))
        of_images[name] = mean + own - own.mean()
    of_images["nelbo_no_reconstruction"] = of_images["nelbo"]
    return of_images.assign(gap=of_images["nelbo"] - of_images["nll"])


def _of_means(of_images: pd.DataFrame) -> dict[str, float]:
    """Average the likelihoods of images, with standard errors."""
    names = ["nll", "nelbo", "nelbo_no_reconstruction", "gap"]
    means, errors = of_images[names].mean(), of_images[names].sem()
    return {str(name): float(means[name]) for name in names} | {f"{name}_se": float(errors[name]) for name in names}
