"""Exponential moving average of a module's parameters."""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
Pair = tuple[Tensor, Tensor]


class ExponentialMovingAverage(Generic[M]):
    r"""Moving average of the trainable parameters of any module; its buffers and frozen parameters are copied.

    So the running statistics of batch norms are those of the raw weights: in a small wolf flow, statistics of the averaged weights
    instead changed the NELBO by less than .0003 bits/dim from step 50 on (docs/released.md).

    Which parameters are frozen, and where the tensors lie, is looked up at the first update: neither may change after it.

    ``torch.optim.swa_utils.AveragedModel`` gives the same bytes, but looks the tensors up, sorts them by device and type, and
    copies buffers one by one at every update: 1.06 ms instead of 0.11 for the two networks of the suite ``digits`` on a CPU.
    It also averages frozen parameters.

    .. math:: \bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n) \theta_n, \quad d_n = \min(d, (1 + n) / (10 + n))

    Attributes:
        module: a copy of the module with the averaged weights, in eval mode and without gradients.
        updates: how often :meth:`update` was called, n.

    Source: "Score-Based Generative Modeling through Stochastic Differential Equations" (Song et al., 2021,
    https://arxiv.org/abs/2011.13456, appendix G) for the average; the warm-up of d is that of its released code.
    """

    def __init__(self, module: M, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.module: M = deepcopy(module).eval().requires_grad_(False)
        self._source: M | None = None
        self._found: tuple[list[Pair], list[Pair]] = [], []

    @torch.no_grad()
    def update(self, module: M) -> None:
        """Take the module's parameters of this training step into the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        moving, fixed = self._pairs(module)
        if moving:
            averages, values = map(list, zip(*moving, strict=True))
            torch._foreach_lerp_(averages, values, 1 - decay)
        if fixed:
            copies, values = map(list, zip(*fixed, strict=True))
            torch._foreach_copy_(copies, values)

    def _pairs(self, module: M) -> tuple[list[Pair], list[Pair]]:
        """Pair the tensors of the average with the module's: those to be averaged, those to be copied.

        They are looked up once for a module: a walk over it costs as much as the averages of a small one.
        """
        if module is self._source:
            return self._found
        parameters: list[Pair] = list(zip(self.module.parameters(), module.parameters(), strict=True))
        buffers: list[Pair] = list(zip(self.module.buffers(), module.buffers(), strict=True))
        moving = [pair for pair in parameters if pair[1].requires_grad]
        frozen = [pair for pair in parameters if not pair[1].requires_grad]
        self._source, self._found = module, (moving, frozen + buffers)
        return self._found
