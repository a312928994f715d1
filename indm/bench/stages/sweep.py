"""Stage ``sweep``: a run's FID and KID for several samplers and numbers of steps."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from indm.diffusion.generate import draw_batches, draw_levels, prior_mean
from indm.diffusion.model import load_model
from indm.errors import ConvergenceError, DivergenceError
from indm.fields import PC, PREDICTOR
from indm.metrics.compare import distances
from indm.metrics.features import features
from indm.metrics.references import load_extractors, load_references
from indm.process import set_up
from indm.progress import bar
from indm.seeding import derive_seed
from indm.store.files import read_json, write_table
from indm.store.layout import Layout
from indm.store.provenance import Finished
from indm.store.scratch import Once, Scratch, Work, below, open_scratch
from indm.store.shards import gather, open_shard, share

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


COLUMNS = ["sampler", "grid", "steps", "nfe", "num_samples", "fid", "fid_se", "kid", "kid_se", "skip"]


def run(suite: "Suite", layout: Layout, name: str, shard: int | None = None, *, work: Work) -> Finished:
    """Write ``sweep.csv``, with a row for each sampler and number of steps; ``skip`` gives the reason for missing numbers.

    A shard samples its share of the images in all rows instead, and writes it to its folder.
    """
    device = set_up(suite.device, suite.threads)
    if shard is not None:
        return _draw_share(suite, layout, name, shard, device, work)
    gathers = suite.shards.sweep > 1
    draw = partial(draw_levels, **_drawing(suite, layout, name, device, gathers=gathers))
    measure = _measurement(suite, layout, name, device)
    with open_scratch(work) as scratch:
        source = gather(layout, name, "sweep", suite.shards.sweep, work.code) if gathers else scratch
        rows = [
            _row(scratch, source.once, sampler, steps, _settings(suite, name, sampler, steps), draw, measure)
            for sampler in suite.sweep.samplers
            for steps in suite.sweep.steps
        ]
        write_table(layout.run(name) / "sweep.csv", pd.DataFrame(rows, columns=COLUMNS))
    return Finished(layout.run(name), scratch.earlier + (source.earlier if gathers else 0.0), source.computed_on)


def _draw_share(suite: "Suite", layout: Layout, name: str, number: int, device: torch.device, work: Work) -> Finished:
    """Sample the share of a shard; rows with many steps are dealt out first, because they take longest."""
    drawing = _drawing(suite, layout, name, device, gathers=False)
    each = -(-suite.sweep.num_samples // suite.sweep.batch_size)
    with open_shard(layout, name, "sweep", number, work) as shard:
        for index, (sampler, steps) in enumerate(_drawn(suite, name)):
            settings = _settings(suite, name, sampler, steps) | {
                "once": below(shard.once, f"{sampler}-{steps}"),
                "share": share(number, suite.shards.sweep, index * each),
            }
            # The shard keeps the error message of a sampler that fails.
            with contextlib.suppress(ConvergenceError, DivergenceError):
                draw_batches(**drawing, **settings)
    return shard.finished


def _drawn(suite: "Suite", name: str) -> list[tuple[str, int]]:
    """List the rows for which images are sampled, with the largest numbers of steps first."""
    snr = suite.sample_params(name).corrector_snr
    samplers = [sampler for sampler in suite.sweep.samplers if not _lacks_corrector(sampler, snr)]
    return [(sampler, steps) for steps in sorted(suite.sweep.steps, reverse=True) for sampler in samplers]


def _drawing(suite: "Suite", layout: Layout, name: str, device: torch.device, *, gathers: bool) -> dict[str, Any]:
    """Return the settings for sampling that all rows share; gathering does not need the mean of the prior."""
    run = suite.runs[name]
    data = layout.data(run.dataset)
    model = load_model(layout.run(name) / "checkpoint.safetensors", device, suite.weights.model_dump())
    centre = suite.sample_params(name).model_dump(include={"centre_prior", "batch_size"})
    return {
        "model": model,
        "levels": read_json(data / "dataset.json")["levels"],
        "seed": _seed(suite, name),
        "device": device,
        "mean": None if gathers else prior_mean(model, data, device, **centre),
    }


def _seed(suite: "Suite", name: str) -> tuple[str, int, str]:
    """Return the seed of the images' noise.

    It does not contain the model, the sampler or the number of steps, so that every row of a dataset and seed starts from
    the same noise.
    """
    return suite.runs[name].dataset, suite.runs[name].seed, "sweep"


def _measurement(
    suite: "Suite", layout: Layout, name: str, device: torch.device
) -> Callable[[NDArray[np.uint8]], dict[str, Any]]:
    """Return a function that measures images as the ``fid`` stage does."""
    data = layout.data(suite.runs[name].dataset)
    levels = read_json(data / "dataset.json")["levels"]
    extractor, _, _ = load_extractors(data / "extractor.safetensors")
    reference = load_references(data)[0][""]
    settings = suite.fid.model_dump(include={"kid_subsets", "kid_subset_size", "bootstrap"})
    seed = derive_seed(*_seed(suite, name), "compare")

    def measure(images: NDArray[np.uint8]) -> dict[str, Any]:
        return distances(features(extractor, images, levels, device=device)[0], reference, **settings, seed=seed)

    return measure


def _row(
    scratch: Scratch,
    once: Once,
    sampler: str,
    steps: int,
    settings: dict[str, Any],
    draw: Callable[..., tuple[NDArray[np.uint8], float]],
    measure: Callable[[NDArray[np.uint8]], dict[str, Any]],
) -> dict[str, Any]:
    """Measure a row, or return an earlier execution's result; the row's images are then removed."""
    place = f"{sampler}-{steps}"
    if (found := scratch.load(place)) is not None:
        return found[1]["row"]
    measured = {"sampler": sampler, "grid": settings["grid"], "steps": steps}
    measured |= _measured(sampler, settings | {"once": below(once, place)}, draw, measure)
    scratch.save(place, {}, {"row": measured})
    scratch.remove(f"{place}-")
    return measured


def _measured(
    sampler: str,
    settings: dict[str, Any],
    draw: Callable[..., tuple[NDArray[np.uint8], float]],
    measure: Callable[[NDArray[np.uint8]], dict[str, Any]],
) -> dict[str, Any]:
    """Sample images and measure them, or return the reason why this is not possible."""
    if _lacks_corrector(sampler, settings["corrector_snr"]):
        return {"skip": "the run's sample section has no corrector_snr"}
    try:
        images, nfe = draw(**settings)
    except (ConvergenceError, DivergenceError) as error:
        return {"skip": str(error)}
    return {"nfe": nfe, "num_samples": len(images), **measure(images)}


def _lacks_corrector(sampler: str, snr: list[float] | None) -> bool:
    return sampler == PC and snr is None


def _settings(suite: "Suite", name: str, sampler: str, steps: int) -> dict[str, Any]:
    """Return a row's settings for sampling: only pc uses the corrector, and models are compared at temperature 1."""
    settings = suite.sample_params(name).model_dump(exclude={"centre_prior"})
    settings |= suite.sweep.model_dump(include={"grid", "denoise", "num_samples", "batch_size"})
    settings |= {"temperature": 1.0, "steps": steps, "progress": bar(f"{name} {sampler} {steps}")}
    if sampler == PC:
        return settings | {"sampler": PREDICTOR}
    return settings | {"sampler": sampler, "corrector_snr": None}
