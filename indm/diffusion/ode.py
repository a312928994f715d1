"""The probability-flow ODE, which has the same marginals as the diffusion, and its solution by adaptive steps."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from indm.diffusion.objectives import NoiseFn
from indm.diffusion.sde import SDE
from indm.errors import ConvergenceError


def ode_drift_in_time(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    r"""Return the drift of the probability-flow ODE in t, the reverse SDE with half the score and without noise.

    .. math:: \frac{\mathrm d z}{\mathrm d t} = f z + \frac{g^2}{2\sigma}\,\epsilon_\theta(z, t)

    The time t is a scalar tensor; the latents z and the derivative have shape (B, *).

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, equation 13
    """
    gain = sde.diffusion(t) ** 2 / (2 * sde.sigma(t))
    return sde.drift(t).to(z.dtype) * z + gain.to(z.dtype) * noise_fn(z, t.expand(len(z)))


# A limit on the work, so that a drift that the solver cannot follow ends in an error and not in an endless run.
MOST_STEPS = 20_000


def solve_adaptively(derivative: Callable[[Tensor, Any], Any], start: Any, ends: Tensor, tolerance: float) -> Any:
    """Solve an ODE by Dormand and Prince's method of fifth order.

    Arguments:
        derivative: maps a time and a state to the derivative of the state.
        start: the state at the first time, a tensor or a tuple of tensors, each of any shape.
        ends: first and last time, shape (2,).
        tolerance: relative and absolute tolerance of each step.

    Returns:
        The state at both ends: for a tensor of shape (*), a tensor of shape (2, *), and for a tuple, a tuple of these.

    Raises:
        ConvergenceError: if the solver needs too many steps, or steps too short for the precision, for example because the
            derivative is not finite.

    References:
        | A family of embedded Runge-Kutta formulae (Dormand & Prince, 1980), https://doi.org/10.1016/0771-050X(80)90013-3
    """
    # Imported here because it imports SciPy, which other samplers do not need.
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
