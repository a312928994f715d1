"""Stage ``flow``: the effect of a run's trained flow on test images."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from indm.data.levels import dequantise
from indm.diffusion.bands import bounds_by_band
from indm.diffusion.evaluation import Evaluation, first_images, split_images
from indm.diffusion.model import load_model
from indm.flows.description import describe
from indm.measured import BAND_METRICS
from indm.process import set_up
from indm.seeding import derive_seed
from indm.store.files import read_json, write_json
from indm.store.layout import Layout
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout, name: str) -> Finished:
    """Write ``flow.json``; all runs of a dataset and seed meet the same images."""
    assert suite.flow is not None
    device = set_up(suite.device, suite.threads)
    run, folder, data = suite.runs[name], layout.run(name), layout.data(suite.runs[name].dataset)
    images = first_images(split_images(data, "test"), suite.flow.images, "flow.images")
    model = load_model(folder / "checkpoint.safetensors", torch.device("cpu"), suite.weights.model_dump())
    levels = read_json(data / "dataset.json")["levels"]
    shares = _shares_of_bands(suite, layout, name, device, images, levels)
    generator = Generator().manual_seed(derive_seed(run.dataset, run.seed, "flow"))
    x = dequantise(images, levels, generator, model.centered)
    log_det = Evaluation(**suite.nll.model_dump(exclude={"images", "log_det"})).estimator
    found = describe(model.flow.double().to(device), x.double().to(device), log_det, suite.nll.batch_size, generator)
    settings = {"run": name, "split": "test", "images": len(images), "weights": suite.weights_of(name)}
    write_json(folder / "flow.json", settings | found | shares)
    return Finished(folder)


def _shares_of_bands(
    suite: "Suite", layout: Layout, name: str, device: torch.device, images: Tensor, levels: int
) -> dict[str, float]:
    """Return the mean share of each frequency band in the bound, in bits/dim, with standard errors over images.

    Empty if the suite does not ask for it, or the run's map mixes frequencies.
    """
    if suite.flow is None or suite.flow.bands is None:
        return {}
    run = suite.runs[name]
    # Loaded again, because the description of the flow converts it to float64.
    model = load_model(layout.run(name) / "checkpoint.safetensors", device, suite.weights.model_dump())
    evaluation = replace(
        Evaluation(**suite.nll.model_dump(exclude={"images", "log_det"})),
        time_draws=suite.flow.bands.time_draws,
        draws="image",
        control="cosine",
    )
    shares = bounds_by_band(
        model,
        images,
        levels,
        evaluation,
        seed=(run.dataset, run.seed),
        device=device,
        training=partial(split_images, layout.data(run.dataset), "train"),
    )
    if shares is None:
        return {}
    means, errors = shares.mean(0).tolist(), (shares.std(0) / len(shares) ** 0.5).tolist()
    return dict(zip(BAND_METRICS, means, strict=True)) | {
        f"{metric}_se": error for metric, error in zip(BAND_METRICS, errors, strict=True)
    }
