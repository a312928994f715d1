"""Each model has one name and one style wherever a person reads, and each verdict one wording."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from docs import answers
from indm.registry import FAMILIES
from indm.report.answers import answers_of
from indm.report.figures import FIGURES, _read
from indm.report.grades import MEANINGS
from indm.report.matrix import InFile, OnPage, matrix
from indm.report.names import NAMES, REFERENCE, VARIANTS, arm, comparator, name, row_name, with_models
from indm.report.page.means import ARMS
from indm.report.page.tables import read_table
from indm.report.plotting import COLOURED, DARK, MODELS, OTHERS, SOFT, style_of
from indm.report.rows import read_columns, read_rows, records
from indm.report.show import VIEWS
from tests.conftest import REPOSITORY

PUBLISHED = REPOSITORY / "docs/results"
TABLES = sorted(PUBLISHED.glob("*/tables"))
SIMPLE = " (simple control)"


def cells_of(path: Path) -> set[tuple[str, str]]:
    """The models of a table, in its columns of models and of compared models."""
    table = _read(path)
    found = (
        {*zip(table["model"], table["variant"].fillna(""), strict=True)} if {"model", "variant"} <= {*table} else set()
    )
    compared = {text for column in {"treatment", "against"} & {*table} for text in table[column].dropna()}
    return found | {(text.partition(" ")[0], text.partition(" ")[2]) for text in compared}


def trained(folder: Path) -> set[tuple[str, str]]:
    """The models of a suite that have a family, without numbers of papers and of real images."""
    found = set.union(
        *(cells_of(path) for path in folder.glob("*.csv") if path.stem not in ("comparison", "differences"))
    )
    return {cell for cell in found if cell[0] in FAMILIES and cell[1] not in ("nll", "fid")}


MODELS_OF = {folder.parent.name: trained(folder) for folder in TABLES}
EVERY = sorted(set.union(*MODELS_OF.values()))


def test_models_of_published_suites_have_names_of_their_own() -> None:
    """Listed ones, so that none is written by its key."""
    assert {cell for cell in EVERY if cell[1]} <= VARIANTS.keys()
    assert len({*map(arm, *zip(*EVERY, strict=True))}) == len(EVERY)
    listed = [*VARIANTS.values(), *(NAMES[family] for family in FAMILIES)]
    assert len({*listed}) == len(listed)
    # Lists of models are separated by commas.
    assert not [text for text in listed if "," in text]


def test_models_have_styles_of_their_own() -> None:
    assert {*EVERY} <= MODELS.keys()
    shown = [(style["color"], style["marker"], style["linestyle"]) for style in MODELS.values()]
    assert len({*shown, *((SOFT, *mark) for mark in OTHERS)}) == len(shown) + len(OTHERS)
    colours = [style["color"] for style in COLOURED.values()]
    assert len({*colours}) == len(colours)
    assert {*colours} < {*DARK} - {SOFT}
    assert {style["color"] for cell, style in MODELS.items() if cell not in COLOURED} == {SOFT}


def named(figure: Figure) -> Iterator[tuple[str, str]]:
    """The names of lines and of rows that a figure shows, each with its colour."""
    for axis in figure.axes:
        for container in axis.containers:
            line = container.lines[0]  # type: ignore[attr-defined]
            labels = (str(artist.get_label()) for artist in (container, line))
            yield next((label for label in labels if not label.startswith("_")), ""), to_hex(line.get_color())
        rows = {
            float(place): label.get_text()
            for place, label in zip(axis.get_yticks(), axis.get_yticklabels(), strict=False)
        }
        for line in axis.lines:
            places = np.asarray(line.get_ydata(), dtype=float)
            if len(places) == 1 and line.get_marker() not in (".", "None"):
                yield rows.get(float(places[0]), "").removesuffix(SIMPLE), to_hex(str(line.get_color()))


def drawn(folder: Path) -> Iterator[Figure]:
    """The figures of a suite in which models are told apart by their styles."""
    for key, plot in FIGURES.items():
        table, *beside = (_read(folder / f"{stem}.csv") for stem in (plot.table, *plot.beside))
        rows = table.query(plot.of) if plot.of and len(table) else table
        known = rows.get(plot.value, pd.Series(dtype=float))
        if key not in ("tuning", "protocol") and known.notna().any():
            yield plot.draw(rows, *beside)


@pytest.mark.parametrize("folder", TABLES, ids=[folder.parent.name for folder in TABLES])
def test_figures_of_a_suite_name_and_colour_its_models_as_all_views_do(folder: Path) -> None:
    colours = {arm(*cell): style_of(*cell)["color"] for cell in MODELS_OF[folder.parent.name]}
    for figure in drawn(folder):
        found = {label: colour for label, colour in named(figure) if label}
        assert found
        assert {label: colours.get(label) for label in found} == found


def test_figures_of_readme_name_and_colour_models_as_all_views_do() -> None:
    colours = {arm(*cell): style_of(*cell)["color"] for cell in EVERY}
    curves = partial(answers._curves, PUBLISHED)
    figures = [
        answers.bound_by_compute(
            {title: pd.concat(curves(suites).values()) for title, suites in answers.PANELS.items()}
        ),
        answers.bound_by_length(curves(answers.LENGTHS)),
        answers.bound_on_cifar10(pd.concat(curves(answers.CIFAR10).values())),
    ]
    for figure in figures:
        for label, colour in (found for found in named(figure) if found[0]):
            assert colours[label] == colour


@pytest.mark.parametrize("folder", TABLES, ids=[folder.parent.name for folder in TABLES])
def test_tables_of_the_page_and_of_the_terminal_name_models_as_figures_do(folder: Path) -> None:
    models = MODELS_OF[folder.parent.name]
    names = {arm(*cell) for cell in models}
    for stem in ("nll", "fid", "learning_curve", "ablation", "toy2d", "compute", "tuned"):
        path, cells = folder / f"{stem}.csv", {cell for cell in cells_of(folder / f"{stem}.csv") if cell in models}
        if not cells or not path.is_file():
            continue
        table = read_columns(path)
        assert {*with_models(table)["model"].dropna()} & names == {arm(*cell) for cell in cells}
        assert read_table("suite", path).texts("model") >= {arm(*cell) for cell in cells}
        view = ("model", "variant") if VIEWS[stem].label[:2] == ("model", "variant") else ()
        assert {row_name(row, view) for row in records(table)} >= {arm(*cell) for cell in cells}


def test_means_and_matrix_name_models_as_figures_do() -> None:
    assert {cell: arm(*cell) for cell in ARMS} == ARMS
    for folder in (folder for folder in TABLES if (folder / "claims.csv").is_file()):
        rows = read_rows(folder / "claims.csv")
        simple = {
            comparator(text)
            for text in rows[(rows["comparison"] == "simple control") & rows["effect"].notna()]["against"]
        }
        text = matrix(answers_of(rows), InFile())
        assert all(f"{found}: " in text for found in simple)


def test_a_variant_without_a_name_is_written_behind_its_model() -> None:
    assert arm(REFERENCE, "my-own") == "DDPM++ (my own)"
    assert arm(REFERENCE, "scale-2") == "scale 2"
    assert row_name({"model": "indm", "variant": pd.NA, "step": 4}, ("model", "variant", "step")) == "INDM, 4"


def test_the_four_verdicts_have_four_wordings() -> None:
    assert [name(word) for word in MEANINGS] == ["better", "worse", "no gain", "undecided"]
    for word in MEANINGS:
        assert InFile().graded(word) == name(word)
        assert f"</span>{name(word)}</span>" in OnPage().graded(word)
