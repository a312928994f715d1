"""The answers of a suite: each claim at one place, with the advantage over each model with which it was compared."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from indm.report.catalogue import PLACE
from indm.report.differences import COMPARISONS, COMPUTE, CONTROL, FIXED_NUMBER, SIMPLE, STEPS
from indm.report.export import ratio
from indm.report.grades import BETTER, MEANINGS, NOT_BETTER, UNDECIDED, WORSE
from indm.report.names import NAMES, TREATMENT, comparator, name, names, written
from indm.report.rows import read_rows, records

KEYS = ("id", *PLACE)
NUMBERS = ("effect", "low", "high", "smallest_effect", "n", "planned", "failed_treatment", "failed_against")
GRADED = (*KEYS, "comparison", "against", "verdict", "effect", "low", "high", "smallest_effect", "n")
GRADED += ("planned", "failed_treatment", "failed_against", "reason", "protocol")
COLUMNS = (*GRADED, "family", "treatment", "unit", "question", "statement", "source", "repeatability", "to_decide")
# The columns of params/evidence.csv, which has the main claims of all published suites.
EVIDENCE = ("suite", *GRADED)
# The beginnings of the sentences that answer, and their subject.
OPENINGS = {STEPS: "Over DDPM++ (no map) at equal training steps", COMPUTE: "Over DDPM++ at equal training compute"}
OPENINGS |= {SIMPLE: "Over the simple control"}
SUBJECT = NAMES[TREATMENT]
# The subjects of main claims, in a sentence; other claims have their names.
SUBJECTS = {"better-nelbo-known": "bound", "smaller-gap-known": "variational gap"}
SUBJECTS |= {"coarse-discretisation-known": "few steps", "coarse-discretisation": "FID in few steps"}
SUBJECTS |= {"better-nelbo": "NELBO", "lower-fid": "FID"}


@dataclass(frozen=True)
class Compared:
    """The advantage over one model: a row of the table of claims, NaN where it has no number.

    ``against`` is the model's name; ``seeds`` have both numbers, of those ``planned``; ``failed`` and ``notes`` are in words.
    """

    kind: str
    against: str
    seeds: int
    planned: int
    verdict: str
    effect: float
    low: float
    high: float
    smallest: float
    reason: str
    to_decide: str
    ratio: str
    failed: str
    notes: str

    @property
    def measured(self) -> bool:
        """Whether there is an effect."""
        return not math.isnan(self.effect)

    @property
    def label(self) -> str:
        """The comparison in words; a simple control has its name."""
        if self.kind == CONTROL:
            return self.against
        return f"{self.kind} ({self.against})" if self.kind == SIMPLE and self.against else self.kind


# Comparisons by their kind, or by the control's name.
Cells = Mapping[str, list[Compared]]


@dataclass(frozen=True)
class Answer:
    """A claim at one dataset, SDE and objective, or at several densities, with its comparisons, one for each place.

    ``length`` is the length of training on a known density, and ``evidence`` has the comparisons in longer published suites.
    """

    claim: str
    question: str
    statement: str
    source: str
    is_primary: bool
    is_ours: bool
    treatment: str
    place: str
    length: str
    unit: str
    cells: Cells
    evidence: Mapping[str, Cells] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """The question, with its unit and the smallest effect that counts, if there is one."""
        smallest = next((one.smallest for ones in self.cells.values() for one in ones), 0.0)
        counts = f", {smallest:g} counts" if smallest > 0 else ""
        return f"{self.question} ({self.unit}{counts})"


def read_answers(claims: Path, evidence: Path | None = None) -> list[Answer]:
    """Read the answers of a table; empty without one.

    Arguments:
        claims: the table of claims.
        evidence: the main claims of published suites; those with more seeds than this suite stand beside its own.
    """
    if not claims.is_file():
        return []
    published = read_rows(evidence, columns=EVIDENCE) if evidence else pd.DataFrame(columns=[*EVIDENCE])
    return answers_beside(read_rows(claims, columns=COLUMNS), published)


def answers_beside(claims: pd.DataFrame, published: pd.DataFrame) -> list[Answer]:
    """List the answers, with the evidence of published suites that have more seeds; see :func:`answers_of`."""
    if not len(claims):
        return []
    seeds = published.groupby("suite")["n"].transform("max")
    return answers_of(claims, published=published[(seeds > claims["n"].max()) & published["effect"].notna()])


def answers_of(
    claims: pd.DataFrame, where: Sequence[str] = tuple(PLACE), published: pd.DataFrame | None = None
) -> list[Answer]:
    """List the answers in the order of the claims, without further controls that were not run.

    Arguments:
        claims: rows of the table of claims.
        where: the columns that name a place; answers are kept apart by all columns of :data:`PLACE`, too.
        published: the rows of other suites, with their names.
    """
    rows = _filled(claims[(claims["comparison"] != CONTROL) | (claims["planned"] != 0)])
    others = [] if published is None else records(_filled(published))
    return [_answer(records(part), where, others) for _, part in rows.groupby([*KEYS], sort=False)]


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """Write absent texts as empty texts, also in a column without any text, which is read as numbers."""
    texts = [column for column in COLUMNS if column in table and column not in (*NUMBERS, "repeatability")]
    return table.astype(dict.fromkeys(texts, object)).fillna(dict.fromkeys(texts, ""))


def counted(answers: Iterable[Answer]) -> list[Answer]:
    """Join the answers of a claim on known densities of one length of training."""
    groups: dict[tuple[str, str], list[Answer]] = {}
    for it in answers:
        groups.setdefault((it.claim, it.length or it.place), []).append(it)
    return [_joined(found) if found[1:] else found[0] for found in groups.values()]


def _joined(found: list[Answer]) -> Answer:
    suites = dict.fromkeys(suite for it in found for suite in it.evidence)
    return replace(
        found[0],
        place=f"{len(found)} densities, {found[0].length} training",
        cells=_merged(it.cells for it in found),
        evidence={suite: _merged(it.evidence.get(suite, {}) for it in found) for suite in suites},
    )


def _merged(cells: Iterable[Cells]) -> Cells:
    merged: dict[str, list[Compared]] = {}
    for kind, ones in (item for each in cells for item in each.items()):
        merged.setdefault(kind, []).extend(ones)
    return merged


def conclusion(answers: Iterable[Answer]) -> list[str]:
    """Count the verdicts of main questions: a sentence for each main comparison of INDM, and one for other models."""
    answers = list(answers)
    claims: dict[str, list[Cells]] = {}
    for it in answers:
        if it.is_primary and it.is_ours:
            claims.setdefault(SUBJECTS.get(it.claim, it.claim), []).append(it.cells)
    cells = {claim: _merged(found) for claim, found in claims.items()}
    counts = {kind: {claim: tally(found.get(kind, [])) for claim, found in cells.items()} for kind in OPENINGS}
    sentences = [_sentence(OPENINGS[kind], by_claim) for kind, by_claim in counts.items() if any(by_claim.values())]
    return [*sentences, *_about_others(answers)]


def _about_others(answers: Iterable[Answer]) -> list[str]:
    """Tell the verdicts of main claims about other models than INDM, in one sentence if there are any."""
    asked: dict[str, list[Compared]] = {}
    for it in answers:
        if it.is_primary and not it.is_ours:
            for (one,) in it.cells.values():
                asked.setdefault(f"{it.treatment} over {one.against}", []).append(one)
    tallied = {models: tally(ones) for models, ones in asked.items()}
    told = [f"{models}, {_counts(found)}" for models, found in tallied.items() if found]
    return [f"Other main questions: {'; '.join(told)}."] if told else []


def _counts(tallied: Mapping[str, int]) -> str:
    """Write one verdict as its word, and several with their numbers."""
    if sum(tallied.values()) == 1:
        return name(next(iter(tallied)))
    return ", ".join(f"{name(word)} in {count}" for word, count in tallied.items())


def _sentence(opening: str, by_claim: Mapping[str, Mapping[str, int]]) -> str:
    count = sum((Counter(found) for found in by_claim.values()), Counter[str]())
    total, open_ = count.total(), count[UNDECIDED]
    claim = next(claim for claim, found in by_claim.items() if found)
    if total == open_ == 1:
        return f"{opening}, whether {SUBJECT} is better is undecided ({claim})."
    if total == open_:
        asked = "both main questions" if total == 2 else f"all {total} main questions"
        return f"{opening}, {asked} are undecided."
    if total == 1:
        return f"{opening}, {SUBJECT} {_verbs(next(iter(count)))} ({claim})."
    decided: list[str] = []
    for word in (word for word in (BETTER, WORSE, NOT_BETTER) if count[word]):
        said = name(word) if decided and word == WORSE else _verbs(word)
        asked = "" if decided else f" of {total} main questions"
        found = {claim: tallied for claim, tallied in by_claim.items() if word in tallied}
        where = ", ".join(f"{claim} {tallied[word]} of {sum(tallied.values())}" for claim, tallied in found.items())
        decided.append(f"{said} in {count[word]}{asked}" + f" ({where})" * (word != NOT_BETTER))
    told = " and ".join(filter(None, [", ".join(decided[:-1]), decided[-1]]))
    return f"{opening}, {SUBJECT} {told}" + f"; {open_} {'are' if open_ > 1 else 'is'} undecided" * (open_ > 0) + "."


def _verbs(word: str) -> str:
    """Write a verdict behind its subject."""
    return f"{'has' if word == NOT_BETTER else 'is'} {name(word)}"


def tally(compared: Iterable[Compared]) -> dict[str, int]:
    """Count the verdicts on measured effects, in the order of :data:`MEANINGS`."""
    found = Counter(one.verdict for one in compared if one.measured)
    return {word: found[word] for word in MEANINGS if found[word]}


def elsewhere(answers: Iterable[Answer]) -> dict[str, Cells]:
    """List what longer published suites found on the main questions, by suite."""
    primary = [it for it in answers if it.is_primary]
    suites = dict.fromkeys(suite for it in primary for suite in it.evidence)
    return {suite: _merged(it.evidence.get(suite, {}) for it in primary) for suite in suites}


def seeds_of(*answers: Cells) -> str:
    """Write the numbers of seeds of comparisons as a range."""
    found = sorted({one.seeds for ones in _merged(answers).values() for one in ones if one.seeds}) or [0]
    return f"{found[0]} to {found[-1]} seeds" if found[1:] else f"{found[0]} seed{'s' * (found[0] != 1)}"


def kinds_of(answers: Iterable[Answer], controls: bool = False) -> dict[str, str]:
    """List the main comparisons of any of the answers, or the further controls, with their headings."""
    found = {
        key: ones[0].against if controls else key
        for it in answers
        for key, ones in it.cells.items()
        if (ones[0].kind == CONTROL) == controls
    }
    return {key: found[key] for key in dict.fromkeys([*COMPARISONS, FIXED_NUMBER, *found]) if key in found}


def _answer(rows: list[dict[str, Any]], where: Sequence[str], published: list[dict[str, Any]]) -> Answer:
    first = rows[0]
    evidence: dict[str, dict[str, list[Compared]]] = {}
    for row in published:
        if all(row[key] == first[key] for key in KEYS):
            # Published rows lack the unit, which is the claim's.
            evidence.setdefault(row["suite"], {})[row["comparison"]] = [_compared({"unit": first["unit"], **row})]
    return Answer(
        claim=first["id"],
        question=first["question"],
        statement=first["statement"],
        source=first["source"],
        is_primary=first["family"] == "primary",
        is_ours=first["treatment"] == TREATMENT,
        treatment=comparator(first["treatment"]),
        place=names(*(first[key] for key in where)),
        length="" if first["sde"] else first["dataset"].rpartition("-")[2],
        unit=first["unit"],
        cells={row["against"] if row["comparison"] == CONTROL else row["comparison"]: [_compared(row)] for row in rows},
        evidence=evidence,
    )


def _compared(row: Mapping[str, Any]) -> Compared:
    failed = [_count(row[f"failed_{arm}"]) for arm in ("treatment", "against")]
    # Published rows lack these two.
    again, seeds = row.get("repeatability", math.nan), row.get("to_decide", "")
    further = ("" if math.isnan(again) else f"repeatability {again:.2f}", f"to decide: {seeds}" if seeds else "")
    return Compared(
        kind=row["comparison"],
        against=comparator(row["against"]),
        seeds=_count(row["n"]),
        planned=_count(row["planned"]),
        verdict=row["verdict"],
        effect=row["effect"],
        low=row["low"],
        high=row["high"],
        smallest=row["smallest_effect"],
        reason=row["reason"],
        to_decide=seeds,
        ratio="" if math.isnan(row["effect"]) else ratio(row),
        failed=f"failed seeds: {failed[0]}, of the other model {failed[1]}" if any(failed) else "",
        notes="; ".join(filter(None, (row["reason"], written("protocol", row["protocol"]), *further))),
    )


def _count(number: float) -> int:
    return 0 if math.isnan(number) else int(number)
