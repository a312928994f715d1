"""Likelihoods of other people's networks against closed forms, the mistakes that are named, and samples against a dataset."""

import importlib
import json
import math
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Generator, Tensor

from indm.bench.cli import main
from indm.data.levels import dequantise, to_uint8
from indm.diffusion.likelihood import ode_nll
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import SDE, T, build_sde
from indm.errors import DataError, DivergenceError, IndmError, ParamsError
from indm.foreign.conventions import CONVENTIONS, Network
from indm.foreign.files import read_images
from indm.foreign.likelihood import referee
from indm.foreign.report import CLOSE, Report
from indm.registry import DATASETS
from tests.conftest import REPOSITORY

STD, EPS = 0.2, 1e-5
SDES = ("vp", "ve")
Noise = Callable[[SDE, Tensor, Tensor], Tensor]


def of_gaussian(sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    """Exact noise prediction for N(0, STD² I)."""
    alpha, sigma = (value(t).view(-1, *[1] * (z.dim() - 1)) for value in (sde.alpha, sde.sigma))
    return sigma * z / (alpha**2 * STD**2 + sigma**2)


MEANS = torch.tensor([0.3, -0.2], dtype=torch.float64)


def of_mixture(sde: SDE, z: Tensor, t: Tensor, means: Tensor = MEANS, std: float = STD) -> Tensor:
    """Exact noise prediction for the even mixture of N(m, s² I), with the same m in all dimensions."""
    alpha, sigma = (value(t)[:, None] for value in (sde.alpha, sde.sigma))
    apart = z[:, None] - (alpha * means)[..., None]
    variance = alpha**2 * std**2 + sigma**2
    weights = torch.softmax(-apart.square().sum(2) / (2 * variance), 1)
    return sigma * (weights[..., None] * apart).sum(1) / variance


def network_of(noise: Noise, sde: SDE, kind: str) -> Network:
    """A network of a convention, from what it estimates: in float64, and for images in float32."""

    def call(x: Tensor, condition: Tensor) -> Tensor:
        x, condition = x.double(), condition.double()
        ratio = {"denoiser": condition, "velocity": condition / (1 - condition)}.get(kind)
        # Both diffusions have A = log of the squared ratio of sigma to alpha.
        t = condition if ratio is None else sde.time(2 * ratio.log())
        alpha, sigma = (value(t).view(-1, *[1] * (x.dim() - 1)) for value in (sde.alpha, sde.sigma))
        z = {"denoiser": alpha * x, "velocity": (alpha + sigma) * x}.get(kind, x)
        epsilon = noise(sde, z, t)
        clean = (z - sigma * epsilon) / alpha
        estimates = {
            "noise": epsilon,
            "score": -epsilon / sigma,
            "denoiser": clean,
            "clean": clean,
            "velocity": epsilon - clean,
            "v": alpha * epsilon - sigma * clean,
        }
        return estimates[kind].float()

    return call


def levels_of(x: Tensor, levels: int = 256) -> Tensor:
    return ((x + 1) / 2 * levels).floor().clamp(0, levels - 1).byte()


def draw(count: int, shape: tuple[int, ...] = (12,), means: Tensor | None = None) -> Tensor:
    generator = Generator().manual_seed(3)
    x = STD * torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return x if means is None else x + means[torch.randint(2, (count, 1), generator=generator)]


def mean(report: Report, key: str) -> float:
    return float(report.images[key].mean())


def judge(network: Network, sde: SDE, images: Any, **changes: Any) -> Report:
    return referee(network, sde, images, **{"time_draws": 20, "batch_size": 4000, "ode_steps": 32, **changes})


def bits(nats: Tensor) -> float:
    return (nats.mean() / 12 / math.log(2) + 7).item()


@pytest.fixture(scope="module")
def gaussian() -> dict[str, Report]:
    images, sdes = levels_of(draw(4000)), {name: build_sde(name) for name in SDES}
    return {name: judge(network_of(of_gaussian, sde, "noise"), sde, images, ode_steps=64) for name, sde in sdes.items()}


@pytest.mark.parametrize("name", SDES)
def test_every_number_of_an_exact_network_on_gaussian_data(name: str, gaussian: dict[str, Report]) -> None:
    report, x = gaussian[name], draw(4000)
    truth = bits(-torch.distributions.Normal(0, STD).log_prob(x).sum(1))
    for key in ("nelbo", "nelbo_fixed", "nelbo_no_reconstruction", "nll", "nll_fixed", "nll_uncorrected"):
        # Under VE, s = 0.01 at eps widens the data; and p_T is wider than the noise by 1e-5.
        assert mean(report, key) == pytest.approx(truth, abs=0.01), key
    assert abs(report.ode_error) < 0.01
    assert report.images.shape[0] == 4000
    assert report.remarks() == []


def test_data_in_0_to_1_have_the_same_number(gaussian: dict[str, Report]) -> None:
    sde = build_sde("vp")

    def of_halves(z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        return sigma * (z - alpha / 2) / (alpha**2 * STD**2 / 4 + sigma**2)

    report = judge(of_halves, sde, levels_of(draw(4000)), centered=False)
    for key in ("nelbo", "nelbo_undequantised"):
        assert mean(report, key) == pytest.approx(mean(gaussian["vp"], key), abs=0.005)
    assert report.offset == 8
    assert any("[0, 1]" in line for line in explained(report, mean(report, "nll") - 1))


@pytest.mark.parametrize("name", SDES)
def test_all_conventions_give_the_number_of_a_mixture(name: str) -> None:
    sde, x = build_sde(name), draw(1000, means=MEANS)
    parts = torch.distributions.Normal(MEANS[:, None], STD).log_prob(x[:, None]).sum(2)
    truth = bits(math.log(2) - parts.logsumexp(1))
    found = {kind: judge(network_of(of_mixture, sde, kind), sde, levels_of(x), kind=kind) for kind in CONVENTIONS}
    for key in ("nelbo", "nll"):
        for kind, report in found.items():
            assert mean(report, key) == pytest.approx(truth, abs=0.02), (kind, key)
            # The same prediction of the noise meets the same draws.
            assert mean(report, key) == pytest.approx(mean(found["noise"], key), abs=1e-3), (kind, key)


def test_a_network_that_is_off_by_5_percent_has_the_numbers_of_theory(gaussian: dict[str, Report]) -> None:
    r"""With :math:`\hat\epsilon = (1 + \delta)\epsilon^*`, s the signal-to-noise ratio and v the data's variance:

    .. math::
        \Delta\mathrm{NELBO} = \tfrac{\delta^2}2 \ell, \qquad
        \Delta\mathrm{NLL} = \tfrac12 (e^{\delta\ell} - 1) - \tfrac{\delta\ell}2, \qquad
        \ell = \int \frac{\mathrm d\log s}{1 + sv}

    because the ODE widens :math:`z_T` by :math:`e^{\delta\ell/2}`.
    """
    sde, delta = build_sde("vp"), 0.05
    report = judge(lambda z, t: (1 + delta) * of_gaussian(sde, z, t), sde, levels_of(draw(4000)), ode_steps=64)
    ratio = sde.log_snr(torch.tensor([T, EPS], dtype=torch.float64)).exp()
    ell = (ratio / (1 + ratio * STD**2)).log().diff().item()
    moved = (report.images - gaussian["vp"].images).mean() * math.log(2)
    nelbo, nll = delta**2 / 2 * ell, math.expm1(delta * ell) / 2 - delta * ell / 2
    assert moved["nelbo"] == pytest.approx(nelbo, abs=0.002)
    assert moved["nll"] == pytest.approx(nll, abs=0.005)
    # The bound loses 0.017 nats, and nevertheless lies 0.12 below the ODE's number.
    assert (nelbo, nelbo - nll) == pytest.approx((0.017, -0.12), abs=0.005)
    assert mean(report, "gap") * math.log(2) == pytest.approx(-0.12, abs=0.01)


def explained(report: Report, claimed: float) -> list[str]:
    return Report(**{**vars(report), "claimed": claimed}).explanation()


@pytest.fixture(scope="module")
def colour() -> Report:
    sde = build_sde("vp")
    return judge(network_of(of_gaussian, sde, "noise"), sde, levels_of(draw(500, (3, 2, 2)), 16), levels=16)


def test_a_missing_bit_of_the_scale_and_dimensions_without_channels_are_named(colour: Report) -> None:
    nats = (mean(colour, "nll") - 3) * 12 * math.log(2)
    assert any("log₂ L − 1" in line for line in explained(colour, nats / (12 * math.log(2)) + 4))
    assert any("D = H W" in line for line in explained(colour, nats / (4 * math.log(2)) + 3))


def test_missing_dequantisation_is_named_and_seen_in_a_network(colour: Report) -> None:
    """A network that was trained on four levels without noise predicts the noise exactly from the nearest one."""
    sde = build_sde("vp")
    grid = torch.linspace(-1, 1, 4, dtype=torch.float64)

    def of_grid(sde: SDE, z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (value(t)[:, None, None] for value in (sde.alpha, sde.sigma))
        apart = z[..., None] - alpha * grid
        return (torch.softmax(-((apart / sigma).square()) / 2, -1) * apart).sum(-1) / sigma[..., 0]

    images = torch.randint(4, (100, 12), generator=Generator().manual_seed(0)).byte()
    found = judge(network_of(of_grid, sde, "noise"), sde, images, levels=4)
    assert mean(found, "nelbo_undequantised") < mean(found, "nelbo") - 1
    assert any("dequantisation" in remark for remark in found.remarks())
    assert any("dequantisation" in line for line in explained(found, mean(found, "nelbo_undequantised")))
    assert not any("dequantisation" in remark for remark in colour.remarks())
    with pytest.raises(DataError, match="float64 from -1 to 1"):
        judge(network_of(of_grid, sde, "noise"), sde, grid[images.long()], levels=4)


def test_a_missing_reconstruction_is_named() -> None:
    """At a late eps, where it costs more than rounding."""
    sde = build_sde("vp")
    found = judge(network_of(of_gaussian, sde, "noise"), sde, levels_of(draw(500)), eps=0.01)
    bare = mean(found, "nelbo_no_reconstruction")
    assert abs(bare - mean(found, "nelbo")) > CLOSE
    assert any("reconstruction" in line for line in explained(found, bare))
    assert mean(found, "nelbo_fixed") != pytest.approx(mean(found, "nelbo"), abs=CLOSE)


def test_one_probe_for_all_images_has_an_error_that_only_the_spread_of_draws_shows() -> None:
    sde = build_sde("vp")
    mix = torch.linalg.qr(torch.randn(12, 12, generator=Generator().manual_seed(1), dtype=torch.float64))[0]
    scales = torch.linspace(0.1, 2, 12, dtype=torch.float64)
    images = levels_of(draw(400) * scales @ mix.T)

    def of_correlated(sde: SDE, z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (value(t)[:, None] for value in (sde.alpha, sde.sigma))
        return sigma * (z @ mix / ((alpha * STD * scales) ** 2 + sigma**2)) @ mix.T

    network = network_of(of_correlated, sde, "noise")
    report = judge(network, sde, images)
    x = dequantise(images, 256, Generator().manual_seed(0)).double()
    fixed = []
    for seed in range(20):
        probe = torch.randint(0, 2, (1, 12), generator=Generator().manual_seed(seed)).double() * 2 - 1
        nats = ode_nll(
            lambda z, t: of_correlated(sde, z, t), LinearPath(sde), x[:50], EPS, None, probe.expand(50, -1), 16
        )
        fixed.append(bits(nats))
    spread = float(np.std(fixed))
    assert spread > 3 * float(report.summary()["se"]["nll"])
    assert report.draw_spread == pytest.approx(spread, rel=0.5)
    assert any("one probe" in line for line in explained(report, mean(report, "nll") + spread))


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize(
    ("given", "read", "sign"), [("noise", "noise", -1), ("score", "score", -1), ("score", "noise", 1)]
)
def test_a_score_or_a_sign_in_place_of_noise_is_named(name: str, given: str, read: str, sign: int) -> None:
    sde = build_sde(name)
    network = network_of(of_gaussian, sde, given)
    with pytest.raises(ParamsError, match=rf"read as {'-' if sign < 0 else ''}{given}, better by \d"):
        judge(lambda x, t: sign * network(x, t), sde, levels_of(draw(50)), kind=read)


WRONG: dict[str, tuple[Callable[[Tensor, Tensor], Any], type[IndmError], str]] = {
    "shape": (lambda z, t: z[:, :5], ParamsError, r"\(16, 5\).*\(16, 12\)"),
    "tuple": (lambda z, t: (z, t), ParamsError, "tuple"),
    "nan": (lambda z, t: z / 0 * 0, DivergenceError, "network: .*finite"),
    "time": (lambda z, t: 2 * z, ParamsError, "0.3 and 0.9"),
    "gradient": (lambda z, t: z.detach() * t[:, None], ParamsError, "differentiated"),
    "crash": (lambda z, t: z @ z, ParamsError, "RuntimeError"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_network_is_named(fault: str) -> None:
    network, error, words = WRONG[fault]
    with pytest.raises(error, match=words) as caught:
        judge(network, build_sde("vp"), levels_of(draw(50)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "levels", "words"),
    [
        (np.zeros((4, 3), np.float32), 256, "float32 from 0 to 0"),
        (np.full((4, 3), 17), 17, "17 to 17, expected 0 to 16"),
        (np.full((4, 3), -1), 17, "-1"),
        (np.tile(np.arange(17, dtype=np.uint8), (400, 1)), 256, "17 different levels"),
        (np.zeros((1, 3), np.uint8), 256, r"shape \(1, 3\)"),
        (np.zeros((4, 8, 8, 3), np.uint8), 256, r"\(N, C, H, W\)"),
    ],
)
def test_wrong_images_are_named(images: Any, levels: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        judge(lambda z, t: z, build_sde("vp"), images, levels=levels)


def test_a_bad_ode_and_outliers_are_named() -> None:
    sde = build_sde("vp")
    rough = judge(network_of(of_gaussian, sde, "noise"), sde, levels_of(draw(20)), ode_steps=6)
    assert any("ode_steps" in remark for remark in rough.remarks())
    table = dict(rough.columns)
    table["nll"] = table["nll"] + np.eye(1, 20)[0] * 50
    table["nelbo"] = table["nelbo"] + 20
    spoilt = Report(**{**vars(rough), "columns": table})
    assert spoilt.summary()["outliers"]["nll"] == 1
    for words in ("1 of 20 images", "Uniform noise"):
        assert any(words in remark for remark in spoilt.remarks())


EXAMPLES = REPOSITORY / "examples/referee"


def test_examples_of_each_kind_have_the_same_bound_which_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    found: dict[str, Report] = {}
    pages = "".join((REPOSITORY / f"docs/{name}.md").read_text() for name in ("referee", "referee-details"))
    for path in sorted(EXAMPLES.glob("*.py")):
        names = runpy.run_path(str(path))
        assert path.name == "my_data.py" or f"examples/referee/{path.name}" in pages
        found |= {f"{path.name}: {kind}": report for kind, report in names.get("reports", {}).items()}
        if "report" in names:
            found[path.name] = names["report"]
    assert {report.kind for report in found.values()} == set(CONVENTIONS)
    known = runpy.run_path(str(EXAMPLES / "known_density.py"))["known"].mean()
    for key in ("nelbo", "nll"):
        # Other draws of the dequantisation.
        assert mean(found["noise_model.py"], key) == pytest.approx(float(known), abs=0.02)
    # Vectors are other data.
    bounds = {name: mean(report, "nelbo") for name, report in found.items() if report.levels is not None}
    assert max(bounds.values()) - min(bounds.values()) < 0.01, bounds
    assert len(bounds) == len(found) - 1 == len(CONVENTIONS) + 2


BLOCK = re.compile(r"^```python (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+\.\d+")


@pytest.mark.slow
def test_the_page_s_lines_of_a_report_are_those_that_its_program_prints(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/referee.md").read_text()
    ((name, body),) = BLOCK.findall(page)
    (tmp_path / name).write_text(body)
    printed = str(runpy.run_path(str(tmp_path / name))["report"]).splitlines()
    (shown,) = re.findall(r"^```markdown\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    for line in shown.splitlines():
        (same,) = [each for each in printed if NUMBER.sub("", each) == NUMBER.sub("", line)]
        # Rounding differs from processor to processor.
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in (line, same)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.005)


def test_the_page_s_entropy_of_noise_is_the_one_of_vp() -> None:
    sigma = float(build_sde("vp").sigma(torch.tensor(1e-5, dtype=torch.float64)))
    assert math.log2(sigma * math.sqrt(2 * math.pi * math.e)) == pytest.approx(-7.92, abs=0.005)


def test_the_command_writes_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    digits = next(DATASETS["digits"].load(split_seed=0)["test"].pieces())[:20]
    (tmp_path / "png").mkdir()
    for number, image in enumerate(digits):
        Image.fromarray(image[0]).save(tmp_path / f"png/{number:02}.png")
    (tmp_path / "somebodys_model.py").write_text(
        "from indm.diffusion.sde import build_sde\n"
        "sde = build_sde('ve', sigma_min=0.002, sigma_max=80.0)\n"
        "def network(x, sigma):\n    return x / (1 + sigma[:, None, None, None] ** 2)\n"
    )
    command = [
        "referee",
        "somebodys_model:network",
        "--images",
        "png",
        "--kind",
        "denoiser",
        "--sde",
        "ve",
    ]
    command += ["--ends", "0.002", "80", "--levels", "17", "--time-draws", "4", "--ode-steps", "8", "--zero-one"]
    done = CliRunner().invoke(main, [*command, "--json", "referee.json"])
    text = (tmp_path / "referee.md").read_text()
    assert text in done.output
    data = json.loads((tmp_path / "referee.json").read_text())
    # It warns: a network of Gaussian data is no network of digits.
    assert (data["status"], done.exit_code) == ("warned", 2)
    sde, settings = build_sde("ve", sigma_min=0.002, sigma_max=80.0), {"time_draws": 4, "ode_steps": 8}
    network = importlib.import_module("somebodys_model").network
    report = judge(network, sde, digits, kind="denoiser", levels=17, centered=False, batch_size=100, **settings)
    found = re.search(r"^\| `nelbo` \| (\S+)", text, flags=re.MULTILINE)
    assert found is not None
    assert float(found[1]) == pytest.approx(mean(report, "nelbo"), abs=0.002)
    assert data["numbers"]["nelbo"]["mean"] == pytest.approx(mean(report, "nelbo"), abs=0.002)
    of_its_own = " ".join(command).replace("--sde ve --ends 0.002 80", "--sde somebodys_model:sde").split()
    done = CliRunner().invoke(main, of_its_own)
    assert done.exit_code == 2, done.output
    assert (tmp_path / "referee.md").read_text() == text
    for right, wrong, words in (
        ("somebodys_model:network", "missing:network", "No module named 'missing', expected MODULE:FUNCTION"),
        ("somebodys_model:network", "somebodys_model:net", "expected MODULE:FUNCTION"),
        ("--ends 0.002 80", "--ends 2 1", "ends: found 2 1, expected two positive numbers"),
        ("--sde ve --ends 0.002 80", "--sde vf", "sde vf: found .*, expected vp, ve, cosine, sigmoid, or MODULE:NAME"),
        ("--sde ve", "--sde somebodys_model:sde", "ends: found 0.002 80 with sde somebodys_model:sde"),
        ("--sde ve --ends 0.002 80", "--sde somebodys_model:network", "sde: found .*, expected a diffusion"),
    ):
        given = " ".join(command).replace(right, wrong).split()
        refused = CliRunner().invoke(main, given)
        assert refused.exit_code == 1, refused.output
        assert re.search(words, refused.output), refused.output


def test_samples_are_measured_by_the_protocol_of_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {name: next(split.pieces()) for name, split in DATASETS["digits"].load(split_seed=0).items()}
    samples = np.concatenate([splits["test"], splits["train"][:40]])
    np.save(tmp_path / "samples.npy", to_uint8(samples, 17)[:, :1])
    monkeypatch.chdir(REPOSITORY)
    out, page = tmp_path / "results", tmp_path / "measure.md"
    command = ["measure", str(tmp_path / "samples.npy"), "--dataset", "digits", "--suite", "smoke"]
    command += ["--out", str(out), "--page", str(page)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page.read_text(), flags=re.MULTILINE))
    assert rows["copies of training images"] == "40"
    # The test images alone have the floor of the reference.
    floor = json.loads((out / "smoke/data/digits/reference.json").read_text())["floors"]["test"]
    np.save(tmp_path / "samples.npy", splits["test"])
    assert CliRunner().invoke(main, [*command, "--levels", "17"]).exit_code == 0
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page.read_text(), flags=re.MULTILINE))
    assert float(rows["fid"].split()[0]) == pytest.approx(floor["fid"], rel=1e-3)
    assert (tmp_path / "measure.png").is_file()
    np.save(tmp_path / "samples.npy", splits["test"][:, :, :4])
    wrong = CliRunner().invoke(main, [*command, "--levels", "17"])
    assert wrong.exit_code == 1
    assert "(1, 4, 8), expected (1, 8, 8)" in wrong.output


def test_wrong_files_of_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*\.png"):
        read_images(tmp_path)
    Image.new("RGBA", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: found mode RGBA"):
        read_images(tmp_path)
    for name, size in (("a", 4), ("b", 5)):
        Image.new("RGB", (size, 4)).save(tmp_path / f"{name}.png")
    with pytest.raises(DataError, match=r"\(3, 4, 4\) and \(3, 4, 5\)"):
        read_images(tmp_path)
    (tmp_path / "b.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"b\.png"):
        read_images(tmp_path)
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="pickle"):
        read_images(tmp_path / "pickle.npy")
