"""The limitations of a page's numbers, as far as its files show them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from indm import facts
from indm.registry import FAMILIES
from indm.report.names import name
from indm.report.page.contents import Contents
from indm.report.page.means import read_cells
from indm.report.page.tables import Table
from indm.report.published import (
    PAPER_BATCH,
    PAPER_DATASETS,
    PAPER_IMAGES,
    PAPER_STEPS,
    PUBLISHED_EXTRACTOR,
    PUBLISHED_WEIGHTS,
)
from indm.store.files import read_json

# Models that have seen at most so many images, or half of the training split, have learnt next to nothing.
FEW = 1000


def caveats(contents: Contents, tables: Mapping[str, Table], records: list[dict[str, Any]], results: Path) -> list[str]:
    """List the limitations of a suite's page; those that make its numbers meaningless come first."""
    return [
        *_registered(contents),
        *_trainings(contents, results),
        *_datasets(contents, results),
        *_images(results),
        *_models(tables),
        *_executions(records),
    ]


def _registered(contents: Contents) -> Iterator[str]:
    """Warn that seeds were chosen after the suite had been registered."""
    if contents.changed_seeds:
        yield (
            f"Seeds have changed since the suite was registered: {contents.changed_seeds}. Seeds that are missing count as"
            " failed, and no verdict rests on other seeds than the registered ones."
        )


def _trainings(contents: Contents, results: Path) -> Iterator[str]:
    """Warn if models have seen hardly any images, or fewer than the paper's models."""
    seen = {name: run["steps"] * run["batch_size"] for name, run in contents.runs.items()}
    counts = {name: _read(results / "data" / name / "dataset.json").get("counts") for name in contents.datasets}
    images = {name: counts.get(run["dataset"]) or {"train": 0} for name, run in contents.runs.items()}
    if short := [name for name, count in images.items() if seen[name] <= max(FEW, count["train"] / 2)]:
        yield (
            "This suite only checks that the pipeline runs, and its numbers mean nothing: models were trained for"
            f" {_of(contents, short)}."
        )
    elif fewer := [name for name, run in contents.runs.items() if seen[name] < PAPER_STEPS * PAPER_BATCH]:
        yield (
            f"Trainings are short: {_of(contents, fewer)}, whereas the paper trains for {PAPER_STEPS:,} steps of {PAPER_BATCH}."
            " Longer trainings may change the verdicts."
        )


def _of(contents: Contents, runs: list[str]) -> str:
    """Write the length of some trainings, such as 20 to 30 steps of 16 images."""
    texts = []
    for key in ("steps", "batch_size"):
        found = [contents.runs[run][key] for run in runs]
        low, high = min(found), max(found)
        texts.append(f"{low:,}" if low == high else f"{low:,} to {high:,}")
    return f"{texts[0]} steps of {texts[1]} images"


def _datasets(contents: Contents, results: Path) -> Iterator[str]:
    for dataset in contents.datasets:
        yield from _dataset(contents, results / "data" / dataset, dataset)


def _dataset(contents: Contents, folder: Path, name: str) -> Iterator[str]:
    """Warn if the images are not the paper's, or the features differ from the features of published FIDs."""
    description, reference = _read(folder / "dataset.json"), _read(folder / "reference.json")
    if name not in PAPER_DATASETS:
        form = "{shape[1]} × {shape[2]} pixels of {levels} levels; {source}"
        told, paper = form.format(**description) if description else "unknown", " and ".join(PAPER_DATASETS.values())
        yield f"{name} is not one of the paper’s datasets ({told}): its numbers do not carry over to {paper}."
    if "reference" not in contents.stages.get(name, ()):
        yield f"Samples of {name} are not measured, so there is no FID: the suite names no feature extractor."
        return
    if not reference:
        yield f"The feature extractor of the FIDs of {name} is unknown: {folder / 'reference.json'} is missing."
        return
    extractor, weights = reference["extractor"], reference.get("weights_sha256")
    if weights and not weights.startswith(PUBLISHED_WEIGHTS):
        yield (
            f"FID, KID and all other image scores of {name} are meaningless: Inception does not have the published weights"
            f" ({extractor}, sha256 {weights[:8]}…, published {PUBLISHED_WEIGHTS}…)."
        )
    elif extractor != PUBLISHED_EXTRACTOR:
        accuracy = reference.get("test_accuracy")
        knows = f", a classifier with an accuracy of {accuracy:.1%} on the test images" if accuracy else ""
        yield (
            f"FID and KID of {name} use features of {extractor}{knows}: they are comparable with each other, but not with"
            " published numbers on Inception features."
        )


def _images(results: Path) -> Iterator[str]:
    """Warn if a model's FID is of fewer images than the paper's; rows of real images have no SDE."""
    cells = read_cells(results / "tables/fid.csv")
    counts = cells.loc[cells["sde"] != ""].get("num_samples", pd.Series(dtype=float))
    if counts.min() < PAPER_IMAGES:
        yield (
            f"FID and the other image scores are of {counts.min():,.0f} generated images, the paper’s of {PAPER_IMAGES:,}: few"
            " images bias FID upwards."
        )


def _models(tables: Mapping[str, Table]) -> Iterator[str]:
    """Explain why a model has no NLL, and warn of models with one seed."""
    measured = tables["nll"].texts("model") | tables["toy2d"].texts("model")
    for model in (model for model in FAMILIES if any(text.startswith(name(model)) for text in measured)):
        if reason := facts.family(model).no_ode:
            yield f"{name(model)} has no NLL: {reason}."
    if "1" in tables["fid"].texts("seeds") | tables["nll"].texts("seeds"):
        over = "their ± is over images, and does not cover the variation between seeds"
        yield f"Some models were trained with one seed: {over}."


def _executions(records: list[dict[str, Any]]) -> Iterator[str]:
    if any(record["uncommitted_changes"] for record in records):
        yield "Some stages ran on a checkout with uncommitted changes: their commit does not identify their code."
    if len({record["commit"] for record in records}) > 1:
        yield "Stages ran at several commits, because a stage whose code and inputs are unchanged is not run again."
    if len({record["machine"] for record in records}) > 1:
        yield "Stages ran on several machines, but results are reproducible to the byte only on a single machine."
    versions: dict[str, set[str]] = {}
    for record in records:
        for package, version in record["versions"].items():
            versions.setdefault(package, set()).add(version)
    several = [f"{package} {' and '.join(sorted(found))}" for package, found in versions.items() if len(found) > 1]
    if several:
        yield f"Stages ran with several versions of packages, which may compute other numbers: {', '.join(several)}."


def _read(path: Path) -> dict[str, Any]:
    """Read a description of a dataset; empty if the file is missing."""
    return read_json(path) if path.is_file() else {}
