"""EDM: a denoiser ``net(x, sigma)`` with its preconditioning inside."""

from training import edm_denoiser, images

import indm
from indm.diffusion.sde import build_sde

net = edm_denoiser()  # yours: the "ema" of a pickle, with labels as a third argument if it has any
net.eval()
sde = build_sde("ve", sigma_min=0.002, sigma_max=80.0)

print(indm.referee(net, sde, images, kind="denoiser", levels=17))
