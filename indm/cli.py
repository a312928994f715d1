"""The command line: one subcommand for each stage of the pipeline.

A stage reads the suite file, its inputs and nothing else, writes its outputs and says in ``provenance/`` how it went. The
module of a stage is imported when it is called, so that ``--help`` and ``table`` do not pay for torch.
"""

import contextlib
import importlib
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from indm import __version__
from indm.errors import IndmError, memory_errors
from indm.pipeline.stages import OPTIONS, STAGES, command_name, gathering
from indm.report.catalogue import SHOWN
from indm.shipped import DEFAULT_SUITE
from indm.terminal import printable

if TYPE_CHECKING:
    from indm.pipeline.jobs import Job
    from indm.store.layout import Layout
    from indm.store.provenance import Finished


class SuiteFile(click.Path):
    """A suite by its name, ``paper`` or ``paper.yaml``, or by its file, ``params/paper.yaml``."""

    name = "suite"

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of the file."""
        is_file = str(value).endswith(".yaml") and Path(value).is_file()
        is_name = isinstance(value, str) and "/" not in value and not is_file
        return super().convert(f"params/{value.removesuffix('.yaml')}.yaml" if is_name else value, param, ctx)


SUITE_FILE = SuiteFile()
SUITE = click.option("--suite", "suite_file", type=SUITE_FILE, required=True, help="The suite: its name, or its file.")
# For those who look: the suite of the first example of the README.
LOOKED_AT = click.option(
    "--suite",
    "suite_file",
    type=SUITE_FILE,
    default=DEFAULT_SUITE,
    show_default=True,
    help="The suite: its name, or its file.",
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
SHARD = click.option("--shard", type=int, required=True, help="Which of the run's shards: 1, 2, ...")
REPORTS = click.option(
    "--reports",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("reports"),
    show_default=True,
    help="The reports folder; files go to <reports>/<suite>/.",
)


# What a command exits with where it could not do its work; as with diff, 1 says that something differs.
FAILED = {"compare": 2}
# The commands, in the order in which they are used.
SECTIONS = {
    "Before a run": ["init", "doctor", "validate", "register"],
    "The stages, in the order of the pipeline": [*map(command_name, STAGES), "import-checkpoint"],
    "While it runs": ["status", "why", "tensorboard"],
    "Results": ["show", "compare", "keep", "restore", "publish"],
    "For editors": ["schema"],
}


class Commands(click.Group):
    """The subcommands, in sections; an error that a user can meet is reported on one line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them by section."""
        width = max(map(len, self.commands))
        for section, listed in SECTIONS.items():
            with formatter.section(section):
                limit = formatter.width - width - 6
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit)) for name in listed])

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command line."""
        for stream in (sys.stdout, sys.stderr):
            # In a locale that lacks a sign, such as ±, its code stands for it.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            # Of a command's help, for one.
            sys.exit(f"indm: {_unwritten(error)}")

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; one line for each mistake that it reports."""
        try:
            with memory_errors():
                return super().invoke(ctx)
        except IndmError as error:
            _exit(ctx, str(error), error.exit_code)
        except BrokenPipeError:
            # Nobody reads any more: click ends without a word.
            raise
        except OSError as error:
            _exit(ctx, _unwritten(error), 1)


def _unwritten(error: OSError) -> str:
    """Say what cannot be read or written; stages themselves report errors of their own files."""
    if error.filename is None:
        return f"the output cannot be written: {error.strerror}"
    return f"{error.filename}: {error.strerror}; expected what can be read and written there"


def _exit(ctx: click.Context, message: str, code: int) -> NoReturn:
    """End a command with its name before each line of the message."""
    name = ctx.invoked_subcommand or ""
    click.echo("\n".join(f"indm {name}: {printable(line)}" for line in message.splitlines()), err=True)
    sys.exit(FAILED.get(name, code))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="indm")
def main() -> None:
    """Reproduce "Maximum Likelihood Training of Implicit Nonlinear Diffusion Models" (arXiv:2205.13699)."""


def _stage(name: str, summary: str, *options: Callable[..., Any]) -> None:
    """Register stage ``name``, whose module is that of the stage that gathers its shards, if it has any."""

    def command(suite_file: Path, out: Path, **given: Any) -> None:
        subject = {key: given.pop(key) for key in OPTIONS[STAGES[name].subject]}
        _execute(name, suite_file, out, subject, **given)

    for option in (OUT, *options, SUITE):
        command = option(command)
    main.command(command_name(name), help=summary)(command)


def _execute(name: str, suite_file: Path, out: Path, subject: dict[str, Any], **options: Any) -> None:
    from indm.pipeline.jobs import IMPORTED, Job
    from indm.process import is_first, limit_threads, unset_fpmath
    from indm.suite.load import load_suite, suite_sha256

    suite = load_suite(suite_file)
    # An imported checkpoint replaces a training, but it is not made from the training images.
    imported = name == "import_checkpoint"
    job = Job("train" if imported else name, "-".join(map(str, subject.values())))
    _check_subject(suite, suite_file, *job)
    limit_threads(suite.threads)
    unset_fpmath()

    # After that: they import NumPy and torch, which read the environment once.
    from indm.pipeline.identity import Identity
    from indm.pipeline.stamps import check_started, job_stamp
    from indm.pipeline.track import check_tracked
    from indm.store.layout import Layout
    from indm.store.scratch import removed_at_the_end

    layout, stamp = Layout(out, suite.suite), job_stamp(suite, name, job.subject)
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
    with _watched(layout, job), removed_at_the_end():
        stage = importlib.import_module(f"indm.stages.{gathering(name)}")
        finished: Finished = stage.run(suite, layout, *subject.values(), **options)
        # Of several processes that torchrun has started, the first one writes.
        if not is_first():
            return
        _record_provenance(finished, name, source, time.monotonic() - started, suite.threads)
        # Without it, there are no results.
        identity.record(job, inputs, name)


def _watched(layout: "Layout", job: "Job") -> contextlib.AbstractContextManager[None]:
    """Write how a job goes to where ``indm status`` looks."""
    from indm.process import is_first
    from indm.progress import watched

    if not is_first():
        return contextlib.nullcontext()
    return watched(layout.watch(*job), goes_on=layout.scratch(job.subject, job.stage).exists())


def _record_provenance(finished: "Finished", name: str, source: dict[str, Any], seconds: float, threads: int) -> None:
    from indm.store.files import write_json
    from indm.store.provenance import STANDS_FOR, provenance, record_names

    folder = finished.folder / "provenance"
    for other in record_names(STANDS_FOR.get(name, name)):
        (folder / f"{other}.json").unlink(missing_ok=True)
    write_json(
        folder / f"{name}.json", source | provenance(seconds + finished.earlier, threads) | dict(finished.computed_on)
    )


def _seed(suite: Any, dataset: str | None = None, run: str | None = None, **_: Any) -> int | None:
    """Find the seed of what a stage works on, a run's or a dataset's; tables have none, and ``toy2d`` has many."""
    if run is not None:
        return int(suite.runs[run].seed)
    return int(suite.datasets[dataset].split_seed) if dataset is not None else None


def _check_subject(suite: Any, suite_file: Path, stage: str, subject: str) -> None:
    """Refuse a subject that the suite lacks, or for which the stage has no job."""
    from indm.errors import ParamsError

    kind, found = STAGES[stage].subject, STAGES[stage].subjects(suite)
    if subject not in found:
        expected = ", ".join(found) or "none"
        raise ParamsError(
            f"{suite_file}: found no job of stage {stage} for {kind} {subject!r}, expected one of: {expected}"
        )


SUBJECTS = {"dataset": DATASET, "run": RUN, "shard": SHARD, "toy": TOY}
for _name, _description in STAGES.items():
    _options = [
        *(SUBJECTS[option] for option in OPTIONS[_description.subject]),
        *([REPORTS] if _description.reports else []),
    ]
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
    """Use a checkpoint of score_sde_pytorch, or of the released INDM code, instead of a run's training."""
    _execute("import_checkpoint", suite_file, out, {"run": run}, **files)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def init(folder: Path) -> None:
    """Copy suites, claims and Snakemake's rules to FOLDER, to run suites there without a checkout."""
    from indm.shipped import write_checkout

    write_checkout(folder)
    click.echo(f"{folder}: ready; next: cd {folder} && snakemake --cores all")


@main.command()
@SUITE
@OUT
@click.option(
    "--track", is_flag=True, help="Also write what DVC tracks: the suite in full, and the stamps of the code."
)
def validate(suite_file: Path, out: Path, track: bool) -> None:
    """Check a suite file, and the claims, published numbers and registrations beside it; print their mistakes only."""
    from indm.suite.claims import load_claims
    from indm.suite.load import load_suite
    from indm.suite.published import load_published
    from indm.suite.registrations import load_registrations

    load_suite(suite_file, with_data=True)
    load_claims(suite_file.parent / "claims.yaml")
    load_published(suite_file.parent / "published.csv")
    load_registrations(suite_file.parent / "registrations.yaml")
    if track:
        from indm.pipeline.track import track as write_tracked

        write_tracked(suite_file, out)


@main.command()
@click.option("--suite", "suite_file", type=SUITE_FILE, help="The suite; without it, everything is checked.")
@OUT
@DATA_ROOT
def doctor(suite_file: Path | None, out: Path, data_root: Path | None) -> None:
    """Say what is ready on this machine and what is missing; exit with 1 if the suite (default: digits) cannot run."""
    from indm.doctor.examine import examine

    report = examine(suite_file, out, data_root)
    click.echo(report.page)
    sys.exit(not report.can_run)


@main.command()
@click.argument("tables", nargs=-1, type=click.Choice(SHOWN), metavar="[TABLE]...")
@LOOKED_AT
@OUT
def show(tables: tuple[str, ...], suite_file: Path, out: Path) -> None:
    """Print the tables of a suite, or those named: fid, nll, claims, ..."""
    from indm.report.show import show as shown
    from indm.store.layout import Layout
    from indm.suite.expand import expand_suite
    from indm.terminal import console

    layout = Layout(out, suite_file.stem)
    # Where there are neither results nor a suite of that name, it says so, and which suites there are.
    if not layout.suite_folder.is_dir() and not suite_file.is_file() and suite_file.parent.is_dir():
        expand_suite(suite_file)
    console().print(*shown(layout, tables), sep="\n")


@main.command()
@LOOKED_AT
@OUT
@REPORTS
@click.option("--watch", is_flag=True, help="Refresh every two seconds, until all is done or Ctrl-C.")
def status(suite_file: Path, out: Path, reports: Path, watch: bool) -> None:
    """Show how far each run of a suite is: stage, step, loss, time left, last save; and what failed, with its log."""
    from indm.pipeline.identity import Identity
    from indm.store.layout import Layout
    from indm.suite.load import load_suite
    from indm.terminal import console
    from indm.watching.status import Board

    suite = load_suite(suite_file)
    board = Board(suite, Layout(out, suite.suite), Identity(suite, out, reports))
    if watch:
        board.watch()
    else:
        console().print(board.page())


@main.command()
@click.argument("stage", default="")
@click.option("--run", help="Only jobs of this run.")
@click.option("--dataset", help="Only jobs of this dataset.")
@click.option("--toy", help="Only jobs of this two-dimensional dataset.")
@LOOKED_AT
@OUT
@REPORTS
def why(suite_file: Path, out: Path, reports: Path, stage: str, **names: str | None) -> None:
    """Explain which jobs would run again, and what changed since their results were made: code, suite or inputs.

    With STAGE or a name, explain only these jobs, and what is behind them.
    """
    from indm.pipeline.identity import Identity
    from indm.pipeline.why import page
    from indm.pipeline.why import why as explain
    from indm.suite.load import load_suite
    from indm.terminal import console

    answer = explain(Identity(load_suite(suite_file), out, reports), stage, **names)
    # Lines of any length: places can be copied, and searched for.
    console().print(page(answer), soft_wrap=True)


@main.command()
@LOOKED_AT
@OUT
def tensorboard(suite_file: Path, out: Path) -> None:
    """Convert the progress lines of a suite's stages to TensorBoard events, in <out>/<suite>/watch/events."""
    from indm.store.layout import Layout
    from indm.suite.load import load_suite
    from indm.watching.events import write_events

    suite = load_suite(suite_file)
    folder, count = write_events(suite, Layout(out, suite.suite))
    click.echo(f"{count} curves; see them with: tensorboard --logdir {folder}")


@main.command()
@click.argument("published", type=click.Path(path_type=Path, file_okay=False, exists=True))
@OUT
def compare(published: Path, out: Path) -> None:
    """Compare a suite's results with those PUBLISHED in a folder of its name, docs/results/<suite>.

    Exits with 0 if they agree, with 1 if not, and with 2 if they cannot be compared.
    """
    from indm.report.agreement import agreement
    from indm.store.layout import Layout

    found = agreement(published, Layout(out, published.resolve().name))
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
    """Pack the finished results of a suite, all that tables, claims and the page need, into archives small enough for git."""
    _move("keep", suite_file, out, root, replace)


@main.command()
@SUITE
@OUT
@click.option(
    "--from", "root", type=_FOLDER, default=ROOT, show_default=True, help="Archives are in <from>/<suite>/kept/."
)
@REPLACE
@click.option(
    "--accept",
    metavar="WHY",
    help="Restore what other code has made too, and record in <from>/<suite>/accepted.yaml what has changed since, and WHY it may.",
)
def restore(suite_file: Path, out: Path, root: Path, **options: Any) -> None:
    """Copy the kept results of a suite back to its results folder, unless suite or code have changed since."""
    _move("restore", suite_file, out, root, **options)


def _move(name: str, suite_file: Path, out: Path, root: Path, replace: bool, **options: str | None) -> None:
    """Keep or restore, and print the outcome for each folder; exit with 1 if one was refused, or nothing was there."""
    from indm.suite.load import load_suite

    suite = load_suite(suite_file)
    module = importlib.import_module(f"indm.kept.{name}")
    outcome = getattr(module, name)(suite, out, root / suite.suite / "kept", replace, **options)
    for line in outcome.lines():
        click.echo(f"indm {name}: {line}", err=True)
    sys.exit(outcome.failed)


@main.command()
@SUITE
@OUT
@REPORTS
@click.option("--to", "root", type=_FOLDER, default=ROOT, show_default=True, help="Files go to <to>/<suite>/.")
@click.option(
    "--weights",
    "runs",
    multiple=True,
    help="A run whose averaged weights are published too; repeat the option for each.",
)
def publish(suite_file: Path, out: Path, reports: Path, root: Path, runs: tuple[str, ...]) -> None:
    """Copy a suite's tables, figures, pictures and provenance to a folder for git, and list them in its README.md."""
    from indm.suite.load import load_suite

    suite = load_suite(suite_file)
    from indm.kept.publish import Places
    from indm.kept.publish import publish as write_folder

    found = write_folder(suite, Places(out, reports, root / suite.suite), runs)
    click.echo(f"{found.target}: {len(found.sizes)} files, {sum(found.sizes.values()) / 2**20:.1f} MiB")


@main.command()
@SUITE
@click.option("--note", default="", help="A remark on the registration; the page shows it.")
def register(suite_file: Path, note: str) -> None:
    """Record, before a run, that the commit that is checked out has this suite and the claims."""
    from indm.register import register as write_entry

    entry = write_entry(suite_file, note)
    click.echo(f"{suite_file}: registered in commit {entry.commit} of {entry.date}; commit registrations.yaml now")


@main.command()
def schema() -> None:
    """Print the JSON schema of suite files, which params/schema.json holds."""
    from indm.suite.load import json_schema

    click.echo(json_schema(), nl=False)
