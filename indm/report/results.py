"""The input of the tables: the result files of a suite, read once.

Every run has files for its training, sampling and likelihood, and for FID if its dataset is measured. The suite defines which runs
have a learning curve or a sweep, and which datasets have a study.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from indm import facts
from indm.diffusion.fixed_decoder import BARE, with_fixed
from indm.errors import ArtifactError
from indm.measured import LIKELIHOODS
from indm.report.catalogue import CELL
from indm.report.decoders import fixed_means
from indm.report.intervals import clustered_error
from indm.report.schema import TABLES, Kind, check_table, read_object, require
from indm.store.files import AGAIN
from indm.store.layout import Layout

Result = Mapping[str, Any]
RUN_KEY = [*CELL, "seed"]
# Columns that hold texts in any table: in result files, and in the tables made from them.
TEXTS = [name for kind in TABLES.values() for name, value in kind.items() if value is Kind.TEXT]
TEXTS += ["extractor", "published_source", "reading", "length_rule", "at_end", "treatment", "against", "to_decide"]
# The stages with numbers for each image: the file of a run that holds them, its kind, and the file of their means.
OF_IMAGES = {"nll": ("nll.csv", "nll_images", "nll.json"), "curve": ("curve_images.csv", "curve_images", "curve.csv")}
# The bound without the reconstruction, from which the numbers with the fixed decoder are made; no table shows it.
WITHOUT = [BARE, f"{BARE}_se"]
# Tables have six digits, so each number is off by at most 5e-6 of its size. The mean over images, and its standard error, are
# therefore off by at most 7.1e-6 of the images' mean size, and by the same amount again if a table holds them too.
ROUNDED = 2e-5


@dataclass(frozen=True)
class Results:
    """The result files of a suite: its runs with the keys of ``RUN_KEY``, the JSON files of each by its name, and rows.

    Rows have ``RUN_KEY`` and ``source``, the file's path; those of sweep and toy2d also ``grid``, the time grid of their samplers.
    ``images`` has a row of likelihoods per image, with ``stage`` and, for a snapshot, ``step``. ``failed`` could not be trained or
    evaluated.
    """

    suite: str
    runs: list[dict[str, Any]]
    samples: Mapping[str, Result]
    fid: Mapping[str, Result]
    nll: Mapping[str, Result]
    train: Mapping[str, Result]
    flow: Mapping[str, Result]
    references: Mapping[str, Result]
    curve: pd.DataFrame
    sweep: pd.DataFrame
    tune: pd.DataFrame
    toy2d: pd.DataFrame
    protocol: pd.DataFrame
    images: pd.DataFrame
    failed: Sequence[Result] = ()


@dataclass(frozen=True)
class Measured:
    """What a suite measures, so that no other files are read.

    Arguments:
        runs: the identity of each run, :data:`RUN_KEY`, by its name.
        datasets: the datasets whose images are measured.
        curve: the runs with a learning curve.
        flow: the runs whose flow is described.
        sweep: the runs with samples at few steps.
        tune: the runs with a search.
        toy2d: the name of density and length of each job of the study of known densities, by the name of the job.
        toy2d_grid: the time grid of that study's samplers.
        protocol: the run of each study of the protocol, by its dataset.
        failed: the identities of the runs that could not be trained or evaluated.
        clusters: the cluster of each test image, by dataset, of the datasets whose images come in clusters.
    """

    runs: Mapping[str, Result]
    datasets: Collection[str] = ()
    curve: Collection[str] = ()
    flow: Collection[str] = ()
    sweep: Collection[str] = ()
    tune: Collection[str] = ()
    toy2d: Mapping[str, str] = field(default_factory=dict)
    toy2d_grid: str = ""
    protocol: Mapping[str, str] = field(default_factory=dict)
    failed: Collection[Result] = ()
    clusters: Mapping[str, Sequence[int]] = field(default_factory=dict)


def read_results(layout: Layout, measured: Measured, alpha: Callable[[str], float]) -> Results:
    """Read the result files that a suite has, and no others.

    Arguments:
        layout: where they are.
        measured: what the suite measures.
        alpha: alpha at eps of a run, by its name, for results of earlier versions, which lack it; NaN if it is unknown.

    Raises:
        ArtifactError: if a file is missing or damaged, or a summary disagrees with the numbers of its images.
    """
    runs, of_runs = measured.runs, partial(_read_objects, layout)
    samples, nll = of_runs("samples", runs), of_runs("nll", runs)
    curve = _rows_of_runs(layout, "curve", measured, measured.curve)
    images = _read_images(layout, runs, {"nll": _of_one(nll), "curve": _by_run(curve, measured.curve)}, alpha)
    if measured.clusters:
        images = images.assign(cluster=_clusters_of(images, measured.clusters))
    return Results(
        suite=layout.suite,
        runs=[{"run": name, **identity} for name, identity in runs.items()],
        samples=samples,
        fid=of_runs("fid", [name for name, run in runs.items() if run["dataset"] in measured.datasets]),
        nll=_with_images(nll, images, measured),
        train=of_runs("train", runs),
        flow=of_runs("flow", measured.flow),
        references={name: read_object(layout.data(name) / "reference.json", "reference") for name in measured.datasets},
        curve=_curve_with_images(curve, images),
        sweep=_sweep(_rows_of_runs(layout, "sweep", measured, measured.sweep)),
        tune=_rows_of_runs(layout, "tune", measured, measured.tune),
        toy2d=_read_toy2d(layout, measured),
        protocol=_read_protocol(layout, measured),
        images=images,
        failed=list(measured.failed),
    )


def _read_objects(layout: Layout, kind: str, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read a JSON file of each run."""
    return {name: read_object(layout.run(name) / f"{kind}.json", kind, name) for name in names}


def _rows_of_runs(layout: Layout, kind: str, measured: Measured, names: Iterable[str]) -> pd.DataFrame:
    """Read a table of each run."""
    return _read_rows(
        layout.suite_folder, {layout.run(name) / f"{kind}.csv": measured.runs[name] for name in names}, kind
    )


def _sweep(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the grid of the times, if it is absent: such a sweep was written before samplers declared how many steps they need."""
    return pd.DataFrame({"grid": "", **rows}, rows.index)


def _read_toy2d(layout: Layout, measured: Measured) -> pd.DataFrame:
    """Read the studies of known densities, whose models have neither an SDE nor an objective."""
    folder, files = layout.suite_folder, {}
    for job, label in measured.toy2d.items():
        files[folder / f"toy2d/{job}.csv"] = {"dataset": label, "sde": "", "objective": ""}
    return _read_rows(folder, files, "toy2d").assign(grid=measured.toy2d_grid)


def _read_protocol(layout: Layout, measured: Measured) -> pd.DataFrame:
    """Read the studies of the protocol, each of one run."""
    folder, files = layout.suite_folder, {}
    for dataset, run in measured.protocol.items():
        files[folder / f"protocol/{dataset}.csv"] = measured.runs[run]
    return _read_rows(folder, files, "protocol")


def _of_one(nll: Mapping[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the means of each run's likelihoods as the one row of a table."""
    return {name: [means] for name, means in nll.items()}


def _by_run(curve: pd.DataFrame, names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each run's learning curve."""
    return {name: records(curve[curve["source"] == f"runs/{name}/curve.csv"]) for name in names}


def _with_images(
    nll: Mapping[str, dict[str, Any]], images: pd.DataFrame, measured: Measured
) -> dict[str, dict[str, Any]]:
    """Add to the likelihoods of runs those with the fixed decoder, from the images; and errors over clusters, if there are any."""
    keys = pd.DataFrame([*measured.runs.values()], columns=RUN_KEY)
    fixed = records(fixed_means(images[images["stage"] == "nll"], keys))
    found = {}
    for (name, identity), of_run in zip(measured.runs.items(), fixed, strict=True):
        known = {key: value for key, value in nll[name].items() if key not in WITHOUT}
        errors = _clustered_errors(images, identity) if measured.clusters else {}
        found[name] = known | of_run | errors
    return found


def _curve_with_images(curve: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Add to learning curves the likelihoods with the fixed decoder, from the images."""
    fixed = fixed_means(images[images["stage"] == "curve"], curve[[*RUN_KEY, "step"]])
    return curve.drop(columns=WITHOUT, errors="ignore").join(fixed)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """List the rows of a table as mappings from the names of its columns."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _read_rows(folder: Path, files: Mapping[Path, Result], kind: str) -> pd.DataFrame:
    """Read the rows of all files, each with its identity and its path below ``folder``."""
    rows: list[dict[str, Any]] = []
    for path, identity in files.items():
        source = str(path.relative_to(folder))
        rows += [{**identity, **row, "source": source} for row in records(read_rows(path, kind))]
    found = [str(column) for column in pd.DataFrame(rows).columns]
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*RUN_KEY, "source", *found, *TABLES[kind]])))


def _read_images(
    layout: Layout,
    runs: Mapping[str, Result],
    means: Mapping[str, Mapping[str, list[dict[str, Any]]]],
    alpha: Callable[[str], float],
) -> pd.DataFrame:
    """Read the likelihoods of each image, for the runs and snapshots in ``means``, which holds their means by stage and run."""
    tables = []
    for stage, (file, kind, summary) in OF_IMAGES.items():
        for name, said in means[stage].items():
            table, place = read_rows(layout.run(name) / file, kind), layout.run(name) / summary
            rows = {row.get("step"): row for row in said}
            images: dict[Any, pd.DataFrame] = dict(iter(table.groupby("step"))) if "step" in table else {None: table}
            for step in {**rows, **images}:
                row, of_step = rows.get(step, {"images": 0}), images.get(step, table[:0])
                _check_means(place, row, file, of_step)
                if not facts.family(runs[name]["model"]).no_ode:
                    _check_solved(layout.run(name) / file, row.get("ode_images"), of_step)
            known = {step: row["alpha_eps"] if "alpha_eps" in row else alpha(name) for step, row in rows.items()}
            alphas = table["step"].map(known) if "step" in table else known[None] or math.nan
            tables.append(table.assign(**{key: runs[name][key] for key in RUN_KEY}, stage=stage, alpha=alphas))
    found = pd.concat(tables, ignore_index=True)
    # Curves of earlier versions lack the bound without the reconstruction.
    found = pd.DataFrame({"step": np.nan, BARE: np.nan, **found}, found.index)
    return with_fixed(found, found.pop("alpha"))


def _clusters_of(images: pd.DataFrame, clusters: Mapping[str, Sequence[int]]) -> "pd.Series[float]":
    """Return the cluster of each row's image; NaN if it is no test image, or its dataset has none."""
    found = pd.Series(np.nan, images.index)
    for dataset, of_images in clusters.items():
        here = (images["stage"] == "nll") & (images["dataset"] == dataset)
        found[here] = np.array(of_images, float)[images.loc[here, "image"].astype(int)]
    return found


def _clustered_errors(images: pd.DataFrame, run: Result) -> dict[str, float]:
    """Return the standard errors of a run's likelihoods over clusters, by column; none if its images have no clusters."""
    here = images[(images["stage"] == "nll") & np.logical_and.reduce([images[key] == run[key] for key in RUN_KEY])]
    rows = {metric: here[[metric, "cluster"]].dropna() for metric in LIKELIHOODS if metric in here}
    return {
        f"{metric}_se": clustered_error(found[metric].to_numpy(float), found["cluster"].to_numpy())
        for metric, found in rows.items()
        if len(found)
    }


def _check_solved(place: Path, expected: float | None, images: pd.DataFrame) -> None:
    """Check that each image has an NLL, or so many as the result of a stage says that it solved the ODE for."""
    found, expected = int(images["nll"].notna().sum()), len(images) if expected is None else int(expected)
    if found != expected:
        counts = "no nll, expected one for each image" if found < expected else f"{found} nll, expected {expected}"
        raise ArtifactError(f"{place}: found {counts}; {AGAIN}")


def _check_means(place: Path, said: Result, file: str, images: pd.DataFrame) -> None:
    """Check a summary against the numbers of its images: their count, their means, and the standard errors of the means."""
    names = [name for name, kind in images.dtypes.items() if name in said and name != "step" and kind.kind in "iuf"]
    # With NumPy, because pandas would take a tenth of the time of all tables.
    numbers = images[names].to_numpy(dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        count = np.sum(~np.isnan(numbers), axis=0)
        means, sizes = np.nansum(numbers, axis=0) / count, np.nansum(np.abs(numbers), axis=0) / count
        errors = np.sqrt(np.nansum((numbers - means) ** 2, axis=0) / (count - 1) / count)
    expected = {"images": (float(len(images)), 0.0)}
    for name, mean, error, size in zip(map(str, names), means, errors, sizes, strict=True):
        expected |= {name: (mean, ROUNDED * size), f"{name}_se": (error, ROUNDED * size)}
    for key, (value, tolerance) in expected.items():
        known = math.nan if said.get(key) is None else said[key]
        if not (abs(known - value) <= tolerance or (math.isnan(known) and math.isnan(value))):
            words = f"found {key} {known:.6g}, expected {value:.6g} from the images in {file}"
            raise ArtifactError(f"{place}: {words}; {AGAIN}")


def read_rows(path: Path, kind: str | None = None, columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table: absent texts as empty texts, absent numbers as NaN; check its kind, a key of :data:`TABLES`, if it has one.

    Raises:
        ArtifactError: if it is missing, not a table, lacks a column, or is not of this kind.
    """
    table = _read(path, columns, dtype=dict.fromkeys(TEXTS, str))
    table = table.fillna(dict.fromkeys(table.columns.intersection(TEXTS), ""))
    if kind is not None:
        check_table(path, table, kind)
    return table


def read_columns(path: Path, *columns: str) -> pd.DataFrame:
    """Read a table whose columns are texts or numbers, whole ones as such, and absent ones as absent; see :func:`read_rows`."""
    return _read(path, columns, dtype=dict.fromkeys(TEXTS, str), dtype_backend="numpy_nullable")


def read_texts(path: Path, *columns: str) -> pd.DataFrame:
    """Read a table as texts, with absent texts empty; see :func:`read_rows`."""
    return _read(path, columns, dtype=str, keep_default_na=False)


def _read(path: Path, columns: Iterable[str], **options: Any) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, **options)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path}: cannot be read as a table ({reason}); {AGAIN}") from None
    require(path, table, columns)
    return table
