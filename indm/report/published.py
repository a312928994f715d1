"""Published numbers, each with its source."""

from pathlib import Path
from typing import Any

import pandas as pd

from indm import facts
from indm.registry import SAMPLERS
from indm.report.catalogue import CELL
from indm.report.literature import PUBLISHED_COLUMNS, load_published
from indm.report.rows import Row, records

# The extractor of the published FIDs, which are not comparable with FIDs by another extractor.
PUBLISHED_EXTRACTOR = "inception-v3-compat"
# First digits of its weights' sha256: torch-fidelity's weights-inception-2015-12-05-6726825d.pth.
PUBLISHED_WEIGHTS = "6726825d"
# The paper's datasets, length of training, and images behind an FID; params/paper.yaml has the sources.
PAPER_DATASETS = {"cifar10": "CIFAR-10", "celeba64": "CelebA 64"}
PAPER_STEPS, PAPER_BATCH, PAPER_IMAGES = 260_000, 128, 50_000


def read_published(path: Path) -> pd.DataFrame:
    """Read the published numbers, with texts unchanged and absent cells as empty texts.

    Raises:
        ParamsError: if the file cannot be read, or :mod:`indm.report.literature` does not allow one of its rows.
    """
    return pd.DataFrame(load_published(path), columns=PUBLISHED_COLUMNS)


def published_value(published: pd.DataFrame, cell: Row, metric: str, sampler: str = "") -> dict[str, Any]:
    """Look up the published number for a cell's dataset, SDE, model, variant, objective and kind of sampler; else ``None``."""
    match = published[(published["metric"] == metric) & published["sampler"].isin(["", sampler_kind(sampler)])]
    for key in CELL:
        match = match[match[key] == cell[key]]
    if len(match) == 0:
        return {f"published_{metric}": None, "published_source": None}
    first = records(match)[0]
    return {f"published_{metric}": float(first["value"]), "published_source": source_of(first)}


def sampler_kind(sampler: str) -> str:
    """Return the kind of a sampler in published tables: ``pc`` for the reverse SDE, ``ode`` for the ODE."""
    if sampler == "":
        return ""
    return "ode" if sampler in SAMPLERS and not facts.sampler(sampler).corrector else "pc"


def source_of(published: Row) -> str:
    return f"{published['source']}, {published['locator']}"
