"""The probability-flow ODE, which has the same marginals as the diffusion, and its solution by adaptive steps."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from indm.diffusion.objectives import Multivariate, NoiseFn
from indm.diffusion.sde import SDE
from indm.errors import ConvergenceError


def ode_drift(noise_fn: NoiseFn, sde: SDE, z: Tensor, a: Tensor) -> Tensor:
    r"""Return the drift of the probability-flow ODE in :math:`A = -\log\mathrm{SNR}`, where it is not stiff near :math:`t = 0`.

    .. math:: \frac{\mathrm d z}{\mathrm d A} = \frac{f\sigma^2}{g^2}\, z + \frac{\sigma}{2}\,\epsilon_\theta(z, t(A))

    Arguments:
        noise_fn: the noise prediction.
        sde: the diffusion.
        z: latents, shape (B, *).
        a: the variable, a scalar tensor.

    Returns:
        The derivative, shape (B, *).

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, equation 13
    """
    if isinstance(sde, Multivariate):
        return sde.ode_drift(noise_fn, z, a)
    t = sde.time(a.double())
    linear = sde.drift(t) * (sde.sigma(t) / sde.diffusion(t)) ** 2
    return linear.to(z.dtype) * z + 0.5 * sde.sigma(t).to(z.dtype) * noise_fn(z, t.expand(len(z)))


def ode_drift_in_time(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    r"""Return the drift of the probability-flow ODE in t, the reverse SDE with half the score and without noise.

    .. math:: \frac{\mathrm d z}{\mathrm d t} = f z + \frac{g^2}{2\sigma}\,\epsilon_\theta(z, t)

    The time t is a scalar tensor and the derivative has shape (B, *); see :func:`ode_drift` for the other arguments.
    """
    gain = sde.diffusion(t) ** 2 / (2 * sde.sigma(t))
    return sde.drift(t).to(z.dtype) * z + gain.to(z.dtype) * noise_fn(z, t.expand(len(z)))


# Far more than any sound model needs, which is a few hundred.
MOST_STEPS = 20_000


def solve_adaptively(derivative: Callable[[Tensor, Any], Any], start: Any, ends: Tensor, tolerance: float) -> Any:
    """Solve an ODE by Dormand and Prince's method of fifth order.

    Arguments:
        derivative: maps a time and a state to the derivative of the state.
        start: the state at the first time, a tensor or a tuple of tensors.
        ends: first and last time, shape (2,).
        tolerance: relative and absolute tolerance of each step.

    Returns:
        The state at both ends, stacked along a new first dimension.

    Raises:
        ConvergenceError: if the solver needs too many steps, or steps too short for the precision, for example because the
            derivative is not finite.

    References:
        | A family of embedded Runge-Kutta formulae (Dormand & Prince, 1980), https://doi.org/10.1016/0771-050X(80)90013-3
    """
    # Imported here because it imports SciPy, which takes half a second that other samplers do not need.
    from torchdiffeq import odeint

    options = {"max_num_steps": MOST_STEPS}
    try:
        return odeint(derivative, start, ends, rtol=tolerance, atol=tolerance, method="dopri5", options=options)
    except AssertionError as error:
        reason = " ".join(str(error).split())[:100]
        raise ConvergenceError(
            f"the adaptive ODE found no solution ({reason}), expected one to a tolerance of {tolerance:g} within {MOST_STEPS} "
            "steps; raise the tolerance, or train with a lower lr or flow_lr"
        ) from None
