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
from typing import Any

import click

from indm import __version__
from indm.errors import IndmError

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
DATASET = click.option("--dataset", required=True, help="A dataset of the suite.")
RUN = click.option("--run", required=True, help="A run of the suite.")
REPORTS = click.option(
    "--reports",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("reports"),
    show_default=True,
    help="The reports folder; files go to <reports>/<suite>/.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="indm")
def main() -> None:
    """Reproduce "Maximum Likelihood Training of Implicit Nonlinear Diffusion Models" (arXiv:2205.13699)."""


def _stage(name: str, summary: str, *options: Callable[..., Any]) -> None:
    """Register stage ``name``, whose module is ``indm.stages.<name>``."""

    def command(suite_file: Path, out: Path, reports: Path | None = None, **subject: str) -> None:
        files = {} if reports is None else {"reports": reports}
        try:
            _execute(name, suite_file, out, subject, **files)
        except IndmError as error:
            sys.exit("\n".join(f"indm {name}: {line}" for line in str(error).splitlines()))

    for option in (OUT, *options, SUITE):
        command = option(command)
    main.command(name, help=summary)(command)


def _execute(name: str, suite_file: Path, out: Path, subject: dict[str, str], **files: Any) -> None:  # noqa: ANN401
    from indm.artifacts import Layout, provenance, write_json
    from indm.params import load_suite

    suite = load_suite(suite_file)
    _check_subject(suite, suite_file, **subject)
    # Before numpy and torch are imported: their thread pools read these once.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(suite.threads)
    started = time.monotonic()
    folder = importlib.import_module(f"indm.stages.{name}").run(
        suite, Layout(out, suite.suite), *subject.values(), **files
    )
    write_json(folder / "provenance" / f"{name}.json", provenance(time.monotonic() - started))


def _check_subject(suite: Any, suite_file: Path, dataset: str | None = None, run: str | None = None) -> None:  # noqa: ANN401
    from indm.errors import ParamsError

    if dataset is not None and dataset not in suite.datasets:
        raise ParamsError(f"{suite_file}: no dataset {dataset!r}; datasets: {', '.join(suite.datasets)}")
    if run is not None and run not in suite.runs:
        raise ParamsError(f"{suite_file}: no run {run!r}; runs: {', '.join(suite.runs)}")


_stage("prepare", "Load a dataset, split it and write its arrays.", DATASET)
_stage("reference", "Train a dataset's feature extractor; measure the floors of FID and KID.", DATASET)
_stage("train", "Train a run's model.", RUN)
_stage("sample", "Draw images from a trained run.", RUN)
_stage("fid", "Compare a run's images with the training split: FID and KID.", RUN)
_stage("nll", "Evaluate the four likelihood numbers of a trained run on the test split.", RUN)
_stage("table", "Collect the suite's results in its tables.")
_stage("figure", "Draw the suite's figures from its tables.", REPORTS)
_stage("report", "Write the suite's page from its tables, figures and pictures.", REPORTS)


_FILE = click.Path(path_type=Path, dir_okay=False)


@main.command("import-checkpoint")
@SUITE
@RUN
@OUT
@click.option("--config", type=_FILE, required=True, help="The released configuration, as JSON.")
@click.option("--score", type=_FILE, required=True, help="The released checkpoint_k.pth.")
@click.option("--flow", type=_FILE, help="The released flow_checkpoint_k.pth, for a run with a flow.")
@click.option("--wolf-config", type=_FILE, help="The released file under flow.model_config; the paper's by default.")
@click.option(
    "--flow-weights",
    type=click.Choice(["ema", "raw"]),
    default="ema",
    show_default=True,
    help="The flow's averaged weights, or the raw ones, as in the released evaluation.",
)
def import_checkpoint(suite_file: Path, out: Path, run: str, **files: Any) -> None:  # noqa: ANN401
    """Put a checkpoint of score_sde_pytorch or of the released INDM code in the place of a run's training."""
    try:
        _execute("import_checkpoint", suite_file, out, {"run": run}, **files)
    except IndmError as error:
        sys.exit("\n".join(f"indm import-checkpoint: {line}" for line in str(error).splitlines()))


@main.command()
@SUITE
def validate(suite_file: Path) -> None:
    """Check a suite file and say nothing but its mistakes."""
    from indm.params import load_suite

    try:
        load_suite(suite_file)
    except IndmError as error:
        sys.exit("\n".join(f"indm validate: {line}" for line in str(error).splitlines()))


@main.command()
@OUT
def show(out: Path) -> None:
    """Print the tables of the active suite for reading."""
    import pandas as pd

    from indm.report import present

    for name, unit in (("fid", "FID and KID"), ("nll", "likelihoods, bits/dim")):
        path = out / f"table_{name}.csv"
        if not path.is_file():
            sys.exit(f"indm show: {path}: missing; make it with: snakemake --cores all {path}")
        click.echo(f"\n{path}: {unit}\n\n{present(pd.read_csv(path))}")


@main.command()
def schema() -> None:
    """Print the JSON schema of suite files, which params/schema.json holds."""
    from indm.params import json_schema

    click.echo(json_schema(), nl=False)
