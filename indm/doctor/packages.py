"""Python and the installed packages, against the ranges of ``pyproject.toml``."""

import platform
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from indm.doctor.item import INSTALL, MISSING, READY, Item


def packages() -> list[Item]:
    """Compare Python and the installed packages with the ranges of ``pyproject.toml``."""
    project = _project()
    python, expected = platform.python_version(), project["requires-python"]
    remedy = f"Python {python}: expected {expected}; make an environment with such a Python"
    right = SpecifierSet(expected).contains(python, prereleases=True)
    items = [Item("python", READY, f"{python} ({expected})") if right else Item("python", MISSING, python, remedy)]
    return items + [_package(Requirement(text)) for text in project["dependencies"]]


def _project() -> dict[str, Any]:
    """Read the ranges from the checkout, which an installation may be older than; of a copy without one, its own."""
    file = Path(__file__).parent.parent.parent / "pyproject.toml"
    if file.is_file():
        return tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    texts = [text for text in metadata.requires("indm") or [] if "extra ==" not in text]
    return {"requires-python": metadata.metadata("indm")["Requires-Python"], "dependencies": texts}


def _package(requirement: Requirement) -> Item:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        version = "not installed"
    else:
        if requirement.specifier.contains(version, prereleases=True):
            return Item(requirement.name, READY, f"{version} ({requirement.specifier})")
    gap = f"package {requirement.name}: found {version}, expected {requirement.specifier}; {INSTALL}"
    return Item(requirement.name, MISSING, f"{version}, expected {requirement.specifier}", gap)
