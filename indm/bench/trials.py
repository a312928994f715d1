"""A suite for the training of one run with other values: a trial of a search, or the count of a step's operations."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def with_trial(suite: "Suite", run: str, seed: int, train: Mapping[str, Any]) -> "Suite":
    """Return the suite with only ``run``, with another seed and other values for keys of its train section."""
    changed = suite.runs[run]
    override = changed.train.model_dump(exclude_unset=True) | train
    trial = changed.model_copy(update={"seed": seed, "train": type(changed.train).model_validate(override)})
    return suite.model_copy(update={"runs": {run: trial}})
