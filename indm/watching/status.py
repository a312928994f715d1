"""The progress of each run of a suite, from files only: the progress lines and the manifests of its jobs.

Therefore it works on a cluster, and on another machine that has the results folder.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

from indm.pipeline.identity import Identity
from indm.pipeline.jobs import Job, job_names
from indm.pipeline.stages import STAGES
from indm.terminal import console, grid
from indm.watching.lines import TAIL, Line, read_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

State = Literal["failed", "stopped", "no news", "running", "waiting", "done"]
STYLES = {"failed": "bold red", "stopped": "yellow", "no news": "yellow", "running": "bold green", "done": "dim"}
ORDER: tuple[State, ...] = ("done", "waiting", "running", "no news", "stopped", "failed")
# A job counts as running until it is silent for so many seconds and so many times its usual interval between lines.
PATIENCE, TIMES = 120.0, 5.0
REFRESH = 2.0
# The events of a loop.
LOOP = ("begin", "progress")
# Stages with a single loop; other stages go on after a loop has ended.
ONE_LOOP = ("train", "sample_shard", "sample", "nll_shard", "nll")
COLUMNS = ("run", "stage", "step", "loss", "s/step", "left", "saved", "state")


@dataclass(frozen=True)
class Row:
    """The progress of a job.

    Arguments:
        job: the job.
        state: its state; ``no news`` means that it may be running, but has not written a line for long.
        lines: the last lines of its last execution.
    """

    job: Job
    state: State
    lines: list[Line]

    @property
    def has_news(self) -> bool:
        """Whether its last execution is running, was interrupted or has failed."""
        return self.state not in ("waiting", "done")

    @property
    def heard(self) -> float:
        """Time of its last line, in seconds since 1970."""
        return float(self.lines[-1]["time"])

    @property
    def last(self) -> Line:
        """The last line about its loop."""
        return next((line for line in reversed(self.lines) if line["event"] in LOOP), {})

    @property
    def in_loop(self) -> bool:
        """Whether it is inside a loop, where it writes lines; before and after a loop, it may work without writing."""
        return self.lines[-1]["event"] in LOOP and self.last["done"] < self.last["total"]

    @property
    def pace(self) -> float | None:
        """Seconds per step or image: the median of its last lines about this loop."""
        part = self.last.get("part")
        found = [line["seconds_each"] for line in self.lines if line["event"] == "progress" and line["part"] == part]
        return median(found) if found else None

    @property
    def left(self) -> float | None:
        """Seconds to the end of its loop."""
        return None if self.pace is None else self.pace * (self.last["total"] - self.last["done"])


@dataclass(frozen=True)
class Board:
    """The progress of the runs of a suite.

    Arguments:
        identity: the suite and its manifests.
    """

    identity: Identity

    def rows(self, now: float) -> list[Row]:
        """List a row for each dataset, job on a known density and run, and one for the tables.

        A row shows a job that runs or that has failed, with one row for each if there are several, such as the shards of a run. If
        there is no such job, the row shows the next job.
        """
        jobs: dict[tuple[str, str], list[Job]] = {}
        for name, stage in STAGES.items():
            kind = "run" if stage.subject == "shard" else stage.subject
            for subject in stage.subjects(self.identity.suite):
                job = Job(name, subject)
                jobs.setdefault((kind, job_names(self.identity.suite, job).get(kind, "")), []).append(job)
        found = []
        for known in ([self._row(job, now) for job in group] for group in jobs.values()):
            waiting = [row for row in known if row.state == "waiting"]
            found += [row for row in known if row.has_news] or waiting[:1] or known[-1:]
        return found

    def page(self, height: int | None = None) -> "RenderableType":
        """Return the rows as a table, and below it errors and the paths of logs.

        Arguments:
            height: number of lines on the screen; if they are too few, rows that are done or waiting are left out.
        """
        now = time.time()
        return self._page(self.rows(now), now, height)

    def watch(self) -> None:
        """Show the page, and refresh it until all is done or Ctrl-C.

        A file or a pipe gets one page after another, so that a full disk and a closed pipe are noticed.
        """
        from rich.live import Live

        where = console()
        with contextlib.suppress(KeyboardInterrupt):
            if not where.is_terminal:
                self._refresh(where.print)
                return
            with Live(console=where, auto_refresh=False) as live:
                self._refresh(lambda page: live.update(page, refresh=True), where)

    def _refresh(self, show: "Callable[[RenderableType], None]", screen: "Console | None" = None) -> None:
        """Show the page anew, as much of it as a screen holds, until all is done."""
        while True:
            now = time.time()
            found = self.rows(now)
            show(self._page(found, now, None if screen is None else screen.height))
            if all(row.state == "done" for row in found):
                return
            time.sleep(REFRESH)

    def _row(self, job: Job, now: float) -> Row:
        lines = read_lines(self.identity.layout.watch(*job), TAIL)
        starts = [index for index, line in enumerate(lines) if line["event"] == "start"]
        lines = lines[starts[-1] :] if starts else lines
        return Row(job, _state(lines, _written_at(self.identity.manifest(job)), now), lines)

    def _page(self, found: list[Row], now: float, height: int | None) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        said = list(self._messages(found, now))
        crowded = height is not None and len(found) + len(said) + 4 > height
        shown = [row for row in found if row.has_news] if crowded else found
        table = grid(COLUMNS)
        # Runs have long names.
        table.collapse_padding = True
        # Running and failed jobs come last, because readers look at the end of a long list first.
        shown = sorted(shown, key=lambda row: ORDER.index(row.state))
        if height is not None and crowded:
            shown = shown[-max(1, height - len(said) - 4) :]
        for row in shown:
            table.add_row(*_entries(row, self.identity.suite.suite, now), style=STYLES.get(row.state))
        counts = Counter(row.state for row in found)
        summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        hidden = f"; not shown: {len(found) - len(shown)} of the others" if len(shown) < len(found) else ""
        summary = f"{self.identity.layout.suite_folder}: {summary}{hidden}"
        return Group(table, Text(), *map(Text, said), Text(summary, style="bold"))

    def _messages(self, found: list[Row], now: float) -> Iterator[str]:
        """Yield errors, each with the path of its log."""
        for row in found:
            log = self.identity.layout.log(*row.job)
            place, name = f"; log: {log}" if log.is_file() else "", " ".join(filter(None, row.job))
            if row.state in ("failed", "stopped"):
                yield f"{name} {row.state}: {row.lines[-1].get('error', '')}{place}"
            elif row.state == "no news":
                silent = duration(now - row.heard)
                quiet = "" if row.in_loop else ", or in a part of the stage that does not write lines"
                yield f"{name}: no news for {silent}: killed, or its machine cannot write here{quiet}{place}"
        if (self.identity.layout.suite_folder / "logs").is_dir():
            yield f"Logs: {self.identity.layout.log('STAGE', 'RUN')}"


def _written_at(manifest: Path) -> float:
    """Return the time of a manifest, in seconds since 1970; 0 if it is missing."""
    with contextlib.suppress(OSError):
        return manifest.stat().st_mtime
    return 0.0


def _state(lines: list[Line], finished_at: float, now: float) -> State:
    """Return a job's state by its last lines and the time of its manifest, without which it has no results.

    A failure after the manifest is the failure of a rerun, and the old results are still valid.
    """
    event: str = lines[-1]["event"] if lines else "done"
    at_work = event in ("start", "begin", "progress")
    if at_work and now - lines[-1]["time"] <= _patience(lines):
        return "running"
    if event in ("failed", "stopped") and lines[-1]["time"] > finished_at:
        return "failed" if event == "failed" else "stopped"
    if finished_at:
        return "done"
    return "no news" if at_work else "waiting"


def _patience(lines: list[Line]) -> float:
    """Return for how many seconds a job may be silent, since a single step may take minutes."""
    usual = lines[-1]["time"] - lines[-2]["time"] if len(lines) > 1 else 0.0
    return max(PATIENCE, TIMES * usual)


def _entries(row: Row, suite: str, now: float) -> list[str]:
    name, last = row.job.subject or f"tables of {suite}", row.last
    if not row.has_news:
        return [name, row.job.stage if row.state == "waiting" else "", "", "", "", "", "", row.state]
    loss = last.get("score_loss", last.get("flow_loss"))
    more = "" if row.job.stage in ONE_LOOP else "> "
    saved = last.get("saved_at")
    return [
        name,
        row.job.stage,
        f"{last['done']}/{last['total']}" if last else "",
        "" if loss is None else f"{loss:.3f}",
        "" if row.pace is None else f"{row.pace:.2g}",
        f"{more}{duration(row.left)}" if row.state == "running" and row.left is not None else "",
        "" if saved is None else duration(now - saved),
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
