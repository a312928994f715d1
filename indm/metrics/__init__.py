"""Sample quality: FID and KID by torch-fidelity on the features of a named extractor."""

from indm.metrics.extractors import (
    EXTRACTORS,
    INCEPTION,
    SmallClassifier,
    accuracy,
    build_extractor,
    build_inception,
    train_classifier,
)
from indm.metrics.fidelity import compare, features, halves

__all__ = [
    "EXTRACTORS",
    "INCEPTION",
    "SmallClassifier",
    "accuracy",
    "build_extractor",
    "build_inception",
    "compare",
    "features",
    "halves",
    "train_classifier",
]
