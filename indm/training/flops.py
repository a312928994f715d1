"""How many floating-point operations a training takes."""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from indm.training.batches import Batch
from indm.training.trainer import Trainer


def step_flops(trainer: Trainer, draws: Batch, *, flow_alone: bool = False) -> int:
    r"""Count the floating-point operations that one training step is expected to take, forward and backward.

    Only matrix products and convolutions count, a multiplication and an addition as two; attention counts as its matrix
    products on every device. The number n of terms of a flow's series is drawn, but the operations F are affine in it, so

    .. math:: E[F(n)] = F(E[n]) = F(m) + (E[n] - m) (F(m + 1) - F(m)), \qquad m = \lfloor E[n] \rfloor

    Arguments:
        trainer: a copy of it takes the step; it is left as it is.
        draws: of the step; the count does not depend on them.
        flow_alone: see :meth:`Trainer.step`.
    """
    mean = trainer.model.flow.mean_terms
    terms = math.floor(mean)
    count = _count(trainer, draws, terms, flow_alone)
    if mean == terms:
        return count
    return round(count + (mean - terms) * (_count(trainer, draws, terms + 1, flow_alone) - count))


def _count(trainer: Trainer, draws: Batch, terms: int, flow_alone: bool) -> int:
    """Count the operations of a step with as many terms in each series of the flow."""
    trainer = deepcopy(trainer)
    trainer.model.flow.fix_terms(terms)
    with sdpa_kernel(SDPBackend.MATH), _FlopCounter() as counter:
        trainer.step(draws, 0.0, flow_alone=flow_alone)
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


def cumulative_flops(step: int, phases: Sequence[tuple[int, int]]) -> int:
    """Add up the operations of all steps up to one; of each phase, its first step and the operations of one of its steps."""
    ends = [*(begin for begin, _ in phases[1:]), step]
    return sum(flops * max(0, min(step, end) - begin) for (begin, flops), end in zip(phases, ends, strict=True))
