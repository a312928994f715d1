"""The closed form: an error that is white over frequencies costs what it says, and its table is that of the data and the claims."""

import math
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from docs.closed_form import (
    EXACT,
    FITTED,
    FORMS,
    SUITES,
    Form,
    Prediction,
    constant,
    latent,
    loss,
    read_losses,
    spectrum,
    with_closed_form,
)
from indm.bench.cli import main
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import build_sde
from indm.errors import ArtifactError
from indm.report.rows import read_rows
from tests.conftest import REPOSITORY

PUBLISHED = REPOSITORY / "docs/results"
VP = build_sde("vp")
EPS, KAPPA = 1e-3, 0.1
# Variances of eight independent coefficients, from steep to nearly flat.
STEEP = torch.tensor([3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001], dtype=torch.float64)


def excess(variances: Tensor, prediction: Prediction, draws: int = 200_000) -> tuple[float, float]:
    """The bound of a network with a white error, less that of the best network, in nats per dimension, with its error.

    Both see the same draws, whose times are uniform in A. The sign of the error alternates over coefficients.
    """
    generator = Generator().manual_seed(0)
    path, dims = LinearPath(VP), len(variances)
    first, last = VP.antiderivative(torch.tensor([EPS, 1.0], dtype=torch.float64)).tolist()
    t = VP.time(first + (last - first) * torch.rand(draws, generator=generator, dtype=torch.float64))
    z0 = variances.sqrt() * torch.randn(draws, dims, generator=generator, dtype=torch.float64)
    noise = torch.randn(draws, dims, generator=generator, dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(dims // 2)

    def predicted(kappa: float) -> Tensor:
        def network(z: Tensor, times: Tensor) -> Tensor:
            alpha, sigma = VP.alpha(times)[:, None], VP.sigma(times)[:, None]
            at = alpha**2 * variances + sigma**2
            if prediction == "noise":
                response = sigma / at
                return (response + kappa * signs * response.square().mean(1, keepdim=True).sqrt()) * z
            response = alpha * sigma * (1 - variances) / at
            v = (response + kappa * signs * response.square().mean(1, keepdim=True).sqrt()) * z
            return sigma * z + alpha * v

        return path.error(network, z0, t, noise)

    difference = (predicted(KAPPA) - predicted(0)) * (last - first) / 2 / dims
    return difference.mean().item(), difference.std().item() / math.sqrt(draws)


@pytest.mark.parametrize("variances", [STEEP, STEEP.sqrt(), STEEP / STEEP], ids=["steep", "milder", "white"])
@pytest.mark.parametrize("prediction", ["noise", "v"])
def test_a_white_error_costs_what_the_form_says(prediction: Prediction, variances: Tensor) -> None:
    """Within the error of the draws, which is small enough to tell."""
    found, error = excess(variances, prediction)
    said = KAPPA**2 * loss(variances, prediction, VP, EPS)
    assert found == pytest.approx(said, abs=4 * error + 1e-9)
    assert error < 0.05 * said + 1e-9


def test_whiter_latents_lose_less_and_white_ones_least() -> None:
    exponents = (None, 0.1, 0.25, 0.4, 0.5)
    for prediction in ("noise", "v"):
        found = [loss(latent(STEEP.view(1, 2, 4), Form(prediction, a)), prediction, VP) for a in exponents]
        assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0, abs=1e-9)


def test_the_table_is_that_of_the_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the digits, which need no archive."""
    monkeypatch.chdir(REPOSITORY)
    main(["prepare", "digits-filters", "--dataset", "digits", "--out", str(tmp_path)], standalone_mode=False)
    variances = spectrum(tmp_path / "digits-filters/data/digits")
    losses = {form: found for (dataset, form), found in read_losses().items() if dataset == "digits"}
    assert losses.keys() == set(FORMS.values())
    for form, found in losses.items():
        assert loss(latent(variances, form), form.prediction, VP) == pytest.approx(found, abs=1e-3)


def test_each_suite_has_its_losses_and_the_constant_gives_the_lead_back() -> None:
    losses, (suite, claim) = read_losses(), FITTED
    assert {dataset for dataset, _ in losses} == set(SUITES.values())
    claims = read_rows(PUBLISHED / suite / "tables/claims.csv").set_index("id")
    gain = losses["cifar10", Form("noise")] - losses["cifar10", Form("noise", 0.15)]
    assert constant(PUBLISHED) ** 2 * gain / math.log(2) == pytest.approx(claims.at[claim, "effect"])


def test_the_page_has_a_row_for_each_published_comparison_with_a_form() -> None:
    page = (REPOSITORY / "docs/closed-form.md").read_text()
    assert with_closed_form(page, PUBLISHED) == page
    block = page.split("<!-- closed-form")[1].split("<!-- end")[0]
    assert block.count("\n| CIFAR-10 | fixed filter | DDPM++ |") >= 1
    assert not EXACT & set(FORMS)
    with pytest.raises(ArtifactError):
        with_closed_form("a page without a place", PUBLISHED)
