r"""The contract of a map: its log-determinant and its inverse, checked against its Jacobian in float64.

A map h gives the data the density :math:`\log p(x) = \log p_z(h(x)) + \log|\det\partial h/\partial x|`. A bound is therefore valid
only if the stated log-determinant is the one of the map that was applied, and if no two images have the same latent:

.. math::
    \ell(x) = \log|\det J|, \quad J = \frac{\partial h(x)}{\partial x}, \qquad h^{-1}(h(x)) = x .

The Jacobian comes from automatic differentiation of the latents alone, so that no claim of the map enters it.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from indm.flows.base import Flow

# Images at which a map is checked before its training, and the standard deviations by which its parameters are moved.
IMAGES, MOVES = 8, (0.0, 0.03, 0.3)
# Entries of Jacobians in one check, which take 16 MiB in float64, or more if one image has more.
ENTRIES = 2**21
# The largest differences: of a log-determinant in nats, relative above 1, and of an image from the inverse of its latent.
LOG_DET, INVERSE = 1e-6, 1e-5


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
            found = list(check_map(_moved(make, shape, x, deviation), x))
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


def check_map(flow: Flow, x: Tensor) -> Iterator[str]:
    """Check a map at images: its latents, log-determinants and inverse.

    Arguments:
        flow: the map, in float64.
        x: images in model space, shape (B, C, S, S), float64.

    Yields:
        What was found and expected, a line each; the first kind of fault only.
    """
    with torch.no_grad():
        z, log_det = flow(x, "exact")
        alone, again = flow(x[:1], "exact")[0], flow(x, "none")[0]
    if z.shape != x.shape or log_det.shape != x.shape[:1]:
        found = f"found latents {tuple(z.shape)} and log-determinants {tuple(log_det.shape)}"
        yield f"{found}, expected {tuple(x.shape)} and {tuple(x.shape[:1])}"
    elif not torch.allclose(again, z) or not torch.allclose(alone, z[:1]):
        yield "found other latents in another call or batch, expected a map of each image by itself"
    else:
        yield from _log_det(flow, x, log_det) or _inverse(flow, x, z)


def _log_det(flow: Flow, x: Tensor, stated: Tensor) -> list[str]:
    expected = torch.linalg.slogdet(_jacobian(flow, x))[1]
    off = (stated - expected).abs() / expected.abs().clamp(min=1)
    # Numbers that are not finite are not within any bound.
    if bool((off <= LOG_DET).all()):
        return []
    worst = int(off.nan_to_num(torch.inf).argmax())
    return [
        f"log_det: found {stated[worst]:.6g} nats, expected {expected[worst]:.6g}, which its Jacobian has; the bound would be wrong"
    ]


def _inverse(flow: Flow, x: Tensor, z: Tensor) -> list[str]:
    off = (flow.inverse(z, atol=INVERSE / 100) - x).abs().max()
    if bool(off <= INVERSE):
        return []
    return [f"inverse: found an image {off:.3g} away from the one of its latent, expected at most {INVERSE:g}"]


def _jacobian(flow: Flow, x: Tensor) -> Tensor:
    """Return the Jacobian of each image's latent, shape (B, D, D): row i is the gradient of the latent's entry i."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        latents = flow(x, "none")[0].flatten(1)
        rows = [torch.autograd.grad(entry.sum(), x, retain_graph=True)[0].flatten(1) for entry in latents.unbind(1)]
    return torch.stack(rows, 1)
