"""A part of CelebA: 30 images of each of 200 people, 6,000 of its 202,599, prepared as the whole.

``celeba64_6000.csv`` lists the number, split, identity and SHA-256 sum of each image, so that anybody who has CelebA has this
part, too: the sums select the same files from the published archive, from another zip archive of them, or from a folder. The
splits are the official ones, and no identity is in two of them. Within a split, the identities take turns, so that the first
images are balanced: the 22 identities of the test split share any multiple of 22 images equally.

The images are 30 of each person, so they are not a sample of independent images. An error over test images has to be resampled
by identity, and numbers are not comparable with numbers on the whole of CelebA.
"""

import csv
import hashlib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indm.data.archives import Selection
from indm.data.celeba64 import FOLDER, PAGE, PIECE, decode, read_member
from indm.data.dataset import SPLITS, Split, Splits
from indm.errors import DataError

LIST = Path(__file__).with_suffix(".csv")
PLACES = (f"celeba/{FOLDER}", "celeba/img_align_celeba_6000.zip", "celeba/img_align_celeba.zip")


@dataclass(frozen=True)
class Listed:
    """An image of the list.

    Arguments:
        name: its file's name in CelebA.
        split: the official split.
        identity: the number of the person.
        sha256: the sum of the file, in hexadecimal.
    """

    name: str
    split: str
    identity: int
    sha256: str


def read_list(path: Path = LIST) -> list[Listed]:
    """Read the list of the images, in the order of the splits."""
    with path.open(newline="") as file:
        return [
            Listed(f"{row['number']}.jpg", row["split"], int(row["identity"]), row["sha256"])
            for row in csv.DictReader(file)
        ]


def load_celeba64_6000(split_seed: int, root: Path | None = None, listed: Path = LIST) -> Splits:
    """Load the images of the list; ``split_seed`` has no effect, because the splits are the official ones.

    Raises:
        DataError: if there is neither the folder nor an archive, or it lacks images of the list.
    """
    images = read_list(listed)
    place = replace(FILES, check=partial(check_names, images)).obtain(root)
    return {split: _split(place, [image for image in images if image.split == split]) for split in SPLITS}


def check_names(images: list[Listed], place: Path) -> None:
    """Check that a folder or an archive has all images of the list.

    Raises:
        DataError: if images are missing, or it is no archive.
    """
    with _opened(place) as (names, _):
        lacking = [image.name for image in images if image.name not in names]
    if lacking:
        raise DataError(
            f"{place}: found {len(images) - len(lacking)} of the {len(images)} images of celeba64-6000, without {lacking[0]}; "
            f"expected all of them; get the archive again from {PAGE}"
        )


def _split(place: Path, images: list[Listed]) -> Split:
    identities = np.array([image.identity for image in images])
    return Split(len(images), np.zeros(0, np.uint8), lambda: _pieces(place, images), identities)


def _pieces(place: Path, images: list[Listed]) -> Iterator[NDArray[np.uint8]]:
    """Read images in pieces of up to 512, uint8 with shape (n, 3, 64, 64), one piece in memory at a time."""
    with _opened(place) as (_, read):
        for start in range(0, len(images), PIECE):
            yield np.stack([_image(place, image, read) for image in images[start : start + PIECE]])


def _image(place: Path, image: Listed, read: Callable[[str], bytes]) -> NDArray[np.uint8]:
    content, where = read(image.name), f"{place}, {image.name}"
    if (found := hashlib.sha256(content).hexdigest()) != image.sha256:
        raise DataError(
            f"{where}: found SHA-256 {found} ({len(content):,} bytes), expected {image.sha256}: altered or another edition; get "
            f"the aligned images again from {PAGE}"
        )
    return decode(content, where)


@contextmanager
def _opened(place: Path) -> Iterator[tuple[set[str], Callable[[str], bytes]]]:
    """Open a folder or an archive: the names of its images, and the function that reads one."""
    if place.is_dir():
        yield {path.name for path in place.iterdir()}, lambda name: (place / name).read_bytes()
        return
    try:
        archive = zipfile.ZipFile(place)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{place}: found no zip archive ({error}); delete it and get it again from {PAGE}") from error
    with archive:
        inside = {name.rpartition("/")[2]: name for name in archive.namelist()}
        yield set(inside), lambda name: read_member(archive, inside[name])


FILES = Selection(PLACES, PAGE, lambda place: check_names(read_list(), place))
