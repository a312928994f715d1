"""Ancestral sampling: the posterior at the predicted z_0."""

from torch import Tensor

from indm.diffusion.path import ForwardPath
from indm.diffusion.samplers.loops import PredictorCorrector


def ancestral(path: ForwardPath, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Take the path's step, by default :meth:`indm.diffusion.path.LinearPath.reverse_step`.

    ``z``, ``noise`` and the mean have shape (B, *), ``t`` and ``s`` (B,); the scale of the noise broadcasts to (B, *).
    """
    return path.reverse_step(z, noise, t, s)


SAMPLER = PredictorCorrector(ancestral)
