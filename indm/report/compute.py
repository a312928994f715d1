"""The cost of a cell: sizes and counts, which are reproducible, and times and memory, which are not."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from indm.report.results import CELL, Result

COUNTED = ["score_parameters", "flow_parameters", "train_flops_per_step", "nfe"]
MEASURED = ["ms_per_step", "train_peak_memory_mib", "seconds_per_1000_samples"]
MEASURED_COLUMNS = [f"{metric}{suffix}" for metric in MEASURED for suffix in ("", "_se")]
COMPUTE_COLUMNS = ["suite", *CELL, "seeds", *COUNTED, "precision", *MEASURED_COLUMNS, "machine"]


def compute_table(
    suite: str,
    runs: Mapping[str, Result],
    train: Mapping[str, Result],
    samples: Mapping[str, Result],
    provenance: Mapping[str, Mapping[str, Result]],
) -> pd.DataFrame:
    """Tabulate the cost of the runs; times include starting the process."""
    rows = pd.DataFrame(
        [{**cell, **_costs(train[name], samples[name], provenance[name])} for name, cell in runs.items()]
    )
    table = []
    for key, group in rows.groupby(CELL, sort=False):
        row: dict[str, Any] = dict(zip(CELL, key, strict=True)) | {"suite": suite, "seeds": len(group)}
        row |= {metric: group[metric].mean() for metric in [*COUNTED, *MEASURED]}
        row |= {f"{metric}_se": group[metric].sem() for metric in MEASURED}
        row["precision"] = "; ".join(sorted(set(group["precision"].dropna())))
        table.append(row | {"machine": "; ".join(sorted(set(group["machine"].dropna())))})
    return pd.DataFrame(table, columns=COMPUTE_COLUMNS).astype({"seeds": "Int64"})


def _costs(train: Result, samples: Result, provenance: Mapping[str, Result]) -> dict[str, Any]:
    known = {**train, **samples}
    # For an imported checkpoint, the FLOPs per step are unknown.
    counted = {key: float("nan" if known.get(key) is None else known[key]) for key in COUNTED}
    seconds = {stage: provenance[stage].get("seconds", float("nan")) for stage in ("train", "sample")}
    return counted | {
        "ms_per_step": 1000 * seconds["train"] / train["steps"],
        "train_peak_memory_mib": provenance["train"].get("peak_memory_mib", float("nan")),
        "seconds_per_1000_samples": 1000 * seconds["sample"] / samples["num_samples"],
        "precision": train.get("precision"),
        "machine": provenance["train"].get("machine"),
    }
