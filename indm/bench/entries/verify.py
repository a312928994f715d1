"""``indm verify``: what can be checked of an entry's folder without its author's machine, and what was not."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from indm.bench.entries.entry import EARLIER, EARLIER_RULE, Entry, Rates, read_entry
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
from indm.report.chance import BEYOND, MISSING, OTHER, counts, distances
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
    rule = about.format
    if rule == EARLIER_RULE and (later := [each.path.name for each in sources.values() if each.sha256 not in EARLIER]):
        words = f"its seeds do not count all of {' and '.join(later)}, and only files that were trained under it may have it"
        return Finding(FAILED, f"format {rule}: {words}; enter the file again")
    expected = about.model_copy(
        update={
            "sha256": entry.hash_by(rule),
            "seeds": entry.seeds(track, about.nonce, rule),
            "label": entry.label,
            "record_sha256": sources[RECORD].hash_by(rule) if RECORD in sources else None,
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
    rule = folder.about.format
    if stated == (record.hash_by(rule) if record else None):
        return Finding(OK, f"the record is {name}, as when it was entered")
    own = record is not None and record.hash_by(rule) == folder.about.sha256
    return (
        Finding(OK, "it is the record itself")
        if own
        else Finding(OPEN, f"the record here, {name}, with which it was not compared")
    )


def _of_code(
    folder: Folder, track: LoadedTrack, sources: dict[str, Entry], full: bool, cores: int
) -> Iterator[Finding]:
    """Run the entry: its contract, its operations, and the first steps of a training, or all trainings."""
    from indm.bench.entries.training import costs

    models = folder.about.models
    found = costs(track, _competitors(folder, track, sources), cores)
    yield Finding(OK, "the contract holds")
    for name, cost in found.items():
        if cost != (stated := (models[name].build_flops, models[name].step_flops)):
            yield Finding(
                FAILED, f"{name}: found {tuple(cost)} operations to build it and for a step, stated are {stated}"
            )
            return
    yield Finding(OK, f"operations of a step of {len(models)} models")
    yield from _all_again(folder, track, sources, cores) if full else _first_again(folder, track, sources)


def _competitors(folder: Folder, track: LoadedTrack, sources: dict[str, Entry]) -> "list[Competitor]":
    from indm.bench.entries.training import Competitor

    found = []
    for model, stated in folder.about.models.items():
        source = sources.get(model)
        found.append(Competitor(model, stated.label, source, _rates(track, source)))
    return found


def _first_again(folder: Folder, track: LoadedTrack, sources: dict[str, Entry]) -> Iterator[Finding]:
    """Train the first steps of one training again, which no author can know beforehand."""
    from indm.bench.entries.tasks import tasks_of
    from indm.bench.entries.training import Job, run_alone

    chance = random.SystemRandom()
    one = chance.choice(_competitors(folder, track, sources))
    number, seed = chance.randrange(len(tasks_of(track))), chance.choice(folder.about.seeds)
    task, steps = tasks_of(track)[number].name, folder.about.models[one.name].steps
    again = run_alone(Job(track.file, one, number, task, seed, steps, min(COMPARED, steps))).losses
    stated = folder.losses[folder.losses["task"] == task][column(one.name, seed)].dropna().head(COMPARED)
    words = f"the first {len(again)} losses of {one.name} on {task}, seed {seed}"
    if len(stated) != len(again):
        yield Finding(FAILED, f"{words}: {LOSSES} has {len(stated)}")
        return
    off = float(np.abs(np.asarray(stated, dtype=float) - again).max())
    outcome = OK if off <= ROUNDING else FAILED
    yield Finding(outcome, f"{words} differ by at most {off:.2g} nats per dimension, allowed are {ROUNDING:g}")


def _all_again(folder: Folder, track: LoadedTrack, sources: dict[str, Entry], cores: int) -> Iterator[Finding]:
    """Train everything again, and compare the numbers and the verdicts."""
    from indm.bench.entries.enter import compare, unfinished

    compared = sources[ENTRY], track, sources.get(RECORD), folder.about.nonce
    rule = folder.about.format
    with open_scratch(unfinished(*compared, rule)) as scratch:
        again = compare(*compared, cores, scratch, rule)
    stated, found = folder.verdicts(), again.verdicts()
    same = list(stated["verdict"]) == list(found["verdict"])
    words = f"verdicts {', '.join(found['verdict'])}, stated are {', '.join(stated['verdict'])}"
    yield Finding(OK if same else FAILED, f"trained again: {words}")
    yield bounds_again(folder, again)


def bounds_again(folder: Folder, again: Folder) -> Finding:
    """Compare the bounds of a folder with those of the same trainings, made again.

    The same code with the same torch on the same machine gives the same table. Otherwise chance has to explain the distances, as
    ``indm compare`` asks of a suite's numbers.
    """
    if (off := _largest_mean_difference(again.numbers, folder.numbers)) == 0:
        return Finding(OK, f"all bounds in {NUMBERS} are the same")
    words = f"bounds of a training differ by up to {off:.2g} bits/dim on average"
    if not np.isfinite(off):
        return Finding(FAILED, f"{words}, expected the same items and finite bounds")
    if _made_by(folder) == _made_by(again) and folder.about.made.code:
        return Finding(FAILED, f"{words}, expected the same, because code, torch and machine are the same")
    pairs = _pairs(folder, again)
    pairs = pairs.join(distances(pairs))
    far, number = pairs[pairs["why"].isin([BEYOND, OTHER, MISSING])], len(pairs)
    counted = counts(pairs.assign(table=NUMBERS), [NUMBERS])
    if len(far) or counted["too_many"].any():
        beyond = (
            f"{len(far)} of {number} means of trainings, models and differences lie farther apart than chance explains"
        )
        first = f", such as {far['row'].iloc[0]}" if len(far) else ""
        return Finding(FAILED, f"{words}: {beyond}{first}")
    return Finding(OK, f"{words}, as chance explains by the spread between seeds")


def _made_by(folder: Folder) -> tuple[str | None, str, str]:
    made = folder.about.made
    return made.code, made.torch, made.machine


def _pairs(stated: Folder, again: Folder) -> pd.DataFrame:
    """List the means of both folders with their errors and degrees of freedom, a row for each; see :func:`distances`."""
    columns = ["value", "error", "freedom"]
    both = [pd.DataFrame(_means(folder), columns=["model", "row", *columns]) for folder in (stated, again)]
    pairs = both[0].merge(both[1], on=["model", "row"], how="outer", suffixes=("_published", "_here"))
    return pairs.assign(published=pairs["value_published"], here=pairs["value_here"])


def _means(folder: Folder) -> Iterator[tuple[str, str, float, float, int]]:
    """Yield the mean bounds of trainings and models, and of differences from the entry, with their errors over seeds."""
    seeds = folder.about.seeds
    of_tasks = {model: _of_tasks(folder, model) for model in folder.about.models}
    tables = of_tasks | {f"entry and {model}": of_tasks[ENTRY] - of_tasks[model] for model in folder.others}
    freedom = len(seeds) - 1
    for model, table in tables.items():
        for task, row in table.iterrows():
            values = row.to_numpy(dtype=float)
            for seed, value in zip(seeds, values, strict=True):
                yield model, f"{model}, {task}, seed {seed}", float(value), float(values.std(ddof=1)), freedom
        of_seeds = table.to_numpy(dtype=float).mean(0)
        error = float(of_seeds.std(ddof=1) / len(of_seeds) ** 0.5)
        yield model, f"{model}, all tasks and seeds", float(of_seeds.mean()), error, freedom


def _of_tasks(folder: Folder, model: str) -> pd.DataFrame:
    """Return the mean bound of each task, in rows, and seed of a model, in bits/dim."""
    table = folder.numbers.groupby("task", sort=False)[[column(model, seed) for seed in folder.about.seeds]].mean()
    return table.set_axis(folder.about.seeds, axis="columns")


def _largest_mean_difference(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """Return the largest mean absolute difference of a training's bounds, in bits/dim; infinity for tables of other items."""
    keys = ["task", "item"]
    if list(one) != list(other) or not one[keys].equals(other[keys]):
        return float("inf")
    return float((one.drop(columns=keys) - other.drop(columns=keys)).abs().mean().max())
