"""Snakemake with a line for each job on standard error: ``python -m indm.bench.watching.engine``, with Snakemake's arguments.

Snakemake's own log goes to its file, as it does without this module.
"""

import logging
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from indm.bench.pipeline.stages import STAGES
from indm.bench.watching.status import duration
from indm.terminal import printable

NAME = "lines"
# What Snakemake adds to failures, which have lines of their own.
REPEATED = {
    "Exiting because a job execution failed. Look above for error messages",
    "WorkflowError:\nAt least one job did not complete successfully.",
}


class Begun(NamedTuple):
    """A job at work: its stage, its name, and when it began, in seconds since 1970."""

    stage: str
    name: str
    time: float


@dataclass
class Lines:
    """The lines of a run, from Snakemake's records; copies of tables are not worth a line."""

    time: float = 0.0
    waiting: Counter[str] = field(default_factory=Counter)
    begun: dict[int, Begun] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    failed: int = 0

    @property
    def done(self) -> int:
        """The number of finished jobs."""
        return sum(map(len, self.seconds.values()))

    @property
    def place(self) -> str:
        """How many jobs are done, of how many."""
        total = self.done + self.waiting.total()
        return f"{self.done:>{len(str(total))}}/{total}"

    def line(self, record: logging.LogRecord) -> str | None:
        """Return what is printed of a record, or nothing."""
        event, content = getattr(record, "event", None), record.__dict__
        known: dict[Any, Callable[[dict[str, Any]], str | None]] = {
            LogEvent.RUN_INFO: self._planned,
            LogEvent.JOB_INFO: self._begins,
            LogEvent.JOB_FINISHED: self._finished,
            LogEvent.JOB_ERROR: self._fails,
        }
        if event in known:
            return known[event](content)
        if record.levelno < logging.WARNING and record.msg != NOTHING_TO_BE_DONE_MSG:
            return None
        # Of a job, its shell command; its own line has the error.
        is_command = bool(self.time) and content.get("exception") == "RuleException"
        return None if is_command or record.getMessage() in REPEATED else record.getMessage()

    def end(self, now: float) -> str | None:
        """Return the last line, if there were any jobs."""
        if not self.time:
            return None
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.place.strip()} jobs done{failed}, in {duration(now - self.time)}"

    def _planned(self, content: dict[str, Any]) -> str:
        self.time = content["created"]
        self.waiting = Counter({stage: count for stage, count in content["stats"].items() if stage in STAGES})
        return f"Jobs: {self.waiting.total()}; Snakemake's log: {', '.join(_files())}"

    def _begins(self, content: dict[str, Any]) -> None:
        stage = content["rule_name"]
        self.begun[content["jobid"]] = Begun(stage, content["rule_msg"] or stage, content["created"])

    def _finished(self, content: dict[str, Any]) -> str | None:
        job, now = self.begun.pop(content["job_id"]), content["created"]
        if job.stage not in STAGES:
            return None
        self.waiting[job.stage] -= 1
        self.seconds.setdefault(job.stage, []).append(now - job.time)
        return f"{self.place}  {job.name}: {duration(now - job.time)}{self._left(now)}"

    def _fails(self, content: dict[str, Any]) -> str:
        job, now = self.begun.pop(content["jobid"]), content["created"]
        self.failed += 1
        logs = content["log"]
        place = f"; log: {', '.join(logs)}" if logs else ""
        return f"{self.place}  {job.name}: failed after {duration(now - job.time)}: {cause(*map(Path, logs))}{place}"

    def _left(self, now: float) -> str:
        """Say how long the waiting jobs take, at the pace so far, if each takes as long as finished jobs of its stage."""
        waiting = {stage: count for stage, count in self.waiting.items() if count}
        if not waiting.keys() & self.seconds.keys():
            return ""
        rest = sum(count * statistics.mean(self.seconds.get(stage, [0.0])) for stage, count in waiting.items())
        worked = sum(map(sum, self.seconds.values()))
        # Jobs that run at the same time make this smaller than 1.
        pace = (now - self.time) / worked if worked else 1.0
        return f"; left: {'about' if waiting.keys() <= self.seconds.keys() else 'over'} {duration(rest * pace)}"


def cause(*logs: Path) -> str:
    """Return the last line of a job's log, which is its error; a killed job has none."""
    texts = [log.read_text(errors="replace") for log in logs if log.is_file()]
    said = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    if not said:
        return "no error in its log"
    # A progress bar.
    return f"no error in its log, which ends at {printable(said[-1])}" if "%|" in said[-1] else printable(said[-1])


def _files() -> list[str]:
    """Return the files to which Snakemake writes its log."""
    handlers = logging.getLogger("snakemake.logging").handlers
    paths = [Path(handler.baseFilename) for handler in handlers if isinstance(handler, logging.FileHandler)]
    return [str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path) for path in paths]


def _print(line: str | None) -> None:
    if line:
        print(line, file=sys.stderr, flush=True)


class LogHandler(LogHandlerBase):
    """Snakemake's interface to :class:`Lines`."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        """Begin without jobs."""
        self.lines = Lines()

    def emit(self, record: logging.LogRecord) -> None:
        """Print the line of a record, if it has one; an error here does not end the lines."""
        try:
            _print(self.lines.line(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Print the last line."""
        _print(self.lines.end(time.time()))
        self.lines = Lines()
        super().close()


def main() -> None:
    """Run Snakemake, and print lines in place of its log."""
    try:
        from snakemake.cli import main as snakemake
        from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

        # Snakemake finds plugins by the names of top-level packages only.
        LoggerPluginRegistry().register_plugin(NAME, sys.modules[__name__])
        snakemake(["--logger", NAME, *sys.argv[1:]])
    except KeyboardInterrupt:
        sys.exit(1)


if __name__ == "__main__":
    main()
