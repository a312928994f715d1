"""Multiples of training of a suite: their leads are those of the claims, and planted bounds give the planted multiple."""

import math
from pathlib import Path

import pandas as pd
import pytest

from docs.answers import SUITES as ALL
from docs.multiples import FURTHER, PANELS, against_length, draw_multiples, multiples_of, with_multiples
from docs.report import is_finished
from indm.report.matrix import InFile
from indm.report.multiple import Multiple
from indm.report.multiples import NO_MAP, OBJECTIVE, Trained, read_multiples, written
from indm.report.names import REFERENCE, TREATMENT
from indm.report.page.document import rows_of_multiples
from indm.report.rows import read_rows, records
from tests.conftest import REPOSITORY
from tests.test_publish import shapes

PUBLISHED = REPOSITORY / "docs/results"
# Whose claims have the same seeds at equal steps and at equal compute.
SUITES = ("cifar10-maps", "cifar10-3000", "celeba64-6000")
FILTER, LONGER, FLOW = (REFERENCE, "fixed-filter"), (REFERENCE, "same-compute"), (TREATMENT, "")
# Maps that cost nearly nothing.
CHEAP = (FILTER, (REFERENCE, "learned-curve-filter"))
CELL = {"suite": "planted", "dataset": "digits", "sde": "vp", "objective": OBJECTIVE}
SEEDS = (1, 2, 3, 4)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Tables of a suite whose DDPM++ gains 0.1 bits/dim in twice the steps, and whose filter is 0.05 ahead of it."""
    bounds = {NO_MAP: 3.0, FILTER: 2.95, LONGER: 2.9, FLOW: 2.97}
    return write(tmp_path, bounds, {LONGER: 2000})


def write(folder: Path, bounds: dict[tuple[str, str], float], steps: dict[tuple[str, str], int]) -> Path:
    """Write the tables from which multiples are read; of INDM, the decoder of the claims is the fixed one."""
    tables = folder / "planted/tables"
    tables.mkdir(parents=True)
    rows, cells = [], []
    for arm, bound in bounds.items():
        cell = CELL | {"model": arm[0], "variant": arm[1]}
        decoder = "fixed" if arm == FLOW else "learned"
        cells.append(cell | {"decoder": decoder, "train_flops_per_step": 2.0 if arm == FLOW else 1.0})
        for seed in SEEDS:
            numbers: dict[tuple[str, str], float] = {("train", "steps"): steps.get(arm, 1000)}
            numbers |= {("nll", "nelbo"): bound + 0.01 * seed, ("nll", "nelbo_fixed"): bound + 0.01 * seed}
            if arm == FLOW:
                numbers["nll", "nelbo"] = math.inf
            rows += [
                cell | {"seed": seed, "stage": stage, "metric": metric, "value": value, "source": f"runs/{arm}"}
                for (stage, metric), value in numbers.items()
            ]
    values = pd.DataFrame(rows).assign(sampler="", x=None, sound=None, se=None)
    values[values["value"] < math.inf].to_csv(tables / "values.csv", index=False)
    for name in ("nll", "compute"):
        pd.DataFrame(cells).to_csv(tables / f"{name}.csv", index=False)
    return tables


def test_planted_bounds_have_the_planted_multiples(planted: Path) -> None:
    found = {one.arm: one for one in read_multiples(planted)}
    assert {*found} == {FILTER, FLOW}
    assert found[FILTER].multiple.value == pytest.approx(2**0.5)
    assert found[FLOW].multiple.value == pytest.approx(2**0.3)
    assert (found[FLOW].flops, found[FILTER].flops) == (2.0, 1.0)
    assert math.isnan(found[FLOW].time)


def test_without_a_longer_training_or_three_seeds_there_is_none(tmp_path: Path) -> None:
    bounds = {NO_MAP: 3.0, FILTER: 2.95}
    assert read_multiples(write(tmp_path / "a", bounds, {})) == []
    assert read_multiples(write(tmp_path / "b", bounds | {LONGER: 2.9}, {LONGER: 1000})) == []
    tables = write(tmp_path / "c", bounds | {LONGER: 2.9}, {LONGER: 2000})
    values = pd.read_csv(tables / "values.csv")
    values[values["seed"] < 3].to_csv(tables / "values.csv", index=False)
    assert read_multiples(tables) == []


@pytest.mark.parametrize("suite", SUITES)
def test_leads_are_those_of_the_claims(suite: str) -> None:
    tables = PUBLISHED / suite / "tables"
    claims = read_rows(tables / "claims.csv")
    claims = claims[(claims["id"] == "better-nelbo") & (claims["objective"] == OBJECTIVE)]
    (lead,) = claims[claims["comparison"] == "equal steps"]["effect"]
    (behind,) = claims[claims["comparison"] == "equal compute"]["effect"]
    (flow,) = (one for one in read_multiples(tables) if one.arm == FLOW)
    # DDPM++ gains what INDM leads by at equal steps and trails by at equal compute. Bounds have six digits.
    found = math.log(flow.multiple.value, flow.multiple.ratio)
    assert found == pytest.approx(lead / (lead - behind), abs=1e-5 / (lead - behind))


def test_multiples_are_what_the_page_says_of_them() -> None:
    """On failure: read the section, and write it anew."""
    found = multiples_of(PUBLISHED, {**ALL, **FURTHER})
    for suite, models in found.items():
        flow = models[FLOW]
        if suite == "fashion-long":
            assert flow.multiple.low < flow.flops < flow.multiple.high
        else:
            assert flow.multiple.value < flow.flops
        assert all(one.multiple.low > one.flops for arm, one in models.items() if arm in CHEAP)
    for short, longer in (("cifar10-1000", "cifar10-3000"), ("fashion-full", "fashion-long")):
        assert found[longer][CHEAP[1]].multiple.value > found[short][CHEAP[1]].multiple.value


@pytest.mark.parametrize(
    ("page", "suite", "arm", "words"),
    [
        ("celeba64-6000", "celeba64-6000", CHEAP[1], "2.48-fold"),
        ("celeba64-6000", "celeba64-6000", FILTER, "3.41-fold"),
        ("celeba64-6000", "cifar10-maps", CHEAP[1], "3.17-fold"),
        ("celeba64-6000", "cifar10-maps", FILTER, "3.29-fold"),
        ("cifar10-maps", "cifar10-maps", FILTER, "3.29-fold"),
        ("cifar10-maps", "cifar10-maps", FLOW, "1.43-fold"),
    ],
)
def test_gains_rise_as_the_pages_say(page: str, suite: str, arm: tuple[str, str], words: str) -> None:
    flows = records(read_rows(PUBLISHED / suite / "tables/flow.csv"))
    (gains,) = (row for row in flows if (row["model"], row["variant"]) == arm)
    assert f"{gains['gain_6'] / gains['gain_1']:.2f}-fold" == words
    assert words in (PUBLISHED / page / "README.md").read_text()


@pytest.mark.parametrize(
    ("multiple", "text"),
    [
        (Multiple(1.2, 1.1, 1.3, 1.4, 6), "1.20 [1.10, 1.30]"),
        (Multiple(1.3, 1.2, 1.5, 1.4, 6), "1.30 [1.20, 1.50]"),
        (Multiple(1.3, 0.0, math.inf, 1.4, 6), "1.30, unbounded"),
        (Multiple(math.nan, 0.0, math.inf, 1.4, 6), "unbounded"),
    ],
)
def test_what_is_unbounded_or_extrapolated_says_so(multiple: Multiple, text: str) -> None:
    assert written(multiple) == text
    text += ", extrapolated" * (multiple.high == 1.5)
    one = Trained(("digits", "vp", OBJECTIVE), FILTER, 1000, multiple, 1.0, math.nan)
    (row,) = rows_of_multiples([one], InFile())
    assert [cell.replace("\u00a0", " ") for cell in row] == ["fixed filter", text, "× 1.00", "–"]


def test_the_table_and_the_figure_are_the_published_ones() -> None:
    page = (PUBLISHED / "README.md").read_text()
    assert with_multiples(page, PUBLISHED) == page
    drawn = draw_multiples(PUBLISHED)["multiples"]
    assert b"clipPath" not in drawn
    assert shapes((REPOSITORY / "docs/pictures/multiples.svg").read_text())[0] == shapes(drawn.decode())[0]


def test_each_published_length_has_its_point() -> None:
    panels = {title: [*multiples_of(PUBLISHED, suites).values()] for title, suites in PANELS.items()}
    axes = against_length(panels).axes
    for axis, suites in zip(axes, PANELS.values(), strict=True):
        steps = list(axis.get_xticks())
        assert len(steps) == sum(is_finished(PUBLISHED, suite) for suite in suites)


def test_without_published_suites_nothing_changes(tmp_path: Path) -> None:
    assert with_multiples("page", tmp_path) == "page"
    assert draw_multiples(tmp_path) == {}
