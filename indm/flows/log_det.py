r"""Estimators of log|det(I + J)|, with J = dg(x)/dx the Jacobian of a residual branch g, Lip(g) < 1.

.. math:: \log|\det(I + J)| = \sum_{k \ge 1} \frac{(-1)^{k+1}}{k} \operatorname{tr}(J^k)

All estimators take ``vjp``, the product v -> J^T v at images x with shape (B, ...), where sample b of g(x) depends only on
sample b of x. They return one number per sample, with shape (B,); if gradients are enabled, they reach the parameters of
``vjp``. The stochastic estimators also take ``probe``, v with E[v v^T] = I and the shape of x (Hutchinson: tr(A) =
E[v^T A v]).

Training follows a gradient that Russian roulette keeps unbiased: ``coefficients`` c_1, ..., c_n with E[c_k 1(k <= n)] = 1
(:func:`roulette_coefficients`). Evaluation adds terms until the rest is below a tolerance (:func:`series_log_det`). The
released code also evaluates by roulette, after 20 terms, and draws one n for a whole batch. This suite does not offer that,
because for terms a_k that shrink like powers the variance, about sum_k a_k^2 / P(n >= k), is infinite: the weights grow
like k!.

References:
    | Residual Flows for Invertible Generative Modeling (Chen et al., 2019), theorems 1 and 2
    | https://arxiv.org/abs/1906.02735
    | Invertible Residual Networks (Behrmann et al., 2019), eq. 4
    | https://arxiv.org/abs/1811.00995
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from indm.errors import ConvergenceError

# Least number of vectors, over all images, that pass through a branch at once for the exact log-determinant; memory grows
# with it.
SAMPLES = 2**11

VectorJacobian = Callable[[Tensor], Tensor]
"""J^T v for v with shape (n B, ...): n vectors for each of the B samples, starting with the first vector of every sample."""


@dataclass(frozen=True)
class Series:
    """The log-determinant by its power series, truncated when the rest is within a tolerance.

    Arguments:
        tolerance: bound on the rest for each image, summed over all blocks, in nats per dimension.
    """

    tolerance: float


class Contraction(NamedTuple):
    r"""A bound on the Jacobian J of a branch, at every image: :math:`\|J^\top w\|_p \le c \|w\|_p`.

    Arguments:
        c: the bound, below 1.
        p: the norm, 1 (J is then bounded by c in the max-norm) or 2.
    """

    c: float
    p: float


def exact_log_det(vjp: VectorJacobian, x: Tensor) -> Tensor:
    """Compute log|det(I + J)| exactly, from all D rows of J.

    The D * B vector-Jacobian products are computed in pieces that take a few rows from all samples.

    Arguments:
        vjp: the product v -> J^T v.
        x: samples of D entries, shape (B, ...).

    Returns:
        log|det(I + J)| in nats, with shape (B,), in the dtype of ``x``.
    """
    basis = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
    pieces = basis.split(-(-SAMPLES // len(x)))
    products = [vjp(piece.repeat_interleave(len(x), 0).unflatten(1, x.shape[1:])) for piece in pieces]
    rows = torch.cat(products)  # (D B, ...)
    jacobian = rows.unflatten(0, (len(basis), len(x))).flatten(2).transpose(0, 1)
    return torch.linalg.slogdet(basis + jacobian).logabsdet


def series_log_det(vjp: VectorJacobian, probe: Tensor, contraction: Contraction, tolerance: float) -> Tensor:
    r"""Estimate log|det(I + J)| by its power series, adding terms for each sample until the rest is within the tolerance.

    .. math::
        v^\top \log(I + J)\, v = \sum_{k=1}^{n} \frac{(-1)^{k+1}}{k} v^\top J^k v + r_n, \qquad
        |r_n| \le \|v\|_q\, \|(J^\top)^n v\|_p \sum_{j \ge 1} \frac{c^j}{n + j}
        \le \frac{c\, \|v\|_q\, \|(J^\top)^n v\|_p}{(n + 1)(1 - c)}

    by Hölder's inequality, 1/p + 1/q = 1. The mean of the left side over probes is log|det(I + J)|. The bound holds for the
    given probe and falls with the spectral radius of J, which may be far below c.

    Arguments:
        vjp: the product v -> J^T v.
        probe: v, shape (B, ...).
        contraction: c < 1 and p.
        tolerance: bound on each sample's rest, in nats.

    Returns:
        The estimates in nats, with shape (B,).

    Raises:
        ConvergenceError: if a rest is above the tolerance after twice as many terms as c allows, which means that J does not
            satisfy the bound.
    """
    (c, p), v = contraction, probe.flatten(1)
    q = math.inf if p == 1 else p / (p - 1)
    scale = torch.linalg.vector_norm(v, q, dim=1) * c / (1 - c)
    limit = 2 * _terms(scale * torch.linalg.vector_norm(v, p, dim=1), c, tolerance)
    product, total, missing = probe, probe.new_zeros(len(probe)), torch.ones_like(scale, dtype=torch.bool)
    for n in range(1, limit + 1):
        product = vjp(product)
        total = total + (-1) ** (n + 1) / n * _inner(product, probe) * missing
        rest = scale * torch.linalg.vector_norm(product.detach().flatten(1), p, dim=1) / (n + 1)
        missing = missing & (rest > tolerance)
        if not missing.any():
            return total
    raise ConvergenceError(
        f"log-determinant: found a rest of the series of up to {rest.max().item():.2e} nats after {limit} terms, expected at "
        f"most {tolerance:.2e} from the layers' norms; call update_norms() after each change of the weights"
    )


def _terms(scale: Tensor, c: float, tolerance: float) -> int:
    """Return the least n with ``scale`` c^n / (n + 1) within the tolerance, for the largest scale of a batch."""
    largest = scale.max().item()
    return next(n for n in itertools.count(1) if not largest * c**n / (n + 1) > tolerance)


@torch.no_grad()
def neumann_vector(vjp: VectorJacobian, probe: Tensor, coefficients: Sequence[float]) -> Tensor:
    r"""Return the vector w that estimates the gradient of log|det(I + J)| (Residual Flows, theorem 2).

    It does not carry a gradient, because the theorem holds it constant.

    .. math:: w = v + \sum_{k=1}^{n} (-1)^k c_k (J^\top)^k v, \qquad E[w v^\top] = (I + J)^{-\top}

    Arguments:
        vjp: the product v -> J^T v.
        probe: v, shape (B, ...).
        coefficients: c_1, ..., c_n from :func:`roulette_coefficients`.

    Returns:
        w with shape (B, ...).
    """
    product = w = probe
    for k, coefficient in enumerate(coefficients, start=1):
        product = vjp(product)
        w = w + (-1) ** k * coefficient * product
    return w


def roulette_coefficients(draw: int, exact_terms: int, mean: float) -> list[float]:
    r"""Return the weights of the first ``exact_terms + draw`` terms of a series cut after a Poisson number of terms.

    .. math:: c_k = 1 \;(k \le m), \qquad c_k = 1 / P(N \ge k - m) \;(m < k \le m + n), \qquad N \sim \text{Poisson}

    with m = ``exact_terms`` and n = ``draw`` (Residual Flows, theorem 1). The variance is infinite for every m; a larger m
    only makes the rare large values smaller.
    """
    k = torch.arange(1, draw + 1, dtype=torch.float64)
    survival = torch.special.gammainc(k, torch.full_like(k, mean))  # P(N >= k) of a Poisson variable
    return [1.0] * exact_terms + (1 / survival).tolist()


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)
