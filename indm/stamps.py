"""The code behind each job of a suite, as a stamp: both engines and unfinished work depend on it, and on no list of files.

A job's stamp is that of its stage's module and of the registered datasets, diffusions, networks and flows that it uses. So a new
member of a registry, an edited docstring or comment runs nothing again, and an edited formula what it feeds.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from indm.errors import ParamsError
from indm.pipeline import STAGES, gathering, run_of
from indm.registry import DATASETS, DIFFUSIONS, FLOWS, NETWORKS
from indm.store.code import stamp

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

STARTED = "INDM_STAMPS"


def job_stamp(suite: "Suite", stage: str, subject: str = "") -> str:
    """Hash the code of a job.

    Arguments:
        suite: the suite.
        stage: a stage of :data:`indm.pipeline.STAGES`, or ``import_checkpoint``.
        subject: the job's dataset, run, shard or two-dimensional dataset, if it has one.
    """
    # A manifest of another format is not read, so everything is made again.
    return stamp(f"indm.stages.{gathering(stage)}", "indm.store.manifest", *members(suite, stage, subject))


def members(suite: "Suite", stage: str, subject: str) -> list[str]:
    """Name the modules of registered members that a job uses."""
    if stage == "prepare":
        return [DATASETS.module(subject)]
    if stage == "toy2d":
        return [DIFFUSIONS.module("vp")]
    if stage == "import_checkpoint" or STAGES[stage].builds:
        return _of_model(suite, _run(suite, stage, subject))
    return []


def _run(suite: "Suite", stage: str, subject: str) -> str:
    """Name the run whose model a job builds."""
    if stage == "protocol":
        return suite.protocol[subject].run
    return run_of(subject)[0] if gathering(stage) != stage else subject


def _of_model(suite: "Suite", name: str) -> list[str]:
    run = suite.runs[name]
    network = suite.train_params(name).score.name
    return [DIFFUSIONS.module(run.sde), NETWORKS.module(network), FLOWS.module(suite.flow_of(name))]


def suite_stamps(suite: "Suite") -> Iterator[tuple[str, str]]:
    """Yield the place of each job of a suite, ``stage`` or ``stage/subject``, with its stamp."""
    for name, stage in STAGES.items():
        for subject in stage.subjects(suite):
            yield "/".join(filter(None, (name, subject))), job_stamp(suite, name, subject)


def remember_start(suite: "Suite") -> None:
    """Pass a suite and the stamps of its jobs on to the processes that this one starts; see :func:`check_started`."""
    # Imported here: stages, which import this module, have nothing to do with it.
    from indm.suite.content import suite_sha256

    os.environ[STARTED] = " ".join([suite_sha256(suite), *sorted({stamp for _, stamp in suite_stamps(suite)})])


def check_started(suite: "Suite", stamp: str) -> None:
    """Stop a job whose suite or code was edited after Snakemake had started: Snakemake would record the earlier ones.

    Raises:
        ParamsError: if Snakemake knew of another suite, or of no job with this stamp.
    """
    from indm.suite.content import suite_sha256

    known = os.environ.get(STARTED, "").split()
    if not known:
        return
    for what, value in ((f"suite {suite.suite}", suite_sha256(suite)), ("indm/", stamp)):
        if value not in known:
            raise ParamsError(f"{what} was edited after Snakemake had started; run it again")
