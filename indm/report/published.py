"""Published numbers, each with its source."""

from pathlib import Path
from typing import Any

import pandas as pd

from indm.registry import SAMPLERS
from indm.report.results import CELL, Result, records
from indm.suite.published import PUBLISHED_COLUMNS, load_published

# The published FIDs are of this network; beside another extractor's they would mean nothing.
PUBLISHED_EXTRACTOR = "inception-v3-compat"
# First digits of its weights' sha256: torch-fidelity's weights-inception-2015-12-05-6726825d.pth.
PUBLISHED_WEIGHTS = "6726825d"
# What the paper trains on, and how long: params/paper.yaml has the sources.
PAPER_DATASETS = {"cifar10": "CIFAR-10", "celeba64": "CelebA 64"}
PAPER_STEPS, PAPER_BATCH = 260_000, 128


def read_published(path: Path) -> pd.DataFrame:
    """Read the published numbers, texts as they stand, absent cells as empty texts.

    Raises:
        ParamsError: if the file cannot be read, or a row of it is not what :mod:`indm.suite.published` allows.
    """
    return pd.DataFrame(load_published(path), columns=PUBLISHED_COLUMNS)


def published_value(published: pd.DataFrame, cell: Result, metric: str, sampler: str = "") -> dict[str, Any]:
    """Look up the published number of a cell: same dataset, SDE, model, variant, objective, kind of sampler; else nothing."""
    match = published[(published["metric"] == metric) & published["sampler"].isin(["", sampler_kind(sampler)])]
    for key in CELL:
        match = match[match[key] == cell[key]]
    if len(match) == 0:
        return {f"published_{metric}": None, "published_source": None}
    first = records(match)[0]
    return {f"published_{metric}": float(first["value"]), "published_source": source_of(first)}


def sampler_kind(sampler: str) -> str:
    """Tell samplers of the reverse SDE, ``pc`` in published tables, from those of the ODE."""
    if sampler == "":
        return ""
    return "ode" if sampler in SAMPLERS and not SAMPLERS.literal(sampler, "CORRECTOR") else "pc"


def source_of(published: Result) -> str:
    return f"{published['source']}, {published['locator']}"
