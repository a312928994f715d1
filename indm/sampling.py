r"""Samplers: stochastic predictor-corrector and the probability-flow ODE, then the flow's inverse.

Every sampler takes a noise prediction, an SDE and a start :math:`z_T`, and returns latents :math:`z_0`.

References:
    | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
    | https://arxiv.org/abs/2011.13456, section 4, appendices D, E and G
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239, equation 7
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from indm.data import dequantise, quantise
from indm.diffusion import ImplicitNonlinearDiffusion
from indm.errors import DivergenceError
from indm.objectives import NoiseFn, per_sample
from indm.probability_flow import ode_drift
from indm.sde import SDE, T
from indm.seeding import derive_seed

Predictor = Callable[[SDE, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""One reverse step: (sde, z_t, noise prediction at t, t, s) to the mean (B, *) and the noise scale (B,)."""


class CountedNoise:
    """A noise prediction that counts its calls, so that NFE is measured and not assumed."""

    def __init__(self, noise_fn: NoiseFn) -> None:
        self.noise_fn = noise_fn
        self.calls = 0

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.noise_fn(z, t)


def euler_maruyama(sde: SDE, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""Euler-Maruyama step of the reverse SDE from ``t`` to ``s``.

    .. math:: z_s = z_t - \big(f z_t + \tfrac{g^2}{\sigma}\epsilon_\theta\big)(t - s) + g\sqrt{t-s}\,\xi
    """
    g = sde.diffusion(t)
    drift = per_sample(sde.drift(t), z) * z + per_sample(g**2 / sde.sigma(t), z) * noise
    return z - per_sample(t - s, z) * drift, g * torch.sqrt(t - s)


def reverse_diffusion(sde: SDE, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""Reverse-diffusion step with the exact coefficients of the interval.

    .. math:: z_s = \big(2 - \sqrt{1-G^2}\big) z_t - \tfrac{G^2}{\sigma}\epsilon_\theta + G\,\xi \quad (\text{VE: } z_t - \dots)

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, equation 46
    """
    shrink, big_g = sde.interval(t, s)
    return per_sample(2 - shrink, z) * z - per_sample(big_g**2 / sde.sigma(t), z) * noise, big_g


def ancestral(sde: SDE, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""Ancestral step: the Gaussian posterior :math:`q(z_s \mid z_t, z_0)` at the predicted :math:`z_0`.

    .. math::
        \mu = \frac1{\alpha_{t|s}}\Big(z_t - \frac{\sigma^2_{t|s}}{\sigma_t}\epsilon_\theta\Big), \quad
        \text{std} = \frac{\sigma_{t|s}\sigma_s}{\sigma_t}, \quad
        \alpha_{t|s} = \frac{\alpha_t}{\alpha_s},\; \sigma^2_{t|s} = \sigma_t^2 - \alpha_{t|s}^2\sigma_s^2

    References:
        | Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239, equations 7 and 11
    """
    sigma_t, sigma_s, ratio = sde.sigma(t), sde.sigma(s), sde.alpha(t) / sde.alpha(s)
    variance = sigma_t**2 - ratio**2 * sigma_s**2
    mean = (z - per_sample(variance / sigma_t, z) * noise) / per_sample(ratio, z)
    return mean, torch.sqrt(variance) * sigma_s / sigma_t


def ddim(sde: SDE, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""Deterministic step of the probability-flow ODE, exact where the noise prediction is constant.

    .. math:: z_s = \frac{\alpha_s}{\alpha_t}(z_t - \sigma_t\epsilon_\theta) + \sigma_s\epsilon_\theta

    References:
        | Denoising Diffusion Implicit Models (Song et al., 2021), https://arxiv.org/abs/2010.02502, equation 12
    """
    ratio, sigma_t, sigma_s = (
        per_sample(value, z) for value in (sde.alpha(s) / sde.alpha(t), sde.sigma(t), sde.sigma(s))
    )
    return ratio * (z - sigma_t * noise) + sigma_s * noise, torch.zeros_like(t)


PREDICTORS: dict[str, Predictor] = {
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
    "ancestral": ancestral,
    "ddim": ddim,
}


def langevin(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor, snr: float, generator: Generator) -> Tensor:
    r"""One Langevin correction at time ``t``, its step set by a signal-to-noise ratio (batch means of the norms).

    .. math:: z' = z + a s_\theta + \sqrt{2a}\,\xi, \qquad a = 2\alpha\,\big(\mathrm{snr}\,\|\xi\|/\|s_\theta\|\big)^2

    with :math:`\alpha = 1 - \beta(t)/1000` under VP and 1 under VE.

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, algorithms 4 and 5
    """
    score = -noise_fn(z, t) / per_sample(sde.sigma(t), z)
    xi = _normal(z.shape, z, generator)
    ratio = snr * xi.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
    step = 2 * per_sample(1 + 2 * sde.drift(t) / 1000, z) * ratio**2
    return z + step * score + torch.sqrt(2 * step) * xi


def tweedie(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    r"""Mean of :math:`z_0` given :math:`z_t`: :math:`(z_t - \sigma_t\epsilon_\theta)/\alpha_t`; (B, *) to (B, *).

    References:
        | Tweedie's Formula and Selection Bias (Efron, 2011), https://doi.org/10.1198/jasa.2011.tm11181, equation 1.4
    """
    return (z - per_sample(sde.sigma(t), z) * noise_fn(z, t)) / per_sample(sde.alpha(t), z)


def released_ve_denoising(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    r"""Last step of the released code's VE runs (``pc_denoise_time = -1``), 8.5 times as long as :func:`tweedie`.

    .. math:: z + \tfrac12 g(t)^2 (t + 1)\, s_\theta = z - \tfrac{g^2(t + 1)}{2\sigma_t}\,\epsilon_\theta
    """
    return z - per_sample(sde.diffusion(t) ** 2 * (t + 1) / (2 * sde.sigma(t)), z) * noise_fn(z, t)


def no_denoising(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    """Leave the latents as they are."""
    return z


DENOISERS: dict[str, Callable[[NoiseFn, SDE, Tensor, Tensor], Tensor]] = {
    "tweedie": tweedie,
    "released_ve": released_ve_denoising,
    "none": no_denoising,
}


def time_grid(sde: SDE, name: str, points: int, eps: float) -> list[float]:
    r"""Return ``points`` times from T to ``eps``: equidistant in t (``uniform``) or in the log-SNR (``log_snr``).

    The second puts few steps where they are needed; both are valid down to two points.
    """
    if name == "uniform":
        return torch.linspace(T, eps, points, dtype=torch.float64).tolist()
    high, low = sde.antiderivative(torch.tensor([T, eps], dtype=torch.float64)).tolist()
    times = sde.time(torch.linspace(high, low, points, dtype=torch.float64))
    return [T, *times[1:-1].tolist(), eps]


def prior_draw(
    sde: SDE, shape: tuple[int, ...], generator: Generator, device: torch.device, mean: Tensor | None = None
) -> Tensor:
    """Draw :math:`z_T` from the prior, shape (B, *), centred on ``mean`` (*) where one is given."""
    z = sde.prior_std * _normal(shape, torch.empty(0, device=device), generator)
    return z if mean is None else z + mean.to(z)


def sample_pc(
    noise_fn: NoiseFn,
    sde: SDE,
    z: Tensor,
    generator: Generator,
    *,
    predictor: str,
    times: list[float],
    corrector_snr: tuple[float, float] | None,
    corrector_steps: int,
    denoise: str,
) -> Tensor:
    """Draw latents by predictor-corrector on a grid of times, then denoise at its end.

    A grid of N points has N - 1 predictor steps and the denoising, so that without a corrector the network is called N
    times (N - 1 without denoising); the corrector works at each point before the predictor.

    Arguments:
        noise_fn: the noise prediction.
        sde: the diffusion.
        z: start :math:`z_T`, shape (B, *).
        generator: source of every draw, on the CPU.
        predictor: a name in :data:`PREDICTORS`.
        times: the grid, falling from T.
        corrector_snr: first and last signal-to-noise ratio of the Langevin corrector, linear between; ``None`` for none.
        corrector_steps: corrections at each point.
        denoise: a name in :data:`DENOISERS`.

    Returns:
        Latents :math:`z_0`, shape (B, *).

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, algorithm 1
    """
    step = PREDICTORS[predictor]
    for i, time in enumerate(times):
        t = _times(time, z)
        if corrector_snr is not None:
            first, last = corrector_snr
            for _ in range(corrector_steps):
                z = langevin(noise_fn, sde, z, t, first + (last - first) * i / len(times), generator)
        if i + 1 < len(times):
            mean, scale = step(sde, z, noise_fn(z, t), t, _times(times[i + 1], z))
            z = mean + per_sample(scale, z) * _normal(z.shape, z, generator)
    return DENOISERS[denoise](noise_fn, sde, z, _times(times[-1], z))


def sample_ode(noise_fn: NoiseFn, sde: SDE, z: Tensor, *, eps: float, tolerance: float, denoise: str) -> Tensor:
    """Draw latents by the probability-flow ODE from T to ``eps`` (adaptive Dormand-Prince, on z's device), then denoise.

    Arguments:
        noise_fn: the noise prediction.
        sde: the diffusion.
        z: start :math:`z_T`, shape (B, *).
        eps: truncation time.
        tolerance: relative and absolute tolerance of a step.
        denoise: a name in :data:`DENOISERS`.

    Returns:
        Latents :math:`z_0`, shape (B, *).

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, section 4.3
    """
    # It imports SciPy, half a second that no other sampler needs.
    from torchdiffeq import odeint

    ends = sde.antiderivative(torch.tensor([T, eps], dtype=torch.float64, device=z.device))
    path = odeint(
        lambda a, z_t: ode_drift(noise_fn, sde, z_t, a)[0], z, ends, rtol=tolerance, atol=tolerance, method="dopri5"
    )
    return DENOISERS[denoise](noise_fn, sde, path[-1], _times(eps, z))


def sample_ode_fixed(
    noise_fn: NoiseFn, sde: SDE, z: Tensor, *, times: list[float], second_order: bool, denoise: str
) -> Tensor:
    r"""Draw latents by the probability-flow ODE with one step for each interval of a grid, then denoise.

    Steps run in :math:`A = -\log\mathrm{SNR}`. Euler calls the network once a step, Heun (``second_order``) twice.

    Arguments:
        noise_fn: the noise prediction.
        sde: the diffusion.
        z: start :math:`z_T`, shape (B, *).
        times: the grid, falling from T.
        second_order: Heun instead of Euler.
        denoise: a name in :data:`DENOISERS`.

    Returns:
        Latents :math:`z_0`, shape (B, *).

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
        | https://arxiv.org/abs/2206.00364, algorithm 1
    """
    grid = sde.antiderivative(torch.tensor(times, dtype=torch.float64, device=z.device))
    for a, b in itertools.pairwise(grid):
        step = (b - a).to(z.dtype)
        slope, _ = ode_drift(noise_fn, sde, z, a)
        if second_order:
            end, _ = ode_drift(noise_fn, sde, z + step * slope, b)
            slope = (slope + end) / 2
        z = z + step * slope
    return DENOISERS[denoise](noise_fn, sde, z, _times(times[-1], z))


def draw_batch(
    model: ImplicitNonlinearDiffusion,
    start: int,
    count: int,
    *,
    temperature: float,
    seed: tuple[str | int, ...],
    device: torch.device,
    mean: Tensor | None,
    **settings: Any,  # noqa: ANN401
) -> tuple[Tensor, int]:
    r"""Draw a batch of images, not yet rounded: the latents of a sampler, then the flow's inverse.

    .. math:: x = h_\phi^{-1}(\text{temperature} \cdot z_0)

    Arguments:
        model: the model.
        start: number of the batch's first image; a batch's noise does not depend on the others.
        count: images B.
        temperature: factor of the latents.
        seed: identity from which the batches' noise is derived.
        device: where the model is.
        mean: centre of the prior, shape (C, H, W), or ``None``.
        settings: ``sampler`` (a name in :data:`PREDICTORS`, ``ode``, ``ode_euler`` or ``ode_heun``), ``steps`` (grid
            points), ``grid``, ``corrector_snr``, ``corrector_steps``, ``tolerance``, ``denoise``.

    Returns:
        Model-space images, shape (B, C, H, W), on the device, and how often the network was called for them.

    Raises:
        DivergenceError: if a pixel is not finite.
        ConvergenceError: if the flow cannot be inverted where the sampler ended.
    """
    noise = CountedNoise(model.noise)
    generator = Generator().manual_seed(derive_seed(*seed, start))
    with torch.no_grad():
        z = prior_draw(model.sde, (count, *model.shape), generator, device, mean)
        z0 = _draw_latents(noise, model.sde, z, generator, eps=model.eps, **settings)
        x = model.flow.inverse(temperature * z0, generator=generator)
    if not torch.isfinite(x).all():
        wrong = int((~torch.isfinite(x)).sum())
        raise DivergenceError(f"{wrong} pixels are not finite: more steps, or a lower corrector_snr")
    return x, noise.calls


def draw_images(
    model: ImplicitNonlinearDiffusion,
    *,
    num_samples: int,
    batch_size: int,
    progress: Callable[[range], Iterable[int]],
    **settings: Any,  # noqa: ANN401
) -> Iterator[tuple[Tensor, int]]:
    """Draw ``num_samples`` images by :func:`draw_batch`, ``batch_size`` at once; ``progress`` wraps the range of the starts."""
    for start in progress(range(0, num_samples, batch_size)):
        yield draw_batch(model, start, min(batch_size, num_samples - start), **settings)


Batch = dict[str, Tensor]


def draw_levels(
    model: ImplicitNonlinearDiffusion,
    levels: int,
    *,
    num_samples: int,
    batch_size: int,
    progress: Callable[[range], Iterable[int]],
    once: Callable[[str, Callable[[], Batch]], Batch] = lambda name, make: make(),
    **settings: Any,  # noqa: ANN401
) -> tuple[NDArray[np.uint8], float]:
    """Draw images by :func:`draw_batch`, rounded to ``levels``, uint8 (N, C, H, W), and the mean calls of the network.

    Arguments:
        model: the model.
        levels: number of levels.
        num_samples: number N of images.
        batch_size: images drawn at once.
        progress: wraps the range of the batches' starts, for a progress bar.
        once: makes a batch of a name (its start), or knows it from an earlier execution.
        settings: see :func:`draw_batch`.
    """

    def batch(start: int) -> Batch:
        x, calls = draw_batch(model, start, min(batch_size, num_samples - start), **settings)
        return {"images": quantise(x, levels, model.centered).cpu(), "calls": torch.tensor(calls)}

    batches = [once(str(start), partial(batch, start)) for start in progress(range(0, num_samples, batch_size))]
    calls = float(np.mean([int(batch["calls"]) for batch in batches]))
    return np.concatenate([batch["images"].numpy() for batch in batches]), round(calls, 1)


@torch.no_grad()
def mean_latent(
    model: ImplicitNonlinearDiffusion, images: Tensor, levels: int, batch_size: int, device: torch.device
) -> Tensor:
    """Mean latent of training images (N, C, H, W) as levels: shape (C, H, W)."""
    generator = Generator().manual_seed(derive_seed("mean latent"))
    total = torch.zeros(model.shape, dtype=torch.float64)
    for batch in images.split(batch_size):
        z, _ = model.flow(dequantise(batch, levels, generator, model.centered).to(device), "none", generator)
        total += z.double().sum(0).cpu()
    return total / len(images)


def _draw_latents(
    noise: NoiseFn,
    sde: SDE,
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
    """Draw latents z_0 from starts z_T, (B, C, H, W) both, with the sampler of a name."""
    if sampler == "ode":
        return sample_ode(noise, sde, z, eps=eps, tolerance=tolerance, denoise=denoise)
    times = time_grid(sde, grid, steps, eps)
    if sampler in ("ode_euler", "ode_heun"):
        return sample_ode_fixed(noise, sde, z, times=times, second_order=sampler == "ode_heun", denoise=denoise)
    return sample_pc(
        noise,
        sde,
        z,
        generator,
        predictor=sampler,
        times=times,
        corrector_snr=None if corrector_snr is None else (corrector_snr[0], corrector_snr[1]),
        corrector_steps=corrector_steps,
        denoise=denoise,
    )


def _times(t: float, z: Tensor) -> Tensor:
    return torch.full((len(z),), t, dtype=torch.float64, device=z.device)


def _normal(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    # Drawn on the CPU, so that a seed means the same noise on every device.
    return torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
