"""How surely a classifier tells what it sees."""

from torch import Tensor


def confidence(logits: Tensor) -> dict[str, float]:
    r"""Mean probability of the likeliest class, with its standard error over images: can the images be read at all?

    .. math:: \frac1N \sum_i \max_y p(y|x_i), \qquad \mathrm{se} = \mathrm{std}/\sqrt N

    Arguments:
        logits: of the classifier whose features are compared, shape (N, classes).

    References:
        | A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks (Hendrycks & Gimpel, 2017)
        | https://arxiv.org/abs/1610.02136, section 2
    """
    likeliest = logits.double().softmax(1).amax(1)
    return {"confidence": likeliest.mean().item(), "confidence_se": (likeliest.std() / len(likeliest) ** 0.5).item()}
