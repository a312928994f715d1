"""The folder of an entry: the files that ``indm enter`` writes, and what follows from them without training."""

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from indm.bench.entries.entry import Rates
from indm.errors import ArtifactError, ParamsError
from indm.fields import Count, Seed
from indm.report.entries import DDPMPP, ENTRY, RECORD, chosen_decoders, column, page, verdicts
from indm.store.files import TABLE_FORMAT
from indm.strict_yaml import Strict, read_valid

# The earlier format has other seeds; see EARLIER in the module entry.
FORMAT: Final = "indm-entry-2"
SOURCE, RECORD_SOURCE = "entry.py", "record.py"
ABOUT, RUNS, NUMBERS = "entry.json", "runs.csv", "numbers.csv"
LOSSES, VERDICTS, PAGE = "losses.csv", "verdicts.csv", "README.md"
# The folder of the same entry under an entry's folder, trained by a maintainer with a nonce.
CONFIRMED = "confirmed"

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# The texts that a page shows, in which no Markdown can hide.
NONCE = r"^[\w.-]{0,80}$"
Nonce = Annotated[str, Field(pattern=NONCE)]
Plain = Annotated[str, Field(pattern=r"^[\w ()./,+@=:-]*$")]
Operations = Annotated[int, Field(ge=0)]


class Model(Rates):
    """What is stated of a model of the comparison."""

    label: Plain
    build_flops: Operations = Field(description="operations of building it, with the fit of its map")
    # A step of a large flow takes more than the 10^9 to which counts of other things are limited.
    step_flops: int = Field(ge=1, description="operations of a step")
    steps: Count
    step_seconds: float = Field(ge=0, description="mean time of a step")
    decoder: str = Field(pattern="^nelbo(_fixed)?$")


class Made(Strict):
    """Where a folder was made."""

    commit: str | None
    machine: Plain
    torch: Plain
    cores: Count
    seconds: float
    code: Hash | None = Field(default=None, description="hash of the code that trained; null in the earlier format")


class About(Strict):
    """The content of ``entry.json``."""

    format: Literal["indm-entry-1", "indm-entry-2"] = Field(description="the rule of the seeds, too")
    label: Plain
    sha256: Hash
    track: str
    version: Count
    track_sha256: Hash
    record_sha256: Hash | None = Field(description="of the record against which it was judged; null if there was none")
    nonce: Nonce
    seeds: list[Seed]
    smallest: float = Field(description="smallest effect that counts, in bits/dim")
    images: bool = Field(description="whether bounds are of images, which are a source of error, too")
    budget: Operations = Field(description="operations of each training")
    models: dict[str, Model]
    made: Made

    @model_validator(mode="after")
    def _are_those_of_a_comparison(self) -> "About":
        expected = {ENTRY, DDPMPP} | ({RECORD} if self.record_sha256 else set())
        if self.models.keys() != expected:
            raise ValueError(f"found models {', '.join(self.models)}, expected {', '.join(sorted(expected))}")
        return self


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
    about: About
    runs: pd.DataFrame
    numbers: pd.DataFrame
    losses: pd.DataFrame

    @property
    def others(self) -> list[str]:
        """The models against which the entry is judged."""
        return [model for model in (DDPMPP, RECORD) if model in self.about.models]

    def verdicts(self) -> pd.DataFrame:
        """Judge the entry by the tables."""
        about = self.about
        return verdicts(self.numbers, about.seeds, about.smallest, self.others, images=about.images)

    def decoders(self) -> dict[str, str]:
        """Choose each model's decoder by the tables."""
        return chosen_decoders(self.runs)

    def page(self) -> str:
        """Write the page by the tables."""
        means = {model: self._mean(model) for model in self.about.models}
        return page(self.about.model_dump(), means, self.verdicts())

    def _mean(self, model: str) -> float:
        """Return the mean bound of a model in bits/dim."""
        columns = [column(model, seed) for seed in self.about.seeds]
        return float(self.numbers[columns].to_numpy().mean())

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
    if not (path / ABOUT).is_file():
        raise ArtifactError(f"{path}: found no such folder with an {ABOUT}, expected one that indm enter has written")
    try:
        # JSON is YAML.
        about = read_valid(path / ABOUT, About)
    except ParamsError as error:
        raise ArtifactError(f"{error}; enter the file again") from None
    folder = Folder(path, about, *(_read_table(path / name) for name in (RUNS, NUMBERS, LOSSES)))
    _check_columns(folder)
    return folder


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; enter the file again")
    try:
        return pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not a table ({' '.join(str(error).split())}); enter the file again") from None


def _check_columns(folder: Folder) -> None:
    trainings = [column(model, seed) for model in folder.about.models for seed in folder.about.seeds]
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
