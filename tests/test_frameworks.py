"""Networks as other frameworks train them: the referee's number is their own bound, and it names a mistake planted in each."""

import math
from importlib.util import find_spec

import pytest
import torch
from torch import Generator, Tensor

from benchmarks.frameworks import EXAMPLES, MISTAKES, Call, call_of, first_words, lines_of
from indm.data.levels import bits_per_dim, dequantise
from tests.conftest import REPOSITORY

# By the names of the mistakes: what the report says first.
SAID = {
    "noise read as v": "kind to noise",
    "`.eval()` forgotten": "call .eval()",
    "data said to be in [0, 1]": "centered to True",
    "beta_max=10 instead of 20": "beta_max=20.0",
    "sign of the velocity": "change the sign of the output",
}
NAMES = [
    pytest.param(
        name, marks=pytest.mark.skipif(name.startswith("diffusers") and not find_spec("diffusers"), reason=name)
    )
    for name in MISTAKES
]
IMAGES, DRAWS = 32, 64


def test_examples_are_short_and_named_on_the_page() -> None:
    page = (REPOSITORY / "docs/referee-details.md").read_text()
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*MISTAKES, "training"}
    for name in MISTAKES:
        assert lines_of(name) <= 20
        assert f"examples/frameworks/{name}.py" in page


def denoised(name: str, call: Call, noisy: Tensor, ratio: Tensor) -> Tensor:
    """Estimate the clean image of x + ratio ε, (B, 1, 8, 8) and (B,), in the framework's own words."""
    r, names = ratio.view(-1, 1, 1, 1), call.names
    alpha = 1 / (1 + r**2).sqrt()
    if name == "edm":
        return names["net"](noisy, ratio)
    if name == "flow_matching":
        # At its time 1 / (1 + r), data has this share, and noise the rest.
        time = 1 / (1 + r)
        return time * noisy + (1 - time) * names["model"](time * noisy, time.flatten())
    if name == "score_sde":
        # The integral of beta up to t, solved for t.
        t = (-0.1 + (0.1**2 + 2 * 19.9 * torch.log1p(ratio**2)).sqrt()) / 19.9
        return noisy - r * names["model"](alpha * noisy, 999 * t)
    table = torch.log(1 / names["scheduler"].alphas_cumprod.double() - 1) / 2
    step = torch.tensor([_between(table, float(one)) for one in ratio.log()])
    return noisy - r * names["unet"](alpha * noisy, step).sample


def _between(table: Tensor, value: float) -> float:
    """Return at which fraction of a step an increasing table has a value."""
    after = int(torch.searchsorted(table, value).clamp(1, len(table) - 1))
    low, high = table[after - 1 : after + 1].tolist()
    return after - 1 + (value - low) / (high - low)


@torch.no_grad()
def own_bound(name: str, call: Call) -> tuple[float, float]:
    r"""Return the bound with the fixed decoder, bits/dim, and its standard error, by plain draws in the ratio r of noise to data:

    .. math:: \int \big\|\hat\epsilon - \epsilon\big\|^2 \mathrm d\log r + \tfrac D2\log(2\pi e\, r_\epsilon^2)
        + \mathrm{KL}\big(q(z_T \mid x)\,\|\,p_T\big)
    """
    generator = Generator().manual_seed(1)
    ends = torch.tensor([call.given.get("eps", 1e-5), 1.0], dtype=torch.float64)
    first, last = (-call.sde.log_snr(ends) / 2).tolist()
    x = dequantise(call.images[:IMAGES], 17, generator)
    each = x.repeat_interleave(DRAWS, 0)
    share = (torch.arange(DRAWS).repeat(IMAGES) + torch.rand(len(each), generator=generator)) / DRAWS
    ratio = torch.exp(first + (last - first) * share)
    noisy = each + ratio.view(-1, 1, 1, 1) * torch.randn(each.shape, generator=generator)
    clean = torch.cat([denoised(name, call, *part) for part in zip(noisy.split(512), ratio.split(512), strict=True)])
    error = ((clean - each) / ratio.view(-1, 1, 1, 1)).square().flatten(1).sum(1).view(IMAGES, DRAWS).mean(1)
    alpha, sigma = float(call.sde.alpha(ends[1])), float(call.sde.sigma(ends[1]))
    prior_variance = sigma**2 if alpha == 1 else 1.0
    squares = alpha**2 * x.square().flatten(1).sum(1) + 64 * (sigma**2 - prior_variance)
    prior = squares / (2 * prior_variance) - 64 * math.log(sigma / prior_variance**0.5)
    decoder = 32 * (math.log(2 * math.pi * math.e) + 2 * first)
    bits = bits_per_dim((last - first) * error + prior + decoder, 64, 17, True).double()
    return float(bits.mean()), float(bits.std() / IMAGES**0.5)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_framework_has_its_own_bound_and_each_planted_mistake_is_named(name: str) -> None:
    call = call_of(name)
    report = call.report(IMAGES, time_draws=20, ode_steps=1)
    assert report.warnings() == []
    mean, error = own_bound(name, call)
    # Both bounds see the same images, and other noise.
    assert float(report.images["nelbo_fixed"].mean()) == pytest.approx(mean, abs=max(0.02, error))
    for words, plant in MISTAKES[name].items():
        assert SAID[words] in first_words(plant(call), IMAGES), words
