"""Section ``protocol``: how far FID moves with its protocol."""

from typing import Annotated

from pydantic import Field

from indm.suite.schema.types import EachOnce, RunName
from indm.suite.strict_yaml import Strict


class ProtocolParams(Strict):
    """How much FID moves when the suite's protocol is changed, shown on one run."""

    run: Annotated[RunName, Field(description="the run whose images are measured")]
    sizes: Annotated[
        list[Annotated[int, Field(ge=2, le=10**9)]],
        EachOnce(),
        Field(min_length=2, description="numbers of images, from which FID is extrapolated to infinitely many"),
    ]
    repeats: Annotated[int, Field(ge=2, le=10**6, description="disjoint sets of max(sizes) images for that")]
    jpeg_quality: Annotated[int, Field(ge=1, le=95, description="Pillow's quality of the images stored as JPEG")]
