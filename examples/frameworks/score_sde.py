"""score_sde: a network of ``VPSDE``, whose score is minus its output over the standard deviation."""

from torch import Tensor
from training import images, score_sde_model

import indm
from indm.diffusion.sde import build_sde

model = score_sde_model()  # yours
model.eval()
sde = build_sde("vp", beta_min=0.1, beta_max=20.0)


def score(x: Tensor, t: Tensor) -> Tensor:  # or get_score_fn(sde, model, train=False, continuous=True) of score_sde
    return -model(x, 999 * t) / sde.sigma(t).view(-1, 1, 1, 1)


print(indm.referee(score, sde, images, kind="score", levels=17))
