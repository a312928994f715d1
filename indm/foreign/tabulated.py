r"""Diffusions with a table of steps, as DDPM and diffusers have them: step i of N is the time :math:`t = (i + 1)/N`.

A table has :math:`\bar\alpha_i = \alpha_t^2` for each step. Between its times, :math:`\beta` is constant,

.. math:: B(t) = -\log\bar\alpha, \quad \text{linear between } B(0) = 0 \text{ and } B\big(\tfrac{i+1}N\big) = -\log\bar\alpha_i ,

so that a network that takes fractions of a step has continuous numbers too. In diffusers, ``alphas_cumprod`` of a scheduler is the
table, the step is :math:`1000\,t - 1`, and ``prediction_type`` has the kinds ``noise`` (``epsilon``), ``clean`` (``sample``) and
``v`` (``v_prediction``).

References:
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239, equation 4
    | Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), https://arxiv.org/abs/2102.09672, equation 17
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from indm.diffusion.registered.vp import VP
from indm.errors import ParamsError

# Of the cosine schedule: its offset; of all schedules of functions: the largest beta of a step; of the sigmoid schedule: its end.
OFFSET, LARGEST, END = 0.008, 0.999, 3.0


class Tabulated(VP):
    r"""Variance preserving diffusion by a table of :math:`\bar\alpha_i`, i = 0, …, N - 1.

    Arguments:
        alphas_cumprod: the table, which falls from below 1 to above 0, shape (N,), N at least 2.

    Raises:
        ParamsError: if it does not.
    """

    def __init__(self, alphas_cumprod: Tensor | ArrayLike) -> None:
        given = alphas_cumprod.detach().cpu().numpy() if isinstance(alphas_cumprod, Tensor) else alphas_cumprod
        self._check(table := torch.from_numpy(np.array(given, np.float64)))
        b = torch.cat([torch.zeros(1, dtype=torch.float64), -torch.log(table)])
        rates = b.diff() * len(table)
        super().__init__(float(rates[0]), float(rates[-1]))
        # The class is frozen.
        for name, value in (("_b", b), ("_rates", rates), ("steps", len(table))):
            object.__setattr__(self, name, value)

    _b: Tensor
    _rates: Tensor
    steps: int

    @staticmethod
    def _check(table: Tensor) -> None:
        is_falling = table.dim() == 1 and len(table) > 1 and bool((table.diff() < 0).all())
        if not is_falling or not 0 < table[-1] < table[0] < 1:
            ends = f" from {table.flatten()[0]:g} to {table.flatten()[-1]:g}" if table.numel() else ""
            raise ParamsError(
                f"alphas_cumprod: found shape {tuple(table.shape)}{ends}, expected two or more numbers that fall from below 1 to "
                "above 0; a schedule that ends at 0 leaves no signal, so leave its last step out"
            )

    def integral_beta(self, t: Tensor) -> Tensor:
        r""":math:`B(t)`, shape of ``t``."""
        b, rates, piece = self._b.to(t.device), self._rates.to(t.device), self._piece(t)
        return (b[piece] + (t.double() - piece.double() / self.steps) * rates[piece]).to(t.dtype)

    def beta(self, t: Tensor) -> Tensor:
        r"""Rate :math:`\beta(t)`, shape of ``t``."""
        return self._rates.to(t.device)[self._piece(t)].to(t.dtype)

    def time(self, a: Tensor) -> Tensor:
        r"""Return the time t at which :math:`A(t) = a`, that is, :math:`B(t) = \log(1 + e^a)`, shape of ``a``."""
        big_b = torch.nn.functional.softplus(a.double(), threshold=60)
        b, rates = self._b.to(a.device), self._rates.to(a.device)
        piece = (torch.searchsorted(b, big_b) - 1).clamp(0, self.steps - 1)
        return (piece.double() / self.steps + (big_b - b[piece]) / rates[piece]).to(a.dtype)

    def _piece(self, t: Tensor) -> Tensor:
        """Return the number of the interval between two times of the table in which each time is, shape of ``t``."""
        return (t.double() * self.steps).floor().long().clamp(0, self.steps - 1)

    @property
    def first(self) -> float:
        """The time of the first step: networks are not trained below it."""
        return 1 / self.steps

    def __repr__(self) -> str:
        for known in (cosine_table, sigmoid_table):
            if torch.equal(self._b[1:], -torch.log(known(self.steps))):
                return f"Tabulated({known.__name__}({self.steps}))"
        return f"Tabulated({self.steps} steps, {math.exp(-self._b[1]):.6g} to {math.exp(-self._b[-1]):.3g})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tabulated) and torch.equal(self._b, other._b)

    __hash__ = None  # type: ignore[assignment]


def cosine_table(steps: int) -> Tensor:
    r"""Return :math:`\bar\alpha` of the cosine schedule, shape (N,), float64.

    .. math:: f(t) = \cos^2\Big(\frac{t + s}{1 + s}\cdot\frac\pi2\Big), \qquad
        \beta_i = \min\Big(1 - \frac{f((i + 1)/N)}{f(i/N)},\, 0.999\Big), \qquad \bar\alpha_i = \prod_{j \le i} (1 - \beta_j)

    It is ``squaredcos_cap_v2`` of diffusers.

    References:
        | Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), https://arxiv.org/abs/2102.09672,
        | equation 17
    """
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    return _by_steps(torch.cos((t + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2)


def sigmoid_table(steps: int) -> Tensor:
    r"""Return :math:`\bar\alpha` of the sigmoid schedule from -3 to 3, shape (N,), float64.

    .. math:: f(t) = \mathrm{sigmoid}(3) - \mathrm{sigmoid}(6 t - 3)

    and the rest as in :func:`cosine_table`. It is the default of denoising-diffusion-pytorch.

    References:
        | Scalable Adaptive Computation for Iterative Generation (Jabri et al., 2022), https://arxiv.org/abs/2212.11972
    """
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    end = torch.tensor(END, dtype=torch.float64)
    return _by_steps(torch.sigmoid(end) - torch.sigmoid(END * (2 * t - 1)))


def _by_steps(f: Tensor) -> Tensor:
    r"""Return :math:`\bar\alpha` by a falling function at the ends of N steps, with limited :math:`\beta`; (N + 1,) to (N,)."""
    return torch.cumprod(1 - (1 - f[1:] / f[:-1]).clamp(max=LARGEST), 0)
