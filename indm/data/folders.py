"""Datasets that are read from folders of PNG files."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indm.data.dataset import Dataset, Split, Splits
from indm.errors import DataError

# The modes that become grey or RGB without loss, by the number of channels.
MODES = {1: ("1", "L"), 3: ("1", "L", "P", "RGB")}
# A piece of a split has so many images.
PIECE = 1000
NO_LABELS = np.empty(0, np.uint8)


@dataclass(frozen=True)
class PngFolders:
    """The images in the folders ``train`` and ``test`` of a folder: all their PNG files, in the order of their names.

    Arguments:
        folder: path of the folder.
        channels: number of channels, 1 for grey or 3 for RGB.
        image_size: height and width in pixels.
    """

    folder: Path
    channels: int
    image_size: int

    def __call__(self, split_seed: int) -> Splits:
        """Return the splits, whose images are read piece by piece; ``split_seed`` has no effect.

        Raises:
            DataError: if a folder has no images, or a file is not an image of this size and with these channels.
        """
        nothing = np.empty((0, self.channels, self.image_size, self.image_size), np.uint8)
        return {"valid": Split.whole(nothing, NO_LABELS)} | {name: self._split(name) for name in ("train", "test")}

    def counts(self) -> dict[str, int] | None:
        """Count the images of each split; ``None`` while a folder has none, or has other files."""
        try:
            return {"valid": 0} | {name: len(self.files(name)) for name in ("train", "test")}
        except DataError:
            return None

    def check(self) -> None:
        """Check the size and the channels of every image without reading its pixels.

        Raises:
            DataError: if a folder has no images, or a file is not an image of this size and with these channels.
        """
        for name in ("train", "test"):
            for file in self.files(name):
                self._open(file).close()

    def files(self, name: str) -> list[Path]:
        """List the images of a split; hidden files do not count.

        Raises:
            DataError: if there are none, or there is another file.
        """
        folder = self.folder / name
        found = sorted(path for path in folder.glob("*") if not path.name.startswith("."))
        for path in found:
            if path.suffix.lower() != ".png" or not path.is_file():
                raise DataError(
                    f"{path}: found no PNG file, expected PNG files alone in this folder; convert or move it"
                )
        if not found:
            size = f"{self.image_size} x {self.image_size} pixels"
            raise DataError(f"{folder}: found no images, expected PNG files of {size}; copy the {name} images there")
        return found

    def _split(self, name: str) -> Split:
        files = self.files(name)

        def pieces() -> Iterator[NDArray[np.uint8]]:
            for first in range(0, len(files), PIECE):
                yield np.stack([self._read(file) for file in files[first : first + PIECE]])

        return Split(len(files), NO_LABELS, pieces)

    def _read(self, file: Path) -> NDArray[np.uint8]:
        """Read an image, shape (C, H, W)."""
        try:
            with self._open(file) as image:
                pixels = np.asarray(image.convert("RGB" if self.channels == 3 else "L"), dtype=np.uint8)
        except (OSError, SyntaxError) as error:
            raise _damaged(file, error) from None
        return pixels.reshape(self.image_size, self.image_size, self.channels).transpose(2, 0, 1)

    def _open(self, file: Path) -> Image.Image:
        """Open an image whose size and mode fit."""
        try:
            image = Image.open(file, formats=["PNG"])
        except (OSError, SyntaxError) as error:
            raise _damaged(file, error) from None
        (width, height), size = image.size, self.image_size
        if (width, height) != (size, size):
            raise DataError(f"{file}: found {width} x {height} pixels, expected {size} x {size}; crop or resize it")
        if image.mode not in MODES[self.channels]:
            expected = "RGB or grey" if self.channels == 3 else "grey"
            raise DataError(f"{file}: found mode {image.mode}, expected {expected} with 8 bits; convert it")
        return image


class PngDataset(Dataset):
    """A dataset whose ``load`` is :class:`PngFolders`: its numbers of images are counted in the folders."""

    def holding_out(self, images: int | None) -> Dataset:
        """Return the dataset with its last training images as its validation split; see :meth:`Dataset.holding_out`."""
        counts = self.load.counts() if isinstance(self.load, PngFolders) else self.counts
        return Dataset.holding_out(replace(self, counts=counts), images)


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: found no PNG image ({' '.join(str(error).split())}), expected one; replace or remove it")
