"""The cost of a cell: sizes and counts, which are reproducible, and times and memory, which are not."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from indm.report.catalogue import CELL
from indm.report.rows import Row

COUNTED = ["score_parameters", "flow_parameters", "train_flops_per_step", "nfe"]
TIMES = ["ms_per_step", "seconds_per_1000_samples"]
MEMORY = "train_peak_memory_mib"
COMPUTE_COLUMNS = [
    "suite",
    *CELL,
    "seeds",
    *COUNTED,
    "precision",
    TIMES[0],
    MEMORY,
    f"{MEMORY}_se",
    TIMES[1],
    "machine",
]


def compute_table(
    suite: str,
    runs: Mapping[str, Row],
    train: Mapping[str, Row],
    samples: Mapping[str, Row],
    provenance: Mapping[str, Mapping[str, Row]],
) -> pd.DataFrame:
    """Tabulate the cost of the runs: the median of times over the runs, and the mean of the memory with its standard error.

    Times include starting the process. They are absent where no run's record has the time that :func:`_seconds` reads, because
    the wall time of a job beside other work would be the cost of that work, too.
    """
    rows = pd.DataFrame(
        [{**cell, **_costs(train[name], samples[name], provenance[name])} for name, cell in runs.items()]
    )
    table = []
    for key, group in rows.groupby(CELL, sort=False):
        row: dict[str, Any] = dict(zip(CELL, key, strict=True)) | {"suite": suite, "seeds": len(group)}
        row |= {metric: group[metric].mean() for metric in [*COUNTED, MEMORY]}
        row |= {metric: group[metric].median() for metric in TIMES} | {f"{MEMORY}_se": group[MEMORY].sem()}
        row["precision"] = "; ".join(sorted(set(group["precision"].dropna())))
        table.append(row | {"machine": "; ".join(sorted(set(group["machine"].dropna())))})
    return pd.DataFrame(table, columns=COMPUTE_COLUMNS).astype({"seeds": "Int64"})


def _costs(train: Row, samples: Row, provenance: Mapping[str, Row]) -> dict[str, Any]:
    known = {**train, **samples}
    # For an imported checkpoint, the FLOPs per step are unknown.
    counted = {key: float("nan" if known.get(key) is None else known[key]) for key in COUNTED}
    seconds = {stage: _seconds(provenance[stage]) for stage in ("train", "sample")}
    return counted | {
        "ms_per_step": 1000 * seconds["train"] / train["steps"],
        "train_peak_memory_mib": provenance["train"].get("peak_memory_mib", float("nan")),
        "seconds_per_1000_samples": 1000 * seconds["sample"] / samples["num_samples"],
        "precision": train.get("precision"),
        "machine": provenance["train"].get("machine"),
    }


def _seconds(record: Row) -> float:
    """Return the time of a job: on a CPU the processor time, and on a GPU the wall time, since the processor waits for the GPU."""
    found = record.get("processor_seconds" if record.get("device", "cpu") == "cpu" else "seconds")
    return float("nan" if found is None else found)
