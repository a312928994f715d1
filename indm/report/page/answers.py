"""The answers of the page: each claim at one place, with INDM's advantage over each model with which it was compared."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indm.report.catalogue import PLACE
from indm.report.differences import COMPARISONS, CONTROL, SIMPLE
from indm.report.grades import MEANINGS, UNDECIDED, in_words
from indm.report.names import comparator, names, written
from indm.report.page.entries import Entry, set_numbers, text_entry
from indm.report.results import read_texts

KEYS = ("id", *PLACE)
GRADED = (
    *(*KEYS, "comparison", "against", "verdict", "effect", "low", "high", "smallest_effect", "n"),
    *("planned", "failed_treatment", "failed_against", "reason", "protocol"),
)
COLUMNS = (*GRADED, "family", "unit", "question", "statement", "source")
# The columns of params/evidence.csv, which has the main claims of all published suites.
EVIDENCE = ("suite", *GRADED)
ENDS = ("effect", "low", "high")


@dataclass(frozen=True)
class Compared:
    """The advantage over one model: kind, model, verdict, effect and its interval, reason, failed seeds in words."""

    kind: str
    against: str
    verdict: Entry
    effect: Entry
    low: Entry
    high: Entry
    reason: str
    protocol: str
    failed: str = ""

    @property
    def label(self) -> str:
        """The comparison in words; a simple control has its name."""
        if self.kind == CONTROL:
            return self.against
        return f"{self.kind} ({self.against})" if self.kind == SIMPLE and self.against else self.kind

    @property
    def why(self) -> str:
        """Why there is no decision, in short; empty if there is one."""
        return self.reason.partition(":")[0] if self.verdict.value == UNDECIDED else ""


@dataclass(frozen=True)
class Answer:
    """A claim at one dataset, SDE and objective, with its comparisons: by their kind, or by the control's name."""

    claim: str
    question: str
    statement: str
    source: str
    is_primary: bool
    place: str
    unit: str
    compared: Mapping[str, Compared]
    evidence: Mapping[str, list[Compared]] = field(default_factory=dict)
    """Published comparisons of the claim in suites with more seeds, by the name of the suite with its number of seeds."""

    @property
    def anchor(self) -> str:
        """Its anchor on the page."""
        return "-".join(filter(None, ("answer", self.claim, *self.place.lower().split(", "))))


def read_answers(claims: Path, evidence: Path | None = None) -> list[Answer]:
    """Read the answers, in the order of the claims, without further controls that were not run; empty without a table.

    Arguments:
        claims: the suite's ``claims.csv``.
        evidence: ``params/evidence.csv``, the main claims of published suites.
    """
    if not claims.is_file():
        return []
    rows = read_texts(claims, *COLUMNS)
    rows = rows[(rows["comparison"] != CONTROL) | (rows["planned"] != "0")]
    published = read_texts(evidence, *EVIDENCE).to_dict("records") if evidence else []
    return [_answer(part.to_dict("records"), published) for _, part in rows.groupby([*KEYS], sort=False)]


def conclusion(answers: list[Answer]) -> dict[str, str]:
    """Count the verdicts of the primary claims, by the kind of the comparison, in words."""
    primary = [answer.compared for answer in answers if answer.is_primary]
    found = {kind: Counter(it[kind].verdict.value for it in primary if kind in it) for kind in COMPARISONS}
    return {
        kind: ", ".join(f"{count[word]} {word}" for word in MEANINGS if count[word])
        for kind, count in found.items()
        if count
    }


def kinds_of(answers: list[Answer]) -> dict[str, str]:
    """List the comparisons of any of the answers, with their headings: the three of each claim, then the others."""
    found = {key: one.against if one.kind == CONTROL else key for it in answers for key, one in it.compared.items()}
    return {key: found[key] for key in dict.fromkeys([*COMPARISONS, *found]) if key in found}


def _answer(rows: list[dict[Any, str]], published: list[dict[Any, str]]) -> Answer:
    first = rows[0]
    most = max(int(row["n"] or 0) for row in rows)
    same = [row for row in published if all(row[key] == first[key] for key in KEYS) and int(row["n"] or 0) > most]
    evidence: dict[str, list[Compared]] = {}
    for row in same:
        evidence.setdefault(f"{row['suite']}, {row['n']} seeds", []).append(_compared(row))
    return Answer(
        claim=first["id"],
        question=first["question"],
        statement=first["statement"],
        source=first["source"],
        is_primary=first["family"] == "primary",
        place=names(*(first[key] for key in PLACE)),
        unit=first["unit"],
        compared={
            row["against"] if row["comparison"] == CONTROL else row["comparison"]: _compared(row) for row in rows
        },
        evidence=evidence,
    )


def _compared(row: Mapping[Any, str]) -> Compared:
    failed = [int(row[f"failed_{arm}"] or 0) for arm in ("treatment", "against")]
    effect, low, high = _set([row[end] for end in ENDS], row["smallest_effect"])
    verdict = text_entry("verdict", row["verdict"])
    return Compared(
        kind=row["comparison"],
        against=comparator(row["against"]),
        verdict=Entry(in_words(verdict.text, float(row["smallest_effect"])), verdict.text, symbol=verdict.symbol),
        effect=effect,
        low=low,
        high=high,
        reason=row["reason"],
        protocol=written("protocol", row["protocol"]),
        failed=f"failed {failed[0]} | {failed[1]} of {row['planned']}" if any(failed) else "",
    )


def _set(texts: list[str], smallest: str) -> list[Entry]:
    """Round numbers of one unit as if the smallest effect were their standard error; if it is 0, by their spread."""
    numbers = [float(text) for text in texts if text]
    error = float(smallest or 0) or (max(numbers, default=0.0) - min(numbers, default=0.0)) / 20
    errors = [f"{error:.6g}" if text and error else "" for text in texts]
    return [Entry(text, value) for (text, _), value in zip(set_numbers(texts, errors), texts, strict=True)]
