"""What the tables are made of: the result files of a suite, read once.

Required are the files of every run's training, sampling, FID and likelihood. A suite need not have the others (learning
curves, sweeps, protocols, 2-D studies): a file that is not there gives no rows. Where a likelihood is, so are its images.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from indm.errors import ArtifactError
from indm.store.files import read_json
from indm.store.layout import Layout

Result = Mapping[str, Any]
# A cell is a row of a table: its seeds are aggregated.
CELL = ["dataset", "sde", "model", "variant", "objective"]
IDENTITY = [*CELL, "seed"]
# Columns of texts, in whatever table.
TEXTS = ["suite", *CELL, "stage", "metric", "source", "sampler", "extractor", "published_source"]
TEXTS += ["skip", "split", "factor", "setting", "note"]
# Columns of each kind of file that the tables need, whether or not there is a file; a study may measure more.
ROWS = {
    "curve": ["step", "flops", "images", "split"],
    "sweep": ["sampler", "steps", "nfe", "num_samples", "skip"],
    "protocol": ["factor", "setting", "fid", "fid_se", "difference", "difference_se", "note"],
    "toy2d": [],
}
# The stages whose numbers are known of each image, and the file of a run that holds them beside the file of its means.
OF_IMAGES = {"nll": ("nll.json", "nll.csv"), "curve": ("curve.csv", "curve_images.csv")}


@dataclass(frozen=True)
class Results:
    """The result files of a suite.

    Arguments:
        suite: its name.
        runs: ``run`` and the keys of ``IDENTITY`` of every run.
        samples, fid, nll, train: the JSON files of every run, by its name.
        references: ``reference.json`` of every dataset.
        curve, sweep, toy2d, protocol: the rows of all files of a kind, with ``IDENTITY`` and ``source``, their path.
        images: the likelihoods of each image, a row for each with ``IDENTITY``, ``stage`` and, of a snapshot, ``step``.
    """

    suite: str
    runs: list[dict[str, Any]]
    samples: Mapping[str, Result]
    fid: Mapping[str, Result]
    nll: Mapping[str, Result]
    train: Mapping[str, Result]
    references: Mapping[str, Result]
    curve: pd.DataFrame
    sweep: pd.DataFrame
    toy2d: pd.DataFrame
    protocol: pd.DataFrame
    images: pd.DataFrame


def read_results(
    layout: Layout,
    runs: Mapping[str, Result],
    datasets: Iterable[str],
    toy2d: Iterable[str] = (),
    protocol: Mapping[str, str] | None = None,
) -> Results:
    """Read the result files of a suite.

    Arguments:
        layout: where they lie.
        runs: the keys of ``IDENTITY`` of every run, by its name.
        datasets: names of the datasets.
        toy2d: names of the 2-D datasets.
        protocol: the run whose protocol is examined, by dataset.

    Raises:
        ArtifactError: if a required file is missing, or a file is damaged.
    """
    folder = layout.suite_folder
    files = {
        kind: {folder / f"runs/{name}/{kind}.csv": identity for name, identity in runs.items()}
        for kind in ("curve", "sweep")
    }
    files["toy2d"] = {folder / f"toy2d/{name}.csv": {"dataset": name, "sde": "", "objective": ""} for name in toy2d}
    files["protocol"] = {folder / f"protocol/{name}.csv": runs[run] for name, run in (protocol or {}).items()}
    read = {
        kind: {name: read_json(layout.run(name) / f"{kind}.json") for name in runs}
        for kind in ("samples", "fid", "nll", "train")
    }
    rows = {kind: _read_rows(folder, found, ROWS[kind]) for kind, found in files.items()}
    return Results(
        suite=layout.suite,
        runs=[{"run": name, **identity} for name, identity in runs.items()],
        samples=read["samples"],
        fid=read["fid"],
        nll=read["nll"],
        train=read["train"],
        references={name: read_json(layout.data(name) / "reference.json") for name in datasets},
        curve=rows["curve"],
        sweep=rows["sweep"],
        toy2d=rows["toy2d"],
        protocol=rows["protocol"],
        images=_read_images(layout, runs),
    )


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """List the rows of a table as mappings from the names of its columns."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _read_rows(folder: Path, files: Mapping[Path, Result], columns: list[str]) -> pd.DataFrame:
    """Read the rows of all files that there are, each with its identity and its path below ``folder``."""
    rows: list[dict[str, Any]] = []
    for path, identity in files.items():
        if path.is_file():
            source = str(path.relative_to(folder))
            rows += [{**identity, **row, "source": source} for row in records(read_rows(path))]
    found = [str(column) for column in pd.DataFrame(rows).columns]
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*IDENTITY, "source", *columns, *found])))


def _read_images(layout: Layout, runs: Mapping[str, Result]) -> pd.DataFrame:
    """Read the likelihoods of each image: of every run, and of its snapshots."""
    tables = [
        read_rows(layout.run(name) / images).assign(**{key: identity[key] for key in IDENTITY}, stage=stage)
        for stage, (means, images) in OF_IMAGES.items()
        for name, identity in runs.items()
        if (layout.run(name) / means).is_file()
    ]
    tables = [table for table in tables if len(table)]
    return (
        pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*IDENTITY, "stage", "step", "image"])
    )


def read_rows(path: Path) -> pd.DataFrame:
    """Read a table of results: absent texts as empty texts, absent numbers as NaN.

    Raises:
        ArtifactError: if it is missing or not a table.
    """
    texts = dict.fromkeys(TEXTS, str)
    try:
        table = pd.read_csv(path, dtype=texts)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise ArtifactError(f"{path}: cannot be read as a table ({error}); run the stage that writes it") from None
    present = [name for name in texts if name in table]
    return table.fillna(dict.fromkeys(present, ""))
