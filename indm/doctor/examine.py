"""The requirements of a suite on this machine: ready, to be downloaded, or missing with the remedy.

``indm doctor`` prints the page; both engines ask :func:`requirements` before their first job. Imports are late, so that packages
are checked before one of them is needed, and a suite without Inception weights and GPU does not import torch.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from indm.doctor.inputs import INCEPTION, archives, extractors, published, weights
from indm.doctor.machine import DOWNLOAD, READY, Item, disk_item, machine, needed, packages, program_item
from indm.pipeline.jobs import Job, job_names
from indm.pipeline.stages import STAGES
from indm.shipped import DEFAULT_SUITE, default

if TYPE_CHECKING:
    from indm.store.layout import Layout
    from indm.suite.schema.suite import Suite


@dataclass(frozen=True)
class Work:
    """The work to be done for a suite.

    Arguments:
        prepare: datasets to be prepared, which need their archives.
        measure: datasets whose images, or whose runs' images, are to be measured, which need the weights of their extractor.
        compute: whether this machine has to compute on the suite's device.
    """

    prepare: Collection[str]
    measure: Collection[str]
    compute: bool


@dataclass(frozen=True)
class Report:
    """The page, and whether the suite can run."""

    page: str
    can_run: bool


def examine(suite_file: Path | None, out: Path, data_root: Path | None) -> Report:
    """Check all requirements of a suite, or, without a suite, everything.

    Arguments:
        suite_file: the suite; if it is None, the requirements of the default suite decide.
        out: the results folder.
        data_root: the folder of the archives; :func:`indm.data.data_root` by default.

    Raises:
        ParamsError: if the suite has a mistake.
    """
    installed = packages()
    if gaps := _gaps(installed):
        return Report(_page({"packages": installed}, [*gaps, "the rest is checked once they are installed"]), False)

    from indm.data.archives import data_root as default_root
    from indm.store.layout import Layout
    from indm.suite.load import load_suite

    suite = load_suite(suite_file or default(Path(f"params/{DEFAULT_SUITE}.yaml")), with_data=True)
    layout = Layout(out, suite.suite)
    work = unfinished(suite, layout)
    root = data_root or default_root()
    groups = {
        "machine": machine(suite if suite_file else None, out),
        "packages": installed,
        "engines": [program_item(name) for name in ("snakemake", "dvc", "git")],
    }
    if suite_file:
        groups[_data_title(root)] = [
            item for name in suite.datasets for item in _data(name, layout, work.prepare, root)
        ]
        groups["weights"] = _suite_weights(suite, work.measure, root)
    else:
        groups[_data_title(root)] = _all_data(root)
        groups["weights"] = weights(INCEPTION)
    found = [item for items in groups.values() for item in items]
    gaps = [*_gaps(found), *(f"warning: {item.warning}" for item in found if item.warning)]
    can_run = not requirements(suite, work, root, out)
    verdict = "can run, all its requirements are met" if can_run else "cannot run yet, see the lines above"
    return Report(_page(groups, [*gaps, *([""] if gaps else []), f"suite {suite.suite}: {verdict}"]), can_run)


def requirements(suite: "Suite", work: Work, data_root: Path | None = None, out: Path = Path("results")) -> list[str]:
    """List the missing requirements for the work on a suite, each on one line with its remedy.

    Arguments:
        suite: the suite.
        work: the work to be done.
        data_root: the folder of the archives; :func:`indm.data.data_root` by default.
        out: the results folder.
    """
    from indm.data.archives import data_root as default_root

    root = data_root or default_root()
    items = [*packages(), disk_item(out / suite.suite), *(needed(suite) if work.compute else [])]
    items += [item for name in suite.datasets if name in work.prepare for item in archives(name, root)]
    items += [item for name in extractors(suite, work.measure) for item in weights(name)]
    items += published(suite, work.measure, root)
    return _gaps(items)


def unfinished(suite: "Suite", layout: "Layout") -> Work:
    """Return the remaining work for a suite, by the files that are there."""
    kinds = ("dataset", "run")
    jobs = [
        Job(name, subject)
        for name, stage in STAGES.items()
        if stage.subject in kinds
        for subject in stage.subjects(suite)
    ]
    return work_of(suite, [job for job in jobs if not _made(suite, layout, job)])


def _made(suite: "Suite", layout: "Layout", job: Job) -> bool:
    """Return whether a job's files are there; an empty file counts as missing, unless it stands for a picture."""
    names = job_names(suite, job)
    paths = [layout.root / pattern.format(**names).removeprefix("results/") for pattern in STAGES[job.stage].written]
    return all(path.is_file() and (path.suffix == ".png" or path.stat().st_size > 0) for path in paths)


def work_of(suite: "Suite", jobs: Collection[Job]) -> Work:
    """Return the work of some jobs."""
    return Work(
        prepare={job.subject for job in jobs if job.stage == "prepare"},
        measure={job_names(suite, job)["dataset"] for job in jobs if _measures(suite, job)},
        compute=any(STAGES[job.stage].on_device for job in jobs),
    )


def _measures(suite: "Suite", job: Job) -> bool:
    """Return whether a job measures images by the features of its dataset's extractor."""
    return STAGES[job.stage].measures and (job.stage != "tune" or suite.runs[job.subject].objective == "fid")


def _data_title(root: Path) -> str:
    return f"data, below {root}/ (--data-root, else INDM_DATA, else data)"


def _data(name: str, layout: "Layout", prepare: Collection[str], root: Path) -> list[Item]:
    return archives(name, root) if name in prepare else [Item(name, READY, f"prepared in {layout.data(name)}")]


def _all_data(root: Path) -> list[Item]:
    from indm.registry import DATASETS

    return [item for name in DATASETS for item in archives(name, root)]


def _suite_weights(suite: "Suite", measure: Collection[str], root: Path) -> list[Item]:
    """Look for the files behind a suite's features; files that are no longer needed, or that the suite makes, are ready."""
    needed = extractors(suite, measure)
    others = {reference.extractor: None for reference in suite.reference.values()}
    why = {name: "its features are computed" if name == INCEPTION else "no file needed" for name in others}
    items = [Item(name, READY, why[name]) for name in others if name not in needed]
    return [item for name in needed for item in weights(name)] + items + published(suite, measure, root)


def _gaps(items: Iterable[Item]) -> list[str]:
    return [item.gap for item in items if item.gap]


def _page(groups: Mapping[str, Iterable[Item]], end: Iterable[str]) -> str:
    """Lay out the groups in aligned columns, then the gaps and the verdict."""
    items = [item for group in groups.values() for item in group]
    width = max(len(item.name) for item in items)
    lines = []
    for title, group in groups.items():
        lines += [title, *(f"  {item.name:{width}}  {item.state:{len(DOWNLOAD)}}  {item.detail}" for item in group), ""]
    return "\n".join([*lines, *end])
