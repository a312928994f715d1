"""The command line: commands and their options.

The code of a command is imported when it is called, so that ``--help`` and ``table`` do not import torch.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from indm import __version__
from indm.bench.pipeline.stages import OPTIONS, STAGES, command_name
from indm.errors import IndmError
from indm.foreign.kinds import ALIASES, GRIDS, KINDS, SECONDS
from indm.report.catalogue import SHOWN
from indm.shipped import DEFAULT_SUITE
from indm.terminal import Commands, WordOption, console

if TYPE_CHECKING:
    from indm.bench.kept.keep import Outcome
    from indm.bench.pipeline.input_check import InputCheck

PLACE = click.Path(path_type=Path, exists=True)
FILE, FOLDER = click.Path(path_type=Path, dir_okay=False), click.Path(path_type=Path, file_okay=False)
KEPT = "docs/results"


class PublishedFolder(click.Path):
    """The published results of a suite, by its name, or by their folder."""

    name = "published"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of the folder."""
        is_name = isinstance(value, str) and "/" not in value and not Path(value).is_dir()
        return super().convert(f"{KEPT}/{value}" if is_name else value, param, ctx)


class SuiteFile(click.Path):
    """A suite by its name, ``paper`` or ``paper.yaml``, or by its file, ``params/paper.yaml``."""

    name = "suite"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of the file."""
        is_file = str(value).endswith(".yaml") and Path(value).is_file()
        is_name = isinstance(value, str) and "/" not in value and not is_file
        return super().convert(f"params/{value.removesuffix('.yaml')}.yaml" if is_name else value, param, ctx)


SUITE_FILE = SuiteFile(path_type=Path, dir_okay=False)


def _suite(**options: Any) -> Callable[..., Any]:
    """Declare a suite as an option."""
    options = {"help": "The suite: its name, or its file.", "metavar": "SUITE", **options}
    return click.option("-s", "--suite", "suite_file", type=SUITE_FILE, **options)


def _word(option: Callable[..., Any], name: str, kind: Any, metavar: str) -> Callable[..., Any]:
    """Declare the bare word that stands for an option."""
    argument = click.argument(name, required=False, type=kind, metavar=metavar, expose_value=False)
    return lambda command: argument(option(command))


def _subject(name: str, text: str) -> Callable[..., Any]:
    """Declare what a stage works on: the word behind the suite, or an option."""
    word = f"{name}_word"
    option = click.option(f"--{name}", cls=WordOption, word=word, needed=True, metavar=name.upper(), help=text)
    return _word(option, word, str, name.upper())


def _folder(option: str, default: str, text: str, *names: str) -> Callable[..., Any]:
    return click.option(option, *names, type=FOLDER, default=Path(default), show_default=True, help=text)


# The referee's exit code for a report that warns.
WARNED = 2


def _page(default: str) -> Callable[..., Any]:
    return click.option("--page", type=FILE, default=default, show_default=True, help="The report, in Markdown.")


SUITE = _word(_suite(cls=WordOption, word="suite", needed=True), "suite", SUITE_FILE, "SUITE")
# For commands that need no suite: the one of the README's first example.
DEFAULTED = {"cls": WordOption, "word": "suite", "help": f"The suite.  [default: {DEFAULT_SUITE}]"}
LOOKED_AT = _word(_suite(default=DEFAULT_SUITE, **DEFAULTED), "suite", SUITE_FILE, "[SUITE]")
OUT = _folder("--out", "results", "The results folder; files go to <out>/<suite>/.")
REPORTS = _folder("--reports", "reports", "The reports folder; files go to <reports>/<suite>/.")
DATA_ROOT = click.option(
    "--data-root", type=FOLDER, help="The folder of the datasets' archives.  [default: INDM_DATA, or data]"
)
SUBJECTS = {
    "dataset": _subject("dataset", "A dataset of the suite."),
    "run": _subject("run", "A run of the suite."),
    "shard": click.option("--shard", type=int, required=True, help="Which of the run's shards: 1, 2, ..."),
    "toy": _subject("toy", "A job on a known density in the suite."),
}
REPLACE = click.option("--replace", is_flag=True, help="Replace files that differ instead of refusing them.")
# The most used commands come first. Commands of stages are not listed: Snakemake and DVC run them.
SECTIONS = {
    "Start here": ["run", "show", "referee", "suites"],
    "Watch a suite": ["status", "tensorboard", "why", "doctor", "compare"],
    "Write a suite": ["init", "validate", "register", "schema", "stages"],
    "Judge a model of your own": ["enter", "verify", "measure", "import-checkpoint"],
    "Keep and share results": ["keep", "restore", "publish"],
}
# What to type in place of words that are no commands.
LEADS = {
    "check": "validate",
    "help": "--help",
    "list": "suites",
    "ls": "suites",
    "results": "show",
    "start": "run",
    "evaluate": "referee",
    "make": "run",
}


@click.group(
    cls=Commands,
    sections=SECTIONS,
    leads=LEADS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="indm")
def main() -> None:
    """Reproduce "Maximum Likelihood Training of Implicit Nonlinear Diffusion Models" (arXiv:2205.13699)."""


def _stage(name: str) -> None:
    """Declare the command of a stage."""
    stage = STAGES[name]

    def command(suite_file: Path, out: Path, **given: Any) -> None:
        from indm.bench.pipeline.runner import run_stage

        subject = {key: given.pop(key) for key in OPTIONS[stage.subject]}
        run_stage(name, suite_file, out, subject, **given)

    data_root, reports = [DATA_ROOT] if name == "prepare" else [], [REPORTS] if stage.reports else []
    subjects = [SUBJECTS[option] for option in OPTIONS[stage.subject]]
    for option in (OUT, *data_root, *subjects, *reports, SUITE):
        command = option(command)
    main.command(command_name(name), help=stage.summary)(command)


for _name in STAGES:
    _stage(_name)


@main.command("import-checkpoint")
@SUITE
@SUBJECTS["run"]
@OUT
@click.option("--config", type=FILE, required=True, help="The released configuration, as JSON.")
@click.option("--score", type=FILE, required=True, help="The released checkpoint_k.pth.")
@click.option("--flow", type=FILE, help="The released flow_checkpoint_k.pth, for a run with a flow.")
@click.option("--wolf-config", type=FILE, help="The released file under flow.model_config; the paper's by default.")
def import_checkpoint(suite_file: Path, out: Path, run: str, **files: Any) -> None:
    """Use a released checkpoint as a training.

    The checkpoint, of score_sde_pytorch or of the released INDM code, takes the place of a run's training.
    """
    from indm.bench.pipeline.runner import run_stage

    run_stage("import_checkpoint", suite_file, out, {"run": run}, **files)


@main.command()
def stages() -> None:
    """List the stages, which Snakemake and DVC run.

    Each is a command, too: indm STAGE --help.
    """
    width = max(map(len, STAGES))
    for name, stage in STAGES.items():
        click.echo(f"{command_name(name):{width}}  {stage.summary.partition('. ')[0].rstrip('.')}.")


@main.command()
@OUT
def suites(out: Path) -> None:
    """List the suites with purpose and cost.

    Says of each whether its results are published, and whether it has results here.
    """
    from indm.bench.suite.listed import suites_table

    console().print(suites_table(Path("params"), Path(KEPT), out))


@main.command()
@click.argument("folder", type=FOLDER)
def init(folder: Path) -> None:
    """Set up a folder in which suites can be run.

    Copies suites, claims and Snakemake's rules to FOLDER, so that no checkout is needed there.
    """
    from indm.shipped import write_checkout

    write_checkout(folder)
    click.echo(f"{folder}: ready; next: cd {folder} && indm run")


@main.command("run")
@LOOKED_AT
@click.option("--cores", default="all", show_default=True, help="Cores to use at most.")
def run_suite(suite_file: Path, cores: str) -> None:
    """Run a suite with Snakemake.

    Continues where an earlier execution has ended, and prints the address of the report.
    """
    if not Path("Snakefile").is_file():
        raise IndmError("Snakefile: missing; run in a checkout, or in a folder that indm init has made")
    suite = _name_in_params(suite_file)
    if not suite_file.is_file():
        from indm.bench.suite.expand import expand_suite

        # Its error lists the suites.
        expand_suite(suite_file)
    engine = [sys.executable, "-m", "indm.bench.watching.engine"]
    if code := _finish(subprocess.Popen([*engine, "--cores", cores, "--config", f"suite={suite}"])):
        sys.exit(code)
    click.echo(f"file://{Path('reports', suite, 'index.html').absolute()}")


def _finish(engine: "subprocess.Popen[bytes]") -> int:
    """Wait for an engine, after Ctrl-C too, which reaches the engine itself: it stops its jobs and removes its lock."""
    try:
        return engine.wait()
    except KeyboardInterrupt:
        with suppress(KeyboardInterrupt):
            engine.wait()
        raise


def _name_in_params(suite_file: Path) -> str:
    """Return the name by which ``params/`` has a suite; a file elsewhere would pass for the one of its name there."""
    if suite_file.suffix == ".yaml" and suite_file.parent.resolve() == Path("params").resolve():
        return suite_file.stem
    raise IndmError(
        f"{suite_file}: found a file that is no params/<suite>.yaml, expected a suite in params/ of this folder; copy it there, "
        "under a name of its own"
    )


@main.command()
@SUITE
@OUT
@click.option(
    "--track", is_flag=True, help="Also write the files that DVC tracks: the suite in full, and the stamps of the code."
)
def validate(suite_file: Path, out: Path, track: bool) -> None:
    """Check a suite file.

    Checks the claims, published numbers and registrations in its folder too, counts the FLOPs and parameters of controls,
    and builds models of parts that do not come with this package.
    """
    from indm.bench.models.buildable import check_models
    from indm.bench.models.controls import check_controls
    from indm.bench.suite.load import load_params
    from indm.bench.suite.registrations import changed_seeds
    from indm.report.registrations import load_registrations

    suite = load_params(suite_file, with_data=True)
    check_models(suite, suite_file)
    check_controls(suite, suite_file)
    click.echo(f"{suite.suite}: ok, {len(suite.runs)} runs")
    registrations = load_registrations(suite_file.parent / "registrations.yaml").suites
    if changes := changed_seeds(registrations.get(suite.suite), suite):
        click.echo(
            f"{suite.suite}: changed since registration: {changes}; verdicts on these seeds will be withheld", err=True
        )
    if track:
        from indm.bench.pipeline.track import track as write_tracked

        write_tracked(suite_file, out)


@main.command()
@_word(_suite(**DEFAULTED), "suite", SUITE_FILE, "[SUITE]")
@OUT
@DATA_ROOT
def doctor(suite_file: Path | None, out: Path, data_root: Path | None) -> None:
    """Check whether a suite can run here.

    Lists the archives, weights, disk and GPU that its remaining jobs need, and what is missing. Exits with 1 if it cannot run.
    """
    from indm.bench.doctor import examine

    page, can_run = examine(suite_file, out, data_root)
    click.echo(page)
    sys.exit(not can_run)


@main.command()
@click.argument("words", nargs=-1, metavar="[SUITE] [TABLE]...")
@_suite(default=DEFAULT_SUITE, show_default=True)
@click.option("--all", "every", is_flag=True, help="Print all tables that are not too long for a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows of the tables as JSON.")
@click.option("--published", is_flag=True, help="The results in docs/results, which need no run.")
@OUT
def show(words: tuple[str, ...], suite_file: Path, out: Path, every: bool, as_json: bool, published: bool) -> None:
    """Print claims and main tables of a suite.

    With TABLE, only those: fid, nll, claims, ...
    """
    from difflib import get_close_matches

    from indm.bench.suite.expand import expand_suite, suite_files
    from indm.report.export import rows_as_json
    from indm.report.show import show as shown
    from indm.store.layout import Layout

    suite_file, tables = _suite_first(words, suite_file, SHOWN)
    if wrong := [word for word in tables if word not in SHOWN]:
        suites = [path.stem for path in suite_files(Path("params"))]
        close = "".join(f"; did you mean {name}?" for name in get_close_matches(wrong[0], [*suites, *SHOWN], n=1))
        raise click.UsageError(f"found {wrong[0]!r}, expected a suite in params/ or a table: {', '.join(SHOWN)}{close}")
    layout = Layout(Path(KEPT) if published else out, _name_in_params(suite_file))
    # If there are neither results nor a suite of that name, the error lists the suites.
    if not layout.suite_folder.is_dir() and not suite_file.is_file() and suite_file.parent.is_dir():
        expand_suite(suite_file)
    if as_json:
        click.echo(rows_as_json(layout, tables or SHOWN))
    else:
        console().print(*shown(layout, tables, every), sep="\n")


def _suite_first(words: tuple[str, ...], suite_file: Path, others: Iterable[str]) -> tuple[Path, tuple[str, ...]]:
    """Take the suite from a command's words if the first one names a suite, and none of the other things that it may name."""
    if words and words[0] not in others and (named := Path(f"params/{words[0]}.yaml")).is_file():
        return named, words[1:]
    return suite_file, words


def _checks(suite_file: Path, out: Path, reports: Path = Path("reports")) -> "InputCheck":
    from indm.bench.pipeline.input_check import InputCheck
    from indm.bench.suite.load import load_suite

    return InputCheck(load_suite(suite_file), out, reports)


@main.command()
@LOOKED_AT
@OUT
@REPORTS
@click.option("--watch", is_flag=True, help="Refresh every two seconds, until all is done or Ctrl-C.")
def status(suite_file: Path, out: Path, reports: Path, watch: bool) -> None:
    """Show the progress of each run of a suite.

    Shows stage, step, loss, time left and last save, and the logs of failed jobs.
    """
    from indm.bench.watching.status import Board

    Board(_checks(suite_file, out, reports)).show(watch)


@main.command()
@click.argument("words", nargs=-1, metavar="[SUITE] [STAGE]")
@click.option("--run", help="Only jobs of this run.")
@click.option("--dataset", help="Only jobs of this dataset.")
@click.option("--toy", help="Only this job on a known density.")
@_suite(default=DEFAULT_SUITE, show_default=True)
@OUT
@REPORTS
def why(words: tuple[str, ...], suite_file: Path, out: Path, reports: Path, **names: str | None) -> None:
    """Explain which jobs would run again.

    Shows which code, suite keys or inputs have changed since their results were made. With STAGE or a name, explains only
    these jobs and the jobs on which they depend.
    """
    from indm.bench.pipeline.why import lines
    from indm.bench.pipeline.why import why as explain

    suite_file, stages = _suite_first(words, suite_file, STAGES)
    if stages[1:]:
        raise click.UsageError(
            f"found {' '.join(words)!r}, expected a suite in params/, a stage, or both in this order"
        )
    click.echo("\n".join(lines(explain(_checks(suite_file, out, reports), "".join(stages), **names))))


@main.command()
@LOOKED_AT
@OUT
def tensorboard(suite_file: Path, out: Path) -> None:
    """Convert a suite's curves for TensorBoard.

    Reads the progress lines of its stages, and writes events to <out>/<suite>/watch/events.
    """
    from indm.bench.watching.events import write_events

    known = _checks(suite_file, out)
    folder, count = write_events(known.suite, known.layout)
    click.echo(f"{count} curves; see them with: tensorboard --logdir {folder}")


@main.command()
@click.argument("published", type=PublishedFolder(path_type=Path, file_okay=False, exists=True))
@OUT
def compare(published: Path, out: Path) -> None:
    """Compare a suite with published results.

    PUBLISHED is a suite, or a folder of the suite's name, docs/results/<suite>. Exits with 0 if the results agree, with 1 if
    not, and with 2 if they cannot be compared.
    """
    from indm.report.agreement import agreement
    from indm.store.layout import Layout

    found = agreement(published, Layout(out, published.resolve().name))
    click.echo("\n".join(found.lines()))
    sys.exit(not found.agrees)


@main.command()
@click.argument("network", metavar="MODULE:FUNCTION")
@click.option(
    "--images", type=PLACE, required=True, help="Test images: a folder of PNG files, or an .npy file of levels."
)
@click.option(
    "--kind", type=click.Choice([*KINDS, *ALIASES]), help="What it estimates.  [default: noise, or its scheduler's]"
)
@click.option(
    "--second", metavar="|".join(SECONDS), help="What it gets as its second argument.  [default: the one of its kind]"
)
@click.option(
    "--sde",
    required=True,
    metavar="DIFFUSION",
    help="The diffusion of its training: vp, ve, cosine, sigmoid, or yours as MODULE:NAME.",
)
@click.option(
    "--ends",
    type=(float, float),
    help="beta_min and beta_max of vp, or sigma_min and sigma_max of ve.  [default: 0.1 20, or 0.01 50]",
)
@click.option(
    "--conditions", type=FILE, help="Labels or context of each image, its third argument: an .npy file, (N, *)."
)
@click.option("--zero-one", is_flag=True, help="Its data were in [0, 1], not in [-1, 1].")
@click.option(
    "--data-range",
    type=(float, float),
    help="Both ends of its data's range; standardised by m and s, -m/s and (1 - m)/s.  [default: -1 1]",
)
@click.option("--levels", default=256, show_default=True, help="Levels of a pixel.")
@click.option("--eps", type=float, help="The truncation time.  [default: 1e-5, or its scheduler's first step]")
@click.option("--claimed", type=float, help="Your own number in bits/dim, which the report explains.")
@click.option("--time-draws", default=80, show_default=True, help="Times of the bound for each image.")
@click.option("--ode-steps", default=64, show_default=True, help="Steps of the ODE.")
@click.option("--steps", type=int, help="Bounds of DDPM and VDM of so many steps, too.")
@click.option(
    "--grid",
    type=click.Choice([*GRIDS]),
    default="ends",
    show_default=True,
    help="Where levels lie in lossless bounds.",
)
@click.option("--batch-size", default=100, show_default=True, help="Images evaluated at once.")
@click.option("--seed", default=0, show_default=True, help="Seed of all random numbers.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Its device.")
@click.option(
    "--allow-varying", is_flag=True, help="Accept a network whose output varies between calls or with the batch."
)
@click.option("--json", "data", type=FILE, help="All numbers, words and arguments, as JSON.")
@_page("referee.md")
def referee(
    images: Path,
    network: str,
    sde: str,
    ends: tuple[float, float] | None,
    conditions: Path | None,
    zero_one: bool,
    device: str,
    data: Path | None,
    page: Path,
    **given: Any,
) -> None:
    """Evaluate your network's likelihood.

    Exits with 0 if nothing is wrong, with 1 if the network is refused, and with 2 if the report warns. The network's description is
    checked, too. The network is a function of an input and a condition, such as my_model:network for the
    function network in my_model.py. Prints what is wrong with its description, NELBO and NLL with their errors and their meaning,
    and the number that each common mistake would give.
    """
    from indm.foreign.files import read_array, read_images
    from indm.foreign.likelihood import referee as judge
    from indm.foreign.network import find_network, find_sde
    from indm.process import set_up

    given |= {"centered": not zero_one, "device": str(set_up(device, os.cpu_count() or 1))}
    given["conditions"] = None if conditions is None else read_array(conditions)
    report = judge(find_network(network), find_sde(sde, ends), read_images(images), **given)
    if data is not None:
        from indm.store.files import atomic_write

        with atomic_write(data) as file:
            file.write(report.to_json().encode())
    _write(page, str(report))
    if report.status != "ok":
        sys.exit(WARNED)


@main.command()
@click.argument("samples", type=PLACE)
@click.option("--dataset", required=True, help="A dataset of the suite.")
@_suite(default=DEFAULT_SUITE, show_default=True)
@click.option("--levels", default=256, show_default=True, help="Levels of a pixel of the samples.")
@OUT
@DATA_ROOT
@_page("measure.md")
def measure(suite_file: Path, page: Path, **given: Any) -> None:
    """Compare your samples with a dataset.

    SAMPLES is a folder of PNG files, or an .npy file of levels. Prints FID, KID, precision and recall by the protocol of the
    suite, and draws nearest neighbours next to PAGE.
    """
    from indm.bench.measure import measure as compared
    from indm.bench.measure import page as written

    picture = page.with_suffix(".png")
    _write(page, written(compared(suite_file=suite_file, picture=picture, **given), picture))


CORES = click.option("--cores", default=1, show_default=True, type=click.IntRange(1), help="Trainings at a time.")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--track", required=True, help="The track: its name in params/tracks, or its file.")
@_folder("--out", "entries", "The folder of the entry is <out>/<track>/<label>.")
@click.option(
    "--nonce", default="", help="A text that became public after FILE, for other seeds: a maintainer's confirmation."
)
@CORES
def enter(file: Path, track: str, out: Path, nonce: str, cores: int) -> None:
    """Judge your own map on a track.

    Trains the map or forward process of FILE, DDPM++ and the track's record with equal operations, on seeds that follow from
    FILE, and writes a folder that others can check.
    """
    from indm.bench.entries.enter import enter as judged
    from indm.bench.entries.tracks import load_track

    _one_thread()
    folder = judged(file, load_track(track), out, nonce, cores)
    click.echo(folder.page(), nl=False)
    click.echo(f"{folder.path}: written; check it with: indm verify {folder.path}", err=True)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--track", help="The track's file, if it is not in params/tracks.")
@click.option("--no-code", is_flag=True, help="Do not run the entry's code.")
@click.option("--full", is_flag=True, help="Train everything again.")
@CORES
def verify(folder: Path, track: str | None, no_code: bool, full: bool, cores: int) -> None:
    """Check the folder of an entry.

    Recomputes seeds, steps, operations and verdicts, trains the first steps of one training again, and lists what was not
    checked. Exits with 1 if a check has failed. An entry is its author's code, and can read what this machine can read.
    """
    from indm.bench.entries.folder import read_folder
    from indm.bench.entries.tracks import load_track
    from indm.bench.entries.verify import FAILED
    from indm.bench.entries.verify import verify as check

    if no_code and full:
        raise click.UsageError("found --no-code with --full, which trains the entry; leave one of them out")
    if not no_code:
        _one_thread()
    loaded, failed = load_track(track or read_folder(folder).about.track), False
    for finding in check(folder, loaded, code=not no_code, full=full, cores=cores):
        click.echo(str(finding))
        failed |= finding.outcome == FAILED
    sys.exit(failed)


def _one_thread() -> None:
    """Compute as stages do, with one thread in each process."""
    from indm.process import set_environment, set_up

    set_environment(1)
    set_up("cpu", 1)


def _write(page: Path, text: str) -> None:
    """Write a page, and print it."""
    from indm.store.files import atomic_write

    with atomic_write(page) as file:
        file.write(text.encode())
    click.echo(text, nl=False)


@main.command()
@SUITE
@OUT
@_folder("--to", KEPT, "Archives go to <to>/<suite>/kept/.", "root")
@REPLACE
def keep(suite_file: Path, out: Path, root: Path, replace: bool) -> None:
    """Pack a suite's finished results for git.

    The archives are small, and contain everything that tables, claims and the report need.
    """
    from indm.bench.kept.keep import keep as pack

    checks = _checks(suite_file, out)
    _tell("keep", pack(checks, root / checks.suite.suite / "kept", replace))


@main.command()
@SUITE
@OUT
@_folder("--from", KEPT, "Archives are in <from>/<suite>/kept/.", "root")
@REPLACE
@click.option(
    "--dvc", is_flag=True, help="Write them into dvc.lock too, for dvc repro --allow-missing; --out is results."
)
def restore(suite_file: Path, out: Path, root: Path, replace: bool, dvc: bool) -> None:
    """Unpack a suite's kept results.

    Copies them back to the results folder, unless they are damaged or the suite has changed since, and states how the code has.
    """
    from indm.bench.kept.adopt import adopt, pipeline_of
    from indm.bench.kept.keep import restore as unpack

    checks = _checks(suite_file, out)
    pipeline = pipeline_of(checks.suite) if dvc else None
    outcome = unpack(checks, root / checks.suite.suite / "kept", replace)
    if pipeline is not None:
        adopt(checks.suite, pipeline, outcome.came)
    _tell("restore", outcome)


def _tell(name: str, outcome: "Outcome") -> NoReturn:
    """Print the outcome of each folder; exit with 1 if a folder was refused or there was no folder."""
    for line in outcome.lines():
        click.echo(f"indm {name}: {line}", err=True)
    sys.exit(outcome.failed)


@main.command()
@SUITE
@OUT
@REPORTS
@_folder("--to", KEPT, "Files go to <to>/<suite>/.", "root")
@click.option(
    "--weights",
    "runs",
    multiple=True,
    help="A run whose averaged weights are published too; repeat the option for each.",
)
def publish(suite_file: Path, out: Path, reports: Path, root: Path, runs: tuple[str, ...]) -> None:
    """Copy a suite's tables and figures for git.

    Copies pictures and provenance too, and lists all files in the folder's README.md.
    """
    from indm.bench.kept.publish import publish as write_folder
    from indm.store.sums import write_sums

    known = _checks(suite_file, out, reports)
    found = write_folder(known, root / known.suite.suite, runs)
    write_sums(found.target)
    click.echo(f"{found.target}: {len(found.sizes)} files, {sum(found.sizes.values()) / 2**20:.1f} MiB")


@main.command()
@SUITE
@click.option("--note", default="", help="A remark on the registration, shown in the report.")
def register(suite_file: Path, note: str) -> None:
    """Record a suite and the claims before a run.

    The registration names the commit that is checked out, which must contain both.
    """
    from indm.bench.register import register as write_entry

    entry = write_entry(suite_file, note)
    click.echo(f"{suite_file}: registered in commit {entry.commit} of {entry.date}; commit registrations.yaml now")


@main.command()
def schema() -> None:
    """Print the JSON schema of suite files.

    It is the text of params/schema.json, which editors read.
    """
    from indm.bench.suite.load import json_schema

    click.echo(json_schema(), nl=False)
