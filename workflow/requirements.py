"""Print the requirements of ``pyproject.toml`` and of the named extras, one per line, so that images can install them first."""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
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
    found = [line for extra in extras for line in _of_extra(extra, known, project["name"])]
    return list(dict.fromkeys([*project["dependencies"], *found]))


def _of_extra(extra: str, known: Mapping[str, list[str]], project: str) -> Iterator[str]:
    """Yield the requirements of an extra; for one that is an extra of the project itself, the requirements of that extra."""
    for line in known[extra]:
        if own := re.fullmatch(rf"{project}\[(\w+)\]", line):
            yield from _of_extra(own[1], known, project)
        else:
            yield line


if __name__ == "__main__":
    print(*requirements(*sys.argv[1:]), sep="\n")
