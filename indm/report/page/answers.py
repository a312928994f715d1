"""What came out, a question at a time: the verdict in words, and the effects behind it as a forest plot."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from indm.report.grades import MEANINGS, NO_DATA, REPEATABLE, matched_by
from indm.report.names import comparator, names
from indm.report.page.entries import Entry, set_numbers, text_entry
from indm.report.results import read_texts

COLUMNS = (
    *("id", "family", "question", "statement", "source", "holds", "flow", "dataset", "sde", "objective", "baseline"),
    *("control", "smallest_effect", "unit", "repeatability", "reason", "flow_reason"),
)
KEYS = ["id", "dataset", "sde", "objective"]
NUMBERS = ("effect", "low", "high", "control_effect", "control_low", "control_high", "smallest_effect")
# The plot's own units; it is stretched to the width of its column.
WIDTH = 100.0
MARGIN = 0.04


@dataclass(frozen=True)
class Effect:
    """A row of the forest plot: against whom, the effect and the ends of its interval, and where they lie from 0 to ``WIDTH``."""

    against: str
    decides: bool
    numbers: list[Entry]
    places: list[float | None]


@dataclass(frozen=True)
class Answer:
    """A question, its two verdicts, and the effects behind them.

    Arguments:
        claim: its identifier.
        question: what a reader would ask.
        statement: the claim.
        source: where it is made.
        family: primary or exploratory.
        holds: whether the claim holds.
        borderline: whether new seeds might well change that.
        flow: whether it is the flow, of a claim with controls.
        dataset: its name.
        place: dataset, SDE and objective.
        baseline: what the claim compares with.
        control: the control that decides.
        unit: of the effects.
        reason: of the first verdict.
        flow_reason: of the second one.
        numbers: by column of the table of claims.
        effects: against the baseline, then against the controls.
        zero: where no effect lies in the plot.
        smallest: where the smallest effect lies.
    """

    claim: str
    question: str
    statement: str
    source: str
    family: str
    holds: Entry
    borderline: bool
    flow: Entry
    dataset: str
    place: str
    baseline: str
    control: str
    unit: str
    reason: str
    flow_reason: str
    numbers: Mapping[str, Entry]
    effects: list[Effect] = field(default_factory=list)
    zero: float = 0.0
    smallest: float = 0.0

    @property
    def is_counted(self) -> bool:
        """Whether it is one of the paper's main claims that the suite can test."""
        return self.family == "primary" and self.holds.text != NO_DATA

    @property
    def anchor(self) -> str:
        """Where it stands on the page."""
        return "-".join(filter(None, ("answer", self.claim, *self.place.lower().split(", "))))


def read_answers(claims: Path, effects: Path) -> list[Answer]:
    """Read the verdicts with their effects, in the order of the claims; nothing where there is no table of claims."""
    if not claims.is_file():
        return []
    compared = read_texts(effects, *KEYS) if effects.is_file() else pd.DataFrame(columns=KEYS)
    return [_answer(row, compared) for row in read_texts(claims, *COLUMNS).to_dict("records")]


def conclusion(answers: list[Answer]) -> list[tuple[int, str]]:
    """Count the verdicts of the primary claims that have data, in the order of their meanings."""
    grades = [answer.holds.text for answer in answers if answer.is_counted]
    return [(count, grade) for grade in MEANINGS["holds"] if (count := grades.count(grade))]


def _answer(row: Mapping[Any, str], effects: pd.DataFrame) -> Answer:
    same = effects[KEYS].eq([row[key] for key in KEYS])
    drawn, zero, smallest = _effects(effects[same.all(axis=1)], row)
    texts = [row.get(column, "") for column in NUMBERS]
    numbers = dict(zip(NUMBERS, _set(texts, row["smallest_effect"]), strict=True))
    return Answer(
        claim=row["id"],
        question=row["question"],
        statement=row["statement"],
        source=row["source"],
        family=row["family"],
        holds=text_entry("holds", row["holds"]),
        borderline=bool(row["repeatability"]) and float(row["repeatability"]) < REPEATABLE,
        flow=replace(text_entry("flow", row["flow"]), text=matched_by(row["flow"], comparator(row["control"]))),
        dataset=row["dataset"],
        place=names(row["dataset"], row["sde"], row["objective"]),
        baseline=comparator(row["baseline"]),
        control=comparator(row["control"]),
        unit=row["unit"],
        reason=row["reason"],
        flow_reason=row["flow_reason"],
        numbers=numbers,
        effects=drawn,
        zero=zero,
        smallest=smallest,
    )


def _set(texts: list[str], smallest: str) -> list[Entry]:
    """Round numbers of one unit as a standard error of the smallest effect would be; where that is 0, by how far they lie apart."""
    numbers = [float(text) for text in texts if text]
    error = float(smallest or 0) or (max(numbers, default=0.0) - min(numbers, default=0.0)) / 20
    errors = [f"{error:.6g}" if text and error else "" for text in texts]
    return [Entry(text, value) for (text, _), value in zip(set_numbers(texts, errors), texts, strict=True)]


def _effects(table: pd.DataFrame, row: Mapping[Any, str]) -> tuple[list[Effect], float, float]:
    """Lay out the effects of one verdict: rows, and where 0 and the smallest effect are."""
    if len(table) == 0 or len(found := table[table["effect"] != ""]) == 0:
        return [], 0.0, 0.0
    smallest = float(row["smallest_effect"] or 0.0)
    numbers = [float(text) for column in ("effect", "low", "high") for text in found[column] if text]
    place = _scale([*numbers, 0.0, smallest])
    deciding = row["control"] or _closest(found)
    rows = []
    for one in found.to_dict("records"):
        texts = [one["effect"], one["low"], one["high"]]
        decides = one["role"] == "control" and one["against"] == deciding
        places = [place(float(text)) if text else None for text in texts]
        rows.append(Effect(comparator(one["against"]), decides, _set(texts, row["smallest_effect"]), places))
    return rows, place(0.0), place(smallest)


def _scale(numbers: list[float]) -> Callable[[float], float]:
    """Return the function that lays numbers between the margins of the plot."""
    low, high = min(numbers), max(numbers)
    scale = WIDTH * (1 - 2 * MARGIN) / (high - low or 1.0)
    return lambda number: round(WIDTH * MARGIN + scale * (number - low), 2)


def _closest(effects: pd.DataFrame) -> str:
    """Name the control that leaves the smallest effect; empty where there is none."""
    controls = effects[effects["role"] == "control"]
    return min(zip(controls["effect"].astype(float), controls["against"], strict=True), default=(0.0, ""))[1]
