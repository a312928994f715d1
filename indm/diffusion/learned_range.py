r"""A VP diffusion whose log-SNR has learned ends, the only part of a noise schedule on which the bound depends.

Let :math:`A = -\log\mathrm{SNR}` run from :math:`A_\epsilon` to :math:`A_T`, and let :math:`e(A)` be the expected error
:math:`\|\epsilon_\theta - \epsilon\|^2` there. In D dimensions, the bound with its reconstruction term is

.. math::
    \mathrm{NELBO} = \tfrac12 \int_{A_\epsilon}^{A_T} \big(e(A) - D\big)\,\mathrm dA + \tfrac12\big(e(A_\epsilon) - D\big)
    + \frac{\alpha_T^2\|z_0\|^2 + D\sigma_T^2}{2} + \tfrac D2 \log\frac{2\pi}{\alpha_T^2} ,

in which A(t) occurs only at its ends. Without the reconstruction term it bounds the density of the noisy
:math:`z_\epsilon`, which changes with :math:`A_\epsilon`: a learned end would choose the noise that is easiest to model,
not the best model of the data.

The gradient of an end is pathwise. Draws of importance-sampled times are :math:`A = A_\epsilon + u (A_T - A_\epsilon)` with u
uniform, so that the ends move alpha, sigma and the network's condition at a fixed u, as well as the factor
:math:`Z = A_T - A_\epsilon` and the terms at the ends.

References:
    | Variational Diffusion Models (Kingma et al., 2021), section 5.1 and appendix I
    | https://arxiv.org/abs/2107.00630
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indm.diffusion.sde import SDE, T


class LearnedRange(nn.Module):
    r"""A VP diffusion with the log-SNR of another one, mapped affinely to learned ends.

    .. math::
        A(t) = A_\epsilon + \frac{A'(t) - A'(\epsilon)}{A'(T) - A'(\epsilon)} (A_T - A_\epsilon), \qquad
        \alpha_t^2 = \frac1{1 + e^A}, \quad \sigma_t^2 = \frac1{1 + e^{-A}}, \quad
        B = \log(1 + e^A), \quad \beta = \sigma_t^2 \frac{\mathrm dA}{\mathrm dt}

    A time only labels a place in the range: :meth:`time` has no gradient, and the ends get theirs through :math:`A(t)`.

    Arguments:
        schedule: the fixed VP diffusion A', at whose ends the learned ones start.
        eps: truncation time.

    Attributes:
        moves: the shift of each end, :math:`A_\epsilon - A'(\epsilon)` and :math:`A_T - A'(T)`, shape (2,); weight decay
            pulls the ends back towards the fixed ones.
    """

    section: ClassVar[str] = "vp"
    prior_std: ClassVar[float] = 1.0

    def __init__(self, schedule: SDE, eps: float) -> None:
        super().__init__()
        self.schedule, self.eps = schedule, eps
        self.moves = nn.Parameter(torch.zeros(2))

    def _ends(self) -> tuple[Tensor, Tensor]:
        """Return the fixed ends and the learned ones, shape (2,) each, float64."""
        times = torch.tensor([self.eps, T], dtype=torch.float64, device=self.moves.device)
        fixed = self.schedule.antiderivative(times)
        return fixed, fixed + self.moves.double()

    def antiderivative(self, t: Tensor) -> Tensor:
        r"""Return :math:`A(t)`, shape of ``t``."""
        fixed, ends = self._ends()
        place = (self.schedule.antiderivative(t.to(fixed.device)) - fixed[0]) / (fixed[1] - fixed[0])
        return ends[0] + place * (ends[1] - ends[0])

    def time(self, a: Tensor) -> Tensor:
        r"""Return the time t at which :math:`A(t) = a`, shape of ``a``, without a gradient."""
        fixed, ends = self._ends()
        place = (a.to(fixed.device) - ends[0]) / (ends[1] - ends[0])
        return self.schedule.time(fixed[0] + place * (fixed[1] - fixed[0])).detach()

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return :math:`\alpha_t = (1 + e^{A(t)})^{-1/2}`, shape of ``t``."""
        return torch.sigmoid(-self.antiderivative(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return :math:`\sigma_t = (1 + e^{-A(t)})^{-1/2}`, shape of ``t``."""
        return torch.sigmoid(self.antiderivative(t)).sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return :math:`-A(t)`, shape of ``t``."""
        return -self.antiderivative(t)

    def drift(self, t: Tensor) -> Tensor:
        r"""Return :math:`f(t) = -\beta(t)/2`, shape of ``t``."""
        return -0.5 * self._beta(t)

    def diffusion(self, t: Tensor) -> Tensor:
        r"""Return :math:`g(t) = \sqrt{\beta(t)}`, shape of ``t``."""
        return self._beta(t).sqrt()

    def divergence_integral(self, eps: float) -> Tensor:
        r"""Return :math:`-\tfrac12\big(B(T) - B(\epsilon)\big)`, in nats per dimension, a scalar tensor."""
        start, end = self._integral_beta(torch.tensor([eps, T], dtype=torch.float64))
        return -0.5 * (end - start)

    def interval(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return the exact shrinkage and G, :math:`G^2 = 1 - e^{-(B(t)-B(s))}`; all four tensors have the same shape."""
        gap = self._integral_beta(t) - self._integral_beta(s)
        return torch.exp(-0.5 * gap), torch.sqrt(-torch.expm1(-gap))

    def _integral_beta(self, t: Tensor) -> Tensor:
        return F.softplus(self.antiderivative(t), threshold=60)

    def _beta(self, t: Tensor) -> Tensor:
        fixed, ends = self._ends()
        stretch = (ends[1] - ends[0]) / (fixed[1] - fixed[0])
        return self.sigma(t) ** 2 * stretch * (self.schedule.diffusion(t) / self.schedule.sigma(t)) ** 2
