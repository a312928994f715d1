"""How many floating-point operations a training takes."""

from copy import deepcopy
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from indm.training.batches import Draws
from indm.training.trainer import Trainer


def step_flops(trainer: Trainer, draws: Draws, *, flow_alone: bool = False) -> int:
    """Count the floating-point operations of one training step, forward and backward.

    Only matrix products and convolutions count, a multiplication and an addition as two; attention counts as its matrix
    products on every device. With a flow, the steps differ a little: the number of its series terms is drawn.

    Arguments:
        trainer: a copy of it takes the step; it is left as it is.
        draws: of the step.
        flow_alone: see :meth:`Trainer.step`.
    """
    with sdpa_kernel(SDPBackend.MATH), _FlopCounter() as counter:
        deepcopy(trainer).step(draws, 0.0, flow_alone=flow_alone)
    return counter.total


class _FlopCounter(TorchDispatchMode):
    """Adds up the operations by torch's formulas; its own FlopCounterMode fails on a gradient taken within the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def cumulative_flops(step: int, flow_warmup_steps: int, flops: int, warmup_flops: int) -> int:
    """Add up the operations of all steps up to one; the first warm up the flow alone."""
    warmup = min(step, flow_warmup_steps)
    return flops * (step - warmup) + warmup_flops * warmup
