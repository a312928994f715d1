"""The README.md of a suite's published results: a generated block in a hand-written page."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from indm.bench.suite.borne_out import contradictions
from indm.bench.suite.claims import load_claims
from indm.bench.suite.load import claims_sha256, suite_sha256
from indm.bench.suite.registrations import changed_seeds
from indm.errors import ArtifactError
from indm.report.answers import answers_beside
from indm.report.matrix import InFile
from indm.report.multiples import read_multiples
from indm.report.page.document import FLOPS, Document, facts, sections
from indm.report.page.means import read_means
from indm.report.page.registration import describe_registration
from indm.report.registrations import load_registrations
from indm.report.rows import read_rows
from indm.store.files import read_json
from indm.store.layout import PICTURES
from indm.store.provenance import changed_since, commit_date

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

BLOCK = "results"
RECORD = "provenance.json"
# Folders of published files, from which files that are not published any more are removed.
FOLDERS = ("tables", "figures", *PICTURES, "weights")
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
    """The published files of a suite: their folder, the bytes of each, and the executions behind the results.

    ``sha256`` is the hash of the suite then, ``tables`` the folder of the tables, and ``evidence`` the main claims of all
    published suites.
    """

    suite: "Suite"
    sha256: str
    target: Path
    sizes: Mapping[str, int]
    tables: Path
    executions: list[dict[str, Any]]
    evidence: pd.DataFrame


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


def _block(published: Published) -> str:
    suite, executions, tables = published.suite, published.executions, published.tables
    claims, curve, compute = (read_rows(tables / f"{name}.csv") for name in ("claims", "learning_curve", "compute"))
    modules = changed_since(executions)
    changed = f"{len(modules)} modules of the code, which [{RECORD}]({RECORD}) lists" if modules else ""
    registration = _registration(suite, executions)
    known = facts(suite.suite, published.sha256, registration, executions, compute, changed)
    if FLOPS in known:
        known[FLOPS] += f"; for comparison: {LARGE_STEPS}"
    lead = "learning-curve-flops" if len(curve) else "error-compute"
    answers = answers_beside(claims, published.evidence)
    document = Document(answers, read_means(tables), lead, known, read_multiples(tables))
    files = _files(published)
    return TEMPLATE.render(sections(document, InFile()), has_lead=f"figures/{lead}.svg" in published.sizes, files=files)


def _registration(suite: "Suite", executions: Iterable[Mapping[str, Any]]) -> str:
    """Describe a suite's registration and the changes since."""
    registrations = load_registrations(Path("params/registrations.yaml"))
    entry = registrations.of(suite.suite)
    return describe_registration(
        suite.suite,
        entry,
        suite_sha256(suite),
        claims_sha256(load_claims(Path("params/claims.yaml"))),
        [execution["commit"] for execution in executions],
        changed_seeds(entry, suite),
        added=registrations.added_to(suite.suite),
        contradicted=contradictions(registrations, suite.suite),
    )


def read_folder(suite: "Suite", target: Path, evidence: pd.DataFrame) -> Published:
    """Read what is published of a suite in a folder."""
    files = [path for folder in FOLDERS for path in (target / folder).glob("*")] + [target / RECORD]
    sizes, record = {str(path.relative_to(target)): path.stat().st_size for path in files}, read_json(target / RECORD)
    return Published(suite, record["suite_sha256"], target, sizes, target / "tables", record["executions"], evidence)


def renewed(published: Published) -> str:
    """Return README.md made again from published files; unchanged where git lacks a commit that it names, and so its date."""
    entry = load_registrations(Path("params/registrations.yaml")).of(published.suite.suite)
    commits = {execution["commit"] for execution in published.executions} | ({entry.commit} if entry else set())
    if all(commit and commit_date(commit) for commit in commits):
        return page_text(published)
    return (published.target / "README.md").read_text(encoding="utf-8")


def _files(published: Published) -> dict[str, dict[str, int]]:
    """Return the sizes of all files by the folder in which they lie, or by their own name."""
    kept = [path for path in (published.target / "kept").rglob("*") if path.is_file()]
    sizes = {str(path.relative_to(published.target)): path.stat().st_size for path in kept} | dict(published.sizes)
    found: dict[str, dict[str, int]] = {}
    for name in sorted(sizes):
        found.setdefault(name.split("/")[0], {})[name] = sizes[name]
    return found
