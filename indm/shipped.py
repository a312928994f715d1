"""The files of a checkout that an installation contains: suites and claims, Snakemake's rules, published weights.

``indm/shipped/`` has links to them, which become files in a wheel and an sdist. Other modules do not look for a checkout around
the package.
"""

import shutil
from pathlib import Path

from indm.errors import ArtifactError

SHIPPED = Path(__file__).parent / "shipped"
# A copy of these is enough to run a suite.
CHECKOUT = SHIPPED / "checkout"
# <suite>/<run>.safetensors
WEIGHTS = SHIPPED / "weights"
# The suite of commands that are called without one.
DEFAULT_SUITE = "digits"


def default(path: Path) -> Path:
    """Return a file of the working directory, or, if it does not exist, the file in this package."""
    return path if path.exists() else CHECKOUT / path


def write_checkout(target: Path) -> None:
    """Copy the files that a suite needs to run into a folder: ``params/``, ``Snakefile``, ``workflow/`` and ``profiles/``.

    Raises:
        ArtifactError: if the folder has one of them already, or is not writable.
    """
    if there := [path.name for path in sorted(CHECKOUT.iterdir()) if (target / path.name).exists()]:
        raise ArtifactError(f"{target}: found {', '.join(there)}, expected a folder without them; name another folder")
    try:
        shutil.copytree(CHECKOUT, target, dirs_exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written: {error}") from None
