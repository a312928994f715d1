"""The closed form of docs/closed-form.md: what an error that is white over frequencies costs behind each fixed filter.

python -m docs.closed_form FOLDER... > docs/closed-form.csv

Each folder holds the arrays of a dataset, such as results/cifar10-maps/data/cifar10.
"""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from indm.arrays import read_array
from indm.bench.kept.page import replace_block
from indm.data.levels import dequantise
from indm.diffusion.sde import SDE, build_sde
from indm.errors import ArtifactError
from indm.flows.cosine import coefficient_moments
from indm.flows.fixed import over_circles
from indm.report.differences import STEPS
from indm.report.matrix import table
from indm.report.names import REFERENCE, arm
from indm.report.rows import read_rows, records
from indm.store.files import read_json

PAGE, TABLE = "docs/closed-form.md", Path(__file__).parent / "closed-form.csv"
EPS, POINTS, PIECE = 1e-5, 4000, 1000

Prediction = Literal["noise", "v"]
Spectrum = Literal["exact", "circles"]


class Form(NamedTuple):
    """A model of which the form knows all that it needs: what the network predicts, and a fixed filter.

    Arguments:
        prediction: what the network predicts.
        exponent: the filter's exponent; ``None`` without a filter.
        spectrum: whether the filter's gains follow the spectrum or its mean over circles.
    """

    prediction: Prediction
    exponent: float | None = None
    spectrum: Spectrum = "exact"


# The variants of DDPM++ that have a form. A curve has no frequencies, so that the form takes it for no map.
FORMS = {
    "": Form("noise"),
    "learned-curve": Form("noise"),
    "fixed-filter": Form("noise", 0.15),
    "fixed-filter-circles": Form("noise", 0.15, "circles"),
    "exponent-15": Form("noise", 0.15),
    "exponent-25": Form("noise", 0.25),
    "v-prediction": Form("v"),
    "fixed-filter-v": Form("v", 0.15),
    "exponent-15-v": Form("v", 0.15),
    "exponent-25-v": Form("v", 0.25),
    "exponent-35-v": Form("v", 0.35),
    "exponent-50-v": Form("v", 0.5),
}
# A network that knows the spectrum makes no linear error.
EXACT = {"preconditioned", "fixed-filter-preconditioned"}
# The lead from which the constant is taken.
FITTED = ("cifar10-maps", "better-nelbo-fixed-filter")
# Suites with a model that has a form, by dataset.
SUITES = {
    "cifar10-maps": "cifar10",
    "celeba64-6000": "celeba64-6000",
    "cifar10-precondition": "cifar10",
    "cifar10-exponents-v": "cifar10",
    "fashion-filters": "fashion-mnist",
    "digits-filters": "digits",
}
NAMES = {"cifar10": "CIFAR-10", "celeba64-6000": "CelebA", "fashion-mnist": "Fashion-MNIST", "digits": "digits"}


def spectrum(folder: Path) -> Tensor:
    """Return the variance of each cosine coefficient of a dataset's dequantised training images, float64, (C, S, S)."""
    levels, images = read_json(folder / "dataset.json")["levels"], torch.from_numpy(read_array(folder / "train.npy"))
    generator = torch.Generator().manual_seed(0)
    return coefficient_moments(lambda: (dequantise(piece, levels, generator) for piece in images.split(PIECE)))[1]


def latent(variances: Tensor, form: Form) -> Tensor:
    r"""Return the variances of the latent's coefficients, shape (C, S, S), those of the data without a filter.

    .. math:: l_i = \frac{S_i R_i^{-2a}}{\overline{S R^{-2a}}}

    where R is S or its mean over circles.
    """
    if form.exponent is None:
        return variances
    shape = variances if form.spectrum == "exact" else over_circles(variances)
    filtered = variances * shape ** (-2 * form.exponent)
    return filtered / filtered.mean()


def loss(variances: Tensor, prediction: Prediction, sde: SDE, eps: float = EPS) -> float:
    r"""Return what a white error of the linear response costs, as a share of :math:`\kappa^2`, in nats per dimension.

    .. math:: X = \tfrac12 \int \mathrm dA\; s_t^2\, \overline{v}\; \overline{w^2}, \qquad v_i = \alpha^2 l_i + \sigma^2

    with the best response :math:`w_i = \sigma / v_i` and s = 1 for the noise, and
    :math:`w_i = \alpha\sigma(1 - l_i) / v_i` and :math:`s = \alpha` for v, whose errors count :math:`\alpha` times.

    Arguments:
        variances: l, the variances of the latent's coefficients, any shape.
        prediction: what the network predicts.
        sde: the linear diffusion.
        eps: smallest time.
    """
    first, last = sde.antiderivative(torch.tensor([eps, 1.0], dtype=torch.float64)).tolist()
    a = torch.linspace(first, last, POINTS, dtype=torch.float64)
    alpha, sigma = sde.alpha(sde.time(a))[:, None], sde.sigma(sde.time(a))[:, None]
    at = alpha**2 * variances.flatten() + sigma**2
    if prediction == "noise":
        response, share = sigma / at, torch.ones_like(a)
    else:
        response, share = alpha * sigma * (1 - variances.flatten()) / at, alpha[:, 0] ** 2
    return 0.5 * torch.trapezoid(share * at.mean(1) * response.square().mean(1), a).item()


def losses(folders: list[Path]) -> pd.DataFrame:
    """Return the loss of each form on each dataset, of which these folders hold the arrays."""
    sde, rows = build_sde("vp"), []
    for folder in folders:
        variances = spectrum(folder)
        for form in dict.fromkeys(FORMS.values()):
            found = loss(latent(variances, form), form.prediction, sde)
            rows.append({"dataset": folder.name, **form._asdict(), "loss": round(found, 3)})
    return pd.DataFrame(rows)


def with_closed_form(page: str, published: Path) -> str:
    """Return the page with the leads that the form says and those that were found.

    Arguments:
        page: its text.
        published: the folder with one folder per published suite, which has ``tables/``.

    Raises:
        ArtifactError: if a table is missing or damaged, or the page has no place for the table.
    """
    kappa, rows = constant(published), []
    for suite, dataset in SUITES.items():
        for claim in _leads(published, suite):
            said = (_loss(dataset, claim["against"]) - _loss(dataset, claim["treatment"])) * kappa**2 / math.log(2)
            sides = (arm(REFERENCE, claim[side]) for side in ("treatment", "against"))
            rows.append((NAMES[dataset], *sides, f"{said:.3f}", _found(claim)))
    headings = ("dataset", "model", "over", "the form says", "found, bits/dim")
    text = f"The constant, from the first row: κ = {kappa:.4f}.\n\n" + table(headings, rows, numbers=True)
    return replace_block(page, "closed-form", text, PAGE)


def constant(published: Path) -> float:
    """Return κ, the error of the response as a share of its root mean square, from one published lead."""
    suite, claim = FITTED
    (lead,) = (row for row in _leads(published, suite) if row["id"] == claim)
    dataset = SUITES[suite]
    gain = _loss(dataset, lead["against"]) - _loss(dataset, lead["treatment"])
    return math.sqrt(lead["effect"] * math.log(2) / gain)


def _leads(published: Path, suite: str) -> list[dict[str, Any]]:
    """List the claims on NELBO at equal steps of which both sides have a form; none of a suite that is not published."""
    file = published / suite / "tables/claims.csv"
    if not file.exists():
        return []
    claims = read_rows(file)
    claims = claims[(claims["comparison"] == STEPS) & claims["metric"].str.contains("nelbo")].dropna(subset="effect")
    return [row | sides for row in records(claims) if (sides := _sides(row)) is not None]


def _sides(row: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the variants of a claim's sides; ``None`` if one of them has no form."""
    sides = {side: str(row[side]).split(" ") for side in ("treatment", "against")}
    variants = {side: " ".join(rest) for side, (_, *rest) in sides.items()}
    known = all(model == REFERENCE for model, *_ in sides.values()) and set(variants.values()) <= {*FORMS, *EXACT}
    return variants if known else None


def read_losses() -> dict[tuple[str, Form], float]:
    """Read the table: the loss of each form on each dataset, in nats per dimension at κ = 1."""
    found = {}
    for row in records(read_rows(TABLE)):
        exponent = None if pd.isna(row["exponent"]) else float(row["exponent"])
        found[row["dataset"], Form(row["prediction"], exponent, row["spectrum"])] = float(row["loss"])
    return found


def _loss(dataset: str, variant: str) -> float:
    """Return the loss of a variant on a dataset, in nats per dimension at κ = 1.

    Raises:
        ArtifactError: if the table does not have it.
    """
    if variant in EXACT:
        return 0.0
    place = dataset, FORMS[variant]
    if (losses := read_losses()).get(place) is None:
        raise ArtifactError(f"{TABLE}: found no loss of {place}; make the table with python -m docs.closed_form")
    return losses[place]


def _found(claim: Mapping[str, Any]) -> str:
    return f"{claim['effect']:.3f} [{claim['low']:.3f}, {claim['high']:.3f}]".replace("-", "−")


if __name__ == "__main__":
    print(losses([Path(folder) for folder in sys.argv[1:]]).to_csv(index=False), end="")
