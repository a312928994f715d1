"""The effect of a flow on images: its log-determinant, its distance from an affine map, and its gain by spatial frequency."""

import math

import torch
from torch import Tensor

from indm.errors import DivergenceError
from indm.flows.base import Flow, LogDet, Map
from indm.flows.cosine import cosine_basis
from indm.flows.sources import Source, draw_probe
from indm.measured import BANDS, FLOW_METRICS

# Central differences in float64, relative to noise of variance one: their error has the order of the square of the step.
STEP = 1e-4


@torch.no_grad()
def describe(flow: Flow, x: Tensor, log_det: LogDet, batch_size: int, generator: Source) -> dict[str, float]:
    r"""Measure the effect of a flow h with Jacobian J on images x_1, ..., x_N of D dimensions.

    .. math::
        m = \frac{\sum_n \lVert h(\frac{x_n + y_n}2) - \frac{h(x_n) + h(y_n)}2 \rVert^2}
        {\sum_n \lVert \frac{h(x_n) - h(y_n)}2 \rVert^2}, \qquad
        g_b^2 = \frac1N \sum_n \frac{\lVert J(x_n) v_{nb} \rVert^2}{\lVert v_{nb} \rVert^2}

    y_n is the next image. The midpoint test m is 0 for an affine map. v_{nb} is white noise of the frequencies of band b of the
    orthonormal cosine transform of each channel; see :func:`bands`. The log-determinant of each image is estimated twice. The
    spread over images is the root of the covariance of both estimates, which random probes do not enlarge.

    Arguments:
        flow: the flow, in float64, because the noise is small.
        x: images, float64, shape (N, C, S, S), N > 1.
        log_det: method of the log-determinant.
        batch_size: images evaluated at once.
        generator: source of the noise, and of a flow's draws.

    Returns:
        The numbers by their names, :data:`indm.measured.FLOW_METRICS`: ``log_det`` (the mean over images) and
        ``log_det_spread`` in bits/dim, ``midpoint``, and ``gain_1`` (the lowest frequencies) to ``gain_6``; also
        ``log_det_se``, the standard error of the mean over images.

    Raises:
        DivergenceError: if a number is not finite.
    """
    volumes, bent, apart, gains = [], 0.0, 0.0, []
    for batch, others in zip(x.split(batch_size), x.roll(-1, 0).split(batch_size), strict=True):
        volumes.append(torch.stack([flow(batch, log_det, generator)[1] for _ in range(2)]))
        h, _ = flow.bijection_at(batch, generator)
        ends = h(batch), h(others)
        bent += (h((batch + others) / 2) - (ends[0] + ends[1]) / 2).square().sum().item()
        apart += ((ends[0] - ends[1]) / 2).square().sum().item()
        gains.append(squared_gains(h, batch, generator))
    both = torch.cat(volumes, 1) / (x[0].numel() * math.log(2))
    spread = max(both.cov()[0, 1].item(), 0.0) ** 0.5
    values = [both.mean().item(), spread, bent / apart, *torch.cat(gains).mean(0).sqrt().tolist()]
    if not all(map(math.isfinite, values)):
        raise DivergenceError(f"found the numbers {values} of a flow, expected finite ones; train with a lower flow_lr")
    return dict(zip(FLOW_METRICS, values, strict=True)) | {"log_det_se": both.mean(0).std().item() / len(x) ** 0.5}


def squared_gains(h: Map, x: Tensor, generator: Source) -> Tensor:
    r"""Measure by how much a map h amplifies the square of small noise v around images, in each frequency band.

    .. math:: \frac{\lVert h(x + v) - h(x - v) \rVert^2}{\lVert 2 v \rVert^2}

    In a band, all cosine coefficients of the noise have the same size and random signs, so that a filter's gains do not
    depend on the noise.

    Arguments:
        h: the map, from (B, C, S, S) to (B, C, S, S).
        x: images, float64, shape (B, C, S, S).
        generator: source of the signs.

    Returns:
        The squared gains, without a unit, shape (B, BANDS), the lowest frequencies first; see :func:`bands`.
    """
    basis, place = cosine_basis(x.shape[-1]).to(x), bands(x.shape[-1]).to(x.device)
    signs, found = draw_probe(x, "rademacher", generator), []
    for band in range(BANDS):
        noise = STEP * basis.T @ (signs * (place == band)) @ basis
        moved = (h(x + noise) - h(x - noise)).flatten(1).norm(dim=1) / (2 * noise.flatten(1).norm(dim=1))
        found.append(moved.square())
    return torch.stack(found, 1)


def bands(size: int) -> Tensor:
    r"""Return the band of each pair (k, l) of frequencies of S x S pixels, from 0, int64, shape (S, S).

    .. math:: b_{kl} = \Big\lfloor B\,\frac{\sqrt{k^2 + l^2}}{\sqrt2\,(S - 1)} \Big\rfloor

    for B bands; the highest frequency is in the last one.
    """
    k = torch.arange(size, dtype=torch.float64)
    radius = (k[:, None].square() + k.square()).sqrt()
    return (BANDS * radius / radius.max()).long().clamp(max=BANDS - 1)
