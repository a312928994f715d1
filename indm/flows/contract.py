r"""The contract of a map: its log-determinant and its inverse, checked against its Jacobian in float64, also in float32.

A map h gives the data the density :math:`\log p(x) = \log p_z(h(x)) + \log|\det\partial h/\partial x|`. A bound is therefore valid
only if the stated log-determinant is the one of the map that was applied, and if no two images have the same latent:

.. math::
    \ell(x) = \log|\det J|, \quad J = \frac{\partial h(x)}{\partial x}, \qquad h^{-1}(h(x)) = x .

The Jacobian comes from automatic differentiation of the latents alone. Because a map may bring its own derivatives, the Jacobian
is compared with differences of latents, and so that an inverse cannot repeat what it has seen, the inverse is also asked for
latents that no image had. A bound is computed in float32, so that its latents and log-determinants are compared with the same
Jacobian.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor

from indm.flows.base import Flow, LogDet

# Images at which a map is checked before its training, and the standard deviations by which its parameters are moved.
IMAGES, MOVES = 8, (0.0, 0.03, 0.3)
# Entries of Jacobians in one check, which take 16 MiB in float64, or more if one image has more.
ENTRIES = 2**21
# The largest differences: of a log-determinant in nats, relative above 1, and of an image from the inverse of its latent.
LOG_DET, INVERSE = 1e-6, 1e-5
# Moves of an image along a random direction, for differences and for the inverse; and the largest relative differences, which a
# tenth of the images may exceed, because a map may have kinks.
STEP, NEAR = 1e-7, 1e-4
SLOPE, FOLLOWS, KINKS = 1e-3, 0.1, 0.1
# The largest differences between float32 and float64, relative above 1: of a latent, whose least noise is ten times as large, and
# of a log-determinant in nats per dimension. Rounding takes less than a tenth of either on digits; 1e-4 nats are 0.00014 bits.
ROUNDING = 1e-4
# An estimated log-determinant may be off by so many of its standard deviations, which take REPEATS estimates.
SPREADS, REPEATS = 5, 16


class Call(NamedTuple):
    """What a map returned where a bound was measured.

    Arguments:
        x: images in model space, (B, C, S, S).
        z: their latents, (B, C, S, S).
        log_det: their log-determinants in nats, (B,).
        method: how the map was asked to compute them.
    """

    x: Tensor
    z: Tensor
    log_det: Tensor
    method: LogDet


def check_flow(make: Callable[[int, int], Flow], shape: tuple[int, int, int]) -> list[str]:
    """List what breaks the contract of a map, at its start and with moved parameters.

    Arguments:
        make: builds the map from the channels C and the size S of an image, such as the class of a flow.
        shape: (C, S, S) of an image. The whole Jacobian is computed, so a check takes seconds for 8×8 and minutes for 32×32 pixels.

    Returns:
        What was found and expected, a line each, of the first move at which something was found; empty if the contract holds.
    """
    generator = torch.Generator().manual_seed(0)
    count = min(IMAGES, affordable(shape))
    x = 2 * torch.rand(count, *shape, generator=generator, dtype=torch.float64) - 1
    for deviation in MOVES:
        try:
            flow = _moved(make, shape, x, deviation)
            found = list(check_map(flow, x)) or list(_in_float32(flow, x.float()))
        except Exception as error:
            # A map may be a user's code, which may raise any exception.
            found = [f"found {type(error).__name__} ({' '.join(str(error).split())[:200]}), expected numbers"]
        if found:
            return [f"images of shape {shape}, parameters moved by {deviation:g}: {line}" for line in found]
    return []


def affordable(shape: tuple[int, int, int]) -> int:
    """Return how many images of a shape (C, S, S) are checked at most, at least one."""
    return max(1, ENTRIES // math.prod(shape) ** 2)


def _moved(make: Callable[[int, int], Flow], shape: tuple[int, int, int], x: Tensor, deviation: float) -> Flow:
    """Build a map with moved parameters, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = make(*shape[:2]).double()
    flow.fit(lambda: [x])
    generator = torch.Generator().manual_seed(1)
    for parameter in flow.parameters():
        move = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data.add_(move, alpha=deviation)
    flow.update_norms()
    return flow.eval()


def _in_float32(flow: Flow, x: Tensor) -> Iterator[str]:
    """Compare a map in float32 with itself in float64, at images in float32."""
    with torch.no_grad():
        z, log_det = deepcopy(flow).float()(x, "exact")
    yield from check_calls(flow, [Call(x, z, log_det, "exact")])


def check_map(flow: Flow, x: Tensor) -> Iterator[str]:
    """Check a map at images: its latents, log-determinants, derivatives and inverse.

    Arguments:
        flow: the map, in float64.
        x: images in model space, shape (B, C, S, S), float64.

    Yields:
        What was found and expected, a line each; the first kind of fault only.
    """
    yield from _at(flow, x)[0]


def check_calls(flow: Flow, calls: Sequence[Call]) -> Iterator[str]:
    """Check a map where a bound was measured, and what it returned there against its Jacobian.

    The Jacobian is computed at :func:`affordable` images, which are chosen when the map has returned. At the other images, the
    map's own log-determinants in float64 stand for the Jacobian, unless they are estimated by series.

    Arguments:
        flow: the map, in float64, as it was before the calls.
        calls: what was returned, in the type in which the bound was measured; at least one.

    Yields:
        What was found and expected, a line each; the first kind of fault only.
    """
    x, z = (torch.cat(parts).double() for parts in ([call.x for call in calls], [call.z for call in calls]))
    stated, method = torch.cat([call.log_det for call in calls]).double(), calls[0].method
    channels, size, _ = x.shape[1:]
    count = min(len(x), affordable((channels, size, size)))
    chosen = torch.tensor(random.SystemRandom().sample(range(len(x)), count), device=x.device)
    broken, expected = _at(flow, x[chosen])
    if broken:
        yield from broken
        return
    yield from (
        _latents(flow, x, z)
        or _rounded(stated[chosen], expected, _spread(flow, x[chosen], method), x[0].numel())
        or _others(flow, x, stated, method)
    )


def _at(flow: Flow, x: Tensor) -> tuple[list[str], Tensor]:
    """Return what breaks the contract at images, and the log-determinants of their Jacobians in nats, (B,)."""
    with torch.no_grad():
        z, log_det = flow(x, "exact")
        alone, again = flow(x[:1], "exact")[0], flow(x, "none")[0]
    if z.shape != x.shape or log_det.shape != x.shape[:1]:
        found = f"found latents {tuple(z.shape)} and log-determinants {tuple(log_det.shape)}"
        return [f"{found}, expected {tuple(x.shape)} and {tuple(x.shape[:1])}"], log_det
    if not torch.allclose(again, z) or not torch.allclose(alone, z[:1]):
        return ["found other latents in another call or batch, expected a map of each image by itself"], log_det
    jacobian = _jacobian(flow, x)
    expected = torch.linalg.slogdet(jacobian)[1]
    return _log_det(log_det, expected) or _slope(flow, x, jacobian) or _inverse(flow, x, z, jacobian), expected


def _log_det(stated: Tensor, expected: Tensor) -> list[str]:
    off = (stated - expected).abs() / expected.abs().clamp(min=1)
    # Numbers that are not finite are not within any bound.
    if bool((off <= LOG_DET).all()):
        return []
    worst = int(off.nan_to_num(torch.inf).argmax())
    return [
        f"log_det: found {stated[worst]:.6g} nats, expected {expected[worst]:.6g}, which its Jacobian has; the bound would be wrong"
    ]


@torch.no_grad()
def _slope(flow: Flow, x: Tensor, jacobian: Tensor) -> list[str]:
    """The Jacobian is the slope of the latents, by differences along a random direction."""
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    expected = _times(jacobian, along)
    found = (flow(x + STEP * along, "none")[0] - flow(x - STEP * along, "none")[0]) / (2 * STEP)
    if _mostly_within(SLOPE, found, expected):
        return []
    return [
        f"derivatives: found latents that move by {_size(found)} along a direction, expected {_size(expected)}, as its Jacobian "
        "has it; let torch differentiate the map"
    ]


@torch.no_grad()
def _inverse(flow: Flow, x: Tensor, z: Tensor, jacobian: Tensor) -> list[str]:
    """The inverse leads back, and follows when a latent moves, which a store of images does not."""
    back = flow.inverse(z, atol=INVERSE / 100)
    off = (back - x).abs().max()
    if not bool(off <= INVERSE):
        return [f"inverse: found an image {off:.3g} away from the one of its latent, expected at most {INVERSE:g}"]
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    moved = flow.inverse(z + NEAR * _times(jacobian, along), atol=INVERSE / 100)
    if _mostly_within(FOLLOWS, (moved - back) / NEAR, along):
        return []
    words = f"found an image that moves by {_size((moved - back) / NEAR)} with its latent, expected {_size(along)}"
    return [f"inverse: {words}; compute it, and do not look it up"]


def _times(jacobian: Tensor, along: Tensor) -> Tensor:
    """Return J v for each image, in the shape (B, C, S, S) of the directions."""
    return (jacobian @ along.flatten(1)[..., None]).view_as(along)


def _mostly_within(limit: float, found: Tensor, expected: Tensor) -> bool:
    """Return whether all but a few of B tensors are near the expected ones, relative to their norms."""
    off = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    return float((~(off <= limit)).double().mean()) <= KINKS


def _size(values: Tensor) -> str:
    return f"{values.flatten(1).norm(dim=1).median():.4g}"


@torch.no_grad()
def _latents(flow: Flow, x: Tensor, found: Tensor) -> list[str]:
    """The measured latents are those of the map in float64."""
    expected = flow(x, "none")[0]
    off = (found - expected).abs() / expected.abs().clamp(min=1)
    if bool((off <= ROUNDING).all()):
        return []
    worst = int(off.nan_to_num(torch.inf).argmax())
    value, other = found.flatten()[worst], expected.flatten()[worst]
    return [f"latents: found {value:.6g} where the bound was measured, expected {other:.6g} as in float64"]


def _rounded(found: Tensor, expected: Tensor, spread: Tensor, dims: int) -> list[str]:
    """The measured log-determinants are the exact ones, up to rounding and the spread of an estimate, in nats."""
    limit = ROUNDING * expected.abs().clamp(min=dims) + SPREADS * spread
    off = (found - expected).abs() / limit
    if bool((off <= 1).all()):
        return []
    worst = int(off.nan_to_num(torch.inf).argmax())
    return [
        f"log_det: found {found[worst]:.6g} nats where the bound was measured, expected {expected[worst]:.6g}, which its Jacobian "
        "in float64 has; the bound is wrong"
    ]


@torch.no_grad()
def _spread(flow: Flow, x: Tensor, method: LogDet) -> Tensor:
    """Return the standard deviation of estimated log-determinants, (B,) in nats; 0 for exact ones."""
    if not _is_estimated(flow, method):
        return x.new_zeros(len(x))
    draws = torch.Generator().manual_seed(4)
    return torch.stack([flow(x, method, draws)[1] for _ in range(REPEATS)]).std(0)


@torch.no_grad()
def _others(flow: Flow, x: Tensor, stated: Tensor, method: LogDet) -> list[str]:
    """All measured log-determinants are those that the map states in float64, unless they are estimates."""
    if _is_estimated(flow, method):
        return []
    return _rounded(stated, flow(x, "exact")[1], x.new_zeros(len(x)), x[0].numel())


def _is_estimated(flow: Flow, method: LogDet) -> bool:
    return method != "exact" and flow.mean_terms > 0


def _jacobian(flow: Flow, x: Tensor) -> Tensor:
    """Return the Jacobian of each image's latent, shape (B, D, D): row i is the gradient of the latent's entry i."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        latents = flow(x, "none")[0].flatten(1)
        rows = [torch.autograd.grad(entry.sum(), x, retain_graph=True)[0].flatten(1) for entry in latents.unbind(1)]
    return torch.stack(rows, 1)
