"""Grade the claims: a row for each comparison, corrected for the number of comparisons that share an error rate."""

from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from indm.errors import ArtifactError
from indm.report.catalogue import PLACE
from indm.report.differences import COMPARISONS, Comparison, name_of
from indm.report.grades import UNDECIDED, Verdict, grade, repeatability, seeds_needed
from indm.report.intervals import CLUSTERED, FEWEST_SEEDS, TAIL, Interval, estimate, interval, method
from indm.report.sides import Codes, with_code

# The reason of every row begins with it if the seeds of the suite have changed since it was registered.
CHANGED = "changed since registration"
FAILED = ["planned", "failed_treatment", "failed_against"]
CLAIM_COLUMNS = ["suite", "id", "family", *PLACE, "comparison", "treatment", "against", "verdict"]
CLAIM_COLUMNS += ["effect", "low", "high", "smallest_effect", "unit", "n", "images", *FAILED, "reason"]
CLAIM_COLUMNS += ["repeatability", "sd", "to_decide", "protocol", "test", "question", "statement", "source"]
CLAIM_COLUMNS += ["metric", "why"]
# Differences whose range is at most this share of their size are equal up to rounding.
SAME = 1e-9
DIFFERENCE_COLUMNS = ["suite", "id", *PLACE, "comparison", "against", "seed", "difference"]


def claims_table(
    compared: list[Comparison], suite: str, rows: int, changes: str = "", codes: Codes = MappingProxyType({})
) -> pd.DataFrame:
    """Grade every comparison; ``changes`` describes how the seeds of the suite have changed since it was registered.

    A comparison whose two sides were computed by different code, by ``codes``, is exploratory.

    The intervals of primary comparisons leave out 0.025/(3m) on either side, with m the number of primary rows of all suites that
    answer one question, so that at most 2.5 of 100 such questions have any interval that ends wrongly on a side.

    Raises:
        ArtifactError: if the suite alone has more primary rows, or the seeds of a comparison, at least three, all have the same
            difference.
    """
    primary = {(one.claim.id, *one.place.values()) for one in compared if one.is_primary}
    if len(primary) > rows:
        raise ArtifactError(
            f"key grading.rows: found {rows}; allowed: at least {len(primary)}, the primary rows of suite {suite} alone"
        )
    tail = TAIL / (len(COMPARISONS) * rows)
    table = [with_code(_row(one, suite, tail if one.is_primary else TAIL), codes) for one in compared]
    if changes:
        table = [row | {"reason": f"{CHANGED}: {changes}; {row['reason']}"} for row in table]
    # Only if images come in clusters, so that tables of other suites keep their bytes.
    clusters = ["clusters"] if any(one.paired.clustered for one in compared) else []
    counts = ["n", "images", *FAILED, *clusters]
    return pd.DataFrame(table, columns=[*CLAIM_COLUMNS, *clusters]).astype(dict.fromkeys(counts, "Int64"))


def without_verdicts(graded: pd.DataFrame, contradictions: Iterable[str]) -> pd.DataFrame:
    """Withhold all verdicts of a suite whose registration its commit contradicts; what was fixed before the run is then unknown."""
    if not (words := " and ".join(dict.fromkeys(contradictions))):
        return graded
    because = f"because the commit of the registration contradicts it: {words}"
    reasons = [
        f"{CHANGED}, {because}" if verdict == UNDECIDED else f"not {verdict!r}, {because}"
        for verdict in graded["verdict"]
    ]
    return graded.assign(verdict=UNDECIDED, reason=reasons, repeatability=np.nan)


def differences_table(compared: list[Comparison], suite: str) -> pd.DataFrame:
    """List the paired difference of each seed in each comparison, averaged over images."""
    rows = [
        {"suite": suite, "id": one.claim.id, **one.place, "comparison": one.kind, "against": one.against, "seed": seed}
        | {"difference": difference}
        for one in compared
        for seed, difference in zip(one.paired.seeds, one.paired.of_seeds, strict=True)
    ]
    return pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS).astype({"seed": "Int64"})


def _row(one: Comparison, suite: str, tail: float) -> dict[str, Any]:
    """Grade a comparison whose interval leaves out ``tail`` on either side."""
    claim, paired = one.claim, one.paired
    _refuse_no_spread(one)
    smallest, found = claim.smallest.effect, interval(paired.differences, tail)
    verdict = _verdict(one, found)
    row: dict[str, Any] = {
        "suite": suite,
        "id": claim.id,
        "family": claim.family if one.is_primary else "exploratory",
        **one.place,
    }
    row |= {"comparison": one.kind, "against": one.against, "verdict": verdict.word, "reason": verdict.reason}
    row |= {key: getattr(paired, key) for key in FAILED} | found._asdict() | _described(one) | {"test": method(found)}
    if paired.clustered:
        row |= {"images": paired.clustered, "clusters": found.images, "test": CLUSTERED.get(row["test"], row["test"])}
    if found.n < 2:
        return row
    measured = estimate(paired.differences)
    row["sd"] = float(np.sqrt(measured.of_seeds * measured.seeds))
    row["to_decide"] = seeds_needed(paired.differences, smallest, tail)
    # New seeds would not give back what was withheld.
    if found.n < FEWEST_SEEDS or one.struck or one.added:
        return row
    return row | {"repeatability": repeatability(paired, smallest, tail)[verdict.word]}


def _verdict(one: Comparison, found: Interval) -> Verdict:
    """Grade a comparison, but withhold a verdict on other seeds than the registered ones, which may have been chosen to suit it."""
    if one.why_absent:
        return Verdict(UNDECIDED, one.why_absent)
    verdict = grade(one.paired, found, one.claim.smallest.effect)
    if not (one.struck or one.added) or verdict.word == UNDECIDED:
        return verdict
    counts = ((one.struck, "struck"), (one.added, "added"))
    seeds = " and ".join(f"{count} {word}" for count, word in counts if count)
    return Verdict(UNDECIDED, f"not {verdict.word!r}, because its seeds are not the registered ones ({seeds})")


def _refuse_no_spread(one: Comparison) -> None:
    """Refuse equal differences of all seeds, up to rounding: they are no evidence, because their interval would have no length."""
    found, n = one.paired.of_seeds, len(one.paired.seeds)
    if n >= FEWEST_SEEDS and np.ptp(found) <= SAME * np.abs(found).max():
        place = " ".join(filter(None, (*one.place.values(), one.kind, one.against)))
        raise ArtifactError(
            f"claim {one.claim.id}, {place}: found the same difference, {found[0]:.6g}, for all {n} seeds, expected one that "
            "varies with the seed; check that no results were copied from one seed to another, and run their stages again"
        )


def _described(one: Comparison) -> dict[str, Any]:
    claim, metric = one.claim, one.claim.metric
    x = [f"x {metric.x[0]:g} to {metric.x[1]:g}"] if metric.x else []
    sampler = [metric.sampler] if metric.sampler else []
    return {
        "treatment": name_of(claim.treatment),
        "protocol": one.protocol,
        "smallest_effect": claim.smallest.effect,
        "unit": claim.smallest.unit,
        "question": claim.question,
        "statement": claim.statement,
        "source": claim.source,
        "metric": ", ".join([metric.stage, metric.name, *sampler, *x, metric.transform]),
        "why": claim.smallest.why,
    }
