r"""Check the code of the likelihoods against a model whose likelihood is known in closed form.

    python examples/gaussian_oracle.py

The latent is Gaussian, :math:`z \sim \mathcal N(m, \mathrm{diag}\,v)`, so the best noise prediction is known, and no network is
trained. Its first model is linear, :math:`x = z`. Its second is an implicit nonlinear diffusion, :math:`x = \sinh z`:

.. math::
    \hat\epsilon(z_t, t) = \frac{\sigma_t\,(z_t - \alpha_t m)}{\alpha_t^2 v + \sigma_t^2}, \qquad
    -\log p(x) = -\log \mathcal N(h(x); m, v) - \log\Big|\det\frac{\partial h}{\partial x}\Big|, \qquad
    h(x) = \operatorname{arsinh} x

The package gets the noise prediction and h, and must find :math:`-\log p(x)` by solving the ODE. The bound may not lie below it.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.distributions import Normal

from indm.diffusion.likelihood import four_numbers
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import build_sde

SDE = build_sde("vp", beta_min=0.1, beta_max=20.0)
MEAN = torch.tensor([0.3, -0.5, 0.0, 1.0], dtype=torch.float64)
VARIANCE = torch.tensor([0.05, 0.3, 1.0, 2.0], dtype=torch.float64)
POINTS = 2000
# In nats: three standard errors of the bound's mean over the points, and more of the NLL's.
MOST = 0.002

Flow = Callable[[Tensor], tuple[Tensor, Tensor]]


def main() -> None:
    """Print the numbers of both models, and stop if one is not what the closed form says."""
    latents = MEAN + VARIANCE.sqrt() * torch.randn(POINTS, 4, generator=Generator().manual_seed(0), dtype=torch.float64)
    print(f"{'nats, mean of ' + str(POINTS):24} {'closed form':>11} {'NLL':>9} {'NELBO':>9}")
    for name, x, flow in (("linear, x = z", latents, identity), ("nonlinear, x = sinh z", latents.sinh(), arsinh)):
        found, known = evaluate(x, flow), closed_form(x, flow)
        print(f"{name:24} {known.mean():11.4f} {found['nll'].mean():9.4f} {found['nelbo'].mean():9.4f}")
        assert (found["nll"] - known).mean().abs() < MOST, "the NLL is not that of the closed form"
        assert (found["nelbo"] - known).mean() > -MOST, "the bound lies below the closed form"


def noise(z: Tensor, t: Tensor) -> Tensor:
    """Predict the noise in latents (B, 4) at the times (B,): exactly."""
    alpha, sigma = SDE.alpha(t)[:, None], SDE.sigma(t)[:, None]
    return sigma * (z - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)


def identity(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the latents (B, 4) of a linear diffusion, the data, and the log-determinant (B,)."""
    return x, torch.zeros_like(x[:, 0])


def arsinh(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the latents (B, 4) of a nonlinear diffusion, and the log-determinant (B,)."""
    return x.asinh(), -0.5 * (1 + x.square()).log().sum(1)


def closed_form(x: Tensor, flow: Flow) -> Tensor:
    """Return the negative log-density of data (B, 4), in nats: (B,)."""
    z, log_det = flow(x)
    return -Normal(MEAN, VARIANCE.sqrt()).log_prob(z).sum(1) - log_det


def evaluate(x: Tensor, flow: Flow) -> dict[str, Tensor]:
    """Evaluate data (B, 4) by the package, in nats: (B,) each."""
    return four_numbers(
        noise,
        LinearPath(SDE),
        flow,
        x,
        eps=1e-5,
        time_draws=64,
        tolerance=1e-6,
        ode_steps=1,
        uncorrected=False,
        generator=Generator().manual_seed(1),
    )


if __name__ == "__main__":
    main()
