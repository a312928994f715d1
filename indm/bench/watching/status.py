"""The progress of each run of a suite, from files only: the progress lines and the manifests of its jobs.

Therefore it works on a cluster, and on another machine that has the results folder.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job, job_names, jobs_of
from indm.bench.pipeline.stages import STAGES
from indm.bench.watching.lines import TAIL, Line, read_lines
from indm.terminal import console, grid

if TYPE_CHECKING:
    from rich.console import RenderableType

State = Literal["failed", "stopped", "no news", "running", "waiting", "done"]
STYLES = {"failed": "bold red", "stopped": "yellow", "no news": "yellow", "running": "bold green", "done": "dim"}
ORDER: tuple[State, ...] = ("done", "waiting", "running", "no news", "stopped", "failed")
# A job counts as running until it is silent for so many seconds and so many times its usual interval between lines.
PATIENCE, TIMES = 120.0, 5.0
REFRESH = 2.0
COLUMNS = ("run", "stage", "step", "loss", "s/step", "left", "saved", "state")


@dataclass(frozen=True)
class Row:
    """The state of a job, and the last lines of its last execution; with ``no news`` it may be running, silent for long."""

    job: Job
    state: State
    lines: list[Line]

    @property
    def has_news(self) -> bool:
        """Whether its last execution is running, was interrupted or has failed."""
        return self.state not in ("waiting", "done")

    @property
    def last(self) -> Line | None:
        """The last line about its loop."""
        return next((line for line in reversed(self.lines) if line.event in ("begin", "progress")), None)


@dataclass(frozen=True)
class Board:
    """The progress of the runs of a suite."""

    checks: InputCheck

    def rows(self, now: float) -> list[Row]:
        """List a row for each dataset, job on a known density and run, and one for the tables.

        A row shows a job that runs or that has failed, with one row for each if there are several, such as the shards of a run. If
        there is no such job, the row shows the next job.
        """
        jobs: dict[tuple[str, str], list[Job]] = {}
        for job in jobs_of(self.checks.suite):
            kind = STAGES[job.stage].subject.replace("shard", "run")
            jobs.setdefault((kind, job_names(self.checks.suite, job).get(kind, "")), []).append(job)
        found = []
        for known in ([self._row(job, now) for job in group] for group in jobs.values()):
            waiting = [row for row in known if row.state == "waiting"]
            found += [row for row in known if row.has_news] or waiting[:1] or known[-1:]
        return found

    def show(self, watch: bool) -> None:
        """Print the page; to watch, every two seconds, on a terminal in the place of the last one, until all is done or Ctrl-C."""
        screen = console()
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                now = time.time()
                found = self.rows(now)
                if watch:
                    screen.clear()
                screen.print(self._page(found, now))
                if not watch or all(row.state == "done" for row in found):
                    return
                time.sleep(REFRESH)

    def _row(self, job: Job, now: float) -> Row:
        lines = read_lines(self.checks.layout.watch(*job), TAIL)
        starts = [index for index, line in enumerate(lines) if line.event == "start"]
        lines = lines[starts[-1] :] if starts else lines
        written_at = 0.0
        with contextlib.suppress(OSError):
            written_at = self.checks.manifest(job).stat().st_mtime
        return Row(job, _state(lines, written_at, now), lines)

    def _page(self, found: list[Row], now: float) -> "RenderableType":
        """Return the rows as a table, and below it errors and the paths of logs."""
        from rich.console import Group
        from rich.text import Text

        table = grid(COLUMNS)
        # Runs have long names.
        table.collapse_padding = True
        # Running and failed jobs come last, because the end of a long page stays on the screen.
        for row in sorted(found, key=lambda row: ORDER.index(row.state)):
            table.add_row(*_entries(row, self.checks.suite.suite, now), style=STYLES.get(row.state))
        counts = Counter(row.state for row in found)
        summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        summary = f"{self.checks.layout.suite_folder}: {summary}"
        return Group(table, Text(), *map(Text, self._messages(found, now)), Text(summary, style="bold"))

    def _messages(self, found: list[Row], now: float) -> Iterator[str]:
        """Yield errors, each with the path of its log."""
        for row in found:
            log = self.checks.layout.log(*row.job)
            place, name = f"; log: {log}" if log.is_file() else "", " ".join(filter(None, row.job))
            if row.state in ("failed", "stopped"):
                yield f"{name} {row.state}: {row.lines[-1].error}{place}"
            elif row.state == "no news":
                silent = duration(now - row.lines[-1].time)
                why = "killed, its machine cannot write here, or it works without writing lines"
                yield f"{name}: no news for {silent}: {why}{place}"
        if (self.checks.layout.suite_folder / "logs").is_dir():
            yield f"Logs: {self.checks.layout.log('STAGE', 'RUN')}"


def _state(lines: list[Line], finished_at: float, now: float) -> State:
    """Return a job's state by its last lines and the time of its manifest, 0 without one: then it has no results.

    A failure after the manifest is the failure of a rerun, and the old results are still valid.
    """
    event = lines[-1].event if lines else "done"
    at_work = event in ("start", "begin", "progress")
    # A single step may take minutes.
    usual = lines[-1].time - lines[-2].time if len(lines) > 1 else 0.0
    if at_work and now - lines[-1].time <= max(PATIENCE, TIMES * usual):
        return "running"
    if event in ("failed", "stopped") and lines[-1].time > finished_at:
        return "failed" if event == "failed" else "stopped"
    if finished_at:
        return "done"
    return "no news" if at_work else "waiting"


def _entries(row: Row, suite: str, now: float) -> list[str]:
    name, last = row.job.subject or f"tables of {suite}", row.last
    if not row.has_news or last is None:
        return [name, "" if row.state == "done" else row.job.stage, "", "", "", "", "", row.state]
    loss = last.numbers.get("score_loss", last.numbers.get("flow_loss"))
    pace = last.seconds_each
    return [
        name,
        row.job.stage,
        f"{last.done}/{last.total}",
        "" if loss is None else f"{loss:.3f}",
        "" if pace is None else f"{pace:.2g}",
        duration(pace * (last.total - last.done)) if pace is not None and row.state == "running" else "",
        "" if last.saved_at is None else duration(now - last.saved_at),
        row.state,
    ]


def duration(seconds: float) -> str:
    """Write a duration in at most two units: 12 s, 3 min, 2 h 05, 3 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02}"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
