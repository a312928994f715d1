"""The checksums of published tables, weights and provenance, and of the kept results beside them.

Pages of this repository are generated from the tables. ``sha256sum --check SHA256SUMS`` reads the checksums, too.
"""

from collections.abc import Iterable
from pathlib import Path

from indm.errors import ArtifactError
from indm.store.files import atomic_write, file_sha256

NAME = "SHA256SUMS"
KEPT = "kept"
REMEDY = "take the folder from git, or publish the suite (indm publish), again"
REMEDY_KEPT = "take it from git, or keep the results (indm keep), again"


def write_sums(folder: Path) -> None:
    """Write the checksums of a published folder."""
    _write(folder, {name: file_sha256(folder / name) for name in _names(folder)})


def update_sums(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of some kept files anew, and leave out kept files that are gone; without checksums, do nothing.

    The other checksums stay, so that an edited table is still seen.
    """
    if not (folder / NAME).is_file():
        return
    sums = {name: checksum for name, checksum in _read(folder).items() if not _is_gone(folder, name)}
    _write(folder, sums | {name: file_sha256(folder / name) for name in names})


def check_sums(folder: Path) -> None:
    """Refuse a published folder in which a file is missing, added or edited, or whose checksums are missing.

    A copy without any kept results, such as the one in an installation, is complete.
    """
    if not (folder / NAME).is_file():
        raise ArtifactError(f"{folder / NAME}: missing, expected the checksums that indm publish writes; {REMEDY}")
    expected = _read(folder)
    if not (folder / KEPT).is_dir():
        expected = {name: checksum for name, checksum in expected.items() if not _is_kept(name)}
    for name in sorted({*expected, *_names(folder)}):
        _check(folder, name, expected.get(name, "no file"))


def check_kept(folder: Path, path: Path) -> None:
    """Refuse a kept file that differs from its checksum in the published folder.

    Checksums of earlier versions do not cover kept files, and a folder that was not published has none.
    """
    sums = _read(folder) if (folder / NAME).is_file() else {}
    if any(map(_is_kept, sums)):
        name = str(path.relative_to(folder))
        _check(folder, name, sums.get(name, "no file"))


def _check(folder: Path, name: str, expected: str) -> None:
    found = file_sha256(folder / name) if (folder / name).is_file() else "no file"
    if found != expected:
        remedy = REMEDY_KEPT if _is_kept(name) else REMEDY
        raise ArtifactError(f"{folder / name}: found SHA-256 {found}, expected {expected} as in {NAME}; {remedy}")


def _read(folder: Path) -> dict[str, str]:
    lines = (folder / NAME).read_text(errors="replace").splitlines()
    return {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}


def _write(folder: Path, sums: dict[str, str]) -> None:
    lines = [f"{checksum}  {name}\n" for name, checksum in sorted(sums.items())]
    with atomic_write(folder / NAME) as file:
        file.write("".join(lines).encode())


def _names(folder: Path) -> list[str]:
    patterns = ("tables/*", "weights/*", "provenance.json", f"{KEPT}/*/*")
    found = (path for pattern in patterns for path in folder.glob(pattern))
    # A hidden file is one that a process is writing.
    return sorted(str(path.relative_to(folder)) for path in found if not path.name.startswith("."))


def _is_kept(name: str) -> bool:
    return name.startswith(f"{KEPT}/")


def _is_gone(folder: Path, name: str) -> bool:
    return _is_kept(name) and not (folder / name).is_file()
