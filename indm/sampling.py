r"""Samplers: stochastic predictor-corrector and the probability-flow ODE, then the flow's inverse.

Every sampler takes a noise prediction, an SDE and a start :math:`z_T`, and returns latents :math:`z_0`.

References:
    | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
    | https://arxiv.org/abs/2011.13456, section 4, appendices D, E and G
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239, equation 7
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torchdiffeq import odeint

from indm.objectives import NoiseFn, per_sample
from indm.probability_flow import ode_drift
from indm.sde import SDE, T

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


PREDICTORS: dict[str, Predictor] = {
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
    "ancestral": ancestral,
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


def denoise_at(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: float) -> Tensor:
    r"""Mean of :math:`z_0` given :math:`z_t` (Tweedie), :math:`(z_t - \sigma_t\epsilon_\theta)/\alpha_t`; (B, *) to (B, *).

    References:
        | Tweedie's Formula and Selection Bias (Efron, 2011), https://doi.org/10.1198/jasa.2011.tm11181, equation 1.4
    """
    times = _times(t, z)
    return (z - per_sample(sde.sigma(times), z) * noise_fn(z, times)) / per_sample(sde.alpha(times), z)


def sample_pc(
    noise_fn: NoiseFn,
    sde: SDE,
    shape: tuple[int, ...],
    generator: Generator,
    *,
    predictor: str,
    steps: int,
    corrector_snr: float | None,
    eps: float,
    device: torch.device,
    progress: Callable[[range], range] = lambda steps: steps,
) -> Tensor:
    """Draw latents by predictor-corrector on the uniform grid from T to ``eps``, then denoise.

    The grid has ``steps`` points: ``steps - 1`` predictor steps and the denoising step at ``eps``, so that without a
    corrector the network is called ``steps`` times; the corrector adds one call at each point.

    Arguments:
        noise_fn: the noise prediction.
        sde: the diffusion.
        shape: shape of the result, (B, *).
        generator: source of every draw, on the CPU.
        predictor: a name in :data:`PREDICTORS`.
        steps: number of grid points, at least 2.
        corrector_snr: signal-to-noise ratio of the Langevin corrector; ``None`` for none.
        eps: truncation time.
        device: where to compute.
        progress: wraps the loop's range, for a progress bar.

    Returns:
        Latents :math:`z_0`, shape (B, *).

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, algorithm 1
    """
    step = PREDICTORS[predictor]
    z = sde.prior_std * _normal(shape, torch.empty(0, device=device), generator)
    grid = torch.linspace(T, eps, steps, dtype=torch.float64).tolist()
    for i in progress(range(steps)):
        t = _times(grid[i], z)
        if corrector_snr is not None:
            z = langevin(noise_fn, sde, z, t, corrector_snr, generator)
        if i < steps - 1:
            mean, scale = step(sde, z, noise_fn(z, t), t, _times(grid[i + 1], z))
            z = mean + per_sample(scale, z) * _normal(shape, z, generator)
    return denoise_at(noise_fn, sde, z, eps)


def sample_ode(
    noise_fn: NoiseFn,
    sde: SDE,
    shape: tuple[int, ...],
    generator: Generator,
    *,
    tolerance: float,
    eps: float,
    device: torch.device,
) -> Tensor:
    """Draw latents by the probability-flow ODE from T to ``eps`` (adaptive Dormand-Prince), then denoise.

    Arguments:
        noise_fn: the noise prediction.
        sde: the diffusion.
        shape: shape of the result, (B, *).
        generator: source of the start, on the CPU.
        tolerance: relative and absolute tolerance of a step.
        eps: truncation time.
        device: where to compute.

    Returns:
        Latents :math:`z_0`, shape (B, *).

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, section 4.3
    """
    start = sde.prior_std * _normal(shape, torch.empty(0, device=device), generator)
    ends = sde.antiderivative(torch.tensor([T, eps], dtype=torch.float64, device=device))
    path = odeint(
        lambda a, z: ode_drift(noise_fn, sde, z, a)[0], start, ends, rtol=tolerance, atol=tolerance, method="dopri5"
    )
    return denoise_at(noise_fn, sde, path[-1], eps)


def _times(t: float, z: Tensor) -> Tensor:
    return torch.full((len(z),), t, dtype=torch.float64, device=z.device)


def _normal(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    # Drawn on the CPU, so that a seed means the same noise on every device.
    dtype = like.dtype if like.dtype.is_floating_point else torch.float32
    return torch.randn(shape, generator=generator, dtype=dtype).to(like.device)
