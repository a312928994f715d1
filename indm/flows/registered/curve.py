"""A learned increasing curve of an entry's value, the same for every pixel and channel."""

import torch
from torch import nn

from indm.flows.piecewise import INTERVALS, PiecewiseCurve


class Curve(PiecewiseCurve):
    """A curve whose slopes are trained, and which starts at the identity."""

    def __init__(self, channels_in: int, image_size: int) -> None:
        super().__init__(channels_in, image_size)
        self.log_slope = nn.Parameter(torch.zeros(INTERVALS))


FLOW = Curve
