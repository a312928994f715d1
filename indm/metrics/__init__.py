"""Sample quality: FID and KID by torch-fidelity on the features of a registered extractor."""

from indm.metrics.extractors import EXTRACTORS, SmallClassifier, accuracy, build_extractor, train_classifier
from indm.metrics.fidelity import compare, features, halves

__all__ = [
    "EXTRACTORS",
    "SmallClassifier",
    "accuracy",
    "build_extractor",
    "compare",
    "features",
    "halves",
    "train_classifier",
]
