"""Figures: repeatable bytes, no text that a reader's fonts could change, nothing drawn from nothing."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from indm.errors import ArtifactError
from indm.report.drawing import PlainLogFormatter, plain_ticks
from indm.report.figures import FIGURES, plot_figures
from indm.report.figures_toy2d import MODELS, toy2d_figure
from indm.report.intervals import CROSSED, OVER_IMAGES
from tests.made_up import write_made_up_results


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_made_up_results(tmp_path_factory.mktemp("results")) / "tables"


def test_every_figure_is_drawn_with_the_same_bytes_each_time(tables: Path) -> None:
    first, second = plot_figures(tables), plot_figures(tables)
    assert first.keys() == FIGURES.keys()
    for name, svg in first.items():
        assert svg == second[name], name
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not list(root.iter("{http://www.w3.org/2000/svg}text")), f"{name}: glyphs are outlines"


def test_a_missing_or_empty_table_gives_no_figure(tmp_path: Path) -> None:
    assert plot_figures(tmp_path) == {}
    pd.DataFrame(columns=[*FIGURES["discretization"].columns, "fid"]).to_csv(
        tmp_path / "discretization.csv", index=False
    )
    assert plot_figures(tmp_path) == {}


def test_a_table_without_rows_need_not_have_the_columns_of_their_numbers(tmp_path: Path) -> None:
    """As of a suite without studies of 2-D data."""
    (tmp_path / "toy2d.csv").write_text("suite,dataset,sde,model,variant,objective,seeds,parameters,train_flops\n")
    assert plot_figures(tmp_path) == {}


def test_a_table_without_a_number_gives_no_figure(tmp_path: Path) -> None:
    """As of claims that no run of the suite could decide."""
    drawing = FIGURES["claims"]
    pd.DataFrame([dict.fromkeys([*drawing.columns, drawing.value])]).to_csv(tmp_path / "claims.csv", index=False)
    assert plot_figures(tmp_path) == {}


def test_a_foreign_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "protocol.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ArtifactError, match=r"protocol\.csv: found the columns a, b; missing: dataset, seeds, factor"):
        plot_figures(tmp_path)


def test_rows_without_numbers_and_models_without_variants_are_drawn(tmp_path: Path) -> None:
    """As in a suite of one seed whose sweep has an impossible cell."""
    rows = [
        {
            "dataset": "digits",
            "sde": "vp",
            "objective": "fid",
            "model": "indm",
            "seeds": 1,
            "sampler": "pc",
            "steps": steps,
            "fid": fid,
            "fid_se": None,
        }
        for steps, fid in ((1, None), (2, 0.5))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "discretization.csv", index=False)
    assert list(plot_figures(tmp_path)) == ["discretization"]


@pytest.mark.parametrize(("tick", "text"), [(0.2, "0.2"), (1.0, "1"), (50.0, "50"), (0.3, ""), (1.5, "")])
def test_ticks_of_logarithmic_axes_are_plain(tick: float, text: str) -> None:
    assert PlainLogFormatter()(tick) == text


@pytest.mark.parametrize(("ends", "written"), [((1, 3), "123456789"), ((1, 50), "125"), ((0.001, 1), "1")])
def test_a_longer_logarithmic_axis_has_fewer_ticks_a_decade(ends: tuple[float, float], written: str) -> None:
    axis = Figure().subplots()
    axis.set(xscale="log", xlim=ends)
    plain_ticks(axis.xaxis)
    for formatter in (axis.xaxis.get_major_formatter(), axis.xaxis.get_minor_formatter()):
        assert "".join(formatter(float(tick)) for tick in range(1, 10)) == written


CELL = {"dataset": "digits", "sde": "vp", "objective": "nll", "model": "indm", "variant": ""}
# Student's 97.5 % point of two degrees of freedom: three seeds.
STUDENT = 4.302652729911275


def rows(figure: str, seeds: int) -> pd.DataFrame:
    """A table with a value of 10 and a standard error over seeds of 0.5 (none of one seed), and of 3 over images."""
    error = {"_se": 0.5 if seeds > 1 else np.nan, "_image_se": 3.0}
    if figure == "ablation":
        numbers: dict[str, Any] = {f"nll_difference{key}": value for key, value in ({"": 10.0} | error).items()}
        return pd.DataFrame([CELL | {"seeds": seeds + 1, "pairs": seeds} | numbers])
    names = {"discretization": ["fid"], "learning-curve-step": ["nelbo", "nll", "gap"], "ladder": ["nelbo"]}[figure]
    numbers = {f"{name}{key}": value for name in names for key, value in ({"": 10.0} | error).items()}
    return pd.DataFrame([CELL | {"seeds": seeds, "sampler": "pc", "steps": 8, "step": 8} | numbers])


def bars(figure: Figure) -> list[tuple[float, float]]:
    """Ends of all error bars of a figure."""
    ends = []
    for axis in figure.axes:
        for lines in axis.collections:
            # A bar that is absent has no points, or some that are not finite.
            whole = [points for points in lines.get_segments() if np.size(points) and np.isfinite(points).all()]  # type: ignore[attr-defined]
            for (x, y), (to_x, to_y) in whole:
                ends += [(min(x, to_x), max(x, to_x)) if y == to_y else (min(y, to_y), max(y, to_y))]
    return ends


@pytest.mark.parametrize("name", ["discretization", "learning-curve-step", "ablation", "ladder"])
def test_error_bars_are_students_intervals_over_seeds(name: str) -> None:
    figure = FIGURES[name].draw(rows(name, seeds=3))
    found = bars(figure)
    assert len(found) == (3 if name == "learning-curve-step" else 1)
    for low, high in found:
        assert (low, high) == pytest.approx((10 - 0.5 * STUDENT, 10 + 0.5 * STUDENT))
    assert figure.get_supxlabel() == "Error bars: 95 % interval of the mean over 3 seeds (Student t)."


@pytest.mark.parametrize("name", ["discretization", "learning-curve-step", "ablation", "ladder"])
def test_one_seed_has_no_error_bars_and_the_figure_says_so(name: str) -> None:
    figure = FIGURES[name].draw(rows(name, seeds=1))
    assert bars(figure) == []
    assert figure.get_supxlabel() == "One seed: no error bars."


def test_the_ladder_rises_from_ddpmpp_to_indm_and_leaves_out_what_has_no_bound() -> None:
    up = ["DDPM++", "DDPM++, same-compute", "DDPM++, scale-5", "DDPM++, scale-10"]
    up += [f"DDPM++, learned-{family}" for family in ("scale", "affine", "linear")] + ["INDM", "INDM, frozen-flow"]
    cells = [
        ("indm", ""),
        ("indm", "frozen-flow"),
        ("ddpmpp", "learned-linear"),
        ("ddpmpp", "scale-10"),
        ("ddpmpp", ""),
    ]
    cells += [("ddpmpp", variant) for variant in ("scale-5", "learned-affine", "same-compute", "learned-scale")]
    table = pd.concat([rows("ladder", seeds=3).assign(model=model, variant=variant) for model, variant in cells])
    table = pd.concat([table, rows("ladder", seeds=3).assign(model="data", nelbo=np.nan)])
    figure = FIGURES["ladder"].draw(table)
    figure.draw_without_rendering()
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == up
    assert axis.yaxis_inverted()


def test_the_ablation_climbs_the_ladder_within_each_dataset_sde_and_objective() -> None:
    variants = ("same-compute", "learned-range", "learned-scale", "scale-up")
    climbed = [*(("ddpmpp", variant) for variant in variants), ("indm", "")]
    parts = [
        rows("ablation", seeds=3).assign(objective=objective, model=model, variant=variant)
        for objective in ("nll", "fid")
        for model, variant in reversed(climbed)
    ]
    figure = FIGURES["ablation"].draw(pd.concat(parts))
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    rungs = ["DDPM++, same-compute", "DDPM++, learned-range", "DDPM++, learned-scale", "DDPM++, scale-up", "INDM"]
    assert [label.split(", ", 3)[-1] for label in labels] == rungs * 2
    assert ["nll" in label for label in labels] == [True] * 5 + [False] * 5


def test_seeds_that_differ_are_named_as_a_range() -> None:
    table = pd.concat([rows("discretization", seeds=n).assign(steps=n) for n in (1, 3, 5)])
    note = FIGURES["discretization"].draw(table).get_supxlabel()
    assert note == "Error bars: 95 % interval of the mean over 3 to 5 seeds (Student t); none where there is one seed."


def test_claims_name_the_method_of_their_intervals(tables: Path) -> None:
    table = pd.read_csv(tables / "claims.csv", dtype={"control": str, "test": str}).fillna({"control": "", "test": ""})
    last = table["id"] == "few-steps"
    table = table.assign(n=table["n"].mask(last, 10), test=table["test"].mask(last, CROSSED))
    note = FIGURES["claims"].draw(table.fillna({"sde": "", "objective": ""})).get_supxlabel()
    assert note == f"Error bars: 95 % interval of the mean over 3 seeds (Student t) or 10 seeds ({CROSSED})."


def test_an_interval_over_images_alone_is_not_drawn(tables: Path) -> None:
    """Among bars that are for other seeds it would look like one of them."""
    table = pd.read_csv(tables / "claims.csv", dtype={"control": str, "test": str}).fillna({"control": "", "test": ""})
    one = table[table["control"] == ""].assign(n=1, test=OVER_IMAGES, sde="", objective="").dropna(subset="low")
    figure = FIGURES["claims"].draw(one)
    assert bars(figure) == []
    assert figure.get_supxlabel() == "One seed: no error bars."


def description(svg: bytes) -> str:
    (found,) = ElementTree.fromstring(svg).iter("{http://purl.org/dc/elements/1.1/}description")
    return found.text or ""


def test_every_figure_names_its_error_bars_in_words(tables: Path) -> None:
    drawn = plot_figures(tables)
    named = {name: description(svg) for name, svg in drawn.items()}
    # The protocol is examined on one run.
    assert named.pop("protocol") == "One seed: no error bars."
    # A trial is one training.
    assert named.pop("tuning") == "Error bars: one standard error over images."
    assert set(named.values()) == {"Error bars: 95 % interval of the mean over 3 seeds (Student t)."}
    assert description(toy2d_figure(toy2d_arrays())) == "One model each, seed 0: no error bars."


def toy2d_arrays() -> dict[str, Any]:
    points = np.random.default_rng(0).normal(size=(9, 2))
    model = {
        "clouds": points[None].repeat(2, 0),
        "paths": points[None].repeat(3, 0),
        "log_density": np.zeros(16),
        "drift": points,
        "volatility": np.eye(2)[None].repeat(9, 0),
    }
    arrays = {f"{name}/{variant}/{key}": value for name, variant in MODELS for key, value in model.items()}
    return arrays | {"data": points, "times": np.array([0.0, 1.0]), "limit": np.array(2.0), "arrows": points}


def test_a_short_logarithmic_axis_has_all_its_ticks() -> None:
    """FIDs from 6 to 8: none of them is a decade's 1, 2 or 5."""
    table = pd.concat([rows("discretization", seeds=1).assign(steps=steps, fid=fid) for steps, fid in ((4, 8), (8, 6))])
    figure = FIGURES["discretization"].draw(table)
    figure.draw_without_rendering()
    (axis,) = figure.axes
    assert {"6", "7", "8"} <= {tick.get_text() for tick in axis.get_yticklabels(which="both")}
