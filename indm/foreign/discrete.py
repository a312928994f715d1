r"""Bounds of T steps, as DDPM and VDM define them, for any network and diffusion.

The latents have the times :math:`t_i = i/T`, :math:`i = 1, \dots, T`. With :math:`s = t_{i-1}` and :math:`t = t_i`,

.. math::
    -\log p(\xi) \le \mathrm{KL}\big(q(z_T \mid x)\,\|\,p_T\big)
    + \sum_{i=2}^T \mathbb E\,\mathrm{KL}\big(q(z_s \mid z_t, x)\,\|\,p_\theta(z_s \mid z_t)\big)
    + \mathbb E\big[-\log p(\xi \mid z_{t_1})\big] ,

where the posterior :math:`q(z_s \mid z_t, x)` has the variance
:math:`\tilde\beta = \sigma^2_{t|s}\sigma_s^2/\sigma_t^2`. A step of variance :math:`\tilde\beta` (VDM, and the small variance of
DDPM) costs

.. math:: \tfrac12\Big(\frac{\mathrm{SNR}(s)}{\mathrm{SNR}(t)} - 1\Big) \|\epsilon_\theta - \epsilon\|^2

and one of variance :math:`\beta = \sigma^2_{t|s}` (the large variance of DDPM), with :math:`r = \sigma_s^2/\sigma_t^2`,

.. math:: \tfrac D2(r - 1 - \log r) + \tfrac r2\Big(\frac{\mathrm{SNR}(s)}{\mathrm{SNR}(t)} - 1\Big)
    \|\epsilon_\theta - \epsilon\|^2 .

A network with twice the channels also has a share v of each dimension, in [0, 1], between both variances,

.. math:: \Sigma_\theta = \exp\big(v \log\beta + (1 - v) \log\tilde\beta\big),

and a step costs the divergence of two Gaussians in each dimension, with :math:`\|\cdot\|^2` as above:

.. math:: \tfrac12\Big(\frac{\tilde\beta}{\Sigma_\theta} - 1 - \log\frac{\tilde\beta}{\Sigma_\theta}\Big)
    + \frac{\tilde\beta}{2 \Sigma_\theta}\Big(\frac{\mathrm{SNR}(s)}{\mathrm{SNR}(t)} - 1\Big)(\epsilon_\theta - \epsilon)^2 .

As in the evaluation of DDPM's code, its clean image is clipped to the range of the levels, and its decoder has the variance
:math:`\tilde\beta` of the second latent, whichever variance the other steps have.

References:
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239, equations 5, 7, 8 and 13
    | https://github.com/hojonathanho/diffusion, ``calc_bpd_loop`` in ``diffusion_utils_2.py``
    | Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), https://arxiv.org/abs/2102.09672,
    | equations 14 and 15, and ``p_mean_variance`` of https://github.com/openai/improved-diffusion (``LEARNED_RANGE``)
    | Variational Diffusion Models (Kingma et al., 2021), https://arxiv.org/abs/2107.00630, the discrete-time bound
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from indm.diffusion.draws import Draws, normal
from indm.diffusion.objectives import NoiseFn, per_sample, perturb, squared_norm
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import SDE, T
from indm.foreign.lossless import MOST_LEVELS, ddpm_log_prob, vdm_log_prob

ShareFn = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Latents (B, *) and times (B,) to the noise prediction, and to the share of the larger log-variance, (B, *) each."""


def step_times(count: int) -> Tensor:
    """Return the times of T latents, i/T, shape (T,), float64."""
    return torch.arange(1, count + 1, dtype=torch.float64) / count


def prior_cost(sde: SDE, x: Tensor) -> Tensor:
    r"""Return :math:`\mathrm{KL}(q(z_T \mid x)\,\|\,p_T)` in closed form, in nats, (B, *) to (B,), float64."""
    sigma = sde.sigma(torch.tensor(T, dtype=torch.float64))
    return LinearPath(sde).prior(x.double()) - gaussian_entropy(sigma, x)


def gaussian_entropy(sigma: Tensor, x: Tensor) -> Tensor:
    """Return the entropy of noise with a standard deviation, in nats, a scalar, for images x (B, *)."""
    return x[0].numel() * (torch.log(sigma) + 0.5 * math.log(2 * math.pi * math.e))


@torch.no_grad()
def step_bounds(
    noise_fn: NoiseFn,
    sde: SDE,
    x: Tensor,
    pixels: Tensor,
    grid: Tensor,
    times: Tensor,
    generator: Draws,
    shares: ShareFn | None = None,
) -> dict[str, Tensor]:
    """Evaluate the terms of the bounds of T steps, with one draw of the noise at each.

    Arguments:
        noise_fn: the noise prediction.
        sde: the diffusion.
        x: levels in their places, shape (B, *).
        pixels: the same as whole numbers, shape (B, *).
        grid: places of all levels, shape (L,), float64.
        times: increasing times of the latents, the last one the end of the diffusion, shape (T,), float64.
        generator: source of the noise.
        shares: the noise prediction with the share of the larger log-variance, for a network that learns its variances.

    Returns:
        ``prior``; the sums over steps ``posterior`` (variance of the posterior, nothing clipped), ``small``, ``large`` and, with
        shares, ``learned`` (all clipped); and the decoders' costs ``ddpm``, for few levels ``vdm``, and with shares
        ``learned_decoder``: each in nats, shape (B,), float64, on the CPU.
    """
    found, std, noise = {"prior": prior_cost(sde, x)}, _first_std(sde, times), normal(generator, x)
    found |= decoder_costs(noise_fn, sde, x, pixels, grid, times[0], noise, std)
    if shares is not None:
        found["learned_decoder"] = _learned_decoder(shares, sde, x, pixels, grid, times[0], noise, std)
    sums: dict[str, Tensor] = {}
    for s, t in pairwise(times):
        for name, cost in _step_costs(noise_fn, sde, x, grid, s, t, normal(generator, x), shares).items():
            sums[name] = sums.get(name, 0) + cost
    return {name: value.cpu() for name, value in (found | sums).items()}


def _step_costs(
    noise_fn: NoiseFn,
    sde: SDE,
    x: Tensor,
    grid: Tensor,
    s: Tensor,
    t: Tensor,
    noise: Tensor,
    shares: ShareFn | None,
) -> dict[str, Tensor]:
    """Return the cost of the step from t to s by each variance, in nats, (B,) each."""
    each = t.to(x.device).expand(len(x))
    z = perturb(sde, x, each, noise)
    predicted, share = (noise_fn(z, each), None) if shares is None else shares(z, each)
    error = squared_norm((predicted - noise).double())
    clean = clean_image(sde, z, each, predicted).clamp(float(grid[0]), float(grid[-1]))
    off = torch.exp(sde.log_snr(t)) * (clean - x.double()).square()
    clipped = off.flatten(1).sum(1)
    weight = 0.5 * torch.expm1(sde.log_snr(s) - sde.log_snr(t))
    ratio = (sde.sigma(s) / sde.sigma(t)) ** 2
    constant = 0.5 * x[0].numel() * (ratio - 1 - torch.log(ratio))
    found = {"posterior": weight * error, "small": weight * clipped, "large": constant + ratio * weight * clipped}
    if share is not None:
        # The share of log beta in the log-variance; beta-tilde over beta is the ratio.
        narrower = torch.exp(share.double() * torch.log(ratio))
        found["learned"] = (0.5 * (narrower - 1 - torch.log(narrower)) + narrower * weight * off).flatten(1).sum(1)
    return found


def _learned_decoder(
    shares: ShareFn, sde: SDE, x: Tensor, pixels: Tensor, grid: Tensor, t: Tensor, noise: Tensor, std: float
) -> Tensor:
    r"""Return :math:`-\log p(\xi \mid z_{t_1})` by DDPM's decoder with the learned deviation, in nats, (B,), float64.

    It lies between the deviation of the posterior of the second latent, and :math:`\sqrt{\beta} = \sigma` of the first one.
    """
    each = t.to(x.device).expand(len(x))
    z = perturb(sde, x, each, noise)
    predicted, share = shares(z, each)
    clean, grid = clean_image(sde, z, each, predicted).clamp(float(grid[0]), float(grid[-1])), grid.to(x.device)
    largest = math.log(float(sde.sigma(t)))
    log_std = math.log(std) + share.double() * (largest - math.log(std))
    return -ddpm_log_prob(pixels, clean, log_std.exp(), grid).flatten(1).sum(1)


def clean_image(sde: SDE, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Return the clean image of a noise prediction (B, *) at the times t (B,), shape (B, *), float64."""
    z, noise = z.double(), noise.double()
    return (z - per_sample(sde.sigma(t), z) * noise) / per_sample(sde.alpha(t), z)


def decoder_costs(
    noise_fn: NoiseFn,
    sde: SDE,
    x: Tensor,
    pixels: Tensor,
    grid: Tensor,
    t: Tensor,
    noise: Tensor,
    std: float | None = None,
) -> dict[str, Tensor]:
    r"""Return :math:`-\log p(\xi \mid z_t)` of both decoders for one draw of the noise.

    Arguments:
        noise_fn: the noise prediction.
        sde: the diffusion.
        x: levels in their places, shape (B, *).
        pixels: the same as whole numbers, shape (B, *).
        grid: places of all levels, shape (L,), float64.
        t: the time of the latent, a scalar, float64.
        noise: the draw, shape (B, *).
        std: standard deviation of DDPM's Gaussian around the clipped clean image; by default :math:`\sigma_t/\alpha_t`, around
            the clean image as it is, as the learned decoder of densities has it.

    Returns:
        ``ddpm`` and, for few levels, ``vdm``: in nats, shape (B,) each, float64.
    """
    each = t.to(x.device).expand(len(x))
    z = perturb(sde, x, each, noise)
    clean = clean_image(sde, z, each, noise_fn(z, each))
    alpha, sigma, grid = float(sde.alpha(t)), float(sde.sigma(t)), grid.to(x.device)
    if std is not None:
        clean = clean.clamp(float(grid[0]), float(grid[-1]))
    found = {"ddpm": ddpm_log_prob(pixels, clean, std or sigma / alpha, grid)}
    if len(grid) <= MOST_LEVELS:
        found["vdm"] = vdm_log_prob(pixels, z, alpha, sigma, grid)
    return {name: -value.flatten(1).sum(1) for name, value in found.items()}


def _first_std(sde: SDE, times: Tensor) -> float:
    """Return the deviation of DDPM's decoder: by the posterior of the second latent."""
    s, t = times[0], times[1]
    variance = -torch.expm1(sde.log_snr(t) - sde.log_snr(s)) * sde.sigma(s) ** 2
    return float(variance.sqrt())
