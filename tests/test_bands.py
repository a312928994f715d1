"""The share of each frequency band in the bound: closed forms, sums, and maps without shares."""

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from indm.data.levels import bits_per_dim
from indm.diffusion.bands import bounds_by_band, in_bands
from indm.diffusion.evaluation import Evaluation, likelihoods
from indm.diffusion.likelihood import GaussianControl
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.flows.base import Flow
from indm.flows.build import build_flow
from indm.flows.cosine import to_cosine
from indm.flows.description import bands
from indm.measured import BANDS
from indm.registry import FLOWS
from tests.test_draws import CPU, CosineGaussian, images
from tests.test_training import model

SHARED: dict[str, Any] = {"seed": ("digits", 4), "device": CPU}
# Each map, and the maps in front of it.
DIAGONAL = {"identity": (), "scale": (), "filter": (), "filter behind scale": ("scale",)}


def evaluation(time_draws: int = 2, batch_size: int = 4) -> Evaluation:
    return Evaluation(batch_size, time_draws, None, None, None, False, "image", "cosine", ode_images=0)


def moved(flow: Flow) -> Flow:
    """Move the weights of a map away from the identity."""
    generator = Generator().manual_seed(0)
    for parameter in flow.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return flow


def behind(name: str, channels: int = 1, affine: dict[str, float] | None = None) -> ImplicitNonlinearDiffusion:
    """A small model behind a map."""
    network = model("identity")
    flow = build_flow(
        name.partition(" ")[0], channels_in=channels, image_size=8, behind=DIAGONAL.get(name, ()), affine=affine
    )
    network.flow = moved(flow)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("name", DIAGONAL)
def test_shares_add_up_to_the_bound(name: str) -> None:
    """Image by image, with the draws of the nll stage, behind a fixed affine map too."""
    network = behind(name, affine={"scale": 2.0, "mean": 0.1, "std": 0.5})
    shares = bounds_by_band(network, images(6), 17, evaluation(), training=lambda: images(20), **SHARED)
    assert shares is not None
    options = SHARED | {"description": "", "once": lambda _, make: make(), "training": lambda: images(20)}
    table = likelihoods(network, images(6), 17, evaluation(batch_size=5), **options)
    assert shares.shape == (6, BANDS)
    torch.testing.assert_close(shares.sum(1), torch.tensor(table["nelbo"].to_numpy()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", DIAGONAL)
def test_gains_of_a_map_are_those_of_its_jacobian(name: str) -> None:
    """In the cosine basis, the Jacobian has no entries between frequencies, and a block of the channels for each."""
    channels, size = 3, 4
    flow = moved(build_flow(name.partition(" ")[0], channels_in=channels, image_size=size, behind=DIAGONAL[name]))
    flow.double()
    x = torch.rand(1, channels, size, size, dtype=torch.float64)
    basis = torch.linalg.inv(
        to_cosine(torch.eye(channels * size**2, dtype=torch.float64).unflatten(1, x.shape[1:])).flatten(1)
    )

    def turned(y: Tensor) -> Tensor:
        return to_cosine(flow((y @ basis).view(x.shape), "none")[0]).flatten()

    jacobian = torch.autograd.functional.jacobian(turned, to_cosine(x).flatten())
    blocks = jacobian.view(channels, size**2, channels, size**2).permute(1, 3, 0, 2)
    apart = ~torch.eye(size**2, dtype=torch.bool)
    assert blocks[apart].abs().max() < 1e-9
    expected = torch.linalg.slogdet(blocks[~apart]).logabsdet
    gains = flow.log_gains()
    assert gains is not None
    torch.testing.assert_close(gains.sum(0).flatten().double(), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(gains.sum().double(), flow(x, "exact")[1][0], rtol=0, atol=1e-9)


def test_maps_that_mix_frequencies_have_no_shares() -> None:
    for name in ("linear", "affine", "curve"):
        assert build_flow(name, channels_in=1, image_size=8).log_gains() is None
        assert build_flow("filter", channels_in=1, image_size=8, behind=(name,)).log_gains() is None
    found = bounds_by_band(model("resflow").eval(), images(2), 17, evaluation(), training=lambda: images(4), **SHARED)
    assert found is None
    assert set(FLOWS) >= {"linear", "affine", "curve", "filter", "scale", "identity"}


def test_shares_of_independent_frequencies_are_their_cross_entropies(monkeypatch: pytest.MonkeyPatch) -> None:
    r"""With an exact prediction, a coefficient of variance v and mean m has :math:`\tfrac12\log 2\pi v + (y - m)^2/2v`, whatever
    the gain of the map in front of the diffusion."""
    data, network = CosineGaussian(channels=1, size=8), behind("filter")
    gains, flow = network.flow.log_gains(), network.flow
    assert gains is not None
    assert isinstance(flow.shift, Tensor)
    latent = CosineGaussian(channels=1, size=8)
    shift = to_cosine(flow.shift.double()[None])[0]
    latent.mean, latent.variance = gains.double().exp() * data.mean + shift, (2 * gains.double()).exp() * data.variance
    network.noise.forward = lambda z, t: latent.noise_fn(network.sde, z.double(), t).float()  # type: ignore[method-assign, assignment]
    x = data.draw(200)
    monkeypatch.setattr("indm.diffusion.bands.dequantised", lambda batch, *_: x[batch[:, 0, 0, 0].long()].float())
    exact = GaussianControl(network.sde, latent.mean.float(), latent.variance.float(), cosine=True)
    monkeypatch.setattr("indm.diffusion.bands.control_of", lambda *_: exact)
    places = torch.arange(200, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)
    shares = bounds_by_band(network, places, 2, evaluation(2, 200), training=lambda: images(200), **SHARED)
    assert shares is not None
    y = to_cosine(x)
    nats = (2 * math.pi * data.variance).log() / 2 + (y - data.mean).square() / (2 * data.variance)
    expected = in_bands(bits_per_dim(64 * nats, 64, 2) / 64)
    torch.testing.assert_close(shares.mean(0), expected.mean(0), rtol=0, atol=1e-3)


def test_bands_take_every_coefficient_once() -> None:
    coefficients = torch.rand(2, 3, 8, 8)
    found = in_bands(coefficients)
    torch.testing.assert_close(found.sum(1), coefficients.double().flatten(1).sum(1))
    ones = in_bands(torch.ones(1, 3, 8, 8))[0]
    assert ones.tolist() == [3 * int((bands(8) == band).sum()) for band in range(BANDS)]
