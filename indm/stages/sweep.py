"""Stage ``sweep``: FID and KID of a run by several samplers and numbers of steps."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from indm.diffusion.generate import draw_levels, prior_mean
from indm.diffusion.model import load_model
from indm.errors import ConvergenceError, DivergenceError
from indm.metrics.distances import distances
from indm.metrics.features import features
from indm.metrics.references import load_extractors, load_references
from indm.process import set_up
from indm.progress import bar
from indm.seeding import derive_seed
from indm.stamps import job_stamp
from indm.store.files import file_sha256, read_json, write_table
from indm.store.finished import Finished
from indm.store.layout import Layout
from indm.store.scratch import Scratch, open_scratch, work_key

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


REFERENCE = ["extractor.safetensors", "features.npy", "statistics.safetensors"]
COLUMNS = ["sampler", "steps", "nfe", "num_samples", "fid", "fid_se", "kid", "kid_se", "skip"]


def run(suite: "Suite", layout: Layout, name: str) -> Finished:
    """Write ``sweep.csv``: a row for each sampler and number of steps, which says in ``skip`` why it has no numbers."""
    device = set_up(suite.device, suite.threads)
    run, folder = suite.runs[name], layout.run(name)
    data = layout.data(run.dataset)
    description = read_json(data / "dataset.json")
    extractor, _, _ = load_extractors(data / "extractor.safetensors")
    reference = load_references(data)[0][""]
    model = load_model(folder / "checkpoint.safetensors", device, suite.weights.model_dump())
    # Without the model, the sampler and the steps in it: every row of a dataset and seed starts from the same noise.
    seed = (run.dataset, run.seed, "sweep")
    draw = partial(
        draw_levels,
        model,
        description["levels"],
        seed=seed,
        device=device,
        mean=prior_mean(
            model, data, device, **suite.sample_params(name).model_dump(include={"centre_prior", "batch_size"})
        ),
    )

    settings = suite.fid.model_dump(include={"kid_subsets", "kid_subset_size", "bootstrap"})

    def measure(images: NDArray[np.uint8]) -> dict[str, Any]:
        generated = features(extractor, images, description["levels"], device=device)[0]
        # As the stage fid measures them.
        return distances(generated, reference, **settings, seed=derive_seed(*seed, "compare"))

    with open_scratch(layout.scratch(name, "sweep"), _key(suite, layout, name, device.type)) as scratch:
        rows = [
            _row(scratch, sampler, steps, _settings(suite, name, sampler, steps), draw, measure)
            for sampler in suite.sweep.samplers
            for steps in suite.sweep.steps
        ]
        write_table(folder / "sweep.csv", pd.DataFrame(rows, columns=COLUMNS))
    return Finished(folder, scratch.earlier)


def _key(suite: "Suite", layout: Layout, name: str, device: str) -> str:
    """Hash what a row depends on, but for its sampler and steps."""
    run = suite.runs[name]
    data = layout.data(run.dataset)
    return work_key(
        job_stamp(suite, "sweep", name),
        run=[run.dataset, run.seed],
        sweep=suite.sweep.model_dump(exclude={"objectives", "samplers", "steps"}),
        sample=suite.sample_params(name).model_dump(),
        weights=suite.weights.model_dump(),
        fid=suite.fid.model_dump(),
        checkpoint=file_sha256(layout.run(name) / "checkpoint.safetensors"),
        reference=[file_sha256(data / file) for file in REFERENCE],
        data=read_json(data / "dataset.json")["sha256"],
        machine=[device, suite.threads],
    )


def _row(
    scratch: Scratch,
    sampler: str,
    steps: int,
    settings: dict[str, Any],
    draw: Callable[..., tuple[NDArray[np.uint8], float]],
    measure: Callable[[NDArray[np.uint8]], dict[str, Any]],
) -> dict[str, Any]:
    """Measure a row, or know it from an earlier execution; then its images are no longer needed."""
    place = f"{sampler}-{steps}"
    if (found := scratch.load(place)) is not None:
        return found[1]["row"]
    measured = {"sampler": sampler, "steps": steps}
    measured |= _measured(sampler, settings | {"once": scratch.below(place)}, draw, measure)
    scratch.save(place, {}, {"row": measured})
    scratch.remove(f"{place}-")
    return measured


def _measured(
    sampler: str,
    settings: dict[str, Any],
    draw: Callable[..., tuple[NDArray[np.uint8], float]],
    measure: Callable[[NDArray[np.uint8]], dict[str, Any]],
) -> dict[str, Any]:
    """Draw images by a sampler and measure them, or say why there are none."""
    if sampler == "pc" and settings["corrector_snr"] is None:
        return {"skip": "the run's sample section has no corrector_snr"}
    try:
        images, nfe = draw(**settings)
    except (ConvergenceError, DivergenceError) as error:
        return {"skip": str(error)}
    return {"nfe": nfe, "num_samples": len(images), **measure(images)}


def _settings(suite: "Suite", name: str, sampler: str, steps: int) -> dict[str, Any]:
    """Change the run's sampling to a row's: the corrector belongs to pc alone."""
    settings = suite.sample_params(name).model_dump(exclude={"centre_prior"})
    settings |= suite.sweep.model_dump(include={"grid", "denoise", "num_samples", "batch_size"})
    settings |= {"steps": steps, "progress": bar(f"{name} {sampler} {steps}")}
    if sampler == "pc":
        return settings | {"sampler": "reverse_diffusion"}
    return settings | {"sampler": sampler, "corrector_snr": None}
