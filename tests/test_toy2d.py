"""Known densities: log-densities by quadrature, models that are the truth or wrong by a known amount, a stack alone."""

import math
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import Generator, Tensor, nn

from indm.bench.cli import main
from indm.bench.stages import toy2d
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.studies import TOY2D
from indm.densities.cells import train_cells
from indm.densities.evaluation import energy_distance, likelihood, midpoint, moved, path_ratio, sample, true_gap
from indm.densities.figures import forward_coefficients, log_density
from indm.densities.known import DENSITIES, Mixture
from indm.densities.models import (
    CouplingFlow,
    Flow,
    LinearMap,
    Scale,
    ScoreMLP,
    Stack,
    parameter_count,
    select,
)
from indm.densities.movers import EncoderMover, RangeMover, SchedulesMover
from indm.densities.training import draws, nelbo_loss, train
from indm.diffusion.registered.vp import VP
from indm.diffusion.sde import SDE, T, importance_time
from indm.errors import DivergenceError
from indm.report.figures_toy2d import toy2d_figure
from indm.report.rows import read_rows
from indm.store.files import read_arrays
from indm.store.layout import Layout
from tests.conftest import REPOSITORY
from tests.gaussian import GaussianData

EPS = 1e-5
RECIPE: dict[str, Any] = {"eps": EPS, "steps": 12, "batch_size": 16, "lr": 1e-2, "map_lr": 3e-3, "ema_decay": 0.9}
MOONS = DENSITIES["moons"]()


class ExactNoise(nn.Module):
    """The noise prediction of Gaussian data as a stack of replicas, times a factor that is 1 if it is right."""

    def __init__(self, replicas: int, data: GaussianData, sde: SDE, factor: float = 1.0) -> None:
        super().__init__()
        self.count = nn.Parameter(torch.zeros(replicas))
        self.data, self.dims, self.sde, self.factor = data, data.dims, sde, factor

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        exact = self.data.noise_fn(self.sde, z.flatten(0, 1).double(), t.flatten())
        return self.factor * exact.to(z.dtype).view_as(z)


def identity(replicas: int) -> Scale:
    return Scale(torch.ones(replicas))


def random(flow: Flow) -> Flow:
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.5)
    return flow


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def exact(data: GaussianData, factor: float = 1.0, replicas: int = 1) -> Stack:
    return Stack(ExactNoise(replicas, data, VP(), factor), identity(replicas))  # type: ignore[arg-type]


def test_suites_name_each_density_in_its_dimension() -> None:
    assert set(get_args(TOY2D)) == set(DENSITIES)
    for name, build in DENSITIES.items():
        assert build().dims == (8 if name.endswith("-8d") else 2)


@pytest.mark.parametrize("name", [name for name, build in DENSITIES.items() if build().dims == 2])
def test_a_plane_density_integrates_to_one_and_its_samples_follow_it(name: str) -> None:
    """By a grid: the mass, and the share of each of 16 cells of the plane, against samples."""
    # The density of the moons is itself a sum, and smooth. Edges of the grid are edges of the cells.
    density, points, limit = DENSITIES[name](), 160 if name == "moons" else 400, 4.0
    axis = (torch.arange(points, dtype=torch.float64) + 0.5) / points * 2 * limit - limit
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).flatten(0, 1)
    mass = torch.cat([density.log_prob(part).exp() for part in grid.split(20_000)]) * (2 * limit / points) ** 2
    assert mass.sum().item() == pytest.approx(1, abs=2e-3)

    def cells(x: Tensor) -> Tensor:
        column, row = ((x + 0.9) / 0.6).floor().clamp(-1, 2).long().unbind(-1)
        return 4 * column + row + 5

    count = 40_000
    expected = torch.zeros(16, dtype=torch.float64).index_add(0, cells(grid), mass)
    found = torch.bincount(cells(density.sample(count, seeded())), minlength=16) / count
    assert (found - expected).abs().max() < 5 * 0.5 / count**0.5


@pytest.mark.parametrize("name", ["coupled-2d", "coupled-8d", "swirled-2d", "swirled-8d"])
def test_a_pushed_density_is_its_bases_times_autograds_jacobian(name: str) -> None:
    density = DENSITIES[name]()
    u = density.base.sample(5, seeded())  # type: ignore[attr-defined]
    for point in u:
        x = density.inverse(point[None])[0]  # type: ignore[attr-defined]
        jacobian = torch.func.jacrev(lambda u: density.inverse(u[None])[0])(point)  # type: ignore[attr-defined]
        expected = density.base.log_prob(point[None])[0] - torch.linalg.slogdet(jacobian).logabsdet  # type: ignore[attr-defined]
        assert density.log_prob(x[None]).item() == pytest.approx(expected.item())


def test_mixtures_of_eight_dimensions_are_sums_of_normal_densities() -> None:
    density = DENSITIES["mixture-8d"]()
    assert isinstance(density, Mixture)
    x, total = density.sample(3, seeded()), torch.zeros(3, dtype=torch.float64)
    for weight, mean, factor in zip(density.weights, density.means, density.factors, strict=True):
        u = torch.linalg.solve(factor, (x - mean).T).T
        total += weight * (-u.square().sum(1) / 2 - 4 * math.log(2 * math.pi) - factor.det().abs().log()).exp()
    torch.testing.assert_close(density.log_prob(x), total.log())
    found = density.sample(60_000, seeded())
    mean = (density.weights[:, None] * density.means).sum(0)
    torch.testing.assert_close(found.mean(0), mean, rtol=0, atol=0.02)


def test_the_gaussian_pair_differs_in_its_spectrum_alone() -> None:
    spectra = {}
    for name in ("white-8d", "steep-8d"):
        density = DENSITIES[name]()
        assert isinstance(density, Mixture)
        spectra[name] = torch.linalg.eigvalsh(density.factors[0] @ density.factors[0].T)
        torch.testing.assert_close(
            torch.cov(density.sample(90_000, seeded()).T), density.factors[0] @ density.factors[0].T, rtol=0, atol=0.02
        )
    torch.testing.assert_close(spectra["white-8d"], torch.full((8,), 0.25, dtype=torch.float64))
    assert (spectra["steep-8d"].max() / spectra["steep-8d"].min()).item() == pytest.approx(100)
    assert spectra["steep-8d"].mean().item() == pytest.approx(0.25)


@pytest.mark.parametrize("dims", [2, 8])
def test_a_model_that_is_the_truth_is_no_distance_from_it(dims: int) -> None:
    data = GaussianData(dims)
    x = data.draw(1000).float().view(2, 500, dims)
    found = likelihood(exact(data, replicas=2), VP(), x, eps=EPS, time_draws=512, tolerance=1e-4, generator=seeded())
    for excess in (values - data.nll(x.double()) for values in found):
        torch.testing.assert_close(excess.mean(1), torch.zeros(2, dtype=torch.float64), rtol=0, atol=0.008 * dims)


def isotropic(std: float) -> GaussianData:
    data = GaussianData(2)
    data.mean, data.covariance = torch.zeros(2).double(), std**2 * torch.eye(2).double()
    data.variances, data.axes = std**2 * torch.ones(2).double(), torch.eye(2).double()
    return data


def by_quadrature(std: float, factor: float, points: int = 200_000) -> tuple[float, float, float]:
    """Return NELBO + log p, the variational gap and NELBO - NLL of the ODE, in nats per dimension, of a score times a factor.

    The reverse process and the ODE are linear, so their densities are Gaussian; their variances follow an equation in
    A = -log SNR, which is solved by an integrating factor.
    """
    sde = VP()
    low, high = sde.antiderivative(torch.tensor([EPS, T], dtype=torch.float64)).tolist()
    da = (high - low) / points
    a = high - (torch.arange(points, dtype=torch.float64) + 0.5) * da
    noise = torch.sigmoid(a)
    total = (1 - noise) * std**2 + noise
    bound = (factor - 1) ** 2 / 2 * (noise / total).sum().item() * da

    def divergence(share: float, fresh: float) -> float:
        growth = (2 * da * (noise / 2 - share * factor * noise / total)).cumsum(0)
        last = growth[-1]
        variance = (last.exp() + fresh * (noise * (last - growth).exp()).sum() * da).item()
        eps = torch.tensor(EPS, dtype=torch.float64)
        truth = ((sde.alpha(eps) * std) ** 2 + sde.sigma(eps) ** 2).item()
        return (truth / variance - 1 - math.log(truth / variance)) / 2

    return bound, bound - divergence(1.0, 1.0), bound - divergence(0.5, 0.0)


def test_a_linear_score_that_is_wrong_by_a_twentieth_has_its_gaps() -> None:
    """The bound is 0.017 nats a dimension too high, of which 0.014 are the gap; NELBO - NLL of the ODE is -0.12."""
    data = isotropic(0.2)
    expected = by_quadrature(0.2, 1.05)
    assert expected == pytest.approx((0.0166, 0.0142, -0.122), abs=5e-4)
    x, stack = data.draw(1500).float()[None], exact(data, 1.05)
    nelbo, nll = likelihood(stack, VP(), x, eps=EPS, time_draws=256, tolerance=1e-4, generator=seeded())
    assert (nelbo - data.nll(x[0].double())).mean().item() / 2 == pytest.approx(expected[0], abs=3e-3)
    assert (nelbo - nll).mean().item() / 2 == pytest.approx(expected[2], abs=6e-3)
    found = true_gap(stack, VP(), x[:, :200], eps=EPS, paths=16, steps=256, generator=seeded())
    assert found["true_gap"].item() / 2 == pytest.approx(expected[1], abs=2e-3)
    assert found["ess"].item() > 0.9


@pytest.mark.long
def test_the_importance_weighted_gap_rises_with_the_paths_to_its_limit() -> None:
    expected, x = by_quadrature(0.2, 1.2)[1], isotropic(0.2).draw(200).float()[None]
    stack = exact(isotropic(0.2), 1.2)
    few, many = (true_gap(stack, VP(), x, eps=EPS, paths=paths, steps=512, generator=seeded()) for paths in (1, 16))
    assert few["true_gap_fewer"].item() == pytest.approx(0, abs=1e-9)
    assert few["true_gap"] < many["true_gap_fewer"] < many["true_gap"] + 0.02
    assert many["true_gap"].item() / 2 == pytest.approx(expected, rel=0.08)
    assert few["ess"] > many["ess"]


def test_samples_of_a_gaussian_have_its_moments() -> None:
    data = GaussianData(2)
    x = sample(exact(data), VP(), 8000, 100, grid="uniform", eps=EPS, generator=seeded())[0].double()
    assert torch.allclose(x.mean(0), data.mean, atol=0.03)
    assert torch.allclose(torch.cov(x.T), data.covariance, atol=0.03)


def test_the_energy_distance_of_equal_laws_is_zero_on_average_and_of_points_exact() -> None:
    x, y = (torch.randn(4000, 10, 2, generator=seeded(seed)) for seed in (0, 1))
    same = energy_distance(x, y)
    assert abs(same.mean()) < 3 * same.std() / 4000**0.5
    assert (same < 0).any()
    far = energy_distance(torch.zeros(1, 3, 2), torch.tensor([[[3.0, 4.0]]]).expand(1, 2, 2))
    assert far.item() == pytest.approx(10)


def test_only_a_nonlinear_flow_is_far_from_affine() -> None:
    x, noise = torch.randn(3, 50, 2), ScoreMLP(3, 2, 4, 1, VP())
    assert midpoint(Stack(noise, random(LinearMap(3, 2))), x).max() < 1e-10
    assert midpoint(Stack(noise, random(CouplingFlow(3, 2, 4, 8))), x).min() > 1e-3


torch.manual_seed(0)
FLOWS: dict[str, Flow] = {
    "odd": random(CouplingFlow(3, 2, 3, 8)),
    "even": random(CouplingFlow(3, 2, 4, 8)),
    "fixed": Scale(1 + torch.rand(3)),
    "linear": random(LinearMap(3, 2)),
}
IN_EIGHT: dict[str, Flow] = {"eight": random(CouplingFlow(3, 8, 3, 8)), "linear-8d": random(LinearMap(3, 8))}
EACH_FLOW = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)


@pytest.mark.parametrize("flow", (FLOWS | IN_EIGHT).values(), ids=FLOWS | IN_EIGHT)
def test_flow_inverts_and_its_log_determinant_is_autograds(flow: Flow) -> None:
    dims = 8 if flow in IN_EIGHT.values() else 2
    flow, x = flow.double(), torch.randn(3, 5, dims, dtype=torch.float64)
    z, log_det = flow(x)
    assert torch.allclose(flow.inverse(z), x)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x)[0], x)
    for replica in range(3):
        for point in range(5):
            block = jacobian[replica, point, :, replica, point]
            assert log_det[replica, point].item() == pytest.approx(torch.linalg.slogdet(block).logabsdet.item())


@EACH_FLOW
def test_forward_coefficients_are_those_of_short_steps(flow: Flow) -> None:
    """Mean and covariance of the image of one short Euler-Maruyama step of the latent, by a quadrature of degree 3."""
    one, sde, t, dt = select(flow, slice(1)).double(), VP(), 0.3, 1e-8
    x = torch.randn(6, 2, dtype=torch.float64)
    z = one(x[None])[0].detach()
    time = torch.tensor(t, dtype=torch.float64)
    f, g = sde.drift(time).item(), sde.diffusion(time).item()
    nodes = math.sqrt(2 * dt) * torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    moved = torch.stack([one.inverse(z + f * z * dt + g * node)[0] for node in nodes]).detach()
    drift, volatility = forward_coefficients(one, sde, x, t)
    assert torch.allclose((moved.mean(0) - x) / dt, drift, rtol=1e-2, atol=1e-2)
    step = moved - moved.mean(0)
    covariance = torch.einsum("nbi,nbj->bij", step, step) / 4 / dt
    assert torch.allclose(covariance, volatility @ volatility.mT, rtol=1e-2, atol=1e-2)


def test_density_is_absent_where_the_ode_cannot_be_solved() -> None:
    class Exact(ExactNoise):
        def forward(self, z: Tensor, t: Tensor) -> Tensor:
            return torch.where(z[..., :1] > 5, math.inf, 1.0) * super().forward(z, t)

    data = GaussianData(2)
    stack = Stack(Exact(1, data, VP()), identity(1))  # type: ignore[arg-type]
    x = torch.stack([data.mean.float(), torch.tensor([6.0, 0.0]), data.draw(1)[0].float()])
    found = log_density(stack, VP(), x, EPS)
    assert found.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(found[::2].double(), -data.nll(x[::2].double()), rtol=0, atol=5e-3)


def test_path_ratio_of_lines_and_half_circles() -> None:
    progress = torch.linspace(0, 1, 200)
    line = torch.stack([progress, 2 * progress], 1)
    half_circle = torch.stack([(math.pi * progress).cos(), (math.pi * progress).sin()], 1)
    paths = torch.stack([line, half_circle], 1)[:, :, None]
    assert path_ratio(paths).tolist() == pytest.approx([1, math.pi / 2], rel=1e-4)


MOVERS = ["schedules", "range", "encoder"]


def build(replicas: int, flow: str) -> Stack:
    flows: dict[str, Flow] = {
        "none": identity(replicas),
        "map": LinearMap(replicas, 2),
        "couplings": CouplingFlow(replicas, 2, 2, 4),
        "schedules": SchedulesMover(replicas, 2, EPS),
        "range": RangeMover(replicas, EPS),
        "encoder": EncoderMover(replicas, 2, 1, 4),
    }
    return Stack(ScoreMLP(replicas, 2, 8, 2, VP()), flows[flow])


def fit(stack: Stack, seeds: list[int], **changes: Any) -> tuple[Stack, int]:
    return train(stack, VP(), MOONS, "moons", seeds, **RECIPE | changes)


@pytest.mark.parametrize("flow", ["none", "map", "couplings", *MOVERS])
def test_a_replica_of_a_stack_is_trained_as_if_alone(flow: str) -> None:
    """In float64: Adam makes whole steps of a gradient that is nothing but the rounding of a batched product."""
    stacked, stacked_flops = fit(build(3, flow).double(), [0, 1, 2])
    alone, flops = fit(build(1, flow).double(), [1])
    assert flops == stacked_flops
    assert any(parameter.abs().sum() > 0 for parameter in alone.parameters())
    for one, many in zip(alone.parameters(), stacked.parameters(), strict=True):
        torch.testing.assert_close(one[0], many[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("flow", ["map", "couplings", *MOVERS])
def test_training_changes_every_parameter(flow: str) -> None:
    stack = build(1, flow)
    fit(stack, [0])
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in stack.parameters())


def test_points_are_fresh_in_every_step_and_a_seeds_own() -> None:
    steps = [x for x, _, _ in draws(MOONS, "moons", [3, 4, 3], 205, 16)]
    assert len(steps) == 205
    assert len(torch.stack(steps)[:, 0].flatten(0, 1).unique(dim=0)) == 205 * 16
    assert all(torch.equal(x[0], x[2]) and not torch.equal(x[0], x[1]) for x in steps)
    again = [x for x, _, _ in draws(MOONS, "moons", [4], 150, 16)]
    assert all(torch.equal(x[0], y[1]) for x, y in zip(again, steps, strict=False))


def test_a_replica_that_diverges_leaves_the_others_alone() -> None:
    class Broken:
        dims = 2

        def sample(self, count: int, generator: Generator) -> Tensor:
            x = MOONS.sample(count, generator)
            return x * (math.nan if generator.initial_seed() % 2 else 1)

    seeds = list(range(6))
    found, _ = train(build(6, "none").double(), VP(), Broken(), "moons", seeds, **RECIPE)  # type: ignore[arg-type]
    sound = [all(p[i].isfinite().all() for p in found.parameters()) for i in seeds]
    assert 0 < sum(sound) < 6
    alone, _ = fit(build(1, "none").double(), [sound.index(True)])
    for one, many in zip(alone.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(one[0], many[sound.index(True)], rtol=0, atol=1e-9)


@pytest.mark.parametrize("dims", [2, 8])
def test_a_linear_map_starts_at_the_identity(dims: int) -> None:
    x = torch.randn(3, 5, dims)
    z, log_det = LinearMap(3, dims)(x)
    assert torch.equal(z, x)
    assert not log_det.any()
    assert parameter_count(LinearMap(3, dims)) == dims**2 + dims


NUMBERS = ["nelbo_excess", "nll_excess", "gap", "energy_8", "energy_16", "energy_32", "path_ratio", "midpoint"]
NUMBERS.append("latent_std")
SIZES = {"width": 8, "layers": 2, "couplings": 2, "coupling_width": 4, "scale": 3.0}
MODELS = ("ddpmpp", "indm", "same-compute", "best-scale", "learned-linear", "frozen-flow")


def study(seeds: list[int], models: tuple[str, ...] = MODELS, **rates: float) -> dict[tuple[str, str], Any]:
    """Train all models of the study, small."""
    recipe = {key: value for key, value in RECIPE.items() if key not in ("lr", "map_lr")}
    found = {name: {"lr": 1e-2, "map_lr": 3e-3} | rates for name in models}
    cells = train_cells("moons", seeds, VP(), rates=found, **recipe | SIZES)
    return {(cell.model, cell.variant): cell for cell in cells}


def test_a_seed_begins_with_the_same_whatever_other_seeds_there_are() -> None:
    """Weights, to the bit: with rates of 0 they stay. What training makes of them is compared in float64 above."""
    few, many = (study(seeds, lr=0.0, map_lr=0.0) for seeds in ([5], [4, 5]))
    for cell, one in few.items():
        for name, value in one.stack.state_dict().items():
            torch.testing.assert_close(value[0], many[cell].stack.state_dict()[name][1], rtol=1e-5, atol=1e-6)


def test_frozen_flow_is_a_new_score_on_indms_flow() -> None:
    """The weights of a score network that is trained behind it by hand; INDM's flow, and its operations, count."""
    cells = study([0, 1], map_lr=0.3)
    flow, found = cells["indm", ""].stack.flow, cells["indm", "frozen-flow"]
    assert all(torch.equal(*pair) for pair in zip(found.stack.flow.parameters(), flow.parameters(), strict=True))
    alone, flops = fit(Stack(ScoreMLP(2, 2, 8, 2, VP()), flow), [0, 1])
    assert found.flops == flops + cells["indm", ""].flops
    assert all(
        torch.equal(*pair) for pair in zip(alone.noise.parameters(), found.stack.noise.parameters(), strict=True)
    )


def test_each_model_has_its_map_its_rates_and_its_length() -> None:
    cells = study([0, 1])
    factors = {
        variant: cells["ddpmpp", variant].stack.flow.factor.unique().tolist()
        for variant in ("", "same-compute", "best-scale")
    }
    assert factors == {"": [1.0], "same-compute": [1.0], "best-scale": [3.0]}
    ratio = cells["ddpmpp", "same-compute"].flops / cells["indm", ""].flops
    assert ratio == pytest.approx(1, abs=0.5 * cells["ddpmpp", ""].flops / RECIPE["steps"] / cells["indm", ""].flops)
    assert [*study([0], ("ddpmpp", "indm"))] == [("indm", ""), ("ddpmpp", "")]
    still = study([0], map_lr=0.0)
    assert not any(parameter.any() for parameter in still["ddpmpp", "learned-linear"].stack.flow.parameters())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy2d")
    smoke = str(REPOSITORY / "params" / "smoke.yaml")
    done = CliRunner().invoke(main, ["toy2d", "--suite", smoke, "--toy", "moons-tiny", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out / "smoke" / "toy2d"


def test_stage_writes_a_row_for_each_model_variant_and_seed(results: Path) -> None:
    table = read_rows(results / "moons-tiny.csv")
    seeds = load_suite(REPOSITORY / "params" / "smoke.yaml").toy2d.datasets["moons-tiny"].seeds
    cells = [("indm", ""), ("ddpmpp", ""), *(("ddpmpp", variant) for variant in MODELS[2:5]), ("indm", "frozen-flow")]
    assert list(zip(table["model"], table["variant"], strict=True)) == [cell for cell in cells for _ in seeds]
    assert list(table["seed"]) == seeds * len(cells)
    plain = table["variant"] == ""
    assert table[NUMBERS].notna().all(axis=None)
    assert (table["gap"] - table["nelbo_excess"] + table["nll_excess"]).abs().max() < 1e-4
    assert table["true_gap"].notna().tolist() == plain.tolist()
    latents = table.groupby(["model", "variant"])["latent_std"].first()
    assert latents["indm", "frozen-flow"] == latents["indm", ""]
    assert latents["ddpmpp", "best-scale"] == pytest.approx(3 * latents["ddpmpp", ""], rel=1e-4)


def test_test_points_have_another_seed_than_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    sample, used = Mixture.sample, []

    def note(self: Mixture, count: int, generator: Generator) -> Tensor:
        used.append(generator.initial_seed())
        return sample(self, count, generator)

    monkeypatch.setattr(Mixture, "sample", note)
    monkeypatch.setattr(toy2d, "likelihood", lambda stack, sde, x, **options: (x[0].sum(1), x[0].sum(1)))
    parameters = load_suite(REPOSITORY / "params" / "smoke.yaml").toy2d
    stack = Stack(ScoreMLP(1, 8, 4, 1, VP()), SchedulesMover(1, 8, EPS))
    toy2d._numbers(stack, VP(), parameters, "steep-8d", 3, gap=False, rivals=False)
    next(draws(DENSITIES["steep-8d"](), "steep-8d", [3], 1, 16))
    assert len(used) == len({*used}) == 2


@pytest.mark.long
def test_a_seed_that_fails_has_a_row_without_numbers_and_changes_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    suite, layout = load_suite(REPOSITORY / "params" / "smoke.yaml"), Layout(tmp_path, "smoke")
    measured, spoiled = toy2d._numbers, {1}

    def numbers(stack: Stack, *others: Any, **options: Any) -> dict[str, float]:
        if others[3] in spoiled:
            for parameter in stack.noise.parameters():
                parameter.data.fill_(math.nan)
        return measured(stack, *others, **options)

    monkeypatch.setattr(toy2d, "_numbers", numbers)
    job = suite.toy2d.datasets["steep-8d-tiny"]
    toy2d.run(suite, layout, "steep-8d-tiny")
    table = read_rows(layout.toy2d / "steep-8d-tiny.csv")
    assert table["nelbo_excess"].isna().tolist() == (table["seed"] == 1).tolist()
    job.seeds.remove(1)
    toy2d.run(suite, layout, "steep-8d-tiny")
    alone = read_rows(layout.toy2d / "steep-8d-tiny.csv")
    pd.testing.assert_frame_equal(alone, table[table["seed"] == 0].reset_index(drop=True)[alone.columns], rtol=1e-2)
    spoiled.add(0)
    with pytest.raises(DivergenceError, match=r"toy2d\.datasets\.steep-8d-tiny: found no seed"):
        toy2d.run(suite, layout, "steep-8d-tiny")


def test_a_study_of_rivals_has_costs_and_moves_and_says_what_a_path_lacks(tmp_path: Path) -> None:
    suite, layout = load_suite(REPOSITORY / "params" / "smoke.yaml"), Layout(tmp_path, "smoke")
    job = suite.toy2d.datasets["steep-8d-tiny"]
    job.seeds[:], length = [0], suite.toy2d.lengths[job.length]
    models: list[Any] = ["ddpmpp", "indm", "same-compute", "learned-range", "mulan", "diffenc"]
    length.rates.update(dict.fromkeys(models, length.rates["indm"]))
    for name in {*length.rates} - {*models}:
        del length.rates[name]
    toy2d.run(suite, layout, "steep-8d-tiny")
    table = read_rows(layout.toy2d / "steep-8d-tiny.csv").set_index(["model", "variant"])
    assert table["nelbo_excess"].notna().all()
    assert [*table.index[table["nll_excess"].isna()]] == [("diffenc", "")]
    linear = [("indm", ""), ("ddpmpp", ""), ("ddpmpp", "same-compute")]
    assert [*table.index[table["energy_8"].notna()]] == linear
    still = [("ddpmpp", ""), ("ddpmpp", "same-compute")]
    assert [*table.index[table["moved"] == 0]] == still
    assert (table["train_flops"] / table["step_flops"]).drop(still).eq(length.steps).all()


def test_the_loss_of_learned_ends_has_the_volume_of_the_fixed_decoder() -> None:
    """By hand: the mean of prior, error, entropy and decoder of the prediction 0, with ends that have moved."""
    dims, sde = 2, VP()
    stack = Stack(ScoreMLP(1, dims, 4, 1, sde), RangeMover(1, EPS)).double()
    assert isinstance(stack.flow, RangeMover)
    stack.flow.moves.data[:, 0] = 6.0
    x, u, noise = next(draws(MOONS, "moons", [0], 1, 64))
    path, z0 = stack.path(sde), x[:, :].flatten(0, 1).double()
    t, length = importance_time(sde, u.flatten(), EPS)
    error = path.error(stack.noise_fn(), z0, t, noise.flatten(0, 1).double())
    # The fixed decoder costs the same for every noise.
    fixed = path.decoder(lambda z, t: torch.zeros_like(z), z0, EPS, torch.zeros_like(z0))
    expected = (path.prior(z0) + length / 2 * error + path.entropy(z0, length, EPS) + fixed).mean()
    found = nelbo_loss(stack, sde, EPS, (x, u, noise))
    assert fixed.mean() > 1e-4
    torch.testing.assert_close(found, expected[None])


def test_points_that_are_scaled_have_moved_by_as_much() -> None:
    """By hand: alpha |2x - x|, whose mean square over A is E x^2 times the mean of alpha^2."""
    x, sde = torch.randn(2, 50, 2, generator=seeded()), VP()
    stack = Stack(ScoreMLP(2, 2, 4, 1, sde), Scale(torch.full((2,), 2.0)))
    times, _ = importance_time(sde, (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000, EPS)
    expected = (sde.alpha(times).square().mean() * x.double().square().mean((1, 2))).sqrt()
    torch.testing.assert_close(moved(stack, sde, x, EPS, seeded()), expected, rtol=1e-2, atol=0)


def test_figure_repeats_byte_for_byte(results: Path) -> None:
    arrays = read_arrays(results / "moons-tiny.safetensors")
    assert toy2d_figure(arrays) == toy2d_figure(arrays)
