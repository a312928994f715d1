"""The stamp of each job: a hash of the code behind it, which both engines and unfinished work track instead of a list of files.

A job begins with the ``run`` of its stage and with the registered dataset, model family, diffusion, network, flow and samplers that
it uses; its stamp covers all definitions to which these refer (:mod:`indm.pipeline.code`). A new member of a registry, a moved
module or an edited message does not run jobs again, but an edited formula runs all jobs again that use it.

Code outside of ``run`` follows other rules. Precision and determinism are set by :func:`indm.process.set_up`, which stages call
themselves. Functions that have to run before torch is imported (``limit_threads``, ``unset_fpmath``) count for every job. The other
functions that the command line calls, for garbage and to find the process that writes, do not affect results. Values that a suite
derives from its keys count as values: the flow of a run by the name of its member, its weights by name.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from indm.pipeline.code import Sources, sources
from indm.pipeline.references import Place
from indm.pipeline.stages import STAGES, gathering, run_of
from indm.registry import DATASETS, DIFFUSIONS, FAMILIES, FLOWS, NETWORKS, SAMPLERS
from indm.suite.accepted import NONE
from indm.suite.schema.types import DDIM, PC, PREDICTOR

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

# The names in a sampler's module that a stage uses.
USED = {
    "sample": ("SAMPLER", "CALLS", "CORRECTOR"),
    **dict.fromkeys(["sweep", "protocol", "tune"], ("SAMPLER",)),
    "table": ("CORRECTOR", "SOUND"),
    "claims": ("CORRECTOR",),
    **dict.fromkeys(["figure", "report"], ("LABEL",)),
}
# The name in a family's module that a stage uses if it reads all results.
SHOWN = {"table": ("REFERENCE",), **dict.fromkeys(["figure", "report"], ("LABEL", "REFERENCE", "STYLE"))}
# Digits of a definition's short hash. It explains a change; only the stamp decides whether there is one.
SHORT = 10


def job_stamp(suite: "Suite", stage: str, subject: str = "", code: Sources | None = None) -> str:
    """Hash the code of a job.

    Arguments:
        suite: the suite.
        stage: a stage of :data:`indm.pipeline.stages.STAGES`, or ``import_checkpoint``.
        subject: the job's dataset, run, shard or two-dimensional dataset, if it has one.
        code: the sources; by default the sources of this package.
    """
    found = (code or sources()).stamp(*beginnings(suite, stage, subject, code))
    derived = _derived(suite, stage, subject)
    return hashlib.sha256(f"{found} {derived}".encode()).hexdigest() if derived else found


def job_definitions(suite: "Suite", stage: str, subject: str = "", code: Sources | None = None) -> dict[str, str]:
    """Return a short hash of each definition behind a job, by its qualified name; see :func:`job_stamp`."""
    found = (code or sources()).reachable(*beginnings(suite, stage, subject, code))
    return {str(place): found[place][:SHORT] for place in sorted(found)}


class Difference(NamedTuple):
    """A definition that has changed since a result was made: its hash then and now, ``none`` if it did not exist."""

    name: str
    then: str
    now: str

    @property
    def what(self) -> str:
        """The kind of change."""
        return "new" if self.then == NONE else "gone" if self.now == NONE else "changed"

    @property
    def where(self) -> str:
        """File and line of the definition; empty if it does not exist any more."""
        module, _, name = self.name.rpartition(".")
        known = self.now != NONE and module in sources().files
        return sources().where(Place(module, name)) if known else ""


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Difference]:
    """Yield the definitions that differ between two states of the code behind a job, in the order of their names.

    A definition that moved to another module is left out if it is the same, and counts as changed if not.

    Arguments:
        then: short hashes of the definitions by their qualified names, from :func:`job_definitions`.
        now: the hashes in the other state.
    """
    lost: dict[str, set[str]] = {}
    for name in then.keys() - now.keys():
        lost.setdefault(unqualified(name), set()).add(then[name])
    found = {unqualified(name) for name in now.keys() - then.keys()}
    for name in sorted({**then, **now}):
        before = {then[name]} if name in then else lost.get(unqualified(name), {NONE})
        is_moved = name not in now and unqualified(name) in found
        if now.get(name, NONE) not in before and not is_moved:
            yield Difference(name, min(before), now.get(name, NONE))


def unqualified(name: str) -> str:
    """Return the name of a definition without its module, which may have been renamed."""
    return name.rpartition(".")[2]


def beginnings(suite: "Suite", stage: str, subject: str, code: Sources | None = None) -> list[str]:
    """Name the definitions with which a job begins; for earlier sources (``code``), only the definitions that they contain."""
    # A manifest in another format cannot be read, so its job has to run again.
    always = ["indm.store.manifest.FORMAT", "indm.process.limit_threads", "indm.process.unset_fpmath"]
    names = [f"indm.stages.{gathering(stage)}.run", *always, *members(suite, stage, subject)]
    return names if code is None else [name for name in names if code.has(name)]


def members(suite: "Suite", stage: str, subject: str) -> list[str]:
    """Name the registered members that a job uses, by their definitions."""
    if stage == "prepare":
        return [DATASETS.definition(subject)]
    if stage == "toy2d":
        return [DIFFUSIONS.definition("vp")]
    used = [
        SAMPLERS.definition(sampler, constant)
        for constant in USED.get(gathering(stage), ())
        for sampler in sorted(_samplers(suite, stage, subject))
    ]
    if not _builds(stage):
        families = sorted({run.model for run in suite.runs.values()})
        return used + [FAMILIES.definition(name, constant) for constant in SHOWN.get(stage, ()) for name in families]
    name = _run(suite, stage, subject)
    network = suite.train_params(name).score.name
    return [
        FAMILIES.definition(suite.runs[name].model),
        DIFFUSIONS.definition(suite.runs[name].sde),
        NETWORKS.definition(network),
        *map(FLOWS.definition, suite.flows_of(name)),
        *used,
    ]


def _samplers(suite: "Suite", stage: str, subject: str) -> set[str]:
    """Name the samplers of a sweep, of another job that samples, or, for a stage that reads all results, of the suite."""
    swept = {PREDICTOR if name == PC else name for name in suite.sweep.samplers}
    if gathering(stage) == "sweep":
        return swept
    if STAGES[stage].builds:
        return {suite.sample_params(_run(suite, stage, subject)).sampler}
    # The toy2d stage has a sampler that suites do not name.
    return swept.union([DDIM], (suite.sample_params(name).sampler for name in suite.runs))


def _derived(suite: "Suite", stage: str, subject: str) -> str:
    """Return the values that a suite derives for a job and that are not among the keys that the job reads, as text."""
    if stage in STAGES and STAGES[stage].builds and "weights" in STAGES[stage].keys:
        return f"weights {sorted(suite.weights_of(_run(suite, stage, subject)).items())}"
    if stage == "claims":
        from indm.suite.claims import Claim, Control, Metric, Side

        # The defaults of params/claims.yaml.
        fields = [field for model in (Claim, Control, Metric, Side) for field in model.model_fields.items()]
        return f"defaults {[(key, field.default) for key, field in fields if not field.is_required()]}"
    return ""


def _builds(stage: str) -> bool:
    return stage == "import_checkpoint" or STAGES[stage].builds


def _run(suite: "Suite", stage: str, subject: str) -> str:
    """Name the run whose model a job builds."""
    if stage == "protocol":
        return suite.protocol[subject].run
    return run_of(subject)[0] if gathering(stage) != stage else subject


def suite_stamps(suite: "Suite") -> Iterator[tuple[str, str]]:
    """Yield the path of each job of a suite, ``stage`` or ``stage/subject``, with its stamp."""
    for name, stage in STAGES.items():
        for subject in stage.subjects(suite):
            yield "/".join(filter(None, (name, subject))), job_stamp(suite, name, subject)
