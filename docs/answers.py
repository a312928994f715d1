"""The tables and figures of docs/results and docs/library.md, made from the published results.

They are this repository's conclusions, not the package's. Figures are narrow, so that they can be read on a phone. Axes have fixed
places and no artist is clipped, because an SVG names its clip paths by a hash of their edges, whose last bits may differ between
processors.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from indm.bench.kept.page import replace_block
from indm.errors import ArtifactError
from indm.report import matrix
from indm.report.answers import answers_of, counted, kinds_of
from indm.report.differences import COMPARISONS
from indm.report.export import ratio
from indm.report.figures_lines import GAINS
from indm.report.intervals import half_widths
from indm.report.matrix import InFile
from indm.report.names import REFERENCE, TREATMENT, arm, name
from indm.report.numbers import Tidy
from indm.report.page.means import ARMS
from indm.report.plotting import (
    INK,
    SOFT,
    STYLE,
    plain_ticks,
    style_of,
    styled,
    to_svg,
)
from indm.report.rows import read_rows, records
from indm.variants import SAME_COMPUTE

# The page of all results, and the page of a dataset.
RESULTS, DATASET = "docs/results/README.md", "docs/results/{}.md"
SUITES = {
    "cifar10-maps": "CIFAR-10, 1,000 steps, six seeds",
    "cifar10-1000": "CIFAR-10, 1,000 steps",
    "cifar10-3000": "CIFAR-10, 3,000 steps",
    "celeba64-6000": "CelebA, 6,000 images",
    "fashion-full": "Fashion-MNIST",
    "fashion-long": "Fashion-MNIST, four times the steps",
    "digits-seeds": "8×8 digits",
    "digits-ve": "8×8 digits, VE",
}
# The pages of datasets of images, with the suites of each.
DATASETS = {
    "cifar10": ("cifar10-maps", "cifar10-1000", "cifar10-3000"),
    "celeba": ("celeba64-6000",),
    "fashion-mnist": ("fashion-full", "fashion-long"),
    "digits": ("digits-seeds", "digits-ve"),
}
PHOTOGRAPHS = {*DATASETS["cifar10"], *DATASETS["celeba"]}
# The page of the known densities.
KNOWN_DENSITIES = "known-densities"
# The objectives of suites that have others than nll alone.
OBJECTIVES = {"fashion-full": ("nll", "fid"), "digits-seeds": ("nll", "fid"), "digits-ve": ("fid",)}
# Main claims on images, as rows of the page of a dataset; a claim that is not listed has its question.
ASKED = {
    "better-nelbo": "INDM’s NELBO",
    "lower-fid": "INDM’s FID",
    "better-nelbo-fixed-filter": "NELBO of the fixed filter, over DDPM++",
    "better-nelbo-fixed-over-learned": "NELBO of the fixed filter, over the learned curve and filter",
}
DENSITIES = "densities"
# The claims on known densities. Exploratory are the paper's own metric, and a claim of its first version.
KNOWN = {
    "better-nelbo-known": "bound",
    "smaller-gap-known": "variational gap, two dimensions",
    "coarse-discretisation-known": "few steps",
    "better-nll-known": "NLL *",
    "shorter-paths-known": "straightness of paths *",
}
# The headings of their comparisons, in the order of COMPARISONS.
OVER = ("no map, equal steps", "no map, equal compute", "a learned matrix, equal steps")
WEIGHTS_METRICS = ("score_parameters", "flow_parameters", "nll", "fid")


class Measured(NamedTuple):
    """What a table of means shows: a claim at an objective, its table of numbers and their decimals."""

    claim: str
    objective: str
    table: str
    digits: int


def bound(objective: str) -> Measured:
    """Return what shows the bound at an objective."""
    return Measured("better-nelbo", objective, "nll", 3)


# On digits, FID ranks no models: real test images have as much.
FID = Measured("lower-fid", "fid", "fid", 2)
# The rows of the page of all results: a suite, what is measured, and its name.
MEANS = (
    *((suite, bound(it), f"`{it}`") for suite in SUITES for it in OBJECTIVES.get(suite, ("nll",))),
    ("fashion-full", FID, "FID"),
)
COST = "FLOPs of INDM’s step, relative to DDPM++"
# Inches.
WIDTH = 6.0
NARROW = STYLE | {"font.size": 11, "figure.constrained_layout.use": False, "axes.grid": False, "lines.linewidth": 2.2}
NARROW |= {"lines.markersize": 6, "axes.titlesize": 11}
MAPS, FILTER = "learned-curve-filter", "fixed-filter"
# The models of the curves.
LINES = ((REFERENCE, ""), (REFERENCE, SAME_COMPUTE), (TREATMENT, ""), (REFERENCE, MAPS))
# INDM’s flow stands behind the other maps on CIFAR-10 only.
ON_CIFAR10 = (*LINES, (TREATMENT, MAPS))
# Factor between the places of models on an axis of FLOPs, because two of equal FLOPs would hide each other.
ASIDE = 1.018
# The highest bound, bits/dim, in the figure of two lengths: above it, points would hide how far apart the trainings end.
LATE = 3.45
# The suites whose learning curves share a figure; the second one trains the same models for longer.
LENGTHS: dict[str, tuple[str, dict[str, Any]]] = {
    "fashion-full": ("2,000 steps of INDM", {"linestyle": ":"}),
    "fashion-long": ("8,000 steps of INDM", {"linestyle": "-", "markerfacecolor": "none"}),
}
# The lengths of training on CIFAR-10, each a suite; the first one has the spectrum of the images.
CIFAR10 = ("cifar10-1000", "cifar10-3000")
# The panels of the report's figure of compute, with the suites of each.
PANELS = {"CIFAR-10": CIFAR10, "Fashion-MNIST": ("fashion-full",)}


def with_answers(page: str, published: Path, dataset: str) -> str:
    """Return the page of a dataset with the answers of its published suites; unchanged if none of them is published.

    Arguments:
        page: its text.
        published: the folder with one folder per published suite, which has ``tables/``.
        dataset: its name among :data:`DATASETS`.

    Raises:
        ArtifactError: if a file is missing or damaged, or the page has no place for a table.
    """
    answers = {
        suite: answers_of(_main(path), ("objective",))
        for suite in DATASETS[dataset]
        if (path := published / suite / "tables/claims.csv").is_file()
    }
    if not answers:
        return page
    kinds = kinds_of(it for found in answers.values() for it in found)
    rows = [
        (
            f"[{SUITES[suite]}]({suite}/README.md)",
            ASKED.get(it.claim, matrix.plain(it.question)),
            it.place,
            *matrix.cells_of(it.cells, kinds, InFile()),
        )
        for suite, found in answers.items()
        for it in found
    ]
    headings = ("suite", "claim", "objective", *kinds.values())
    return replace_block(page, "answers", matrix.table(headings, rows), DATASET.format(dataset))


def _main(path: Path) -> pd.DataFrame:
    """Read the main claims of a suite that have a number at their place."""
    claims = read_rows(path, columns=("family", "comparison")).query("family == 'primary'")
    return claims[claims.groupby(["id", "objective"])["effect"].transform("count") > 0]


def with_densities(page: str, published: Path) -> str:
    """Return the page of known densities with the verdicts on them; see :func:`with_answers`."""
    if not (published / DENSITIES / "tables/claims.csv").is_file():
        return page
    return replace_block(page, "densities", known(published, KNOWN), DATASET.format(KNOWN_DENSITIES))


def known(published: Path, claims: Iterable[str]) -> str:
    """Count the verdicts on known densities, by claim and length of training.

    Arguments:
        published: the folder with one folder per published suite.
        claims: the claims that are counted.

    Raises:
        ArtifactError: if the table is missing or damaged.
    """
    rows = read_rows(published / DENSITIES / "tables/claims.csv")
    found = counted(answers_of(rows[rows["id"].isin([*claims])]))
    return matrix.table(
        ("INDM’s flow over", *OVER),
        [
            (f"{KNOWN[it.claim]}, {it.length}", *(matrix.counts(it.cells[kind], InFile()) for kind in COMPARISONS))
            for it in found
        ],
    )


def with_means(page: str, published: Path) -> str:
    """Return the page of all results with the means of the ladder's rungs.

    Arguments:
        page: its text.
        published: the folder with one folder per published suite, which has ``tables/``.

    Raises:
        ArtifactError: if a file is missing or damaged, or the page has no place for the table.
    """
    headings = ("lower is better", *ARMS.values(), COST)
    found = [
        [f"{SUITES[suite]}, {label}", *_means_of(published / suite / "tables", measured)]
        for suite, measured, label in MEANS
        if (published / suite / "tables").is_dir()
    ]
    return replace_block(page, "means", matrix.table(headings, found, numbers=True), RESULTS) if found else page


def _means_of(tables: Path, measured: Measured) -> list[str]:
    """Write the means of a suite's models, the verdict on INDM against each, and the relative FLOPs of its step."""
    numbers, claims, compute = (
        _of_objective(tables / f"{name}.csv", measured.objective) for name in (measured.table, "claims", "compute")
    )
    judged = claims[(claims["id"] == measured.claim) & claims["effect"].notna()]
    verdicts = {row["against"]: row for row in records(judged)}
    cells = []
    for model, variant in ARMS:
        cell = _mean(_of_model(numbers, model, variant), measured)
        row = verdicts.get(REFERENCE if model == TREATMENT else f"{model} {variant}")
        if cell and row and (model, variant) != (REFERENCE, ""):
            whose = "" if model == TREATMENT else f"{name(TREATMENT)}: "
            cell += f"<br><sub>{whose}{_word(row)}</sub>"
        cells.append(cell or _not_run(tables.parent.name, variant))
    flops = [_of_model(compute, model)["train_flops_per_step"].iloc[0] for model in (TREATMENT, REFERENCE)]
    return [*cells, f"× {flops[0] / flops[1]:.1f}"]


def _not_run(suite: str, variant: str) -> str:
    """Write that a model was not run; of the fixed filter, that it was run on photographs only, if these are others."""
    remark = "<br><sub>run on photographs only</sub>" if variant == FILTER and suite not in PHOTOGRAPHS else ""
    return f"not run{remark}"


def _of_objective(path: Path, objective: str) -> pd.DataFrame:
    rows = read_rows(path)
    return rows[rows["objective"] == objective]


def _of_model(rows: pd.DataFrame, model: str, variant: str = "") -> pd.DataFrame:
    return rows[(rows["model"] == model) & (rows["variant"] == variant)]


def _word(row: Mapping[str, Any]) -> str:
    """Write a verdict, with the ratio of FIDs that was found behind *no gain*; an asterisk marks exploratory ones."""
    words = ", ".join(filter(None, (name(row["verdict"]), ratio(row))))
    return words if row["family"] == "primary" else f"{words} \\*"


def _mean(rows: pd.DataFrame, measured: Measured) -> str:
    """Write a model's mean over seeds with its standard error, NELBO with the decoder of claims; empty if it was not run."""
    if rows.empty:
        return ""
    (row,) = records(rows)
    metric = "fid" if measured.table == "fid" else "nelbo_fixed" if row["decoder"] == "fixed" else "nelbo"
    return f"{row[metric]:.{measured.digits}f} ± {row[f'{metric}_se']:.{measured.digits}f}"


def with_weights(page: str, published: Path) -> str:
    """Return the page of weights with a row for each run whose weights are published; see :func:`with_means`."""
    return replace_block(page, "weights", weights(published), "docs/library.md")


def weights(published: Path) -> str:
    """Write one row per run whose weights are published: size, likelihood and FID, from its suite's ``values.csv``.

    Raises:
        ArtifactError: if a table is missing or damaged, or lacks a run.
    """
    lines = ["| run | suite | parameters | NLL, bits/dim | FID |", "|---|---|--:|--:|--:|"]
    for folder in sorted(published.glob("*/weights")):
        path = folder.parent / "tables/values.csv"
        values = Tidy(folder.parent).values
        lines += [_weights_row(values, path, file) for file in sorted(folder.glob("*.safetensors"))]
    return "\n".join(lines)


def _weights_row(values: pd.DataFrame, path: Path, file: Path) -> str:
    suite, run = path.parent.parent.name, file.stem
    sources = [f"runs/{run}/{stage}.json" for stage in ("train", "nll", "fid")]
    found = values[values["source"].isin(sources)].set_index("metric")
    if missing := ", ".join(metric for metric in WEIGHTS_METRICS if metric not in found.index):
        raise ArtifactError(f"{path}: found no {missing} of {run}, expected the run of {file}; publish the suite again")
    score, flow, *scores = (found.loc[metric] for metric in WEIGHTS_METRICS)
    cells = [f"[`{run}`](results/{suite}/weights/{file.name})", f"[`{suite}`](results/{suite}/README.md)"]
    cells += [f"{score['value'] + flow['value']:,.0f}", *(f"{it['value']:.3f} ± {it['se']:.3f}" for it in scores)]
    return f"| {' | '.join(cells)} |"


def draw_answers(published: Path) -> dict[str, bytes]:
    """Draw the figures of the pages as SVG documents, by name; empty if one of their suites is not published.

    Arguments:
        published: the folder with one folder per published suite, which contains ``tables/``.

    Raises:
        ArtifactError: if a table is missing or damaged.
    """
    if not all((published / suite / "tables").is_dir() for suites in PANELS.values() for suite in suites):
        return {}
    panels = {title: pd.concat(_curves(published, suites).values()) for title, suites in PANELS.items()}
    with styled(NARROW):
        figures = {"compute": bound_by_compute(panels)}
        if all((published / suite / "tables").is_dir() for suite in LENGTHS):
            figures["lengths"] = bound_by_length(_curves(published, LENGTHS))
        figures["cifar10"] = bound_on_cifar10(panels["CIFAR-10"])
        short, longest = (published / suite for suite in CIFAR10)
        figures["gains"] = gains(read_rows(longest / "tables/flow.csv"), read_rows(short / "spectrum.csv"))
        return {name: to_svg(figure) for name, figure in figures.items()}


def _curves(published: Path, suites: Iterable[str]) -> dict[str, pd.DataFrame]:
    return {suite: read_rows(published / suite / "tables/learning_curve.csv") for suite in suites}


def _place(left: float, right: float, bottom: float, rise: float, height: float) -> tuple[float, float, float, float]:
    """Convert a place from inches to fractions of the figure."""
    return left / WIDTH, bottom / height, (right - left) / WIDTH, rise / height


def bound_by_compute(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw NELBO against training FLOPs, with the nll objective.

    Arguments:
        panels: the learning curves of each panel, by its title.
    """
    figure = Figure(figsize=(WIDTH, 3.3))
    axes = [figure.add_axes(_place(left, left + 2.2, 0.62, 1.75, 3.3)) for left in (0.75, 3.65)]
    for axis, (title, table) in zip(axes, panels.items(), strict=True):
        _draw_curves(axis, table, {})
        axis.set_title(title, loc="left", fontweight="bold")
        _finish(axis)
    axes[0].set_ylabel("NELBO, bits/dim")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper left", ncol=2, fontsize=10, borderaxespad=0.3)
    return figure


def bound_by_length(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw NELBO against training FLOPs, with the nll objective, for two lengths of training in one panel.

    Arguments:
        curves: the learning curves of each suite of :data:`LENGTHS`.
    """
    figure = Figure(figsize=(WIDTH, 4.2))
    axis = figure.add_axes(_place(0.75, WIDTH - 0.1, 0.62, 2.55, 4.2))
    for suite, table in curves.items():
        _draw_curves(axis, table[table["nelbo"] < LATE], LENGTHS[suite][1])
    _finish(axis)
    axis.set_ylabel(f"validation NELBO\nbelow {LATE}, bits/dim")
    axis.set_xlabel(f"{axis.get_xlabel()}; error bars: 95 % interval over seeds")
    models = [Line2D([], [], **style_of(*cell), label=arm(*cell)) for cell in LINES]
    lengths = [Line2D([], [], color=INK, marker="o", **style, label=label) for label, style in LENGTHS.values()]
    figure.legend(handles=models, loc="upper left", ncol=2, fontsize=10, borderaxespad=0.3)
    figure.legend(handles=lengths, loc="upper left", ncol=2, fontsize=10, bbox_to_anchor=(0, 0.88), borderaxespad=0.3)
    return figure


def bound_on_cifar10(table: pd.DataFrame) -> Figure:
    """Draw the final validation NELBO of each length against its training FLOPs: a line joins the lengths of a model."""
    figure = Figure(figsize=(WIDTH, 4.2))
    axis = figure.add_axes(_place(0.9, WIDTH - 0.1, 0.62, 2.7, 4.2))
    _draw_curves(axis, table, {}, ON_CIFAR10)
    _finish(axis)
    # The FLOPs of 1,000 and 3,000 steps of DDPM++ and of INDM, rounded.
    axis.set(xlim=(12, 110), ylabel="validation NELBO, bits/dim")
    axis.set_xticks([15, 30, 45, 90], minor=False)
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.xaxis.set_tick_params(which="minor", labelbottom=False)
    figure.legend(*axis.get_legend_handles_labels(), loc="upper left", ncol=2, fontsize=10, borderaxespad=0.3)
    return figure


def gains(table: pd.DataFrame, spectrum: pd.DataFrame) -> Figure:
    """Draw the gain of INDM's flow and of the learned maps by spatial frequency, and the gain that would whiten the images.

    Arguments:
        table: the gains of each model with their standard errors.
        spectrum: the standard deviation of the images' coefficients in each band.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    axis = figure.add_axes(_place(0.75, WIDTH - 0.1, 0.62, 2.3, 3.6))
    frequency = (np.arange(len(GAINS)) + 0.5) / len(GAINS)
    for model, variant in ON_CIFAR10:
        part = table[(table["model"] == model) & (table["variant"] == variant)]
        if len(part):
            bars = [half_widths(part[f"{gain}_se"], part["seeds"]).iloc[0] for gain in GAINS]
            style = style_of(model, variant) | {"elinewidth": 0.8, "label": arm(model, variant)}
            axis.errorbar(frequency, part[[*GAINS]].iloc[0], bars, **style)
    white = 1 / spectrum["deviation"].to_numpy()
    axis.plot(frequency, white / white[0], label="1 / deviation of the images", color=SOFT, linestyle="--")
    axis.set_yscale("log")
    plain_ticks(axis.yaxis)
    axis.set(xlabel="spatial frequency, relative to the highest", ylabel="gain of the map")
    for artist in axis.get_children():
        artist.set_clip_on(False)
    figure.legend(*axis.get_legend_handles_labels(), loc="upper left", ncol=2, fontsize=10, borderaxespad=0.3)
    return figure


def _draw_curves(
    axis: Axes, table: pd.DataFrame, change: Mapping[str, Any], models: Sequence[tuple[str, str]] = LINES
) -> None:
    """Draw the bound of each model against its FLOPs, in the model's style with changes."""
    table = table[table["objective"] == "nll"]
    for place, (model, variant) in enumerate(models):
        part = table[(table["model"] == model) & (table["variant"] == variant)]
        bars = half_widths(part["nelbo_se"], part["seeds"])
        style = {**style_of(model, variant), **change}
        flops = part["flops"] / 1e12 * ASIDE ** (place - (len(models) - 1) / 2)
        axis.errorbar(flops, part["nelbo"], bars, label=arm(model, variant), elinewidth=0.8, **style)


def _finish(axis: Axes) -> None:
    axis.set_xscale("log")
    plain_ticks(axis.xaxis)
    axis.set_xlabel("training, 10¹² FLOPs")
    for artist in axis.get_children():
        artist.set_clip_on(False)
