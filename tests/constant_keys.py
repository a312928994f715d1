"""List the keys of a suite that have one value in all suites, with the reason to keep each: python -m tests.constant_keys.

A key that nobody would set goes (:mod:`indm.bench.suite.removed`). Defaults are values, and so are the overrides of runs.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from tabulate import tabulate

from indm.bench.suite.expand import suite_files
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite

SECTION = "a section"
SCHEDULE = "the noise schedule, which every study of diffusions asks about"
RELEASED = "a setting of the released code: suites quote it, and imported checkpoints and tests compare it"
STUDIED = "a published row and the paper's page need it"
MACHINE = "fits a training to a machine"
KEPT = {
    "processes": MACHINE,
    "train.micro_batches": MACHINE,
    "compile": MACHINE,
    "datasets.*.split_seed": "another split shows whether a result depends on it",
    "reference.*.published_statistics": "FIDs that are compared with a paper need the paper's reference",
    "train.latent.scale": "the best scale of the data is the simplest control of a flow",
    "train.sde.vp.beta_min": SCHEDULE,
    "train.sde.vp.beta_max": SCHEDULE,
    "train.sde.ve.sigma_min": SCHEDULE,
    "train.sde.eps": SCHEDULE,
    "toy2d.vp.beta_min": SCHEDULE,
    "toy2d.vp.beta_max": SCHEDULE,
    "toy2d.eps": SCHEDULE,
    "train.score.name": "chooses among registered networks, of which somebody may add one",
    "train.score.fourier_scale": RELEASED,
    "train.flow.roulette_mean": RELEASED,
    "train.flow.wolf.prior_steps": RELEASED,
    "train.grad_clip": RELEASED,
    "train.flow_warmup_steps": STUDIED,
    "train.soft_truncation": STUDIED,
    "weights.score": RELEASED,
    "sample.corrector_steps": RELEASED,
    "grading.images.scale": "the best scale of the data, as train.latent.scale",
    "sweep.grid": "samplers of other papers step in log-SNR",
    "sweep.denoise": "other papers measure FID without the last step",
    "tune.*.confirm.steps": "one suite confirms its trials",
    "tune.*.confirm.trials": "one suite confirms its trials",
}


def constant_keys(suites: Iterable[Suite]) -> dict[str, Any]:
    """Return the keys that have one value in all suites that have them, with this value; names are written as ``*``."""
    found: dict[str, list[Any]] = defaultdict(list)
    for suite in suites:
        for section, content in _sections(suite):
            for key, value in _values(content, section):
                found[key] += [value] if value not in found[key] else []
    return {key: values[0] for key, values in found.items() if len(values) == 1 and values != [SECTION]}


def _sections(suite: Suite) -> Iterator[tuple[str, Any]]:
    """Yield the sections of a suite, and of its runs the sections that they override."""
    for name in type(suite).model_fields:
        if name not in ("runs", "failed", "train", "sample"):
            yield name, getattr(suite, name)
    for run in suite.runs:
        yield "train", suite.train_params(run)
        yield "sample", suite.sample_params(run)


def _values(content: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(content, BaseModel | dict):
        yield place, SECTION
    if isinstance(content, BaseModel):
        for name in type(content).model_fields:
            yield from _values(getattr(content, name), f"{place}.{name}")
    elif isinstance(content, dict):
        for value in content.values():
            yield from _values(value, f"{place}.*")
    else:
        yield place, content


if __name__ == "__main__":
    keys = constant_keys(map(load_suite, suite_files(Path("params"))))
    print(
        tabulate([(key, repr(value), KEPT.get(key, "")) for key, value in keys.items()], ["key", "value", "kept, as"])
    )
