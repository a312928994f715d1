"""A diffusion whose pixels fade or glow on their way to noise, each by a learned number."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.moved_mean import MovedMean
from indm.diffusion.objectives import per_sample

ONLY = {"sde": ["vp"], "sampler": ["ancestral"]}
NO_ODE = "its network predicts the drift of the reverse SDE, which does not determine the score"


class Fading(ImplicitNonlinearDiffusion):
    r"""The mean :math:`m_i = (1 + \sigma^2\alpha^2 d_i)\,x_i`; its depths d are trained at the flow's rate, and start at 0."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__(spec)
        self.flow.depths = nn.Parameter(torch.zeros(self.shape))

    @property
    def path(self) -> MovedMean:
        return MovedMean(self.sde, self._move)

    def _move(self, x: Tensor, a: Tensor) -> Tensor:
        return per_sample(torch.sigmoid(-a), x) * cast(Tensor, self.flow.depths) * x


FAMILY = Fading
