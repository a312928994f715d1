"""The tables that people read: views of the tidy table of all numbers, with a row for each cell, its seeds aggregated.

A cell is a dataset x SDE x model x variant x objective. For each number, the column ``v`` is the mean over seeds, ``v_se`` its
standard error over seeds (absent with one seed), and ``v_image_se`` the standard error over images of one run, as the root mean
square over the seeds.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.stats import trim_mean

from indm.errors import ArtifactError
from indm.measured import BAND_METRICS, CURVE_METRICS, FLOW_METRICS, IMAGE_METRICS, LIKELIHOODS, SWEEP_METRICS
from indm.report.catalogue import CELL, FLOORS
from indm.report.intervals import log_ends
from indm.report.names import REFERENCE
from indm.report.numbers import RUN_KEY, Results, decoders
from indm.report.published import PUBLISHED_EXTRACTOR, published_value
from indm.report.rows import Row, records
from indm.report.tuning import tuned_table, tuning_table

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
    return {
        "values": results.values,
        "images": results.images,
        "fid": fid_table(results, published),
        "nll": nll_table(results, published, decoders(results.values, decoder)),
        "discretization": discretization_table(results),
        "learning_curve": learning_curve_table(results),
        "ablation": ablation_table(results),
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
    protocol = ["sampler", "num_samples", "extractor"]
    _refuse_protocols(results.rows["fid"], protocol)
    facts = _facts(results.rows["fid"], CELL, protocol, means=["nfe"])
    table = facts.join(_aggregated(results.values, "fid", CELL)).reset_index()
    beside = pd.DataFrame([_published_beside(published, cell) for cell in records(table)], table.index)
    return _finish(results.suite, pd.concat([table.join(beside), _floors(results)]), FID_COLUMNS)


def _refuse_protocols(runs: pd.DataFrame, keys: list[str]) -> None:
    """Refuse cells whose seeds differ in the protocol of their images."""
    for _, cell in runs.groupby(CELL, sort=False):
        found = cell[keys].drop_duplicates()
        if len(found) > 1:
            words = f"found different protocols, expected one: {found.to_dict('list')}"
            raise ArtifactError(f"runs {', '.join(cell['run'])}: {words}")


def _floors(results: Results) -> pd.DataFrame:
    """Tabulate the scores of real images, whose errors are over images."""
    rows = []
    for reference in records(results.rows["reference"]):
        for floor, scores in reference["floors"].items():
            row = {"dataset": reference["dataset"], "model": FLOORS[floor], "extractor": reference["extractor"]}
            for name, score in scores.items():
                row[re.sub("_se$", "_image_se", name)] = score
            rows.append(row)
    return pd.DataFrame(rows)


def _published_beside(published: pd.DataFrame, cell: Row) -> dict[str, Any]:
    """Look up the published FID and inception score of a cell, by its or an unstated extractor, and name each source once."""
    extractor = cell["extractor"]
    comparable = published[published["extractor"].isin(["", extractor]) & (extractor == PUBLISHED_EXTRACTOR)]
    fid = published_value(comparable, cell, "fid", cell["sampler"])
    score = published_value(comparable, cell, "is", cell["sampler"])
    sources = [fid["published_source"], score["published_source"]]
    return fid | score | {"published_source": "; ".join(dict.fromkeys(filter(None, sources))) or None}


def nll_table(results: Results, published: pd.DataFrame, decoders: Mapping[tuple[str, ...], str]) -> pd.DataFrame:
    """Tabulate the likelihood numbers, in bits/dim, with both decoders; ``decoder`` is the one that claims use."""
    runs = results.rows["nll"]
    # Only where a suite limits them, so that tables of other suites keep their bytes.
    limited = ["ode_images"] if "ode_images" in runs else []
    tails = _over_seeds(_tails(results.images), [*TAILS, "nll_beyond"])
    table = (
        _facts(runs, CELL, ["images", *limited]).join([_aggregated(results.values, "nll", CELL), tails]).reset_index()
    )
    table["decoder"] = [decoders.get(cell) for cell in table[CELL].itertuples(index=False, name=None)]
    beside = pd.DataFrame([published_value(published, cell, "nll") for cell in records(table)], table.index)
    return _finish(results.suite, table.join(beside), [*NLL_COLUMNS, *limited])


def _tails(images: pd.DataFrame) -> pd.DataFrame:
    """Average the NLLs of each run's images without their tails, and count the images whose NLL lies far above their NELBO."""
    rows = []
    for key, found in images[images["stage"] == "nll"].groupby(RUN_KEY):
        row: dict[str, Any] = dict(zip(RUN_KEY, key, strict=True))
        if found["nll"].notna().any():
            row["nll_beyond"] = float((found["nll"] - found["nelbo"] > BEYOND).sum())
        for metric in ("nll", "nll_fixed"):
            known = found[metric].dropna()
            row[f"{metric}_median"] = known.median()
            row[f"{metric}_trimmed"] = trim_mean(known, TRIMMED) if len(known) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def flow_table(results: Results) -> pd.DataFrame:
    """Tabulate the effect of each trained flow on test images; see :func:`indm.flows.description.describe`.

    If the suite asks for it, also the share of each frequency band in the bound; see :mod:`indm.diffusion.bands`.
    """
    runs = results.rows["flow"]
    table = _facts(runs, CELL, ["images"]).join(_aggregated(results.values, "flow", CELL)).reset_index()
    # Only where a suite asks for bands, so that tables of other suites keep their bytes.
    bands = _with_errors(*BAND_METRICS) if BAND_METRICS[0] in runs else []
    return _finish(results.suite, table, [*FLOW_COLUMNS, *bands])


def discretization_table(results: Results) -> pd.DataFrame:
    """Tabulate FID and KID against the steps of each sampler; ``skip`` is the reason for missing numbers.

    ``fid_low`` and ``fid_high`` are the ends of the interval over seeds of the geometric mean, because FIDs are compared by their
    ratios. ``sound`` is 0 if the sampler needs more steps, because its own error may then dominate.
    """
    keys, facts = [*CELL, "sampler", "steps", "sound"], []
    for key, group in results.rows["sweep"].groupby(keys, sort=False):
        low, high = log_ends(group["fid"])
        row = dict(zip(keys, cast(tuple[Any, ...], key), strict=True))
        row |= {"seeds": group["fid"].notna().sum(), "nfe": group["nfe"].mean()}
        row |= {"num_samples": group["num_samples"].max(), "skip": _skipped(group)}
        facts.append(row | {"fid_low": low, "fid_high": high})
    table = _frame(facts, keys).astype({"steps": float, "sound": float})
    numbers = _aggregated(results.values, "sweep", keys, x="steps")
    return _finish(results.suite, table.join(numbers, on=keys), DISCRETIZATION_COLUMNS)


def _skipped(group: pd.DataFrame) -> str:
    """Give the reasons why seeds of a cell have no number, and the number of these seeds if others have one."""
    reasons = [reason for reason in group["skip"] if reason]
    few = f"{len(reasons)} of {len(group)} seeds: " if 0 < len(reasons) < len(group) else ""
    return few + "; ".join(dict.fromkeys(reasons))


def learning_curve_table(results: Results) -> pd.DataFrame:
    """Tabulate the likelihoods during training, in bits/dim, against steps and training FLOPs."""
    keys = [*CELL, "step"]
    table = _facts(results.rows["curve"].astype({"step": float}), keys, ["flops", "images", "split"])
    table = table.join(_aggregated(results.values, "curve", keys, x="step")).reset_index()
    return _finish(results.suite, table, LEARNING_CURVE_COLUMNS)


def protocol_table(results: Results) -> pd.DataFrame:
    """Tabulate the change in FID for each deviation from the suite's protocol, for the one run of each dataset."""
    names = {"fid_se": "fid_image_se", "difference_se": "difference_image_se"}
    return _finish(results.suite, results.rows["protocol"].rename(columns=names).assign(seeds=1), PROTOCOL_COLUMNS)


def toy2d_table(results: Results) -> pd.DataFrame:
    """Tabulate the studies of known densities: the mean of every number over the seeds that have it, likelihoods in bits/dim."""
    rows, values = results.rows["toy2d"], results.values
    sizes = [name for name in ("parameters", "train_flops", "step_flops") if name in rows]
    steps = values["x"].astype(object).map("_{:g}".format, na_action="ignore").fillna("")
    numbers = values.assign(metric=values["metric"] + steps)
    measured = (
        _aggregated(numbers, "toy2d", CELL).dropna(axis="columns", how="all").drop(columns=sizes, errors="ignore")
    )
    columns, names = [*TOY2D_COLUMNS, *sizes], [str(name) for name in rows if name not in sizes]
    for name in names:
        columns += [column for column in (name, f"{name}_se", f"{name}_image_se") if column in measured]
    table = _facts(rows, CELL, sizes).join(measured).reset_index()
    return _finish(results.suite, table, list(dict.fromkeys(columns)))


def ablation_table(results: Results) -> pd.DataFrame:
    """Tabulate every variant's numbers and their differences from the plain baseline, paired by seed.

    .. math:: d = \\frac{1}{n} \\sum_s (v_s - b_s)

    over the n seeds s that both have (``pairs``); negative if the variant's number is smaller. FIDs are compared by their
    logarithms, v = log FID. FIDs from different numbers of images are not comparable, because few images bias FID upwards: the
    difference is left out, and ``skip`` gives the reason.
    """
    numbers = _ablated(results)
    keys = ["dataset", "sde", "objective", "seed"]
    is_baseline = (numbers["model"] == REFERENCE) & (numbers["variant"] == "")
    baseline = numbers[is_baseline].drop(columns=["model", "variant"]).assign(pairs=1)
    paired = numbers.merge(baseline, on=keys, how="left", suffixes=("", "_baseline"))
    unlike = paired["drawn"] != paired["drawn_baseline"]
    paired["log_fid"] = np.log(paired["fid"])
    paired["log_fid_baseline"] = np.log(paired["fid_baseline"].mask(unlike))
    for _, _, compared in ABLATION:
        paired[f"{compared}_difference"] = paired[compared] - paired[f"{compared}_baseline"]
    cells = paired.groupby(CELL, sort=False)
    table = _facts(paired, CELL, ()).join(_over_seeds(paired, PAIRED)).assign(pairs=cells["pairs"].sum())
    table["skip"] = pd.Series({cell: _unlike(group) for cell, group in cells}, dtype=object)
    table = table.reset_index()
    # The baseline has no difference from itself.
    of_pairs = ["pairs", *(name for name in ABLATION_COLUMNS if "_difference" in name)]
    table.loc[(table["model"] == REFERENCE) & (table["variant"] == ""), of_pairs] = np.nan
    return _finish(results.suite, table, ABLATION_COLUMNS)


def _ablated(results: Results) -> pd.DataFrame:
    """Put the numbers that the ablation compares beside each other, a row for each run, with the number of its images."""
    values, series = results.values, {}
    for stage, metric, _ in ABLATION:
        found = values[(values["stage"] == stage) & (values["metric"] == metric)]
        series[metric] = found.groupby(RUN_KEY)["value"].mean().astype(float)
    wide = pd.DataFrame(series, pd.MultiIndex.from_frame(values[RUN_KEY].drop_duplicates())).dropna(how="all")
    drawn = results.rows["sample"][[*RUN_KEY, "num_samples"]].rename(columns={"num_samples": "drawn"})
    return wide.reset_index().merge(drawn, on=RUN_KEY, how="left")


def _unlike(group: pd.DataFrame) -> str:
    """Give the numbers of images behind the FIDs, if they differ from the baseline's."""
    pairs = dict.fromkeys(zip(group["drawn"], group["drawn_baseline"], strict=True))
    unlike = (pair for pair in pairs if pair[0] != pair[1] and not any(map(pd.isna, pair)))
    found = (f"{own:g} images, {REFERENCE}'s of {other:g}" for own, other in unlike)
    return "; ".join(f"log_fid_difference: FID is of {words}" for words in found)


def _frame(rows: Sequence[Mapping[str, Any]], columns: list[str]) -> pd.DataFrame:
    """Make a table, which has some columns even without rows."""
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def _facts(rows: pd.DataFrame, keys: list[str], names: Iterable[str], means: Iterable[str] = ()) -> pd.DataFrame:
    """Give each cell its number of seeds, what its seeds share, and means over them; the cells are the index."""
    cells = rows.groupby(keys, sort=False)
    found = {"seeds": cells.size()}
    # In a suite without such a result, there are no columns either.
    found |= {name: cells[name].first() for name in names if name in rows}
    found |= {name: cells[name].mean() for name in means if name in rows}
    return pd.DataFrame(found)


def _aggregated(values: pd.DataFrame, stage: str, keys: list[str], x: str = "") -> pd.DataFrame:
    """Aggregate the seeds of each cell: a column for each number's mean, and for both of its standard errors.

    Arguments:
        values: the tidy table of all numbers.
        stage: the stage that measured them.
        keys: the columns that tell cells apart; they become the index.
        x: the name of the column ``x`` in ``keys``, if it is there.
    """
    numbers = dict.fromkeys(("x", "sound", "value", "se"), float)
    rows = values[values["stage"] == stage].astype(numbers).rename(columns={"x": x or "x"})
    seeds = rows.assign(variance=rows["se"] ** 2).groupby([*keys, "metric"], dropna=False)
    # By a plain sum: a compensated one, which groups have, would round some published means the other way.
    found = pd.DataFrame({"": seeds["value"].agg(lambda numbers: numbers.mean()), "_se": seeds["value"].sem()})
    found["_image_se"] = seeds["variance"].mean() ** 0.5
    wide = found.reset_index().pivot(index=keys, columns="metric", values=["", "_se", "_image_se"])
    names = cast(pd.MultiIndex, wide.columns).swaplevel()
    return wide.set_axis(names.map("".join), axis="columns")


def _over_seeds(runs: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
    """Average numbers of runs over the seeds of each cell, with their standard errors; the cells are the index."""
    cells = runs.groupby(CELL)
    found = {}
    for metric in metrics:
        if metric in runs:
            found[metric] = cells[metric].mean()
            found[f"{metric}_se"] = cells[metric].sem()
    return pd.DataFrame(found)


def _finish(suite: str, table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Choose the columns of a table, in their order, and write counts as whole numbers."""
    counts = ("seeds", "pairs", "num_samples", "images", "ode_images", "steps", "step")
    integers = [column for column in counts if column in columns]
    return table.assign(suite=suite).reindex(columns=columns).astype(dict.fromkeys(integers, "Int64"))
