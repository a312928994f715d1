r"""Likelihood as four named numbers, in nats per image.

``nelbo`` and ``nelbo_no_reconstruction`` bound the likelihood of the SDE model; ``nll`` and ``nll_uncorrected`` come from the
probability-flow ODE. ``nll`` starts the ODE at :math:`z_\epsilon` and adds the reconstruction term, whereas
``nll_uncorrected`` starts it at :math:`z_0`. The gap ``nelbo - nll`` may be negative, because the SDE and the ODE model
have different densities.

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022), https://arxiv.org/abs/2205.13699
    | Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021), https://arxiv.org/abs/2101.09258
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from indm.diffusion.draws import Draws, normal, signs, uniform
from indm.diffusion.objectives import NoiseFn, gaussian_nll, per_sample, squared_norm
from indm.diffusion.ode import solve_adaptively
from indm.diffusion.path import ForwardPath, nelbo
from indm.diffusion.sde import SDE, T, importance_time
from indm.flows.cosine import to_cosine

# torchdiffeq's explicit method has an order one lower, the fifth.
MAX_ORDER = 6


def ode_nll(
    noise_fn: NoiseFn, path: ForwardPath, z: Tensor, eps: float, tolerance: float | None, probe: Tensor, steps: int = 1
) -> Tensor:
    r"""Return the negative log-density at time ``eps`` under the probability-flow ODE, in nats.

    .. math::
        -\log p_\epsilon(z_\epsilon) =
        -\log p_T(z_T) - \int_\epsilon^T \nabla\!\cdot\frac{\mathrm dz}{\mathrm dt}\,\mathrm dt

    The ODE runs in :math:`A = -\log\mathrm{SNR}`; one network call gives the drift and, by one vector-Jacobian product with
    the probe, Hutchinson's unbiased estimate of the divergence.

    Arguments:
        noise_fn: the noise prediction.
        path: the forward process, with an ODE.
        z: latents at time ``eps``, shape (B, *).
        eps: truncation time.
        tolerance: relative and absolute tolerance of adaptive Dormand-Prince steps; None for fixed steps.
        probe: draws of zero mean and unit covariance, shape (B, *).
        steps: number of fixed Adams-Bashforth steps of fifth order, equidistant in A, with one network call each, except
            for four calls in each of the first two steps. Fixed steps suit smooth densities only: for sharp densities, such
            as narrow modes far apart, set a tolerance.

    Returns:
        The negative log-density of each sample, in nats, shape (B,).

    Raises:
        ConvergenceError: if the adaptive steps find no solution; see :func:`indm.diffusion.ode.solve_adaptively`.

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, equations 39 and 40
        | FFJORD (Grathwohl et al., 2019), https://arxiv.org/abs/1810.01367, equation 8
        | Solving Ordinary Differential Equations I (Hairer, Nørsett & Wanner, 1993), section III.1
        | https://doi.org/10.1007/978-3-540-78862-1
    """

    def augmented(a: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z_t = state[0].detach().requires_grad_()
            drift = path.ode_drift(noise_fn, z_t, a)
            (vjp,) = torch.autograd.grad((drift * probe).sum(), z_t)
        return drift.detach(), (vjp * probe).flatten(1).sum(1)

    first, last = path.sde.antiderivative(torch.tensor([eps, T], dtype=torch.float64, device=z.device))
    start = (z, torch.zeros(len(z), dtype=z.dtype, device=z.device))
    if tolerance is None:
        grid = first + torch.arange(steps + 1, dtype=torch.float64, device=z.device) / steps * (last - first)
        z_path, log_volume = odeint(augmented, start, grid, method="explicit_adams", options={"max_order": MAX_ORDER})
    else:
        ends = torch.stack([first, last])
        z_path, log_volume = solve_adaptively(augmented, start, ends, tolerance)
    return gaussian_nll(z_path[-1], path.sde.prior_std) - log_volume[-1]


@dataclass(frozen=True)
class GaussianControl:
    r"""Control variate of the bound: the error of the linear noise prediction that is exact for :math:`\mathcal N(m, v)`.

    .. math::
        \epsilon_{\mathrm{lin}} - \epsilon = a\,(z_0 - m) - b\,\epsilon, \qquad
        a = \frac{\alpha\sigma}{\alpha^2 v + \sigma^2}, \quad b = \frac{\alpha^2 v}{\alpha^2 v + \sigma^2}

    Its mean over the noise is known, :math:`\sum a^2(z_0-m)^2 + b^2`, so that subtracting the draw and adding the mean keeps
    the bound unbiased for every :math:`m, v`. Its variance is lower where the error of the model follows the error of the
    linear prediction. The cosine basis suits natural images better than the basis of the pixels, because the coefficients
    of neighbouring frequencies are less correlated than neighbouring pixels are.

    Arguments:
        sde: the diffusion.
        mean: :math:`m` in every dimension, shape (*).
        variance: :math:`v` in every dimension, shape (*).
        cosine: whether these are dimensions of the orthonormal cosine transform of each channel, for shape (C, S, S).

    References:
        | Monte Carlo Methods and Models in Finance and Insurance (Korn et al., 2010), section 3.3 (control variates)
    """

    sde: SDE
    mean: Tensor
    variance: Tensor
    cosine: bool = False

    @classmethod
    def fitted(cls, sde: SDE, z0: Tensor, *, cosine: bool) -> "GaussianControl":
        r"""Take mean and variance from N latents, shape (N, *), for other latents than these.

        .. math:: v_i = \frac{N - 1}{N} s_i^2 + \frac{\bar v}{N^2}

        with :math:`s_i^2` the sample variance in a dimension and :math:`\bar v` the variance of all entries, because a variance
        near 0 in a few latents would give another latent errors of any size.
        """
        values, count = (to_cosine(z0) if cosine else z0).double(), len(z0)
        variance = values.var(0, correction=0) + values.var(correction=0) / count**2
        return cls(sde, values.mean(0).to(z0.dtype), variance.to(z0.dtype), cosine)

    def turned(self, z: Tensor) -> Tensor:
        """Return latents or noise in the basis of the control variate, (B, *) to (B, *)."""
        return to_cosine(z) if self.cosine else z

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b at the times t, (B,) to (B, *) each."""
        alpha, sigma = (per_sample(value, self.mean[None]) for value in (self.sde.alpha(t), self.sde.sigma(t)))
        total = alpha**2 * self.variance + sigma**2
        return alpha * sigma / total, alpha**2 * self.variance / total

    def draw(self, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return the squared error of the linear prediction for one draw of the noise: (B, *) at times (B,) to (B,)."""
        return squared_norm(self.error(z0, t, noise))

    def error(self, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return the error of the linear prediction for one draw of the noise, in its basis: (B, *) at times (B,) to (B, *)."""
        a, b = self.coefficients(t)
        return a * (self.turned(z0) - self.mean) - b * self.turned(noise)

    def expectation(self, z0: Tensor, eps: float, points: int = 1000) -> Tensor:
        """Return the mean of :meth:`draw` over noise and importance-sampled times, by the midpoint rule: (B, *) to (B,)."""
        a_squared, b_squared = self.mean_squares(eps, points)
        apart = (self.turned(z0) - self.mean).square()
        return (apart * a_squared).flatten(1).sum(1) + b_squared.sum()

    def mean_squares(self, eps: float, points: int = 1000) -> tuple[Tensor, Tensor]:
        """Return the means of the squares of a and b over importance-sampled times, by the midpoint rule: shape (*) each."""
        midpoints = (torch.arange(points, dtype=torch.float64, device=self.mean.device) + 0.5) / points
        a, b = self.coefficients(importance_time(self.sde, midpoints, eps)[0])
        return a.square().mean(0), b.square().mean(0)


def stratified_nelbo(
    noise_fn: NoiseFn,
    path: ForwardPath,
    z0: Tensor,
    log_det: Tensor,
    eps: float,
    draws: int,
    generator: Draws,
    control: GaussianControl | None = None,
) -> Tensor:
    r"""Average the bound over stratified importance-sampled times, with a Gaussian control variate, in nats.

    .. math:: t_k = A^{-1}\big(A(\epsilon) + \tfrac{k + u}{K} Z\big), \qquad u \sim U[0, 1), \quad k = 0, \dots, K-1

    Arguments:
        noise_fn: the noise prediction.
        path: the forward process of the latent.
        z0: clean latents, shape (B, *).
        log_det: the flow's log-determinant in nats, shape (B,).
        eps: truncation time.
        draws: number of strata :math:`K`.
        generator: source of every draw; with a generator for each image, each has its own stratified times.
        control: the control variate; by default, mean and variance of these latents in the basis of the pixels.

    Returns:
        The bound without the reconstruction term, in nats, shape (B,).
    """
    if control is None:
        # One image has no variance; the bound stays unbiased, regardless of the control variate's parameters.
        control = GaussianControl(path.sde, z0.mean(0), z0.var(0, correction=min(1, len(z0) - 1)))
    error = control.expectation(z0, eps)
    for t, noise in strata(path.sde, z0, eps, draws, generator):
        error = error + (path.error(noise_fn, z0, t, noise) - control.draw(z0, t, noise)) / draws
    z = importance_time(path.sde, torch.zeros(1, dtype=torch.float64, device=z0.device), eps)[1]
    return nelbo(path, z0, log_det, error, z, eps)


def strata(sde: SDE, z0: Tensor, eps: float, draws: int, generator: Draws) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a time (B,) and noise (B, *) for latents (B, *) in each of K strata; see :func:`stratified_nelbo`."""
    for k in range(draws):
        u = (k + uniform(generator, (len(z0),), torch.float64)) / draws
        yield importance_time(sde, u.to(z0.device), eps)[0], normal(generator, z0)


@torch.no_grad()
def nelbo_alone(
    noise_fn: NoiseFn,
    path: ForwardPath,
    flow: Callable[[Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    *,
    eps: float,
    time_draws: int,
    generator: Draws,
    control: GaussianControl | None = None,
) -> Tensor:
    """Evaluate ``nelbo`` of a batch as :func:`four_numbers` does, without an ODE, in nats, shape (B,), float64, on the CPU.

    See :func:`four_numbers` for the arguments.
    """
    z0, log_det = flow(x)
    noise = normal(generator, z0)
    bound, cost = _bound_and_cost(noise_fn, path, z0, log_det, noise, eps, time_draws, generator, control)
    return bound + cost


def _bound_and_cost(
    noise_fn: NoiseFn,
    path: ForwardPath,
    z0: Tensor,
    log_det: Tensor,
    noise: Tensor,
    eps: float,
    draws: int,
    generator: Draws,
    control: GaussianControl | None,
) -> tuple[Tensor, Tensor]:
    """Return the bound without the reconstruction term, and that term from the noise at ``eps``: each (B,), on the CPU."""
    cost = path.decoder(noise_fn, z0, eps, noise).double().cpu()
    bound = stratified_nelbo(noise_fn, path, z0, log_det, eps, draws, generator, control)
    return bound.double().cpu(), cost


@torch.no_grad()
def four_numbers(
    noise_fn: NoiseFn,
    path: ForwardPath,
    flow: Callable[[Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    *,
    eps: float,
    time_draws: int,
    tolerance: float | None,
    ode_steps: int,
    uncorrected: bool,
    generator: Draws,
    control: GaussianControl | None = None,
    ode_images: int | None = None,
) -> dict[str, Tensor]:
    """Evaluate ``nll``, ``nelbo``, ``nelbo_no_reconstruction`` and, if asked, ``nll_uncorrected`` of a batch of images.

    One draw of the noise at ``eps`` serves both the start of the ODE and the reconstruction term.

    Arguments:
        noise_fn: the noise prediction.
        path: the forward process of the latent; without an ODE, the numbers of the ODE are NaN.
        flow: maps dequantised images (B, *) to latents (B, *) and log-determinants (B,), in nats.
        x: dequantised images in model space, shape (B, *).
        eps: truncation time.
        time_draws: number of stratified times for the bound.
        tolerance: tolerance of the ODE solver; None for fixed steps.
        ode_steps: number of fixed steps.
        uncorrected: whether to evaluate ``nll_uncorrected`` too, which needs a second ODE.
        generator: source of every draw; draws do not depend on the number of images with an ODE.
        control: the control variate; see :func:`stratified_nelbo`.
        ode_images: number of images, the first ones, whose ODE is solved; the numbers of the ODE of the others are NaN.

    Returns:
        The numbers by their names, each in nats per image, shape (B,), float64, on the CPU.

    Raises:
        ConvergenceError: if the adaptive steps find no solution.
    """
    z0, log_det = flow(x)
    noise, probe = normal(generator, z0), signs(generator, z0)
    bound, cost = _bound_and_cost(noise_fn, path, z0, log_det, noise, eps, time_draws, generator, control)
    numbers = {"nelbo": bound + cost, "nelbo_no_reconstruction": bound}
    if not path.has_ode:
        return {"nll": torch.full_like(bound, math.nan)} | numbers
    t = torch.full((len(z0),), eps, dtype=torch.float64, device=z0.device)
    starts = {"nll": path.perturb(z0, t, noise)} | ({"nll_uncorrected": z0} if uncorrected else {})
    found = {name: torch.full_like(bound, math.nan) for name in starts}
    if count := min(len(z0), len(z0) if ode_images is None else ode_images):
        first = {name: start[:count] for name, start in starts.items()}
        for name, nll in _ode_nlls(noise_fn, path, first, eps, tolerance, probe[:count], ode_steps).items():
            found[name][:count] = (nll - log_det[:count]).double().cpu()
    return found | {"nll": found["nll"] + cost} | numbers


def _ode_nlls(
    noise_fn: NoiseFn,
    path: ForwardPath,
    starts: dict[str, Tensor],
    eps: float,
    tolerance: float | None,
    probe: Tensor,
    steps: int,
) -> dict[str, Tensor]:
    """Solve the ODE from each start, (B, *) to (B,), with the same probe; see :func:`ode_nll`."""
    # One batch has fewer, larger network calls. Adaptive steps depend on all entries, so they have a batch for each start.
    batches = [[*starts.values()]] if tolerance is None else [[start] for start in starts.values()]
    solutions = [
        ode_nll(noise_fn, path, torch.cat(batch), eps, tolerance, torch.cat([probe] * len(batch)), steps)
        for batch in batches
    ]
    return dict(zip(starts, torch.cat(solutions).chunk(len(starts)), strict=True))
