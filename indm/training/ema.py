"""Exponential moving average of a module's parameters."""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn

from indm.training.flat import Flat

M = TypeVar("M", bound=nn.Module)


class ExponentialMovingAverage(Generic[M]):
    r"""Moving average of a module's trainable parameters; buffers and frozen parameters are copied.

    .. math:: \bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n) \theta_n, \quad d_n = \min(d, (1 + n) / (10 + n))

    The running statistics of batch norms therefore come from the raw weights; docs/released.md has the effect on the bound.

    ``torch.optim.swa_utils.AveragedModel`` gives bit-identical weights, but it repeats work in every update: it looks up the
    tensors, sorts them by device and type, and copies buffers one by one. It also averages frozen parameters.

    Arguments:
        module: the module whose parameters are averaged; it is copied.
        decay: d, the largest decay.

    Attributes:
        module: a copy of the module with the averaged weights, in eval mode and without gradients.
        updates: the number n of calls of :meth:`update`.

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, appendix G; the warm-up of d follows its released code
    """

    def __init__(self, module: M, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.module: M = deepcopy(module)
        self._flat = Flat(self.module)
        self.module.eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, source: Flat) -> None:
        """Update the average with the module's tensors after a training step.

        Arguments:
            source: the module's tensors, whose N trained numbers have the order and the padding of the copy's.
        """
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self._flat.values.lerp_(source.values, 1 - decay)
        if source.fixed:
            torch._foreach_copy_(self._flat.fixed, source.fixed)
