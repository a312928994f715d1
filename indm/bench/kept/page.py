"""The README.md of a suite's published results: a generated block in a hand-written page."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from indm.bench.kept.accepted import FILE
from indm.bench.suite.claims import load_claims
from indm.bench.suite.load import claims_sha256, suite_sha256
from indm.bench.suite.registrations import changed_seeds
from indm.errors import ArtifactError
from indm.report.catalogue import PLACE
from indm.report.differences import SIMPLE
from indm.report.export import effect_with_ends, ratio
from indm.report.grades import UNDECIDED, in_words
from indm.report.matrix import kinds_of, matrix
from indm.report.names import REFERENCE, comparator, names
from indm.report.page.registration import describe_registration
from indm.report.registrations import load_registrations
from indm.report.results import records
from indm.store.provenance import ACCEPTED, commit_date

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

BLOCK = "results"
# The tables from which the block takes numbers.
SUMMARISED = ("claims", "compute")
STUB = """\
# Results of suite {suite}

<!-- results: written by python -m indm publish; text outside of these two lines stays -->
{end}
"""
TEMPLATE = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
    Path(__file__).with_name("results.md.jinja").read_text(encoding="utf-8")
)
# From docs/scaling.md, for comparison.
LARGE_STEPS = (
    "under VP, `cifar10` 1.5 (nll) and 2.2 (fid), `paper` 3.0 and 3.8 on CIFAR-10, 1.7 and 2.5 on CelebA "
    "([counted](../../scaling.md#a-step-of-indm-in-steps-of-ddpm))"
)
# The last marker of a generated block in a file that people write.
END = "<!-- end of {name} -->"


@dataclass(frozen=True)
class Published:
    """The published files of a suite: their folder, the bytes of each, tables, and the executions behind the results."""

    suite: "Suite"
    target: Path
    sizes: Mapping[str, int]
    tables: Mapping[str, pd.DataFrame]
    executions: list[dict[str, Any]]


def page_text(published: Published) -> str:
    """Return README.md with its generated block; a missing page becomes a stub, one without the markers is refused."""
    path = published.target / "README.md"
    text = STUB.format(suite=published.suite.suite, end=END.format(name=BLOCK))
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except ValueError:
            raise ArtifactError(f"{path}: found bytes that are not UTF-8, expected a text; save it as UTF-8") from None
    return replace_block(text, BLOCK, _block(published), str(path))


def replace_block(text: str, name: str, content: str, place: str) -> str:
    """Put new content between the markers of a block, which are comments in the file at a place."""
    end = re.escape(END.format(name=name))
    pattern = re.compile(rf"(<!-- {re.escape(name)}: [^\n]* -->\n)(.*?)({end})", flags=re.DOTALL)
    if (found := len(pattern.findall(text))) != 1 or text.count(END.format(name=name)) != 1:
        words = f"found {found} blocks <!-- {name}: ... --> to {END.format(name=name)}, expected one"
        raise ArtifactError(f"{place}: {words}; put the two lines where the block should stand")
    return pattern.sub(lambda match: f"{match[1]}\n{content.strip()}\n\n{match[3]}", text)


def verdicts(table: pd.DataFrame, where: tuple[str, ...] = tuple(PLACE)) -> str:
    """Write a row for each claim and place, and a column for each comparison: verdict, effect, interval, seeds to decide."""
    kinds = kinds_of(table)
    lines = [f"| claim | | {' | '.join(kinds)} |", "|---" * (len(kinds) + 2) + "|"]
    for row in matrix(table, where):
        cells = " | ".join(_compared(row.compared[kind]) if kind in row.compared else "–" for kind in kinds)
        lines.append(f"| {row.question} ({row.unit}) | {row.place} | {cells} |")
    return "\n".join(lines)


def _compared(row: Mapping[str, Any]) -> str:
    """Write a verdict with its effect, or with its reason; the simple control by its name."""
    if pd.isna(row["effect"]):
        return f"{row['verdict']}: {row['reason']}" if row["planned"] else row["reason"]
    who = f"{comparator(row['against'])}: " if row["comparison"] == SIMPLE else ""
    seeds = f" {{{row['to_decide']}}}" if row["verdict"] == UNDECIDED and row["to_decide"] else ""
    interval = effect_with_ends(row).replace("-", "−").replace(" [", "\u00a0[")
    return ", ".join(
        filter(None, (who + in_words(row["verdict"], row["smallest_effect"]), interval + seeds, ratio(row)))
    )


def _block(published: Published) -> str:
    suite, executions = published.suite, published.executions
    claims, compute = published.tables["claims"], published.tables["compute"]
    # A suite without image models, or without claims, has no rows.
    primary = claims[claims["family"] == "primary"] if len(claims) else claims
    return TEMPLATE.render(
        suite=suite,
        sha256=suite_sha256(suite),
        registration=_registration(suite, executions),
        commits=dict.fromkeys(map(_commit, executions)),
        changed=FILE if any(ACCEPTED in execution for execution in executions) else "",
        machines=dict.fromkeys(map(_machine, executions)),
        hours=sum(execution["seconds"] for execution in executions) / 3600,
        memory=compute["train_peak_memory_mib"].max() if len(compute) else None,
        steps=_steps(compute) if len(compute) else [],
        large_steps=LARGE_STEPS,
        verdicts=verdicts(primary) if len(primary) else "",
        files=_files(published),
    )


def _registration(suite: "Suite", executions: Iterable[Mapping[str, Any]]) -> str:
    """Describe a suite's registration and the changes since, in a cell of a table."""
    registrations = load_registrations(Path("params/registrations.yaml"))
    entry = registrations.of(suite.suite)
    text = describe_registration(
        suite.suite,
        entry,
        suite_sha256(suite),
        claims_sha256(load_claims(Path("params/claims.yaml"))),
        [execution["commit"] for execution in executions],
        changed_seeds(entry, suite),
        added=registrations.added_to(suite.suite),
    )
    # A cell may not contain line breaks and bars.
    return " ".join(text.split()).replace("|", "\\|")


def with_registration(page: str, suite: "Suite", executions: Iterable[Mapping[str, Any]]) -> str:
    """Return a page of results that says what has changed by now since the registration; unchanged where git lacks the commit.

    Arguments:
        page: its text.
        suite: its suite.
        executions: the executions behind the results, which ``provenance.json`` lists.
    """
    entry = load_registrations(Path("params/registrations.yaml")).suites.get(suite.suite)
    if entry is None or commit_date(entry.commit) is None:
        return page
    row = f"| registration | {_registration(suite, executions)} |"
    return re.sub(r"^\| registration \| .*$", lambda _: row, page, count=1, flags=re.MULTILINE)


def _steps(compute: pd.DataFrame) -> list[str]:
    """Write the relative cost of a step wherever both models were trained."""
    plain = compute[compute["variant"] == ""]
    indm, baseline = (plain[plain["model"] == model] for model in ("indm", REFERENCE))
    return [
        f"{row['train_flops_per_step_x'] / row['train_flops_per_step_y']:.2f} ({names(*(row[key] for key in PLACE))})"
        for row in records(indm.merge(baseline, on=PLACE))
    ]


def _commit(execution: Mapping[str, Any]) -> str:
    commit = execution["commit"]
    if commit is None:
        return "unknown"
    date = commit_date(commit)
    changed = ", with uncommitted changes" if execution["uncommitted_changes"] else ""
    return f"`{commit}`{f' of {date}' if date else ''}{changed}"


def _machine(execution: Mapping[str, Any]) -> str:
    versions = execution["versions"]
    return (
        f"{execution['machine']}; threads: {execution['threads']}; {execution['device']}; "
        f"Python {versions['python']}, torch {versions['torch']}"
    )


def _files(published: Published) -> dict[str, dict[str, int]]:
    """Return the sizes of all files by the folder in which they lie, or by their own name."""
    kept = [path for path in (published.target / "kept").rglob("*") if path.is_file()]
    sizes = {str(path.relative_to(published.target)): path.stat().st_size for path in kept} | dict(published.sizes)
    found: dict[str, dict[str, int]] = {}
    for name in sorted(sizes):
        found.setdefault(name.split("/")[0], {})[name] = sizes[name]
    return found
