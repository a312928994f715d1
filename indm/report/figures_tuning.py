"""The figure of the hyper-parameter search."""

from typing import Any, cast

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from indm.report.intervals import OVER_MANY
from indm.report.names import heading, names
from indm.report.palette import INK
from indm.report.plotting import FIRST, GROUP, SECOND, SHORT, WIDTH, note, plain_ticks

# The quantity that is minimised, by objective, and the phases of a search that are drawn.
TARGETS = {"nll": "NELBO, bits/dim", "fid": "FID"}
PHASES = {"short": "trial", "confirm": "trained again for longer"}


def tuning(table: pd.DataFrame) -> Figure:
    """Draw the target against each hyper-parameter: one row per model, one column per hyper-parameter; failures at the top edge."""
    columns = list(map(str, table))
    parameters = columns[columns.index("steps") + 1 : columns.index("state")]
    arms = list(table.groupby([*GROUP, "model", "variant"], sort=False))
    figure = Figure(figsize=(WIDTH, 2.0 * len(arms) + 0.8))
    axes = figure.subplots(len(arms), len(parameters), squeeze=False, sharex="col", sharey="row")
    for row, (arm, trials) in zip(axes, arms, strict=True):
        cell = [str(key) for key in cast(tuple[Any, ...], arm)]
        # As a rotated label, a name of three words would be longer than the panel is high.
        row[0].set_title(names(*cell), loc="left")
        row[0].set_ylabel(TARGETS[cell[2]])
        for axis, parameter in zip(row, parameters, strict=True):
            _trials(axis, trials, parameter)
    for axis, parameter in zip(axes[-1], parameters, strict=True):
        axis.set_xlabel(heading(parameter))
        if table[parameter].min() > 0 and table[parameter].max() > SHORT * table[parameter].min():
            axis.set_xscale("log")
            plain_ticks(axis.xaxis)
    _legend(figure, axes)
    return note(figure, "Error bars: 95 % interval over images, of one training.")


def _trials(axis: Axes, table: pd.DataFrame, parameter: str) -> None:
    """Draw the trials of a model against a hyper-parameter; the panel stays empty if its search does not have it."""
    if table[parameter].isna().all():
        axis.set_axis_off()
        return
    complete, failed = table[table["state"] == "complete"], table[table["state"] == "failed"]
    for (phase, label), style in zip(PHASES.items(), (FIRST, SECOND), strict=True):
        part, marker = complete[complete["phase"] == phase], str(style["marker"])
        if len(part):
            bars, colour = OVER_MANY * part["target_image_se"], str(style["color"])
            axis.errorbar(part[parameter], part["target"], bars, fmt=marker, color=colour, elinewidth=0.9, label=label)
    if len(failed):
        place = axis.get_xaxis_transform()
        axis.plot(
            failed[parameter], [1.0] * len(failed), "x", color=INK, transform=place, clip_on=False, label="failed"
        )


def _legend(figure: Figure, axes: Any) -> None:
    """Put one legend above all panels; some panels may lack some of its entries."""
    drawn = [axis.get_legend_handles_labels() for axis in axes.flat]
    handles = {label: handle for found, labels in reversed(drawn) for handle, label in zip(found, labels, strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=len(handles))
