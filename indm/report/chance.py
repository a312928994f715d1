r"""Whether chance explains the distances between two runs' numbers: their errors, and how many far ones are to be expected.

The runs have the same seeds. Another processor adds floats in another order, and training amplifies the difference, at most to
the effect of another seed. A number :math:`x` with the error :math:`s` lies this many errors from the published :math:`x', s'`:

.. math:: t = \frac{|x - x'|}{\sqrt{s'^2 + \min(s, 3 s')^2}} .

The minimum is needed because a single training that goes astray widens :math:`s` as much as it moves :math:`x`. If only seeds
differ, t has Student's distribution, with the degrees of freedom of both errors together; if images do, a normal one.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

# Numbers more than FAR errors apart are counted; our own error counts up to WIDE times the published one.
FAR = 3.0
WIDE = 3.0
# Numbers without an error may differ by this share of the larger one.
BOUND = 0.25
# Numbers this close are the same: a share of the larger one (tables have six digits), or, next to 0, this difference itself.
ROUNDED, ZERO = 1e-5, 1e-6
# The probability that chance alone makes two runs with different seeds differ; half is for counts, and half for single numbers.
# With three seeds, the minimum makes it several times as large.
CHANCE = 0.01
SIDES = ("published", "here")
NONE, APART, BEYOND, OTHER, MISSING = "", "by chance", "chance does not explain it", "differs", "missing"


def distances(pairs: pd.DataFrame) -> pd.DataFrame:
    """Judge every pair of entries, by the columns that this returns.

    ``errors`` is their distance in errors, NaN without an error; ``expected`` the probability that chance makes it exceed
    :data:`FAR`; and ``why`` the reason why the pair is named: :data:`NONE`, :data:`APART`, :data:`BEYOND`, :data:`OTHER` or
    :data:`MISSING`. Only :data:`APART` is no difference.

    Arguments:
        pairs: the columns ``value``, ``error`` and ``freedom`` of both sides, with the ends ``_published`` and ``_here``.
    """
    values = [pd.to_numeric(pairs[f"value_{side}"], errors="coerce") for side in SIDES]
    apart, larger = (values[0] - values[1]).abs(), pd.concat(values, axis="columns").abs().max(axis="columns")
    missing = pairs["value_published"].isna() | pairs["value_here"].isna()
    infinite = np.isinf(larger)
    setting = (pairs["error_published"] == 0) & (pairs["error_here"] == 0) & np.isinf(pairs["freedom_published"])
    close = (apart <= (ROUNDED * larger).clip(lower=ZERO)) & ~setting
    same = ((pairs["value_published"] == pairs["value_here"]) | close) & ~infinite
    error = _error(pairs)
    judged = error.notna() & ~setting & ~missing
    # Where neither seeds nor images spread, any distance is infinite.
    errors = (apart / error).mask(infinite, np.inf).mask(same, 0.0).where(judged)
    freedom = pairs["freedom_published"] + pairs["freedom_here"]
    found = pd.DataFrame({"errors": errors, "expected": _tail(FAR, freedom).where(judged, 0.0)}, pairs.index)
    chance = _tail(errors, freedom) * judged.sum() >= CHANCE / 2
    bounded = error.isna() & (apart <= BOUND * larger) & ~infinite
    reasons = [missing, same | (errors <= FAR) | bounded, judged & chance, judged]
    found["why"] = np.select(reasons, [MISSING, NONE, APART, BEYOND], OTHER)
    return found


def _error(pairs: pd.DataFrame) -> "pd.Series[float]":
    """Return the error of each distance; NaN where it is unknown."""
    published, here = (pairs[f"error_{side}"].to_numpy(float) for side in SIDES)
    return pd.Series(np.hypot(published, np.minimum(here, WIDE * published)), pairs.index)


def counts(numbers: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    r"""Count, by table, the models with a number more than :data:`FAR` errors apart, and how many chance lets one expect.

    A model's numbers depend on each other, so its far numbers count once. The expected count of far numbers is the sum of their
    probabilities, which is at least the expected count of models. ``too_many`` says whether so many models are improbable,

    .. math:: P\big(\mathrm{Poisson}(\lambda) \ge k\big) < \frac{0.01}{2 T}

    with T tables. The tables are those with the given names, also if they have no numbers.
    """
    far = numbers["why"].isin([APART, BEYOND])
    tables = numbers.assign(far=far, same=numbers["published"] == numbers["here"]).groupby("table", sort=False)
    found = tables.agg(numbers=("why", "size"), same=("same", "sum"), judged=("errors", "count"), far=("far", "sum"))
    found["expected"] = tables["expected"].sum()
    found = found.reindex(list(names), fill_value=0)
    models = numbers[far].groupby("table")["model"].nunique().reindex(found.index, fill_value=0)
    found["too_many"] = stats.poisson.sf(models - 1, found["expected"]) < CHANCE / 2 / len(found)
    return found.rename_axis("table").reset_index()


def _tail(errors: "pd.Series[float] | float", freedom: "pd.Series[float]") -> "pd.Series[float]":
    """Return the probability that chance moves a number by more than this many errors to either side."""
    return pd.Series(2 * stats.t.sf(errors, freedom), freedom.index)
