"""What a flow does to images: maps whose numbers are known, and Jacobians by autograd."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian, jvp

from docs.spectrum import spectrum
from indm.bench.pipeline.stages import STAGES
from indm.bench.suite.load import load_suite
from indm.data.levels import dequantise
from indm.errors import DivergenceError
from indm.flows.base import Flow, LogDet
from indm.flows.build import build_flow
from indm.flows.cosine import cosine_basis
from indm.flows.description import STEP, bands, describe, squared_gains
from indm.flows.log_det import Series
from indm.flows.sources import Source, draw_probe
from indm.library import load_run
from indm.measured import BANDS
from indm.registry import DATASETS
from indm.seeding import derive_seed
from tests.conftest import REPOSITORY

GAINS = [f"gain_{band}" for band in range(1, BANDS + 1)]
RESIDUAL: dict[str, Any] = {"blocks": (2, 1), "width": 8, "activation": "elu", "bound": "spectral", "coefficient": 0.97}


def images(count: int = 5, channels: int = 2, size: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.rand(count, channels, size, size, dtype=torch.float64, generator=generator) - 1


def made(name: str, channels: int = 2, size: int = 6, **options: Any) -> Flow:
    torch.manual_seed(0)
    flow = build_flow(name, channels_in=channels, image_size=size, **options).double()
    flow.update_norms()
    return flow.requires_grad_(False)


def described(flow: Flow, x: Tensor) -> dict[str, float]:
    return describe(flow, x, "exact", 2, torch.Generator().manual_seed(2))


def bits_per_dim(flow: Flow, x: Tensor) -> Tensor:
    """The log-determinant of each image, from the whole Jacobian by autograd."""
    maps = [jacobian(lambda one: flow(one[None], "none")[0].flatten(), image).flatten(1) for image in x]
    return torch.stack([torch.linalg.slogdet(each).logabsdet for each in maps]) / (x[0].numel() * math.log(2))


def test_the_identity_and_a_scale_have_known_numbers() -> None:
    scale = made("scale")
    next(scale.parameters()).fill_(math.log(3))
    for flow, factor in ((made("identity"), 1.0), (scale, 3.0)):
        found = described(flow, images())
        assert found["log_det"] == pytest.approx(math.log2(factor), abs=1e-12)
        assert [found[gain] for gain in GAINS] == pytest.approx([factor] * BANDS, rel=1e-9)
        assert max(found["log_det_spread"], found["log_det_se"], found["midpoint"]) < 1e-12


def test_a_filter_has_its_gains() -> None:
    """Within a band, the gain is the root of the mean square; the shift does not matter."""
    flow, place = made("filter"), bands(6)
    parameters = dict(flow.named_parameters())
    generator = torch.Generator().manual_seed(3)
    gains = torch.rand(2, 6, 6, dtype=torch.float64, generator=generator) + 0.5 + place
    parameters["log_gain"].copy_(gains.log())
    parameters["shift"].fill_(0.3)
    found = described(flow, images())
    expected = [gains[:, place == band].square().mean().sqrt().item() for band in range(BANDS)]
    assert [found[gain] for gain in GAINS] == pytest.approx(expected, rel=1e-9)
    assert found["log_det"] == pytest.approx(gains.log2().mean().item())
    assert max(found["log_det_spread"], found["midpoint"]) < 1e-12


def test_bands_begin_with_the_mean_and_end_with_the_finest_chequers() -> None:
    for size in (4, 6, 8, 28, 32, 64):
        place = bands(size)
        assert (place[0, 0], place[-1, -1]) == (0, BANDS - 1)
        assert set(place.unique().tolist()) == set(range(BANDS))
        assert bool((place.diff(dim=0) >= 0).all())
        assert torch.equal(place, place.T)


@pytest.mark.parametrize("name", ["curve", "resflow"])
def test_log_determinants_and_their_spread_are_those_of_autograd(name: str) -> None:
    flow, x = made(name, **(RESIDUAL if name == "resflow" else {})), images()
    if name == "curve":
        next(flow.parameters()).normal_(generator=torch.Generator().manual_seed(4))
    found, expected = described(flow, x), bits_per_dim(flow, x)
    assert found["log_det"] == pytest.approx(expected.mean().item(), rel=1e-9)
    assert found["log_det_spread"] == pytest.approx(expected.std().item(), rel=1e-6)
    assert found["log_det_se"] == pytest.approx(expected.std().item() / len(x) ** 0.5, rel=1e-6)
    assert found["midpoint"] > 1e-6


def test_gains_are_those_of_the_jacobian() -> None:
    flow, x = made("resflow", **RESIDUAL), images()
    found = squared_gains(lambda z: flow(z, "none")[0], x, torch.Generator().manual_seed(5))
    signs = draw_probe(x, "rademacher", torch.Generator().manual_seed(5))
    basis = cosine_basis(x.shape[-1])
    for band in range(BANDS):
        noise = basis.T @ (signs * (bands(x.shape[-1]) == band)) @ basis
        moved = jvp(lambda z: flow(z, "none")[0], x, noise)[1]
        expected = moved.flatten(1).square().sum(1) / noise.flatten(1).square().sum(1)
        assert found[:, band] == pytest.approx(expected, rel=100 * STEP**2)
        assert expected != pytest.approx(torch.ones(len(x)), rel=1e-3)


class MadeUp(Flow):
    """A map with a square, and a log-determinant of a known spread over images that random probes blur."""

    def __init__(self, bend: float, volume: Tensor, blur: float) -> None:
        super().__init__(1, 4)
        self.bend, self.volume, self.blur = bend, volume, blur

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        return x + self.bend * x**2, self.volume + self.blur * draw_probe(self.volume, "gaussian", generator)


def test_the_midpoint_test_of_a_square_is_the_known_one() -> None:
    """With a normal x, the middle of x + c x² is off by 3 c² / 2 in square, relative to 1 + 2 c²."""
    x = torch.randn(20_000, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    found = describe(MadeUp(0.2, torch.zeros(len(x)), 0.0), x, "exact", len(x), torch.Generator().manual_seed(7))
    assert found["midpoint"] == pytest.approx(0.06 / 1.08, rel=0.05)


def test_random_probes_do_not_enlarge_the_spread_over_images() -> None:
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(20_000, 1, 4, 4, dtype=torch.float64, generator=generator)
    volume = torch.randn(len(x), dtype=torch.float64, generator=generator)
    found = describe(MadeUp(0.0, volume, 2.0), x, "exact", len(x), torch.Generator().manual_seed(9))
    assert found["log_det_spread"] == pytest.approx(1 / (16 * math.log(2)), rel=0.05)


def test_a_flow_that_overflows_is_refused() -> None:
    with pytest.raises(DivergenceError):
        describe(MadeUp(1e200, torch.zeros(5), 0.0), images(5, 1, 4), "exact", 5, torch.Generator().manual_seed(0))


def test_only_runs_with_a_trained_map_are_measured_and_only_where_the_suite_asks() -> None:
    suite = load_suite(REPOSITORY / "params" / "smoke.yaml")
    assert STAGES["flow"].subjects(suite) == [name for name in suite.runs if "indm" in name]
    assert STAGES["flow"].subjects(suite.model_copy(update={"flow": None})) == []


def row(path: Path) -> str:
    """A row of the table of docs/controls.md: a published flow, on the first 64 test images."""
    run = load_run(str(path))
    levels = torch.from_numpy(np.concatenate(list(DATASETS[run.dataset].load(split_seed=0)["test"].pieces()))[:64])
    generator = torch.Generator().manual_seed(derive_seed(run.dataset, run.seed, "flow"))
    x = dequantise(levels, run.levels, generator, run.model.centered).double()
    log_det: LogDet = "exact" if x[0].numel() < 100 else Series(1e-4 * math.log(2))
    found = describe(run.model.flow.double(), x, log_det, 64, generator)
    gains = " | ".join(f"{found[gain]:.2f}" for gain in GAINS)
    volume = f"{found['log_det']:.2f} | {found['log_det_spread']:.2f}"
    return f"| `{path.stem}` | {volume} | {100 * found['midpoint']:.1f} % | {gains} |"


@pytest.mark.long
def test_the_page_has_the_numbers_of_a_published_flow() -> None:
    found = row(REPOSITORY / "docs/results/digits-seeds/weights/digits-vp-indm-nll-s201.safetensors")
    assert found in (REPOSITORY / "docs/controls.md").read_text()


def test_the_spectrum_of_two_waves_has_their_deviations_in_their_bands() -> None:
    """Levels are whole numbers, so that each coefficient also has the deviation of a rounding error, sqrt(1 / 12)."""
    basis, places = cosine_basis(16), bands(16)
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    waves = torch.stack([400 * torch.outer(basis[2], basis[1]), 80 * torch.outer(basis[13], basis[12])])
    levels = (128 + torch.einsum("nw,wij->nij", signs, waves)).round().to(torch.uint8)[:, None]
    found = spectrum(levels)["deviation"]
    for band in range(BANDS):
        share = (places == band).sum()
        expected = {places[2, 1].item(): 400, places[13, 12].item(): 80}.get(band, 0) / share**0.5
        assert found[band] == pytest.approx(float((expected**2 + 1 / 12) ** 0.5), rel=0.1, abs=0.3)
