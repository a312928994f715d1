r"""The bound by frequency band, exact for maps that act on each spatial frequency alone.

With y the orthonormal cosine transform of the latent, every term of the bound is a sum over the coefficients of y, if the
log-determinant is. In nats, a coefficient with gain :math:`e^{g}` has the share

.. math::
    \tfrac12\log 2\pi s^2 + \frac{\alpha_T^2 y^2 + \sigma_T^2}{2 s^2} + \tfrac Z2\,\mathbb E\,e^2
    - \log\frac{\sigma_T}{\sigma_\epsilon} - g + \tfrac12\big(e_\epsilon^2 - \eta_\epsilon^2\big) - \log\alpha_\epsilon ,

where e is the coefficient of the error of the noise prediction, and :math:`\eta` the coefficient of the noise. The shares of
all coefficients add up to the NELBO.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from indm.data.levels import bits_per_dim
from indm.diffusion.draws import Draws, normal, signs
from indm.diffusion.evaluation import Evaluation, control_of, dequantised
from indm.diffusion.likelihood import GaussianControl, strata
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.objectives import NoiseFn
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import T, importance_time
from indm.errors import DivergenceError
from indm.flows.cosine import to_cosine
from indm.flows.description import bands
from indm.measured import BANDS


@torch.no_grad()
def bounds_by_band(
    model: ImplicitNonlinearDiffusion,
    images: Tensor,
    levels: int,
    evaluation: Evaluation,
    *,
    seed: tuple[str, int],
    device: torch.device,
    training: Callable[[], Tensor],
) -> Tensor | None:
    """Evaluate the share of each frequency band in the NELBO of images as levels (N, C, S, S), in bits/dim, shape (N, BANDS).

    The shares of an image add up to the NELBO that :func:`indm.diffusion.evaluation.likelihoods` finds with the same
    settings. The arguments are described there. The evaluation has draws by image, and a control variate in the cosine basis.

    Returns:
        The shares, float64, on the CPU; ``None`` if the model's map mixes frequencies, or its diffusion is not linear.

    Raises:
        DivergenceError: if a share is not finite.
    """
    gains = model.flow.log_gains()
    if gains is None or type(model.path) is not LinearPath:
        return None
    control = control_of(model, training(), levels, evaluation, device)
    assert control is not None, "the evaluation has draws by image"
    dims, found = images[0].numel(), []
    for start in range(0, len(images), evaluation.batch_size):
        batch = images[start : start + evaluation.batch_size]
        draws = evaluation.draws_of(start, len(batch), *seed, "nll")
        x = dequantised(batch, levels, draws, model.centered, device)
        shares = _shares(
            model.noise, model.path, model.flow(x, "none")[0], gains, control, model.eps, evaluation, draws
        )
        # Each coefficient has an equal share of the constant between nats and bits/dim.
        bits = bits_per_dim(dims * shares, dims, levels, model.centered) / dims
        found.append(in_bands(bits).cpu())
    values = torch.cat(found)
    if not values.isfinite().all():
        raise DivergenceError(
            "found a bound of a frequency band that is not finite, expected finite ones; train with a lower lr or flow_lr"
        )
    return values


def in_bands(coefficients: Tensor) -> Tensor:
    """Add up cosine coefficients (B, C, S, S) in each band of :func:`indm.flows.description.bands`: (B, BANDS), float64."""
    place = bands(coefficients.shape[-1]).to(coefficients.device)
    of_frequencies = coefficients.double().sum(1)
    return torch.stack([of_frequencies[:, place == band].sum(1) for band in range(BANDS)], 1)


def _shares(
    noise_fn: NoiseFn,
    path: LinearPath,
    z0: Tensor,
    gains: Tensor,
    control: GaussianControl,
    eps: float,
    evaluation: Evaluation,
    draws: Draws,
) -> Tensor:
    """Return the share of each cosine coefficient in the bound of latents (B, C, S, S), in nats, with the same shape."""
    sde, y, transform = path.sde, to_cosine(z0), partial(_error, noise_fn, path, z0)
    noise = normal(draws, z0)
    # Draw the probe of the ODE too, so that the times and their noise are the same as in the nll stage.
    signs(draws, z0)
    at_eps = torch.full((len(z0),), eps, dtype=torch.float64, device=z0.device)
    decoded = (transform(at_eps, noise).square() - to_cosine(noise).square()) / 2
    a_squared, b_squared = control.mean_squares(eps)
    error = (y - control.mean).square() * a_squared + b_squared
    for t, noise in strata(sde, z0, eps, evaluation.time_draws, draws):
        drawn = transform(t, noise).square() - control.error(z0, t, noise).square()
        error = error + drawn / evaluation.time_draws
    z = importance_time(sde, torch.zeros(1, dtype=torch.float64, device=z0.device), eps)[1]
    nothing, dims = torch.zeros_like(z0[:1]), z0[0].numel()
    constant = (path.prior(nothing) + path.entropy(z0, z, eps) - path.volume(z0, eps)) / dims
    slope = (sde.alpha(torch.tensor(T, dtype=torch.float64)) / sde.prior_std) ** 2 / 2
    return constant + slope * y.square() + 0.5 * z * error - gains + decoded


def _error(noise_fn: NoiseFn, path: LinearPath, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Return the cosine transform of the error of the noise prediction, (B, C, S, S)."""
    return to_cosine(noise_fn(path.perturb(z0, t, noise), t) - noise)
