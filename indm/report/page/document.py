"""The document of a suite in Markdown: its sections are in README.md of the published results and, rendered, on the page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from indm.report.answers import Answer, conclusion, counted, elsewhere, seeds_of
from indm.report.catalogue import PLACE
from indm.report.compute import MEMORY
from indm.report.matrix import ABSENT, Form, counts, matrix, plain, table
from indm.report.multiples import Trained, written
from indm.report.names import REFERENCE, arm, names
from indm.report.page.entries import set_entry
from indm.report.page.means import ARMS, Row
from indm.report.rows import records
from indm.store.provenance import commit_date

# The first figure: its name and title, and what it shows.
LEADS = {
    "learning-curve-flops": (
        "NELBO against training compute",
        "Snapshots during training, on the validation split if there is one. A curve further left reaches the same bound with "
        "less computation.",
    ),
    "error-compute": (
        "NELBO against training compute on known densities",
        "Each panel is a density, each line a model at two lengths of training: how far its bound lies above the truth. Lower "
        "left is better.",
    ),
}
FLOPS_PER_STEP = "train_flops_per_step"
# The fact that compares it.
FLOPS = "FLOPs of a training step, INDM over DDPM++"
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Document:
    """The contents of a document: main and other answers, means by their places, the first figure, facts, and multiples."""

    answers: Sequence[Answer]
    means: Mapping[str, Sequence[Row]]
    lead: str
    facts: Mapping[str, str]
    multiples: Sequence[Trained] = ()

    @property
    def main(self) -> list[Answer]:
        """The answers to the main questions."""
        return [it for it in self.answers if it.is_primary]


def sections(document: Document, form: Form) -> dict[str, str]:
    """Write the sections of a document, by their names, of which some may be empty."""
    values = {"document": document, "form": form, "leads": LEADS}
    return {name: template.render(values).strip() for name, template in _templates().items()}


@cache
def _templates() -> dict[str, Template]:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES / "document"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = plain
    environment.globals |= {
        one.__name__: one
        for one in (
            arms_of,
            conclusion,
            counted,
            counts,
            elsewhere,
            matrix,
            rows_of,
            rows_of_multiples,
            seeds_of,
            table,
        )
    }
    return {name.partition(".")[0]: environment.get_template(name) for name in environment.list_templates()}


def arms_of(means: Sequence[Row]) -> list[str]:
    """Name the models that have a number in a table of means."""
    return [arm for arm, entries in zip(ARMS.values(), _columns(means), strict=True) if any(entries)]


def rows_of(means: Sequence[Row], form: Form) -> list[list[str]]:
    """Write the rows of a table of means, in the columns of :func:`arms_of`."""
    shown = [any(entries) for entries in _columns(means)]
    rows = []
    for row in means:
        cells = [set_entry(entry, form) for entry in compress(row.entries, shown)]
        rows.append([plain(f"{row.label}, {row.remark}"), *cells])
    return rows


def rows_of_multiples(multiples: Sequence[Trained], form: Form) -> list[list[str]]:
    """Write a row for each model: its multiple of training, and the cost of its step in FLOPs and in time."""
    several = len({one.place for one in multiples}) > 1
    rows = []
    for one in multiples:
        place = f", {names(*one.place)}" if several else ""
        costs = [ABSENT if math.isnan(cost) else f"× {cost:.2f}" for cost in (one.flops, one.time)]
        multiple = form.together(written(one.multiple)) + ", extrapolated" * one.multiple.extrapolated
        rows.append([plain(f"{arm(*one.arm)}{place}"), multiple, *costs])
    return rows


def _columns(means: Sequence[Row]) -> list[list[str]]:
    """Return the texts of each model's numbers."""
    return [[row.entries[place].text for row in means] for place in range(len(ARMS))]


def facts(
    suite: str,
    sha256: str,
    registration: str,
    executions: Sequence[Mapping[str, Any]],
    compute: pd.DataFrame,
    changed: str = "",
) -> dict[str, str]:
    """List what was run, each fact in Markdown.

    Arguments:
        suite: the suite's name.
        sha256: the hash of the suite in full.
        registration: its description.
        executions: the executions behind the results, one or more for each commit and machine.
        compute: the table of costs.
        changed: which code has changed since, and where.
    """
    found = {
        "suite": f"`params/{suite}.yaml`; its content in full (`params/expanded/{suite}.json`) has SHA-256 `{sha256}`",
        # A cell may not contain line breaks and bars.
        "registration": " ".join(registration.split()).replace("|", "\\|"),
        "commits": "; ".join(_commits(executions)),
        "changed since": changed,
        "machines": "; ".join(dict.fromkeys(map(_machine, executions))),
        "versions": ", ".join(dict.fromkeys(pair for each in executions for pair in _versions(each))),
        "cost": _cost(executions, compute),
        FLOPS: ", ".join(_steps(compute)),
    }
    return {key: text for key, text in found.items() if text}


def _commits(executions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield each commit once, because git is asked for its date."""
    for commit, is_changed in dict.fromkeys((each["commit"], each["uncommitted_changes"]) for each in executions):
        date = commit and commit_date(commit)
        changed = ", with uncommitted changes" if is_changed else ""
        yield f"`{commit}`{f' of {date}' if date else ''}{changed}" if commit else "unknown"


def _machine(execution: Mapping[str, Any]) -> str:
    return plain(f"{execution['machine']}; threads: {execution['threads']}; {execution['device']}")


def _versions(execution: Mapping[str, Any]) -> list[str]:
    return [plain(f"{package} {version}") for package, version in execution["versions"].items()]


def _cost(executions: Sequence[Mapping[str, Any]], compute: pd.DataFrame) -> str:
    if not executions:
        return ""
    hours = sum(execution["seconds"] for execution in executions) / 3600
    peak = compute.get(MEMORY, pd.Series(dtype=float)).dropna()
    memory = (
        f"; peak memory of a training: {peak.max():.0f} MiB, the mean over seeds in the largest cell"
        if len(peak)
        else ""
    )
    return f"{hours:.2f} hours, the sum over all jobs{memory}"


def _steps(compute: pd.DataFrame) -> list[str]:
    """Write the relative cost of a step wherever both models were trained."""
    if FLOPS_PER_STEP not in compute:
        return []
    models = compute[(compute["variant"] == "") & compute[FLOPS_PER_STEP].notna()]
    indm, baseline = (models[models["model"] == model] for model in ("indm", REFERENCE))
    both = indm.merge(baseline, on=PLACE, suffixes=("", "_baseline"))
    return [
        f"{row[FLOPS_PER_STEP] / row[f'{FLOPS_PER_STEP}_baseline']:.2f} ({names(*(row[key] for key in PLACE))})"
        for row in records(both)
    ]
