"""The checksums of published tables and weights, from which pages of this repository are generated.

``sha256sum --check SHA256SUMS`` reads them, too.
"""

from pathlib import Path

from indm.errors import ArtifactError
from indm.store.files import atomic_write, file_sha256

NAME = "SHA256SUMS"
REMEDY = "take the folder from git, or publish the suite (indm publish), again"


def write_sums(folder: Path) -> None:
    """Write the checksums of a published folder."""
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in _names(folder)]
    with atomic_write(folder / NAME) as file:
        file.write("".join(lines).encode())


def check_sums(folder: Path) -> None:
    """Refuse a published folder in which a file is missing, added or edited, or whose checksums are missing."""
    path = folder / NAME
    if not path.is_file():
        raise ArtifactError(f"{path}: missing, expected the checksums that indm publish writes; {REMEDY}")
    lines = path.read_text(errors="replace").splitlines()
    expected = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    for name in sorted({*expected, *_names(folder)}):
        found = file_sha256(folder / name) if (folder / name).is_file() else "no file"
        if found != expected.get(name):
            raise ArtifactError(
                f"{folder / name}: found SHA-256 {found}, expected {expected.get(name, 'no file')} as in {NAME}; {REMEDY}"
            )


def _names(folder: Path) -> list[str]:
    patterns = ("tables/*", "weights/*", "provenance.json")
    return sorted(str(path.relative_to(folder)) for pattern in patterns for path in folder.glob(pattern))
