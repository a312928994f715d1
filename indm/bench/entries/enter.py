"""``indm enter``: train an entry, DDPM++ and the record of a track with equal operations, and write the entry's folder."""

import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from indm.bench.entries.entry import Entry, Rates, check_contract, read_entry
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
    Folder,
    json_text,
    rounded,
    steps_for,
    table_text,
)
from indm.bench.entries.records import RECORDS, current_record
from indm.bench.entries.tasks import tasks_of
from indm.bench.entries.tracks import LoadedTrack
from indm.bench.entries.training import Competitor, Job, Trained, cost, run_jobs
from indm.errors import ArtifactError, ParamsError
from indm.report.entries import DDPMPP, ENTRY, RECORD, chosen_decoders, column
from indm.store.provenance import provenance


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
    folder = compare(entry, track, record if record and record.sha256 != entry.sha256 else None, nonce, cores)
    return _write(folder, target, entry, record)


def compare(entry: Entry, track: LoadedTrack, record: Entry | None, nonce: str, cores: int) -> Folder:
    """Train all models, and return what was found as a folder that is not written yet; see :func:`enter`."""
    start = time.perf_counter()
    models = _models(entry, track, record)
    tasks = tasks_of(track)
    for one in models:
        if one.path is not None:
            check_contract(one.path, tasks[0].shape)
    costs = {one.name: cost(track, one) for one in models}
    budget = track.params.steps * costs[DDPMPP][1]
    seeds, steps = entry.seeds(track, nonce), {name: steps_for(budget, *found) for name, found in costs.items()}
    jobs = [
        Job(track.file, one, number, seed, steps[one.name], steps[one.name])
        for seed in seeds
        for number in range(len(tasks))
        for one in models
    ]
    trained = run_jobs(jobs, cores)
    runs = rounded(_runs(trained, [task.name for task in tasks]))
    decoders = chosen_decoders(runs)
    labels = {ENTRY: entry.label, DDPMPP: "DDPM++"} | ({RECORD: record.label} if record else {})
    facts = {
        one.name: {"label": labels[one.name], **one.rates.model_dump()}
        | {"build_flops": costs[one.name][0], "step_flops": costs[one.name][1], "steps": steps[one.name]}
        | {"step_seconds": round(_seconds(trained, one.name), 6), "decoder": decoders[one.name]}
        for one in models
    }
    about: dict[str, Any] = {"format": FORMAT, "label": entry.label, "sha256": entry.sha256}
    about |= {"track": track.name, "version": track.content.version, "track_sha256": track.sha256}
    about |= {
        "nonce": nonce,
        "seeds": seeds,
        "smallest": track.content.smallest,
        "images": track.content.densities is None,
    }
    about |= {"budget": budget, "models": facts, "record_sha256": record.sha256 if record else None}
    about |= {"provenance": provenance(time.perf_counter() - start, 1) | {"cores": cores}}
    names = [task.name for task in tasks]
    return Folder(Path(), about, runs, rounded(_numbers(trained, names, decoders)), rounded(_losses(trained, names)))


def _models(entry: Entry, track: LoadedTrack, record: Entry | None) -> list[Competitor]:
    params = track.params
    plain = Competitor(DDPMPP, None, Rates(lr=params.lr, flow_lr=params.flow_lr))
    found = [Competitor(ENTRY, entry.path, entry.rates_on(track)), plain]
    return found + ([Competitor(RECORD, record.path, record.rates_on(track))] if record else [])


def _seconds(trained: list[Trained], model: str) -> float:
    found = [each.seconds for each in trained if each.job.one.name == model]
    return sum(found) / len(found)


def _runs(trained: list[Trained], tasks: list[str]) -> pd.DataFrame:
    """Average the bounds of each training on validation data."""
    rows = []
    for each in trained:
        assert each.table is not None
        means = each.table[each.table["split"] == "valid"][["nelbo", "nelbo_fixed"]].mean()
        rows.append({"model": each.job.one.name, "task": tasks[each.job.task], "seed": each.job.seed} | means.to_dict())
    return pd.DataFrame(rows)


def _numbers(trained: list[Trained], tasks: list[str], decoders: dict[str, str]) -> pd.DataFrame:
    """Collect the bounds on test data by each model's decoder, a column for each training."""
    found = []
    for each in trained:
        assert each.table is not None
        test = each.table[each.table["split"] == "test"].assign(task=tasks[each.job.task])
        found.append(test.set_index(["task", "item"])[decoders[each.job.one.name]].rename(_column(each)))
    return _beside(found)


def _losses(trained: list[Trained], tasks: list[str]) -> pd.DataFrame:
    """Collect the losses of the first steps, a column for each training; a shorter one has none at the end."""
    found = []
    for each in trained:
        keys = {"task": tasks[each.job.task], "step": range(len(each.losses))}
        found.append(pd.DataFrame(keys | {_column(each): each.losses}).set_index(["task", "step"])[_column(each)])
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
    texts = {ABOUT: json_text(folder.about), VERDICTS: table_text(folder.verdicts()), PAGE: folder.page()}
    texts |= {RUNS: table_text(folder.runs), NUMBERS: table_text(folder.numbers), LOSSES: table_text(folder.losses)}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as made:
            temporary = Path(made, target.name)
            temporary.mkdir()
            for name, text in texts.items():
                (temporary / name).write_text(text, encoding="utf-8")
            (temporary / SOURCE).write_bytes(entry.source)
            if RECORD in folder.about["models"] and record is not None:
                (temporary / RECORD_SOURCE).write_bytes(record.source)
            shutil.move(temporary, target)
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written: {error.strerror}; name another --out") from None
    return Folder(target, folder.about, folder.runs, folder.numbers, folder.losses)
