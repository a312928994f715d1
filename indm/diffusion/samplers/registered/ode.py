"""The probability-flow ODE, by adaptive steps."""

import torch
from torch import Generator, Tensor

from indm.diffusion.objectives import NoiseFn
from indm.diffusion.ode import solve_adaptively
from indm.diffusion.path import ForwardPath
from indm.diffusion.samplers.loops import Schedule


def sample_ode(
    noise_fn: NoiseFn, path: ForwardPath, z: Tensor, schedule: Schedule, generator: Generator | None = None
) -> Tensor:
    """Solve the probability-flow ODE between the ends of the grid (adaptive Dormand-Prince, on z's device); (B, *) to (B, *).

    Raises:
        ConvergenceError: if the adaptive steps find no solution; see :func:`indm.diffusion.ode.solve_adaptively`.

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, section 4.3
    """
    times = [schedule.times[0], schedule.times[-1]]
    ends = path.sde.antiderivative(torch.tensor(times, dtype=torch.float64, device=z.device))
    found: Tensor = solve_adaptively(lambda a, z_t: path.ode_drift(noise_fn, z_t, a), z, ends, schedule.tolerance)
    return found[-1]


SAMPLER = sample_ode
