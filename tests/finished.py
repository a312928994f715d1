"""Jobs that have ended: after a fashion, in no time, where each file holds its own name; or truly, on files without manifests."""

from pathlib import Path
from types import ModuleType

from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job, job_names, lasting_inputs
from indm.bench.pipeline.runner import work_of
from indm.bench.pipeline.stages import STAGES
from indm.bench.pipeline.stamps import job_stamp
from indm.bench.suite.schema.suite import Suite
from indm.store.files import write_json
from indm.store.layout import Layout
from indm.store.manifest import content_sha256
from indm.store.provenance import Finished
from indm.store.scratch import Work

EXECUTION = {
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "uncommitted_changes": False,
    "versions": {"python": "3.11", "torch": "2.13"},
    "machine": "made-up, 2 CPUs, Linux",
    "device": "cpu",
    "threads": 1,
    "seconds": 1.5,
}


def do(suite: Suite, root: Path, job: Job, content: str = "content of") -> None:
    """Do a job in a checkout that is the working directory, with its manifest and its provenance."""
    checks = InputCheck(suite, root / "results", root / "reports")
    inputs, names = checks.check(job), job_names(suite, job)
    for pattern in STAGES[job.stage].written:
        path = root / pattern.format(**names)
        if not path.suffix:
            path /= "figure.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content} {path.relative_to(root)}")
    record = {"suite": suite.suite, "stage": job.stage, "subject": job.subject, "code_stamp": job_stamp(suite, *job)}
    write_json(root / STAGES[job.stage].folder.format(**names) / f"provenance/{job.stage}.json", record | EXECUTION)
    checks.record(job, inputs)


def work(stage: ModuleType, suite: Suite, layout: Layout, subject: str) -> Work:
    """Return a job's unfinished work, by its inputs as they are."""
    job, checks = Job(stage.__name__.rpartition(".")[2], subject), InputCheck(suite, layout.root, layout.root)
    inputs = {path: content_sha256(checks.place(path)) for path in lasting_inputs(suite, job)}
    return work_of(suite, layout, job, job_stamp(suite, *job), inputs)


def run(stage: ModuleType, suite: Suite, layout: Layout, subject: str) -> Finished:
    """Run a stage that keeps unfinished work."""
    finished: Finished = stage.run(suite, layout, subject, work=work(stage, suite, layout, subject))
    return finished
