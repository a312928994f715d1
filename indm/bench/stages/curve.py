"""Stage ``curve``: the likelihood in the course of a run's training, from its snapshots."""

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from indm.diffusion.decoder import alpha_at_eps
from indm.diffusion.evaluation import Evaluation, first_images, likelihoods, split_images
from indm.diffusion.model import load_model
from indm.process import set_up
from indm.store.files import SNAPSHOTS_FORMAT, read_json, read_weights, write_table
from indm.store.layout import Layout
from indm.store.provenance import Finished
from indm.store.scratch import Work, below, open_scratch

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


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
    images = first_images(split_images(data, split), parameters.images, "curve.images")
    path = folder / "snapshots.safetensors"
    _, spec = read_weights(path, SNAPSHOTS_FORMAT)
    with open_scratch(work) as scratch:
        rows: list[dict[str, Any]] = []
        tables = [pd.DataFrame(columns=IMAGES_COLUMNS)]
        evaluation = Evaluation(**parameters.model_dump(exclude={"images", "log_det"}), uncorrected=False)
        solved = None if parameters.ode_images is None else min(parameters.ode_images, len(images))
        settings: dict[str, Any] = {"seed": (run.dataset, run.seed), "device": device}
        settings |= {"training": partial(split_images, data, "train")}
        for step, flops in zip(spec["steps"], spec["flops"], strict=True):
            model = load_model(path, device, suite.weights.model_dump(), step)
            settings |= {"description": f"{name}, step {step}", "once": below(scratch.once, str(step))}
            table = likelihoods(model, images, description["levels"], evaluation, **settings)
            row = {"step": step, "flops": float(flops), "split": split, "images": len(images)}
            row |= {"log_det_bound": evaluation.log_det_bound(run.has_flow), "alpha_eps": alpha_at_eps(model)}
            row |= {key: table[key].mean() for key in NUMBERS}
            row |= {} if solved is None else {"ode_images": solved}
            rows.append(row | {f"{key}_se": table[key].sem() for key in NUMBERS})
            tables.append(table.rename_axis("image").reset_index().assign(step=step))
        # Only if the suite limits them, so that the curves of earlier versions keep their bytes.
        columns = COLUMNS if solved is None else [*COLUMNS, "ode_images"]
        write_table(folder / "curve.csv", pd.DataFrame(rows, columns=columns))
        write_table(folder / "curve_images.csv", pd.concat(tables[1:] or tables)[IMAGES_COLUMNS])
    return Finished(folder, scratch.earlier)
