"""Flow Matching: a velocity ``model(x, time)`` from noise at time 0 to data at time 1."""

from torch import Tensor
from training import flow_velocity, images

import indm
from indm.diffusion.sde import build_sde

model = flow_velocity()  # yours
model.eval()


def velocity(x: Tensor, tau: Tensor) -> Tensor:  # the referee has noise at 1
    return -model(x, 1 - tau)


print(indm.referee(velocity, build_sde("vp"), images, kind="velocity", levels=17))
