"""The figure of the ladder in docs/report.md: its gains are those of the claims, and its marks are all in sight."""

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from docs.ladder import LIKE, PANELS, Point, draw_ladder, gains, ladder, points_of
from docs.report import BEHIND, CURVE, FILTER, FLOW, LONGER, MAPS, RUNGS, is_finished
from indm.errors import ArtifactError
from indm.report.differences import STEPS
from indm.report.intervals import Interval
from indm.report.names import REFERENCE
from indm.report.plotting import PAPER, style_of
from indm.report.rows import read_rows
from tests.conftest import REPOSITORY
from tests.test_publish import costs, shapes, step_times

PUBLISHED, PARAMS, SCALING = REPOSITORY / "docs/results", REPOSITORY / "params", REPOSITORY / "docs/scaling.md"
CELEBA = "celeba64-6000"
SUITES = [suite for suite in PANELS if is_finished(PUBLISHED, suite)]
CHEAP = (REFERENCE, MAPS)
NONLINEAR = {CHEAP, (REFERENCE, CURVE), FLOW, BEHIND}


def places_of(line: Line2D) -> list[float]:
    return [float(x) for x in np.asarray(line.get_xdata(), float)]


@pytest.fixture(scope="module")
def panels() -> dict[str, dict[tuple[str, str], Point]]:
    return {suite: points_of(PUBLISHED, PARAMS, SCALING, suite) for suite in SUITES}


@pytest.fixture(scope="module")
def axes(panels: dict[str, dict[tuple[str, str], Point]]) -> dict[str, Axes]:
    return dict(zip(SUITES, ladder(panels, 0.01).axes, strict=True))


@pytest.mark.parametrize("suite", [suite for suite in SUITES if suite != "digits-seeds"])
def test_a_gain_has_the_interval_of_its_exploratory_claim(suite: str) -> None:
    claims = read_rows(PUBLISHED / suite / "tables/claims.csv")
    (row,) = claims[(claims["id"] == LIKE) & (claims["objective"] == "nll")].itertuples()
    found = gains(PUBLISHED / suite / "tables", PARAMS, suite)[CHEAP]
    assert (found.effect, found.low, found.high) == pytest.approx((row.effect, row.low, row.high), abs=1e-6)


def test_gains_over_no_map_are_the_leads_of_the_claims(panels: dict[str, dict[tuple[str, str], Point]]) -> None:
    """A primary claim has a wider interval, but the same mean."""
    for suite, panel in panels.items():
        claims = read_rows(PUBLISHED / suite / "tables/claims.csv")
        plain = claims[(claims["id"] == "better-nelbo") & (claims["objective"] == "nll")]
        (lead,) = plain[plain["comparison"] == STEPS]["effect"]
        assert panel[FLOW].gain.effect == pytest.approx(lead, abs=1e-6)


def test_costs_are_the_counted_flops_and_the_measured_times(panels: dict[str, dict[tuple[str, str], Point]]) -> None:
    for suite, panel in panels.items():
        assert panel[FLOW].flops == pytest.approx(costs(suite)[0])
        assert panel[LONGER].flops == panel[FLOW].flops
        assert math.isnan(panel[LONGER].time)
    assert [panels[suite][FLOW].time for suite in ("cifar10-3000", "fashion-full")] == step_times()
    table = read_rows(PUBLISHED / "cifar10-maps/tables/compute.csv").set_index(["model", "variant"])["ms_per_step"]
    assert panels["cifar10-maps"][CHEAP].time == pytest.approx(table[CHEAP] / table[REFERENCE, ""])


def test_intervals_and_times_lie_inside_the_axes(
    panels: dict[str, dict[tuple[str, str], Point]], axes: dict[str, Axes]
) -> None:
    for axis in axes.values():
        (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
        bars = [path for it in axis.collections if isinstance(it, LineCollection) for path in it.get_paths()]
        assert bars
        assert all(low < y < high for bar in bars for y in np.asarray(bar.vertices)[:, 1])
        marks = [line for line in axis.lines if line.get_marker() not in ("None", None)]
        assert all(left < x < right for line in marks for x in places_of(line))
    assert len({axis.get_ylim() for axis in axes.values()}) == 1


def test_markers_are_open_where_the_diffusion_is_linear_in_the_data(
    panels: dict[str, dict[tuple[str, str], Point]], axes: dict[str, Axes]
) -> None:
    for suite, panel in panels.items():
        drawn = {(line.get_color(), line.get_marker()): line.get_markerfacecolor() for line in axes[suite].lines}
        for model in panel:
            style = style_of(*model)
            is_open = drawn[style["color"], style["marker"]] == PAPER
            assert is_open == (model not in NONLINEAR), model
    assert {model for model, rung in RUNGS.items() if not rung.linear} == NONLINEAR


def marks_of(axis: Axes) -> list[Line2D]:
    """The marks of models, without the strokes at their times."""
    return [line for line in axis.lines if line.get_marker() not in ("None", None, "|")]


def test_marks_stand_at_the_costs_and_the_gains_of_their_models(
    panels: dict[str, dict[tuple[str, str], Point]], axes: dict[str, Axes]
) -> None:
    for suite, panel in panels.items():
        places = [(*places_of(mark), *np.asarray(mark.get_ydata(), float)) for mark in marks_of(axes[suite])]
        assert places == [(point.flops, point.gain.effect) for point in panel.values()]
        assert places[0] == (1, 0)


def test_no_mark_of_a_panel_hides_another(axes: dict[str, Axes]) -> None:
    for axis in axes.values():
        places = [axis.transData.transform(mark.get_xydata())[0] for mark in marks_of(axis)]
        apart = [np.hypot(*(one - other)) * 72 / axis.figure.dpi for one, other in combinations(places, 2)]
        assert min(apart) > 7


def test_of_two_intervals_on_a_line_the_upper_one_is_narrower() -> None:
    """So that the ends of both are seen."""
    models = [(REFERENCE, FILTER), CHEAP, FLOW]
    panel = {
        model: Point(Interval(mean, mean - 0.02, mean + 0.02, 4), flops, math.nan)
        for model, mean, flops in zip(models, (0.08, 0.1, 0.1), (1.002, 1.006, 1.5), strict=True)
    }
    (axis,) = ladder({CELEBA: panel}, 0.01).axes
    lower, upper, alone = (
        np.atleast_1d(it.get_linewidth())[0] for it in axis.collections if isinstance(it, LineCollection)
    )
    assert lower > upper == alone


def test_one_published_suite_is_enough_for_a_figure(tmp_path: Path) -> None:
    (tmp_path / CELEBA).symlink_to(PUBLISHED / CELEBA)
    assert {*draw_ladder(tmp_path, PARAMS, SCALING)} == {"ladder"}


def test_panels_have_the_titles_of_their_suites(axes: dict[str, Axes]) -> None:
    assert [axis.get_title(loc="left") for axis in axes.values()] == [*PANELS.values()]


def test_the_figure_is_the_published_one_and_has_no_clip_paths() -> None:
    drawn = draw_ladder(PUBLISHED, PARAMS, SCALING)["ladder"]
    assert b"clipPath" not in drawn
    assert shapes((REPOSITORY / "docs/pictures/ladder.svg").read_text())[0] == shapes(drawn.decode())[0]


def test_without_a_published_suite_there_is_no_figure(tmp_path: Path) -> None:
    assert draw_ladder(tmp_path, PARAMS, SCALING) == {}


def test_a_page_without_a_time_is_refused_by_name(tmp_path: Path) -> None:
    page = tmp_path / "scaling.md"
    page.write_text("# Cost\n")
    with pytest.raises(
        ArtifactError, match=r"scaling\.md: found no time of INDM's step on Fashion-MNIST; expected a row"
    ):
        points_of(PUBLISHED, PARAMS, page, "fashion-full")


def test_the_caption_s_order_of_gains_holds_in_each_panel(panels: dict[str, dict[tuple[str, str], Point]]) -> None:
    """On failure: read the caption, and write it anew."""
    for panel in panels.values():
        assert panel[LONGER].gain.effect > panel[FLOW].gain.effect
        if CHEAP in panel:
            assert panel[CHEAP].gain.effect > panel[FLOW].gain.effect
            assert panel[CHEAP].flops < 1.01
