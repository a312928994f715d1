"""Stage ``nll``: a run's likelihood numbers on the test split."""

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from indm.diffusion.decoder import alpha_at_eps
from indm.diffusion.evaluation import Evaluation, first_images, likelihood_batches, likelihoods, split_images
from indm.diffusion.model import load_model
from indm.process import precision_now, set_up
from indm.store.files import read_json, write_json, write_table
from indm.store.layout import Layout
from indm.store.provenance import Finished
from indm.store.scratch import Work, open_scratch
from indm.store.shards import gather, open_shard, share

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout, name: str, shard: int | None = None, *, work: Work) -> Finished:
    """Write ``nll.csv`` (bits/dim of each test image) and ``nll.json`` (means and standard errors).

    A shard evaluates its share of the images instead, and writes it to its folder.
    """
    count = suite.shards.nll
    gathers = shard is None and count > 1
    # Gathering the shards does not need a GPU.
    device = set_up("cpu" if gathers else suite.device, suite.threads)
    run, parameters, folder = suite.runs[name], suite.nll, layout.run(name)
    levels = read_json(layout.data(run.dataset) / "dataset.json")["levels"]
    images = first_images(split_images(layout.data(run.dataset), "test"), parameters.images, "nll.images")
    model = load_model(folder / "checkpoint.safetensors", device, suite.weights.model_dump())
    evaluation = Evaluation(**parameters.model_dump(exclude={"images", "log_det"}))
    settings: dict[str, Any] = {"seed": (run.dataset, run.seed), "device": device, "description": name}
    settings |= {"training": partial(split_images, layout.data(run.dataset), "train")}
    if shard is not None:
        with open_shard(layout, name, "nll", shard, work) as part:
            likelihood_batches(model, images, levels, evaluation, once=part.once, share=share(shard, count), **settings)
        return part.finished
    with open_scratch(work) as scratch:
        source = gather(layout, name, "nll", count, work.code) if gathers else scratch
        table = likelihoods(model, images, levels, evaluation, once=source.once, **settings)
        write_table(folder / "nll.csv", table.rename_axis("image").reset_index())
        of_model: dict[str, Any] = {
            "log_det_bound": evaluation.log_det_bound(run.has_flow),
            "alpha_eps": alpha_at_eps(model),
        }
        of_model |= {} if model.path.has_ode else {"no_ode": run.no_ode}
        write_json(folder / "nll.json", _summary(suite, name, table) | of_model)
    return Finished(folder, source.earlier, source.computed_on)


def _summary(suite: "Suite", name: str, table: pd.DataFrame) -> dict[str, Any]:
    """Average the numbers and the gap over images, and describe the protocol of the measurement."""
    run, parameters, weights = suite.runs[name], suite.nll, suite.weights_of(name)
    result = {
        "run": name,
        "unit": "bits/dim",
        "split": "test",
        "images": len(table),
        "weights": weights,
        "divergence": "Hutchinson, one Rademacher probe",
        "log_det": parameters.log_det if run.has_flow else "closed form" if weights["flow"] else None,
        "ode": "Adams-Bashforth of fifth order" if parameters.tolerance is None else "dopri5",
        "tolerance": parameters.tolerance,
        "ode_steps": parameters.ode_steps,
        "time_draws": parameters.time_draws,
        "dtype": precision_now(),
        "seed": run.seed,
    }
    # Results of draws by batch, and of all images, do not say so, because those of earlier versions do not.
    if parameters.draws == "image":
        result |= {"draws": parameters.draws, "control": parameters.control}
    if parameters.ode_images is not None:
        result |= {"ode_images": min(parameters.ode_images, len(table))}
    result |= {str(key): _or_nothing(table[key].mean()) for key in table}
    return result | {f"{key}_se": _or_nothing(table[key].sem()) for key in table}


def _or_nothing(number: Any) -> float | None:
    """Return a number, or nothing where no ODE was solved."""
    return None if math.isnan(number) else number
