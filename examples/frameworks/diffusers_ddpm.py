"""diffusers: a ``UNet2DModel`` with the ``DDPMScheduler`` of its training, ``prediction_type="epsilon"``."""

from torch import Tensor
from training import diffusers_unet, images

import indm
from indm.foreign.tabulated import Tabulated

unet, scheduler = diffusers_unet()  # yours: both by from_pretrained
unet.eval()


def network(z: Tensor, t: Tensor) -> Tensor:
    return unet(z, 1000 * t - 1).sample


print(indm.referee(network, Tabulated(scheduler.alphas_cumprod), images, levels=17, eps=0.001))
