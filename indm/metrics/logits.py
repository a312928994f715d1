"""Scores of images from a classifier's logits: its confidence, and the inception score."""

from itertools import pairwise

import numpy as np
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric


def confidence(logits: Tensor) -> dict[str, float]:
    r"""Compute the mean probability of the likeliest class, which shows whether images are legible, and its standard error.

    .. math:: \frac1N \sum_i \max_y p(y|x_i), \qquad \mathrm{se} = \mathrm{std}/\sqrt N

    Arguments:
        logits: logits of the classifier whose features are compared, in nats, shape (N, classes).

    Returns:
        ``confidence``, a probability, and ``confidence_se``.

    References:
        | A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks
        | (Hendrycks & Gimpel, 2017), https://arxiv.org/abs/1610.02136, section 2
    """
    likeliest = logits.double().softmax(1).amax(1)
    return {"confidence": likeliest.mean().item(), "confidence_se": (likeliest.std() / len(likeliest) ** 0.5).item()}


def inception_score(logits: Tensor, *, splits: int, seed: int) -> tuple[float, float]:
    r"""Compute the inception score, its mean over torch-fidelity's splits, and the standard error of the mean.

    .. math:: \exp \mathbb{E}_x \mathrm{KL}\big(p(y|x) \,\|\, p(y)\big), \qquad
        \mathrm{se} = \mathrm{std}/\sqrt{\mathrm{splits}}

    torch-fidelity gets one split at a time, because it makes several float64 copies of the logits that it gets.

    Arguments:
        logits: logits of the classifier, in nats, shape (N, classes).
        splits: number of splits, at most N.
        seed: seed of the order in which the images are split.

    Returns:
        The score, which has no unit and lies between 1 and the number of classes, and its standard error.

    References:
        | Improved Techniques for Training GANs (Salimans et al., 2016)
        | https://arxiv.org/abs/1606.03498, section 4
    """
    count = len(logits)
    order = np.random.RandomState(seed).permutation(count)  # the same order as in torch-fidelity
    bounds = [i * count // splits for i in range(splits + 1)]
    scores = [
        isc_features_to_metric(logits[order[first:last]], splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN]
        for first, last in pairwise(bounds)
    ]
    return float(np.mean(scores)), float(np.std(scores, ddof=1) / splits**0.5)
