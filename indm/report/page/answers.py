"""The results: each claim with its two verdicts, and its effects against every model with which INDM was compared."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from indm.report.claims import SAME_COMPUTE
from indm.report.grades import CONTRADICTED, IN_WORDS, MEANINGS, NAMES_CONTROL, NO_DATA, REPEATABLE, SHOWN, with_control
from indm.report.names import comparator, names
from indm.report.page.entries import Entry, set_numbers, text_entry
from indm.report.results import read_texts

COLUMNS = (
    *("id", "family", "question", "statement", "source", "holds", "flow", "dataset", "sde", "objective"),
    *("control", "unit", "repeatability", "reason", "flow_reason"),
)
KEYS = ["id", "dataset", "sde", "objective"]
ENDS = ("effect", "low", "high")
NEXT = comparator(SAME_COMPUTE)


@dataclass(frozen=True)
class Compared:
    """The effect against one model, the ends of its interval, its verdict, and the numbers of failed seeds in words."""

    effect: Entry
    low: Entry
    high: Entry
    verdict: Entry
    failed: str = ""


@dataclass(frozen=True)
class Answer:
    """A question, its two verdicts, and the effects behind them.

    Arguments:
        claim: its identifier.
        question: the claim, worded as a question.
        statement: the claim.
        source: the source of the claim.
        family: primary or exploratory.
        holds: whether the claim holds.
        repeatability: the probability that new seeds would give the same verdict, as text in its file.
        flow: whether it is the flow, for a claim with controls.
        dataset: the name of the dataset.
        place: dataset, SDE and objective.
        unit: the unit of the effects.
        reason: the reason for the first verdict.
        flow_reason: the reason for the second verdict.
        baseline: the name of the baseline.
        against: the effect against the baseline and each control that was run, by name.
        decisive: the control that does better than the treatment or matches it, if one does.
    """

    claim: str
    question: str
    statement: str
    source: str
    family: str
    holds: Entry
    repeatability: str
    flow: Entry
    dataset: str
    place: str
    unit: str
    reason: str
    flow_reason: str
    baseline: str
    against: Mapping[str, Compared]
    decisive: str

    @property
    def is_counted(self) -> bool:
        """Whether it is one of the paper's main claims that the suite can test."""
        return self.family == "primary" and self.holds.text != NO_DATA

    @property
    def is_decided(self) -> bool:
        """Whether it is counted, and INDM is either better by more than the smallest effect, or worse."""
        return self.is_counted and self.holds.text in (SHOWN, CONTRADICTED)

    @property
    def borderline(self) -> bool:
        """Whether new seeds might well change the first verdict."""
        return bool(self.repeatability) and float(self.repeatability) < REPEATABLE

    @property
    def anchor(self) -> str:
        """Its anchor on the page."""
        return "-".join(filter(None, ("answer", self.claim, *self.place.lower().split(", "))))

    @property
    def named(self) -> list[str]:
        """The controls that the second verdict names: the decisive one and the same-compute one, if they were run."""
        return [name for name in dict.fromkeys((self.decisive, NEXT)) if name in self.against]

    @property
    def unrun(self) -> str:
        """The same-compute control, if it was not run."""
        return "" if NEXT in self.against else NEXT


def read_answers(claims: Path, effects: Path) -> list[Answer]:
    """Read the verdicts with their effects, in the order of the claims; empty without a table of claims."""
    if not claims.is_file():
        return []
    compared = read_texts(effects, *KEYS) if effects.is_file() else pd.DataFrame(columns=KEYS)
    return [_answer(row, compared) for row in read_texts(claims, *COLUMNS).to_dict("records")]


def conclusion(answers: list[Answer]) -> dict[str, list[tuple[int, str]]]:
    """Count the verdicts of the primary claims that have data, by question, in the order of their meanings."""
    counted = [answer for answer in answers if answer.is_counted]
    grades = {"holds": [answer.holds.text for answer in counted], "flow": [answer.flow.value for answer in counted]}
    return {
        question: [(count, grade) for grade in MEANINGS[question] if (count := found.count(grade))]
        for question, found in grades.items()
    }


def compared_with(answers: list[Answer]) -> list[str]:
    """List the models that any of the claims was compared with, baselines first, then the same-compute control."""
    found = dict.fromkeys(name for answer in answers for name in answer.against)
    baselines = dict.fromkeys(answer.baseline for answer in answers if answer.baseline in found)
    return list({**baselines, **{name: None for name in found if name == NEXT}, **found})


def _answer(row: Mapping[Any, str], effects: pd.DataFrame) -> Answer:
    same = effects[effects[KEYS].eq([row[key] for key in KEYS]).all(axis=1)]
    found = same[same["effect"] != ""].to_dict("records") if len(same) else []
    flow = text_entry("flow", row["flow"])
    return Answer(
        claim=row["id"],
        question=row["question"],
        statement=row["statement"],
        source=row["source"],
        family=row["family"],
        holds=text_entry("holds", row["holds"]),
        repeatability=row["repeatability"],
        flow=replace(flow, text=_in_words(flow.text, row), value=flow.text),
        dataset=row["dataset"],
        place=names(row["dataset"], row["sde"], row["objective"]),
        unit=row["unit"],
        reason=row["reason"],
        flow_reason=row["flow_reason"],
        baseline=next((comparator(one["against"]) for one in found if one["role"] == "baseline"), ""),
        against={comparator(one["against"]): _compared(one) for one in found},
        decisive=comparator(row["control"]) if row["flow"] in NAMES_CONTROL else "",
    )


def _in_words(flow: str, row: Mapping[Any, str]) -> str:
    if flow not in NAMES_CONTROL:
        return IN_WORDS.get(flow, flow)
    return f"no: {with_control(flow, comparator(row['control']))}"


def _compared(row: Mapping[Any, str]) -> Compared:
    failed = [int(row[f"failed_{arm}"] or 0) for arm in ("treatment", "against")]
    effect, low, high = _set([row[end] for end in ENDS], row["smallest_effect"])
    words = f"failed {failed[0]} | {failed[1]} of {row['planned']}" if any(failed) else ""
    return Compared(effect, low, high, text_entry("verdict", row["verdict"]), words)


def _set(texts: list[str], smallest: str) -> list[Entry]:
    """Round numbers of one unit as if the smallest effect were their standard error; if it is 0, by their spread."""
    numbers = [float(text) for text in texts if text]
    error = float(smallest or 0) or (max(numbers, default=0.0) - min(numbers, default=0.0)) / 20
    errors = [f"{error:.6g}" if text and error else "" for text in texts]
    return [Entry(text, value) for (text, _), value in zip(set_numbers(texts, errors), texts, strict=True)]
