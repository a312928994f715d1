"""Adaptive steps of an ODE, which end, one way or the other."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from indm.errors import ConvergenceError

# Far more than any sound model needs: some hundred.
MOST_STEPS = 20_000


def solve_adaptively(derivative: Callable[[Tensor, Any], Any], start: Any, ends: Tensor, tolerance: float) -> Any:
    """Solve an ODE by Dormand and Prince's method of fifth order.

    Arguments:
        derivative: of the state, at a time and a state.
        start: the state, a tensor or a tuple of them, at the first end.
        ends: first and last time, shape (2,).
        tolerance: relative and absolute, of each step.

    Returns:
        The state at both ends, stacked in front.

    Raises:
        ConvergenceError: if the steps become too many, or too short for the numbers, as where the derivative is not finite.

    References:
        | A family of embedded Runge-Kutta formulae (Dormand & Prince, 1980), https://doi.org/10.1016/0771-050X(80)90013-3
    """
    # Imported here: it imports SciPy, half a second that other samplers do not need.
    from torchdiffeq import odeint

    options = {"max_num_steps": MOST_STEPS}
    try:
        return odeint(derivative, start, ends, rtol=tolerance, atol=tolerance, method="dopri5", options=options)
    except AssertionError as error:
        reason = " ".join(str(error).split())[:100]
        raise ConvergenceError(
            f"the adaptive ODE found no solution ({reason}), expected one of tolerance {tolerance:g} within {MOST_STEPS} steps: "
            "raise the tolerance, or train with a lower lr or flow_lr"
        ) from None
