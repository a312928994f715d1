"""Section ``fid``: the image metrics, and their standard errors."""

from typing import Annotated

from pydantic import Field

from indm.suite.schema.types import Count
from indm.suite.strict_yaml import Strict


class FidParams(Strict):
    """The image metrics, and their standard errors."""

    kid_subsets: Annotated[int, Field(ge=2, le=10**6, description="subsets of KID")]
    kid_subset_size: Annotated[int, Field(ge=3, le=10**9, description="images in a subset of KID")]
    is_splits: Annotated[int, Field(ge=2, le=10**9, description="splits of the inception score")]
    prc_neighbours: Annotated[Count, Field(description="neighbourhood of precision and recall")]
    prc_images: Annotated[
        int, Field(ge=2, le=10**9, description="images of each side, at most, for precision and recall")
    ]
    bootstrap: Annotated[int, Field(ge=2, le=10**6, description="bootstrap draws of the standard errors of the FIDs")]
