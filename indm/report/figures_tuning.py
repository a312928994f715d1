"""The figure of the hyper-parameter search."""

from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from indm.report.catalogue import PLACE
from indm.report.columns import heading
from indm.report.intervals import OVER_MANY
from indm.report.names import arm, cell_name
from indm.report.plotting import INK, SHORT, WIDTH, Style, note, plain_ticks, style_of

# The quantity that is minimised, by objective, and its scale, because one FID may be many times another.
TARGETS = {"nll": ("NELBO, bits/dim", "linear"), "fid": ("FID", "log")}
ARM = [*PLACE, "model", "variant"]
# The phases of a search that are drawn, in the colour of the model, and the marks of the training that is chosen in each reading.
PHASES: dict[str, tuple[str, Style]] = {
    "short": ("trial", {"marker": "o"}),
    "confirm": ("trained again for longer", {"marker": "s", "markerfacecolor": "none"}),
}
CHOSEN = {"same trials": ("o", "best of all trials"), "same compute": ("s", "best at equal compute")}
# A target is drawn at the top edge if it exceeds the best one by more than this multiple of the median's excess.
FAR = 10.0
RING: dict[str, Any] = {"markersize": 10, "markerfacecolor": "none", "color": INK}


def tuning(table: pd.DataFrame, tuned: pd.DataFrame) -> Figure:
    """Draw the target against each hyper-parameter: one row per model, one column per hyper-parameter.

    Failures are at the top edge. On a linear scale, so are targets so far above the others that these would lie on one line.
    """
    columns = list(map(str, table))
    parameters = columns[columns.index("steps") + 1 : columns.index("state")]
    # For each training that was chosen, the readings that chose it.
    readings = tuned.groupby([*ARM, "trial", "steps"])["reading"].agg(", ".join)
    table = table.merge(readings.rename("chosen").reset_index(), "left").fillna({"chosen": ""})
    linear = [objective for objective, (_, scale) in TARGETS.items() if scale == "linear"]
    targets = table.groupby(PLACE)["target"]
    lowest, middle = (targets.transform(kind) for kind in ("min", "median"))
    limit = lowest + FAR * (middle - lowest)
    # Drawn at the top edge; the chosen ones never are.
    table["far"] = (table["target"] > limit) & table["objective"].isin(linear) & (table["chosen"] == "")
    arms = list(table.groupby(ARM, sort=False))
    figure = Figure(figsize=(WIDTH, 1.6 * len(arms) + 0.8))
    axes = figure.subplots(len(arms), len(parameters), squeeze=False, sharex="col", sharey="row")
    first: dict[Any, Axes] = {}
    for row, (cell, trials) in zip(axes, arms, strict=True):
        *group, model, variant = (str(key) for key in cast(tuple[Any, ...], cell))
        # As a rotated label, a name of three words would be longer than the panel is high.
        row[0].set_title(f"{arm(model, variant)} ({cell_name(*group)})", loc="left")
        _scale(row[0], first.setdefault(tuple(group), row[0]), *TARGETS[group[2]])
        for axis, parameter in zip(row, parameters, strict=True):
            _trials(axis, trials, parameter, style_of(model, variant)["color"])
    for axis, parameter in zip(axes[-1], parameters, strict=True):
        axis.set_xlabel(heading(parameter))
        if table[parameter].min() > 0 and table[parameter].max() > SHORT * table[parameter].min():
            axis.set_xscale("log")
            plain_ticks(axis.xaxis)
    # One legend above all panels, some of which may lack some of its entries.
    drawn = [axis.get_legend_handles_labels() for axis in axes.flat]
    handles = {label: handle for found, labels in reversed(drawn) for handle, label in zip(found, labels, strict=True)}
    # A mark stands for a phase of any model, and only the colour for the model.
    phases = {label: Line2D([], [], **style, color=INK, linestyle="") for label, style in PHASES.values()}
    handles |= {label: handle for label, handle in phases.items() if label in handles}
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=len(handles))
    return note(figure, "Error bars: 95 % interval over images, of one training; of FID on its logarithm.")


def _scale(axis: Axes, first: Axes, label: str, scale: str) -> None:
    """Name a row's vertical axis, and share it with the first row of the same dataset, SDE and objective."""
    axis.set(ylabel=label, yscale=scale)
    if scale == "log":
        plain_ticks(axis.yaxis)
    if axis is not first:
        axis.sharey(first)


def _trials(axis: Axes, table: pd.DataFrame, parameter: str, color: str) -> None:
    """Draw the trials of a model against a hyper-parameter; the panel stays empty if its search does not have it."""
    if table[parameter].isna().all():
        axis.set_axis_off()
        return
    complete = table[(table["state"] == "complete") & table["phase"].isin(PHASES)]
    _at_edge(axis, complete[complete["far"]], parameter, "^", "far above the others")
    complete = complete[~complete["far"]]
    for phase, (label, style) in PHASES.items():
        part = complete[complete["phase"] == phase]
        if len(part):
            target, half = part["target"], OVER_MANY * part["target_image_se"]
            # On a logarithmic scale, they never reach 0.
            ends = (-target * np.expm1(-half / target), target * np.expm1(half / target))
            bars: Any = ends if axis.get_yscale() == "log" else half
            axis.errorbar(
                part[parameter], target, bars, elinewidth=0.9, label=label, color=color, linestyle="", **style
            )
    for reading, (marker, label) in CHOSEN.items():
        part = complete[complete["chosen"].str.contains(reading)]
        axis.plot(part[parameter], part["target"], marker, **RING, label=label)
    _at_edge(axis, table[table["state"] == "failed"], parameter, "x", "failed")


def _at_edge(axis: Axes, table: pd.DataFrame, parameter: str, marker: str, label: str) -> None:
    """Mark trainings at the top edge, if there are any."""
    if len(table):
        edge: dict[str, Any] = {"transform": axis.get_xaxis_transform(), "clip_on": False}
        axis.plot(table[parameter], [1.0] * len(table), marker, color=INK, label=label, **edge)
