"""What the wolf flow adds to the contract of tests/test_flows.py: the latent h, its prior, the bound, the initialisation."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from indm.errors import ParamsError
from indm.flows.encoder import WeightNormLinear
from indm.flows.prior import log_standard_normal
from indm.flows.registered.wolf import Wolf

CHANNELS, SIZE, LATENT = 2, 8, 6


def make(seed: int = 0, **options: Any) -> Wolf:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"blocks": (2, 2), "width": 16, "latent_dim": LATENT, "encoder_widths": (4, 5)}
    sizes |= {"encoder_channels_out": 3, "prior_width": 8}
    return Wolf(CHANNELS, SIZE, **(sizes | options)).double().eval()


def images(batch: int, seed: int = 1) -> Tensor:
    return torch.randn(batch, CHANNELS, SIZE, SIZE, dtype=torch.float64, generator=seeded(seed))


def latents(batch: int, seed: int = 2) -> Tensor:
    return torch.randn(batch, LATENT, dtype=torch.float64, generator=seeded(seed))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def disturb(module: nn.Module, scale: float = 0.1, seed: int = 3) -> None:
    """Move every weight, as training would."""
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, dtype=torch.float64, generator=seeded(seed))
        parameter.add_(scale * noise.to(parameter.dtype))


# ----------------------------------------------------------------------------------------------------------------------
# The bound


@pytest.mark.parametrize("training", [True, False])
def test_value_is_log_det_minus_log_q_plus_log_p_at_the_h_drawn_first(training: bool) -> None:
    wolf, x = make().train(training), images(4)
    posterior = normal(wolf, x)
    h = posterior.mean + posterior.stddev * latents(4, seed=5)
    z, log_det = wolf.bijection(x, "exact", None, h)
    found, value = wolf(x, "exact", seeded(5))
    torch.testing.assert_close(found, z)
    torch.testing.assert_close(value, log_det - posterior.log_prob(h).sum(1) + wolf.prior.log_prob(h))


def normal(wolf: Wolf, x: Tensor) -> Normal:
    mean, log_variance = wolf.posterior(x)
    return Normal(mean, (log_variance / 2).exp())


# ----------------------------------------------------------------------------------------------------------------------
# The inverse


def test_inverse_keeps_each_image_with_its_h() -> None:
    wolf, h = make(init_at_bound=True), latents(3)
    z = images(3) * torch.tensor([0.01, 1.0, 10.0]).view(-1, 1, 1, 1)  # the three stop at different iterations
    alone = [wolf.bijection.inverse(z[n : n + 1], h=h[n : n + 1]) for n in range(3)]
    torch.testing.assert_close(wolf.bijection.inverse(z, h=h), torch.cat(alone), atol=1e-13, rtol=0)


def test_inverse_draws_h_from_the_prior_whatever_z_is() -> None:
    wolf, z, before = make(), images(3), torch.get_rng_state()
    h = wolf.prior.inverse(latents(3, seed=5))
    assert torch.equal(wolf.inverse(z, generator=seeded(5)), wolf.bijection.inverse(z, h=h))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(wolf.inverse(z, generator=seeded(5)), wolf.inverse(z, generator=seeded(6)))
    first, second = (wolf.inverse(z) for _ in range(2))
    assert not torch.equal(first, second)
    assert not first.requires_grad


# ----------------------------------------------------------------------------------------------------------------------
# The prior


def test_prior_density_and_inverse() -> None:
    prior, h = make().prior, latents(3)
    disturb(prior)
    e, log_det = prior(h)
    torch.testing.assert_close(prior.inverse(e), h)
    for sample, value in zip(h.split(1), log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda h: prior(h)[0], sample).view(LATENT, LATENT)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, value)
    torch.testing.assert_close(prior.log_prob(h), Normal(0.0, 1.0).log_prob(e).sum(1) + log_det)
    torch.testing.assert_close(log_standard_normal(e), Normal(0.0, 1.0).log_prob(e).sum(1))


def test_frozen_prior_inverse_keeps_the_first_weights() -> None:
    wolf, e = make(frozen_prior_inverse=True), latents(3)
    fresh = make()
    torch.testing.assert_close(wolf.prior.inverse(e), fresh.prior.inverse(e), atol=1e-5, rtol=0)
    disturb(wolf.prior)
    disturb(fresh.prior)
    torch.testing.assert_close(fresh.prior(fresh.prior.inverse(e))[0], e)
    assert (wolf.prior(wolf.prior.inverse(e))[0] - e).abs().max() > 0.05
    assert (wolf.inverse(images(3), generator=seeded(0)) - fresh.inverse(images(3), generator=seeded(0))).any()
    torch.testing.assert_close(wolf(images(3), "exact", seeded(0)), fresh(images(3), "exact", seeded(0)))


# ----------------------------------------------------------------------------------------------------------------------
# Encoder, initialisation, sizes


def test_weight_norm_is_that_of_torch() -> None:
    layer = WeightNormLinear(5, 3)
    disturb(layer)
    reference = nn.utils.parametrizations.weight_norm(nn.Linear(5, 3))
    values = {"original0": layer.gain, "original1": layer.weight}
    reference.load_state_dict(
        {f"parametrizations.weight.{key}": value for key, value in values.items()} | {"bias": layer.bias}
    )
    x = torch.randn(4, 5, generator=seeded(0))
    torch.testing.assert_close(layer(x), reference(x))


def test_odd_latent_is_refused() -> None:
    with pytest.raises(ParamsError, match="latent_dim 7"):
        make(latent_dim=7)
