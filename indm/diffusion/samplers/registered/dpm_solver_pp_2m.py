"""The probability-flow ODE, by DPM-Solver++ (2M)."""

import torch
from torch import Generator, Tensor

from indm.diffusion.objectives import NoiseFn
from indm.diffusion.path import ForwardPath
from indm.diffusion.samplers.loops import Schedule, expand_time
from indm.diffusion.steps import tweedie


def sample_dpm_solver_pp_2m(
    noise_fn: NoiseFn, path: ForwardPath, z: Tensor, schedule: Schedule, generator: Generator | None = None
) -> Tensor:
    r"""Solve the probability-flow ODE by DPM-Solver++ (2M), a multistep solver of second order; (B, *) to (B, *).

    Each step calls the network once and extrapolates the last two predictions of :math:`z_0` in
    :math:`\lambda = \tfrac12\log\mathrm{SNR}`:

    .. math::
        z_{t_i} = \frac{\sigma_{t_i}}{\sigma_{t_{i-1}}} z_{t_{i-1}} + \alpha_{t_i}\big(1 - e^{-h_i}\big) D_i, \quad
        D_i = \hat z_0^{(i-1)} + \frac{h_i}{2 h_{i-1}}\big(\hat z_0^{(i-1)} - \hat z_0^{(i-2)}\big), \quad
        h_i = \lambda_{t_i} - \lambda_{t_{i-1}}

    The first step has no prediction before it and uses :math:`D_i = \hat z_0^{(i-1)}`, which makes it a DDIM step. The last
    step is a DDIM step too, which the authors' code advises below 15 steps (``lower_order_final``). Here it always is,
    because on a grid equidistant in t the last :math:`h` is several times the :math:`h` before it, for any number of steps,
    so that the last step would extrapolate too far. The order of convergence remains two.

    References:
        | DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models (Lu et al., 2022)
        | https://arxiv.org/abs/2211.01095, algorithm 2, and https://github.com/LuChengTH/dpm-solver
    """
    sde = path.sde
    grid = torch.tensor(schedule.times, dtype=torch.float64)
    alpha, sigma, h = sde.alpha(grid), sde.sigma(grid), sde.log_snr(grid).diff() / 2
    shrink, gain = (sigma[1:] / sigma[:-1]).tolist(), (alpha[1:] * -torch.expm1(-h)).tolist()
    weights = [0.0, *(h[1:] / h[:-1] / 2).tolist()]
    weights[-1] = 0.0
    earlier = torch.zeros_like(z)
    for i, t in enumerate(schedule.times[:-1]):
        z0 = tweedie(noise_fn, sde, z, expand_time(t, z))
        z, earlier = shrink[i] * z + gain[i] * (z0 + weights[i] * (z0 - earlier)), z0
    return z


SAMPLER = sample_dpm_solver_pp_2m
