"""The tables of a suite, each listed once: which stage writes it, and how a terminal, the page and a comparison read it.

The code of its stage computes a table and defines its columns; for the ``table`` stage this is
:func:`indm.report.tables.suite_tables`.
"""

from typing import NamedTuple

from indm.measured import BAND_METRICS, FLOW_METRICS

# The keys of a cell: one row of a table, aggregated over seeds; and where models of cells are compared.
CELL = ["dataset", "sde", "model", "variant", "objective"]
PLACE = ["dataset", "sde", "objective"]
# Rows of real images: the smallest values that a perfect model could be expected to reach.
FLOORS = {"test": "real (test split)", "train-halves": "real (two halves of train)"}


class View(NamedTuple):
    """How a terminal shows a table: the columns, the most important first, of which those that do not fit are left out.

    ``label`` names a row, and ``group`` heads a group of rows. The values of ``across`` become columns, for the one number in
    ``columns``; if not all fit, the last ones are kept. Rows without a value in ``dropped`` are counted but not shown. A table of
    hundreds of rows is shown only if it is ``asked_for``.
    """

    columns: tuple[str, ...]
    label: tuple[str, ...] = ("model", "variant")
    group: tuple[str, ...] = ("dataset", "sde", "objective")
    across: str = ""
    dropped: str = ""
    asked_for: bool = False


class Table(NamedTuple):
    """A table of a suite: a title, how a terminal shows it, the section of the page that shows it, and the stage that writes it.

    A table without a view, such as ``values``, is not shown. ``key`` identifies a row, for a comparison with published tables.
    """

    title: str
    view: View | None = None
    section: str = ""
    key: tuple[str, ...] = ()
    stage: str = "table"


CLAIM = ("id", *PLACE, "comparison", "against")
OF_DENSITIES = ("nelbo_excess", "nll_excess", "true_gap", "energy_16", "midpoint", "path_ratio", "moved", "step_flops")
# In the order in which they are shown.
CATALOGUE = {
    "fid": Table(
        "FID and the other scores of images",
        View(("fid", "kid", "fid_infinity", "is", "precision", "recall", "clean_fid", "seeds")),
        "quality",
        key=(*CELL,),
    ),
    "nll": Table(
        "likelihoods, bits/dim",
        View(("nelbo", "nelbo_fixed", "nll", "nll_fixed", "decoder", "gap", "nll_median", "nll_beyond", "seeds")),
        "likelihood",
        key=(*CELL,),
    ),
    "flow": Table(
        "effects of the trained flows on test images",
        View((*FLOW_METRICS, *BAND_METRICS, "seeds")),
        "flow",
        key=(*CELL,),
    ),
    "ablation": Table(
        "variants, and their differences from the plain baseline, paired by seed",
        View(("nelbo_difference", "nll_difference", "gap_difference", "log_fid_difference", "kid_difference", "pairs")),
        "ablation",
        key=(*CELL,),
    ),
    "discretization": Table(
        "FID against sampler steps",
        View(("fid",), group=("dataset", "sde", "objective", "sampler"), across="steps"),
        "steps",
        key=(*CELL, "sampler", "steps"),
    ),
    "learning_curve": Table(
        "likelihoods during training, bits/dim", View(("nelbo",), across="step"), "learning", key=(*CELL, "step")
    ),
    "toy2d": Table("distances from known densities, bits/dim", View((*OF_DENSITIES, "seeds")), "toy", key=(*CELL,)),
    "protocol": Table(
        "FID by other protocols",
        View(("fid", "difference"), label=("factor", "setting")),
        "protocol",
        key=(*CELL, "factor", "setting"),
    ),
    "tuned": Table(
        "hyper-parameters chosen on the validation split",
        View(("target", "steps", "trials", "failed", "trial"), group=("dataset", "sde", "objective", "reading")),
        "tuning",
        key=(*CELL, "reading"),
    ),
    "tuning": Table(
        "trials of their search",
        View(("target", "state"), label=("model", "variant", "trial", "phase", "steps"), asked_for=True),
        "tuning",
    ),
    "compute": Table(
        "cost of the models",
        View(("ms_per_step", "train_flops_per_step", "score_parameters", "flow_parameters", "train_peak_memory_mib")),
        "cost",
        key=(*CELL,),
        stage="compute",
    ),
    "claims": Table(
        "the paper's claims, graded: INDM against DDPM++ and the controls",
        View(
            ("verdict", "effect", "unit", "n", "repeatability", "protocol"),
            label=("comparison", "against"),
            group=("family", "id", *PLACE),
            dropped="effect",
        ),
        key=CLAIM,
        stage="claims",
    ),
    "differences": Table(
        "the paired difference of each seed; an effect is their mean", key=(*CLAIM, "seed"), stage="claims"
    ),
    "comparison": Table(
        "published numbers next to ours",
        View(("ours", "published", "verdict"), label=("model", "variant", "metric", "sampler"), dropped="ours"),
        "published",
        key=(*CELL, "metric", "sampler"),
        stage="claims",
    ),
    "values": Table(
        "every number, with its run and its source file",
        key=(*CELL, "seed", "stage", "metric", "sampler", "x"),
    ),
    "images": Table("the likelihoods of each image"),
}
SHOWN = tuple(name for name, table in CATALOGUE.items() if table.view)
PUBLISHED = (*SHOWN, "differences", "values")
# Tables that are published as NAME.csv.gz, because they are large.
COMPRESSED = ("images",)
