"""The folder of an entry: the files that ``indm enter`` writes, and what follows from them without training."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from indm.errors import ArtifactError
from indm.report.entries import DDPMPP, ENTRY, RECORD, chosen_decoders, column, page, verdicts
from indm.store.files import TABLE_FORMAT, from_git, read_json

FORMAT = "indm-entry-1"
SOURCE, RECORD_SOURCE = "entry.py", "record.py"
ABOUT, RUNS, NUMBERS, LOSSES, VERDICTS, PAGE = (
    "entry.json",
    "runs.csv",
    "numbers.csv",
    "losses.csv",
    "verdicts.csv",
    "README.md",
)
# What entry.json states, with the types of the values.
KEYS: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "label": str,
    "sha256": str,
    "track": str,
    "version": int,
    "track_sha256": str,
    "nonce": str,
    "seeds": list,
    "smallest": float,
    "images": bool,
    "budget": int,
    "models": dict,
    "provenance": dict,
}
# What it states of each model.
FACTS: dict[str, type | tuple[type, ...]] = {
    "label": str,
    "lr": float,
    "flow_lr": float,
    "build_flops": int,
    "step_flops": int,
    "steps": int,
    "step_seconds": float,
    "decoder": str,
}
# The folder of the same entry under an entry's folder, trained by a maintainer with a nonce.
CONFIRMED = "confirmed"
# It is shown on the page.
NONCE = r"[\w.-]{0,80}"
# The machine and the version of torch, which are shown there, too.
SHOWN = r"[\w ()./,+@=:-]*"


@dataclass(frozen=True)
class Folder:
    """A folder that has been read.

    Arguments:
        path: the folder.
        about: the content of ``entry.json``.
        runs: a row for each training: ``model``, ``task``, ``seed``, and its mean bound on validation data with both decoders.
        numbers: bounds by each model's decoder: ``task``, ``item``, and a column for each training.
        losses: the losses of the first steps: ``task``, ``step``, and a column for each training.
    """

    path: Path
    about: dict[str, Any]
    runs: pd.DataFrame
    numbers: pd.DataFrame
    losses: pd.DataFrame

    @property
    def others(self) -> list[str]:
        """The models against which the entry is judged."""
        return [model for model in (DDPMPP, RECORD) if model in self.about["models"]]

    def verdicts(self) -> pd.DataFrame:
        """Judge the entry by the tables."""
        about = self.about
        return verdicts(self.numbers, about["seeds"], about["smallest"], self.others, images=about["images"])

    def decoders(self) -> dict[str, str]:
        """Choose each model's decoder by the tables."""
        return chosen_decoders(self.runs)

    def page(self) -> str:
        """Write the page by the tables."""
        seeds = self.about["seeds"]
        means = {
            model: float(self.numbers[[column(model, seed) for seed in seeds]].mean().mean())
            for model in self.about["models"]
        }
        return page(self.about, means, self.verdicts())

    def text(self, file: str) -> str:
        """Read one of its files as a text."""
        return (self.path / file).read_text(encoding="utf-8")


def table_text(table: pd.DataFrame) -> str:
    """Return a table as CSV."""
    return str(table.to_csv(index=False, float_format=TABLE_FORMAT, lineterminator="\n"))


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table as it will be read."""
    return pd.read_csv(StringIO(table_text(table)))


def read_folder(path: Path) -> Folder:
    """Read the folder of an entry, without running its code.

    Raises:
        ArtifactError: if a file is missing or damaged.
    """
    if not path.is_dir():
        raise ArtifactError(f"{path}: found no such folder, expected one that indm enter has written")
    with from_git():
        about = read_json(path / ABOUT)
        _check_about(path / ABOUT, about)
        tables = [_read_table(path / name) for name in (RUNS, NUMBERS, LOSSES)]
    folder = Folder(path, about, *tables)
    _check_columns(folder)
    return folder


def _check_about(path: Path, about: Mapping[str, Any]) -> None:
    if about.get("format") != FORMAT:
        raise ArtifactError(
            f"{path}: key format: found {about.get('format')!r}, expected {FORMAT!r}; enter the file again"
        )
    if wrong := [key for key, kind in KEYS.items() if not isinstance(about.get(key), kind)]:
        raise ArtifactError(f"{path}: key {wrong[0]}: found {about.get(wrong[0])!r}; enter the file again")
    if not re.fullmatch(NONCE, about["nonce"]):
        raise ArtifactError(f"{path}: key nonce: found {about['nonce']!r}, expected letters, digits, dots and hyphens")
    models = about["models"]
    known = {ENTRY, DDPMPP} <= models.keys() <= {ENTRY, DDPMPP, RECORD}
    if not known or not all(map(_are_facts, models.values())):
        raise ArtifactError(f"{path}: key models: found {', '.join(models)}, expected entry and ddpmpp with all facts")

    if (about.get("record_sha256") is None) is (RECORD in models):
        raise ArtifactError(
            f"{path}: key record_sha256: found {about.get('record_sha256')!r}, expected that of models.record"
        )
    match about["provenance"]:
        case {"machine": str(machine), "versions": {"torch": str(torch)}} if re.fullmatch(SHOWN, machine + torch):
            return
    raise ArtifactError(
        f"{path}: key provenance: found no machine and version of torch in plain words; enter the file again"
    )


def _are_facts(facts: Any) -> bool:
    """Return whether an object states the facts of a model, with positive operations of a step."""
    typed = isinstance(facts, dict) and all(isinstance(facts.get(key), kind) for key, kind in FACTS.items())
    return typed and facts["step_flops"] > 0


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; enter the file again")
    try:
        return pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not a table ({' '.join(str(error).split())}); enter the file again") from None


def _check_columns(folder: Folder) -> None:
    trainings = [column(model, seed) for model in folder.about["models"] for seed in folder.about["seeds"]]
    runs = ["model", "task", "seed", "nelbo", "nelbo_fixed"]
    expected = {RUNS: runs, NUMBERS: ["task", "item", *trainings], LOSSES: ["task", "step", *trainings]}
    for name, table in {RUNS: folder.runs, NUMBERS: folder.numbers, LOSSES: folder.losses}.items():
        if list(table) != expected[name]:
            raise ArtifactError(
                f"{folder.path / name}: found other columns than a table of these seeds has; enter the file again"
            )
        numbers = table.drop(columns=["model", "task"], errors="ignore")
        # A decoder may be unknown, and a model may take fewer steps than another one.
        needed = {RUNS: ["nelbo"], NUMBERS: trainings, LOSSES: []}[name]
        if not all(kind.kind in "fi" for kind in numbers.dtypes) or not np.isfinite(numbers[needed]).all(axis=None):
            raise ArtifactError(f"{folder.path / name}: found an entry that is no number; enter the file again")


def steps_for(budget: int, build: int, step: int) -> int:
    """Return how many steps of a model fit into a budget of operations after it was built.

    Raises:
        ArtifactError: if none does.
    """
    if (steps := (budget - build) // step) < 1:
        raise ArtifactError(
            f"found {build:.4g} operations to build a model and {step:.4g} for a step, expected at most {budget:.4g}"
        )
    return steps


def json_text(content: Mapping[str, Any]) -> str:
    """Return a JSON object as a text."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
