"""Stage ``curve``: the likelihood along a run's training, from its snapshots."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from indm.artifacts import SNAPSHOTS_FORMAT, Layout, read_json, read_weights, write_table
from indm.resume import file_sha256, open_scratch, work_key

if TYPE_CHECKING:
    from indm.params import Suite

NUMBERS = ("nelbo", "nll", "gap")
COLUMNS = ["step", "flops", "split", "images", *(column for key in NUMBERS for column in (key, f"{key}_se"))]


def run(suite: "Suite", layout: Layout, name: str) -> Path:
    """Write ``curve.csv``: a row for each snapshot, in bits/dim with standard errors over images; no snapshot, no row."""
    folder = layout.run(name)
    if suite.train_params(name).snapshots:
        _evaluate(suite, layout, name)
    else:
        _write(folder, [])
    return folder


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    write_table(folder / "curve.csv", pd.DataFrame(rows, columns=COLUMNS))


def _evaluate(suite: "Suite", layout: Layout, name: str) -> None:
    # Imported here: runs without snapshots do not pay for torch.
    from indm.diffusion import load_model
    from indm.stages.common import read_split, set_up
    from indm.stages.nll import first_images, likelihoods

    device = set_up(suite.device, suite.threads)
    run, parameters, folder = suite.runs[name], suite.curve, layout.run(name)
    data = layout.data(run.dataset)
    description = read_json(data / "dataset.json")
    split = "valid" if description["counts"]["valid"] else "test"
    images = first_images(read_split(data, split), parameters.images, "curve.images")
    path = folder / "snapshots.safetensors"
    _, spec = read_weights(path, SNAPSHOTS_FORMAT)
    key = work_key(
        "curve",
        run=[run.dataset, run.seed],
        curve=parameters.model_dump(),
        snapshots=file_sha256(path),
        data=[description["sha256"], split],
        machine=[device.type, suite.threads],
    )
    with open_scratch(layout.scratch(name, "curve"), key) as scratch:
        rows = []
        for step, flops in zip(spec["steps"], spec["flops"], strict=True):
            model = load_model(path, device, str(step), SNAPSHOTS_FORMAT)
            seed, once = (run.dataset, run.seed), scratch.below(str(step))
            levels, place = description["levels"], f"{name}, step {step}"
            table = likelihoods(model, images, levels, parameters, seed, device, place, once, uncorrected=False)
            row = {"step": step, "flops": float(flops), "split": split, "images": len(images)}
            row |= {key: table[key].mean() for key in NUMBERS}
            rows.append(row | {f"{key}_se": table[key].sem() for key in NUMBERS})
        _write(folder, rows)
