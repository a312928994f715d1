"""Every number of a suite in one tidy table: one row per run and metric, with its source file.

A second table has the likelihoods of each image: one row per run and image.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from indm import facts
from indm.errors import ArtifactError
from indm.fields import PC, PREDICTOR
from indm.measured import BAND_METRICS, FLOW_METRICS, LIKELIHOODS
from indm.registry import SAMPLERS
from indm.report.results import OF_IMAGES, RUN_KEY, Result, Results, records
from indm.report.schema import TABLES
from indm.store.files import AGAIN

VALUE_COLUMNS = ["suite", *RUN_KEY, "stage", "metric", "sampler", "x", "sound", "value", "se", "source"]
IMAGE_COLUMNS = ["suite", *RUN_KEY, "stage", "x", "image", *LIKELIHOODS]
# The columns that identify a number.
NUMBER = [*RUN_KEY, "stage", "metric", "sampler", "x"]
TRAIN_VALUES = ["steps", "score_parameters", "flow_parameters", "train_flops_per_step"]


def values_table(results: Results) -> pd.DataFrame:
    """Put every number into one table; ``x`` is a sampler's number of steps or the training step, else absent.

    ``sound``, for numbers at few steps, is 1 if the sampler has enough steps, and 0 if its own error may dominate; ``se`` is the
    standard error of this number over images, if known.

    Raises:
        ArtifactError: if a number occurs twice.
    """
    rows = [
        *_run_values(results),
        *_row_values("curve", results.curve, x="step"),
        *_row_values("sweep", with_sound(results.sweep), x="steps"),
        *_toy2d_values(results.toy2d),
        *_protocol_values(results.protocol),
    ]
    table = pd.DataFrame([{"suite": results.suite, **row} for row in rows], columns=VALUE_COLUMNS)
    # As objects, because without a sampler in any row they would be numbers.
    values = table.astype({"sampler": object}).fillna({"sampler": ""})
    refuse_repeats(values)
    return values.astype({"seed": "Int64", "x": "Float64", "sound": "Int64", "value": "Float64", "se": "Float64"})


def refuse_repeats(values: pd.DataFrame) -> None:
    """Refuse a tidy table in which a number occurs twice, because their mean would pass as one number; name the first one."""
    for row in records(values[values.duplicated(NUMBER)])[:1]:
        cell = ", ".join(str(row[key]) for key in NUMBER if not pd.isna(row[key]) and row[key] != "")
        raise ArtifactError(f"{row['source']}: found a number twice ({cell}), expected each once; {AGAIN}")


def images_table(results: Results) -> pd.DataFrame:
    """Put the likelihoods of each image into one table, in bits/dim; ``x`` is the training step of a snapshot, else absent.

    Raises:
        ArtifactError: if the runs of a dataset do not have the same images, each once.
    """
    # Only if images of a dataset come in clusters, so that tables of other suites keep their bytes.
    columns = [*IMAGE_COLUMNS, *(["cluster"] if "cluster" in results.images else [])]
    images = results.images.rename(columns={"step": "x"}).assign(suite=results.suite).reindex(columns=columns)
    refuse_other_images(images)
    return images


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


def _file_of_images(row: Mapping[str, Any]) -> str:
    place = [str(row[key]) for key in RUN_KEY if row[key] != ""]
    step = "" if pd.isna(row["x"]) else f", step {row['x']:g}"
    return f"{OF_IMAGES[row['stage']][0]} of {', '.join(place)}{step}"


def _run_values(results: Results) -> Iterator[dict[str, Any]]:
    for run in results.failed:
        source = f"params/{results.suite}.yaml"
        yield {**run, "stage": "train", "metric": "failed", "value": 1, "source": source}
    for run in results.runs:
        name, identity = run["run"], {key: run[key] for key in RUN_KEY}
        samples, flow = results.samples[name], results.flow.get(name, {})
        facts = ("train", results.train[name], TRAIN_VALUES), ("flow", flow, [*FLOW_METRICS, *BAND_METRICS])
        for stage, result, metrics in facts:
            for metric in (metric for metric in metrics if result.get(metric) is not None):
                number = {"metric": metric, "value": result[metric], "se": result.get(f"{metric}_se")}
                yield {**identity, "stage": stage, **number, "source": f"runs/{name}/{stage}.json"}
        drawn = {"sampler": samples["sampler"], "x": samples["steps"]}
        for stage, result, place in (("fid", results.fid.get(name, {}), drawn), ("nll", results.nll[name], {})):
            identity |= {"stage": stage, "source": f"runs/{name}/{stage}.json"}
            yield from ({**identity, **place, **number} for number in _numbers(result))


def _numbers(result: Result) -> Iterator[dict[str, Any]]:
    """Yield the metrics of a result, which have a standard error, unlike its settings."""
    for key, value in result.items():
        if f"{key}_se" in result and not pd.isna(value):
            yield {"metric": key, "value": value, "se": result[f"{key}_se"]}


def _row_values(stage: str, rows: pd.DataFrame, x: str) -> Iterator[dict[str, Any]]:
    for row in records(rows):
        identity = {key: row[key] for key in [*RUN_KEY, "source"]}
        place = {"stage": stage, "sampler": row.get("sampler", ""), "x": row[x], "sound": row.get("sound")}
        yield from ({**identity, **place, **number} for number in _numbers(row))


def is_sound(sampler: str, sde: str, grid: str, steps: float) -> bool:
    """Return whether a sampler has enough points of a grid under an SDE; ``pc`` needs the number of its predictor."""
    name = PREDICTOR if sampler == PC else sampler
    least = facts.sampler(name).sound.get((sde, grid)) if name in SAMPLERS else None
    return least is not None and steps >= least


def with_sound(rows: pd.DataFrame) -> pd.DataFrame:
    """Add to rows of sweeps whether the sampler has enough steps: ``sound``, 1 or 0."""
    keys = ("sampler", "sde", "grid", "steps")
    return rows.assign(sound=[int(is_sound(*(row[key] for key in keys))) for row in records(rows)])


def _toy2d_values(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield every number of the studies of known densities; ``energy_8`` is the ``energy`` metric at 8 steps."""
    names = [str(column) for column in rows if column not in [*RUN_KEY, "source"]]
    metrics = [name for name in names if not name.endswith("_se") and pd.api.types.is_numeric_dtype(rows[name])]
    for row in records(rows):
        identity = {"stage": "toy2d", "sampler": ""} | {key: row[key] for key in [*RUN_KEY, "source"]}
        for metric in (metric for metric in metrics if not pd.isna(row[metric])):
            match = re.fullmatch(r"(.+)_(\d+)", metric)
            place: dict[str, Any] = {"metric": metric}
            if match:
                steps = int(match[2])
                place = {"metric": match[1], "x": steps, "sound": int(is_sound("ddim", "vp", row["grid"], steps))}
            yield {**identity, **place, "value": row[metric], "se": row.get(f"{metric}_se")}


def _protocol_values(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield FIDs under other protocols, with the deviation in the metric's name: ``fid:num_samples=500``."""
    for row in records(rows):
        identity = {"stage": "protocol", "sampler": ""} | {key: row[key] for key in [*RUN_KEY, "source"]}
        for number in _numbers({key: row[key] for key in TABLES["protocol"]}):
            metric = f"{number['metric']}:{row['factor']}={row['setting']}"
            yield {**identity, **number, "metric": metric}
