"""The texts of tables for readers, the same in figures, tables and on the page."""

from indm.registry import FAMILIES, SAMPLERS
from indm.report.columns import heading

NAMES = {
    "ve": "VE",
    "vp": "VP",
    "pc": "predictor–corrector",
    "num_samples": "images",
    **{member: kind.literal(member, "LABEL") for kind in (FAMILIES, SAMPLERS) for member in kind},
}
# The model with which the others are compared.
REFERENCE = next(family for family in FAMILIES if FAMILIES.literal(family, "REFERENCE"))


def name(text: str) -> str:
    """Write a cell's text: names of models, SDEs and samplers as their papers do."""
    return NAMES.get(text, text)


def names(*texts: str) -> str:
    """Write several texts as one label, absent ones left out."""
    return ", ".join(name(text) for text in texts if text)


def cell_name(*cell: str) -> str:
    """Write a dataset, an SDE and an objective, of which the last two may be absent, as one label."""
    return names(*cell[:2], *(f"{objective} objective" for objective in cell[2:] if objective))


def arm(model: str, variant: str) -> str:
    """Name a model: a variant of the baseline by its variation alone, such as same compute or learned filter."""
    varied = variant.replace("-", " ")
    return varied if variant and model == REFERENCE else names(model, varied)


def comparator(text: str) -> str:
    """Name a compared model, or a fixed number."""
    model, _, variant = text.partition(" ")
    return f"{name(model)} {variant}" if variant in ("nll", "fid") else arm(model, variant)


def written(column: str, text: str) -> str:
    """Write a text of a table's column for readers."""
    return {"metric": heading, "against": comparator, "protocol": _protocol}.get(column, name)(text)


def _protocol(text: str) -> str:
    return " against ".join(map(name, text.split(" against ")))
