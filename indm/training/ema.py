"""Exponential moving average of a module's parameters."""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn

from indm.training.flat import Flat

M = TypeVar("M", bound=nn.Module)


class ExponentialMovingAverage(Generic[M]):
    r"""Moving average of a module's trainable parameters; buffers and frozen parameters are copied.

    The running statistics of batch norms therefore come from the raw weights. In a small wolf flow, statistics from the
    averaged weights changed the NELBO by less than 0.0003 bits/dim from step 50 on (docs/released.md).

    ``torch.optim.swa_utils.AveragedModel`` gives bit-identical weights, but in every update it looks up the tensors, sorts
    them by device and type, and copies buffers one by one, which takes ten times as long for small networks on a CPU. It
    also averages frozen parameters.

    .. math:: \bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n) \theta_n, \quad d_n = \min(d, (1 + n) / (10 + n))

    Attributes:
        module: a copy of the module with the averaged weights, in eval mode and without gradients.
        updates: the number n of calls of :meth:`update`.

    Source: "Score-Based Generative Modeling through Stochastic Differential Equations" (Song et al., 2021,
    https://arxiv.org/abs/2011.13456, appendix G) for the average; the warm-up of d follows its released code.
    """

    def __init__(self, module: M, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.module: M = deepcopy(module)
        self._flat = Flat(self.module)
        self.module.eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, source: Flat) -> None:
        """Update the average with the module's tensors after a training step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self._flat.values.lerp_(source.values, 1 - decay)
        if source.fixed:
            torch._foreach_copy_(self._flat.fixed, source.fixed)
