"""The requirements of a suite on this machine: ready, to be downloaded, or missing with the remedy.

``indm doctor`` prints the page; both engines ask :func:`requirements` before their first job. Imports of torch are late, because a
suite without Inception weights and GPU does not need it here.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from indm.bench.doctor.inputs import archives, extractors, published, weights
from indm.bench.doctor.machine import DOWNLOAD, Item, compiler_item, disk_item, gpu_item
from indm.bench.pipeline.jobs import Job, job_names, job_outputs, jobs_of
from indm.bench.pipeline.stages import STAGES
from indm.bench.suite.load import load_suite
from indm.data.archives import data_root as default_root
from indm.shipped import DEFAULT_SUITE, default
from indm.store.layout import Layout

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


@dataclass(frozen=True)
class Work:
    """The datasets to prepare, from archives, and to measure, by extractors, and whether to compute on the suite's device."""

    prepare: Collection[str]
    measure: Collection[str]
    compute: bool


def examine(suite_file: Path | None, out: Path, data_root: Path | None) -> tuple[str, bool]:
    """Check the requirements of a suite's remaining work; return the page, verdict first, and whether the suite can run."""
    suite = load_suite(suite_file or default(Path(f"params/{DEFAULT_SUITE}.yaml")), with_data=True)
    items = _items(suite, unfinished(suite, Layout(out, suite.suite)), data_root, out)
    gaps = [item.gap for item in items if item.gap]
    verdict = "cannot run yet" if gaps else "can run, all its requirements are met"
    width = max(len(item.name) for item in items)
    lines = (f"{item.name:{width}}  {item.state:{len(DOWNLOAD)}}  {item.detail}" for item in items)
    return "\n".join([f"suite {suite.suite}: {verdict}", *gaps, "", *lines]), not gaps


def requirements(suite: "Suite", work: Work, data_root: Path | None = None, out: Path = Path("results")) -> list[str]:
    """List the missing requirements for the work on a suite, each on one line with its remedy."""
    # An engine asks in its own process, and torch would stay there; a suite that may use a GPU lacks nothing without one.
    work = replace(work, compute=work.compute and (suite.device == "cuda" or suite.compile))
    return [item.gap for item in _items(suite, work, data_root, out) if item.gap]


def _items(suite: "Suite", work: Work, data_root: Path | None, out: Path) -> list[Item]:
    root = data_root or default_root()
    items = [item for name in suite.datasets if name in work.prepare for item in archives(name, root)]
    items += [item for name in extractors(suite, work.measure) for item in weights(name)]
    items += [*published(suite, work.measure, root), disk_item(out / suite.suite)]
    items += [gpu_item(suite)] if work.compute and suite.device != "cpu" else []
    return items + ([compiler_item()] if work.compute and suite.compile else [])


def unfinished(suite: "Suite", layout: Layout) -> Work:
    """Return the remaining work for a suite, by the files that are there."""
    left = []
    for job in jobs_of(suite, "shard", "toy", ""):
        paths = [layout.root / path.removeprefix("results/") for path in job_outputs(suite, job)]
        # An empty file counts as missing, unless it stands for a picture.
        if not all(path.is_file() and (path.suffix == ".png" or path.stat().st_size > 0) for path in paths):
            left.append(job)
    return work_of(suite, left)


def work_of(suite: "Suite", jobs: Collection[Job]) -> Work:
    """Return the work of some jobs."""
    return Work(
        prepare={job.subject for job in jobs if job.stage == "prepare"},
        # A search for the best likelihood measures no images.
        measure={
            job_names(suite, job)["dataset"]
            for job in jobs
            if STAGES[job.stage].measures and (job.stage != "tune" or suite.runs[job.subject].objective == "fid")
        },
        compute=any(STAGES[job.stage].on_device for job in jobs),
    )
