"""Two-dimensional data: likelihoods against a Gaussian's, the flow against autograd, a stack against its replicas."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import wasserstein_distance
from torch import Generator, Tensor, nn

from indm.cli import main
from indm.diffusion.registered.vp import VP
from indm.diffusion.sde import SDE
from indm.errors import ArtifactError, DivergenceError
from indm.report.figures_toy2d import toy2d_figure
from indm.store.files import read_arrays
from indm.suite.load import load_suite
from indm.toy2d.cells import affine_variants, matching_width, train_cells
from indm.toy2d.data import DATASETS, draw_splits
from indm.toy2d.evaluation import likelihood, path_ratio, sample, sliced_wasserstein
from indm.toy2d.figures import forward_coefficients, log_density
from indm.toy2d.models import (
    FAMILIES,
    CouplingFlow,
    Flow2d,
    LearnedMap,
    ScoreMLP,
    Stack,
    Standardisation,
    initialise,
    parameter_count,
    select,
)
from indm.toy2d.training import train
from tests.conftest import REPOSITORY
from tests.gaussian import GaussianData

EPS = 1e-5
RECIPE: dict[str, Any] = {
    "dataset": "moons",
    "eps": EPS,
    "steps": 12,
    "flow_warmup_steps": 4,
    "batch_size": 16,
    "lr": 1e-2,
    "flow_lr": 3e-3,
    "ema_decay": 0.9,
}


class ExactNoise(nn.Module):
    """The noise prediction of Gaussian data as a stack of replicas."""

    def __init__(self, replicas: int, data: GaussianData, sde: SDE) -> None:
        super().__init__()
        self.count = nn.Parameter(torch.zeros(replicas))
        self.data = data
        self.sde = sde

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        exact = self.data.noise_fn(self.sde, z.flatten(0, 1).double(), t.flatten())
        return exact.to(z.dtype).view_as(z)


def identity(replicas: int) -> Standardisation:
    return Standardisation(torch.zeros(replicas), torch.ones(replicas))


def random_flow(replicas: int, couplings: int) -> CouplingFlow:
    flow = CouplingFlow(replicas, couplings, 8)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.5)
    return flow


def test_likelihood_of_a_gaussian_is_its_own() -> None:
    data = GaussianData(2)
    x = data.draw(2000).float().view(2, 1000, 2)
    stack = Stack(ExactNoise(2, data, VP()), identity(2))  # type: ignore[arg-type]
    found = likelihood(stack, VP(), x, eps=EPS, time_draws=512, tolerance=1e-4, generator=Generator().manual_seed(0))
    expected = data.nll(x.double()).mean(1)
    assert torch.allclose(found["nll"], expected, atol=2e-3)
    assert torch.allclose(found["nelbo"], expected, atol=1.5e-2)


def test_samples_of_a_gaussian_have_its_moments() -> None:
    data = GaussianData(2)
    stack = Stack(ExactNoise(1, data, VP()), identity(1))  # type: ignore[arg-type]
    x = sample(stack, VP(), 8000, 100, grid="uniform", eps=EPS, generator=Generator().manual_seed(0))[0].double()
    assert torch.allclose(x.mean(0), data.mean, atol=0.03)
    assert torch.allclose(torch.cov(x.T), data.covariance, atol=0.03)


def random_maps(families: list[str]) -> LearnedMap:
    maps = LearnedMap(families)
    nn.init.normal_(maps.coefficients, std=0.5)
    return maps


FLOWS: dict[str, Flow2d] = {
    "odd": random_flow(3, 3),
    "even": random_flow(3, 4),
    "fixed": Standardisation(torch.rand(3), 1 + torch.rand(3)),
    "learned": random_maps([*FAMILIES]),
    **{f"learned-{family}": random_maps([family] * 3) for family in FAMILIES},
}
EACH_FLOW = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)


@EACH_FLOW
def test_flow_inverts_and_its_log_determinant_is_autograds(flow: Flow2d) -> None:
    flow, x = flow.double(), torch.randn(3, 5, 2, dtype=torch.float64)
    z, log_det = flow(x)
    assert torch.allclose(flow.inverse(z), x)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x)[0], x)
    for replica in range(3):
        for point in range(5):
            block = jacobian[replica, point, :, replica, point]
            assert log_det[replica, point].item() == pytest.approx(torch.linalg.slogdet(block).logabsdet.item())


@EACH_FLOW
def test_forward_coefficients_are_those_of_short_steps(flow: Flow2d) -> None:
    """Mean and covariance of the image of one short Euler-Maruyama step of the latent, by a quadrature of degree 3."""
    one, sde, t, dt = select(flow, slice(1)).double(), VP(), 0.3, 1e-6
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
    found = log_density(stack, VP(), x, EPS, 1e-4)
    assert found.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(found[::2].double(), -data.nll(x[::2].double()), rtol=0, atol=5e-3)


def test_sliced_distance_is_scipys_on_each_projection() -> None:
    x, y = torch.randn(2, 30, 2), torch.rand(2, 30, 2)
    angles = np.pi * np.arange(32) / 32
    for replica in range(2):
        projections = [points[replica].numpy() @ np.stack([np.cos(angles), np.sin(angles)]) for points in (x, y)]
        expected = np.mean([wasserstein_distance(*pair) for pair in zip(*(p.T for p in projections), strict=True)])
        assert sliced_wasserstein(x, y)[replica].item() == pytest.approx(expected, rel=1e-5)


def test_path_ratio_of_lines_and_half_circles() -> None:
    progress = torch.linspace(0, 1, 200)
    line = torch.stack([progress, 2 * progress], 1)
    half_circle = torch.stack([(math.pi * progress).cos(), (math.pi * progress).sin()], 1)
    paths = torch.stack([line, half_circle], 1)[:, :, None]
    assert path_ratio(paths).tolist() == pytest.approx([1, math.pi / 2], rel=1e-4)


def build(replicas: int, flow: str) -> Stack:
    flows: dict[str, Flow2d] = {
        "none": identity(replicas),
        "map": LearnedMap(["linear"] * replicas),
        "couplings": CouplingFlow(replicas, 2, 4),
    }
    return Stack(ScoreMLP(replicas, 8, 2, VP()), flows[flow])


@pytest.mark.parametrize("flow", ["none", "map", "couplings"])
def test_a_replica_of_a_stack_is_trained_as_if_alone(flow: str) -> None:
    """In float64: Adam makes whole steps of a gradient that is nothing but the rounding of a batched product."""
    points = draw_splits("moons", 50, 0.05, [0, 1, 2], "train").double()
    stacked, stacked_flops = train(build(3, flow).double(), VP(), points, seeds=[0, 1, 2], **RECIPE)
    alone, flops = train(build(1, flow).double(), VP(), points[1:2], seeds=[1], **RECIPE)
    assert flops == stacked_flops
    assert any(parameter.abs().sum() > 0 for parameter in alone.parameters())
    for one, many in zip(alone.parameters(), stacked.parameters(), strict=True):
        torch.testing.assert_close(one[0], many[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("flow", ["map", "couplings"])
def test_training_changes_every_parameter(flow: str) -> None:
    points = draw_splits("moons", 50, 0.05, [0], "train")
    stack = build(1, flow)
    train(stack, VP(), points, seeds=[0], **RECIPE)
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in stack.parameters())


@pytest.mark.parametrize(("family", "count"), [("scale", 1), ("affine", 4), ("linear", 6)])
def test_a_learned_map_starts_at_the_identity_and_has_the_parameters_of_its_family(family: str, count: int) -> None:
    """In a stack of all families too, whose surplus coefficients change nothing."""
    maps, x = LearnedMap([*FAMILIES]), torch.randn(3, 5, 2)
    z, log_det = maps(x)
    assert torch.equal(z, x)
    assert not log_det.any()
    nn.init.normal_(maps.coefficients)
    i = [*FAMILIES].index(family)
    alone = select(maps, slice(i, i + 1)).trimmed()
    assert parameter_count(alone) == count
    for of_alone, of_stack in zip(alone(x[i : i + 1]), maps(x), strict=True):
        torch.testing.assert_close(of_alone[0], of_stack[i])


def test_families_are_nested_as_a_ladder() -> None:
    """A scale keeps the shape, scales and shifts keep the axes, a linear map is whole: Jacobians at other coefficients."""
    maps = random_maps([*FAMILIES]).double()
    matrices = torch.stack(
        [torch.func.jacrev(lambda x, i=i: maps(x.expand(3, 1, 2))[0][i, 0])(torch.zeros(2).double()) for i in range(3)]
    )
    scale, affine, linear = matrices
    assert scale.det() > 0
    torch.testing.assert_close(scale, scale[0, 0] * torch.eye(2).double())
    torch.testing.assert_close(affine, affine.diagonal().diag())
    assert (affine[0, 0] - affine[1, 1]).abs() > 1e-3
    assert linear[0, 1].abs() > 1e-3
    assert linear[1, 0].abs() > 1e-3
    shifts = maps(torch.zeros(3, 1, 2).double())[0][:, 0]
    assert (shifts.norm(dim=1) > 1e-3).tolist() == [False, True, True]


def test_a_learned_map_finds_the_scale_of_a_gaussian() -> None:
    """The warm-up alone maximises the likelihood: the latents are of mean 0 and variance 1, on each axis or whole."""
    points = torch.tensor([1.0, -0.5]) + torch.randn(1, 4000, 2, generator=Generator().manual_seed(0)) @ torch.tensor(
        [[0.5, 0.2], [0.0, 0.3]]
    )
    points = points.expand(2, -1, -1)
    stack = Stack(ScoreMLP(2, 4, 1, VP()), LearnedMap(["affine", "linear"]))
    recipe = RECIPE | {"steps": 601, "flow_warmup_steps": 600, "batch_size": 256, "flow_lr": 2e-2}
    latents = train(stack, VP(), points, seeds=[0, 0], **recipe)[0].flow(points)[0].detach()
    torch.testing.assert_close(latents.mean(1), torch.zeros(2, 2), rtol=0, atol=0.08)
    torch.testing.assert_close(latents.var(1), torch.ones(2, 2), rtol=0, atol=0.12)
    correlation = [torch.corrcoef(z.T)[0, 1].abs().item() for z in latents]
    assert correlation[1] < 0.08 < 0.3 < correlation[0]


SIZES = {"width": 8, "layers": 2, "couplings": 2, "coupling_width": 4, "scales": [], "map_lr": 0.0}


def study(points: Tensor, **changes: Any) -> dict[tuple[str, str], Stack]:
    """Train all models of the study, small."""
    cells = train_cells(seeds=list(range(len(points))), points=points, sde=VP(), **RECIPE | SIZES | changes)
    return {(cell.model, cell.variant): cell.stack for cell in cells}


def test_a_seed_begins_with_the_same_whatever_other_seeds_there_are() -> None:
    """Data and weights, to the bit: with rates of 0 they stay. What training makes of them is compared in float64 above."""
    alone, among = (draw_splits("moons", 50, 0.05, seeds, "train") for seeds in ([5], [4, 5]))
    assert torch.equal(alone[0], among[1])
    still = RECIPE | SIZES | {"lr": 0.0, "flow_lr": 0.0, "map_lr": 0.0}
    few, many = (
        train_cells(seeds=seeds, points=points, sde=VP(), **still) for seeds, points in (([5], alone), ([4, 5], among))
    )
    for one, both in zip(few, many, strict=True):
        for name, value in one.stack.state_dict().items():
            torch.testing.assert_close(value[0], both.stack.state_dict()[name][1], rtol=1e-5, atol=1e-6)


def test_frozen_flow_is_a_new_score_on_the_latents_of_indms_flow() -> None:
    """The training of a DDPM++ whose data they are, written out."""
    points = draw_splits("moons", 50, 0.05, [0, 1], "train")
    cells = study(points, flow_lr=0.3)
    flow, found = cells["indm", ""].flow, cells["indm", "frozen-flow"]
    assert all(torch.equal(*pair) for pair in zip(found.flow.parameters(), flow.parameters(), strict=True))
    with torch.no_grad():
        latents = flow(points)[0]
    for data, same in ((latents, True), (points, False)):
        alone, _ = train(Stack(ScoreMLP(2, 8, 2, VP()), identity(2)), VP(), data, seeds=[0, 1], **RECIPE)
        pairs = zip(alone.noise.parameters(), found.noise.parameters(), strict=True)
        assert all(torch.allclose(*pair, rtol=0, atol=1e-3) for pair in pairs) == same


def test_maps_are_trained_at_their_own_rate_without_a_warm_up() -> None:
    points = draw_splits("moons", 50, 0.05, [0, 1], "train")
    for rate, moves in ((0.0, False), (0.1, True)):
        cells = study(points, map_lr=rate)
        for family in FAMILIES:
            assert all(parameter.any() == moves for parameter in cells["ddpmpp", f"learned-{family}"].flow.parameters())
        assert all(parameter.any() for parameter in cells["indm", ""].flow.parameters())


def test_divergence_names_the_seed() -> None:
    points = draw_splits("moons", 50, 0.05, [0, 1], "train")
    points[1] = math.nan
    with pytest.raises(DivergenceError, match="step 0 of seed 7: lower toy2d"):
        train(build(2, "none"), VP(), points, seeds=[3, 7], **RECIPE)


def test_equal_seeds_start_equal_and_others_differ() -> None:
    network = ScoreMLP(3, 8, 2, VP())
    initialise(network, [5, 6, 5])
    weight = next(network.parameters())
    assert torch.equal(weight[0], weight[2])
    assert not torch.equal(weight[0], weight[1])


class RenamedScore(ScoreMLP):
    pass


class RenamedFlow(CouplingFlow):
    pass


def test_a_renamed_class_has_the_same_weights() -> None:
    points, still = draw_splits("moons", 50, 0.05, [0], "train"), RECIPE | {"lr": 0.0, "flow_lr": 0.0}
    renamed = Stack(RenamedScore(1, 8, 2, VP()), RenamedFlow(1, 2, 4))
    found = [train(stack, VP(), points, seeds=[0], **still)[0] for stack in (build(1, "couplings"), renamed)]
    assert all(torch.equal(*pair) for pair in zip(*(stack.parameters() for stack in found), strict=True))


def test_controls_have_the_scale_and_the_size_they_claim() -> None:
    points = 3 + 0.25 * torch.randn(2, 5000, 2)
    means, factors = affine_variants(points, [5.0])
    flow = Standardisation(means["standardised"], factors["standardised"])
    assert torch.allclose(flow(points)[0].std((1, 2)), torch.ones(2))
    assert factors["scale-5"].tolist() == [5, 5]
    width = matching_width(lambda width: ScoreMLP(1, width, 2, VP()), 500)
    sizes = [parameter_count(ScoreMLP(1, candidate, 2, VP())) for candidate in (width - 1, width)]
    assert sizes[0] < 500 <= sizes[1]
    built = []

    def build(width: int) -> ScoreMLP:
        built.append(width)
        return ScoreMLP(1, width, 2, VP())

    # Of a flow of a thousand times as many, a network is not built for each width below.
    assert parameter_count(build(matching_width(build, 500_000))) >= 500_000
    assert len(built) < 40


@pytest.mark.parametrize("name", DATASETS)
def test_data_has_the_scale_of_images_and_fresh_splits(name: str) -> None:
    first, again, other = (draw_splits(name, 4000, 0.02, [0, 1], split) for split in ("train", "train", "test"))
    assert first.shape == (2, 4000, 2)
    assert torch.equal(first, again)
    assert not torch.equal(first[0].sort(0).values, other[0].sort(0).values)
    assert not torch.equal(first[0], first[1])
    assert first.mean((0, 1)).abs().max() < 0.03
    assert 0.35 < first.std() < 0.65


def test_checkerboard_fills_its_dark_squares_alone() -> None:
    column, row = ((draw_splits("checkerboard", 2000, 0.0, [0], "train")[0] + 1) * 2).floor().int().unbind(-1)
    assert set(((column + row) % 2).tolist()) == {0}
    assert len(set(zip(column.tolist(), row.tolist(), strict=True))) == 8


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy2d")
    smoke = str(REPOSITORY / "params" / "smoke.yaml")
    done = CliRunner().invoke(main, ["toy2d", "--suite", smoke, "--toy", "moons", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out / "smoke" / "toy2d"


def test_stage_writes_a_row_for_each_model_variant_and_seed(results: Path) -> None:
    table = pd.read_csv(results / "moons.csv", keep_default_na=False, na_values={"nll": [""]})
    parameters = load_suite(REPOSITORY / "params" / "smoke.yaml").toy2d
    learned = tuple(f"learned-{family}" for family in FAMILIES)
    controls = ("", "standardised", "scale-3", "scale-5", *learned, "same-compute", "same-parameters")
    variants = [("indm", ""), ("indm", "frozen-flow"), *(("ddpmpp", variant) for variant in controls)]
    cells = [*variants, ("data", "")]
    assert list(zip(table["model"], table["variant"], strict=True)) == [
        cell for cell in cells for _ in parameters.seeds
    ]
    assert list(table["seed"]) == parameters.seeds * len(cells)
    models = table[table["model"] != "data"]
    assert models.astype({"nelbo": float})["nll"].notna().all()
    first = models.groupby(["model", "variant"])[["parameters", "train_flops"]].first().astype(float)
    assert first["parameters"]["ddpmpp", "same-parameters"] >= first["parameters"]["indm", ""]
    ratio = first["train_flops"]["ddpmpp", "same-compute"] / first["train_flops"]["indm", ""]
    assert ratio == pytest.approx(1, abs=0.05)
    sizes = [first["parameters"]["ddpmpp", variant] - first["parameters"]["ddpmpp", ""] for variant in learned]
    assert sizes == [1, 4, 6]
    latents = models.groupby(["model", "variant"])["latent_std"].first().astype(float)
    assert latents["indm", "frozen-flow"] == latents["indm", ""]


def test_figure_repeats_byte_for_byte(results: Path) -> None:
    arrays = read_arrays(results / "moons.safetensors")
    first, second = (toy2d_figure(arrays) for _ in range(2))
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()
    assert first.startswith(b"<?xml")


def test_damaged_arrays_are_named(tmp_path: Path) -> None:
    (tmp_path / "moons.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ArtifactError, match=r"moons\.safetensors: not a safetensors file"):
        read_arrays(tmp_path / "moons.safetensors")
