"""CelebA at 64x64: the aligned photographs of faces, cropped and resized, from the published archive."""

import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indm.data.archives import Archive, check_member, obtain
from indm.data.dataset import SPLITS, Split, Splits
from indm.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


WIDTH, HEIGHT = 178, 218
CROP = 140
SIZE = 64
# Size of such an image's pixels in bytes; every JPEG in the archive is smaller.
LARGEST = 3 * WIDTH * HEIGHT
FOLDER = "img_align_celeba"
PIECE = 512
PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


@dataclass(frozen=True)
class CelebARelease:
    """An edition of CelebA: the archive of the images, and the file that assigns them to splits."""

    images: Archive
    partition: Archive


# A test compares the sums and the names on Google Drive with torchvision.datasets.CelebA.
RELEASE = CelebARelease(
    images=Archive(
        path="celeba/img_align_celeba.zip",
        md5="00d2c5bc6d35e252742224ab0c1e8fcb",
        size="1.4 GB",
        url=PAGE,
        drive_id="0B7EVK8r0v71pZjFTYXZWM3FlRnM",
    ),
    partition=Archive(
        path="celeba/list_eval_partition.txt",
        md5="d32c9cbf5e040fd4025c592c306e6668",
        size="3 MB",
        url=PAGE,
        drive_id="0B7EVK8r0v71pY0NSMzRuSXJEVkk",
    ),
)


def load_celeba64(split_seed: int, root: Path | None = None, release: CelebARelease = RELEASE) -> Splits:
    """Load CelebA in its official partition: 162,770 images for training, 19,867 for validation, 19,962 for testing.

    The files are looked for below the data root, and downloaded there if they are missing; their checksums are checked
    before they are opened. Images are read from the archive when they are needed, without extracting it. The splits do not
    have labels, and ``split_seed`` has no effect.

    Raises:
        DataError: if a file is missing and cannot be downloaded, is damaged, or is another file.

    References:
        | Deep Learning Face Attributes in the Wild (Liu et al., 2015), https://arxiv.org/abs/1411.7766
        | https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html
    """
    # The small file first, so that a missing one is reported before a download of 1.4 GB.
    partition = obtain(release.partition, root)
    images = obtain(release.images, root)
    names = read_partition(partition, members(images))
    return {split: _split(images, names[split]) for split in SPLITS}


def _split(archive: Path, names: list[str]) -> Split:
    return Split(len(names), np.zeros(0, np.uint8), lambda: read_images(archive, names))


def members(path: Path) -> set[str]:
    """List the names of the images in the archive.

    Raises:
        DataError: if it is not a zip archive, or a member climbs out of it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{path}: found no zip archive ({error}); delete it and get it again from {PAGE}") from error
    for name in names:
        check_member(path, name)
    return {name.removeprefix(f"{FOLDER}/") for name in names if name.startswith(f"{FOLDER}/")}


def read_partition(path: Path, images: set[str]) -> dict[str, list[str]]:
    """Read which images belong to which split: lines such as ``000001.jpg 0``, with 0, 1, 2 for train, valid, test.

    Raises:
        DataError: if a line is not of this form, or names an image that the archive lacks or an earlier line has.
    """
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    codes, seen = dict(zip("012", SPLITS, strict=True)), set()
    for i, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        place, (name, _, code) = f"{path}, line {i}", line.partition(" ")
        if code.strip() not in codes:
            raise DataError(f"{place}: found {line!r}, expected an image's name and 0, 1 or 2; get it from {PAGE}")
        if name not in images or name in seen:
            found = "is named twice" if name in seen else f"is not in {FOLDER}.zip"
            raise DataError(f"{place}: {name} {found}; expected each image once; get both files from {PAGE}")
        seen.add(name)
        names[codes[code.strip()]].append(name)
    return names


def read_images(path: Path, names: list[str]) -> Iterator[NDArray[np.uint8]]:
    """Read the named images in pieces, one piece in memory at a time.

    Yields:
        Levels 0 … 255, uint8, shape (n, 3, 64, 64), n at most ``PIECE``.

    Raises:
        DataError: if an image cannot be decoded, or is not a colour JPEG of 178x218 pixels.
    """
    with zipfile.ZipFile(path) as archive:
        for start in range(0, len(names), PIECE):
            piece = [read_image(archive, f"{FOLDER}/{name}") for name in names[start : start + PIECE]]
            yield np.stack(piece)


def read_image(archive: zipfile.ZipFile, member: str) -> NDArray[np.uint8]:
    """Read, crop and resize an image: levels 0 … 255, uint8, shape (3, 64, 64).

    Raises:
        DataError: if it cannot be decoded, or is not a colour JPEG of 178x218 pixels.
    """
    return decode(read_member(archive, member), f"{archive.filename}, member {member}")


def read_member(archive: zipfile.ZipFile, member: str) -> bytes:
    """Read a member of an archive of images.

    Raises:
        DataError: if it is damaged, or larger than any image of CelebA.
    """
    try:
        return _read(archive, member)
    except (OSError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise _no_jpeg(f"{archive.filename}, member {member}", error) from error


def decode(content: bytes, place: str) -> NDArray[np.uint8]:
    """Decode, crop and resize the content of a file: levels 0 … 255, uint8, shape (3, 64, 64).

    Raises:
        DataError: if it cannot be decoded, or is not a colour JPEG of 178x218 pixels.
    """
    # Imported here because only the `prepare` stage needs it.
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(content), formats=["JPEG"])
        if image.size == (WIDTH, HEIGHT) and image.mode == "RGB":
            return crop_and_resize(image)
    except (OSError, SyntaxError, ValueError) as error:
        # Pillow's message contains the address of an object in memory.
        raise _no_jpeg(place, "cannot be identified" if isinstance(error, UnidentifiedImageError) else error) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{place}: found an image that is too large ({error}), expected {WIDTH}x{HEIGHT} RGB; "
            f"get the archive again from {PAGE}"
        ) from error
    found = f"{image.width}x{image.height} {image.mode}"
    raise DataError(f"{place}: found {found}, expected {WIDTH}x{HEIGHT} RGB; get the archive again from {PAGE}")


def _no_jpeg(place: str, reason: object) -> DataError:
    return DataError(f"{place}: found no whole JPEG ({reason}); get the archive again from {PAGE}")


def _read(archive: zipfile.ZipFile, member: str) -> bytes:
    """Read a member up to a limit, regardless of the size in its header; only deflate can be decompressed in pieces."""
    if archive.getinfo(member).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is compressed by a method other than deflate")
    with archive.open(member) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST:,} bytes")
    return content


def crop_and_resize(image: "Image") -> NDArray[np.uint8]:
    """Crop the central 140x140 pixels and resize them to 64x64, antialiased: levels 0 … 255, uint8, shape (3, 64, 64).

    The released code uses ``tf.image.resize(antialias=True)``, bilinear, whose triangle filter widens with the reduction.
    Pillow's ``BILINEAR`` is the same filter when it reduces. Only the rounding differs: Pillow rounds to levels after each
    axis and TensorFlow does not round, so that a pixel differs by at most one level.
    """
    from PIL.Image import Resampling

    left, top = (WIDTH - CROP) // 2, (HEIGHT - CROP) // 2
    small = image.crop((left, top, left + CROP, top + CROP)).resize((SIZE, SIZE), Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1)
