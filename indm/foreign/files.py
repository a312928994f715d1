"""Images from a folder of PNG files, and arrays from .npy files: every file is used, or named in an error."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indm.errors import DataError

Images = NDArray[np.uint8]


def read_images(path: Path) -> NDArray[Any]:
    """Read images from a folder of PNG files, in the order of their paths, or an array from an .npy file.

    Subfolders, such as one for each class, are read too; hidden files are not.

    Returns:
        From a folder, levels of 256, uint8, shape (N, C, H, W); from a file, its array, whose shape is not checked.

    Raises:
        DataError: if the file is not an array, the folder has a file that is not PNG, or the images are missing, damaged,
            neither grey nor RGB with 8 bits, or of several shapes.
    """
    return (
        _read_folder(path) if path.is_dir() else read_array(path, "an array in a .npy file, or a folder of PNG files")
    )


def read_array(path: Path, expected: str = "an array in a .npy file") -> NDArray[Any]:
    """Read an array of numbers.

    Arguments:
        path: the file.
        expected: what an error says was expected.

    Raises:
        DataError: if the file is not one array, or holds objects, which are never loaded.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: found {error}, expected {expected}") from None
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path}: found several arrays, expected one in a .npy file")
    return found


def _read_folder(folder: Path) -> Images:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(folder)))
    others = [file for file in files if file.suffix.lower() != ".png"]
    if others:
        raise DataError(
            f"{folder}: found {len(others)} of {len(files)} files that are not *.png, such as {others[0].relative_to(folder)}; "
            "expected only PNG files; convert the others, or move them away"
        )
    images = [_read_png(file) for file in files]
    shapes = sorted({image.shape for image in images})
    if len(shapes) != 1:
        found = " and ".join(map(str, shapes[:2])) or "no *.png"
        raise DataError(f"{folder}: found {found}, expected PNG files of one shape (C, H, W)")
    return np.stack(images)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_png(file: Path) -> Images:
    try:
        with Image.open(file) as image:
            if image.mode not in ("L", "RGB"):
                raise DataError(f"{file}: found mode {image.mode}, expected grey (L) or RGB with 8 bits; convert it")
            found = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise DataError(f"{file}: found {error}, expected a PNG file") from None
    return found[None] if found.ndim == 2 else found.transpose(2, 0, 1)
