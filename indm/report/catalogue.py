"""The tables of a suite, each listed once: which stage writes it, and how a terminal, the page and a comparison read it.

The code of its stage computes a table and defines its columns; for the ``table`` stage this is
:func:`indm.report.tables.suite_tables`.
"""

from typing import NamedTuple

from indm.measured import FLOW_METRICS

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


class Page(NamedTuple):
    """How a suite's page shows a table: its section, empty if it only has a download, and its heading.

    ``columns`` are shown of a table that is too wide to be read whole; ``dropped`` as in :class:`View`.
    """

    section: str = ""
    heading: str = ""
    columns: tuple[str, ...] = ()
    dropped: str = ""


class Table(NamedTuple):
    """A table of a suite: a description, the stage that writes it, and how a terminal and the page show it.

    A table without a view, such as ``values``, is not shown. ``key`` identifies a row, for a comparison with published tables.
    """

    title: str
    stage: str
    view: View | None = None
    page: Page = Page()
    key: tuple[str, ...] = ()


CLAIM = ("id", *PLACE, "comparison", "against")
OF_DENSITIES = ("nelbo_excess", "nll_excess", "true_gap", "energy_16", "midpoint", "path_ratio", "moved", "step_flops")
# In the table of claims that can be downloaded from the page.
VERDICT = (
    "verdict",
    "question",
    "comparison",
    "against",
    "family",
    *PLACE,
    "effect",
    "low",
    "high",
    "unit",
    "n",
    "images",
)
VERDICT += ("planned", "failed_treatment", "failed_against", "repeatability", "to_decide", "protocol", "reason")
# In the order in which they are shown.
CATALOGUE = {
    "fid": Table(
        "FID and the other scores of images",
        "table",
        View(("fid", "kid", "fid_infinity", "is", "precision", "recall", "clean_fid", "seeds")),
        Page("quality", "FID and KID"),
        key=(*CELL,),
    ),
    "nll": Table(
        "likelihoods, bits/dim",
        "table",
        View(("nelbo", "nelbo_fixed", "nll", "nll_fixed", "decoder", "gap", "nll_median", "nll_beyond", "seeds")),
        Page("likelihood", "Likelihoods, bits/dim"),
        key=(*CELL,),
    ),
    "flow": Table(
        "effects of the trained flows on test images",
        "table",
        View((*FLOW_METRICS, "seeds")),
        Page("flow", "Effects of the flows on test images"),
    ),
    "ablation": Table(
        "variants, and their differences from the plain baseline, paired by seed",
        "table",
        View(("nelbo_difference", "nll_difference", "gap_difference", "log_fid_difference", "kid_difference", "pairs")),
        Page("ablation", "Differences made by the controls"),
    ),
    "discretization": Table(
        "FID against sampler steps",
        "table",
        View(("fid",), group=("dataset", "sde", "objective", "sampler"), across="steps"),
        Page("steps", "FID and KID by sampler and steps"),
        key=(*CELL, "sampler", "steps"),
    ),
    "learning_curve": Table(
        "likelihoods during training, bits/dim",
        "table",
        View(("nelbo",), across="step"),
        Page("learning", "Snapshots, bits/dim"),
        key=(*CELL, "step"),
    ),
    "toy2d": Table(
        "distances from known densities, bits/dim",
        "table",
        View((*OF_DENSITIES, "seeds")),
        Page("toy", "Models of known densities"),
        key=(*CELL,),
    ),
    "protocol": Table(
        "FID by other protocols",
        "table",
        View(("fid", "difference"), label=("factor", "setting")),
        Page("protocol", "FID under other protocols"),
    ),
    "tuned": Table(
        "hyper-parameters chosen on the validation split",
        "table",
        View(("target", "steps", "trials", "failed", "trial"), group=("dataset", "sde", "objective", "reading")),
        Page("tuning", "Hyper-parameters chosen"),
    ),
    "tuning": Table(
        "trials of their search",
        "table",
        View(("target", "state"), label=("model", "variant", "trial", "phase", "steps"), asked_for=True),
        Page("tuning", "Trials"),
    ),
    "compute": Table(
        "cost of the models",
        "compute",
        View(("ms_per_step", "train_flops_per_step", "score_parameters", "flow_parameters", "train_peak_memory_mib")),
        Page("cost", "Size, operations, times"),
    ),
    "claims": Table(
        "the paper's claims, graded: INDM against DDPM++ and the controls",
        "claims",
        View(
            ("verdict", "effect", "unit", "n", "repeatability", "protocol"),
            label=("comparison", "against"),
            group=("family", "id", *PLACE),
            dropped="effect",
        ),
        Page(columns=VERDICT, dropped="effect"),
        key=CLAIM,
    ),
    "differences": Table("the paired difference of each seed; an effect is their mean", "claims"),
    "comparison": Table(
        "published numbers next to ours",
        "claims",
        View(("ours", "published", "verdict"), label=("model", "variant", "metric", "sampler"), dropped="ours"),
        Page("published", "Our numbers and the published ones", dropped="ours"),
    ),
    "values": Table("every number, with its run and its source file", "table"),
    "images": Table("the likelihoods of each image", "table"),
}
SHOWN = tuple(name for name, table in CATALOGUE.items() if table.view)
PUBLISHED = (*SHOWN, "differences", "values")
# Tables that are published as NAME.csv.gz, because they are large.
COMPRESSED = ("images",)
