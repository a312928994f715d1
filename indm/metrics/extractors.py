"""Feature extractors for torch-fidelity: Inception-v3, and small classifiers of a dataset's labels.

Inception features do not suit digits, which are not photographs. Every FID carries the name of its extractor, and FIDs
from different extractors are never compared.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Generator, Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from indm.errors import DataError, DivergenceError
from indm.metrics.weights import TORCH_FIDELITY, as_file, inception_weights, random_weights
from indm.seeding import derive_seed

FEATURES = 64
LAYERS = (str(FEATURES), "logits")
# Images at a time outside training, because the activations for all images of a large dataset take gigabytes.
BATCH = 4096
# Largest range of an image's logits: in float64 exp(-745) is 0, and an inception score with such a class is NaN.
WIDEST = 500.0


def _plain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(256, FEATURES),
        nn.ReLU(),
    )


def _normalised() -> nn.Sequential:
    """Return a body with batch normalisation, which learns photographs within a few epochs."""
    layers: list[nn.Module] = []
    for channels, width, stride, pooling in (
        (3, 32, 2, nn.Identity()),
        (32, 64, 1, nn.MaxPool2d(2)),
        (64, 128, 1, nn.MaxPool2d(2)),
        (128, 128, 1, nn.Identity()),
    ):
        convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        layers += [convolution, pooling, nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(512, FEATURES), nn.ReLU())


EXTRACTORS = {"digits-cnn": _plain, "patches-cnn": _plain, "fashion-cnn": _plain, "cifar10-cnn": _normalised}
"""The body of each small classifier: it takes images (B, 3, H, W) and gives features (B, 64)."""


class SmallClassifier(nn.Module):
    """A convolutional classifier whose last hidden layer gives 64 features.

    The features, which have no unit, are divided by the scalar ``scale``, their root mean square on the training split, so
    that they are in the range for which KID's cubic kernel was designed. Before :meth:`fit_scale`, ``scale`` is 1.

    Arguments:
        classes: number of classes.
        extractor: a key of ``EXTRACTORS``.
    """

    scale: Tensor

    def __init__(self, classes: int, extractor: str = "digits-cnn") -> None:
        super().__init__()
        self.body = EXTRACTORS[extractor]()
        self.head = nn.Linear(FEATURES, classes)
        self.register_buffer("scale", torch.ones(()))

    def features(self, images: Tensor) -> Tensor:
        """Extract features, shape (B, 64), from images, levels 0 … 255, uint8, shape (B, 3, H, W)."""
        return self.body(images.float() / 127.5 - 1) / self.scale

    def forward(self, images: Tensor) -> Tensor:
        """Classify images, levels 0 … 255, uint8, shape (B, 3, H, W): logits in nats, shape (B, classes)."""
        return self.logits(self.features(images))

    def logits(self, features: Tensor) -> Tensor:
        """Classify features, shape (B, 64): logits in nats, shape (B, classes)."""
        return self.head(features * self.scale)

    @torch.no_grad()
    def fit_scale(self, images: Tensor) -> None:
        r"""Set ``scale`` so that the features f of the training images have the root mean square 1.

        .. math:: s \leftarrow s\,\Big(\frac{1}{64 N} \sum_{i=1}^N \|f(x_i)\|^2\Big)^{1/2}

        Arguments:
            images: x, levels 0 … 255, uint8, shape (N, 3, H, W).
        """
        self.scale.mul_(_in_batches(self.features, images).square().mean().sqrt())


def train_classifier(
    classifier: SmallClassifier,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: tuple[str | int, ...],
    progress: Callable[[range], Iterable[int]],
) -> None:
    """Train a classifier in place with Adam and a linearly falling learning rate.

    Arguments:
        images: training images, levels 0 … 255, uint8, shape (N, 3, H, W).
        labels: their classes, from 0, int64, shape (N,).
        batch_size: images in a batch, drawn with replacement.

    Raises:
        DivergenceError: if training failed: the features are 0, the logits are far too large, or either is not finite.
    """
    generator = Generator().manual_seed(derive_seed(*seed))
    optimiser = torch.optim.Adam(classifier.parameters(), lr=lr)
    for step in progress(range(steps)):
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        index = torch.randint(len(images), (batch_size,), generator=generator)
        loss = nn.functional.cross_entropy(classifier(images[index]), labels[index])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    classifier.eval().fit_scale(images)
    _check_trained(classifier, images, lr)


@torch.no_grad()
def _check_trained(classifier: SmallClassifier, images: Tensor, lr: float) -> None:
    """Check that a classifier's features differ between images, and that every class of every image is possible.

    Raises:
        DivergenceError: if this does not hold.
    """
    logits, scale = _in_batches(classifier, images), classifier.scale.item()
    widest = (logits.amax(1) - logits.amin(1)).max().item()
    # NaN satisfies neither comparison.
    if not (0 < scale < math.inf and widest < WIDEST):
        raise DivergenceError(
            f"the classifier learned nothing: found features of size {scale:g} and logits {widest:g} apart, expected a size "
            f"above 0 and logits less than {WIDEST:g} apart; lower its lr, {lr:g}"
        )


@torch.no_grad()
def accuracy(classifier: SmallClassifier, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that the classifier labels correctly.

    Arguments:
        images: levels 0 … 255, uint8, shape (N, 3, H, W).
        labels: their classes, from 0, shape (N,).
    """
    return (_in_batches(classifier, images).argmax(1) == labels).float().mean().item()


def _in_batches(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([function(batch) for batch in images.split(BATCH)])


class ClassifierExtractor(FeatureExtractorBase):
    """A torch-fidelity extractor around a :class:`SmallClassifier`."""

    def __init__(self, name: str, features_list: list[str], classifier: SmallClassifier, **_: object) -> None:
        super().__init__(name, features_list)
        self.classifier = classifier

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Name the layers that can be asked for."""
        return LAYERS

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Name the layer for a metric: the logits for the inception score, the features for all others."""
        return LAYERS[metric == "isc"]

    @staticmethod
    def can_be_compiled() -> bool:
        """Return False, because torch.compile is not worth its warm-up here."""
        return False

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Extract features, shape (B, 64), and logits in nats, shape (B, classes), both float64.

        Arguments:
            images: levels 0 … 255, uint8, shape (B, 3, H, W).
        """
        features = self.classifier.features(images)
        return features.double(), self.classifier.logits(features).double()


def build_extractor(name: str, classifier: SmallClassifier) -> FeatureExtractorBase:
    """Build the extractor ``name`` around a trained classifier, in eval mode."""
    return ClassifierExtractor(name, list(LAYERS), classifier.eval().requires_grad_(False))


INCEPTION_FEATURES = 2048
# The inception score takes the logits without their bias, as its authors' code does.
INCEPTION_LAYERS = (str(INCEPTION_FEATURES), "logits_unbiased")
INCEPTION = {"inception-v3-compat": inception_weights, "inception-v3-random": random_weights}
"""The source of each Inception extractor's weights; random weights stand in on machines without the file."""


def build_inception(name: str, expected: str | None = None) -> tuple[FeatureExtractorInceptionV3, str]:
    """Build torch-fidelity's Inception-v3, which gives the 2048 features of its last pooling and 1008 logits.

    Arguments:
        name: a key of ``INCEPTION``.
        expected: expected sha256 of the weights, or ``None``.

    Returns:
        The extractor, in eval mode, and the sha256 of its weights.

    Raises:
        DataError: if the weights are missing, damaged, from another network, or not the expected ones.

    References:
        | Rethinking the Inception Architecture for Computer Vision (Szegedy et al., 2016)
        | https://arxiv.org/abs/1512.00567
    """
    state, found = INCEPTION[name]()
    check_same_weights(name, found, expected, TORCH_FIDELITY.option)
    try:
        return FeatureExtractorInceptionV3(name, list(INCEPTION_LAYERS), as_file(state)), found
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"extractor {name}: found the weights of another network, expected Inception-v3: {reason}"
        ) from None


def check_same_weights(name: str, found: str, expected: str | None, option: str) -> None:
    """Compare the sha256 of weights with the sha256 in the reference, if the reference exists.

    Raises:
        DataError: if they differ.
    """
    if expected not in (None, found):
        raise DataError(
            f"extractor {name}: found weights with sha256 {found}, expected {expected}, with which the reference was made; "
            f"run the reference stage again, or set {option} to the expected weights"
        )
