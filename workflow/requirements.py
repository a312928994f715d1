"""Print the requirements of ``pyproject.toml`` and of the named extras, one per line, so that images can install them first."""

import sys
import tomllib
from pathlib import Path


def requirements(*extras: str) -> list[str]:
    """List the requirements of the ``pyproject.toml`` of this folder, then the requirements of each of the ``extras``.

    Raises:
        SystemExit: if there is no such extra.
    """
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    known: dict[str, list[str]] = project["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in known]:
        sys.exit(f"found no extra {', '.join(unknown)} in pyproject.toml; there are: {', '.join(known)}")
    return project["dependencies"] + [line for extra in extras for line in known[extra]]


if __name__ == "__main__":
    print(*requirements(*sys.argv[1:]), sep="\n")
