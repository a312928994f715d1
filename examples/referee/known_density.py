"""The known number of the Gaussians, which a bound and an ODE must give for noise_model.py."""

import torch
from my_data import images, mean, variance

from indm.data.levels import bits_per_dim, dequantise

x = dequantise(images, 17, torch.Generator().manual_seed(0))
density = torch.distributions.Normal(mean, variance.sqrt())
known = bits_per_dim(-density.log_prob(x).sum((1, 2, 3)), 64, 17, centered=True)
print(f"{known.mean():.3f} ± {known.std() / len(known) ** 0.5:.3f}")
