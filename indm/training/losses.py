"""The losses of a training step, as functions of a model, its optimisation settings and the draws for a micro-batch.

They average the objectives in :mod:`indm.diffusion.objectives` over images.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.objectives import (
    NoiseFn,
    gaussian_nll,
    likelihood_weighted,
    nelbo,
    variance_weighted,
)
from indm.diffusion.sde import importance_time, soft_truncation_time, uniform_time
from indm.flows.sources import draw_probe
from indm.training.batches import Draws

if TYPE_CHECKING:
    from indm.training.trainer import Optimisation

NUMBERS = 3
# Losses of the learning curve, with their places among the numbers of a loss.
PLACES = {"score_loss": 1, "flow_loss": 0}


class Loss(NamedTuple):
    """The loss of a micro-batch in nats per dimension, with its parts, as scalars that the host has not read.

    Arguments:
        value: the loss that is differentiated.
        score: the score's part of the loss; for a loss of only the flow, the value.
        log_det: the mean log-determinant, over all dimensions, in nats. The Neumann estimator only has the gradient of the
            log-determinant, not its value, and may have it from a share of the images; see :data:`indm.flows.base.LogDet`.
        latents: the latents that train the score, shape (B, C, H, W), without their graph; ``None`` if they do not train it.
    """

    value: Tensor
    score: Tensor
    log_det: Tensor
    latents: Tensor | None = None

    def numbers(self) -> Tensor:
        """Return the three scalars, shape (``NUMBERS``,), float64."""
        return torch.stack([number.detach().double() for number in (self.value, self.score, self.log_det)])


def normalizing_flow_loss(model: ImplicitNonlinearDiffusion, how: "Optimisation", draws: Draws) -> Loss:
    """Return the negative log-likelihood of the flow as a normalizing flow with a standard normal latent."""
    z, log_det = model.flow(draws.x, draws.log_det, draws.generator)
    loss = (gaussian_nll(z, 1.0) - log_det).mean() / z[0].numel()
    return Loss(loss, loss, log_det.mean())


def flow_loss(model: ImplicitNonlinearDiffusion, how: "Optimisation", draws: Draws) -> Loss:
    """Return the NELBO as a loss of only the flow."""
    # With separate times and noise: the score uses the step's, and would otherwise follow a flow that has just seen them.
    return _nelbo(model, how, draws.fresh(), model.eps)._replace(latents=None)


def joint_loss(model: ImplicitNonlinearDiffusion, how: "Optimisation", draws: Draws, *, frozen: bool = False) -> Loss:
    """Return the NELBO, softly truncated if asked.

    With a frozen flow it is the NELBO of the latents, without the log-determinant, which is then constant.
    """
    return _nelbo(model, how, draws, _truncation(model, how, draws), frozen=frozen)


def score_loss(model: ImplicitNonlinearDiffusion, how: "Optimisation", draws: Draws) -> Loss:
    """Return the score's variance-weighted loss on latents of the current flow, softly truncated if asked."""
    with torch.no_grad():
        z0, log_det = model.flow(draws.x, "none", draws.generator)
    t = uniform_time(draws.u, _truncation(model, how, draws))
    error = model.path.error(_noise(model, how), z0, t, draws.noise)
    loss = variance_weighted(error).mean() / z0[0].numel()
    return Loss(loss, loss, log_det.mean(), z0)


def _nelbo(
    model: ImplicitNonlinearDiffusion, how: "Optimisation", draws: Draws, eps: float, *, frozen: bool = False
) -> Loss:
    noise_fn = _noise(model, how)
    z0, log_det = model.flow(draws.x, "none" if frozen else draws.log_det, draws.generator)
    t, z = importance_time(model.sde, draws.u, eps)
    error = model.path.error(noise_fn, z0, t, draws.noise)
    bound = nelbo(model.path, z0, log_det, error, z, eps)
    if how.reconstruction:
        bound = bound + model.path.decoder(noise_fn, z0, eps, draw_probe(z0, "gaussian", draws.generator))
    dims = z0[0].numel()
    # In float64 before the division, as if the host had read it.
    score = likelihood_weighted(error, z).mean().double() / dims
    return Loss(bound.mean() / dims, score, log_det.mean(), z0.detach())


def _noise(model: ImplicitNonlinearDiffusion, how: "Optimisation") -> NoiseFn:
    """Return the noise prediction, in bfloat16 if asked."""

    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(z_t.device.type, torch.bfloat16, enabled=how.precision == "bfloat16"):
            return model.noise(z_t, t).to(z_t.dtype)

    return predict


def _truncation(model: ImplicitNonlinearDiffusion, how: "Optimisation", draws: Draws) -> float:
    if how.soft_truncation is None:
        return model.eps
    return soft_truncation_time(draws.truncation, model.eps, how.soft_truncation)
