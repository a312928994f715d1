r"""The number of seeds that a claim needs: a power analysis, from the spread of the seeds that have run.

The power is the probability that the interval of S seeds lies above a bound if the effect is the assumed one, twice the smallest,

.. math:: P\big(\hat d - h > \delta\big), \qquad
    \operatorname{Var}(\hat d) = \frac{s^2}{S} + v_b,

with s the observed standard deviation of the paired differences over seeds, :math:`v_b` the variance from the images, which more
seeds do not reduce, and h half the length of the interval (:func:`indm.report.grades.lies`). The observed effects are not used.
For *shown*, the bound is the smallest effect, against the baseline. For *beyond every control*, the bound is 0, against each
control. For both answers at once, the powers are multiplied. The conditions of a floor are ignored.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from indm.report.differences import PLACE, Comparison, Paired, family_sizes
from indm.report.grades import lies
from indm.report.intervals import FEWEST_SEEDS, TAIL, Estimate, Numbers, estimate

POWER_COLUMNS = [
    "suite",
    "id",
    "family",
    *PLACE,
    "n",
    "images",
    "unit",
    "smallest_effect",
    "assumed_effect",
    "sd",
    "floor",
    "seeds_baseline",
    "control",
    "control_sd",
    "seeds_control",
    "seeds_needed",
    "note",
]
POWER = 0.8
MOST_SEEDS = 50
# The effect that is assumed to be true, in units of the smallest effect.
ASSUMED = 2
BASELINE = "the baseline"
# Words of a note.
MORE_IMAGES = "more images"
WITHOUT = "without "


def power_table(compared: list[Comparison], suite: str) -> pd.DataFrame:
    """Tabulate, for each claim that has data, how many seeds would show it with 80 % power if it is true.

    Arguments:
        compared: the paired numbers of all claims, from :func:`indm.report.differences.compare`.
        suite: name of the suite.
    """
    sizes = zip(compared, family_sizes(compared), strict=True)
    rows = [{"suite": suite} | _row(one, TAIL / size) for one, size in sizes if one.baseline.seeds]
    counts = ["n", "images", "seeds_baseline", "seeds_control", "seeds_needed"]
    return pd.DataFrame(rows, columns=POWER_COLUMNS).astype(dict.fromkeys(counts, "Int64"))


def _row(compared: Comparison, tail: float) -> dict[str, Any]:
    claim, against = compared.claim, compared.baseline.differences
    smallest = claim.smallest.effect
    row = {"id": claim.id, "family": claim.family, **compared.place, "n": len(against), "unit": claim.smallest.unit}
    row |= {"images": against.shape[1] if against.ndim == 2 else None, "smallest_effect": smallest}
    if len(against) < 2:
        return row | {"note": "one seed: the spread over seeds is not known"}
    row |= _spread(against)
    if smallest == 0:
        return row | {"note": "no smallest effect to assume a multiple of"}
    return row | {"assumed_effect": ASSUMED * smallest} | _seeds(compared, tail)


def _seeds(compared: Comparison, tail: float) -> dict[str, Any]:
    """Compute how many seeds each comparison of a claim needs, and how many all of them need together."""
    assumed = ASSUMED * compared.claim.smallest.effect
    measured = {name: paired.differences for name, paired in compared.controls.items() if _has_spread(paired)}
    comparisons = {BASELINE: (compared.baseline.differences, assumed - compared.claim.smallest.effect)}
    comparisons |= {name: (control, assumed) for name, control in measured.items()}
    alone = {name: seeds_needed([comparison], tail) for name, comparison in comparisons.items()}
    found: dict[str, Any] = {"seeds_baseline": alone[BASELINE]}
    if measured:
        worst = max(measured, key=lambda name: (alone[name] or np.inf, estimate(measured[name]).of_seeds))
        found |= {"control": worst, "control_sd": _spread(measured[worst])["sd"], "seeds_control": alone[worst]}
    undecided = {name: comparisons[name] for name, seeds in alone.items() if seeds is None}
    if not undecided and (together := seeds_needed([*comparisons.values()], tail)) is not None:
        found |= {"seeds_needed": together}
    elif not undecided:
        undecided = {"all of them together": comparisons[BASELINE]}
    return found | {"note": _note(compared, undecided, tail)}


def _has_spread(paired: Paired) -> bool:
    return len(paired.seeds) > 1


def _spread(differences: Numbers) -> dict[str, float]:
    """Return the standard deviation over seeds, and the standard error from the images, which more seeds do not reduce."""
    found = estimate(differences)
    images = {"floor": float(np.sqrt(found.of_images))} if found.images is not None else {}
    return {"sd": float(np.sqrt(found.of_seeds * found.seeds))} | images


def seeds_needed(comparisons: Sequence[tuple[Numbers, float]], tail: float = TAIL) -> int | None:
    """Return how many seeds show all comparisons with 80 % power if the true effects are this far above their bounds.

    Comparisons are treated as independent. Because they share the treatment, the true power is higher.

    Arguments:
        comparisons: differences of the seeds that have run, shape (S,) or (S, I), S at least 2, of which only the spread is
            used; and the distance from the bound to the assumed effect.
        tail: the tail probability on either side of an interval.

    Returns:
        At least 3; ``None`` if more than 50 would be needed.
    """
    known = [(estimate(differences), distance) for differences, distance in comparisons]
    for seeds in range(FEWEST_SEEDS, MOST_SEEDS + 1):
        if prod(_power(found, distance, seeds, tail) for found, distance in known) >= POWER:
            return seeds
    return None


def with_seeds(found: Estimate, seeds: int) -> Estimate:
    """Return the estimate that another number of seeds with the same spread would give."""
    return found._replace(of_seeds=found.of_seeds * found.seeds / seeds, seeds=seeds)


def _power(found: Estimate, distance: float, seeds: int, tail: float) -> float:
    return lies(with_seeds(found, seeds)._replace(mean=distance), above=0.0, start=tail)


def _images_forbid(differences: Numbers, distance: float, tail: float) -> bool:
    """Return whether the variance from the images is too large for any number of seeds."""
    return lies(estimate(differences)._replace(mean=distance, of_seeds=0.0), above=0.0, start=tail) < POWER


def _note(compared: Comparison, undecided: Mapping[str, tuple[Numbers, float]], tail: float) -> str:
    """Explain why a claim cannot be decided here, and list the controls that the number of seeds ignores."""
    texts = []
    for name, (differences, distance) in undecided.items():
        forbidden = differences.ndim == 2 and _images_forbid(differences, distance, tail)
        texts.append(f"{name} ({MORE_IMAGES if forbidden else f'more than {MOST_SEEDS} seeds'})")
    said = [f"cannot be decided here against {', '.join(texts)}"] if texts else []
    unknown = [name for name, control in compared.controls.items() if not _has_spread(control)]
    said += [f"{WITHOUT}{', '.join(unknown)}: no two seeds here"] if unknown else []
    return "; ".join(said)
