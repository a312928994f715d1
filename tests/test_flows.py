"""Flows: the contract over every registered flow, golden numbers of the released code, and the log-det estimators."""

import copy
import functools
import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy.integrate import quad
from scipy.stats import poisson
from torch import Tensor

from indm.errors import ConvergenceError, ParamsError
from indm.fields import LEARNED
from indm.flows import kernels, lipschitz, sources
from indm.flows.activations import ACTIVATIONS, ActivationName
from indm.flows.base import Flow, LogDet, Subset
from indm.flows.block import ResidualBlock, solve_block
from indm.flows.build import build_flow
from indm.flows.convolution import adjoint, convolve
from indm.flows.cosine import cosine_basis, filtered
from indm.flows.fixed import FixedCurve, FixedFilter
from indm.flows.lipschitz import BOUNDS, Bound, LinfConv2d, LipschitzConv2d, SpectralConv2d, bounded_weights
from indm.flows.log_det import Contraction, Series, exact_log_det, neumann_vector, roulette_coefficients, series_log_det
from indm.flows.registered import resflow as residual
from indm.flows.registered.filter import SpectralFilter
from indm.flows.registered.resflow import ResidualFlow
from indm.flows.registered.wolf import Wolf
from indm.flows.sources import Probe, Share, Source, draw_probe, draw_roulette
from indm.registry import FLOWS
from indm.released.flow import import_flow
from tests.conftest import GOLDEN
from tests.released import export_flow, gradients

CHANNELS, SIZE = 2, 4
SERIES = Series(1e-6)
MODES: tuple[LogDet, ...] = ("train", SERIES, "exact")
SMALL_WOLF = {"latent_dim": 6, "encoder_widths": (4, 5), "encoder_channels_out": 3, "prior_width": 8}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "identity": ("identity", {}),
    "resflow-released": ("resflow", {"blocks": (2, 2), "width": 8}),
    "resflow-one-scale": ("resflow", {"blocks": (2,), "width": 8, "probe": "rademacher"}),
    "resflow-spectral": (
        "resflow",
        {"blocks": (1, 1, 1), "width": 8, "activation": "elu", "bound": "spectral", "coefficient": 0.97}
        | {"exact_terms_train": 4, "init_at_bound": True},
    ),
    "resflow-elu-linf": ("resflow", {"blocks": (1, 1), "width": 8, "activation": "elu", "init_at_bound": True}),
    "identity-affine": ("identity", {"affine": {"scale": 3.0, "mean": 0.2, "std": 0.7}}),
    "scale": ("scale", {}),
    "affine": ("affine", {}),
    "linear": ("linear", {}),
    "filter": ("filter", {}),
    "curve": ("curve", {}),
    "curve-filter": ("filter", {"behind": ["curve"]}),
    "fixed-scale": ("identity", {"fixed": {"curve": False, "exponent": 0.0}}),
    "fixed-curve-filter": ("identity", {"fixed": {"curve": True, "exponent": 0.2}}),
    "fixed-filter-curve-resflow": (
        "resflow",
        {"blocks": (1, 1), "width": 8, "behind": ["curve"], "fixed": {"curve": False, "exponent": 0.25}},
    ),
    "filter-resflow-affine": (
        "resflow",
        {"blocks": (1, 1), "width": 8, "behind": ["filter"], "affine": {"scale": 0.5, "mean": -0.1, "std": 2.0}},
    ),
    "wolf": ("wolf", {"blocks": (2, 1), "width": 8} | SMALL_WOLF),
    "wolf-half-resolution": ("wolf", {"blocks": (0, 1), "width": 8, "activation": "elu"} | SMALL_WOLF),
}


class AtOneLatent(Flow):
    """The bijection that a wolf flow is at one h, the same for every image."""

    def __init__(self, wolf: Wolf) -> None:
        super().__init__(CHANNELS, SIZE)
        self.wolf = wolf
        self.h = 3 * torch.randn(1, wolf.latent_dim, dtype=torch.float64, generator=seeded(7))

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        return self.wolf.bijection(x, log_det, generator, self.h.expand(len(x), -1))

    def inverse(
        self, z: Tensor, atol: float = 1e-6, max_iterations: int = 1000, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.wolf.bijection.inverse(z, atol, max_iterations, h=self.h.expand(len(z), -1))


@pytest.fixture(params=VARIANTS)
def flow(request: pytest.FixtureRequest) -> Flow:
    return make(request.param)


@pytest.fixture
def bijection(flow: Flow) -> Flow:
    """A flow that maps an image to one z."""
    return AtOneLatent(flow) if isinstance(flow, Wolf) else flow


def make(variant: str, seed: int = 0) -> Flow:
    torch.manual_seed(seed)
    name, options = VARIANTS[variant]
    flow = build_flow(name, channels_in=CHANNELS, image_size=SIZE, **options).double()
    flow.fit(lambda: images(64, seed=5).split(20))
    learned = tuple(FLOWS[name] for name in LEARNED)
    # They start at the identity.
    with torch.no_grad():
        for parameter in (
            parameter for part in flow.modules() if isinstance(part, learned) for parameter in part.parameters()
        ):
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow


def images(batch: int, seed: int = 1) -> Tensor:
    shape = (batch, CHANNELS, SIZE, SIZE)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ----------------------------------------------------------------------------------------------------------------------
# The contract


def test_every_registered_flow_has_a_variant() -> None:
    assert {name for name, _ in VARIANTS.values()} == set(FLOWS)


def test_inverse(bijection: Flow) -> None:
    x = images(3)
    z, _ = bijection(x, "none")
    torch.testing.assert_close(bijection.inverse(z, atol=1e-13, max_iterations=2000), x, atol=1e-11, rtol=0)
    assert not bijection.inverse(z).requires_grad


@pytest.mark.parametrize("options", [{}, {"behind": ["filter"]}, {"affine": {"scale": 0.5, "mean": -0.1, "std": 2.0}}])
def test_a_flow_with_random_maps_stays_one_map_for_a_batch_behind_others(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    options = options | SMALL_WOLF | {"blocks": (2, 1), "width": 8}
    flow = build_flow("wolf", channels_in=CHANNELS, image_size=SIZE, **options)
    x = images(3)
    there, back = flow.double().eval().bijection_at(x, seeded(1))
    torch.testing.assert_close(there(x), there(x), atol=0, rtol=0)
    torch.testing.assert_close(there(x), flow(x, "none", seeded(1))[0])
    torch.testing.assert_close(back(there(x)), x, atol=1e-5, rtol=0)


def test_inverse_of_a_sample_does_not_depend_on_its_batch(bijection: Flow) -> None:
    z = images(3) * torch.tensor([0.1, 1.0, 10.0]).view(-1, 1, 1, 1)
    alone = torch.cat([bijection.inverse(sample) for sample in z.split(1)])
    torch.testing.assert_close(bijection.inverse(z), alone, atol=1e-13, rtol=1e-14)


def test_exact_log_det_is_that_of_the_whole_map(bijection: Flow) -> None:
    x = images(2)
    _, log_det = bijection(x, "exact")
    for sample, value in zip(x.split(1), log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda x: bijection(x, "none")[0], sample)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian.view(x[0].numel(), -1)).logabsdet, value)


def test_exact_log_det_in_pieces_is_that_of_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = one_block()
    _, vjp = block.linearise(x)
    whole = exact_log_det(vjp, x)
    pieces: list[int] = []

    def counted(v: Tensor) -> Tensor:
        pieces.append(len(v))
        return vjp(v)

    rows, batch = x[0].numel(), len(x)
    monkeypatch.setattr("indm.flows.log_det.SAMPLES", (rows - 1) * batch)
    torch.testing.assert_close(exact_log_det(counted, x), whole)
    assert pieces == [(rows - 1) * batch, batch]


def test_modes_share_z_and_shapes(flow: Flow) -> None:
    """Without gradients, they draw no graph and give the same; where nothing is drawn, they all give the exact value."""
    x = images(3)
    expected, none = flow(x, "none", seeded(0))
    assert not none.any()
    for log_det in MODES:
        z, value = flow(x, log_det, seeded(0))
        torch.testing.assert_close(z, expected)
        assert (value.shape, value.dtype, x.requires_grad) == (none.shape, x.dtype, False)
        with torch.no_grad():
            z, again = flow(x, log_det, seeded(0))
        assert not z.requires_grad
        assert not again.requires_grad
        torch.testing.assert_close(again, value)
        if flow.mean_terms == 0:
            torch.testing.assert_close(value, flow(x, "exact", seeded(0))[1])


def test_every_parameter_gets_a_gradient(flow: Flow) -> None:
    parameters = dict(flow.named_parameters())
    for log_det in MODES if parameters else ():
        flow.zero_grad()
        z, value = flow(images(3), log_det, seeded(0))
        (z.pow(2).sum() / 2 - value.sum()).backward()
        for name, parameter in parameters.items():
            assert parameter.grad is not None, (log_det, name)
            assert parameter.grad.isfinite().all(), (log_det, name)
            assert parameter.grad.any(), (log_det, name)


def test_draws_come_from_the_generator_alone(flow: Flow) -> None:
    before = torch.get_rng_state()
    for log_det in MODES[:2]:
        first, again, other = (flow(images(3), log_det, seeded(seed))[1] for seed in (0, 0, 1))
        assert torch.equal(first, again)
        # A series has draws; the identity and the learned maps have none.
        assert torch.equal(first, other) == (flow.mean_terms == 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_state_dict_round_trip(variant: str) -> None:
    flow, other = make(variant, seed=0), make(variant, seed=1)
    shapes = {key: value.shape for key, value in flow.state_dict().items()}
    flow(images(2), "train")
    flow.update_norms()
    assert {key: value.shape for key, value in flow.state_dict().items()} == shapes
    other.load_state_dict(flow.state_dict())
    assert torch.equal(other(images(2), "exact", seeded(0))[1], flow(images(2), "exact", seeded(0))[1])


def test_wrong_shape_is_refused(flow: Flow) -> None:
    wrong = torch.zeros(2, CHANNELS, SIZE, SIZE + 1)
    with pytest.raises(ValueError, match=r"\(2, 4, 5\).*\(2, 4, 4\)"):
        flow(wrong, "none")
    with pytest.raises(ValueError, match="expected"):
        flow.inverse(wrong)


# ----------------------------------------------------------------------------------------------------------------------
# Learned maps


@pytest.mark.parametrize("name", LEARNED)
def test_learned_maps_start_at_the_identity(name: str) -> None:
    flow, x = build_flow(name, channels_in=CHANNELS, image_size=SIZE), images(3).float()
    z, value = flow(x, "train")
    torch.testing.assert_close(z, x)
    assert not value.any()
    torch.testing.assert_close(flow.inverse(x), x)


def test_a_curve_increases_through_zero_and_goes_on_straight() -> None:
    curve = make("curve")
    line = torch.linspace(-3, 3, 6 * CHANNELS * SIZE**2, dtype=torch.float64)
    z = curve(line.view(-1, CHANNELS, SIZE, SIZE), "none")[0].flatten()
    assert (z.diff() > 0).all()
    assert curve(torch.zeros(1, CHANNELS, SIZE, SIZE, dtype=torch.float64), "none")[0].abs().max() < 1e-14
    for beyond in (z[line < -1], z[line > 1]):
        torch.testing.assert_close(beyond.diff(), beyond.diff()[:1].expand(len(beyond) - 1))


def test_a_filter_amplifies_one_frequency_of_one_channel() -> None:
    flow, basis = SpectralFilter(CHANNELS, SIZE).double(), cosine_basis(SIZE)
    torch.testing.assert_close(basis @ basis.T, torch.eye(SIZE, dtype=torch.float64))
    with torch.no_grad():
        flow.log_gain[1, 2, 3] = math.log(5.0)
    waves = torch.einsum("ku,lv->kluv", basis, basis)
    x = torch.stack([torch.zeros_like(waves), waves], 2).flatten(0, 1)
    z = flow(x, "none")[0].view(SIZE, SIZE, CHANNELS, SIZE, SIZE)
    gain = torch.ones(SIZE, SIZE, dtype=torch.float64).index_put(
        (torch.tensor(2), torch.tensor(3)), torch.tensor(5.0).double()
    )
    torch.testing.assert_close(z[:, :, 1], gain[..., None, None] * waves)
    assert not z[:, :, 0].any()


# ----------------------------------------------------------------------------------------------------------------------
# Errors


def steep(count: int, seed: int = 3) -> Tensor:
    """Gaussian images whose coefficients have the variances of :func:`spectrum`, and a mean that is not zero."""
    noise = torch.randn((count, CHANNELS, SIZE, SIZE), dtype=torch.float64, generator=seeded(seed))
    return filtered(noise, spectrum().log() / 2) + 0.3


def spectrum() -> Tensor:
    frequency = torch.arange(SIZE, dtype=torch.float64)
    return 1 / (1 + frequency + frequency[:, None]) ** 2 * torch.tensor([1.0, 0.1], dtype=torch.float64)[:, None, None]


@pytest.mark.parametrize("exponent", [0.0, 0.25, 0.5])
def test_a_fixed_filter_multiplies_by_a_power_of_the_spectrum_and_scales_to_variance_one(exponent: float) -> None:
    flow = build_flow(
        "identity", channels_in=CHANNELS, image_size=SIZE, fixed={"curve": False, "exponent": exponent}
    ).double()
    x = steep(20_000)
    flow.fit(lambda: x.split(3000))
    z = flow(x, "none")[0]
    assert z.var(0).mean().item() == pytest.approx(1, rel=1e-3)
    basis = cosine_basis(SIZE)
    spread = (basis @ z @ basis.T).var(0)
    expected = spectrum() ** (1 - 2 * exponent)
    torch.testing.assert_close(spread / spread.mean(), expected / expected.mean(), rtol=0.06, atol=0)


def test_a_fixed_filter_does_not_depend_on_how_images_are_batched() -> None:
    flows = [FixedFilter(CHANNELS, SIZE, 0.2).double() for _ in range(2)]
    x = steep(100)
    for flow, size in zip(flows, (100, 7), strict=True):
        flow.fit(functools.partial(x.split, size))
    torch.testing.assert_close(flows[0].log_gain, flows[1].log_gain, rtol=1e-9, atol=1e-9)


def test_a_fixed_filter_behind_a_curve_sees_the_curves_images() -> None:
    flow = build_flow(
        "identity", channels_in=CHANNELS, image_size=SIZE, fixed={"curve": True, "exponent": 0.0}
    ).double()
    x = steep(5000).tanh()
    flow.fit(lambda: x.split(1000))
    assert flow(x, "none")[0].var(0).mean().item() == pytest.approx(1, rel=1e-3)


def test_a_fixed_curve_is_the_integral_of_its_slope() -> None:
    curve = FixedCurve(1, 8).double()
    x = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(1, 1, 8, 8)
    exact = [quad(lambda v: (1 - v * v) ** -0.25, 0, value)[0] for value in (-1, -0.5, 0, 0.5, 1)]
    ends = curve(torch.tensor([-1, -0.5, 0, 0.5, 1], dtype=torch.float64).repeat(13)[:64].reshape(1, 1, 8, 8), "none")[
        0
    ]
    torch.testing.assert_close(ends.flatten()[:5], torch.tensor(exact, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    assert (curve(x, "none")[0].flatten().diff() > 0).all()
    assert 2.5 < curve.log_slope.exp().max() < 3


def test_misconfiguration_is_refused() -> None:
    with pytest.raises(ParamsError, match="'glow'"):
        build_flow("glow", channels_in=1, image_size=8)
    with pytest.raises(ParamsError, match="image size 6"):
        ResidualFlow(1, 6, blocks=(1, 1, 1), width=4)
    with pytest.raises(ParamsError, match=r"coefficient 1\.5"):
        ResidualFlow(1, 8, blocks=(1,), width=4, coefficient=1.5)
    with pytest.raises(ValueError, match=r"'series'.*none.*exact.*Series"):
        make("resflow-released")(images(1), "series")


def linear_branch(kind: str) -> tuple[Callable[..., Tensor], list[int]]:
    """A branch 0.98 A x with A orthogonal, or symmetric with the eigenvalues of ``kind``, and the images of each call."""
    dims = CHANNELS * SIZE**2
    basis = torch.linalg.qr(torch.randn(dims, dims, dtype=torch.float64, generator=seeded(0))).Q
    values = {"three": torch.tensor([1.0, -0.9, 0.5]).repeat(dims)[:dims], "many": torch.linspace(-1, 1, dims)}
    matrix = 0.98 * (basis if kind == "orthogonal" else basis * values[kind].double() @ basis.T)
    calls = []

    def branch(x: Tensor, samples: Tensor | slice = slice(None)) -> Tensor:
        calls.append(len(x))
        return (x.flatten(1) @ matrix).view_as(x)

    return branch, calls


@pytest.mark.parametrize(("kind", "share"), [("three", 0.01), ("many", 0.2), ("orthogonal", 2.0)])
def test_inverse_of_a_hard_block(kind: str, share: float) -> None:
    """Anderson's method solves few eigenvalues at once, and helps with many; where it does not, it costs twice as much."""
    branch, calls = linear_branch(kind)
    z = images(3) * torch.tensor([0.1, 1.0, 10.0]).view(-1, 1, 1, 1)
    x = solve_block(branch, z, torch.zeros_like(z[:1]), "hard", 1e-8, 4000)
    assert (x + branch(x) - z).abs().max() <= 1e-8 + 1e-12
    # The residual of the fixed-point iteration falls by 0.98.
    fixed_point_steps = math.log(1e-8 / z.norm()) / math.log(0.98)
    assert len(calls) - 1 <= share * fixed_point_steps


def test_inverse_that_does_not_converge_names_block_error_and_tolerance() -> None:
    flow = make("resflow-released")
    with pytest.raises(ConvergenceError, match=r"scales\.1\.1.*1 iterations.*1\.00e-06"):
        flow.inverse(images(2), max_iterations=1)
    with pytest.raises(ConvergenceError, match="nan"):
        flow.inverse(images(2) * math.nan, max_iterations=3)


def test_inverse_with_stale_norms_raises_and_the_named_remedy_works() -> None:
    flow = make("resflow-spectral")
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.fill_(1.0)  # the vectors kept from the old weights know nothing of this direction
    with pytest.raises(ConvergenceError, match="update_norms"):
        flow.inverse(images(2), max_iterations=200)
    flow.update_norms()
    flow.update_norms()
    flow.inverse(images(2))


# ----------------------------------------------------------------------------------------------------------------------
# Golden numbers of the released code


class Golden:
    """Recorded numbers, and the flow that they belong to; both in float64, so that only the records have float32's rounding."""

    def __init__(self) -> None:
        self.arrays = np.load(GOLDEN / "flow_resflow.npz")
        config = json.loads((GOLDEN / "configs.json").read_text())["flow_resflow"]
        config["data"] = {"image_size": 16, "num_channels": 3}
        self.flow = import_flow(load_file(GOLDEN / "flow_resflow.state.safetensors"), config).double()

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key]).double()

    def replay(self, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the flow use the recorded draws: per block the Poisson number, then the probe."""
        numbers = iter([int(self[f"{run}_draw{i}"]) for i in range(0, 8, 2)])
        probes = iter([self[f"{run}_draw{i}"] for i in range(1, 8, 2)])
        monkeypatch.setattr(sources, "draw_roulette", lambda *_: next(numbers))
        for module in (sources, residual):
            monkeypatch.setattr(module, "draw_probe", lambda *_: next(probes))


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden()


def test_golden_forward_and_inverse(golden: Golden) -> None:
    z, _ = golden.flow(golden["x"], "none")
    torch.testing.assert_close(z, golden["z"], atol=1e-6, rtol=0)
    torch.testing.assert_close(golden.flow.inverse(golden["z"], atol=1e-12), golden["x"], atol=1e-5, rtol=0)


def test_golden_series_value(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """The released 20 terms and more leave nothing out here, nor do ours: with the same probes, the values agree."""
    golden.replay("eval_run", monkeypatch)
    with torch.no_grad():
        z, log_det = golden.flow(golden["x"], Series(1e-9))
    torch.testing.assert_close(z, golden["eval_run_z"], atol=1e-6, rtol=0)
    torch.testing.assert_close(log_det, golden["eval_run_logdet_minus_kl"], atol=1e-5, rtol=0)


def test_golden_training_value_and_gradients(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded gradients are those of sum(z * w) - sum(log_det)."""
    golden.replay("train_run", monkeypatch)
    flow = copy.deepcopy(golden.flow)
    z, log_det = flow(golden["x"], "train")
    torch.testing.assert_close(log_det, golden["train_run_logdet_minus_kl"], atol=1e-5, rtol=0)
    ((z * golden["train_run_w"]).sum() - log_det.sum()).backward()
    own = gradients(flow, export_flow)
    norms = torch.tensor([own[name].norm() for name in golden.arrays["train_run_grad_names"]], dtype=torch.float64)
    torch.testing.assert_close(norms, golden["train_run_grad_norms"], rtol=1e-5, atol=0)


def test_released_size() -> None:
    """The released count includes two scalars per block that this flow does not have (geom_p and lamb)."""
    flow = ResidualFlow(3, 32, blocks=(16, 16), width=512)
    assert sum(p.numel() for p in flow.parameters()) + 2 * 32 == 10_633_520


# ----------------------------------------------------------------------------------------------------------------------
# Convolutions, and the branch's own product with its Jacobian


@pytest.mark.parametrize(
    ("inputs", "outputs", "size"), [(1, 6, 3), (6, 1, 3), (3, 5, 3), (3, 3, 3), (5, 4, 3), (2, 7, 1)]
)
def test_convolutions_and_their_adjoints_are_the_librarys(inputs: int, outputs: int, size: int) -> None:
    x, y = (torch.randn(2, channels, 5, 5, dtype=torch.float64, requires_grad=True) for channels in (inputs, outputs))
    weight = torch.randn(outputs, inputs, size, size, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(outputs, dtype=torch.float64)
    torch.testing.assert_close(convolve(x, weight, bias), F.conv2d(x, weight, bias, padding=size // 2))
    torch.testing.assert_close((convolve(x, weight) * y).sum(), (x * convolve(y, adjoint(weight))).sum())
    assert torch.equal(convolve(x, weight).detach(), convolve(x.detach(), weight.detach()))
    assert torch.autograd.gradcheck(convolve, (x, weight))
    assert torch.autograd.gradgradcheck(convolve, (x, weight))


@pytest.mark.parametrize("activation", ["sin", "elu"])
@pytest.mark.parametrize("leading_activation", [True, False])
def test_the_branchs_own_product_is_that_of_autograd(activation: ActivationName, leading_activation: bool) -> None:
    """In value and in the gradients of the weights, the images and the condition."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"bound": "linf", "coefficient": 0.9, "condition_features": 3}
    block = ResidualBlock(2, 5, 6, activation=activation, leading_activation=leading_activation, **sizes).double()
    x, h = (torch.randn(4, *shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 5, 5), (3,)))
    v, w = torch.randn(2, *x.shape, dtype=torch.float64)
    g, vjp = block.linearise(x, h)
    (expected,) = torch.autograd.grad(g, x, v, create_graph=True)
    torch.testing.assert_close(vjp(v), expected)
    torch.testing.assert_close(vjp(torch.cat([v, w])), torch.cat([expected, vjp(w)]))
    inputs = [x, h, *block.parameters()]
    ours, autograds = (
        torch.autograd.grad(value, inputs, w, retain_graph=True, materialize_grads=True) for value in (vjp(v), expected)
    )
    torch.testing.assert_close(ours, autograds)


def branch_and_estimate_reference(
    block: ResidualBlock, x: Tensor, condition: Tensor | None, probe: Tensor, coefficients: list[float]
) -> tuple[Tensor, Tensor]:
    """Return what ``branch_and_estimate`` does, by autograd; ``x`` requires a gradient."""
    g = block(x, condition)

    def vjp(w: Tensor) -> Tensor:
        return torch.autograd.grad(g, x, w, create_graph=True)[0]

    return g, (vjp(neumann_vector(vjp, probe, coefficients)) * probe).flatten(1).sum(1)


@pytest.mark.parametrize(
    ("columns", "coefficients", "kept", "probed"),
    [
        (1, [1.0], 0, 4),
        (10, [1.0, 1.0, 1.5, 2.5], 600, 4),
        (75, [1.0, 1.0, 1.5, 2.5], 599, 4),
        (1000, [], 600, 4),
        (10, [1.0, 1.5], 0, 1),
        (75, [1.0, 1.5], 600, 3),
        (1000, [1.0], 600, 0),
        (1000, [1.0], 0, 0),
    ],
)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("leading_activation", [True, False])
@pytest.mark.parametrize(("condition_features", "bound"), [(0, "spectral"), (3, "linf")])
def test_written_out_estimate_and_gradients_are_those_of_autograd(
    columns: int,
    coefficients: list[float],
    kept: int,
    probed: int,
    activation: ActivationName,
    leading_activation: bool,
    condition_features: int,
    bound: Bound,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pixel at a time, ten of 25 pixels, three of four images, and all at once; every image with a weight of its own.

    A hidden layer has 600 elements, which are kept or computed again; the first images have a probe, as many as ``probed``.
    """
    batch, channels, size, width = 4, 2, 5, 6
    monkeypatch.setattr(kernels, "ELEMENTS", width * columns)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"bound": bound, "coefficient": 0.9, "condition_features": condition_features}
    block = ResidualBlock(
        channels, size, width, activation=activation, leading_activation=leading_activation, **sizes
    ).double()
    block.kept_elements = kept
    x, probe, above = torch.randn(3, batch, channels, size, size, dtype=torch.float64)
    # Without a probe, a number without a gradient.
    probe[probed:] = 0
    h, weight = torch.randn(batch, 3, dtype=torch.float64, requires_grad=True), torch.randn(batch, dtype=torch.float64)
    inputs = [x.requires_grad_(), *([h] if condition_features else []), *block.parameters()]
    condition = h if condition_features else None
    found = block.branch_and_estimate(x, condition, probe[:probed], coefficients)
    g, estimate = branch_and_estimate_reference(block, x, condition, probe, coefficients)
    right, weight = (g, estimate[:probed]), weight[:probed]
    torch.testing.assert_close(found, right, rtol=1e-11, atol=1e-11)
    for direction in ((above, weight), (torch.zeros_like(above), weight), (above, torch.zeros_like(weight))):
        ours, autograds = (
            torch.autograd.grad(values, inputs, direction, retain_graph=True, materialize_grads=True)
            for values in (found, right)
        )
        torch.testing.assert_close(ours, autograds, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kept", [0, 2**23], ids=["computed again", "kept"])
@pytest.mark.parametrize("channels", [3, 12])
def test_float32_moves_the_written_out_gradients_by_rounding_only(kept: int, channels: int) -> None:
    """Against float64 and autograd: 6e-8 to 4.4e-7 of a gradient's length were measured, as before in float32."""
    torch.manual_seed(0)
    kind: dict[str, Any] = {"activation": "sin", "bound": "linf", "coefficient": 0.98, "leading_activation": True}
    block = ResidualBlock(channels, 16, 64, **kind)
    block.kept_elements = kept
    x, probe, above = torch.randn(3, 4, channels, 16, 16)
    results: list[tuple[Tensor, ...]] = []
    for estimate, dtype in (
        (block.branch_and_estimate, torch.float32),
        (functools.partial(branch_and_estimate_reference, block), torch.float64),
    ):
        block.to(dtype)
        images = x.to(dtype).requires_grad_()
        values = estimate(images, None, probe.to(dtype), [1.0, 1.0, 1.2, 1.7])
        inputs = [images, *block.parameters()]
        results.append(torch.autograd.grad(values, inputs, (above.to(dtype), torch.ones(4, dtype=dtype))))
    for ours, expected in zip(*results, strict=True):
        assert (ours - expected).norm() < 1e-6 * expected.norm()


def noted(shapes: list[torch.Size], tensor: Tensor) -> Tensor:
    shapes.append(tensor.shape)
    return tensor


def test_a_large_batch_keeps_two_fifths_of_the_hidden_values() -> None:
    """Which are computed again, so that the largest batch is as large as before."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"bound": "linf", "coefficient": 0.9, "leading_activation": True}
    block = ResidualBlock(1, 4, 16, activation="sin", **sizes)
    x, probe = torch.randn(2, 8, 1, 4, 4)
    kept: list[int] = []
    for block.kept_elements in (16 * x.numel() - 1, 16 * x.numel()):
        shapes: list[torch.Size] = []
        with torch.autograd.graph.saved_tensors_hooks(functools.partial(noted, shapes), torch.clone):
            block.branch_and_estimate(x.requires_grad_(), None, probe, [1.0])
        kept.append(shapes.count(torch.Size([16, x.numel()])))
    assert kept == [2, 5]


@pytest.mark.parametrize("kind", ["resflow", "wolf", "resflow behind maps"])
def test_the_mean_over_all_subsets_is_the_gradient_of_the_batch(kind: str) -> None:
    """With one image of three, and with two; latents are the same, and only the estimated log-determinant is of the subset."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"blocks": (1, 1), "width": 6}
    options |= SMALL_WOLF if kind == "wolf" else {"behind": ["curve", "filter"]} if "behind" in kind else {}
    flow = build_flow(kind.split()[0], channels_in=CHANNELS, image_size=SIZE, **options).double().eval()
    for parameter in flow.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.rand(3, CHANNELS, SIZE, SIZE, dtype=torch.float64) - 0.5

    def gradient(log_det: LogDet) -> tuple[Tensor, Tensor]:
        z, value = flow(x, log_det, torch.Generator().manual_seed(0))
        found = torch.autograd.grad((z.square().sum() + value.sum()), list(flow.parameters()), materialize_grads=True)
        return z, torch.cat([part.flatten() for part in found])

    z, whole = gradient("train")
    for count in (1, 2):
        orders = torch.tensor(list(itertools.permutations(range(3))))
        subsets = [gradient(Subset(order, count, 3 / count)) for order in orders]
        for latents, part in subsets:
            torch.testing.assert_close(latents, z)
            assert (part - whole).norm() > 1e-3 * whole.norm()
        torch.testing.assert_close(torch.stack([part for _, part in subsets]).mean(0), whole, rtol=1e-12, atol=1e-12)
    _, closed = gradient(Subset(torch.arange(3), 0, 3.0))
    assert closed.isfinite().all()


@pytest.mark.parametrize("name", LEARNED)
def test_a_closed_form_takes_all_images_of_a_subset(name: str) -> None:
    flow = build_flow(name, channels_in=CHANNELS, image_size=SIZE).double()
    for parameter in flow.parameters():
        parameter.data += 0.1
    for found, whole in zip(flow(images(3), Subset(torch.arange(3), 1, 3.0)), flow(images(3), "train"), strict=True):
        assert torch.equal(found, whole)


# ----------------------------------------------------------------------------------------------------------------------
# Log-det estimators


def one_block() -> tuple[ResidualBlock, Tensor]:
    """A block with Lip(g) = 0.35 and one image, 16 times: one call then averages over 16 probes."""
    torch.manual_seed(0)
    flow = ResidualFlow(CHANNELS, SIZE, blocks=(1,), width=8, activation="elu", bound="spectral", coefficient=0.8)
    _, _, block = next(flow.named_blocks())
    with torch.no_grad():
        for conv in block.convs:
            conv.weight.abs_()  # the layers' largest directions then agree, and their gains multiply
    block.update_norms()
    block.scale_to_bound()
    return block.double(), images(1).expand(16, -1, -1, -1).clone().requires_grad_()


def assert_mean(samples: Tensor, expected: Tensor) -> None:
    """Every column's mean lies within 4 standard errors of what is expected."""
    error = (samples.mean(0) - expected).abs() / (samples.std(0) / math.sqrt(len(samples)))
    assert error.max() < 4, error


BOUNDED: list[dict[str, Any]] = [
    {"activation": "sin", "bound": "linf", "coefficient": 0.98},
    {"activation": "elu", "bound": "linf", "coefficient": 0.98},
    {"activation": "elu", "bound": "spectral", "coefficient": 0.97},
    {"activation": "sin", "bound": "spectral", "coefficient": 0.7},
]


def near_its_bound(sign: float, *, aligned: bool = True, **options: Any) -> ResidualFlow:
    """A flow with every layer at its bound, without biases; aligned, J is +c or -c times the identity at the image 0.

    There the bounds on what a series leaves out are attained. Else the layers blur, and J has eigenvalues of every size.
    """
    torch.manual_seed(0)
    flow = ResidualFlow(CHANNELS, SIZE, blocks=(2, 1), width=8, **options).double()
    for _, _, block in flow.named_blocks():
        for conv in block.convs:
            outputs, inputs, size, _ = conv.weight.shape
            few = min(outputs, inputs)
            middle = F.pad(torch.eye(few).repeat(outputs // few, inputs // few)[..., None, None], [size // 2] * 4)
            conv.weight.data = middle.double() if aligned else conv.weight.data.abs()
            conv.bias.data.zero_()
        block.conv3.weight.data.mul_(sign)
    for _ in range(5):
        flow.update_norms()
    for _, _, block in flow.named_blocks():
        block.scale_to_bound()
    return flow


def whole_basis(x: Tensor, *_: object) -> Tensor:
    """As many probes as dimensions, whose mean v^T A v is tr(A), for as many copies of an image."""
    return math.sqrt(len(x)) * torch.eye(len(x), dtype=x.dtype).view_as(x)


@pytest.mark.parametrize("options", BOUNDED, ids=str)
@pytest.mark.parametrize(("aligned", "sign"), [(True, 1.0), (True, -1.0), (False, 1.0)])
def test_what_the_series_leaves_out_is_within_the_tolerance(
    options: dict[str, Any], aligned: bool, sign: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the noise of probes, against the Jacobian of the whole map."""
    monkeypatch.setattr(residual, "draw_probe", whole_basis)
    flow, dims = near_its_bound(sign, aligned=aligned, **options), CHANNELS * SIZE**2
    image = (0.0 if aligned else 0.1) * images(1)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x, "none")[0], image).view(dims, dims)
    exact = torch.linalg.slogdet(jacobian).logabsdet
    for tolerance in (1e-2, 1e-4, 1e-8):
        found = flow(image.expand(dims, -1, -1, -1), Series(tolerance))[1].mean()
        assert abs(found - exact) <= tolerance * dims, tolerance


@pytest.mark.parametrize("options", BOUNDED, ids=str)
def test_bound_of_the_rest_holds_for_every_probe_and_is_attained(options: dict[str, Any]) -> None:
    """J = -c I: a rest is c^k/k |v|^2, summed, and Rademacher's probes have |v|_q |v|_p = |v|^2; c/(n + 1)/(1 - c) is coarser."""
    _, _, block = next(near_its_bound(-1.0, **options).named_blocks())
    x = torch.zeros(3, CHANNELS, SIZE, SIZE, dtype=torch.float64)
    dims, probe, (c, p) = x[0].numel(), draw_probe(x, "rademacher", seeded(0)), block.contraction()
    assert c == pytest.approx(options["coefficient"] ** 3)
    for terms in (1, 5, 20, 100):
        bound = dims * c ** (terms + 1) / (terms + 1) / (1 - c)
        found = series_log_det(block.linearise(x)[1], probe, Contraction(c, p), bound * (1 + 1e-9))
        error = (found - dims * math.log1p(-c)).abs()
        rounding = 1e-12
        assert (error <= bound + rounding).all()
        assert (error + rounding >= bound / 5).all()


def test_each_image_has_the_terms_that_it_needs() -> None:
    """Its value does not depend on what else is in the batch."""
    flow = near_its_bound(1.0, **BOUNDED[0])
    x = images(3) * torch.tensor([0.0, 0.1, 1.0]).view(-1, 1, 1, 1)
    together = flow(x, Series(1e-3), seeded(0))[1]
    for sample in range(3):
        share = Share(seeded(0), slice(sample, sample + 1), 3)
        torch.testing.assert_close(flow(x[sample : sample + 1], Series(1e-3), share)[1], together[[sample]])


@pytest.mark.parametrize("options", [pytest.param(BOUNDED[0], marks=pytest.mark.long), BOUNDED[2]], ids=str)
def test_error_of_the_probes_is_finite_and_no_image_shares_it(options: dict[str, Any]) -> None:
    """So the spread over images contains it: repeated, the mean of N images varies by 1/N of what one image does.

    A Poisson number of terms after 20, drawn for a whole batch and weighted by a roulette, makes the mean of 40 images vary 8
    and 3 times as much here, with a kurtosis of 113 and 65.
    """
    flow, count, repeats = near_its_bound(-1.0, **options), 20, 75
    x = torch.zeros(count, CHANNELS, SIZE, SIZE, dtype=torch.float64)
    with torch.no_grad():
        values = torch.stack([flow(x, Series(1e-2), seeded(seed))[1] for seed in range(repeats)])
        exact = flow(x[:1], "exact")[1]
    means = values.mean(1)
    assert_mean(means[:, None], exact)
    assert ((means - means.mean()) ** 4).mean() / means.var() ** 2 < 5
    claimed = values.var(1).mean() / count  # the square of the standard error over images
    assert (means.var() / claimed).item() == pytest.approx(1, abs=4 * math.sqrt(2 / repeats))


@pytest.mark.parametrize("options", [BOUNDED[0], BOUNDED[2]], ids=str)
def test_series_of_no_contraction_raises(options: dict[str, Any]) -> None:
    _, _, block = next(near_its_bound(1.0, **options).named_blocks())
    x = torch.zeros(2, CHANNELS, SIZE, SIZE, dtype=torch.float64)
    _, vjp = block.linearise(x)
    with pytest.raises(ConvergenceError, match=r"series.*1\.00e-06.*update_norms"):
        series_log_det(vjp, torch.ones_like(x), Contraction(0.5, block.contraction().p), 1e-6)


def test_neumann_gradient_is_unbiased_and_its_value_is_a_trace() -> None:
    """Over the roulette's draws, each by its probability, and over a basis of probes, which leave no noise."""
    block, sixteen = one_block()
    x = sixteen[:1].detach().repeat(sixteen[0].numel(), 1, 1, 1).requires_grad_()
    parameters, probe = list(block.parameters()), whole_basis(x)
    directions = torch.randn(sum(p.numel() for p in parameters), 12, generator=seeded(4), dtype=x.dtype)

    def projected(value: Tensor) -> Tensor:
        gradients = torch.autograd.grad(value.mean(), parameters, retain_graph=True, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in gradients]) @ directions

    found = torch.zeros(13, dtype=x.dtype)
    for number in range(20):
        _, value = block.branch_and_estimate(x, None, probe, roulette_coefficients(number, 4, 2.0))
        found += poisson.pmf(number, 2.0) * torch.cat([projected(value), value.mean().view(1)]).detach()
    log_det = exact_log_det(block.linearise(x)[1], x)
    jacobian = torch.autograd.functional.jacobian(block, x[:1]).view(x[0].numel(), -1)
    trace = torch.trace(torch.linalg.solve(torch.eye(len(jacobian)).to(jacobian) + jacobian, jacobian))
    assert (trace - log_det[0]).abs() > 0.05
    torch.testing.assert_close(found, torch.cat([projected(log_det), trace.view(1)]).detach(), rtol=1e-7, atol=1e-9)


# ----------------------------------------------------------------------------------------------------------------------
# Lipschitz bounds


def dense(conv: LipschitzConv2d, size: int) -> Tensor:
    """The matrix of the bounded convolution on size x size images, one column per output entry."""
    n = conv.in_channels * size**2
    basis = torch.eye(n, dtype=conv.weight.dtype).view(n, conv.in_channels, size, size)
    return F.conv2d(basis, bounded_weights([conv])[0], padding=conv.kernel_size[0] // 2).flatten(1)


@pytest.mark.parametrize(("channels_in", "channels_out", "kernel_size"), [(1, 16, 3), (16, 16, 1), (16, 1, 3)])
def test_spectral_bound_holds_after_a_change_of_the_weight(
    channels_in: int, channels_out: int, kernel_size: int
) -> None:
    torch.manual_seed(0)
    conv = SpectralConv2d(channels_in, channels_out, kernel_size, 6, 0.9)
    for scale in (0.0, 0.1, 10.0):
        with torch.no_grad():
            conv.weight.add_(scale * torch.randn_like(conv.weight))
        for _ in range(4):
            conv.update_norms()
        norm = torch.linalg.matrix_norm(dense(conv, 6), 2)
        assert norm <= 0.9 * (1 + 1e-3)
        assert conv.norm() < 0.9 or norm >= 0.9 * (1 - 1e-5)


def test_gradient_of_sigma_is_that_of_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    conv = SpectralConv2d(1, 8, 3, 5, coefficient=100.0).double()  # far from the bound: the weight stays as it is
    for _ in range(10):
        conv.update_norms()
    exact = torch.linalg.matrix_norm(dense(conv, 5), 2)
    (gradient,) = torch.autograd.grad(conv.norm(), conv.weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(exact, conv.weight)[0], atol=1e-6, rtol=0)


def test_linf_bound_is_per_output_channel() -> None:
    torch.manual_seed(0)
    conv = LinfConv2d(2, 3, 3, 6, 0.9).double()
    with torch.no_grad():
        conv.weight.mul_(torch.tensor([0.01, 1.0, 100.0]).view(-1, 1, 1, 1))
    rows = dense(conv, 6).abs().sum(0).view(3, -1).amax(1)
    torch.testing.assert_close(rows, conv.norm().flatten().clamp(max=0.9))


@pytest.mark.parametrize("few", [0, 50, 1000])
@pytest.mark.parametrize("bound", BOUNDS)
def test_weights_bounded_together_are_those_bounded_alone(
    bound: Bound, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of other shapes and other coefficients too, in the order given, with the gradients that each has alone."""
    monkeypatch.setattr(lipschitz, "FEW_ELEMENTS", few)
    torch.manual_seed(0)
    shapes: list[tuple[int, int, int, int, float]] = [(2, 4, 3, 6, 0.9), (4, 4, 1, 6, 0.9), (2, 4, 3, 6, 0.5)]
    convs = [BOUNDS[bound](*shape).double() for shape in (*shapes, *shapes)]
    with torch.no_grad():
        for index, conv in enumerate(convs):
            conv.weight.mul_(index)
            conv.update_norms()
    norms = [conv.norm() / conv.coefficient for conv in convs]
    alone = [conv.weight / norm.clamp(min=1) for conv, norm in zip(convs, norms, strict=True)]
    assert any((norm > 1).all() for norm in norms)
    together = bounded_weights(convs)
    torch.testing.assert_close(together, alone, atol=0, rtol=1e-15)
    weights, probes = [conv.weight for conv in convs], [torch.randn_like(conv.weight) for conv in convs]
    torch.testing.assert_close(*(torch.autograd.grad(found, weights, probes) for found in (together, alone)))


@pytest.mark.parametrize("probe", ["gaussian", "rademacher"])
def test_parts_of_a_batch_draw_what_the_whole_does(probe: Probe) -> None:
    x = torch.zeros(5, 3)
    whole, first, second = seeded(0), Share(seeded(0), slice(0, 2), 5), Share(seeded(0), slice(2, 5), 5)
    for _ in range(2):
        numbers = {draw_roulette(2.0, source) for source in (whole, first, second)}
        assert len(numbers) == 1
        parts = [draw_probe(x[part.samples], probe, part) for part in (first, second)]
        assert torch.equal(draw_probe(x, probe, whole), torch.cat(parts))
