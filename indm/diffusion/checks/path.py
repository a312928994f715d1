"""The checks of a forward process; each yields what is wrong, on one line."""

from collections.abc import Iterator

import torch
from torch import Tensor

from indm.diffusion.checks.findings import differ, entry, where
from indm.diffusion.checks.gaussian import check_gaussian_data, hermite
from indm.diffusion.checks.points import (
    EPS,
    STEP,
    Points,
    both_ways,
    error_of,
    expected_entropy,
    expected_error,
    expected_prior,
    jacobian,
    middles,
    points,
    reverse,
    target,
    velocity,
)
from indm.diffusion.objectives import squared_norm
from indm.diffusion.path import ForwardPath

# The relative error of an error at a point: times half of A's range, about 12, it is below 1e-3 nats per dimension.
CLOSE = 5e-5


def check_path(path: ForwardPath, shape: tuple[int, ...], eps: float = EPS) -> list[str]:
    """List what breaks the contract of a forward process.

    Arguments:
        path: the forward process, which takes and returns float64.
        shape: shape of a latent.
        eps: truncation time.

    Returns:
        What was found and expected, a line each; empty if the contract holds.
    """
    at = points(path, shape, eps)
    with torch.no_grad():
        # What follows makes no sense for a noise that enters otherwise, or for samples that know of each other.
        if broken := [*_noise(at), *_alone(at, eps)]:
            return broken
        found = [*_error(at), *_ends(at, eps), *_decoder(at, eps)]
        # The ODE is checked at the prediction of the least error, which a wrong error need not have.
        return found or [*_ode(at)] or [*check_gaussian_data(path, shape, eps)]


def _noise(at: Points) -> Iterator[str]:
    """The noise enters linearly, and every entry of the latent has some."""
    factors, start = jacobian(at.path, at.x, at.t), at.path.perturb(at.x, at.t, 0 * at.x)
    linear = start + (factors @ at.noise.flatten(1)[..., None]).view_as(at.x)
    if (off := differ(at.z, linear, 1e-9)).any():
        yield f"perturb: found a noise that enters otherwise than linearly, {where(at, off)}; expected mean plus matrix times noise"
    if not torch.isfinite(torch.linalg.slogdet(factors).logabsdet).all():
        yield "perturb: found entries without noise, or numbers that are not finite; expected an invertible matrix before the noise"


def _alone(at: Points, eps: float) -> Iterator[str]:
    """A sample's numbers do not depend on the other samples."""
    if len({tuple(value.shape) for value in (at.z, at.x)}) > 1:
        yield f"perturb: found the shape {tuple(at.z.shape)}, expected {tuple(at.x.shape)}"
        return
    together, apart = all_numbers(at, eps), [all_numbers(at.alone(i), eps) for i in range(len(at.x))]
    for name, value in together.items():
        if (off := differ(value, torch.cat([one[name] for one in apart]), 1e-7)).any():
            yield (
                f"{name}: found other values for a sample in a batch than for the sample alone, {where(at, off)}; "
                "expected the same"
            )


def all_numbers(at: Points, eps: float) -> dict[str, Tensor]:
    """Return all that a path computes for N points, by name: shape (N, *) for latents and scales, (N,) for the rest.

    The terms of the bound are in nats.
    """
    path, z = at.path, at.z
    length = middles(path.sde, eps, 1)[1]
    mean, scale = path.reverse_step(z, at.prediction, at.t, path.sde.time(at.a - 1))
    return {
        "perturb": z,
        "error": error_of(at, at.prediction),
        "prior": path.prior(at.x),
        "entropy": torch.as_tensor(path.entropy(at.x, length, eps), dtype=torch.float64).expand(len(at.x)),
        "decoder": path.decoder(lambda z, t: at.prediction, at.x, eps, at.noise),
        "reverse_step, mean": mean,
        "reverse_step, scale": scale.expand_as(z),
    }


class Asked:
    """A network with a fixed prediction (B, *), which notes the latents (B, *) and the times (B,) that it is asked about."""

    def __init__(self, prediction: Tensor) -> None:
        self.prediction = prediction
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        self.seen.append((z, t))
        return self.prediction

    def otherwise(self, name: str, z: Tensor, t: Tensor) -> Iterator[str]:
        """Find calls with another latent than z (B, *) or another time than t (B,)."""
        if any(differ(found, z, 1e-7).any() or differ(time, t, 1e-9).any() for found, time in self.seen):
            yield f"{name}: found another latent or time in its call of the network; expected the latent of perturb, at its time"


def _error(at: Points) -> Iterator[str]:
    """The error is the distance of the drifts, of the network's answer to the latent that perturb returns."""
    asked = Asked(at.prediction)
    found, expected = at.path.error(asked, at.x, at.t, at.noise), expected_error(at)
    yield from asked.otherwise("error", at.z, at.t)
    dims = at.x[0].numel()
    if (off := ~((found - expected).abs() <= CLOSE * (dims + expected))).any():
        yield (
            f"error: found {entry(found, off)}, expected {entry(expected, off)} {where(at, off)}, the distance between the drifts "
            "by perturb and by reverse_step in units of its noise; correct a derivative in time, a weight, or the step"
        )
    _, volatility = reverse(at)
    other = Points(at.path, at.x.flip(1) + 1, at.noise, at.prediction - 1, at.t)
    if (off := differ(reverse(other)[1], volatility, 1e-6)).any():
        yield f"reverse_step: found a scale that depends on latent or prediction, {where(at, off)}; expected one of the times alone"


def _ends(at: Points, eps: float) -> Iterator[str]:
    """Prior and entropy, by the cubature of degree three, which is exact, and by determinants."""
    prior = expected_prior(at)
    if (off := differ(at.path.prior(at.x), prior, 1e-7)).any():
        expected = f"expected {entry(prior, off)} by perturb, the mean of -log p_T over the noise"
        yield f"prior: found {entry(at.path.prior(at.x), off)}, {expected}"
    found, entropy = all_numbers(at, eps)["entropy"], expected_entropy(at, eps)
    if (off := differ(found, entropy, 1e-7)).any():
        expected = (
            f"expected {entry(entropy, off)} by perturb, the entropy given the latent at eps minus the entropy at T"
        )
        yield f"entropy: found {entry(found, off)}, {expected}"


def _decoder(at: Points, eps: float) -> Iterator[str]:
    """The decoder is a density of the latent, whatever the prediction, in up to four dimensions."""
    asked, end = Asked(at.prediction), torch.full_like(at.t, eps)
    at.path.decoder(asked, at.x, eps, at.noise)
    yield from asked.otherwise("decoder", at.path.perturb(at.x, end, at.noise), end)
    x = at.x[:1]
    for prediction in (0 * x, 0.3 * at.prediction[:1]):
        if x[0].numel() <= 4 and not abs((found := decoded_mass(at.path, x, prediction, eps)) - 1) < 1e-4:
            yield f"decoder: found a density whose integral over the latent is {found:.6g}, expected 1, given a latent at eps"


def decoded_mass(path: ForwardPath, x: Tensor, prediction: Tensor, eps: float, nodes: int = 5) -> float:
    r"""Return the integral of the decoder's density over the latent, given the mean of :math:`z_\epsilon` of x (1, *).

    The density is :math:`q(z_\epsilon|x')\,e^{-R_\epsilon(x')}`, with the prediction (1, *) at every latent x'. The rule of
    Gauss and Hermite is centred on x, and as wide as the latents that z may come from.
    """
    end, dims = torch.full((1,), eps, dtype=torch.float64), x[0].numel()
    z, noise, steps = path.perturb(x, end, 0 * x), jacobian(path, x, end)[0], STEP * both_ways(x)
    ahead, behind = path.perturb(x + steps, end.expand(len(steps)), 0 * steps).view(2, dims, dims)
    spread = torch.linalg.solve((ahead - behind).T / (2 * STEP), noise)
    u, weights = hermite(nodes, dims)
    decoded, times = x + (u @ spread.T).view(-1, *x.shape[1:]), end.expand(len(u))
    residual = (z - path.perturb(decoded, times, 0 * decoded)).flatten(1)
    factors = jacobian(path, decoded, times)
    drawn = torch.linalg.solve(factors, residual).view_as(decoded)
    cost = path.decoder(lambda z, t: prediction.expand_as(z), decoded, eps, drawn)
    log_ratio = (u**2).sum(1) / 2 - squared_norm(drawn) / 2 - cost + torch.linalg.slogdet(spread).logabsdet
    return (weights * (log_ratio - torch.linalg.slogdet(factors).logabsdet).exp()).sum().item()


def _ode(at: Points) -> Iterator[str]:
    """For data of one latent, the ODE moves as perturb does, and so for all data if its drift is affine in the prediction."""
    if not at.path.has_ode:
        return
    exact, expected = target(at), velocity(at)
    for i in range(len(at.x)):
        one, wanted = at.alone(i), expected[i : i + 1]
        given = [one.prediction, exact[i : i + 1], (one.prediction + exact[i : i + 1]) / 2]
        networks = [Asked(prediction) for prediction in given]
        first, found, middle = (at.path.ode_drift(network, one.z, one.a[0]) for network in networks)
        if wrong := list(networks[0].otherwise("ode_drift", one.z, one.t)):
            yield from wrong
            return
        if (off := differ(found, wanted, 1e-5)).any():
            yield (
                f"ode_drift: found {entry(found, off)}, expected {entry(wanted, off)} by perturb for data of one latent, "
                f"{where(one, off)}; correct it, or let has_ode be false where the prediction does not determine the score"
            )
            return
        if (off := differ(middle, (first + found) / 2, 1e-7)).any():
            yield f"ode_drift: found a drift that is not affine in the prediction, {where(one, off)}; expected an affine one"
            return
