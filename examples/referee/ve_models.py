"""The same data under VE: a score as in score_sde, and a denoiser as in EDM."""

from my_data import images, mean, variance
from torch import Tensor

import indm

ve, edm = indm.build_sde("ve", sigma_min=0.01, sigma_max=50.0), indm.build_sde("ve", sigma_min=0.002, sigma_max=80.0)


def score(z: Tensor, t: Tensor) -> Tensor:
    return -(z - mean) / (variance + ve.sigma(t).view(-1, 1, 1, 1) ** 2)


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    sigma = sigma.view(-1, 1, 1, 1)
    return (variance * x + sigma**2 * mean) / (variance + sigma**2)


kinds = {"score": (score, ve), "denoiser": (denoiser, edm)}
reports = {kind: indm.referee(*model, images, kind=kind, levels=17) for kind, model in kinds.items()}
