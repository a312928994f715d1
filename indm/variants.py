"""The names by which tables and claims find the models that they compare."""

SAME_COMPUTE, SAME_PARAMETERS, FROZEN_FLOW = "same-compute", "same-parameters", "frozen-flow"


def cell_name(dataset: str, sde: str, model: str, variant: str, objective: str) -> str:
    """Name a cell, whose runs differ in their seeds alone."""
    return "-".join(filter(None, (dataset, sde, model, variant, objective)))
