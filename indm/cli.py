"""The command line: one subcommand for each stage of the pipeline.

A stage reads the suite file, its inputs and nothing else, writes its outputs and says in ``provenance/`` how it went. The
module of a stage is imported when it is called, so that ``--help`` and ``table`` do not pay for torch.
"""

import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indm import __version__
from indm.errors import IndmError
from indm.pipeline import STAGES

if TYPE_CHECKING:
    from indm.store.finished import Finished

SUITE = click.option(
    "--suite",
    "suite_file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The suite's file, params/<suite>.yaml.",
)
OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="The results folder; files go to <out>/<suite>/.",
)
DATA_ROOT = click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of the datasets' archives.  [default: INDM_DATA, or data]",
)
DATASET = click.option("--dataset", required=True, help="A dataset of the suite.")
TOY = click.option("--toy", required=True, help="A two-dimensional dataset of the suite.")
RUN = click.option("--run", required=True, help="A run of the suite.")
REPORTS = click.option(
    "--reports",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("reports"),
    show_default=True,
    help="The reports folder; files go to <reports>/<suite>/.",
)


class Commands(click.Group):
    """The subcommands; output that cannot be written, as on a full disk, is one line."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command line."""
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            # Of files, stages speak themselves: with their names.
            if error.filename is not None:
                raise
            sys.exit(f"indm: the output cannot be written: {error.strerror}")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="indm")
def main() -> None:
    """Reproduce "Maximum Likelihood Training of Implicit Nonlinear Diffusion Models" (arXiv:2205.13699)."""


def _stage(name: str, summary: str, *options: Callable[..., Any]) -> None:
    """Register stage ``name``, whose module is ``indm.stages.<name>``."""

    def command(suite_file: Path, out: Path, **given: Any) -> None:
        subject: dict[str, str] = {key: given.pop(key) for key in ("dataset", "run", "toy") if key in given}
        try:
            _execute(name, suite_file, out, subject, **given)
        except IndmError as error:
            click.echo("\n".join(f"indm {name}: {line}" for line in str(error).splitlines()), err=True)
            sys.exit(error.exit_code)

    for option in (OUT, *options, SUITE):
        command = option(command)
    main.command(name, help=summary)(command)


def _execute(name: str, suite_file: Path, out: Path, subject: dict[str, str], **options: Any) -> None:
    from indm.jobs import IMPORTED, Job
    from indm.process import limit_threads
    from indm.suite.content import suite_sha256
    from indm.suite.load import load_suite

    suite = load_suite(suite_file)
    # An imported checkpoint stands for a training, and is not made from the training images.
    imported = name == "import_checkpoint"
    job = Job("train" if imported else name, "".join(subject.values()))
    _check_subject(suite, suite_file, *job)
    limit_threads(suite.threads)

    # After that: they import NumPy, which reads the limit once.
    from indm.identity import Identity
    from indm.stamps import check_started, job_stamp
    from indm.store.layout import Layout
    from indm.track import check_tracked

    layout, stamp = Layout(out, suite.suite), job_stamp(suite, name, *subject.values())
    check_started(suite, stamp)
    check_tracked(suite, suite_file, layout, name, job.subject, stamp)
    identity = Identity(suite, out, options.get("reports", Path("reports")))
    inputs = identity.check(job, IMPORTED if imported else None)
    # Before the work: during it, someone may edit the files.
    source = {
        "suite": suite.suite,
        "stage": name,
        "subject": job.subject,
        "suite_sha256": suite_sha256(suite),
        "code_stamp": stamp,
        "seed": _seed(suite, **subject),
    }
    started = time.monotonic()
    stage = importlib.import_module(f"indm.stages.{name}")
    finished: Finished = stage.run(suite, layout, *subject.values(), **options)
    # Of several processes that torchrun has started, the first one writes.
    if int(os.environ.get("RANK", "0")):
        return
    _record_provenance(finished, name, source, time.monotonic() - started, suite.threads)
    # Last of all: without it, there are no results.
    identity.record(job, inputs)


def _record_provenance(finished: "Finished", name: str, source: dict[str, Any], seconds: float, threads: int) -> None:
    from indm.store.files import write_json
    from indm.store.provenance import provenance

    folder = finished.folder / "provenance"
    # An imported checkpoint takes the place of a training, or a training its.
    (folder / f"{REPLACED.get(name, name)}.json").unlink(missing_ok=True)
    write_json(folder / f"{name}.json", source | provenance(seconds + finished.earlier, threads))


def _seed(suite: Any, dataset: str | None = None, run: str | None = None, toy: str | None = None) -> int | None:
    """Find the seed of what a stage works on, a run's or a dataset's; tables have none, and ``toy2d`` has many."""
    if run is not None:
        return int(suite.runs[run].seed)
    return int(suite.datasets[dataset].split_seed) if dataset is not None else None


def _check_subject(suite: Any, suite_file: Path, stage: str, subject: str) -> None:
    """Refuse what a suite has not, or has no job of the stage for."""
    from indm.errors import ParamsError

    kind, found = STAGES[stage].subject, STAGES[stage].subjects(suite)
    if subject not in found:
        expected = ", ".join(found) or "none"
        raise ParamsError(
            f"{suite_file}: found no job of stage {stage} for {kind} {subject!r}, expected one of: {expected}"
        )


REPLACED = {"train": "import_checkpoint", "import_checkpoint": "train"}
SUBJECTS = {"dataset": [DATASET], "run": [RUN], "toy": [TOY], "": []}
for _name, _description in STAGES.items():
    _options = [*SUBJECTS[_description.subject], *([REPORTS] if _description.reports else [])]
    _stage(_name, _description.summary, *([DATA_ROOT] if _name == "prepare" else []), *_options)


_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@main.command("import-checkpoint")
@SUITE
@RUN
@OUT
@click.option("--config", type=_FILE, required=True, help="The released configuration, as JSON.")
@click.option("--score", type=_FILE, required=True, help="The released checkpoint_k.pth.")
@click.option("--flow", type=_FILE, help="The released flow_checkpoint_k.pth, for a run with a flow.")
@click.option("--wolf-config", type=_FILE, help="The released file under flow.model_config; the paper's by default.")
def import_checkpoint(suite_file: Path, out: Path, run: str, **files: Any) -> None:
    """Put a checkpoint of score_sde_pytorch or of the released INDM code in the place of a run's training."""
    try:
        _execute("import_checkpoint", suite_file, out, {"run": run}, **files)
    except IndmError as error:
        sys.exit("\n".join(f"indm import-checkpoint: {line}" for line in str(error).splitlines()))


@main.command()
@SUITE
@OUT
@click.option(
    "--track", is_flag=True, help="Also write what DVC tracks: the suite in full, and the stamps of the code."
)
def validate(suite_file: Path, out: Path, track: bool) -> None:
    """Check a suite file, and the claims and registrations beside it, and say nothing but their mistakes."""
    from indm.suite.claims import load_claims
    from indm.suite.load import load_suite
    from indm.suite.registrations import load_registrations

    try:
        load_suite(suite_file, with_data=True)
        load_claims(suite_file.parent / "claims.yaml")
        load_registrations(suite_file.parent / "registrations.yaml")
        if track:
            from indm.track import track as write_tracked

            write_tracked(suite_file, out)
    except IndmError as error:
        sys.exit("\n".join(f"indm validate: {line}" for line in str(error).splitlines()))


@main.command()
@click.option("--suite", "suite_file", type=_FILE, help="The suite's file; without it, everything is looked at.")
@OUT
@DATA_ROOT
def doctor(suite_file: Path | None, out: Path, data_root: Path | None) -> None:
    """Say what is ready on this machine and what is missing; exit with 1 if the suite (default: digits) cannot run."""
    from indm.doctor.examine import examine

    try:
        report = examine(suite_file, out, data_root)
    except IndmError as error:
        sys.exit("\n".join(f"indm doctor: {line}" for line in str(error).splitlines()))
    click.echo(report.page)
    sys.exit(not report.can_run)


@main.command()
@click.option("--suite", default="digits", show_default=True, help="The suite's name, or its file.")
@OUT
def show(suite: str, out: Path) -> None:
    """Print the tables of a suite for reading."""
    from indm.report.export import read_shown
    from indm.store.layout import Layout

    try:
        text = read_shown(Layout(out, Path(suite).stem))
    except IndmError as error:
        sys.exit(f"indm show: {error}")
    click.echo(text)


@main.command()
@click.argument("published", type=click.Path(path_type=Path, file_okay=False))
@OUT
def compare(published: Path, out: Path) -> None:
    """Set a suite's results beside those PUBLISHED in a folder of its name, docs/results/<suite>.

    Exits with 0 if they agree, with 1 if not, and with 2 if they cannot be compared.
    """
    from indm.report.agreement import agreement
    from indm.store.layout import Layout
    from indm.suite.content import suite_sha256
    from indm.suite.load import load_suite

    suite = published.resolve().name
    file = Path("params") / f"{suite}.yaml"
    try:
        sha256 = suite_sha256(load_suite(file)) if file.is_file() else ""
        found = agreement(published, Layout(out, suite), sha256)
    except IndmError as error:
        click.echo(f"indm compare: {error}", err=True)
        sys.exit(2)
    for line in found.lines():
        click.echo(line)
    sys.exit(not found.agrees)


ROOT = Path("docs/results")
REPLACE = click.option("--replace", is_flag=True, help="Replace what is there and differs, instead of refusing it.")


@main.command()
@SUITE
@OUT
@click.option("--to", "root", type=_FOLDER, default=ROOT, show_default=True, help="Archives go to <to>/<suite>/kept/.")
@REPLACE
def keep(suite_file: Path, out: Path, root: Path, replace: bool) -> None:
    """Pack what is finished of a suite into archives small enough for git: what tables, claims and the page are made of."""
    _move("keep", suite_file, out, root, replace)


@main.command()
@SUITE
@OUT
@click.option(
    "--from", "root", type=_FOLDER, default=ROOT, show_default=True, help="Archives are in <from>/<suite>/kept/."
)
@REPLACE
def restore(suite_file: Path, out: Path, root: Path, replace: bool) -> None:
    """Put what was kept of a suite back among its results, unless suite or code have changed since."""
    _move("restore", suite_file, out, root, replace)


def _move(name: str, suite_file: Path, out: Path, root: Path, replace: bool) -> None:
    """Keep or restore, and say what became of each folder; exit with 1 if one was refused."""
    from indm.suite.load import load_suite

    try:
        suite = load_suite(suite_file)
        module = importlib.import_module(f"indm.kept.{name}")
        outcome = getattr(module, name)(suite, out, root / suite.suite / "kept", replace)
    except IndmError as error:
        sys.exit("\n".join(f"indm {name}: {line}" for line in str(error).splitlines()))
    for line in outcome.lines():
        click.echo(f"indm {name}: {line}", err=True)
    sys.exit(bool(outcome.refused))


@main.command()
@SUITE
@OUT
@REPORTS
@click.option("--to", "root", type=_FOLDER, default=ROOT, show_default=True, help="Files go to <to>/<suite>/.")
@click.option("--weights", "runs", multiple=True, help="A run whose averaged weights are published too; once for each.")
def publish(suite_file: Path, out: Path, reports: Path, root: Path, runs: tuple[str, ...]) -> None:
    """Copy a suite's tables, figures, pictures and provenance to where git has them, and list them in a README.md there."""
    from indm.suite.load import load_suite

    try:
        suite = load_suite(suite_file)
        from indm.kept.publish import Places
        from indm.kept.publish import publish as write_folder

        found = write_folder(suite, Places(out, reports, root / suite.suite), runs)
    except IndmError as error:
        sys.exit("\n".join(f"indm publish: {line}" for line in str(error).splitlines()))
    click.echo(f"{found.target}: {len(found.sizes)} files, {sum(found.sizes.values()) / 2**20:.1f} MiB")


@main.command()
@SUITE
@click.option("--note", default="", help="What is worth saying of it, on the page too.")
def register(suite_file: Path, note: str) -> None:
    """Write down that the commit that is checked out has this suite and the claims, before it is run."""
    from indm.register import register as write_entry

    try:
        entry = write_entry(suite_file, note)
    except IndmError as error:
        sys.exit("\n".join(f"indm register: {line}" for line in str(error).splitlines()))
    click.echo(f"{suite_file}: registered in commit {entry.commit} of {entry.date}; commit registrations.yaml now")


@main.command()
def schema() -> None:
    """Print the JSON schema of suite files, which params/schema.json holds."""
    from indm.suite.load import json_schema

    click.echo(json_schema(), nl=False)
