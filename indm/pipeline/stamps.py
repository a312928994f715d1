"""The code behind each job of a suite, as a stamp: both engines and unfinished work depend on it, and on no list of files.

A job begins with the ``run`` of its stage and with the registered dataset, model family, diffusion, network, flow and samplers that
it uses; its stamp covers all that these refer to (:mod:`indm.pipeline.code`). So a new member of a registry, a moved module or an
edited message runs nothing again, but an edited formula runs again what it feeds.

What happens outside of ``run`` has a rule of its own. Precision and determinism are set by :func:`indm.process.set_up`, which
stages call themselves. What has to come before torch is imported (``limit_threads``, ``unset_fpmath``) counts for every job. What
else the command line calls there, for garbage and to learn which process writes, computes nothing. What a suite derives from its
keys counts by its value: the flow of a run by the member that it names, its weights as they are.
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

# Of a sampler's module, what a stage uses.
USED = {
    "sample": ("SAMPLER", "CALLS", "CORRECTOR"),
    **dict.fromkeys(["sweep", "protocol", "tune"], ("SAMPLER",)),
    "table": ("CORRECTOR", "SOUND"),
    "claims": ("CORRECTOR",),
    **dict.fromkeys(["figure", "report"], ("LABEL",)),
}
# Of a family's module, what a stage uses that is made of all results.
SHOWN = {"table": ("REFERENCE",), **dict.fromkeys(["figure", "report"], ("LABEL", "REFERENCE", "STYLE"))}
# Of a definition's hash: it explains what has changed, which the stamp alone decides.
SHORT = 10


def job_stamp(suite: "Suite", stage: str, subject: str = "", code: Sources | None = None) -> str:
    """Hash the code of a job.

    Arguments:
        suite: the suite.
        stage: a stage of :data:`indm.pipeline.stages.STAGES`, or ``import_checkpoint``.
        subject: the job's dataset, run, shard or two-dimensional dataset, if it has one.
        code: the sources; by default those of this package.
    """
    found = (code or sources()).stamp(*beginnings(suite, stage, subject, code))
    derived = _derived(suite, stage, subject)
    return hashlib.sha256(f"{found} {derived}".encode()).hexdigest() if derived else found


def job_definitions(suite: "Suite", stage: str, subject: str = "", code: Sources | None = None) -> dict[str, str]:
    """Hash each definition behind a job by itself, in short, by its qualified name; see :func:`job_stamp`."""
    found = (code or sources()).reachable(*beginnings(suite, stage, subject, code))
    return {str(place): found[place][:SHORT] for place in sorted(found)}


class Difference(NamedTuple):
    """A definition that is not what it was when a result was made: its hash then and now, ``none`` where it was not there."""

    name: str
    then: str
    now: str

    @property
    def what(self) -> str:
        """What has become of the definition."""
        return "new" if self.then == NONE else "gone" if self.now == NONE else "changed"

    @property
    def where(self) -> str:
        """File and line of the definition; nothing where it is not there now."""
        module, _, name = self.name.rpartition(".")
        known = self.now != NONE and module in sources().files
        return sources().where(Place(module, name)) if known else ""


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Difference]:
    """Yield the definitions that differ between two states of the code behind a job, in the order of their names.

    A definition that moved to another module and is the same is left out; one that is not the same counts as changed.

    Arguments:
        then: short hashes of the definitions by their qualified names, as :func:`job_definitions` returns them.
        now: those of another state.
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
    """Return the name of a definition without its module, which may have another name since."""
    return name.rpartition(".")[2]


def beginnings(suite: "Suite", stage: str, subject: str, code: Sources | None = None) -> list[str]:
    """Name the definitions with which a job begins; of earlier sources (``code``), those that they have already."""
    # Results with a manifest of another format are not read, so everything is made again.
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
    network, flow = suite.train_params(name).score.name, suite.flow_of(name)
    return [
        FAMILIES.definition(suite.runs[name].model),
        DIFFUSIONS.definition(suite.runs[name].sde),
        NETWORKS.definition(network),
        FLOWS.definition(flow),
        *used,
    ]


def _samplers(suite: "Suite", stage: str, subject: str) -> set[str]:
    """Name the samplers of a sweep, of another job that draws, or, for what is made of all results, of the suite."""
    swept = {PREDICTOR if name == PC else name for name in suite.sweep.samplers}
    if gathering(stage) == "sweep":
        return swept
    if STAGES[stage].builds:
        return {suite.sample_params(_run(suite, stage, subject)).sampler}
    # Stage toy2d has a sampler that no suite names.
    return swept.union([DDIM], (suite.sample_params(name).sampler for name in suite.runs))


def _derived(suite: "Suite", stage: str, subject: str) -> str:
    """Write down what a suite derives for a job, and the pipeline does not list among the keys that the job reads."""
    if stage in STAGES and STAGES[stage].builds and "weights" in STAGES[stage].keys:
        return f"weights {sorted(suite.weights_of(_run(suite, stage, subject)).items())}"
    if stage == "claims":
        from indm.suite.claims import Claim, Control, Metric, Side

        # What stands where params/claims.yaml says nothing.
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
    """Yield the place of each job of a suite, ``stage`` or ``stage/subject``, with its stamp."""
    for name, stage in STAGES.items():
        for subject in stage.subjects(suite):
            yield "/".join(filter(None, (name, subject))), job_stamp(suite, name, subject)
