"""Arrays of images and features in files: what is read is what was written."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indm.errors import ArtifactError
from indm.store.files import AGAIN, atomic_write, require_file


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as ``.npy``.

    Arguments:
        path: the file.
        array: numbers of any shape (*) and unit.

    Raises:
        ValueError: if the array holds objects.
    """
    with atomic_write(path) as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path) -> NDArray[Any]:
    """Read a ``.npy`` array, memory-mapped and without unpickling; changes of the array stay in memory.

    Returns:
        The array with its shape (*) and dtype in the file.

    Raises:
        ArtifactError: if it is missing, truncated or holds objects.
    """
    require_file(path)
    try:
        with np.errstate(over="raise"):
            return np.load(path, mmap_mode="c", allow_pickle=False)
    except Exception as error:  # The header is Python code, and its parser can raise any error on a damaged one.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArtifactError(f"{path}: not a .npy array ({reason}); {AGAIN}") from None
