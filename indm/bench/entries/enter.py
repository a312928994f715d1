"""``indm enter``: train an entry, DDPM++ and the record of a track with equal operations, and write the entry's folder."""

import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from indm.bench.entries.entry import Entry, Rates, read_entry
from indm.bench.entries.folder import (
    ABOUT,
    FORMAT,
    LOSSES,
    NONCE,
    NUMBERS,
    PAGE,
    RECORD_SOURCE,
    RUNS,
    SOURCE,
    VERDICTS,
    About,
    Folder,
    Made,
    Model,
    rounded,
    steps_for,
    table_text,
)
from indm.bench.entries.records import RECORDS, current_record
from indm.bench.entries.tasks import Task, tasks_of
from indm.bench.entries.tracks import LoadedTrack
from indm.bench.entries.training import Competitor, Cost, Job, Trained, costs, run_jobs
from indm.bench.pipeline.code import sources
from indm.bench.pipeline.stamps import job_stamp
from indm.errors import ArtifactError, ParamsError
from indm.report.entries import DDPMPP, ENTRY, RECORD, chosen_decoders, column
from indm.store.provenance import COMPUTING, provenance, restrictions, version
from indm.store.scratch import Scratch, Work, open_scratch

# Where finished trainings wait for the others, so that a killed command continues.
WORK = Path("entries/.unfinished")


def enter(
    path: Path, track: LoadedTrack, out: Path, nonce: str = "", cores: int = 1, records: Path = RECORDS
) -> Folder:
    """Judge an entry on a track.

    Arguments:
        path: the entry's file.
        track: the track.
        out: where its folder, ``<track>/<label>``, is written.
        nonce: what a maintainer adds to the seeds, published after the file.
        cores: trainings at a time.
        records: the folder of the records.

    Returns:
        The folder that was written.

    Raises:
        ArtifactError: if the file is no entry, breaks the contract, or raises an exception, or its folder is there already.
        ParamsError: if the nonce has other characters than a name.
        DivergenceError: if a training diverges. Nothing is written then.
    """
    if not re.fullmatch(NONCE, nonce):
        raise ParamsError(
            f"--nonce: found {nonce!r}, expected at most 80 letters, digits, dots, underscores and hyphens"
        )
    entry = read_entry(path)
    target = out / track.name / entry.label
    if target.exists():
        raise ArtifactError(f"{target}: found a folder, expected none; remove it, name another --out, or change LABEL")
    record = current_record(track, records)
    if record is not None and record.sha256 == entry.sha256:
        record = None
    with open_scratch(unfinished(entry, track, record, nonce)) as scratch:
        folder = compare(entry, track, record, nonce, cores, scratch)
        return _write(folder, target, entry, record)


def unfinished(entry: Entry, track: LoadedTrack, record: Entry | None, nonce: str, rule: str = FORMAT) -> Work:
    """Return where the finished trainings of a comparison wait, by everything on which they depend."""
    code = code_of(track)
    files = [each.sha256 if each else None for each in (entry, record)]
    known = [rule, track.sha256, files, nonce, code, [version(package) for package in COMPUTING], restrictions()]
    key = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    return Work(WORK / key[:16], key, code)


def code_of(track: LoadedTrack) -> str:
    """Hash the code of a comparison: a suite's jobs on the track's run, and all code that counts.

    An entry can find any module, also by its name in a registry.
    """
    run = track.content.run
    of_run = {"prepare": track.suite.runs[run].dataset, "train": run, "nll": run}
    jobs = [job_stamp(track.suite, stage, subject) for stage, subject in of_run.items()]
    own = sources().stamp(*sources().counted())
    return hashlib.sha256(json.dumps([own, jobs]).encode()).hexdigest()


def compare(
    entry: Entry,
    track: LoadedTrack,
    record: Entry | None,
    nonce: str,
    cores: int,
    scratch: Scratch,
    rule: str = FORMAT,
) -> Folder:
    """Train all models, and return what was found as a folder that is not written yet; see :func:`enter`.

    Seeds follow from the file by a ``rule``, which is the format of a folder that is verified.
    """
    start = time.perf_counter()
    models, tasks = _models(entry, track, record), tasks_of(track)
    found = costs(track, models, cores)
    budget = track.params.steps * found[DDPMPP].step
    steps = {name: steps_for(budget, cost.build, cost.step) for name, cost in found.items()}
    seeds = entry.seeds(track, nonce, rule)
    trained = run_jobs(_jobs(models, tasks, track, seeds, steps), cores, scratch)
    runs = rounded(_runs(trained))
    decoders = chosen_decoders(runs)
    about = About(
        format=rule,  # type: ignore[arg-type]
        label=entry.label,
        sha256=entry.hash_by(rule),
        track=track.name,
        version=track.content.version,
        track_sha256=track.sha256,
        record_sha256=record.hash_by(rule) if record else None,
        nonce=nonce,
        seeds=seeds,
        smallest=track.content.smallest,
        images=track.content.densities is None,
        budget=budget,
        models={one.name: _stated(one, found[one.name], steps[one.name], decoders, trained) for one in models},
        made=_made(time.perf_counter() - start + scratch.earlier, cores, code_of(track)),
    )
    return Folder(Path(), about, runs, rounded(_numbers(trained, decoders)), rounded(_losses(trained)))


def _models(entry: Entry, track: LoadedTrack, record: Entry | None) -> list[Competitor]:
    """List the models of a comparison: the entry, DDPM++, and the record if there is one."""
    plain = Rates(lr=track.params.lr, flow_lr=track.params.flow_lr)
    found = [
        Competitor(ENTRY, entry.label, entry, entry.rates_on(track)),
        Competitor(DDPMPP, "DDPM++", None, plain),
    ]
    if record is not None:
        found.append(Competitor(RECORD, record.label, record, record.rates_on(track)))
    return found


def _jobs(
    models: list[Competitor], tasks: list[Task], track: LoadedTrack, seeds: list[int], steps: Mapping[str, int]
) -> list[Job]:
    """List the trainings, all models of a seed and task one after another."""
    return [
        Job(track.file, one, number, task.name, seed, steps[one.name], steps[one.name])
        for seed in seeds
        for number, task in enumerate(tasks)
        for one in models
    ]


def _stated(one: Competitor, found: Cost, steps: int, decoders: Mapping[str, str], trained: list[Trained]) -> Model:
    """Collect what the folder states of a model."""
    seconds = [each.seconds for each in trained if each.job.one.name == one.name]
    return Model(
        label=one.label,
        lr=one.rates.lr,
        flow_lr=one.rates.flow_lr,
        build_flops=found.build,
        step_flops=found.step,
        steps=steps,
        step_seconds=round(sum(seconds) / len(seconds), 6),
        decoder=decoders[one.name],
    )


def _made(seconds: float, cores: int, code: str) -> Made:
    """State where and how fast a folder was made."""
    found = provenance(seconds, 1)
    return Made(
        commit=found["commit"],
        machine=found["machine"],
        torch=found["versions"]["torch"],
        cores=cores,
        seconds=found["seconds"],
        code=code,
    )


def _runs(trained: list[Trained]) -> pd.DataFrame:
    """Average the bounds of each training on validation data."""
    rows = []
    for each in trained:
        means = each.of("valid")[["nelbo", "nelbo_fixed"]].mean()
        rows.append({"model": each.job.one.name, "task": each.job.task_name, "seed": each.job.seed} | means.to_dict())
    return pd.DataFrame(rows)


def _numbers(trained: list[Trained], decoders: Mapping[str, str]) -> pd.DataFrame:
    """Collect the bounds on test data by each model's decoder, a column for each training."""
    found = []
    for each in trained:
        test = each.of("test").assign(task=each.job.task_name)
        found.append(test.set_index(["task", "item"])[decoders[each.job.one.name]].rename(_column(each)))
    return _beside(found)


def _losses(trained: list[Trained]) -> pd.DataFrame:
    """Collect the losses of the first steps, a column for each training; a shorter one has none at the end."""
    found = []
    for each in trained:
        table = pd.DataFrame({"task": each.job.task_name, "step": range(len(each.losses)), "loss": each.losses})
        found.append(table.set_index(["task", "step"])["loss"].rename(_column(each)))
    return _beside(found)


def _column(each: Trained) -> str:
    return column(each.job.one.name, each.job.seed)


def _beside(found: list["pd.Series[float]"]) -> pd.DataFrame:
    """Put columns side by side, those of one name and several tasks below each other."""
    columns: dict[str, list[pd.Series[float]]] = {}
    for each in found:
        columns.setdefault(str(each.name), []).append(each)
    names = sorted(columns, key=lambda name: [ENTRY, DDPMPP, RECORD].index(name.rpartition("-s")[0]))
    return pd.concat([pd.concat(columns[name]) for name in names], axis=1).reset_index()


def _write(folder: Folder, target: Path, entry: Entry, record: Entry | None) -> Folder:
    """Write the folder as a whole."""
    texts = {
        ABOUT: folder.about.model_dump_json(indent=2) + "\n",
        VERDICTS: table_text(folder.verdicts()),
        PAGE: folder.page(),
        RUNS: table_text(folder.runs),
        NUMBERS: table_text(folder.numbers),
        LOSSES: table_text(folder.losses),
    }
    files = {name: text.encode() for name, text in texts.items()} | {SOURCE: entry.source}
    if record is not None:
        files[RECORD_SOURCE] = record.source
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as made:
            temporary = Path(made, target.name)
            temporary.mkdir()
            for name, content in files.items():
                (temporary / name).write_bytes(content)
            shutil.move(temporary, target)
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written: {error.strerror}; name another --out") from None
    return Folder(target, folder.about, folder.runs, folder.numbers, folder.losses)
