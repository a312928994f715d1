r"""Shared parts of samplers: their schedule, and the loops over steps of the reverse SDE and of the ODE."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from indm.diffusion.objectives import NoiseFn
from indm.diffusion.ode import ode_drift_in_time
from indm.diffusion.path import ForwardPath
from indm.diffusion.steps import langevin, standard_normal


class Schedule(NamedTuple):
    """The times of a sampler's steps, and settings that only some samplers use.

    Arguments:
        times: the grid, falling from T to the truncation time.
        corrector_snr: signal-to-noise ratios of the Langevin corrector at the first of N points and at a hypothetical point
            N + 1, linear in between, as in the released code; ``None`` for no corrector.
        corrector_steps: number of corrections at each point.
        tolerance: relative and absolute tolerance of an adaptive step.
        ends_in_mean: whether the last predictor step returns its mean, without noise and without a correction.
    """

    times: list[float]
    corrector_snr: Sequence[float] | None = None
    corrector_steps: int = 1
    tolerance: float = 0.0
    ends_in_mean: bool = False


Sampler = Callable[[NoiseFn, ForwardPath, Tensor, Schedule, Generator], Tensor]
"""Map from a start z_T to a latent at the last time, both (B, *); the generator, on the CPU, is the source of every draw."""
Predictor = Callable[[ForwardPath, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""One reverse step: (path, z_t, noise prediction at t, t, s) to the mean (B, *) and the noise scale, which broadcasts to it."""
Derivative = Callable[[Tensor, Tensor], Tensor]
"""Right-hand side of the probability-flow ODE: z (B, *) and the time, a scalar, to (B, *)."""
OdeStep = Callable[[Derivative, Tensor, Tensor, Tensor], Tensor]
"""One step of an ODE: (its right-hand side, z at t, t, s) to z at s."""


@dataclass(frozen=True)
class PredictorCorrector:
    """Predictor-corrector on a grid of times.

    A grid of N points has N - 1 predictor steps and the denoising, so that without a corrector the network is called N
    times (N - 1 without denoising). At each point the corrector comes before the predictor.

    Arguments:
        predictor: one reverse step.
        corrector: whether to correct the latents if the schedule has a signal-to-noise ratio.

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, algorithm 1
    """

    predictor: Predictor
    corrector: bool = True

    def __call__(
        self, noise_fn: NoiseFn, path: ForwardPath, z: Tensor, schedule: Schedule, generator: Generator
    ) -> Tensor:
        times, end = schedule.times, len(schedule.times) - 1
        for i, time in enumerate(times):
            t = expand_time(time, z)
            if self.corrector and schedule.corrector_snr is not None and not (schedule.ends_in_mean and i == end):
                first, last = schedule.corrector_snr
                for _ in range(schedule.corrector_steps):
                    z = langevin(noise_fn, path.sde, z, t, first + (last - first) * i / len(times), generator)
            if i < end:
                z, scale = self.predictor(path, z, noise_fn(z, t), t, expand_time(times[i + 1], z))
                if not (schedule.ends_in_mean and i + 1 == end):
                    z = z + scale * standard_normal(z.shape, z, generator)
        return z


@dataclass(frozen=True)
class FixedStepOde:
    """The probability-flow ODE with one step in t for each interval of a grid of times.

    Arguments:
        step: one step of an ODE.
    """

    step: OdeStep

    def __call__(
        self, noise_fn: NoiseFn, path: ForwardPath, z: Tensor, schedule: Schedule, generator: Generator | None = None
    ) -> Tensor:
        derivative = partial(ode_drift_in_time, noise_fn, path.sde)
        for t, s in itertools.pairwise(torch.tensor(schedule.times, dtype=torch.float64, device=z.device)):
            z = self.step(derivative, z, t, s)
        return z


def expand_time(t: float, z: Tensor) -> Tensor:
    """Return the time t for each latent in z, (B, *) to (B,)."""
    return torch.full((len(z),), t, dtype=torch.float64, device=z.device)
