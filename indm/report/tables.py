"""The tables: one row per cell (dataset x SDE x model x variant x objective), its seeds aggregated.

For each number, the column ``v`` is the mean over seeds, ``v_se`` its standard error over seeds (absent with one seed), and
``v_image_se`` the standard error over images of one run, as the root mean square over the seeds.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.stats import trim_mean

from indm.errors import ArtifactError
from indm.measured import BAND_METRICS, CURVE_METRICS, FLOW_METRICS, IMAGE_METRICS, LIKELIHOODS, SWEEP_METRICS
from indm.report.catalogue import FLOORS
from indm.report.decoders import decoders
from indm.report.intervals import log_ends
from indm.report.names import REFERENCE
from indm.report.published import PUBLISHED_EXTRACTOR, published_value
from indm.report.results import CELL, RUN_KEY, Result, Results, records
from indm.report.tuning import tuned_table, tuning_table
from indm.report.values import images_table, values_table, with_sound

# The numbers that the ablation compares: stage, metric, and the number whose difference is taken.
ABLATION = [("nll", "nelbo", "nelbo"), ("nll", "nll", "nll"), ("nll", "gap", "gap"), ("fid", "fid", "log_fid")]
ABLATION += [("fid", "kid", "kid")]
# The share of images that a trimmed mean leaves out at each end, and by how much an NLL may exceed its NELBO, in bits/dim.
TRIMMED, BEYOND = 0.1, 0.5


def _with_errors(*metrics: str) -> list[str]:
    return [f"{metric}{suffix}" for metric in metrics for suffix in ("", "_se", "_image_se")]


HEAD = ["suite", *CELL, "seeds"]
FID_COLUMNS = [*HEAD, "sampler", "nfe", "num_samples", "extractor", *_with_errors(*IMAGE_METRICS)]
FID_COLUMNS += ["published_fid", "published_is", "published_source"]
TAILS = [f"{metric}_{name}" for metric in ("nll", "nll_fixed") for name in ("median", "trimmed")]
NLL_COLUMNS = [*HEAD, "images", "decoder", *_with_errors(*LIKELIHOODS)]
NLL_COLUMNS += [*(f"{name}{end}" for name in TAILS for end in ("", "_se")), "nll_beyond"]
NLL_COLUMNS += ["published_nll", "published_source"]
FLOW_COLUMNS = [*HEAD, "images", *_with_errors("log_det")]
FLOW_COLUMNS += [f"{metric}{suffix}" for metric in FLOW_METRICS[1:] for suffix in ("", "_se")]
DISCRETIZATION_COLUMNS = [*HEAD, "sampler", "steps", "sound", "nfe", "num_samples", *_with_errors(*SWEEP_METRICS)]
DISCRETIZATION_COLUMNS += ["fid_low", "fid_high", "skip"]
LEARNING_CURVE_COLUMNS = [*HEAD, "step", "flops", "images", "split", *_with_errors(*CURVE_METRICS)]
PAIRED = [name for _, metric, compared in ABLATION for name in (metric, f"{compared}_difference")]
ABLATION_COLUMNS = [*HEAD, "pairs", *(f"{name}{suffix}" for name in PAIRED for suffix in ("", "_se")), "skip"]
PROTOCOL_COLUMNS = [*HEAD, "factor", "setting", "fid", "fid_image_se", "difference", "difference_image_se", "note"]
TOY2D_COLUMNS = [*HEAD, "parameters", "train_flops"]


def suite_tables(results: Results, published: pd.DataFrame, decoder: str) -> dict[str, pd.DataFrame]:
    """Compute the tables of the ``table`` stage, by name; a table that the suite does not ask for has no rows."""
    values = values_table(results)
    return {
        "values": values,
        "images": images_table(results),
        "fid": fid_table(results, published),
        "nll": nll_table(results, published, decoders(values, decoder)),
        "discretization": discretization_table(results),
        "learning_curve": learning_curve_table(results),
        "ablation": ablation_table(results, values),
        "protocol": protocol_table(results),
        "toy2d": toy2d_table(results),
        "flow": flow_table(results),
        "tuning": tuning_table(results),
        "tuned": tuned_table(results),
    }


def fid_table(results: Results, published: pd.DataFrame) -> pd.DataFrame:
    """Tabulate FID, KID and the other scores of images, and below them the floors of every dataset.

    Raises:
        ArtifactError: if the seeds of a cell do not share a protocol.
    """
    measured = [run for run in results.runs if run["run"] in results.fid]
    rows = [{**run, **results.samples[run["run"]], **results.fid[run["run"]]} for run in measured]
    table = [
        {**cell, **_protocol(group), **_means(group, IMAGE_METRICS), **_published_beside(published, cell, group)}
        for cell, group in _groups(pd.DataFrame(rows, columns=None if rows else CELL), CELL)
    ]
    for dataset, reference in results.references.items():
        for floor, values in reference["floors"].items():
            row = {"dataset": dataset, "model": FLOORS[floor], "extractor": reference["extractor"]}
            table.append(row | {re.sub("_se$", "_image_se", str(key)): value for key, value in values.items()})
    return _finish(results.suite, table, FID_COLUMNS)


def nll_table(results: Results, published: pd.DataFrame, decoders: Mapping[tuple[str, ...], str]) -> pd.DataFrame:
    """Tabulate the likelihood numbers, in bits/dim, with both decoders; ``decoder`` is the one that claims use."""
    of_images = results.images[results.images["stage"] == "nll"]
    tails = [dict(zip(RUN_KEY, key, strict=True)) | _tails(rows) for key, rows in of_images.groupby(RUN_KEY)]
    numbers = pd.DataFrame([{**run, **results.nll[run["run"]]} for run in results.runs])
    rows = numbers.merge(pd.DataFrame(tails), on=RUN_KEY)
    table = [
        {**cell, "images": group["images"].iloc[0], "decoder": decoders.get(tuple(cell[key] for key in CELL))}
        | _means(group, [*LIKELIHOODS, *TAILS, "nll_beyond"])
        | published_value(published, cell, "nll")
        | ({"ode_images": group["ode_images"].iloc[0]} if "ode_images" in group else {})
        for cell, group in _groups(rows, CELL)
    ]
    # Only where a suite limits them, so that tables of other suites keep their bytes.
    limited = ["ode_images"] if "ode_images" in rows else []
    return _finish(results.suite, table, [*NLL_COLUMNS, *limited])


def _tails(images: pd.DataFrame) -> dict[str, float]:
    """Average the NLLs of a run's images without their tails, and count the images whose NLL lies far above their NELBO."""
    found = {}
    if images["nll"].notna().any():
        found["nll_beyond"] = float((images["nll"] - images["nelbo"] > BEYOND).sum())
    for metric in ("nll", "nll_fixed"):
        known = images[metric].dropna()
        trimmed = trim_mean(known, TRIMMED) if len(known) else np.nan
        found |= {f"{metric}_median": known.median(), f"{metric}_trimmed": trimmed}
    return found


def flow_table(results: Results) -> pd.DataFrame:
    """Tabulate the effect of each trained flow on test images; see :func:`indm.flows.description.describe`.

    If the suite asks for it, also the share of each frequency band in the bound; see :mod:`indm.diffusion.bands`.
    """
    rows = [{**run, **results.flow[run["run"]]} for run in results.runs if run["run"] in results.flow]
    table = [
        {**cell, "images": group["images"].iloc[0], **_means(group, [*FLOW_METRICS, *BAND_METRICS])}
        for cell, group in _groups(pd.DataFrame(rows, columns=None if rows else CELL), CELL)
    ]
    # Only where a suite asks for bands, so that tables of other suites keep their bytes.
    has_bands = any(BAND_METRICS[0] in row for row in rows)
    return _finish(results.suite, table, [*FLOW_COLUMNS, *(_with_errors(*BAND_METRICS) if has_bands else [])])


def discretization_table(results: Results) -> pd.DataFrame:
    """Tabulate FID and KID against the steps of each sampler; ``skip`` is the reason for missing numbers.

    ``fid_low`` and ``fid_high`` are the ends of the interval over seeds of the geometric mean, because FIDs are compared by their
    ratios. ``sound`` is 0 if the sampler needs more steps, because its own error may then dominate.
    """
    table = [
        {**cell, "num_samples": group["num_samples"].max(), "skip": _skipped(group), "nfe": group["nfe"].mean()}
        | {"seeds": group["fid"].notna().sum()}
        | _means(group, SWEEP_METRICS)
        | dict(zip(("fid_low", "fid_high"), log_ends(group["fid"]), strict=True))
        for cell, group in _groups(with_sound(results.sweep), [*CELL, "sampler", "steps", "sound"])
    ]
    return _finish(results.suite, table, DISCRETIZATION_COLUMNS)


def _skipped(group: pd.DataFrame) -> str:
    """Give the reasons why seeds of a cell have no number, and the number of these seeds if others have one."""
    reasons = [reason for reason in group["skip"] if reason]
    few = f"{len(reasons)} of {len(group)} seeds: " if 0 < len(reasons) < len(group) else ""
    return few + "; ".join(dict.fromkeys(reasons))


def learning_curve_table(results: Results) -> pd.DataFrame:
    """Tabulate the likelihoods during training, in bits/dim, against steps and training FLOPs."""
    table = [
        {**cell, **{key: group[key].iloc[0] for key in ("flops", "images", "split")}, **_means(group, CURVE_METRICS)}
        for cell, group in _groups(results.curve, [*CELL, "step"])
    ]
    return _finish(results.suite, table, LEARNING_CURVE_COLUMNS)


def protocol_table(results: Results) -> pd.DataFrame:
    """Tabulate the change in FID for each deviation from the suite's protocol, for the one run of each dataset."""
    names = {"fid_se": "fid_image_se", "difference_se": "difference_image_se"}
    table = records(results.protocol.rename(columns=names).assign(seeds=1))
    return _finish(results.suite, table, PROTOCOL_COLUMNS)


def toy2d_table(results: Results) -> pd.DataFrame:
    """Tabulate the studies of known densities: the mean of every number over the seeds that have it, likelihoods in bits/dim."""
    sizes, rows = ["parameters", "train_flops", "step_flops"], results.toy2d
    metrics = [str(key) for key in rows if key not in [*RUN_KEY, "source", *sizes]]
    metrics = [key for key in metrics if pd.api.types.is_numeric_dtype(rows[key])]
    table = [
        {**cell, **{key: group[key].iloc[0] for key in sizes if key in group}, **_means(group, metrics)}
        for cell, group in _groups(rows, CELL)
    ]
    found = list(dict.fromkeys(key for row in table for key in row if key not in TOY2D_COLUMNS))
    return _finish(results.suite, table, [*TOY2D_COLUMNS, *found])


def ablation_table(results: Results, values: pd.DataFrame) -> pd.DataFrame:
    """Tabulate every variant's numbers and their differences from the plain baseline, paired by seed.

    .. math:: d = \\frac{1}{n} \\sum_s (v_s - b_s)

    over the n seeds s that both have (``pairs``); negative if the variant's number is smaller. FIDs are compared by their
    logarithms, v = log FID. FIDs from different numbers of images are not comparable, because few images bias FID upwards: the
    difference is left out, and ``skip`` gives the reason.
    """
    series = {}
    for stage, metric, _ in ABLATION:
        found = values[(values["stage"] == stage) & (values["metric"] == metric)]
        series[metric] = found.groupby(RUN_KEY)["value"].mean().astype(float)
    wide = pd.DataFrame(series, pd.MultiIndex.from_frame(values[RUN_KEY].drop_duplicates())).dropna(how="all")
    drawn = [{**run, "drawn": results.samples[run["run"]]["num_samples"]} for run in results.runs]
    rows = wide.reset_index().merge(pd.DataFrame(drawn)[[*RUN_KEY, "drawn"]], on=RUN_KEY, how="left")
    baseline = rows[(rows["model"] == REFERENCE) & (rows["variant"] == "")]
    keys = ["dataset", "sde", "objective", "seed"]
    beside = baseline.drop(columns=["model", "variant"]).assign(pairs=1)
    paired = rows.merge(beside, on=keys, how="left", suffixes=("", "_baseline"))
    unlike = paired["drawn"] != paired["drawn_baseline"]
    paired["log_fid"] = np.log(paired["fid"])
    paired["log_fid_baseline"] = np.log(paired["fid_baseline"].mask(unlike))
    table = []
    for cell, group in _groups(paired, CELL):
        is_baseline = (cell["model"], cell["variant"]) == (REFERENCE, "")
        row = dict(cell) | ({} if is_baseline else {"pairs": group["pairs"].sum()})
        for _, metric, compared in ABLATION:
            row |= _mean(group[metric], metric)
            difference = (group[compared] - group[f"{compared}_baseline"]).dropna()
            row |= {} if is_baseline else _mean(difference, f"{compared}_difference")
        table.append(row | {"skip": _unlike(group)})
    return _finish(results.suite, table, ABLATION_COLUMNS)


def _unlike(group: pd.DataFrame) -> str:
    """Give the numbers of images behind the FIDs, if they differ from the baseline's."""
    pairs = dict.fromkeys(zip(group["drawn"], group["drawn_baseline"], strict=True))
    unlike = (pair for pair in pairs if pair[0] != pair[1] and not any(map(pd.isna, pair)))
    found = (f"{own:g} images, {REFERENCE}'s of {other:g}" for own, other in unlike)
    return "; ".join(f"log_fid_difference: FID is of {words}" for words in found)


def _groups(rows: pd.DataFrame, keys: list[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield the rows of each cell, with its keys and its number of seeds."""
    for key, group in rows.groupby(keys, sort=False):
        yield dict(zip(keys, cast(tuple[Any, ...], key), strict=True)) | {"seeds": len(group)}, group


def _means(group: pd.DataFrame, metrics: list[str]) -> dict[str, Any]:
    """Aggregate the seeds of a cell: mean, and both standard errors; metrics that were not measured are left out."""
    row: dict[str, Any] = {}
    for metric in (metric for metric in metrics if metric in group):
        row |= _mean(group[metric].astype(float), metric)
        if f"{metric}_se" in group:
            row[f"{metric}_image_se"] = np.sqrt((group[f"{metric}_se"].astype(float) ** 2).mean())
    return row


def _mean(numbers: pd.Series, name: str) -> dict[str, float]:
    return {name: float(numbers.mean()), f"{name}_se": cast(float, numbers.sem())}


def _published_beside(published: pd.DataFrame, cell: Result, group: pd.DataFrame) -> dict[str, Any]:
    """Look up the published FID and inception score of a cell, by its or an unstated extractor, and name each source once."""
    sampler, extractor = group[["sampler", "extractor"]].iloc[0]
    comparable = published[published["extractor"].isin(["", extractor]) & (extractor == PUBLISHED_EXTRACTOR)]
    found = {metric: published_value(comparable, cell, metric, sampler) for metric in ("fid", "is")}
    sources = dict.fromkeys(source for row in found.values() if (source := row["published_source"]))
    return found["fid"] | found["is"] | {"published_source": "; ".join(sources) or None}


def _protocol(group: pd.DataFrame) -> dict[str, Any]:
    """Return the protocol that the seeds of a cell must share, and the mean number of network calls."""
    found = group[["sampler", "num_samples", "extractor"]].drop_duplicates()
    if len(found) > 1:
        words = f"found different protocols, expected one: {found.to_dict('list')}"
        raise ArtifactError(f"runs {', '.join(group['run'])}: {words}")
    return {str(key): value for key, value in found.iloc[0].to_dict().items()} | {"nfe": group["nfe"].mean()}


def _finish(suite: str, rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame([{"suite": suite, **row} for row in rows], columns=columns)
    counts = ("seeds", "pairs", "num_samples", "images", "ode_images", "steps", "step")
    integers = [column for column in counts if column in columns]
    return table.astype(dict.fromkeys(integers, "Int64"))
