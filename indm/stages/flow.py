"""Stage ``flow``: the effect of a run's trained flow on test images."""

from typing import TYPE_CHECKING

import torch
from torch import Generator

from indm.arrays import read_array
from indm.data.levels import dequantise
from indm.diffusion.evaluation import Evaluation, first_images
from indm.diffusion.model import load_model
from indm.flows.description import describe
from indm.process import set_up
from indm.seeding import derive_seed
from indm.store.files import read_json, write_json
from indm.store.layout import Layout
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout, name: str) -> Finished:
    """Write ``flow.json``; all runs of a dataset and seed meet the same images."""
    assert suite.flow is not None
    device = set_up(suite.device, suite.threads)
    run, folder, data = suite.runs[name], layout.run(name), layout.data(suite.runs[name].dataset)
    images = first_images(torch.from_numpy(read_array(data / "test.npy")), suite.flow.images, "flow.images")
    model = load_model(folder / "checkpoint.safetensors", torch.device("cpu"), suite.weights.model_dump())
    generator = Generator().manual_seed(derive_seed(run.dataset, run.seed, "flow"))
    x = dequantise(images, read_json(data / "dataset.json")["levels"], generator, model.centered)
    log_det = Evaluation(**suite.nll.model_dump(exclude={"images", "log_det"})).estimator
    found = describe(model.flow.double().to(device), x.double().to(device), log_det, suite.nll.batch_size, generator)
    settings = {"run": name, "split": "test", "images": len(images), "weights": suite.weights_of(name)}
    write_json(folder / "flow.json", settings | found)
    return Finished(folder)
