"""Figures: repeatable bytes, no text that a reader's fonts could change, nothing drawn from nothing."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd
import pytest

from indm.errors import ArtifactError
from indm.report.figures import FIGURES, PlainLogFormatter, plot_figures
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


def test_a_table_without_a_number_gives_no_figure(tmp_path: Path) -> None:
    """As of claims that no run of the suite could decide."""
    drawing = FIGURES["claims"]
    pd.DataFrame([dict.fromkeys([*drawing.columns, drawing.value])]).to_csv(tmp_path / "claims.csv", index=False)
    assert plot_figures(tmp_path) == {}


def test_a_foreign_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "protocol.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ArtifactError, match=r"protocol\.csv: found the columns a, b; missing: dataset, factor"):
        plot_figures(tmp_path)


def test_rows_without_numbers_and_models_without_variants_are_drawn(tmp_path: Path) -> None:
    """As in a suite of one seed whose sweep has an impossible cell."""
    rows = [
        {
            "dataset": "digits",
            "sde": "vp",
            "objective": "fid",
            "model": "indm",
            "sampler": "pc",
            "steps": steps,
            "fid": fid,
        }
        for steps, fid in ((1, None), (2, 0.5))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "discretization.csv", index=False)
    assert list(plot_figures(tmp_path)) == ["discretization"]


@pytest.mark.parametrize(("tick", "text"), [(0.2, "0.2"), (1.0, "1"), (50.0, "50"), (0.3, ""), (1.5, "")])
def test_ticks_of_logarithmic_axes_are_plain(tick: float, text: str) -> None:
    assert PlainLogFormatter()(tick) == text
