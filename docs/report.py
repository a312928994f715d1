"""The tables of docs/report.md, made from the published results, the suites and their registrations.

A suite that is registered but not yet published stands in them as not finished, so that its results need no edit of the page.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from docs.answers import known
from indm.bench.kept.page import replace_block
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.errors import ArtifactError
from indm.report.answers import Answer, answers_of
from indm.report.differences import COMPUTE, SIMPLE, STEPS
from indm.report.matrix import ABSENT, InFile, one_cell, table
from indm.report.names import REFERENCE
from indm.report.registrations import Registration, load_registrations
from indm.report.rows import read_rows, records
from indm.variants import SAME_COMPUTE

PLACE = "docs/report.md"
UNFINISHED = "not finished"
NOT_RUN = "not run"
MAPS, FILTER, AFFINE, SCALE = "learned-curve-filter", "fixed-filter", "learned-affine", "learned-scale"
LEARNED_FILTER, CURVE = "learned-filter", "learned-curve"
# Names of models, as pairs of family and variant.
Model = tuple[str, str]
NO_MAP, FLOW, LONGER = (REFERENCE, ""), ("indm", ""), (REFERENCE, SAME_COMPUTE)
BEHIND = ("indm", MAPS)


class Rung(NamedTuple):
    """A map of the ladder: its formula, its kind in words, and whether the diffusion stays linear in the data behind it."""

    formula: str
    kind: str
    linear: bool


RUNGS: dict[Model, Rung] = {
    NO_MAP: Rung("no map (DDPM++): $z = x$", "linear", True),
    (REFERENCE, FILTER): Rung(r"fixed filter: $z = s\,C^\top S^{-a} C x$", "linear, not trained", True),
    (REFERENCE, SCALE): Rung("learned scale: $z = e^c x$", "linear", True),
    (REFERENCE, AFFINE): Rung(r"learned affine map: $z = e^c \odot x + b$", "linear, with a shift", True),
    (REFERENCE, "learned-linear"): Rung("learned matrix: $z = W x + b$", "linear, with a shift", True),
    (REFERENCE, LEARNED_FILTER): Rung(r"learned filter: $z = C^\top G\,C\,x$", "linear", True),
    (REFERENCE, CURVE): Rung(r"learned curve: $z = \kappa(x)$", "nonlinear", False),
    (REFERENCE, MAPS): Rung(
        r"learned curve κ, then filter: $z = C^\top G\,C\,\kappa(x)$",
        "κ nonlinear, the filter linear",
        False,
    ),
    FLOW: Rung("INDM’s flow: residual blocks $x + g(x)$", "nonlinear", False),
    BEHIND: Rung("curve and filter, then INDM’s flow", "nonlinear", False),
}
# Suites that differ in network, batch or rates, with the headings of the setup.
SETUPS = {
    "digits-seeds": "digits",
    "digits-ve": "digits, VE",
    "fashion-full": "Fashion-MNIST",
    "cifar10-maps": "CIFAR-10",
    "celeba64-6000": "CelebA",
}


class Column(NamedTuple):
    """A column of a dataset's table: a suite and an objective."""

    suite: str
    objective: str
    title: str


class Asked(NamedTuple):
    """A row of a dataset's table: a claim at one comparison."""

    text: str
    claim: str
    comparison: str


COLUMNS = {
    "digits": (
        Column("digits-seeds", "nll", "VP, `nll`"),
        Column("digits-seeds", "fid", "VP, `fid`"),
        Column("digits-ve", "fid", "VE, `fid`"),
    ),
    "fashion": (
        Column("fashion-full", "nll", "2,000 steps, `nll`"),
        Column("fashion-long", "nll", "8,000 steps, `nll`"),
        Column("fashion-full", "fid", "1,800 steps, `fid`"),
    ),
    "photographs": (
        Column("cifar10-maps", "nll", "CIFAR-10, 1,000 steps, an eighth"),
        Column("cifar10-1000", "nll", "CIFAR-10, 1,000 steps"),
        Column("cifar10-3000", "nll", "CIFAR-10, 3,000 steps"),
        Column("celeba64-6000", "nll", "CelebA, 1,000 steps, an eighth"),
    ),
}
ON_IMAGES = (
    Asked("the flow over no map, equal steps", "better-nelbo", STEPS),
    Asked("the flow over no map, equal compute", "better-nelbo", COMPUTE),
    Asked("the flow over a cheaper map, equal steps", "better-nelbo", SIMPLE),
    Asked("fixed filter over no map", "better-nelbo-fixed-filter", STEPS),
    Asked("curve and filter over no map *", "better-nelbo-maps", STEPS),
    Asked("fixed filter over curve and filter", "better-nelbo-fixed-over-learned", STEPS),
    Asked("NLL: the flow over no map, equal steps *", "better-nll", STEPS),
    Asked("NLL: the flow over no map, equal compute *", "better-nll", COMPUTE),
)
FID = (
    Asked("log FID: the flow over no map, equal steps", "lower-fid", STEPS),
    Asked("log FID: the flow over no map, equal compute", "lower-fid", COMPUTE),
)
ASKED = {"digits": ON_IMAGES, "fashion": (*ON_IMAGES, *FID), "photographs": ON_IMAGES}
# The claims on known densities in the report.
ON_DENSITIES = ("better-nelbo-known", "smaller-gap-known", "better-nll-known")
SUITES = (
    "digits-seeds",
    "digits-ve",
    "fashion-full",
    "fashion-long",
    "cifar10-1000",
    "cifar10-3000",
    "densities",
    "cifar10-maps",
    "celeba64-6000",
)
# The suites whose notes of registration have forecasts, with their datasets.
FORECAST = {
    "cifar10-maps": "CIFAR-10",
    "celeba64-6000": "CelebA",
    "cifar10-precondition": "CIFAR-10",
    "cifar10-length": "CIFAR-10, nine times the steps",
    "fashion-filters": "Fashion-MNIST",
    "digits-filters": "digits",
    "cifar10-exponents-v": "CIFAR-10",
}
# A forecast in a note: what is compared, the mean, the ends of its interval, and the verdict.
NUMBER = r"(-?\d+\.\d+)"
HALF_WIDTHS = re.compile(rf"Half-widths of {NUMBER} to {NUMBER} are expected")
PREDICTED = re.compile(rf"[:;] ([^:;]+?) {NUMBER} \[{NUMBER}, {NUMBER}\], ([a-z ]+)(?=[;.])")
COMPARED = {
    "INDM over none at equal steps": Asked("INDM’s flow over no map, equal steps", "better-nelbo", STEPS),
    "at equal compute (share 1/8)": Asked("INDM’s flow over no map, equal compute", "better-nelbo", COMPUTE),
    "INDM over the fixed filter": Asked("INDM’s flow over the fixed filter", "better-nelbo", SIMPLE),
    "fixed filter over none": Asked("fixed filter over no map", "better-nelbo-fixed-filter", STEPS),
    "fixed filter over the learned curve and filter": Asked(
        "fixed filter over the learned curve and filter", "better-nelbo-fixed-over-learned", STEPS
    ),
    "network that knows the spectrum over none": Asked(
        "network that knows the spectrum over no map", "better-nelbo-preconditioned", STEPS
    ),
    "that network over the fixed filter": Asked(
        "network that knows the spectrum over the fixed filter", "better-nelbo-preconditioned-over-filter", STEPS
    ),
    "filter and that network over that network": Asked(
        "both over the network that knows the spectrum", "better-nelbo-filter-with-preconditioned", STEPS
    ),
    "v behind exponent 0.35 over v behind 0.15": Asked(
        "v behind exponent 0.35 over v behind 0.15", "better-nelbo-whiter-for-v", STEPS
    ),
    "v behind 0.35 over noise behind 0.15": Asked(
        "v behind exponent 0.35 over noise behind 0.15", "better-nelbo-v-at-its-exponent", STEPS
    ),
}


class Predicted(NamedTuple):
    """A registered forecast of a comparison, in bits/dim, with its 95 % interval and its verdict."""

    asked: Asked
    mean: float
    low: float
    high: float
    verdict: str


def with_report(page: str, published: Path, params: Path) -> str:
    """Return the report with its tables; unchanged if a suite is missing that its text describes.

    Arguments:
        page: its text.
        published: the folder with one folder per published suite, which has ``tables/``.
        params: the folder of the suites and of their registrations.

    Raises:
        ArtifactError: if a table is missing or damaged, the page has no place for one, or a forecast cannot be read.
        ParamsError: if a suite has a mistake.
    """
    if not all(is_finished(published, name) for name in {*SUITES} - {*FORECAST}):
        return page
    suites = {name: load_suite(params / f"{name}.yaml") for name in SUITES}
    registered = load_registrations(params / "registrations.yaml").suites
    blocks = {
        "registered": _registered(published, suites, registered),
        "setup": _setups(published, suites),
        **{name: _dataset(published, columns, ASKED[name]) for name, columns in COLUMNS.items()},
        "known": known(published, ON_DENSITIES),
        "forecasts": _forecasts(published, registered),
    }
    for name, content in blocks.items():
        page = replace_block(page, name, content, PLACE)
    return page


def is_finished(published: Path, suite: str) -> bool:
    """Return whether a suite's table of claims is published."""
    return (published / suite / "tables/claims.csv").is_file()


def _registered(published: Path, suites: Mapping[str, Suite], registered: Mapping[str, Registration]) -> str:
    """Write a row per suite: its registration, the seeds of a model, the steps, the test images, and what chose the decoder."""
    headings = (
        "suite",
        "registered",
        "seeds of a model",
        "steps",
        "test images",
        "decoder chosen on",
        "rows m",
        "state",
    )
    rows = [
        (
            f"[`{name}`](results/{name}/README.md)" if is_finished(published, name) else f"`{name}`",
            f"{registered[name].date}, {registered[name].commit[:8]}",
            _range(map(len, _main_seeds(registered[name]))),
            _steps(suites[name]),
            _test_images(published, suites[name]),
            _decoder(suites[name]),
            str(suites[name].grading.rows),
            "published" if is_finished(published, name) else UNFINISHED,
        )
        for name in SUITES
    ]
    return table(headings, rows)


def _main_seeds(registration: Registration) -> list[list[int]]:
    """List the seeds of each cell without those of cells with a single seed, which only show a picture."""
    return [seeds for seeds in registration.seeds.values() if len(seeds) > 1]


def _range(numbers: Iterable[int]) -> str:
    low, *_, high = sorted({*numbers}) * 2
    return f"{low}" if low == high else f"{low} to {high}"


def _steps(suite: Suite) -> str:
    """Write the steps of INDM's training, else of the first run, by objective; on known densities, of both lengths."""
    if suite.toy2d.datasets:
        return " and ".join(f"{length.steps:,}" for length in suite.toy2d.lengths.values())
    plain = [run for run in suite.runs.values() if (run.model, run.variant) == FLOW] or [*suite.runs.values()][:1]
    found = {run.objective: run.train.steps or suite.train.steps for run in plain}
    if len({*found.values()}) == 1:
        return f"{next(iter(found.values())):,}"
    return ", ".join(f"{steps:,} (`{objective}`)" for objective, steps in found.items())


def _test_images(published: Path, suite: Suite) -> str:
    """Write the number of test images, which a suite that uses all of them has only in its results."""
    if suite.toy2d.datasets:
        return f"{suite.toy2d.test_points} fresh points"
    if suite.nll.images is not None:
        return f"{suite.nll.images:,}"
    return f"{int(read_rows(published / suite.suite / 'tables/nll.csv')['images'].max()):,}"


def _decoder(suite: Suite) -> str:
    words = {"validation": "validation images", "test": "test images", "learned": "none: the learned one"}
    return words[suite.grading.decoder]


def _setups(published: Path, suites: Mapping[str, Suite]) -> str:
    """Write what networks and trainings have in the published suite of each dataset."""
    found = {title: _setup(published, suites[name]) for name, title in SETUPS.items() if is_finished(published, name)}
    rows = [(heading, *(each[heading] for each in found.values())) for heading in next(iter(found.values()))]
    return table(("", *found), rows)


def _setup(published: Path, suite: Suite) -> dict[str, str]:
    """Write networks, batches and rates of a suite's trainings, by their headings; of those for likelihood, if there are any."""
    objective = "nll" if any(run.objective == "nll" for run in suite.runs.values()) else "fid"
    plain, flow = (suite.train_params(_run(suite, model, objective)) for model in (NO_MAP, FLOW))
    compute = read_rows(published / suite.suite / "tables/compute.csv")
    (sizes,) = records(compute.query("model == 'indm' and variant == '' and objective == @objective"))
    train = suite.train
    channels = ", ".join(f"{train.score.channels * factor}" for factor in train.score.multipliers)
    return {
        "objective": f"`{objective}`",
        "channels of the U-Net, by resolution": channels,
        "parameters of the score network": f"{sizes['score_parameters']:,.0f}",
        "parameters of INDM’s flow": f"{sizes['flow_parameters']:,.0f}",
        "images of a step": f"{train.batch_size}",
        "steps of warm-up": f"{train.warmup_steps}",
        "decay of the averaged weights": f"{train.ema_decay:g}",
        "rate of DDPM++": f"{plain.lr:g}",
        "rates of INDM: score network, flow": f"{flow.lr:g}, {flow.flow_lr:g}",
    }


def _run(suite: Suite, model: Model, objective: str) -> str:
    """Return the name of the first run of a model, which has the settings of the others."""
    return next(
        name for name, run in suite.runs.items() if (run.model, run.variant, run.objective) == (*model, objective)
    )


def _dataset(published: Path, columns: Sequence[Column], rows_asked: Iterable[Asked]) -> str:
    """Write the leads with their intervals, in a column per published suite and objective."""
    columns = [column for column in columns if is_finished(published, column.suite)]
    found = [_answers(published, column) for column in columns]
    rows = [(asked.text, *(_cell(each, asked) for each in found)) for asked in rows_asked]
    rows = [tuple(cell or NOT_RUN for cell in row) for row in rows if any(row[1:])]
    return table(("lead, bits/dim", *(column.title for column in columns)), rows)


def _answers(published: Path, column: Column) -> list[Answer]:
    claims = read_rows(published / column.suite / "tables/claims.csv")
    return answers_of(claims[claims["objective"] == column.objective])


def _cell(answers: Iterable[Answer], asked: Asked) -> str:
    """Write a verdict with its effect and interval; empty if it has no number."""
    cells = [one for it in answers if it.claim == asked.claim for one in it.cells.get(asked.comparison, [])]
    return one_cell(cells[0], InFile()) if cells and cells[0].measured else ""


def forecasts(note: str) -> list[Predicted]:
    """Read the forecasts in the note of a registration.

    Raises:
        ArtifactError: if it has none, or one of a comparison that the report does not know.
    """
    found = []
    for name, mean, low, high, verdict in PREDICTED.findall(note):
        if name not in COMPARED:
            raise ArtifactError(f"params/registrations.yaml: found a forecast of {name!r}; add it to docs/report.py")
        found.append(Predicted(COMPARED[name], float(mean), float(low), float(high), verdict))
    if not found:
        raise ArtifactError(f"params/registrations.yaml: found no forecast in {note!r}; add its form to docs/report.py")
    return found


def _forecasts(published: Path, registered: Mapping[str, Registration]) -> str:
    """Write a row per forecast with what was found, and under the table which suites are not finished."""
    rows = []
    for suite, dataset in FORECAST.items():
        if is_finished(published, suite):
            answers = answers_of(read_rows(published / suite / "tables/claims.csv"))
            rows += [_forecast(dataset, it, answers) for it in forecasts(registered[suite].note)]
    found = table(("dataset", "lead in NELBO, bits/dim", "forecast", "found", "within the forecast"), rows)
    waiting = [suite for suite in FORECAST if not is_finished(published, suite)]
    return found + (f"\n\n{_not_finished(waiting, registered)}" if waiting else "")


def _three(it: Predicted) -> str:
    return f"{it.mean:.3f} [{it.low:.3f}, {it.high:.3f}]".replace("-", "−")


def _forecast(dataset: str, it: Predicted, answers: Iterable[Answer]) -> tuple[str, ...]:
    """Write a forecast with what the comparison found, and whether its mean lies in the forecast's interval."""
    forecast = f"{it.verdict}, {_three(it)}"
    cells = [one for each in answers if each.claim == it.asked.claim for one in each.cells.get(it.asked.comparison, [])]
    if not cells or not cells[0].measured:
        return dataset, it.asked.text, forecast, NOT_RUN, ABSENT
    within = "yes" if it.low <= cells[0].effect <= it.high else "no"
    return dataset, it.asked.text, forecast, one_cell(cells[0], InFile()), within


def _not_finished(suites: Sequence[str], registered: Mapping[str, Registration]) -> str:
    """Write which suites are registered with forecasts and not published, with the commits that have these."""
    told = ", ".join(f"`{suite}` ({registered[suite].commit[:8]})" for suite in suites)
    return fill(f"Registered with forecasts, and {UNFINISHED}: {told}.", 120)
