"""Progress of a stage while it works: bars and lines on standard error, lines of JSON in a file, never in a result.

The file is ``results/<suite>/watch/<stage>/<subject>.jsonl``. The command line sets an environment variable to its path, which
the processes of a training inherit; without the variable, no file is written. Each line has ``time`` (seconds since 1970) and
``event``:

- ``start``: an execution of the stage starts, on ``host`` as ``process``;
- ``begin``: a loop over ``part`` begins, after ``done`` of ``total`` steps were done before;
- ``progress``: ``done`` steps of the loop are done, with ``seconds_each`` and ``memory_mib`` so far, and facts from the stage;
- ``done``, ``stopped``, ``failed``: the execution ends; the latter two have an ``error``.
"""

import contextlib
import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from indm.errors import IndmError, StoppedError

FILE = "INDM_WATCH"
# Seconds between two lines: one in the first minute, ten from the tenth minute on. A week of training writes some 20 MB.
SHORTEST, LONGEST, SHARE = 1.0, 10.0, 1 / 60

Facts = Callable[[], Mapping[str, Any]]


def bar(description: str, facts: Facts = dict) -> Callable[[range], Iterable[int]]:
    """Return a progress bar for a range, rarely redrawn so that logs stay short; it also writes to the file of :func:`watched`.

    The description names the part of the stage that the loop computes, and facts are further content of each line.
    """
    options: dict[str, Any] = {"desc": description, "mininterval": 2.0, "unit": "step"}
    return lambda steps: _written(tqdm(steps, **options), steps, description, facts)


def say(line: str) -> None:
    """Print a line where progress is shown."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def watched(path: Path, *, goes_on: bool) -> Iterator[None]:
    """Write the progress of the block to a file, after the lines of an execution whose work goes on."""
    before = os.environ.get(FILE)
    # Child processes inherit it.
    os.environ[FILE] = str(path)
    try:
        _start(path, goes_on)
        yield
        _write("done")
    except BaseException as error:
        # Errors of others are named.
        words = str(error) if isinstance(error, IndmError) else f"{type(error).__name__}: {error}"
        _write("stopped" if isinstance(error, StoppedError) else "failed", error=words.strip().partition("\n")[0])
        raise
    finally:
        os.environ.pop(FILE)
        if before is not None:
            os.environ[FILE] = before


def _written(shown: Iterable[int], steps: range, part: str, facts: Facts) -> Iterator[int]:
    """Yield the steps of a range, and write its progress at the beginning, at intervals and at the end."""
    if FILE not in os.environ:
        yield from shown
        return
    _write("begin", part=part, done=steps.start, total=steps.stop)
    started = written = time.monotonic()
    before = steps.start
    for step in shown:
        yield step
        done, now = min(step + steps.step, steps.stop), time.monotonic()
        if done == steps.stop or now - written >= min(max((now - started) * SHARE, SHORTEST), LONGEST):
            pace = {"seconds_each": (now - written) / (done - before)}
            _write("progress", part=part, done=done, total=steps.stop, **pace, **_memory(), **facts())
            written, before = now, done


def _start(path: Path, goes_on: bool) -> None:
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if goes_on and path.exists():
            # The next line starts on a new line, even if a power cut has torn the last one.
            with path.open("a") as file:
                file.write("\n")
        else:
            path.unlink(missing_ok=True)
    _write("start", host=platform.node(), process=os.getpid())


def _write(event: str, **content: Any) -> None:
    """Append a line, and close the file so that other machines see it. A failed write does not stop the stage.

    Floats have six digits; numbers that are not finite become null, since JSON has none.
    """
    line = {"time": round(time.time(), 2), "event": event}
    for key, value in content.items():
        number = float(f"{value:.6g}") if isinstance(value, float) and math.isfinite(value) else None
        line[key] = number if isinstance(value, float) else value
    with contextlib.suppress(OSError), Path(os.environ[FILE]).open("a") as file:
        file.write(f"{json.dumps(line)}\n")


def peak_memory() -> float:
    """Return the peak memory of this process, in MiB."""
    # Linux counts in KiB, macOS in bytes.
    units = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / units


def _memory() -> dict[str, float]:
    """Return the peak memory of this process, and its peak GPU memory if it has used a GPU."""
    found = {"memory_mib": peak_memory()}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        found["gpu_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found
