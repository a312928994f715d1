"""Figures: repeatable bytes, no text that a reader's fonts could change, nothing drawn from nothing."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from indm.bench.stages import figure as stage
from indm.bench.suite.load import load_suite
from indm.errors import ArtifactError
from indm.measured import BAND_METRICS
from indm.report import figures
from indm.report.figures import FIGURES, Plot, plot_figures
from indm.report.figures_claims import MOST_SEEDS
from indm.report.figures_lines import CONTROLS, bands
from indm.report.figures_toy2d import MODELS, toy2d_figure
from indm.report.names import arm
from indm.report.plotting import BLUE, DARK, GROUND, PAPER, SOFT, VERMILLION, plain_ticks, style_of
from indm.store.layout import Layout
from tests.conftest import REPOSITORY
from tests.made_up import write_made_up_results


@pytest.fixture(scope="module")
def drawn(tables: Path) -> dict[str, bytes]:
    return plot_figures(tables)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_made_up_results(tmp_path_factory.mktemp("results")) / "tables"


def test_every_figure_is_drawn(drawn: dict[str, bytes]) -> None:
    assert drawn.keys() == FIGURES.keys()
    for name, svg in drawn.items():
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not list(root.iter("{http://www.w3.org/2000/svg}text")), f"{name}: glyphs are outlines"


@pytest.mark.long
def test_a_figure_has_the_same_bytes_each_time_and_the_last_bits_of_the_layout_change_none(
    tables: Path, drawn: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The solver may find others in another process."""
    execute = ConstrainedLayoutEngine.execute

    def disturbed(engine: ConstrainedLayoutEngine, fig: Figure) -> None:
        execute(engine, fig)
        for axes in fig.axes:
            axes.set_position(axes.get_position(original=True).bounds * (1 + 1e-14 * np.arange(1, 5)), which="original")
            axes.set_in_layout(True)

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", disturbed)
    assert [name for name, svg in plot_figures(tables).items() if svg != drawn[name]] == []


def test_a_missing_or_empty_table_gives_no_figure(tmp_path: Path) -> None:
    """Nor one without the columns of its numbers, or of claims that no run of the suite could decide."""
    assert plot_figures(tmp_path) == {}
    pd.DataFrame(columns=["dataset", "fid"]).to_csv(tmp_path / "discretization.csv", index=False)
    (tmp_path / "toy2d.csv").write_text("suite,dataset,sde,model,variant,objective,seeds,parameters,train_flops\n")
    columns = ("family", "sde", "treatment", "smallest_effect", "effect")
    pd.DataFrame([dict.fromkeys(columns)]).to_csv(tmp_path / "claims.csv", index=False)
    assert plot_figures(tmp_path) == {}


def test_a_matplotlibrc_changes_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whoever draws; its settings are there before a figure is drawn."""

    def draw(_: pd.DataFrame) -> Figure:
        figure = Figure()
        figure.subplots().plot([0, 1])
        return figure

    monkeypatch.setattr(figures, "FIGURES", {"fid": Plot("fid", "fid", draw)})
    (tmp_path / "fid.csv").write_text("fid\n1.0\n")
    expected = plot_figures(tmp_path)
    with mpl.rc_context({"axes.facecolor": "black", "lines.dash_capstyle": "round", "xtick.direction": "in"}):
        assert plot_figures(tmp_path) == expected


def test_figures_of_somebody_else_behind_a_link_stay(tmp_path: Path) -> None:
    """Those that the suite does not have would be removed."""
    theirs, suite = tmp_path / "theirs", load_suite(REPOSITORY / "params/smoke.yaml")
    theirs.mkdir()
    (theirs / "mine.svg").write_text("mine")
    (tmp_path / "reports/smoke").mkdir(parents=True)
    link = tmp_path / "reports/smoke/figures"
    link.symlink_to(theirs)
    with pytest.raises(ArtifactError, match=f"^{link}.*{theirs}"):
        stage.run(suite, Layout(tmp_path / "results", "smoke"), tmp_path / "reports")
    assert (theirs / "mine.svg").read_text() == "mine"


def test_rows_without_numbers_and_models_without_variants_are_drawn(tmp_path: Path) -> None:
    """As in a suite of one seed whose sweep has an impossible cell."""
    same = {"dataset": "digits", "sde": "vp", "objective": "fid", "model": "indm", "seeds": 1, "sampler": "pc"}
    same |= {"sound": 0} | dict.fromkeys(("fid_se", "fid_low", "fid_high"))
    rows = [same | {"steps": steps, "fid": fid} for steps, fid in ((1, None), (2, 0.5))]
    pd.DataFrame(rows).to_csv(tmp_path / "discretization.csv", index=False)
    assert list(plot_figures(tmp_path)) == ["discretization"]


@pytest.mark.parametrize(
    ("ends", "written"), [((1, 3), "123456789"), ((1.1, 4.9), "123456789"), ((1, 50), "125"), ((0.001, 1), "1")]
)
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
    names = {"discretization": ["fid"], "error-compute": ["nelbo_excess"]}.get(figure, ["nelbo", "nll", "gap"])
    numbers = {f"{name}{key}": value for name in names for key, value in ({"": 10.0} | error).items()}
    if figure == "discretization":
        numbers |= dict(zip(("fid_low", "fid_high"), (5.0, 20.0) if seeds > 1 else (np.nan, np.nan), strict=True))
    return pd.DataFrame(
        [CELL | {"seeds": seeds, "sampler": "pc", "steps": 8, "sound": 1, "step": 8, "train_flops": 1e9} | numbers]
    )


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


def test_error_bars_of_fid_are_those_of_its_logarithm() -> None:
    """Around the geometric mean: on a logarithmic axis they never run below its end."""
    table = rows("discretization", seeds=3).assign(fid=11.0)
    figure = FIGURES["discretization"].draw(table)
    assert bars(figure) == [(5.0, 20.0)]
    (line,) = (line for line in figure.axes[0].lines if len(line.get_xdata()) and line.get_marker() == "s")  # type: ignore[arg-type]
    assert line.get_ydata() == pytest.approx([10.0])
    assert "Means and intervals are those of log FID, exponentiated." in figure.get_supxlabel()


def draw(name: str, table: pd.DataFrame) -> Figure:
    """Draw a figure beside a suite with one claim, whose smallest effect is 0.01 bits/dim."""
    claims = pd.DataFrame([{"unit": "bits/dim", "smallest_effect": 0.01}])
    return FIGURES[name].draw(table, *([claims] if name == "ablation" else []))


@pytest.mark.parametrize("name", ["learning-curve-step", "ablation", "error-compute"])
def test_error_bars_are_students_intervals_over_seeds(name: str) -> None:
    figure = draw(name, rows(name, seeds=3))
    found = bars(figure)
    assert len(found) == (3 if name == "learning-curve-step" else 1)
    for low, high in found:
        assert (low, high) == pytest.approx((10 - 0.5 * STUDENT, 10 + 0.5 * STUDENT))
    assert figure.get_supxlabel().startswith("Error bars: 95 % interval of the mean over 3 seeds (Student t).")


@pytest.mark.parametrize("name", ["discretization", "learning-curve-step", "ablation", "error-compute"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_one_seed_and_two_have_no_error_bars_and_the_figure_says_so(name: str, seeds: int) -> None:
    """Over two seeds, an interval spans 12.7 standard errors on either side."""
    figure = draw(name, rows(name, seeds=seeds))
    assert bars(figure) == []
    assert figure.get_supxlabel().startswith(f"{('One seed', 'Two seeds')[seeds - 1]}: no error bars.")


def test_errors_have_a_panel_for_each_density_and_a_line_for_each_model_over_the_lengths() -> None:
    cells = [("ddpmpp", ""), ("indm", ""), ("ddpmpp", "best-scale")]
    places = [
        (f"{density}-{length}", flops)
        for density in ("moons", "steep-8d")
        for length, flops in (("short", 1e9), ("long", 4e9))
    ]
    table = pd.concat(
        [
            rows("error-compute", seeds=3).assign(dataset=dataset, train_flops=flops, model=model, variant=variant)
            for dataset, flops in places
            for model, variant in cells
        ]
    )
    figure = FIGURES["error-compute"].draw(table)
    assert [axis.get_title() for axis in figure.axes if axis.axison] == ["moons", "steep-8d"]
    for axis in figure.axes[:2]:
        lines = [line for line in axis.lines if len(np.asarray(line.get_xdata())) == 2]
        assert len(lines) == 3
        # In 10^9 FLOPs, beside each other, so that no marker hides another.
        drawn = np.sort(np.array([np.asarray(line.get_xdata()) for line in lines]), axis=0)
        assert drawn == pytest.approx(np.array([[1, 4]] * 3), rel=0.03)
        assert (np.diff(drawn, axis=0) > 0).all()


def test_the_ablation_shades_differences_below_the_smallest_effect() -> None:
    (axis,) = draw("ablation", rows("ablation", seeds=3)).axes
    (shade,) = axis.patches
    assert shade.get_path().get_extents(shade.get_patch_transform()).intervalx == pytest.approx((-0.01, 0.01))


def test_the_ablation_neither_labels_nor_shades_kid_as_a_likelihood() -> None:
    table = rows("ablation", seeds=3).assign(kid_difference=0.001, kid_difference_se=0.0005)
    axes = {axis.get_title(): axis for axis in draw("ablation", table).axes}
    (kid,) = [axis for title, axis in axes.items() if "KID" in title]
    assert len(kid.patches) == 0
    assert kid.get_xlabel() == "KID\n← better"


def test_seeds_that_differ_are_named_as_a_range() -> None:
    table = pd.concat([rows("discretization", seeds=n).assign(steps=n) for n in (1, 3, 5)])
    note = FIGURES["discretization"].draw(table).get_supxlabel()
    assert note.startswith(
        "Error bars: 95 % interval of the mean over 3 to 5 seeds (Student t); none where there is one seed."
    )


def test_steps_that_are_too_few_for_their_sampler_are_shaded() -> None:
    """In the panel of that sampler alone."""
    table = pd.concat([rows("discretization", seeds=3).assign(steps=steps) for steps in (8, 16)])
    table = pd.concat([table, table.assign(sampler="ddim", sound=(table["steps"] == 16).astype(int))])
    pc, ddim = FIGURES["discretization"].draw(table).axes
    assert [len(axis.patches) for axis in (pc, ddim)] == [0, 1]
    (low, _), (high, _) = ddim.patches[0].get_extents().transformed(ddim.transData.inverted()).get_points()
    assert low < 8 < high < 16


def read(tables: Path, figure: str = "claims") -> list[pd.DataFrame]:
    """The tables that a figure is drawn from, those of the claims selected."""
    drawing = FIGURES[figure]
    table, *beside = (figures._read(tables / f"{name}.csv") for name in (drawing.table, *drawing.beside))
    return [table.query(drawing.of) if drawing.of else table, *beside]


def test_an_interval_over_images_alone_is_not_drawn(tables: Path) -> None:
    """Among bars that are for other seeds it would look like one of them."""
    table, differences = read(tables)
    for n, images in ((1, 300), (2, None)):
        assert bars(FIGURES["claims"].draw(table.assign(n=n, images=images), differences)) == []
    figure = FIGURES["claims"].draw(table.assign(n=1, images=300), differences)
    assert figure.get_supxlabel().startswith("One seed: no error bars.")


def test_claims_show_every_model_that_was_run_with_its_verdict(tables: Path) -> None:
    (axis,) = FIGURES["claims"].draw(*read(tables)).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        *("DDPM++", f"{arm('ddpmpp', 'standardised')} (simple control)", "DDPM++", arm("ddpmpp", "same-compute")),
        *["DDPM++"] * 3,
    ]
    words = [text.get_text() for text in axis.texts if isinstance(text, Annotation) and text.xy[0] == 1.01]
    assert words == ["better", "no gain", "better", "no gain", "worse", "undecided", "worse"]
    control, *_ = FIGURES["claims-exploratory"].draw(*read(tables, "claims-exploratory")).axes
    assert "better, failed 0 | 1" in [text.get_text() for text in control.texts]


def test_an_effect_and_its_seeds_stand_at_their_multiples_of_the_smallest_one(tables: Path) -> None:
    table, differences = read(tables)
    table = table.assign(smallest_effect=table["smallest_effect"].mask(table["id"] == "few-steps", 0.1))
    table = table.dropna(subset="effect")
    (axis,) = FIGURES["claims"].draw(table, differences).axes
    compared = {str(against): part for against, part in table.groupby("against")}
    marks = {style_of(*against.partition(" ")[::2])["marker"]: part for against, part in compared.items()}
    points = {
        marker: np.concatenate([np.asarray(line.get_xdata()) for line in axis.lines if line.get_marker() == marker])
        for marker in [*marks, "."]
    }
    for marker, part in marks.items():
        assert sorted(points[marker]) == pytest.approx(sorted(part["effect"] / part["smallest_effect"]))
    dots = [(table["effect"] + away) / table["smallest_effect"] for away in (-0.01, 0, 0.01)]
    assert sorted(points["."]) == pytest.approx(sorted(pd.concat(dots)))
    many = FIGURES["claims"].draw(table.assign(n=MOST_SEEDS + 1), differences).axes[0]
    assert not [line for line in many.lines if line.get_marker() == "." and len(np.asarray(line.get_xdata()))]


def test_a_claim_is_drawn_in_one_figure_unless_it_has_no_unit_or_is_about_another_model(tables: Path) -> None:
    table = figures._read(tables / "claims.csv")
    found = [key for name in FIGURES if name.startswith("claims") for key in table.query(FIGURES[name].of).index]
    assert sorted(found) == list(table.index)
    assert not len(table.assign(smallest_effect=0.0).query(FIGURES["claims"].of))
    assert not len(table.assign(treatment="ddpmpp").query(FIGURES["claims"].of))


def description(svg: bytes) -> str:
    (found,) = ElementTree.fromstring(svg).iter("{http://purl.org/dc/elements/1.1/}description")
    return found.text or ""


def test_every_figure_names_its_error_bars_in_words(drawn: dict[str, bytes]) -> None:
    named = {name: description(svg) for name, svg in drawn.items()}
    # The protocol is examined on one run.
    assert named.pop("protocol") == "Error bars: 95 % interval over images, of one run."
    # A trial is one training.
    assert named.pop("tuning") == "Error bars: 95 % interval over images, of one training; of FID on its logarithm."
    bars = "Error bars: 95 % interval of the mean over 3 seeds (Student t)."
    assert named.pop("ablation").startswith(bars)
    for name in ("claims", "claims-known"):
        assert named.pop(name).startswith("Error bars: simultaneous interval")
    assert named.pop("claims-exploratory").startswith(bars)
    shaded = (
        "Shaded: fewer steps than the sampler needs: its own error may be what is measured, and no claim uses them."
    )
    on_logarithm = "Means and intervals are those of log FID, exponentiated."
    assert named.pop("discretization") == f"{bars} {on_logarithm}\n{shaded}"
    assert named.pop("error-compute").startswith(bars)
    assert named.pop("learning-curve-flops").startswith(bars)
    assert set(named.values()) == {bars}
    assert description(toy2d_figure(toy2d_arrays())).startswith("One model each, of the first seed: no error bars.")


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


def test_an_interval_that_leaves_no_room_for_the_others_is_written() -> None:
    """One seed whose likelihood is off by hundreds: the other rungs keep their axis, and its numbers stand there."""
    cells = [("ddpmpp", "scale-5"), ("ddpmpp", "same-compute"), ("indm", "")]
    table = pd.concat([rows("ablation", seeds=3).assign(model=model, variant=variant) for model, variant in cells])
    far = ["nll_difference", "nll_difference_se"]
    table.loc[table["variant"] == "same-compute", far] = [1300.0, 500.0]
    figure = draw("ablation", table)
    (axis,) = figure.axes
    assert "too wide to be drawn" in figure.get_supxlabel()
    assert [text.get_text().split()[0] for text in axis.texts] == ["1.3e+03"]
    assert axis.get_xlim()[1] < 20


def described(figure: Figure) -> list[dict[str, str]]:
    """The names that each panel has beside it, from the top down, with their colours."""
    legends = [legend for axis in figure.axes if (legend := axis.get_legend())]
    return [
        {
            text.get_text().replace("\n", " "): str(cast(Line2D, line).get_color())
            for text, line in zip(legend.get_texts(), legend.legend_handles, strict=True)
        }
        for legend in legends
    ]


@pytest.mark.parametrize("name", ["discretization", "learning-curve-step", "learning-curve-flops"])
def test_a_panel_has_both_plain_models_and_a_few_controls(name: str) -> None:
    """Eleven arms, of which nobody could tell the lines apart: each control is in one panel of each metric."""
    controls = [f"scale-{i}" for i in range(2, 11)]
    cells = [("ddpmpp", ""), ("indm", ""), *(("ddpmpp", control) for control in controls)]
    of_one = rows(name.replace("flops", "step"), seeds=3).assign(flops=1e12)
    table = pd.concat([of_one.assign(model=model, variant=variant) for model, variant in cells])
    later = table.assign(step=2 * table["step"], steps=2 * table["steps"], flops=2e12)
    panels = described(FIGURES[name].draw(pd.concat([table, later])))
    metrics = 3 if name == "learning-curve-step" else 1
    assert len(panels) == 3 * metrics
    for panel in panels:
        assert (panel.pop("DDPM++"), panel.pop("INDM")) == (BLUE, VERMILLION)
        assert 0 < len(panel) <= CONTROLS
        assert set(panel.values()) == {SOFT}
    named = [control.replace("-", " ") for control in controls * metrics]
    assert sorted(control for panel in panels for control in panel) == sorted(named)


def test_the_protocol_has_errors_over_images_and_no_row_of_itself(tables: Path) -> None:
    table = pd.read_csv(tables / "protocol.csv", dtype={"setting": str})
    itself = table.iloc[:1].assign(factor="base", setting="suite", difference=0.0, difference_image_se=0.0)
    figure = FIGURES["protocol"].draw(pd.concat([itself, table]))
    assert next(label.get_text() for label in figure.axes[0].get_yticklabels()) == "250 images"
    low, high = bars(figure)[0]
    assert (low + high) / 2 == pytest.approx(table["difference"][0])
    assert high - low == pytest.approx(2 * 1.959964 * 0.03)


def test_the_search_marks_what_each_reading_chose(tables: Path) -> None:
    table, tuned = read(tables, "tuning")
    tuned = tuned.assign(trial=tuned["reading"].map({"same trials": 0, "same compute": 3}))
    tuned["steps"] = tuned["trial"].map({0: 400, 3: 200})
    # The chosen ones lie far above all others.
    chosen = (table["trial"] == 0) & (table["steps"] == 400) | (table["trial"] == 3) & (table["steps"] == 200)
    table["target"] += 100.0 * (chosen & (table["model"] == "ddpmpp"))
    axis = FIGURES["tuning"].draw(table, tuned).axes[0]
    rings = {str(line.get_label()): line for line in axis.lines if line.get_markersize() == 10}
    arm = table[table["model"] == "ddpmpp"].set_index(["trial", "steps"])["target"]
    found = {label: list(np.asarray(ring.get_ydata())) for label, ring in rings.items()}
    assert found == {"best of all trials": [arm[0, 400]], "best at equal compute": [arm[3, 200]]}


def test_every_axis_says_what_it_measures(tables: Path) -> None:
    for name, drawing in FIGURES.items():
        figure = drawing.draw(*read(tables, name))
        shown = [axis for axis in figure.axes if axis.axison]
        if name in ("ablation", "tuning"):  # one below each column
            shown = shown[-len({axis.get_subplotspec().colspan.start for axis in shown}) :]  # type: ignore[union-attr]
        assert all(axis.get_xlabel() for axis in shown), name


def test_a_figure_lies_on_a_ground_that_follows_the_theme(drawn: dict[str, bytes]) -> None:
    """By itself, on a dark page, transparent ground would leave dark lines on a dark page."""
    for svg in (*drawn.values(), toy2d_figure(toy2d_arrays())):
        assert svg.decode().count(GROUND) == 1
        assert svg.decode().index("</metadata>") > svg.decode().index(GROUND)
        colours = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg.decode().replace(GROUND, "")))
        # What means the same in both themes stays.
        assert colours <= set(DARK) | {"#999999"}
    for light, dark in DARK.items():
        assert f'[style*="fill: {light}"]{{fill: {dark} !important}}' in GROUND
    assert f'style="fill: {PAPER}"' in GROUND


def test_bands_show_how_far_a_model_lies_below_the_baseline() -> None:
    """With errors of both; a model without shares, whose map mixes frequencies, has no line."""
    shares = {"": 1.0, "fixed-filter": 0.75, "learned-curve-filter": np.nan}
    cell = {"dataset": "cifar10", "sde": "vp", "objective": "nll", "model": "ddpmpp", "seeds": 6}
    rows = []
    for variant, share in shares.items():
        of_bands = {band: share * number for number, band in enumerate(BAND_METRICS, 1)}
        rows.append(cell | {"variant": variant} | of_bands | {f"{band}_se": 0.03 for band in BAND_METRICS})
    (axis,) = bands(pd.DataFrame(rows)).axes[:1]
    found = [np.asarray(line.get_ydata(), dtype=float) for line in axis.get_lines()]
    (lead,) = [numbers for numbers in found if len(numbers) == len(BAND_METRICS)]
    np.testing.assert_allclose(lead, 0.25 * np.arange(1, 7))
    (bars,) = [found for found in axis.collections if isinstance(found, LineCollection)]
    half = 2.5705818366147 * 0.03 * 2**0.5
    np.testing.assert_allclose([np.ptp(np.asarray(part)[:, 1]) / 2 for part in bars.get_segments()], half)
