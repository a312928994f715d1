"""The lines that ``indm run`` prints in place of Snakemake's log."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from indm.bench.watching.engine import Lines, LogHandler, cause

ERROR = "indm: results/smoke: found no checkpoint, expected one; run train"
SNAKEFILE = f"""
rule all:
    input: "report.html", "nll.json"
rule train:
    output: "weights"
    message: "train a"
    shell: ": > {{output}}; exec sleep SECONDS"
rule nll:
    input: "weights"
    output: "nll.json"
    log: "logs/nll/a.log"
    message: "nll a"
    shell: "echo '{ERROR}' > {{log}}; test -e mended && touch {{output}}"
rule publish:
    input: "weights"
    output: "copy"
    message: "publish copy"
    shell: "touch {{output}}"
rule report:
    input: "copy"
    output: "report.html"
    message: "report"
    shell: "touch {{output}}"
"""


def start(folder: Path, seconds: float = 0, snakefile: str = SNAKEFILE) -> "subprocess.Popen[str]":
    """Start Snakemake on a small workflow, whose ``nll`` fails, as the head of a process group of its own."""
    (folder / "Snakefile").write_text(snakefile.replace("SECONDS", str(seconds)))
    command = [sys.executable, "-m", "indm.bench.watching.engine", "--cores", "1", "--keep-going"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_each_job_of_snakemake_has_a_line_and_its_log_a_name(tmp_path: Path) -> None:
    engine = start(tmp_path)
    _, said = engine.communicate()
    assert engine.returncode == 1
    plan, *jobs, end = said.splitlines()
    named = re.fullmatch(r"Jobs: 3; Snakemake's log: (\.snakemake/log/\S+)", plan)
    assert named, said
    assert "test -e mended" in (tmp_path / named[1]).read_text()
    # The copy has none. Jobs that wait for the same one come in any order.
    assert jobs[0].startswith("1/3  train a: "), said
    failed, report = sorted(jobs[1:], key=lambda line: line.partition("  ")[2])
    assert re.fullmatch(rf"[12]/3  nll a: failed after \d+ s: {re.escape(ERROR)}; log: logs/nll/a\.log", failed), said
    assert re.match(r"2/3  report: \d+ s", report), said
    assert re.fullmatch(r"2/3 jobs done, 1 failed, in \d+ s", end), said

    (tmp_path / "mended").touch()
    engine = start(tmp_path)
    _, said = engine.communicate()
    assert (engine.returncode, len(said.splitlines())) == (0, 3), said
    assert re.match(r"Jobs: 1; .*\n1/1  nll a: \d+ s\n1/1 jobs done, in", said), said


def test_ctrl_c_ends_jobs_and_leaves_no_lock(tmp_path: Path) -> None:
    engine = start(tmp_path, seconds=100)
    while not (tmp_path / "weights").exists():
        assert engine.poll() is None
        time.sleep(0.05)
    os.killpg(engine.pid, signal.SIGINT)
    _, said = engine.communicate(timeout=60)
    assert engine.returncode == 1
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("0/3 jobs done"), said
    assert [*tmp_path.glob(".snakemake/locks/*")] == []


def test_a_mistake_in_the_workflow_is_shown(tmp_path: Path) -> None:
    engine = start(tmp_path, snakefile='rule all:\n    input: "no-rule-makes-this"\n')
    _, said = engine.communicate()
    assert engine.returncode == 1
    assert "no-rule-makes-this" in said


def said(lines: Lines, event: LogEvent | None, seconds: float, **content: Any) -> str | None:
    return lines.line(logging.makeLogRecord({"event": event, "created": 1000.0 + seconds, **content}))


def job(lines: Lines, number: int, stage: str, begin: float, end: float) -> str | None:
    """Pass a job of a stage, and return the line of its end."""
    assert said(lines, LogEvent.JOB_INFO, begin, jobid=number, rule_name=stage, rule_msg=f"{stage} {number}") is None
    return said(lines, LogEvent.JOB_FINISHED, end, job_id=number)


def planned(**stats: int) -> Lines:
    lines = Lines()
    said(lines, LogEvent.RUN_INFO, 0, stats={**stats, "publish": 4, "all": 1, "total": sum(stats.values()) + 5})
    return lines


def test_what_is_left_is_an_estimate_by_stage() -> None:
    lines = planned(train=3, nll=10)
    # Of nll nothing is known.
    assert job(lines, 1, "train", 0, 60) == " 1/13  train 1: 60 s; left: over 2 min"
    assert job(lines, 2, "nll", 60, 70) == " 2/13  nll 2: 10 s; left: about 4 min"
    assert job(lines, 3, "publish", 70, 75) is None


def test_jobs_at_the_same_time_shorten_what_is_left() -> None:
    lines = planned(train=4)
    for number in (1, 2):
        said(lines, LogEvent.JOB_INFO, 0, jobid=number, rule_name="train", rule_msg=f"train {number}")
    said(lines, LogEvent.JOB_FINISHED, 60, job_id=1)
    # Two more, at two in a minute.
    assert said(lines, LogEvent.JOB_FINISHED, 60, job_id=2) == "2/4  train 2: 60 s; left: about 60 s"
    job(lines, 3, "train", 60, 120)
    assert job(lines, 4, "train", 60, 120) == "4/4  train 4: 60 s"
    assert lines.end(1000.0 + 120) == "4/4 jobs done, in 2 min"


def test_nothing_is_estimated_of_stages_that_have_not_run() -> None:
    assert job(planned(prepare=1, train=2), 1, "prepare", 0, 9) == "1/3  prepare 1: 9 s"


def test_a_run_without_jobs_has_no_last_line() -> None:
    assert Lines().end(1000.0) is None


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("train: 1/4\nindm: found no GPU\n\n", "indm: found no GPU"),
        ("Traceback\nZeroDivisionError: division by zero", "ZeroDivisionError: division by zero"),
        ("train:  50%|##  | 2/4\rtrain:  75%|### | 3/4", "no error in its log, which ends at train:  75%|### | 3/4"),
        ("found \x1b[2J", r"found \x1b[2J"),
        ("\n", "no error in its log"),
    ],
)
def test_the_cause_is_the_last_line_of_the_log(tmp_path: Path, log: str, expected: str) -> None:
    (tmp_path / "a.log").write_text(log)
    assert cause(tmp_path / "a.log") == expected


def test_a_job_without_a_log_has_a_line() -> None:
    lines = planned(train=1)
    said(lines, LogEvent.JOB_INFO, 0, jobid=1, rule_name="train", rule_msg=None)
    failed = said(lines, LogEvent.JOB_ERROR, 3, jobid=1, log=[])
    assert failed == "0/1  train: failed after 3 s: no error in its log"


def test_an_error_of_the_lines_does_not_end_them(capsys: pytest.CaptureFixture[str]) -> None:
    handler = LogHandler(None, None)  # type: ignore[arg-type]
    handler.handle(logging.makeLogRecord({"event": LogEvent.JOB_FINISHED, "job_id": 7, "created": 1.0}))
    handler.handle(logging.makeLogRecord({"event": None, "msg": "no space left", "levelno": logging.ERROR}))
    assert capsys.readouterr().err.splitlines()[-1] == "no space left"
