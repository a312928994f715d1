"""SDEs: closed forms, the released code's grids, and the laws of the time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from indm.diffusion.learned_range import LearnedRange
from indm.diffusion.registered.ve import VE
from indm.diffusion.registered.vp import VP
from indm.diffusion.sde import SDE, T, build_sde, importance_time, soft_truncation_time, uniform_time
from indm.errors import ParamsError
from indm.registry import DIFFUSIONS

EPS = 1e-5
LEARNED = "learned-range"
EACH_SDE = pytest.mark.parametrize("name", [*sorted(DIFFUSIONS), LEARNED])
# Those that the released code has, and numbers of it are known for.
EACH_RELEASED = pytest.mark.parametrize("name", ["vp", "ve"])
Golden = dict[str, np.ndarray]


def build(name: str) -> SDE:
    """A registered diffusion, or VP with ends of the log-SNR that have moved."""
    if name != LEARNED:
        return DIFFUSIONS[name]()
    sde = LearnedRange(VP(), EPS).requires_grad_(False)
    sde.moves.copy_(torch.tensor([1.5, -1.0]))
    return sde


def grid(golden: Golden) -> torch.Tensor:
    # Stored in float32; the exact values are the decimals.
    return torch.from_numpy(golden["t"].astype(np.float64).round(6))


@EACH_RELEASED
def test_coefficients_match_exact_arithmetic(name: str, golden_sde: Golden) -> None:
    sde, t = DIFFUSIONS[name](), grid(golden_sde)
    drift = sde.drift(t)[:, None, None, None] * torch.from_numpy(golden_sde["x"]).double()
    found = {
        "drift": drift,
        "diffusion": sde.diffusion(t),
        "std": sde.sigma(t),
        "mean_coeff": sde.alpha(t),
        "antiderivative": sde.antiderivative(t),
    }
    for key, value in found.items():
        expected = torch.from_numpy(golden_sde[f"{name}_{key}_f64"])
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9, msg=key)


@EACH_RELEASED
@pytest.mark.parametrize("eps", ["1e-05", "0.001"])
def test_importance_time_matches_exact_arithmetic(name: str, eps: str, golden_sde: Golden) -> None:
    t, z = importance_time(DIFFUSIONS[name](), torch.from_numpy(golden_sde["u"]).double(), float(eps))
    expected = torch.from_numpy(golden_sde[f"{name}_is_t_tmin{eps}_f64"])
    torch.testing.assert_close(t, expected, rtol=1e-7, atol=1e-12)
    assert z == pytest.approx(float(golden_sde[f"{name}_is_Z_tmin{eps}_f64"]), rel=1e-9)


@EACH_RELEASED
@pytest.mark.parametrize("eps", ["1e-05", "0.001"])
def test_uniform_time_matches_released_code(name: str, eps: str, golden_sde: Golden) -> None:
    t = uniform_time(torch.from_numpy(golden_sde["u"]).double(), float(eps))
    np.testing.assert_allclose(t.numpy(), golden_sde[f"{name}_uniform_t_tmin{eps}"], rtol=1e-6)


def released_interval(t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""One step of VP in the released code, :math:`G^2 = (t-s)\beta(t)`: NaN once :math:`G^2 > 1`, that is below 20 steps."""
    g2 = (t - s) * VP().beta(t)
    return torch.sqrt(1 - g2), torch.sqrt(g2)


def test_one_step_discretisation_matches_released_code(golden_sde: Golden) -> None:
    t = grid(golden_sde)
    x = torch.from_numpy(golden_sde["x"]).double()
    for name, interval in [("vp", released_interval), ("ve", VE().interval)]:
        for case, target in [("next", "next_t"), ("next2", "next_t2")]:
            shrink, big_g = interval(t, torch.from_numpy(golden_sde[target]).double())
            expected_g, expected_f = golden_sde[f"{name}_disc_{case}_G"], golden_sde[f"{name}_disc_{case}_f"]
            # Near t = 1e-5 the difference of two float32 times has few digits in the released code.
            np.testing.assert_allclose(
                big_g.numpy()[4:], expected_g[4:], rtol=2e-4, equal_nan=True, err_msg=f"{name} {case}"
            )
            moved = ((shrink - 1)[:, None, None, None] * x).numpy()
            np.testing.assert_allclose(
                moved[4:], expected_f[4:], rtol=2e-4, atol=1e-6, equal_nan=True, err_msg=f"{name} {case}"
            )


@EACH_SDE
def test_interval_composes_exactly(name: str) -> None:
    """Two steps of the exact form are one: the forward kernels t <- s <- r multiply."""
    sde = build(name)
    r, s, t = (torch.tensor([value], dtype=torch.float64) for value in (0.1, 0.5, 1.0))
    (a, g), (a1, g1), (a2, g2) = sde.interval(t, r), sde.interval(s, r), sde.interval(t, s)
    torch.testing.assert_close(a, a1 * a2)
    torch.testing.assert_close(g**2, a2**2 * g1**2 + g2**2)


@EACH_SDE
@given(t=st.floats(min_value=EPS, max_value=T))
def test_time_inverts_antiderivative(name: str, t: float) -> None:
    sde = build(name)
    time = torch.tensor([t], dtype=torch.float64)
    torch.testing.assert_close(sde.time(sde.antiderivative(time)), time, rtol=1e-9, atol=0)


@EACH_SDE
def test_antiderivative_is_minus_log_snr_and_its_slope_is_the_ratio(name: str) -> None:
    sde = build(name)
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64, requires_grad=True)
    a = sde.antiderivative(t)
    torch.testing.assert_close(a, -torch.log(sde.alpha(t) ** 2 / sde.sigma(t) ** 2))
    (slope,) = torch.autograd.grad(a.sum(), t)
    torch.testing.assert_close(slope, (sde.diffusion(t) / sde.sigma(t)) ** 2)


@EACH_SDE
def test_snr_falls_and_divergence_integrates_the_drift(name: str) -> None:
    sde = build(name)
    t = torch.linspace(EPS, T, 200_001, dtype=torch.float64)
    assert (sde.log_snr(t).diff() < 0).all()
    assert sde.divergence_integral(EPS) == pytest.approx(torch.trapezoid(sde.drift(t), t).item(), abs=1e-8)


@EACH_SDE
def test_importance_density(name: str) -> None:
    """Times of uniform u have density g^2 / sigma^2 / Z: compare the cumulative distribution."""
    sde = build(name)
    u = torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1]
    t, z = importance_time(sde, u, EPS)
    expected = (sde.antiderivative(t) - sde.antiderivative(torch.tensor(EPS, dtype=torch.float64))) / z
    torch.testing.assert_close(expected, u, rtol=0, atol=1e-8)
    assert t.min() >= EPS
    assert t.max() <= T


@pytest.mark.parametrize("k", ["1", "1.2", "2"])
def test_soft_truncation_matches_released_code(k: str, golden_sde: Golden) -> None:
    found = [soft_truncation_time(float(u), EPS, float(k)) for u in golden_sde["st_u"]]
    np.testing.assert_allclose(found, golden_sde[f"st_tmin_k{k}"], rtol=1e-6)


def test_an_unknown_diffusion_is_one_line_that_lists_the_known_ones() -> None:
    with pytest.raises(ParamsError, match=r"^unknown SDE 'cosine': expected one of .*ve.*vp.*$"):
        build_sde("cosine")
