"""What an installation brings of a checkout: suites and claims, Snakemake's rules, published weights.

``indm/shipped/`` has links to them, which a wheel and an sdist hold as files. Nothing else looks for a checkout around the package.
"""

import shutil
from pathlib import Path

from indm.errors import ArtifactError

SHIPPED = Path(__file__).parent / "shipped"
# A copy of this is enough to run a suite.
CHECKOUT = SHIPPED / "checkout"
# <suite>/<run>.safetensors
WEIGHTS = SHIPPED / "weights"
# The suite of those who name none.
DEFAULT_SUITE = "digits"


def default(path: Path) -> Path:
    """Return a file of the working directory, or, where it has none, the one that came with this package."""
    return path if path.exists() else CHECKOUT / path


def write_checkout(target: Path) -> None:
    """Copy what a suite needs to run into a folder: ``params/``, ``Snakefile``, ``workflow/`` and ``profiles/``.

    Raises:
        ArtifactError: if the folder has one of them already, or cannot be written.
    """
    if there := [path.name for path in sorted(CHECKOUT.iterdir()) if (target / path.name).exists()]:
        raise ArtifactError(f"{target}: found {', '.join(there)}; expected a folder without: name another one")
    try:
        shutil.copytree(CHECKOUT, target, dirs_exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written: {error}") from None
