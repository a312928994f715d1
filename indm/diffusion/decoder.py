r"""The reconstruction decoder, which turns the noisy latent at eps back into the clean one.

.. math::
    p(z_0 \mid z_\epsilon) = \mathcal N\Big(\frac{z_\epsilon - \sigma_\epsilon\,\hat\epsilon}{\alpha_\epsilon},
    \frac{\sigma_\epsilon^2}{\alpha_\epsilon^2} I\Big), \qquad
    \hat\epsilon = \epsilon_\theta(z_\epsilon, \epsilon) \text{ (learned)} \quad\text{or}\quad \hat\epsilon = 0 \text{ (fixed)}

Both give valid bounds. The fixed decoder costs :math:`-D\ln\alpha_\epsilon` whatever the network, so the tables derive its
numbers from the learned one's and from :math:`\alpha_\epsilon` (:mod:`indm.report.numbers`).
"""

import torch

from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.path import LinearPath


def alpha_at_eps(model: ImplicitNonlinearDiffusion) -> float | None:
    r"""Return :math:`\alpha_\epsilon` of the model's diffusion, whose log-SNR may be learned.

    ``None`` for a path with another decoder, whose fixed one has a cost that depends on the latent.
    """
    if type(model.path).decoder is not LinearPath.decoder:
        return None
    return float(model.sde.alpha(torch.tensor(model.eps, dtype=torch.float64)))
