"""The Python that runs the jobs: commands call ``python``, which is another one where its environment is not activated."""

import atexit
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import MutableMapping
from pathlib import Path


def put_first(environment: MutableMapping[str, str]) -> None:
    """Change ``PATH`` of an environment so that ``python`` is the Python that runs this function."""
    own = Path(sys.executable)
    path = environment.get("PATH", os.defpath)
    found = shutil.which("python", path=path)
    if found is None or Path(found).parent != own.parent:
        folder = own.parent if (own.parent / "python").is_file() else _folder_with(own)
        environment["PATH"] = f"{folder}{os.pathsep}{path}"


def _folder_with(executable: Path) -> Path:
    """Make a folder, for as long as this process lives, in which ``python`` calls an executable of another name."""
    folder = Path(tempfile.mkdtemp(prefix="indm-python-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # No link: the environment of a Python is found by the path by which it is called.
    (folder / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(str(executable))} "$@"\n')
    (folder / "python").chmod(0o755)
    return folder
