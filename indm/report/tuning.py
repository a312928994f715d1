"""Tables of the hyper-parameter search: every trial of every model, and the result of each model's search.

The choice is read in two ways, because a trial of one model may cost more than a trial of another: *same trials* takes the best of
all trials; *same compute* takes the best of the first trials that together take no more FLOPs than the whole search of the cheapest
model. If some trials were trained again for longer, the longer trainings decide, provided that they include the best of these
trials: they are spread over the ranking of all trials, so that they might include only worse ones. Models are compared within a
dataset, SDE and objective.
"""

import math
from itertools import pairwise, permutations
from typing import Any, cast

import numpy as np
import pandas as pd

from indm.report.catalogue import CELL
from indm.report.numbers import RUN_KEY, Results
from indm.report.rows import KINDS, Kind, records
from indm.report.trials import best

COMPARED = ["dataset", "sde", "objective"]
READINGS = ("same trials", "same compute")
# With fewer pairs of ranks, their agreement is meaningless.
FEWEST_RANKS = 3
# The gain, in bits/dim, that makes another doubling of the training worthwhile: the smallest effect of the claims.
GAIN = 0.01
MEASURED = [column for column, kind in KINDS["tune"].items() if kind is Kind.OPTIONAL]
FOUND = ["at_end", "trial", "steps", "target", "target_image_se", "flops", "rank_agreement", "rank_agreement_p"]
FOUND += ["length_rule"]


def tuning_table(results: Results) -> pd.DataFrame:
    """Tabulate every training of every search, failures included."""
    found = results.rows["tune"]
    rows = found.assign(gain_per_doubling=_gains(found), suite=results.suite)
    head = ["suite", *CELL, "trial", "phase", "steps", *_parameters(found), "state", "reason"]
    table = rows[[*head, *MEASURED, "gain_per_doubling", "flops"]]
    return table.rename(columns={key: f"{key.removesuffix('_se')}_image_se" for key in MEASURED if key.endswith("_se")})


def tuned_table(results: Results) -> pd.DataFrame:
    """Tabulate the result of each model's search, in both readings."""
    found, table = results.rows["tune"], []
    parameters = _parameters(found)
    for _, arms in found.groupby(COMPARED, sort=False):
        short = arms[arms["phase"] == "short"]
        budgets = dict(zip(READINGS, (math.inf, short.groupby(CELL)["flops"].max().min()), strict=True))
        for key, arm in arms.groupby(CELL, sort=False):
            cell = dict(zip(CELL, cast(tuple[Any, ...], key), strict=True))
            table += [
                {"suite": results.suite, **cell, "reading": reading, **_read(arm, budget, parameters)}
                for reading, budget in budgets.items()
            ]
    columns = ["suite", *CELL, "reading", "trials", "failed", *parameters, *FOUND]
    return pd.DataFrame(table, columns=columns).astype(dict.fromkeys(("trials", "failed", "trial", "steps"), "Int64"))


def rank_agreement(first: list[float], second: list[float]) -> tuple[float | None, float | None]:
    r"""Spearman's rank correlation, and the probability of one at least as high if all orders were equally likely.

    .. math:: \rho = \mathrm{corr}(\mathrm{rank}(x), \mathrm{rank}(y)), \qquad p = \frac{1}{n!} \#\{\pi : \rho_\pi \ge \rho\}

    Both are ``None`` for fewer than three pairs, or if all values of one side are equal. The p-value is exact, over all n! orders.

    References:
        | The Proof and Measurement of Association between Two Things (Spearman, 1904), https://doi.org/10.2307/1412159
    """
    x, y = (_standardised(values) for values in (first, second))
    if len(first) < FEWEST_RANKS or not (x.any() and y.any()):
        return None, None
    found = float(x @ y)
    orders = y[np.array(list(permutations(range(len(y)))))]
    return found, float((orders @ x >= found - 1e-9).mean())


def _standardised(values: list[float]) -> Any:
    """Return ranks minus their mean, scaled to length one; zeros if all values are equal."""
    ranks = pd.Series(values, dtype=float).rank().to_numpy()
    centred = ranks - ranks.mean() if len(ranks) else ranks
    return centred / (np.linalg.norm(centred) or 1.0)


def length_rule(arm: pd.DataFrame) -> str:
    """Describe how long a model needs to be trained: up to the length after which a doubling gains less than ``GAIN``, or loses."""
    if len(arm) <= 1:
        return ""
    for (_, before), (_, after) in pairwise(arm.iterrows()):
        if _gain(before, after) < GAIN:
            return f"{before['steps']:g} steps are enough"
    return f"more than {arm['steps'].iloc[-1]:g} steps are needed"


def _parameters(rows: pd.DataFrame) -> list[str]:
    """Name the hyper-parameters of all models: the columns that not every search has."""
    known = [*RUN_KEY, "source", *KINDS["tune"]]
    return [column for column in map(str, rows) if column not in known]


def _read(arm: pd.DataFrame, budget: float, parameters: list[str]) -> dict[str, Any]:
    """Choose among the first trials of a model that together take no more FLOPs than the budget."""
    short = arm[(arm["phase"] == "short") & (arm["flops"] <= budget)]
    complete = arm[(arm["state"] == "complete") & arm["trial"].isin(short["trial"])]
    confirmed = complete[complete["phase"] == "confirm"].merge(complete[complete["phase"] == "short"], on="trial")
    rho, p = rank_agreement(list(confirmed["target_y"]), list(confirmed["target_x"]))
    row: dict[str, Any] = {
        "trials": len(short),
        "failed": (short["state"] == "failed").sum(),
        "flops": short["flops"].max(),
    }
    row |= {"rank_agreement": rho, "rank_agreement_p": p}
    lengths = arm[(arm["phase"] == "length") & (arm["state"] == "complete")]
    objective = str(arm["objective"].iloc[0])
    first = best(records(complete[complete["phase"] == "short"]), objective)
    if first is None:
        return row
    decided = first["trial"] in set(arm.loc[arm["phase"] == "confirm", "trial"])
    winner = (best(records(complete[complete["phase"] == "confirm"]), objective) if decided else None) or first
    row |= {key: winner[key] for key in ("trial", "steps", "target", *parameters)}
    # Failed trials count: they are worse.
    row["at_end"] = ", ".join(key for key in parameters if winner[key] in (short[key].min(), short[key].max()))
    # All lengths use the hyper-parameters of one trial.
    told = length_rule(lengths) if set(lengths["trial"]) == {winner["trial"]} else ""
    return row | {"target_image_se": winner["target_se"], "length_rule": told}


def _gains(rows: pd.DataFrame) -> list[float]:
    """Compute the gain of each completed row of the ``length`` phase over the model's previous row."""
    gains: dict[Any, float] = {}
    lengths = rows[(rows["phase"] == "length") & (rows["state"] == "complete")]
    for _, arm in lengths.groupby(RUN_KEY, sort=False):
        for (_, before), (place, after) in pairwise(arm.iterrows()):
            gains[place] = _gain(before, after)
    return [gains.get(place, math.nan) for place in rows.index]


def _gain(before: Any, after: Any) -> float:
    """Return the decrease of the target per doubling of the steps."""
    return float((before["target"] - after["target"]) / math.log2(after["steps"] / before["steps"]))
