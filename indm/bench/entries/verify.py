"""``indm verify``: what can be checked of an entry's folder without its author's machine, and what was not."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from indm.bench.entries.entry import Entry, Rates, read_entry
from indm.bench.entries.folder import (
    LOSSES,
    NUMBERS,
    PAGE,
    RECORD_SOURCE,
    RUNS,
    SOURCE,
    VERDICTS,
    Folder,
    read_folder,
    steps_for,
    table_text,
)
from indm.bench.entries.records import RECORDS, current_record
from indm.bench.entries.tracks import LoadedTrack
from indm.errors import ArtifactError
from indm.report.entries import DDPMPP, ENTRY, RECORD, column
from indm.store.scratch import open_scratch

if TYPE_CHECKING:
    from indm.bench.entries.training import Competitor

OK, FAILED, OPEN = "ok", "failed", "not checked"
# The first losses that are compared, in nats per dimension. With other instructions or threads, rounding moves the first 20 on
# the track digits by up to 1e-4, but the first 100 by 0.2, because a training is chaotic; another seed moves the first 20 by 0.9.
COMPARED, ROUNDING = 20, 1e-3


@dataclass(frozen=True)
class Finding:
    """A check, and its outcome: :data:`OK`, :data:`FAILED` or :data:`OPEN`."""

    outcome: str
    words: str

    def __str__(self) -> str:
        return f"{self.outcome}: {self.words}"


def verify(
    path: Path, track: LoadedTrack, *, code: bool = True, full: bool = False, cores: int = 1, records: Path = RECORDS
) -> Iterator[Finding]:
    """Check an entry's folder.

    Arguments:
        path: the folder.
        track: the track that it names, as it is here.
        code: whether to run the entry's code, which can read what this machine can read.
        full: whether to train everything again.
        cores: trainings at a time.
        records: the folder of the records.

    Yields:
        What was checked, and what was not.

    Raises:
        ArtifactError: if a file is missing or damaged, or the folder is of another track, or of another version of it.
    """
    folder = read_folder(path)
    _check_track(folder, track)
    sources = _sources(folder)
    found = [_of_source(folder, track, sources), *_of_tables(folder), _of_steps(folder, track, sources)]
    yield from [*found, _of_record(folder, track, records)]
    if any(finding.outcome == FAILED for finding in found):
        yield Finding(OPEN, "operations and losses, because the tables or sources are not those of the trainings")
    elif not code:
        yield Finding(OPEN, "operations, contract and losses, for which the entry's code would have to run")
    else:
        yield from _of_code(folder, track, sources, full, cores)
    if not full:
        count = len(folder.runs)
        yield Finding(
            OPEN, f"the bounds in {NUMBERS} of {count} trainings, and the seconds; --full trains all of them again"
        )


def _check_track(folder: Folder, track: LoadedTrack) -> None:
    about = folder.about
    if about.track_sha256 == track.sha256:
        return
    found = f"track {about.track}, version {about.version}, {about.track_sha256[:12]}"
    raise ArtifactError(
        f"{folder.path}: found {found}, expected version {track.content.version}, {track.sha256[:12]}, which is here; check it "
        "with the commit that has this track, or enter the file again"
    )


def _sources(folder: Folder) -> dict[str, Entry]:
    """Read the files of the entry and of the record without running them."""
    files = {ENTRY: SOURCE}
    if RECORD in folder.about.models:
        files[RECORD] = RECORD_SOURCE
    return {model: read_entry(folder.path / file) for model, file in files.items()}


def _of_source(folder: Folder, track: LoadedTrack, sources: dict[str, Entry]) -> Finding:
    """The seeds follow from the file, the track and the nonce."""
    about, entry = folder.about, sources[ENTRY]
    expected = about.model_copy(
        update={
            "sha256": entry.sha256,
            "seeds": entry.seeds(track, about.nonce),
            "label": entry.label,
            "record_sha256": sources[RECORD].sha256 if RECORD in sources else None,
            "smallest": track.content.smallest,
            "images": track.content.densities is None,
        }
    )
    wrong = [key for key, value in about if value != getattr(expected, key)]
    labels = {model: source.label for model, source in sources.items()} | {DDPMPP: "DDPM++"}
    wrong += [model for model, label in labels.items() if about.models[model].label != label]
    if wrong:
        return Finding(FAILED, f"{', '.join(wrong)}: not those of {SOURCE} on this track")
    return Finding(OK, f"{len(about.seeds)} seeds follow from {SOURCE}, the track and the nonce {about.nonce!r}")


def _of_tables(folder: Folder) -> Iterator[Finding]:
    """The decoders, verdicts and page follow from the tables."""
    stated = {model: facts.decoder for model, facts in folder.about.models.items()}
    if stated != folder.decoders():
        yield Finding(FAILED, f"decoders: not those that {RUNS} chooses")
    for file, expected in ((VERDICTS, table_text(folder.verdicts())), (PAGE, folder.page())):
        if folder.text(file) != expected:
            yield Finding(FAILED, f"{file}: not what follows from {NUMBERS}; the file or the numbers were edited")
        else:
            yield Finding(OK, f"{file} follows from {NUMBERS}")


def _of_steps(folder: Folder, track: LoadedTrack, sources: dict[str, Entry]) -> Finding:
    """Steps and rates follow from the operations, the track and the files."""
    about = folder.about
    budget = track.params.steps * about.models[DDPMPP].step_flops
    if about.budget != budget:
        return Finding(FAILED, f"budget: found {about.budget} operations, expected {budget}, those of DDPM++")
    for model, stated in about.models.items():
        steps, rates = steps_for(budget, stated.build_flops, stated.step_flops), _rates(track, sources.get(model))
        if (stated.steps, stated.lr, stated.flow_lr) != (steps, rates.lr, rates.flow_lr):
            return Finding(
                FAILED,
                f"{model}: found {stated.steps} steps, expected {steps} for equal operations, and the file's rates",
            )
    return Finding(OK, "steps are those of equal operations, and rates those of the files")


def _rates(track: LoadedTrack, entry: Entry | None) -> Rates:
    """Return the rates of a model's file, and the track's for DDPM++, which has none."""
    if entry is None:
        return Rates(lr=track.params.lr, flow_lr=track.params.flow_lr)
    return entry.rates_on(track)


def _of_record(folder: Folder, track: LoadedTrack, records: Path) -> Finding:
    """The record against which the entry was judged is the one of this checkout, which may have changed since."""
    record, stated = current_record(track, records), folder.about.record_sha256
    name = record.label if record else "DDPM++"
    if stated == (record.sha256 if record else None):
        return Finding(OK, f"the record is {name}, as when it was entered")
    own = record is not None and record.sha256 == folder.about.sha256
    return (
        Finding(OK, "it is the record itself")
        if own
        else Finding(OPEN, f"the record here, {name}, with which it was not compared")
    )


def _of_code(
    folder: Folder, track: LoadedTrack, sources: dict[str, Entry], full: bool, cores: int
) -> Iterator[Finding]:
    """Run the entry: its contract, its operations, and the first steps of a training, or all trainings."""
    from indm.bench.entries.entry import check_contract
    from indm.bench.entries.tasks import tasks_of
    from indm.bench.entries.training import cost

    shape = tasks_of(track)[0].shape
    for entry in sources.values():
        check_contract(entry.path, shape)
    yield Finding(OK, "the contract holds")
    models = folder.about.models
    for one in _competitors(folder, track, sources):
        stated, found = (models[one.name].build_flops, models[one.name].step_flops), cost(track, one)
        if found != stated:
            yield Finding(
                FAILED, f"{one.name}: found {tuple(found)} operations to build it and for a step, stated are {stated}"
            )
            return
    yield Finding(OK, f"operations of a step of {len(models)} models")
    yield from _all_again(folder, track, sources, cores) if full else _first_again(folder, track, sources)


def _competitors(folder: Folder, track: LoadedTrack, sources: dict[str, Entry]) -> "list[Competitor]":
    from indm.bench.entries.training import Competitor

    found = []
    for model, stated in folder.about.models.items():
        source = sources.get(model)
        found.append(Competitor(model, stated.label, source.path if source else None, _rates(track, source)))
    return found


def _first_again(folder: Folder, track: LoadedTrack, sources: dict[str, Entry]) -> Iterator[Finding]:
    """Train the first steps of one training again, which no author can know beforehand."""
    from indm.bench.entries.tasks import tasks_of
    from indm.bench.entries.training import Job, run_job

    chance = random.SystemRandom()
    one = chance.choice(_competitors(folder, track, sources))
    number, seed = chance.randrange(len(tasks_of(track))), chance.choice(folder.about.seeds)
    task, steps = tasks_of(track)[number].name, folder.about.models[one.name].steps
    again = run_job(Job(track.file, one, number, task, seed, steps, min(COMPARED, steps))).losses
    stated = folder.losses[folder.losses["task"] == task][column(one.name, seed)].dropna().head(COMPARED)
    words = f"the first {len(again)} losses of {one.name} on {task}, seed {seed}"
    if len(stated) != len(again):
        yield Finding(FAILED, f"{words}: {LOSSES} has {len(stated)}")
        return
    off = float(np.abs(np.asarray(stated, dtype=float) - again).max())
    outcome = OK if off <= ROUNDING else FAILED
    yield Finding(outcome, f"{words} differ by at most {off:.2g} nats per dimension, allowed are {ROUNDING:g}")


def _all_again(folder: Folder, track: LoadedTrack, sources: dict[str, Entry], cores: int) -> Iterator[Finding]:
    """Train everything again, and compare the verdicts."""
    from indm.bench.entries.enter import compare, unfinished

    compared = sources[ENTRY], track, sources.get(RECORD), folder.about.nonce
    with open_scratch(unfinished(*compared)) as scratch:
        again = compare(*compared, cores, scratch)
    stated, found = folder.verdicts(), again.verdicts()
    off = _largest_mean_difference(again.numbers, folder.numbers)
    same = list(stated["verdict"]) == list(found["verdict"])
    words = f"verdicts {', '.join(found['verdict'])}, stated are {', '.join(stated['verdict'])}; bounds of a training differ by"
    yield Finding(
        OK if same and np.isfinite(off) else FAILED, f"trained again: {words} up to {off:.2g} bits/dim on average"
    )


def _largest_mean_difference(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """Return the largest mean absolute difference of a training's bounds, in bits/dim; infinity for tables of other items."""
    keys = ["task", "item"]
    if not one[keys].equals(other[keys]):
        return float("inf")
    return float((one.drop(columns=keys) - other.drop(columns=keys)).abs().mean().max())
