"""Stage ``curve``: the likelihood in the course of a run's training, from its snapshots."""

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from indm.arrays import read_array
from indm.diffusion.decoder import alpha_at_eps
from indm.diffusion.evaluation import Evaluation, first_images, likelihoods
from indm.diffusion.model import load_model
from indm.process import set_up
from indm.store.files import SNAPSHOTS_FORMAT, read_json, read_weights, write_table
from indm.store.layout import Layout
from indm.store.provenance import Finished
from indm.store.scratch import Work, below, open_scratch

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


NUMBERS = ("nelbo", "nelbo_no_reconstruction", "nll", "gap")
COLUMNS = ["step", "flops", "split", "images", *(column for key in NUMBERS for column in (key, f"{key}_se"))]
COLUMNS += ["log_det_bound", "alpha_eps"]
IMAGES_COLUMNS = ["step", "image", *NUMBERS]


def run(suite: "Suite", layout: Layout, name: str, *, work: Work) -> Finished:
    """Write ``curve.csv`` and ``curve_images.csv``, in bits/dim.

    The first has a row for each snapshot, with standard errors over images, and the second has a row for each snapshot and
    image.
    """
    device = set_up(suite.device, suite.threads)
    run, parameters, folder = suite.runs[name], suite.curve, layout.run(name)
    data = layout.data(run.dataset)
    description = read_json(data / "dataset.json")
    split = "valid" if description["counts"]["valid"] else "test"
    images = first_images(torch.from_numpy(read_array(data / f"{split}.npy")), parameters.images, "curve.images")
    path = folder / "snapshots.safetensors"
    _, spec = read_weights(path, SNAPSHOTS_FORMAT)
    with open_scratch(work) as scratch:
        rows: list[dict[str, Any]] = []
        tables = [pd.DataFrame(columns=IMAGES_COLUMNS)]
        evaluation = Evaluation(**parameters.model_dump(exclude={"images", "log_det"}), uncorrected=False)
        for step, flops in zip(spec["steps"], spec["flops"], strict=True):
            model = load_model(path, device, suite.weights.model_dump(), step)
            seed, once = (run.dataset, run.seed), below(scratch.once, str(step))
            levels, place = description["levels"], f"{name}, step {step}"
            table = likelihoods(
                model, images, levels, evaluation, seed=seed, device=device, description=place, once=once
            )
            row = {"step": step, "flops": float(flops), "split": split, "images": len(images)}
            row |= {"log_det_bound": evaluation.log_det_bound(run.has_flow), "alpha_eps": alpha_at_eps(model)}
            row |= {key: table[key].mean() for key in NUMBERS}
            rows.append(row | {f"{key}_se": table[key].sem() for key in NUMBERS})
            tables.append(table.rename_axis("image").reset_index().assign(step=step))
        write_table(folder / "curve.csv", pd.DataFrame(rows, columns=COLUMNS))
        write_table(folder / "curve_images.csv", pd.concat(tables[1:] or tables)[IMAGES_COLUMNS])
    return Finished(folder, scratch.earlier)
