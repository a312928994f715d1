"""Stage ``tune``: the search for a run's hyper-parameters, on the validation split.

It has three phases, which all train from scratch: ``short``, the trials; ``confirm``, some of the trials trained for longer;
and ``length``, the best hyper-parameters trained for several numbers of steps.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from indm.arrays import read_array
from indm.bench.tuning.study import Row, Study
from indm.bench.tuning.trial import MEASURED, Arm, over_seeds
from indm.diffusion.evaluation import first_images
from indm.errors import DataError
from indm.process import set_up, sigterm_noted
from indm.progress import bar
from indm.report.trials import best, spread
from indm.store.files import read_json, write_json, write_table
from indm.store.layout import Layout
from indm.store.provenance import Finished
from indm.store.scratch import Scratch, Work, open_scratch

if TYPE_CHECKING:
    from indm.bench.suite.schema.studies import TuneParams
    from indm.bench.suite.schema.suite import Suite

TARGETS = {"nll": "validation NELBO, bits/dim", "fid": "FID against the validation images"}


def run(suite: "Suite", layout: Layout, name: str, *, work: Work) -> Finished:
    """Write ``tune.csv``, a row for each trial and phase, and ``tune.json``, the best hyper-parameters.

    Raises:
        DataError: if the dataset lacks validation images, on which hyper-parameters are chosen.
    """
    arms, objective = _arms(suite, layout, name, set_up(suite.device, suite.threads)), suite.runs[name].objective
    # Kept after a successful search, so that a longer search continues from it and the same search does not train again.
    with open_scratch(work, keep=True) as scratch, sigterm_noted() as stop:
        parameters = suite.tune[name]
        study = _study(suite, name, scratch.folder / "study.journal", work.key)
        earlier = sum(row["seconds"] for row in study.rows.values())

        def trial(phase: str, steps: int, number: int) -> Row:
            """Train the hyper-parameters of trial ``number`` from scratch for ``steps`` steps, and measure the model.

            A training that the study already has is not repeated, so that phases share it.

            Arguments:
                phase: ``short``, ``confirm`` or ``length``.
                steps: number of training steps.
                number: number of the trial, which determines its hyper-parameters.

            Returns:
                The study's row with ``phase`` and ``parameters``: trial, steps, reason (empty unless the trial failed), and the
                numbers in :data:`indm.bench.tuning.trial.MEASURED`, among them the target that the search minimises: the mean NELBO
                of the validation images, shape (N, C, H, W), in bits/dim for the ``nll`` objective, FID for the ``fid`` objective.

            Raises:
                StoppedError: if the process is asked to stop; the training continues from its saved state.
            """
            nonlocal earlier
            trainings = [Scratch(scratch.folder / f"{number}-{steps}-{arm.seed[1]}", work.key) for arm in arms]
            progress = bar(f"{name} trial {number}, {steps} steps")

            def make() -> Row:
                found = study.parameters(number)
                pairs = zip(arms, trainings, strict=True)
                return over_seeds([arm.run(found, steps, training, stop, progress) for arm, training in pairs])

            row = study.once(number, steps, make)
            for training in trainings:
                earlier += training.earlier
                shutil.rmtree(training.folder, ignore_errors=True)
            return row | {"phase": phase, "parameters": study.parameters(number)}

        rows, winner = _phases(parameters, trial, objective)
        _write(layout, arms[0], study, rows, winner)
    return Finished(layout.run(name), earlier)


def _study(suite: "Suite", name: str, path: Path, key: str) -> Study:
    """Open the study of a run."""
    parameters = suite.tune[name]
    space = {key: (found.low, found.high, found.log) for key, found in parameters.space.items()}
    return Study(path, key, space, (suite.runs[name].dataset, parameters.seeds[0], "tune"))


def _phases(
    parameters: "TuneParams", trial: Callable[[str, int, int], Row], objective: str
) -> tuple[list[Row], Mapping[str, Any] | None]:
    """Make the trials, and the longer trainings, and return all rows, and the best trial."""
    rows = [trial("short", parameters.steps, number) for number in range(parameters.trials)]
    if confirm := parameters.confirm:
        chosen = spread(_complete(rows), confirm.trials, objective)
        rows += [trial("confirm", confirm.steps, row["trial"]) for row in chosen]
    if winner := best(_complete(rows), objective):
        rows += [trial("length", steps, winner["trial"]) for steps in parameters.lengths]
    return rows, winner


def _arms(suite: "Suite", layout: Layout, name: str, device: torch.device) -> list[Arm]:
    """Prepare the searched model, once for each seed."""
    data = layout.data(suite.runs[name].dataset)
    description = read_json(data / "dataset.json")
    if not description["counts"]["valid"]:
        raise DataError(
            f"{data}/valid.npy: found no images, expected some, because hyper-parameters are not chosen on test images; "
            "choose a dataset with a validation split"
        )
    train, valid = (torch.from_numpy(read_array(data / f"{split}.npy")) for split in ("train", "valid"))
    valid = first_images(valid, suite.curve.images, "curve.images")
    seeds = [(suite.runs[name].dataset, seed) for seed in suite.tune[name].seeds]
    return [Arm(suite, name, seed, data, description, train, valid, device) for seed in seeds]


def _complete(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not row["reason"]]


def _write(layout: Layout, arm: Arm, study: Study, rows: list[Row], winner: Mapping[str, Any] | None) -> None:
    """Write the trials with their cumulative operations, and the best trial."""
    spent, counted, table = 0, set(), []
    for row in rows:
        # A training that two phases share counts once.
        if (training := (row["trial"], row["steps"])) not in counted:
            counted.add(training)
            spent += row["flops"]
        state = "failed" if row["reason"] else "complete"
        table.append(row | row["parameters"] | {"state": state, "flops": float(spent)})
    columns = ["trial", "phase", "steps", *study.space, "state", "reason", *MEASURED, "flops"]
    folder = layout.run(arm.name)
    write_table(folder / "tune.csv", pd.DataFrame(table, columns=columns))
    found: dict[str, Any] = {"run": arm.name, "target": TARGETS[arm.suite.runs[arm.name].objective]}
    failed = counted - {(row["trial"], row["steps"]) for row in _complete(rows)}
    found |= {"trainings": len(counted), "failed": len(failed), "flops": spent, "best": None}
    if winner is not None:
        found["best"] = {key: winner[key] for key in ("trial", "steps", "target", "target_se", "parameters")}
    write_json(folder / "tune.json", found)
