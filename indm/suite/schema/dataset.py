"""Section ``datasets``: how a dataset is split."""

from typing import Annotated

from pydantic import Field

from indm.suite.schema.types import Seed
from indm.suite.strict_yaml import Strict


class DatasetParams(Strict):
    """How a dataset is split."""

    split_seed: Annotated[Seed, Field(description="seed of the train / validation / test split")]
