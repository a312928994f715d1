"""The stamp of each job: a hash of the code behind it, which both engines and unfinished work track instead of a list of files.

A job begins with the module of its stage, with :mod:`indm.process`, and with the registered dataset, model family, diffusion,
network, flow and samplers that it uses; its stamp covers all modules that these import (:mod:`indm.bench.pipeline.code`). A new
member of a registry, a renamed module or an edited message does not run jobs again, but an edited formula runs all jobs again that
use its module. Values that a suite derives from its keys, and file formats, count by value.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from indm.bench.pipeline.code import Sources, sources
from indm.bench.pipeline.jobs import jobs_of
from indm.bench.pipeline.stages import STAGES, gathering, run_of
from indm.fields import PC, PREDICTOR
from indm.registry import DATASETS, DIFFUSIONS, FAMILIES, FLOWS, NETWORKS, SAMPLERS
from indm.store import files, manifest

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

# The hash of a module that does not exist.
NONE = "none"
# Digits of a module's short hash. It explains a change; only the stamp decides whether there is one.
SHORT = 10
# The stages that draw images by the sampler of a run; the samplers of ``sweep`` are in the suite.
DRAWS = ("sample", "protocol", "tune")
# A file in another format cannot be read, and its job has to run again.
FORMATS = [value for module in (files, manifest) for name, value in vars(module).items() if name.endswith("FORMAT")]


def job_stamp(suite: "Suite", stage: str, subject: str = "", code: Sources | None = None) -> str:
    """Hash the code of a job of a stage, or of ``import_checkpoint``; the sources are by default the sources of this package."""
    code, names = code or sources(), _beginnings(suite, stage, subject)
    known = (code.stamp(*names), FORMATS, _derived(suite, stage, subject))
    return hashlib.sha256(repr(known).encode()).hexdigest()


def job_modules(suite: "Suite", stage: str, subject: str = "") -> dict[str, str]:
    """Return a short hash of each module behind a job, by its name; see :func:`job_stamp`."""
    found = sources().modules(*_beginnings(suite, stage, subject))
    return {name: sha256[:SHORT] for name, sha256 in found.items()}


class Difference(NamedTuple):
    """A module, or a file of data, that has changed since a result was made: its hash then and now, or ``none``."""

    name: str
    then: str
    now: str

    @property
    def what(self) -> str:
        """The kind of change."""
        return "new" if self.then == NONE else "gone" if self.now == NONE else "changed"

    @property
    def where(self) -> str:
        """Its file; the other values of a stamp (:func:`changes`) do not have one."""
        if self.name.startswith("stamp/"):
            return "derived values, formats or imports"
        return self.name if "/" in self.name else f"{self.name.replace('.', '/')}.py"


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Difference]:
    """Yield the modules that differ between two results of :func:`job_modules`, without those that were only renamed."""
    gone = {then[name] for name in then.keys() - now.keys()}
    new = {now[name] for name in now.keys() - then.keys()}
    for name in sorted({**then, **now}):
        found = Difference(name, then.get(name, NONE), now.get(name, NONE))
        is_renamed = NONE in found and not {found.then, found.now}.isdisjoint(gone & new)
        if found.then != found.now and not is_renamed:
            yield found


def changes(suite: "Suite", stage: str, subject: str, stamp: str, modules: Mapping[str, str]) -> list[Difference]:
    """List how the code that did a job, by its stamp and its modules, differs from the present code; empty for the same stamp."""
    now = job_stamp(suite, stage, subject)
    if stamp == now:
        return []
    # If no module has changed, a value has, or an import leads to another module than before.
    found = list(differences(modules, job_modules(suite, stage, subject)))
    return found or [Difference(f"stamp/{stage}", stamp[:SHORT], now[:SHORT])]


def _beginnings(suite: "Suite", stage: str, subject: str) -> list[str]:
    """Name the modules with which a job begins."""
    return [f"indm.bench.stages.{gathering(stage)}", "indm.process", *members(suite, stage, subject)]


def members(suite: "Suite", stage: str, subject: str) -> list[str]:
    """Name the modules of the registered members that a job uses."""
    if stage == "prepare":
        return [DATASETS.module(subject)]
    if stage == "toy2d":
        return [DIFFUSIONS.module("vp")]
    if not _builds(stage):
        return []
    name = _run(suite, stage, subject)
    sampler = {suite.sample_params(name).sampler} if gathering(stage) in DRAWS else set()
    samplers = _swept(suite) if gathering(stage) == "sweep" else sampler
    return [
        FAMILIES.module(suite.runs[name].model),
        DIFFUSIONS.module(suite.runs[name].sde),
        NETWORKS.module(suite.train_params(name).score.name),
        *map(FLOWS.module, suite.flows_of(name)),
        *map(SAMPLERS.module, sorted(samplers)),
    ]


def _swept(suite: "Suite") -> set[str]:
    return {PREDICTOR if name == PC else name for name in suite.sweep.samplers}


def _derived(suite: "Suite", stage: str, subject: str) -> list[Any]:
    """List the values that a suite derives for a job and that are not among the keys that the job reads."""
    if not _builds(stage):
        return []
    name = _run(suite, stage, subject)
    run, sample = suite.runs[name], suite.sample_params(name)
    found: list[Any] = [run.has_flow, run.has_forward, run.no_ode]
    if gathering(stage) in DRAWS:
        found += [sample.is_adaptive, sample.is_corrected]
    if stage in STAGES and "weights" in STAGES[stage].keys:
        found += sorted(suite.weights_of(name).items())
    return found


def _builds(stage: str) -> bool:
    return stage == "import_checkpoint" or STAGES[stage].builds


def _run(suite: "Suite", stage: str, subject: str) -> str:
    """Name the run whose model a job builds."""
    if stage == "protocol":
        return suite.protocol[subject].run
    return run_of(subject)[0] if gathering(stage) != stage else subject


def suite_stamps(suite: "Suite") -> Iterator[tuple[str, str]]:
    """Yield the path of each job of a suite, ``stage`` or ``stage/subject``, with its stamp."""
    for job in jobs_of(suite):
        yield job.path, job_stamp(suite, *job)
