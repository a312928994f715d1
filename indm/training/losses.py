"""The losses of a training step, as functions of a model, its optimisation settings and the draws for a micro-batch.

They average the objectives in :mod:`indm.diffusion.objectives` over images.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.objectives import NoiseFn, gaussian_nll, likelihood_weighted, variance_weighted
from indm.diffusion.path import nelbo
from indm.diffusion.sde import importance_time, soft_truncation_time, uniform_time
from indm.flows.sources import draw_probe
from indm.training.batches import Draws

NUMBERS = 3
# Losses of the learning curve, with their places among the numbers of a loss.
PLACES = {"score_loss": 1, "flow_loss": 0}


@dataclass(frozen=True)
class Optimisation:
    """The settings for the optimisation of a model.

    Arguments:
        objective: ``nll`` or ``fid``.
        lr: peak learning rate of the score network.
        flow_lr: peak learning rate of the flow.
        weight_decay: AdamW's weight decay.
        grad_clip: largest gradient norm for each network.
        reduction: ``mean`` or ``sum`` of the losses over the D dimensions of an image, for the gradient and its clipping. The
            gradients of the sum are D times as long, which affects the clipping but hardly AdamW (only through its eps).
        ema_decay: decay of the score network's averaged weights.
        flow_ema_decay: decay of the flow's averaged weights.
        alternate: whether the ``fid`` objective updates flow and score in turn. Under VE, where variance weighting equals
            likelihood weighting up to a constant, they can be updated jointly instead, as the released code does.
        micro_batches: number of pieces of a batch whose gradients are averaged; several processes share each piece.
        precision: precision of matmuls and convolutions: ``float32``, ``tf32``, or ``bfloat16`` in the score network with
            ``tf32`` in the flow, including its spectral norms. Times, losses, the refresh of the norms and the optimiser keep
            at least float32. See docs/cluster.md for the cost to a flow.
        soft_truncation: exponent k of the score's random truncation time, or ``None``. The ``fid`` objective only uses it in
            the score's step, on latents of the updated flow; the released step mixes two losses there (docs/released.md).
        reconstruction: add the reconstruction term at eps to the NELBO.
    """

    objective: str
    lr: float
    flow_lr: float
    weight_decay: float
    grad_clip: float
    ema_decay: float
    flow_ema_decay: float
    reduction: str = "mean"
    alternate: bool = True
    micro_batches: int = 1
    precision: str = "float32"
    soft_truncation: float | None = None
    reconstruction: bool = False


class Loss(NamedTuple):
    """The loss of a micro-batch of B images, with its parts, as scalars that the host has not read.

    Arguments:
        value: the loss that is differentiated, in nats per dimension, a scalar.
        score: the score's part of the loss, in nats per dimension, a scalar; for a loss of only the flow, the value.
        log_det: the mean log-determinant, over all dimensions, in nats, a scalar. The Neumann estimator only has the
            gradient of the log-determinant, not its value, and may have it from a share of the images; see
            :data:`indm.flows.base.LogDet`.
        latents: the latents that train the score, shape (B, C, H, W), without their graph; ``None`` if they do not train it.
    """

    value: Tensor
    score: Tensor
    log_det: Tensor
    latents: Tensor | None = None

    def numbers(self) -> Tensor:
        """Return the three scalars without their graph, shape (``NUMBERS``,), float64, in the order of the arguments."""
        return torch.stack([number.detach().double() for number in (self.value, self.score, self.log_det)])


def normalizing_flow_loss(model: ImplicitNonlinearDiffusion, how: Optimisation, draws: Draws) -> Loss:
    r"""Return the negative log-likelihood of the flow as a normalizing flow with a standard normal latent.

    .. math:: \frac{1}{BD} \sum_{i=1}^B \Big( -\log \mathcal N(h(x_i); 0, I)
        - \log\Big|\det\frac{\partial h}{\partial x}(x_i)\Big| \Big)

    Arguments:
        model: the model, of which only the flow is used.
        how: not used.
        draws: the micro-batch, images with shape (B, C, H, W), D = C H W.

    Returns:
        The loss, in nats per dimension; it does not train the score, so that it has no latents.

    References:
        | Density Estimation Using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803, section 3.1
    """
    z, log_det = model.flow(draws.x, draws.log_det, draws.generator)
    loss = (gaussian_nll(z, 1.0) - log_det).mean() / z[0].numel()
    return Loss(loss, loss, log_det.mean())


def flow_loss(model: ImplicitNonlinearDiffusion, how: Optimisation, draws: Draws) -> Loss:
    r"""Return the NELBO, truncated at eps, as a loss of only the flow; see :func:`indm.diffusion.path.nelbo`.

    .. math:: \frac{1}{BD} \sum_{i=1}^B \mathrm{NELBO}_\epsilon(x_i)

    Arguments:
        model: the model.
        how: its settings, of which the precision and ``reconstruction`` count.
        draws: the micro-batch, images with shape (B, C, H, W), D = C H W; its times and noise are drawn again.

    Returns:
        The loss, in nats per dimension; it does not train the score, so that it has no latents.

    References:
        | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
        | https://arxiv.org/abs/2205.13699, theorem 1 and section 5
    """
    # With separate times and noise: the score uses the step's, and would otherwise follow a flow that has just seen them.
    return _nelbo(model, how, draws.fresh(), model.eps)._replace(latents=None)


def joint_loss(model: ImplicitNonlinearDiffusion, how: Optimisation, draws: Draws, *, frozen: bool = False) -> Loss:
    r"""Return the NELBO, softly truncated if asked; see :func:`indm.diffusion.path.nelbo`.

    .. math:: \frac{1}{BD} \sum_{i=1}^B \mathrm{NELBO}_\tau(x_i)

    with :math:`\tau = \epsilon`, or with soft truncation one random :math:`\tau \ge \epsilon` for the whole batch. With a
    frozen flow it is the NELBO of the latents, without the log-determinant, which is then constant.

    Arguments:
        model: the model.
        how: its settings, of which the precision, ``soft_truncation`` and ``reconstruction`` count.
        draws: the micro-batch, images with shape (B, C, H, W), D = C H W.
        frozen: whether the flow is not trained.

    Returns:
        The loss, in nats per dimension, and the latents, shape (B, C, H, W).

    References:
        | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
        | https://arxiv.org/abs/2205.13699, theorem 1
        | Soft Truncation (Kim et al., 2022), https://arxiv.org/abs/2106.05527, section 4
    """
    return _nelbo(model, how, draws, _truncation(model, how, draws), frozen=frozen)


def score_loss(model: ImplicitNonlinearDiffusion, how: Optimisation, draws: Draws) -> Loss:
    r"""Return the score's variance-weighted loss on latents of the current flow, softly truncated if asked.

    .. math:: \frac{1}{BD} \sum_{i=1}^B \tfrac12 \|\epsilon_\theta(z_{t_i}, t_i) - \epsilon_i\|^2, \qquad t_i \sim U[\tau, T]

    with :math:`\tau = \epsilon`, or with soft truncation one random :math:`\tau \ge \epsilon` for the whole batch. On a forward
    path other than the linear one, the path's error takes the place of the squared norm.

    Arguments:
        model: the model; the flow gets no gradient.
        how: its settings, of which the precision and ``soft_truncation`` count.
        draws: the micro-batch, images with shape (B, C, H, W), D = C H W.

    Returns:
        The loss, which does not bound the likelihood, and the latents, shape (B, C, H, W); the log-determinant is not computed.

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, equation 7 with :math:`\lambda = \sigma_t^2`
        | Soft Truncation (Kim et al., 2022), https://arxiv.org/abs/2106.05527, section 4
    """
    with torch.no_grad():
        z0, log_det = model.flow(draws.x, "none", draws.generator)
    t = uniform_time(draws.u, _truncation(model, how, draws))
    error = model.path.error(_noise(model, how), z0, t, draws.noise)
    loss = variance_weighted(error).mean() / z0[0].numel()
    return Loss(loss, loss, log_det.mean(), z0)


def _nelbo(
    model: ImplicitNonlinearDiffusion, how: Optimisation, draws: Draws, eps: float, *, frozen: bool = False
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


def _noise(model: ImplicitNonlinearDiffusion, how: Optimisation) -> NoiseFn:
    """Return the noise prediction, in bfloat16 if asked."""

    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(z_t.device.type, torch.bfloat16, enabled=how.precision == "bfloat16"):
            return model.noise(z_t, t).to(z_t.dtype)

    return predict


def _truncation(model: ImplicitNonlinearDiffusion, how: Optimisation, draws: Draws) -> float:
    if how.soft_truncation is None:
        return model.eps
    return soft_truncation_time(draws.truncation, model.eps, how.soft_truncation)
