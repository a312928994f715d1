"""Comparison with published numbers: every candidate, and whether the two numbers are comparable."""

from typing import Any

import pandas as pd

from indm.measured import PUBLISHED_METRICS
from indm.registry import FAMILIES
from indm.report.catalogue import CELL
from indm.report.intervals import LEVEL
from indm.report.names import row_name
from indm.report.published import PUBLISHED_EXTRACTOR, sampler_kind, source_of
from indm.report.rows import Row, records

COMPARISON_COLUMNS = ["suite", *CELL, "metric", "sampler", "seeds", "ours", "ours_se", "ours_image_se", "published"]
COMPARISON_COLUMNS += ["published_source", "difference", "verdict", "protocol_differences", "note"]
HIGHER_IS_BETTER = {"is"}
# The released networks count a few constants as parameters; a relative difference this small is still the same network.
SAME_NETWORK = 1e-3


def comparison_table(
    suite: str, fid: pd.DataFrame, nll: pd.DataFrame, values: pd.DataFrame, published: pd.DataFrame
) -> pd.DataFrame:
    """Compare every published number with ours, where the two are comparable."""
    network = values[values["stage"] == "train"].pivot_table(index=CELL, columns="metric", values="value")
    tables = {metric: nll if metric == "nll" else fid for metric in PUBLISHED_METRICS}
    rows = []
    for number in records(published):
        matches = [row for row in records(tables[number["metric"]]) if _could_be(number, row)]
        rows += [_compare(number, row, network) for row in matches] or _without_match(
            number, tables[number["metric"]], sorted(set(values["dataset"]))
        )
    return pd.DataFrame([{"suite": suite, **row} for row in rows], columns=COMPARISON_COLUMNS).astype(
        {"seeds": "Int64"}
    )


def _is_context(number: Row) -> bool:
    """Return whether a published number is of another model, or of a family as its paper has it, and shown for context only."""
    return number["model"] not in FAMILIES or str(number["note"]).startswith("context: ")


def _could_be(number: Row, ours: Row) -> bool:
    """Return whether a published number could refer to a cell of ours; settings that its source does not state match any cell."""
    # The headline number, from the abstract, belongs to the plain model.
    variant = "" if number["variant"] == "headline" else number["variant"]
    exact = (number["dataset"], number["model"], variant) == tuple(ours[key] for key in ("dataset", "model", "variant"))
    if not exact or _is_context(number) or pd.isna(ours.get(number["metric"])):
        return False
    open_or_same = all(number[key] in ("", ours[key]) for key in ("sde", "objective"))
    return open_or_same and number["sampler"] in ("", sampler_kind(ours.get("sampler", "")))


def _without_match(number: Row, table: pd.DataFrame, datasets: list[str]) -> list[dict[str, Any]]:
    row = _published_side(number)
    if _is_context(number):
        return [row | best | {"verdict": "context"} for best in _best(number, table)]
    if number["dataset"] in datasets:
        return [row | {"verdict": "not measured"}]
    text = f"dataset: ours {', '.join(datasets)}, published {number['dataset']}"
    return [row | {"verdict": "not comparable", "protocol_differences": text}]


def _best(number: Row, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return our side of a number for another model: our lowest on the same dataset, which is the best likelihood or FID."""
    metric = number["metric"]
    same = (table["dataset"] == number["dataset"]) & table["model"].isin(FAMILIES)
    ours = table[same & table[metric].notna() & (metric not in HIGHER_IS_BETTER)]
    best = [row for row in records(ours.sort_values(metric).head(1)) if _share_scale(number, row)]
    return [
        _ours_side(row, metric)
        | {
            "difference": row[metric] - float(number["value"]),
            "protocol_differences": "; ".join(
                [
                    f"model: ours {row_name(row, ('model', 'variant', 'sde', 'objective'))}, the lowest",
                    *(_differs("extractor", row["extractor"], number["extractor"]) if metric != "nll" else []),
                    *_differs("images", row["num_samples" if metric != "nll" else "images"], number["num_samples"]),
                    *(["likelihood: ours of dequantised images, published by its note"] if metric == "nll" else []),
                ]
            ),
        }
        for row in best
    ]


def _share_scale(number: Row, ours: Row) -> bool:
    """Return whether two numbers share a scale: FIDs from different extractors do not."""
    return number["metric"] == "nll" or ours["extractor"] == (number["extractor"] or PUBLISHED_EXTRACTOR)


def _ours_side(ours: Row, metric: str) -> dict[str, Any]:
    errors = {f"ours{end}": ours[f"{metric}{end}"] for end in ("_se", "_image_se")}
    return {"seeds": ours["seeds"], "ours": ours[metric], **errors}


def _published_side(number: Row) -> dict[str, Any]:
    cell = {key: number[key] for key in [*CELL, "metric", "sampler", "note"]}
    return cell | {"published": float(number["value"]), "published_source": source_of(number)}


def _compare(number: Row, ours: Row, network: pd.DataFrame) -> dict[str, Any]:
    metric = number["metric"]
    size = network.loc[tuple(ours[key] for key in CELL)].to_dict()
    decisive, other = _differences(number, ours, {str(key): value for key, value in size.items()})
    difference = ours[metric] - float(number["value"])
    return (
        _published_side(number)
        | _ours_side(ours, metric)
        | {
            "sde": ours["sde"],
            "objective": ours["objective"],
            "sampler": ours.get("sampler", ""),
            "difference": difference if _share_scale(number, ours) else None,
            "verdict": "not comparable" if decisive else _verdict(metric, difference, ours),
            "protocol_differences": "; ".join(decisive + other),
        }
    )


def _verdict(metric: str, difference: float, ours: Row) -> str:
    """Write whether our 95 % interval contains the published number: Student's over seeds, or else the normal one over images."""
    from scipy import stats

    quantile, error, over = (1 + LEVEL) / 2, float(ours[f"{metric}_se"]), "seeds"
    if pd.isna(error):
        bound, over = stats.norm.ppf(quantile) * float(ours[f"{metric}_image_se"]), "images"
    else:
        bound = stats.t.ppf(quantile, int(ours["seeds"]) - 1) * error
    word = "better" if (difference > 0) == (metric in HIGHER_IS_BETTER) else "worse"
    return f"{'agrees' if abs(difference) <= bound else word} ({100 * LEVEL:.0f} % over {over})"


def _differences(number: Row, ours: Row, network: Row) -> tuple[list[str], list[str]]:
    """List the differences in protocol: first those that rule out a comparison, then the others."""
    images = number["metric"] != "nll"
    parameters = network.get("score_parameters", float("nan")) + network.get("flow_parameters", float("nan"))
    decisive = [
        *(_differs("extractor", ours["extractor"], number["extractor"]) if images else []),
        *_differs("images", ours["num_samples" if images else "images"], number["num_samples"]),
        *_differs("parameters", parameters, number["parameters"], SAME_NETWORK),
    ]
    other = [
        *(_differs("implementation", "torch-fidelity", number["implementation"]) if images else []),
        *_differs("training steps", network.get("steps", float("nan")), number["steps"]),
        *[f"{key}: ours {ours[key]}, published not stated" for key in ("sde", "objective") if number[key] == ""],
    ]
    return decisive, other


def _differs(name: str, ours: Any, published: str, tolerance: float = 0.0) -> list[str]:
    """Describe a difference; an unstated or unknown value counts as one."""
    text = ours if isinstance(ours, str) else "unknown" if pd.isna(ours) else f"{ours:.0f}"
    if published == "" or text == "unknown":
        return [f"{name}: ours {text}, published {published or 'not stated'}"]
    same = text == published if isinstance(ours, str) else abs(ours / float(published) - 1) <= tolerance
    return [] if same else [f"{name}: ours {text}, published {published}"]
