"""Notes in which files of the package an execution of it calls functions; Python imports this at its start, from PYTHONPATH."""

import atexit
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

CALLED: set[CodeType] = set()
OPTIMISED = 1  # Of a function, and not of a module or a class that is made.


PACKAGE = f"{os.getcwd()}/indm/"


def note(frame: FrameType, event: str, argument: Any) -> None:
    if event == "call" and frame.f_code not in CALLED and not is_imported(frame):
        CALLED.add(frame.f_code)


def is_imported(frame: FrameType | None) -> bool:
    """Tell whether a module of the package is being imported: it has constants that the job does not use."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>" and code.co_filename.startswith(PACKAGE):
            return not code.co_filename.endswith("__main__.py")
        frame = frame.f_back
    return False


def write() -> None:
    sys.setprofile(None)
    # A copy: threads still call functions.
    found = {code.co_filename for code in CALLED.copy() if code.co_flags & OPTIMISED}
    files = [name.removeprefix(PACKAGE) for name in sorted(found) if name.startswith(PACKAGE) and name.endswith(".py")]
    # A process that torch starts has other arguments than the command.
    if files and "--suite" in sys.argv:
        # Numbers of processes come again.
        path = Path(os.environ["INDM_CALLED"]) / f"{os.getpid()}-{time.time_ns()}.json"
        path.write_text(json.dumps({"command": sys.argv[1:], "files": files}))


if "INDM_CALLED" in os.environ:
    atexit.register(write)
    threading.setprofile(note)
    sys.setprofile(note)
