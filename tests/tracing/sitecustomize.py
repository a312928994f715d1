"""Notes which functions of the package an execution of it calls; Python imports this at its start, from PYTHONPATH."""

import atexit
import json
import os
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

CALLED: set[CodeType] = set()
OPTIMISED = 1  # Of a function, and not of a module or a class that is made.


def note(frame: FrameType, event: str, argument: Any) -> None:
    if event == "call":
        CALLED.add(frame.f_code)


def write() -> None:
    sys.setprofile(None)
    package = f"{os.getcwd()}/indm/"
    found = {(code.co_filename, code.co_firstlineno) for code in CALLED if code.co_flags & OPTIMISED}
    lines = [(name.removeprefix(package), line) for name, line in sorted(found) if name.startswith(package)]
    # A process that torch starts has other arguments than the command.
    if lines and "--suite" in sys.argv:
        path = Path(os.environ["INDM_CALLED"]) / f"{os.getpid()}.json"
        path.write_text(json.dumps({"command": sys.argv[1:], "lines": lines}))


if "INDM_CALLED" in os.environ:
    atexit.register(write)
    threading.setprofile(note)
    sys.setprofile(note)
