"""Files that stages write and read: written as a whole or not at all, and checked when they are read.

Every write goes to a temporary file in the same folder that is renamed into place, so that a killed job does not leave half a file.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from numpy.typing import NDArray

from indm.errors import ArtifactError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

# The remedies for a wrong file, a missing file and a published file.
AGAIN = "delete it and run its stage, or the suite, again"
FIRST = "run the stage that writes it first, or the whole suite with indm run"
FROM_GIT = "take it from git, or from the package, again"
CHECKPOINT_FORMAT = "indm-checkpoint-3"
SNAPSHOTS_FORMAT = "indm-snapshots-3"
EXTRACTOR_FORMAT = "indm-extractor-2"
STATISTICS_FORMAT = "indm-statistics-1"
# Numbers in tables have six significant digits.
TABLE_FORMAT = "%.6g"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file next to ``path`` and rename it to ``path`` once the block has ended without an error.

    Raises:
        ArtifactError: if the file cannot be written (a full disk, a read-only folder); ``path`` is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        remedy = f"{obstacle(path) or 'free disk space or get write access'}, then run again"
        raise ArtifactError(f"{path}: cannot be written: {error.strerror}; {remedy}") from error
    finally:
        # On a disk that is not writable, this fails too, and would hide the first error.
        with contextlib.suppress(OSError):
            temporary.unlink()


def sweep(path: Path) -> None:
    """Remove the temporary files that killed processes left next to a file."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)


def obstacle(path: Path) -> str:
    """Describe a folder in the place of a file to be written, or a file in the place of its folder; empty if there is neither."""
    # os.path treats paths that may not be read as absent; pathlib raises.
    if os.path.isdir(path):
        return f"found a folder at {path}, expected a file; move it"
    there = next((parent for parent in path.parents if os.path.lexists(parent)), path)
    return "" if there == path or os.path.isdir(there) else f"found a file at {there}, expected a folder; move it"


@contextlib.contextmanager
def from_git() -> Iterator[None]:
    """Use another remedy for files that are read in the block, because published files are not made by a stage."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(str(error).replace(AGAIN, FROM_GIT).replace(FIRST, FROM_GIT)) from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result as JSON.

    Raises:
        ArtifactError: if a number is not finite, or the file cannot be written.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except ValueError as error:
        raise ArtifactError(f"{path}: a result is not finite ({error}); look at the stage's log") from None
    with atomic_write(path) as file:
        file.write(f"{text}\n".encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ArtifactError: if it is missing or not a JSON object.
    """
    try:
        content = json.loads(_read_bytes(path))
    except (ValueError, RecursionError) as error:
        # RecursionError: lists in lists in lists.
        raise ArtifactError(f"{path}: not JSON ({error}); {AGAIN}") from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: found {type(content).__name__}, expected a JSON object; {AGAIN}")
    return content


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write a table as CSV, with numbers in :data:`TABLE_FORMAT` and empty cells for absent values."""
    with atomic_write(path) as file:
        table.to_csv(file, index=False, float_format=TABLE_FORMAT, lineterminator="\n")


def write_arrays(path: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Write named tensors of any shape as safetensors."""
    from safetensors.torch import save

    with atomic_write(path) as file:
        file.write(save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read a file of :func:`write_arrays` without torch: arrays by name, of the shapes that were written.

    Raises:
        ArtifactError: if it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(_read_bytes(path))
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not a safetensors file ({error}); {AGAIN}") from None


def write_weights(path: Path, tensors: Mapping[str, "Tensor"], spec: Mapping[str, Any], kind: str) -> None:
    """Write tensors of any shape, with the description that rebuilds their module, as safetensors of a kind of file."""
    from safetensors.torch import save

    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as file:
        file.write(save(content, metadata={"indm": json.dumps({"format": kind, **spec})}))


def read_weights(path: Path, kind: str) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Read tensors, of the shapes that were written, and spec from a file of :func:`write_weights`, which contains no code.

    Raises:
        ArtifactError: if it is missing, damaged or in another format.
    """
    from safetensors import safe_open

    spec = read_spec(path, kind)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, spec  # noqa: SIM118 (not a dict)


def read_spec(path: Path, kind: str) -> dict[str, Any]:
    """Read only the spec of a file of :func:`write_weights`; see :func:`read_weights`."""
    from safetensors import SafetensorError, safe_open

    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            spec = json.loads((file.metadata() or {}).get("indm", "{}"))
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise ArtifactError(f"{path}: not a safetensors file ({error}); {AGAIN}") from None
    found = spec.get("format") if isinstance(spec, dict) else None
    if found != kind:
        raise ArtifactError(
            f"{path}: found format {found!r}, expected {kind!r}: made by another version of this package, "
            f"or by another program; {AGAIN}"
        )
    return dict(spec)


def refuse_link(folder: Path) -> None:
    """Refuse a link in the place of a folder in which files are removed, because it may lead to files of another program."""
    if folder.is_symlink():
        raise ArtifactError(f"{folder}: found a link to {folder.readlink()}, expected a folder; remove the link")


def require_file(path: Path) -> None:
    """Refuse a missing file, with the remedy.

    Raises:
        ArtifactError: if there is no file.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; {FIRST}")


def _read_bytes(path: Path) -> bytes:
    require_file(path)
    with _readable(path):
        return path.read_bytes()


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Report on one line that a file which is read in the block cannot be read."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}; get read access, then run again") from None


def file_sha256(path: Path) -> str:
    """Hash the content of a file that can be read."""
    with _readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_finite(path: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Refuse tensors of a file, of any shape, with numbers that are not finite; the message names the tensor."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise ArtifactError(
                f"{path}: {name}: found {count} numbers that are not finite, expected finite numbers; {AGAIN}"
            )
