r"""Sampling of latents: a grid of times, a start from the prior, a registered sampler, and a final denoising step.

References:
    | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
    | https://arxiv.org/abs/2011.13456, section 4, appendices D, E and G
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from indm.diffusion.objectives import NoiseFn
from indm.diffusion.path import ForwardPath
from indm.diffusion.samplers.loops import Schedule, expand_time
from indm.diffusion.sde import SDE, T
from indm.diffusion.steps import DENOISERS, standard_normal
from indm.registry import SAMPLERS


def time_grid(sde: SDE, name: str, points: int, eps: float) -> list[float]:
    r"""Return ``points`` times from T to ``eps``: equidistant in t (``uniform``) or in the log-SNR (``log_snr``).

    The grid in the log-SNR puts a small number of steps where they are needed. Either grid needs at least two points.
    """
    if name == "uniform":
        return torch.linspace(T, eps, points, dtype=torch.float64).tolist()
    high, low = sde.antiderivative(torch.tensor([T, eps], dtype=torch.float64)).tolist()
    times = sde.time(torch.linspace(high, low, points, dtype=torch.float64))
    return [T, *times[1:-1].tolist(), eps]


def prior_draw(
    sde: SDE, shape: tuple[int, ...], generator: Generator, device: torch.device, mean: Tensor | None = None
) -> Tensor:
    r"""Draw :math:`z_T` from the prior, shape (B, *), centred on the mean of the data's latents at T if it is given.

    .. math:: z_T = \alpha_T\, E[z_0] + \sigma\,\xi

    Arguments:
        sde: the diffusion; :math:`\sigma` is its ``prior_std``.
        shape: (B, *).
        generator: source of the draw, on the CPU.
        device: where to return it.
        mean: :math:`E[z_0]`, shape (*), or ``None`` for a centre of 0.

    Returns:
        :math:`z_T`, shape (B, *), in torch's default type, on the device.
    """
    z = sde.prior_std * standard_normal(shape, torch.empty(0, device=device), generator)
    return z if mean is None else z + (_alpha_end(sde) * mean).to(z)


def draw_latents(
    noise: NoiseFn,
    path: ForwardPath,
    z: Tensor,
    generator: Generator,
    *,
    sampler: str,
    steps: int,
    grid: str,
    corrector_snr: Sequence[float] | None,
    corrector_steps: int,
    tolerance: float,
    denoise: str,
    eps: float,
) -> Tensor:
    """Sample latents z_0 from starts z_T, both (B, C, H, W), with the named sampler, then denoise them.

    ``released_ve`` denoises the mean of the last predictor step, without added noise and without a correction.

    Arguments:
        noise: the noise prediction.
        path: the forward process of the latent.
        z: starts, shape (B, C, H, W).
        generator: source of every draw, on the CPU.
        sampler: a name in :data:`indm.registry.SAMPLERS`.
        steps: number of points of the grid of times.
        grid: see :func:`time_grid`.
        corrector_snr: see :class:`~indm.diffusion.samplers.loops.Schedule`, as for the next two.
        corrector_steps: number of corrections at each point.
        tolerance: relative and absolute tolerance of an adaptive step.
        denoise: a name in :data:`indm.diffusion.steps.DENOISERS`.
        eps: truncation time.

    Returns:
        Latents, shape (B, C, H, W).

    Raises:
        ConvergenceError: if the sampler has adaptive steps and they find no solution.
    """
    times = time_grid(path.sde, grid, steps, eps)
    schedule = Schedule(times, corrector_snr, corrector_steps, tolerance, ends_in_mean=denoise == "released_ve")
    z = SAMPLERS[sampler](noise, path, z, schedule, generator)
    return DENOISERS[denoise](noise, path.sde, z, expand_time(times[-1], z))


def _alpha_end(sde: SDE) -> float:
    return sde.alpha(torch.tensor(T, dtype=torch.float64)).item()
