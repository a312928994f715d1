"""The error bars of figures: the 95 % interval of a mean over seeds, and its name."""

from collections.abc import Iterable, Mapping

import pandas as pd

from indm.report.grades import LEVEL

# As column ``test`` of claims.csv names it.
STUDENT = "Student t"


def half_widths(errors: pd.Series, seeds: pd.Series) -> pd.Series:
    r"""Half the length of Student's interval of a mean over n seeds, absent where there is one seed.

    .. math:: t_{n-1} \, s / \sqrt n

    Arguments:
        errors: the standard error of each mean, :math:`s / \sqrt n`.
        seeds: n of each.
    """
    from scipy import stats

    freedom = seeds.astype(float) - 1
    return errors.astype(float) * stats.t.ppf((1 + LEVEL) / 2, freedom.where(freedom > 0))


def named_bars(kinds: Mapping[str, Iterable[int]]) -> str:
    """Name the error bars of means: one kind of bar in all figures, by whatever method it was estimated.

    Arguments:
        kinds: over how many seeds the means are, by the method of their intervals.
    """
    counts = {method: sorted(set(seeds)) for method, seeds in kinds.items()}
    several = {method: [n for n in found if n > 1] for method, found in counts.items()}
    texts = [f"{_range(found)} seeds ({method})" for method, found in several.items() if found]
    if not texts:
        return "One seed: no error bars."
    single = "; none where there is one seed" if any(1 in found for found in counts.values()) else ""
    return f"Error bars: {100 * LEVEL:g} % interval of the mean over {' or '.join(texts)}{single}."


def _range(counts: list[int]) -> str:
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
