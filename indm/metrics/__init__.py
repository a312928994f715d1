"""Sample quality: FID, KID, IS, precision and recall by torch-fidelity, clean-FID by clean-fid; the extractor is named."""

from indm.metrics.clean import build_clean
from indm.metrics.extractors import (
    EXTRACTORS,
    INCEPTION,
    INCEPTION_FEATURES,
    SmallClassifier,
    accuracy,
    build_extractor,
    build_inception,
    train_classifier,
)
from indm.metrics.fidelity import (
    NO_CLEAN,
    Reference,
    compare,
    compare_clean,
    features,
    halves,
    protocol,
    statistics,
)
from indm.metrics.published import read_published_statistics

__all__ = [
    "EXTRACTORS",
    "INCEPTION",
    "INCEPTION_FEATURES",
    "NO_CLEAN",
    "Reference",
    "SmallClassifier",
    "accuracy",
    "build_clean",
    "build_extractor",
    "build_inception",
    "compare",
    "compare_clean",
    "features",
    "halves",
    "protocol",
    "read_published_statistics",
    "statistics",
    "train_classifier",
]
