"""Section ``shards``: by how many jobs a stage computes what it does of a run."""

from typing import Annotated

from pydantic import Field

from indm.suite.strict_yaml import Strict

Shards = Annotated[int, Field(ge=1, le=10_000)]


class ShardsParams(Strict):
    """By how many jobs, side by side, a stage computes the batches of a run; the results are the same bytes."""

    sample: Annotated[Shards, Field(description="jobs that draw a run's images")] = 1
    sweep: Annotated[Shards, Field(description="jobs that draw the images of a run's sweep")] = 1
    nll: Annotated[Shards, Field(description="jobs that evaluate a run's likelihoods")] = 1

    def numbers(self, stage: str) -> range:
        """Return the numbers of a run's shards of a stage: 1 and so on; none where the stage does all of it itself."""
        count = getattr(self, stage)
        return range(1, count + 1) if count > 1 else range(0)
