"""The numbers of a suite, tidy: every number in one table, the likelihoods of each image in another.

:func:`collect` makes them from the result files of the suite's jobs, whose agreement it checks; all other tables are views of
what it returns. :class:`Tidy` reads them again from a folder, ``results/<suite>`` or, as published, ``docs/results/<suite>``.

A suite is its content in full, as in ``params/expanded/``; neither its schema nor torch is needed.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from indm import facts
from indm.diffusion.fixed_decoder import BARE, FIXED, with_fixed
from indm.errors import ArtifactError
from indm.fields import PC, PREDICTOR
from indm.measured import BAND_METRICS, FLOW_METRICS, LIKELIHOODS
from indm.registry import SAMPLERS
from indm.report.catalogue import CELL
from indm.report.intervals import clustered_error
from indm.report.rows import KINDS, Row, read_object, read_rows, records
from indm.store.files import AGAIN, read_json

RUN_KEY = [*CELL, "seed"]
VALUE_COLUMNS = ["suite", *RUN_KEY, "stage", "metric", "sampler", "x", "sound", "value", "se", "source"]
IMAGE_COLUMNS = ["suite", *RUN_KEY, "stage", "x", "image", *LIKELIHOODS]
# The columns that identify a number.
NUMBER = [*RUN_KEY, "stage", "metric", "sampler", "x"]
# The result file of a stage's job, by its subject: an object of one row, or a table.
FILES = {
    "reference": "data/{}/reference.json",
    "train": "runs/{}/train.json",
    "sample": "runs/{}/samples.json",
    "fid": "runs/{}/fid.json",
    "nll": "runs/{}/nll.json",
    "curve": "runs/{}/curve.csv",
    "flow": "runs/{}/flow.json",
    "sweep": "runs/{}/sweep.csv",
    "tune": "runs/{}/tune.csv",
    "protocol": "protocol/{}.csv",
    "toy2d": "toy2d/{}.csv",
}
# The stages with numbers for each image: the file beside the one of their means, and its kind.
OF_IMAGES = {"nll": ("nll.csv", "nll_images"), "curve": ("curve_images.csv", "curve_images")}
# The numbers of a result file that are listed by their names; of other files, all that have a standard error.
LISTED = {
    "train": ["steps", "score_parameters", "flow_parameters", "train_flops_per_step"],
    "flow": [*FLOW_METRICS, *BAND_METRICS],
    "protocol": ["fid", "difference"],
}
# Where a number was measured: the columns of a result file, by those of the tidy table.
PLACES = {
    "fid": {"sampler": "sampler", "x": "steps"},
    "curve": {"x": "step"},
    "sweep": {"sampler": "sampler", "x": "steps", "sound": "sound"},
}
# The bound without the reconstruction, from which the numbers with the fixed decoder are made; no table shows it.
WITHOUT = [BARE, f"{BARE}_se"]
# Tables have six digits, so each number is off by at most 5e-6 of its size. The mean over images, and its standard error, are
# therefore off by at most 7.1e-6 of the images' mean size, and by the same amount again if a table holds them too.
ROUNDED = 2e-5
RECORD = "provenance.json"
# The times at which the sampler of the study of known densities steps.
GRID = "uniform"


# From the folder of a suite.


@dataclass(frozen=True)
class Tidy:
    """The numbers of a suite in a folder, ``results/<suite>`` or ``docs/results/<suite>``; each part is read when it is asked for.

    Arguments:
        folder: the folder, whose name is the suite's.

    Raises:
        ArtifactError: if a part is missing, damaged, or of another suite.
    """

    folder: Path

    @cached_property
    def values(self) -> pd.DataFrame:
        """Every number, a row each; see :attr:`Results.values`."""
        return self._read("values")

    @cached_property
    def images(self) -> pd.DataFrame:
        """The likelihoods of each image, in bits/dim; see :attr:`Results.images`."""
        return self._read("images")

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The runs that have a number: their :data:`RUN_KEY`, a row each, by their names."""
        runs = self.values[RUN_KEY].assign(run=self.values["source"].str.extract("^runs/([^/]+)/", expand=False))
        return runs.dropna(subset="run").drop_duplicates().set_index("run")

    @cached_property
    def record(self) -> list[dict[str, Any]]:
        """The executions behind the numbers: published, those of jobs that are alike are one."""
        path = self.folder / RECORD
        if not path.is_file():
            return [read_json(each) for each in sorted(self.folder.rglob("provenance/*.json"))]
        match read_json(path).get("executions"):
            case [*executions] if executions and all(_has_machine(each) for each in executions):
                return executions
        raise ArtifactError(f"{path}: found no machine, expected one for each execution; {AGAIN}")

    def _read(self, name: str) -> pd.DataFrame:
        path = self.folder / f"tables/{name}.csv"
        packed = path.with_name(f"{path.name}.gz")
        table = read_rows(packed if packed.is_file() else path, name)
        if others := sorted(set(table["suite"]) - {self.folder.name}):
            raise ArtifactError(
                f"{path}: found rows of suite {', '.join(others)}, expected {self.folder.name}; {AGAIN}"
            )
        return table


def _has_machine(execution: object) -> bool:
    return isinstance(execution, dict) and isinstance(execution.get("machine"), str)


# From the result files of jobs.


@dataclass(frozen=True)
class Results:
    """What the jobs of a suite have measured.

    Arguments:
        suite: its name.
        rows: the rows of the result files by stage, the keys of :data:`FILES`; each has the keys of its run and ``source``, the
            file's path. Rows of ``fid`` also have the settings of the samples, and rows of ``sweep`` whether the sampler has
            enough steps: ``sound``, 1 or 0.
        images: the likelihoods of each image, in bits/dim, a row for each run and image; ``x`` is the training step of a snapshot,
            else absent.
        failed: the runs that could not be trained or evaluated.
    """

    suite: str
    rows: Mapping[str, pd.DataFrame]
    images: pd.DataFrame
    failed: Collection[Row] = ()

    @cached_property
    def values(self) -> pd.DataFrame:
        """Every number, a row each; ``x`` is a sampler's number of steps or the training step, else absent.

        ``sound``, for numbers at few steps, is 1 if the sampler has enough steps, and 0 if its own error may dominate; ``se`` is
        the standard error of this number over images, if known.

        Raises:
            ArtifactError: if a number occurs twice.
        """
        rows = [{"suite": self.suite, **row} for row in _values(self)]
        # As objects, because without a sampler in any row they would be numbers.
        values = pd.DataFrame(rows, columns=VALUE_COLUMNS).astype({"sampler": object}).fillna({"sampler": ""})
        refuse_repeats(values)
        return values.astype({"seed": "Int64", "x": "Float64", "sound": "Int64", "value": "Float64", "se": "Float64"})


def collect(folder: Path, suite: Row, jobs: Mapping[str, Collection[str]], clustered: Collection[str] = ()) -> Results:
    """Read the result files that a suite has, and no others.

    Arguments:
        folder: the results folder of the suite.
        suite: its content in full.
        jobs: the subjects of each stage that it has.
        clustered: the datasets whose images come in clusters, which their descriptions list.

    Raises:
        ArtifactError: if a file is missing, damaged or of another run, a summary disagrees with the numbers of its images, or the
            runs of a dataset do not have the same images, each once.
    """
    found = {
        stage: {subject: _read(folder, stage, suite, subject) for subject in jobs.get(stage, ())} for stage in FILES
    }
    # An image metric is of samples.
    found["fid"] = {name: [{**found["sample"][name][0], **row} for row in rows] for name, rows in found["fid"].items()}
    rows = {stage: _frame(stage, chain.from_iterable(of_jobs.values())) for stage, of_jobs in found.items()}
    images = pd.concat(
        [
            _images_of(folder, stage, of_job, alpha_of(suite, name))
            for stage in OF_IMAGES
            for name, of_job in found[stage].items()
        ],
        ignore_index=True,
    )
    # Curves of earlier versions lack the bound without the reconstruction.
    images = pd.DataFrame({"step": np.nan, BARE: np.nan, **images}, images.index)
    images = with_fixed(images, images.pop("alpha"))
    for stage, keys in {"nll": RUN_KEY, "curve": [*RUN_KEY, "step"]}.items():
        rows[stage] = _with_fixed(rows[stage], images[images["stage"] == stage], keys)
    if clustered:
        images["cluster"] = _clusters_of(images, {name: _read_clusters(folder, name) for name in clustered})
        rows["nll"] = _with_clustered_errors(rows["nll"], images[images["stage"] == "nll"])
    rows["sweep"] = _with_sound(rows["sweep"])
    # Only if images of a dataset come in clusters, so that tables of other suites keep their bytes.
    columns = [*IMAGE_COLUMNS, *(["cluster"] if "cluster" in images else [])]
    images = images.rename(columns={"step": "x"}).assign(suite=suite["suite"]).reindex(columns=columns)
    refuse_other_images(images)
    failed = [{key: run[key] for key in RUN_KEY} for run in suite.get("failed", {}).values()]
    return Results(suite["suite"], rows, images, failed)


def _read(folder: Path, stage: str, suite: Row, subject: str) -> list[Row]:
    """Read the rows of a job's file, each with the keys of its run and the file's path."""
    source = FILES[stage].format(subject)
    path, keys = folder / source, {**_identity(stage, suite, subject), "source": source}
    if path.suffix == ".json":
        return [{**read_object(path, stage, None if stage == "reference" else subject), **keys}]
    return [{**row, **keys} for row in records(read_rows(path, stage))]


def _identity(stage: str, suite: Row, subject: str) -> Row:
    """Return the keys of a job's run, as far as the suite states them; models of known densities lack SDE and objective."""
    if stage == "reference":
        return {"dataset": subject}
    if stage == "toy2d":
        job = suite["toy2d"]["datasets"][subject]
        dataset = f"{job['density']}-{job['length']}"
        return {"dataset": dataset, "sde": "", "objective": ""}
    run = suite["runs"][suite["protocol"][subject]["run"] if stage == "protocol" else subject]
    return {key: run[key] for key in RUN_KEY}


def _frame(stage: str, rows: Iterable[Row]) -> pd.DataFrame:
    """Put rows into a table, which has the columns of its kind even without rows."""
    found = list(rows)
    columns = dict.fromkeys([*RUN_KEY, "source", *chain.from_iterable(found), *KINDS[stage]])
    return pd.DataFrame(found, columns=list(columns))


def alpha_of(suite: Row, run: str) -> float:
    r"""Return :math:`\alpha_\epsilon` of a run whose results do not state it; NaN if its log-SNR is learned.

    .. math:: \alpha_\epsilon = \exp\Big(-\tfrac12\int_0^\epsilon \beta_{\min} + t\,(\beta_{\max} - \beta_{\min})\,\mathrm dt\Big)

    under VP, and 1 under VE. Results of other diffusions state it.
    """
    own, shared = suite["runs"][run]["train"].get("sde", {}), suite["train"]["sde"]
    if suite["runs"][run]["sde"] != "vp":
        return 1.0 if suite["runs"][run]["sde"] == "ve" else math.nan
    vp, eps = {**shared["vp"], **own.get("vp", {})}, own.get("eps", shared["eps"])
    integral = vp["beta_min"] * eps + (vp["beta_max"] - vp["beta_min"]) * eps**2 / 2
    return math.nan if vp.get("learned_range") else math.exp(-integral / 2)


# Single images.


def _images_of(folder: Path, stage: str, said: list[Row], alpha: float) -> pd.DataFrame:
    """Read the likelihoods of each image, for the run or the snapshots whose means are known, and check these.

    Arguments:
        folder: the results folder of the suite.
        stage: a key of :data:`OF_IMAGES`.
        said: the rows with the means, of one run.
        alpha: alpha at eps, for means that do not state it.
    """
    run, (file, kind) = said[0], OF_IMAGES[stage]
    place = folder / run["source"]
    table = read_rows(place.with_name(file), kind)
    means = {row.get("step"): row for row in said}
    parts: dict[Any, pd.DataFrame] = dict(iter(table.groupby("step"))) if "step" in table else {None: table}
    for step in {**means, **parts}:
        row, part = means.get(step, {"images": 0}), parts.get(step, table[:0])
        _check_means(place, row, file, part)
        if not facts.family(run["model"]).no_ode:
            _check_solved(place.with_name(file), row.get("ode_images"), part)
    known = {step: row.get("alpha_eps", alpha) for step, row in means.items()}
    alphas = table["step"].map(known) if "step" in table else known[None] or math.nan
    return table.assign(**{key: run[key] for key in RUN_KEY}, stage=stage, alpha=alphas)


def _check_solved(place: Path, expected: float | None, images: pd.DataFrame) -> None:
    """Check that each image has an NLL, or so many as the result of a stage says that it solved the ODE for."""
    found, expected = int(images["nll"].notna().sum()), len(images) if expected is None else int(expected)
    if found != expected:
        counts = "no nll, expected one for each image" if found < expected else f"{found} nll, expected {expected}"
        raise ArtifactError(f"{place}: found {counts}; {AGAIN}")


def _check_means(place: Path, said: Row, file: str, images: pd.DataFrame) -> None:
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


def _with_fixed(rows: pd.DataFrame, images: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Add the likelihoods with the fixed decoder, and their standard errors over images, in place of the bound that they need.

    Arguments:
        rows: means of likelihoods.
        images: likelihoods of the images, from :func:`~indm.diffusion.fixed_decoder.with_fixed`.
        keys: the columns that tell the means apart.
    """
    fixed = images.groupby(keys)[[*FIXED]].agg(["mean", "sem"])
    fixed.columns = pd.Index([f"{key}{end}" for key in FIXED for end in ("", "_se")])
    fixed = fixed.reindex(pd.MultiIndex.from_frame(rows[keys])).set_axis(rows.index)
    return rows.drop(columns=WITHOUT, errors="ignore").join(fixed)


def _read_clusters(folder: Path, dataset: str) -> list[int]:
    """Read the cluster of each test image of a dataset whose images come in clusters."""
    path = folder / f"data/{dataset}/dataset.json"
    found: list[int] | None = read_json(path).get("test_clusters")
    if found is None:
        raise ArtifactError(f"{path}: found no test_clusters, expected the cluster of each test image; {AGAIN}")
    return found


def _clusters_of(images: pd.DataFrame, clusters: Mapping[str, Sequence[int]]) -> "pd.Series[float]":
    """Return the cluster of each row's image; NaN if it is no test image, or its dataset has none."""
    found = pd.Series(np.nan, images.index)
    for dataset, of_images in clusters.items():
        here = (images["stage"] == "nll") & (images["dataset"] == dataset)
        found[here] = np.array(of_images, float)[images.loc[here, "image"].astype(int)]
    return found


def _with_clustered_errors(rows: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Replace the standard errors of likelihoods by those over clusters, of the runs whose images have clusters."""
    errors = pd.DataFrame([_clustered_errors(images, run) for run in records(rows)], rows.index)
    known = errors.fillna(rows.reindex(columns=errors.columns))
    return rows.assign(**{str(name): column for name, column in known.items()})


def _clustered_errors(images: pd.DataFrame, run: Row) -> dict[str, float]:
    """Return the standard errors of a run's likelihoods over clusters, by column; none if its images have no clusters."""
    here = images[np.logical_and.reduce([images[key] == run[key] for key in RUN_KEY])]
    rows = {metric: here[[metric, "cluster"]].dropna() for metric in LIKELIHOODS if metric in here}
    return {
        f"{metric}_se": clustered_error(found[metric].to_numpy(float), found["cluster"].to_numpy())
        for metric, found in rows.items()
        if len(found)
    }


def refuse_other_images(images: pd.DataFrame) -> None:
    """Refuse a table in which the runs of a dataset do not have the same images, each once, because claims pair them."""
    likelihoods = [*RUN_KEY, "stage", "x"]
    for row in records(images[images.duplicated([*likelihoods, "image"])])[:1]:
        raise ArtifactError(f"{_file_of_images(row)}: found image {row['image']} twice, expected each once; {AGAIN}")
    found = images.groupby(likelihoods, dropna=False)["image"].transform("size")
    expected = images.groupby(["dataset", "stage"])["image"].transform("nunique")
    for row in records(images.assign(found=found, expected=expected)[found < expected])[:1]:
        words = f"found {row['found']} images, expected the {row['expected']} that runs of the dataset have"
        raise ArtifactError(f"{_file_of_images(row)}: {words}; {AGAIN}")


def _file_of_images(row: Row) -> str:
    place = [str(row[key]) for key in RUN_KEY if row[key] != ""]
    step: str = "" if pd.isna(row["x"]) else f", step {row['x']:g}"
    return f"{OF_IMAGES[row['stage']][0]} of {', '.join(place)}{step}"


# Every number in one table.


def _values(results: Results) -> Iterator[dict[str, Any]]:
    """Yield every number: those of each run, then those of curves, sweeps, known densities and protocols."""
    for run in results.failed:
        yield {**run, "stage": "train", "metric": "failed", "value": 1, "source": f"params/{results.suite}.yaml"}
    rows = {stage: records(table) for stage, table in results.rows.items()}
    of_runs = {stage: {row["run"]: row for row in rows[stage]} for stage in ("train", "flow", "fid", "nll")}
    for run in of_runs["train"]:
        for stage, found in of_runs.items():
            yield from _numbers(stage, found[run]) if run in found else ()
    for stage in ("curve", "sweep", "toy2d", "protocol"):
        for row in rows[stage]:
            yield from _numbers(stage, row)


def _numbers(stage: str, row: Row) -> Iterator[dict[str, Any]]:
    """Yield the numbers in a row of a result file, each with its run, its source and its standard error."""
    keys = {key: row[key] for key in [*RUN_KEY, "source"]} | {"stage": stage}
    for name in _metrics(stage, row):
        if not pd.isna(row.get(name)):
            yield {**keys, **_place(stage, row, name), "value": row[name], "se": row.get(f"{name}_se")}


def _metrics(stage: str, row: Row) -> list[str]:
    """Name the metrics in a row: the listed ones, or those that have a standard error, unlike settings."""
    if stage == "toy2d":
        texts = {name for name, value in row.items() if isinstance(value, str)}
        return [name for name in row if not name.endswith("_se") and name not in {*RUN_KEY, *texts}]
    return LISTED.get(stage, [name for name in row if f"{name}_se" in row])


def _place(stage: str, row: Row, name: str) -> dict[str, Any]:
    """Say which metric a number is, and at which sampler and x it was measured.

    ``energy_8`` of a known density is the metric ``energy`` at 8 steps. An FID by another protocol has its deviation in the
    metric's name: ``fid:num_samples=500``.
    """
    if stage == "protocol":
        return {"metric": f"{name}:{row['factor']}={row['setting']}"}
    if stage == "toy2d" and (match := re.fullmatch(r"(.+)_(\d+)", name)):
        steps = int(match[2])
        return {"metric": match[1], "x": steps, "sound": int(is_sound("ddim", "vp", GRID, steps))}
    return {"metric": name} | {column: row[key] for column, key in PLACES.get(stage, {}).items()}


def is_sound(sampler: str, sde: str, grid: str, steps: float) -> bool:
    """Return whether a sampler has enough points of a grid under an SDE; ``pc`` needs the number of its predictor."""
    name = PREDICTOR if sampler == PC else sampler
    least = facts.sampler(name).sound.get((sde, grid)) if name in SAMPLERS else None
    return least is not None and steps >= least


def _with_sound(rows: pd.DataFrame) -> pd.DataFrame:
    """Add to rows of sweeps whether the sampler has enough steps; sweeps of earlier versions lack the grid of their times."""
    rows, keys = pd.DataFrame({"grid": "", **rows}, rows.index), ("sampler", "sde", "grid", "steps")
    return rows.assign(sound=[int(is_sound(*(row[key] for key in keys))) for row in records(rows)])


def refuse_repeats(values: pd.DataFrame) -> None:
    """Refuse a tidy table in which a number occurs twice, because their mean would pass as one number; name the first one."""
    for row in records(values[values.duplicated(NUMBER)])[:1]:
        cell = ", ".join(str(row[key]) for key in NUMBER if not pd.isna(row[key]) and row[key] != "")
        raise ArtifactError(f"{row['source']}: found a number twice ({cell}), expected each once; {AGAIN}")


def decoders(values: pd.DataFrame, rule: str) -> dict[tuple[str, ...], str]:
    """Return the decoder of each cell: the learned one, or the one with the lower mean NELBO at the end of training.

    The rule names the images: validation images, or the test images of suites whose validation numbers have no fixed decoder.
    A cell without numbers of both decoders is left out.
    """
    if rule == "learned":
        return dict.fromkeys(values[CELL].drop_duplicates().itertuples(index=False, name=None), rule)
    stage = {"validation": "curve", "test": "nll"}[rule]
    found = values[(values["stage"] == stage) & values["metric"].isin(["nelbo", "nelbo_fixed"])].fillna({"x": 0.0})
    last = found[found["x"] == found.groupby([*CELL, "seed"])["x"].transform("max")]
    means = last.pivot_table("value", CELL, "metric").reindex(columns=["nelbo", "nelbo_fixed"]).dropna()
    return {cell: "learned" if learned <= fixed else "fixed" for cell, learned, fixed in means.itertuples(name=None)}
