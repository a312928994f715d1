r"""The distance of a stack of replicas from a known density: of its bound, its ODE, its samples; and its variational gap.

The flow's log-determinant is a sum of known terms. The divergence is exact: with the D orthogonal probes of a Hadamard matrix,
whose entries are 1 or -1, the mean of :math:`v^\top J v` is :math:`\operatorname{tr} J` itself. The remaining error comes from the
ODE solver and, for the bound, from averaging over finitely many times, noises and test points. The last part is small, because
:math:`\log p(x)` is subtracted point by point.

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022), https://arxiv.org/abs/2205.13699
    | Energy statistics (Székely and Rizzo, 2013), https://doi.org/10.1016/j.jspi.2013.03.018
    | Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
"""

import itertools
import math

import torch
from scipy.linalg import hadamard
from torch import Generator, Tensor
from torch.quasirandom import SobolEngine

from indm.densities.models import Stack
from indm.diffusion.likelihood import GaussianControl, ode_nll
from indm.diffusion.objectives import gaussian_nll, squared_norm
from indm.diffusion.path import LinearPath, nelbo
from indm.diffusion.samplers.draw import prior_draw, time_grid
from indm.diffusion.samplers.loops import Schedule, expand_time
from indm.diffusion.samplers.registered import ddim, ode_heun
from indm.diffusion.sde import SDE, importance_time
from indm.diffusion.steps import tweedie

# Keeps the normal quantiles finite.
TINY = 1e-12
# The importance-weighted likelihood is computed from K paths as well as from this many times K.
MORE = 4
CPU = torch.device("cpu")


def exact_ode_nll(stack: Stack, sde: SDE, z: Tensor, eps: float, tolerance: float | None, steps: int = 1) -> Tensor:
    r"""Return the negative log-density at time ``eps`` under the probability-flow ODE, with the exact divergence.

    .. math:: \operatorname{tr} J = \frac1D \sum_{i=1}^D v_i^\top J\, v_i

    for the D rows :math:`v_i` of a Hadamard matrix, which are the probes of :func:`indm.diffusion.likelihood.ode_nll`.

    Arguments:
        stack: R replicas, whose path has an ODE.
        sde: the diffusion.
        z: latents at time ``eps``, shape (R, B, D), D a power of two.
        eps: truncation time.
        tolerance: tolerance of adaptive steps; None for fixed steps.
        steps: number of fixed steps.

    Returns:
        The negative log-density in nats, shape (R, B).

    Raises:
        ValueError: if D is not a power of two.
        ConvergenceError: if the adaptive solver needs too many steps.
    """
    dims = z.shape[-1]
    probes = torch.from_numpy(hadamard(dims)).to(z.dtype)[None, :, None].expand(stack.replicas, -1, z.shape[1], -1)
    each = z[:, None].expand_as(probes).flatten(0, 2)
    nll = ode_nll(stack.noise_fn(), stack.path(sde), each, eps, tolerance, probes.flatten(0, 2), steps)
    return nll.unflatten(0, (stack.replicas, dims, -1)).mean(1)


@torch.no_grad()
def likelihood(
    stack: Stack, sde: SDE, x: Tensor, *, eps: float, time_draws: int, tolerance: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Evaluate the NELBO and the NLL of the ODE, both with the same reconstruction term; the NLL is NaN without an ODE.

    Arguments:
        x: the test points of each replica, shape (R, B, D).
        time_draws: number of draws of time and noise for the bound, per point.

    Returns:
        Both numbers of each point in nats, each with shape (R, B), float64.

    Raises:
        ConvergenceError: if the ODE's solver needs too many steps.
    """
    z0, log_det = stack.flow(x)
    flat = z0.flatten(0, 1)
    noise = torch.randn(flat.shape, generator=generator)
    path = stack.path(sde)
    cost = stack.unflatten(path.decoder(stack.noise_fn(), flat, eps, noise))
    nelbo = (bound(stack, sde, x, eps, time_draws, generator) + cost).double()
    if not path.has_ode:
        return nelbo, torch.full_like(nelbo, math.nan)
    start = stack.unflatten(path.perturb(flat, torch.full((len(flat),), eps, dtype=torch.float64), noise))
    nll = exact_ode_nll(stack, sde, start, eps, tolerance) - log_det
    return nelbo, (nll + cost).double()


@torch.no_grad()
def bound(stack: Stack, sde: SDE, x: Tensor, eps: float, draws: int, generator: Generator) -> Tensor:
    """Average the bound without the reconstruction term over times and noises.

    The D + 1 uniform variates behind a time and a noise follow a Sobol sequence, shifted at random for each point, and the
    control variate of :func:`indm.diffusion.likelihood.stratified_nelbo` removes the linear part.

    Arguments:
        x: points, shape (R, B, D).
        draws: number of draws of time and noise, per point.

    Returns:
        The bound of each point in nats, shape (R, B).

    References:
        | Monte Carlo Methods and Models in Finance and Insurance (Korn et al., 2010), sections 2.5 and 3.3
    """
    z0, log_det = (values.flatten(0, 1) for values in stack.flow(x))
    control = GaussianControl(sde, z0.mean(0), z0.var(0))
    error = control.expectation(z0, eps)
    path, variates = stack.path(sde), 1 + x.shape[-1]
    shift = torch.rand(len(z0), variates, generator=generator, dtype=torch.float64)
    for point in SobolEngine(variates).draw(draws, dtype=torch.float64):
        u = (point + shift) % 1
        t, z = importance_time(sde, u[:, 0], eps)
        noise = torch.special.ndtri(u[:, 1:].clamp(TINY, 1 - TINY)).to(z0.dtype)
        error = error + (path.error(stack.noise_fn(), z0, t, noise) - control.draw(z0, t, noise)) / draws
    return stack.unflatten(nelbo(path, z0, log_det, error, z, eps))


@torch.no_grad()
def true_gap(
    stack: Stack, sde: SDE, x: Tensor, *, eps: float, paths: int, steps: int, generator: Generator
) -> dict[str, Tensor]:
    r"""Estimate the variational gap, NELBO - NLL of the SDE, with importance weights.

    The reverse chain p has Gaussian transitions from t to s, and so does the bridge q to the point. With
    :math:`r = \mathrm{SNR}(s) / \mathrm{SNR}(t) - 1`, the error e of the noise prediction, and the standard normal draw
    :math:`\xi` of q, in units of the standard deviation of q's transition,

    .. math:: \log\frac{p(z_s | z_t)}{q(z_s | z_t, z_0)}
        = \tfrac12|\xi|^2 - \tfrac12 \zeta^\top \Sigma^{-1} \zeta - \tfrac12\log\det \Sigma,
        \qquad \zeta = \xi + \sqrt r\, e, \qquad \Sigma = I + r\,(I - \sigma_t \nabla\epsilon_\theta),

    which is exact for Gaussian data, whose :math:`z_0` given :math:`z_t` has the covariance
    :math:`\sigma_t^2 (I - \sigma_t\nabla\epsilon) / \alpha_t^2`. With :math:`\Sigma = I`, p is the chain of ancestral sampling,
    which is not exact for Gaussian data and therefore needs far more steps. For a Gaussian with a wrong score, the estimate is
    too large, by an error that falls with the number of steps. For the weights w = p / q of whole paths,

    .. math:: \mathrm{gap}_K = \mathbb E \log \frac 1K \sum_{k=1}^K w_k - \mathbb E \log w \;\le\; \mathrm{gap},

    which grows with K, since the NLL is estimated too high.

    Arguments:
        x: points, shape (R, B, D).
        paths: K.
        steps: steps of the chain, equidistant in the log-SNR.

    Returns:
        Three numbers of each replica, shape (R,) each. They are ``true_gap`` with 4 K paths and ``true_gap_fewer`` with K, in
        nats, and ``ess``, the effective share of the 4 K paths, 1 if their weights are equal.
    """
    count = MORE * paths
    z0 = stack.flow(x)[0].repeat_interleave(count, 1).flatten(0, 1)
    times = torch.tensor(time_grid(sde, "log_snr", steps + 1, eps), dtype=torch.float64)
    alpha, sigma, snr = sde.alpha(times), sde.sigma(times), sde.log_snr(times)
    noise = torch.randn(z0.shape, generator=generator)
    z = (alpha[0] * z0 + sigma[0] * noise).float()
    log_w = (gaussian_nll(noise, 1.0) - gaussian_nll(z, sde.prior_std)).double()
    for i in range(steps):
        predicted, jacobian = _with_jacobian(stack, z, times[i])
        r, fresh = torch.expm1(snr[i + 1] - snr[i]).float(), torch.randn(z0.shape, generator=generator)
        covariance = (1 + r) * torch.eye(z.shape[1]) - r * sigma[i].float() * (jacobian + jacobian.mT) / 2
        factor, info = torch.linalg.cholesky_ex(covariance)
        # Where the prediction is so bad that this is no covariance, p keeps the variance of q.
        factor[info > 0] = torch.eye(z.shape[1])
        zeta = fresh + r.sqrt() * (predicted - noise)
        whitened = torch.linalg.solve_triangular(factor, zeta[..., None], upper=False).squeeze(-1)
        log_w += (squared_norm(fresh) - squared_norm(whitened)) / 2 - factor.diagonal(dim1=1, dim2=2).log().sum(1)
        noise = ((noise + r.sqrt() * fresh) / (1 + r).sqrt()).float()
        z = (alpha[i + 1] * z0 + sigma[i + 1] * noise).float()
    # Terms that are equal for all paths cancel in the gap.
    log_w -= squared_norm(stack.noise_fn()(z, times[-1].expand(len(z))) - noise) / 2
    log_w = stack.unflatten(log_w).unflatten(1, (-1, count))
    groups = log_w.unflatten(2, (MORE, paths))
    return {
        "true_gap": (log_w.logsumexp(2) - math.log(count) - log_w.mean(2)).mean(1),
        "true_gap_fewer": (groups.logsumexp(3) - math.log(paths) - groups.mean(3)).mean((1, 2)),
        "ess": (2 * log_w.logsumexp(2) - (2 * log_w).logsumexp(2)).exp().mean(1) / count,
    }


def _with_jacobian(stack: Stack, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Predict the noise (B, D) in latents (B, D) at a time, with its Jacobian (B, D, D)."""
    with torch.enable_grad():
        z = z.requires_grad_()
        predicted = stack.noise_fn()(z, t.expand(len(z)))
        rows = [torch.autograd.grad(column.sum(), z, retain_graph=True)[0] for column in predicted.unbind(1)]
    return predicted.detach(), torch.stack(rows, 1)


@torch.no_grad()
def sample(stack: Stack, sde: SDE, count: int, steps: int, *, grid: str, eps: float, generator: Generator) -> Tensor:
    """Sample points by DDIM: the network is called ``steps`` times, the last time to denoise.

    Arguments:
        count: number N of points of each replica.
        steps: number of times of the grid.
        grid: name of the time grid; see :func:`indm.diffusion.samplers.draw.time_grid`.

    Returns:
        Points in data space, shape (R, N, D).
    """
    z = prior_draw(sde, (stack.replicas * count, stack.noise.dims), generator, CPU)
    z = ddim.SAMPLER(stack.noise_fn(), stack.path(sde), z, Schedule(time_grid(sde, grid, steps, eps)), generator)
    z0 = tweedie(stack.noise_fn(), sde, z, expand_time(eps, z))
    return stack.flow.inverse(stack.unflatten(z0))


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Estimate the energy distance of two samples without bias: 0 on average for equal laws.

    .. math:: 2\,\mathbb E|X - Y| - \mathbb E|X - X'| - \mathbb E|Y - Y'|

    Arguments:
        x: points of each replica, shape (R, N, D), N at least 2.
        y: points of each replica, shape (R, M, D), M at least 2.

    Returns:
        The distances, a length in data space, shape (R,), float64.

    References:
        | Energy statistics (Székely and Rizzo, 2013), https://doi.org/10.1016/j.jspi.2013.03.018
    """

    def within(points: Tensor) -> Tensor:
        return torch.cdist(points, points).sum((1, 2)) / (points.shape[1] * (points.shape[1] - 1))

    x, y = x.double(), y.double()
    return 2 * torch.cdist(x, y).mean((1, 2)) - within(x) - within(y)


@torch.no_grad()
def midpoint(stack: Stack, x: Tensor) -> Tensor:
    r"""Return the squared distance of the flow from an affine map, relative to its spread.

    .. math:: \frac{\sum |h(\frac{x + y}2) - \frac{h(x) + h(y)}2|^2}{\sum |\frac{h(x) - h(y)}2|^2}

    Arguments:
        x: points, shape (R, B, D); y is the next point.

    Returns:
        The ratio, which has no unit, shape (R,), float64; 0 for an affine map.
    """
    y = x.roll(-1, 1)
    middle, first, second = (stack.flow(points)[0].double() for points in ((x + y) / 2, x, y))
    bent, apart = middle - (first + second) / 2, (first - second) / 2
    return bent.square().sum((1, 2)) / apart.square().sum((1, 2))


@torch.no_grad()
def moved(stack: Stack, sde: SDE, x: Tensor, eps: float, generator: Generator, draws: int = 64) -> Tensor:
    r"""Return how far the forward process has moved from DDPM++'s: the root mean square per dimension.

    .. math:: \Big(\tfrac1D\,\mathbb E_{x, A, \epsilon}\big\|z_t - (\alpha x + \sigma\epsilon)\big\|^2\Big)^{1/2}

    over points, A uniform between the ends, and noise.

    Arguments:
        x: points, shape (R, B, D).
        draws: number of times, each with a draw of the noise.

    Returns:
        The distances, lengths in the latent space, shape (R,), float64.
    """
    path, flat, z0 = stack.path(sde), x.flatten(0, 1), stack.flow(x)[0].flatten(0, 1)
    total = torch.zeros(len(flat), dtype=torch.float64)
    for t in importance_time(sde, (torch.arange(draws, dtype=torch.float64) + 0.5) / draws, eps)[0]:
        noise, times = torch.randn(flat.shape, generator=generator), t.expand(len(flat))
        total += squared_norm(path.perturb(z0, times, noise) - LinearPath(sde).perturb(flat, times, noise)) / draws
    return (stack.unflatten(total).mean(1) / x.shape[-1]).sqrt()


@torch.no_grad()
def trajectories(stack: Stack, sde: SDE, z: Tensor, points: int, eps: float) -> Tensor:
    """Follow the probability-flow ODE from the prior to the data by Heun's method, on times equidistant in the log-SNR.

    Arguments:
        z: latents at time T, shape (R, B, D).
        points: number N of times, both ends included.

    Returns:
        The latents at these times, mapped to data space, shape (N, R, B, D).
    """
    z = z.flatten(0, 1)
    path = [z]
    for interval in itertools.pairwise(time_grid(sde, "log_snr", points, eps)):
        z = ode_heun.SAMPLER(stack.noise_fn(), stack.path(sde), z, Schedule(list(interval)))
        path.append(z)
    return torch.stack([stack.flow.inverse(stack.unflatten(z_t)) for z_t in path])


def path_ratio(path: Tensor) -> Tensor:
    """Return the mean length of trajectories over the mean distance of their ends, 1 if they are straight.

    Arguments:
        path: trajectories at N times, shape (N, R, B, D).

    Returns:
        The ratio, which has no unit, shape (R,), float64.
    """
    length = path.diff(dim=0).norm(dim=-1).double().sum(0).mean(-1)
    return length / (path[-1] - path[0]).norm(dim=-1).double().mean(-1)
