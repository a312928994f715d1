"""Section ``reference``: the feature extractor of all image metrics, and what they compare with."""

from typing import Annotated, Literal

from pydantic import Field

from indm.suite.schema.types import Count, Rate
from indm.suite.strict_yaml import Strict


class ClassifierParams(Strict):
    """Training of a small classifier as feature extractor."""

    steps: Annotated[Count, Field(description="training steps of the classifier")]
    batch_size: Annotated[int, Field(ge=1, le=65536, description="images in a batch")]
    lr: Annotated[Rate, Field(description="Adam's first learning rate")]


class PublishedParams(Strict):
    """Published reference statistics."""

    path: Annotated[
        str, Field(min_length=1, description="an .npz below the data root: pool_3 (features), or mu and sigma")
    ]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="its sha256, 64 hexadecimal digits")]


class ReferenceParams(Strict):
    """The feature extractor of all image metrics, and what they compare with."""

    extractor: Annotated[
        Literal["digits-cnn", "patches-cnn", "fashion-cnn", "inception-v3-compat", "inception-v3-random"],
        Field(description="extractor; its name goes with every FID; ...-random: a stand-in whose numbers mean nothing"),
    ]
    classifier: Annotated[
        ClassifierParams | None, Field(description="training of a ...-cnn on the training split; null for Inception")
    ]
    published_statistics: Annotated[
        PublishedParams | None, Field(description="reference of FID; null: the features of the training split")
    ]
