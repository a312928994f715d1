"""The code behind the two sides of a comparison, which can differ where some runs were restored and others were trained later."""

from collections.abc import Iterator, Mapping
from typing import Any

# By dataset, SDE, objective, model, variant and seed of a run, and by stage: the modules of its code, each with its hash.
Codes = Mapping[tuple[Any, ...], Mapping[str, Mapping[str, str]]]
OBJECTIVES = ("nll", "fid")


def with_code(row: Mapping[str, Any], codes: Codes) -> dict[str, Any]:
    """Return a graded comparison that is exploratory and says so, if its two sides differ in code; otherwise as it is.

    Arguments:
        row: a row of the table of claims.
        codes: the code behind each run.
    """
    if not (modules := sorted(set(differing(row, codes)))):
        return dict(row)
    words = f"exploratory, because its sides were computed by different code: {', '.join(modules)}"
    return {**row, "family": "exploratory", "reason": "; ".join(filter(None, (words, row["reason"])))}


def differing(row: Mapping[str, Any], codes: Codes) -> Iterator[str]:
    """Yield the modules that were read on both sides of a comparison, and differ between them for some seed."""
    stage = row["metric"].partition(",")[0]
    stages = ("train", "sample", "fid") if stage == "fid" else ("train", stage)
    one, other = (_by_seed(row, row[side], codes) for side in ("treatment", "against"))
    for seed in one.keys() & other.keys():
        for of_stage in stages:
            then, now = (side[seed].get(of_stage, {}) for side in (one, other))
            yield from (name for name in then.keys() & now.keys() if then[name] != now[name])


def _by_seed(row: Mapping[str, Any], side: str, codes: Codes) -> dict[Any, Mapping[str, Mapping[str, str]]]:
    """Return the code behind the runs of a side, which is written as its model, its variant and perhaps its objective."""
    model, _, variant = side.partition(" ")
    words = variant.split()
    objective = words.pop() if words and words[-1] in OBJECTIVES else row["objective"]
    cell = (row["dataset"], row["sde"], objective, model, " ".join(words))
    return {key[-1]: code for key, code in codes.items() if key[:-1] == cell}
