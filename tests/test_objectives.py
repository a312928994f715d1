"""Objectives: the bound on Gaussian data, and the released code's losses on its own network."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Generator
from torch.distributions import Normal

from indm.diffusion.noise import NoiseModel
from indm.diffusion.objectives import likelihood_weighted, squared_norm, variance_weighted
from indm.diffusion.path import LinearPath, nelbo
from indm.diffusion.registered.vp import VP
from indm.diffusion.sde import T, importance_time, soft_truncation_time, uniform_time
from indm.registry import DIFFUSIONS
from indm.released.score import import_score
from tests.conftest import GOLDEN
from tests.gaussian import GaussianData
from tests.released import score_config

EPS = 1e-5


@pytest.fixture(scope="module")
def released_network() -> NoiseModel:
    network = import_score(load_file(GOLDEN / "score_vp_ddpmpp.state.safetensors"), score_config("vp"))
    return NoiseModel(network.double(), DIFFUSIONS["vp"]())


def float32_importance_time(u: torch.Tensor, eps: float) -> tuple[torch.Tensor, float]:
    """Importance-sampled VP times as float32 gives them; at eps = 1e-5 this Z is 5e-4 below the exact one."""
    sde = VP()

    def antiderivative(t: float) -> torch.Tensor:
        big_b = sde.integral_beta(torch.tensor(t, dtype=torch.float32))
        # Rounded from float64: 1 - exp(-B) is 17 rounding units at eps = 1e-5, where an exponential that is off by one,
        # as a processor's own may be, would change Z by 0.06.
        return torch.log(1 - torch.exp(-big_b.double()).float()) + big_b

    low, high = antiderivative(eps), antiderivative(T)
    t = sde.time(low + u.float() * (high - low))
    return t.double(), (high - low).item()


@pytest.mark.parametrize("soft", [0, 1])
@pytest.mark.parametrize("with_term", [0, 1])
@pytest.mark.parametrize("importance", [0, 1])
@pytest.mark.parametrize("likelihood", [0, 1])
def test_losses_match_released_code(
    released_network: NoiseModel, likelihood: int, importance: int, with_term: int, soft: int
) -> None:
    data = {key.removeprefix("vp_ddpmpp_"): value for key, value in np.load(GOLDEN / "losses.npz").items()}
    sde = DIFFUSIONS["vp"]()
    z0, noise, u, second = (torch.from_numpy(data[key]).double() for key in ("batch", "z", "u", "zrec"))
    eps = soft_truncation_time(float(data["st_np_u"][0]), EPS, 1.2) if soft else EPS
    dims = z0[0].numel()
    with torch.no_grad():
        if importance:
            t, z = float32_importance_time(u, eps)
            loss = likelihood_weighted(LinearPath(sde).error(released_network, z0, t, noise), z)
        else:
            t = uniform_time(u, eps)
            weight = (sde.diffusion(t) / sde.sigma(t)) ** 2 if likelihood else torch.ones_like(t)
            loss = weight * variance_weighted(LinearPath(sde).error(released_network, z0, t, noise))
        if with_term:
            # The released term has -D/2 where ours has -|eps|^2/2, of the same mean.
            loss = loss + LinearPath(sde).decoder(released_network, z0, eps, second) + (squared_norm(second) - dims) / 2
    for mean in (0, 1):
        key = f"rm{mean}_lw{likelihood}_is{importance}_rec{with_term}_st{soft}"
        expected = data[key]
        np.testing.assert_allclose(loss.numpy() / (dims if mean else 1), expected, rtol=1e-4, err_msg=key)


@pytest.mark.parametrize("name", sorted(DIFFUSIONS))
def test_prior_cross_entropy_is_the_mean_of_draws(name: str) -> None:
    sde = DIFFUSIONS[name]()
    z0 = torch.randn(3, 5, dtype=torch.float64)
    end = torch.tensor(T, dtype=torch.float64)
    noise = torch.randn(200_000, 3, 5, dtype=torch.float64)
    z_end = sde.alpha(end) * z0 + sde.sigma(end) * noise
    log_prob = torch.distributions.Normal(0.0, sde.prior_std).log_prob(z_end).sum(-1)
    standard_error = log_prob.std(0) / math.sqrt(len(noise))
    assert ((LinearPath(sde).prior(z0) + log_prob.mean(0)).abs() < 4 * standard_error).all()


@pytest.mark.parametrize("name", sorted(DIFFUSIONS))
def test_nelbo_of_exact_score_is_the_likelihood(name: str) -> None:
    """With the exact score of Gaussian data the bound is tight on average over the data."""
    sde, data = DIFFUSIONS[name](), GaussianData(6)
    count = 200_000
    x = data.draw(count)
    generator = Generator().manual_seed(2)
    u = (torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)) / count
    t, z = importance_time(sde, u, EPS)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)

    def exact(z_t: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        return data.noise_fn(sde, z_t, times)

    error = LinearPath(sde).error(exact, x, t, noise)
    bound = nelbo(LinearPath(sde), x, torch.zeros(count), error, z, EPS) + LinearPath(sde).decoder(exact, x, EPS, noise)
    difference = bound - data.nll(x)
    # VE's prior N(0, sigma_max^2) neglects the data's own mean and covariance: 1e-4 of 2500.
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(count) + 1e-3


@pytest.mark.parametrize("name", sorted(DIFFUSIONS))
def test_reconstruction_is_the_ratio_of_encoder_and_decoder(name: str) -> None:
    r""":math:`\log q(z_\epsilon \mid z_0) - \log p(z_0 \mid z_\epsilon)`, at a time when VP's alpha is 0.95."""
    sde, eps = DIFFUSIONS[name](), 0.1
    z0, noise = torch.randn(2, 5, 6, dtype=torch.float64)
    alpha, sigma = (value(torch.tensor(eps, dtype=torch.float64)) for value in (sde.alpha, sde.sigma))
    z = alpha * z0 + sigma * noise
    decoded = (z - sigma * torch.tanh(z)) / alpha
    encoder, decoder = Normal(alpha * z0, sigma).log_prob(z), Normal(decoded, sigma / alpha).log_prob(z0)
    found = LinearPath(sde).decoder(lambda z, _: torch.tanh(z), z0, eps, noise)
    torch.testing.assert_close(found, (encoder - decoder).sum(1))
