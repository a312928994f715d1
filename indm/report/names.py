"""The texts of tables for readers, the same in figures, tables and on the page."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from indm.facts import REFERENCE as REFERENCE
from indm.report.columns import heading
from indm.variants import FROZEN_FLOW, SAME_COMPUTE, SAME_PARAMETERS

NAMES = {
    "ve": "VE",
    "vp": "VP",
    "pc": "predictor–corrector",
    "num_samples": "images",
    # A gain that counts is excluded; readers would take "not better" for undecided.
    "not better": "no gain",
    # Model families and samplers.
    "ddpmpp": "DDPM++",
    "diffenc": "DiffEnc",
    "indm": "INDM",
    "mulan": "MuLAN",
    "ancestral": "ancestral",
    "ddim": "DDIM",
    "dpm_solver_pp_2m": "DPM-Solver++ 2M",
    "euler_maruyama": "Euler–Maruyama",
    "ode": "ODE",
    "ode_euler": "ODE, Euler",
    "ode_heun": "ODE, Heun",
    "reverse_diffusion": "reverse diffusion",
}
TREATMENT = "indm"
_PLAIN = NAMES[REFERENCE]
# The one name of each variant; the map in front of the diffusion names a model, if there is one.
VARIANTS = {
    (REFERENCE, SAME_COMPUTE): f"{_PLAIN} at INDM’s compute",
    (REFERENCE, "twice-the-steps"): f"{_PLAIN} for twice the steps",
    (REFERENCE, SAME_PARAMETERS): f"{_PLAIN} with INDM’s parameters",
    (REFERENCE, "reconstruction"): f"{_PLAIN} with reconstruction",
    (REFERENCE, "normalised-input"): f"{_PLAIN} with normalised input",
    (REFERENCE, "learned-range"): f"{_PLAIN} with learned range",
    (REFERENCE, "standardised"): f"{_PLAIN} on standardised data",
    (REFERENCE, "v-prediction"): f"{_PLAIN} predicting v",
    (REFERENCE, "preconditioned"): f"{_PLAIN} that knows the spectrum",
    (REFERENCE, "linear-skip"): f"{_PLAIN} with a linear skip",
    (REFERENCE, "soft-truncation"): f"{_PLAIN} with soft truncation",
    (REFERENCE, "deep"): f"{_PLAIN} (deep)",
    (REFERENCE, "best-scale"): "best scale",
    (REFERENCE, "fixed-scale"): "fixed scale",
    (REFERENCE, "fixed-curve"): "fixed curve",
    (REFERENCE, "fixed-filter"): "fixed filter",
    (REFERENCE, "fixed-curve-filter"): "fixed curve and filter",
    (REFERENCE, "fixed-filter-v"): "fixed filter predicting v",
    (REFERENCE, "fixed-filter-circles"): "fixed filter over circles",
    (REFERENCE, "fixed-filter-preconditioned"): "fixed filter that knows the spectrum",
    **{
        (REFERENCE, f"exponent-{places}{end}"): f"fixed filter of exponent 0.{places}{words}"
        for places in ("10", "15", "20", "25", "35", "50")
        for end, words in (("", ""), ("-v", " predicting v"))
    },
    (REFERENCE, "learned-scale"): "learned scale",
    (REFERENCE, "learned-affine"): "learned affine map",
    (REFERENCE, "learned-linear"): "learned linear map",
    (REFERENCE, "learned-filter"): "learned filter",
    (REFERENCE, "learned-curve"): "learned curve",
    (REFERENCE, "learned-curve-filter"): "learned curve and filter",
    (REFERENCE, "learned-curve-filter-v"): "learned curve and filter predicting v",
    (TREATMENT, "learned-curve-filter"): "INDM behind curve and filter",
    (TREATMENT, FROZEN_FLOW): "INDM with frozen flow",
    (TREATMENT, "share-eighth"): "INDM with an eighth of the log-determinants",
    (TREATMENT, "soft-truncation"): "INDM with soft truncation",
}
# What a row is called by, if it is one model.
MODEL = ("model", "variant")


def name(text: str) -> str:
    """Write a cell's text: names of plain models, SDEs and samplers as their papers do."""
    return NAMES.get(text, text)


def names(*texts: str) -> str:
    """Write several texts as one label, absent ones left out."""
    return ", ".join(name(text) for text in texts if text)


def cell_name(*cell: str) -> str:
    """Write a dataset, an SDE and an objective, of which the last two may be absent, as one label."""
    return names(*cell[:2], *(f"{objective} objective" for objective in cell[2:] if objective))


def arm(model: str, variant: str = "") -> str:
    """Name a model; a variant that has no name of its own is written behind its model, and a fixed scale is the map."""
    if (found := VARIANTS.get((model, variant))) is not None:
        return found
    varied = variant.replace("-", " ")
    if not variant or (model == REFERENCE and variant.startswith("scale-")):
        return varied or name(model)
    return f"{name(model)} ({varied})"


def comparator(text: str) -> str:
    """Name a compared model, or a fixed number."""
    model, _, variant = text.partition(" ")
    return f"{name(model)} {variant}" if variant in ("nll", "fid") else arm(model, variant)


def written(column: str, text: str) -> str:
    """Write a text of a table's column for readers."""
    writers = {"metric": heading, "against": comparator, "treatment": comparator, "protocol": _protocol}
    return writers.get(column, name)(text)


def row_name(row: Mapping[str, Any], columns: Iterable[str]) -> str:
    """Name a row of a table by some of its columns, in which a model and its variant are one name."""
    found = {column: str(row[column]) for column in columns if not pd.isna(row[column])}
    if "model" in found:
        found["model"] = arm(found["model"], found.pop("variant", ""))
    return ", ".join(written(column, text) for column, text in found.items() if text)


def with_models(table: pd.DataFrame) -> pd.DataFrame:
    """Write the one name of each model in place of model and variant, if the table has both."""
    if not {*MODEL} <= {*table}:
        return table
    cells = table[[*MODEL]].fillna("").itertuples(index=False, name=None)
    named = pd.Series([arm(*cell) for cell in cells], table.index, dtype=table["model"].dtype)
    return table.assign(model=named).drop(columns="variant")


def _protocol(text: str) -> str:
    return " against ".join(map(name, text.split(" against ")))
