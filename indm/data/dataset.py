"""The definition of a dataset: splits of images as levels, with labels, a source and a licence."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from indm.data.archives import Archive, Selection
from indm.errors import DataError, ParamsError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """One split of a dataset, whose images come in pieces so that it may be larger than memory.

    Arguments:
        count: number of images N.
        labels: labels with shape (N,); (0,) if the dataset does not have labels.
        pieces: returns an iterator over the images, in order: levels 0 … L - 1, uint8, each piece with shape (n, C, H, W).
        clusters: number of the cluster of each image, such as the person, shape (N,), where images of a cluster resemble each
            other more than others, so that errors are resampled by cluster; ``None`` where each image counts by itself.
    """

    count: int
    labels: NDArray[np.uint8]
    pieces: Callable[[], Iterator[NDArray[np.uint8]]]
    clusters: NDArray[np.integer] | None = None

    @classmethod
    def whole(cls, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> "Split":
        """Make a split of images that are in memory, in one piece.

        Arguments:
            images: levels 0 … L - 1, uint8, shape (N, C, H, W).
            labels: their labels, uint8, shape (N,); (0,) if the dataset does not have labels.
        """
        return cls(len(images), labels, lambda: iter([images]))

    def part(self, start: int, stop: int) -> "Split":
        """Return the images from number ``start``, counted from 0, to ``stop``, which is not included, without clusters."""

        def pieces() -> Iterator[NDArray[np.uint8]]:
            first = 0
            for piece in self.pieces():
                yield piece[max(start - first, 0) : max(stop - first, 0)]
                first += len(piece)

        return Split(stop - start, self.labels[start:stop], pieces)


Splits = dict[str, Split]
"""``train``, ``valid`` and ``test``."""


def _hold_out(load: Callable[[int], Splits], images: int, split_seed: int) -> Splits:
    """Load the splits, and move the last training images to the validation split."""
    splits = load(split_seed)
    train = splits["train"]
    first = max(train.count - images, 0)
    return splits | {"train": train.part(0, first), "valid": train.part(first, train.count)}


@dataclass(frozen=True)
class Dataset:
    """A registered dataset.

    Arguments:
        levels: number of levels L of a pixel; images hold 0 … L - 1.
        channels: number of channels C.
        image_size: height and width in pixels.
        classes: number of distinct labels; 0 for a dataset without labels.
        load: makes the splits from a split seed and, for a dataset with archives, the data root as ``root``.
        source: where the images come from, as shown to users; ``{held_out}`` is replaced by the validation images of a suite.
        licence: the terms under which the images may be used, as shown to users.
        official_partition: whether the publisher has split training and test images, so that the split seed has no effect.
        archives: the files it is read from, unless another package provides it.
        selection: the files it is read from, if they are some files of an archive.
        validation: for a dataset without a validation split, the default number of last training images that become it.
        counts: number of images in each split; ``None`` if it is known only after reading them.
        pictures: whether pictures of its images may be made and published.
    """

    levels: int
    channels: int
    image_size: int
    classes: int
    load: Callable[..., Splits]
    source: str
    licence: str
    official_partition: bool = False
    archives: tuple[Archive, ...] = ()
    selection: Selection | None = None
    validation: int | None = None
    counts: Mapping[str, int] | None = field(default=None, hash=False)
    pictures: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image (C, H, W)."""
        return self.channels, self.image_size, self.image_size

    @property
    def dims(self) -> int:
        """Number of dimensions D = C H W."""
        return self.channels * self.image_size**2

    def holding_out(self, images: int | None) -> "Dataset":
        """Return the dataset with its last training images as its validation split.

        Arguments:
            images: number of these images; ``None`` for the dataset's default.

        Raises:
            ParamsError: if the dataset has a validation split, or no training image would remain.
        """
        if self.validation is None:
            if images is not None:
                raise ParamsError(f"validation: found {images}; allowed: absent, as the dataset has a validation split")
            return self
        held, counts = self.validation if images is None else images, self.counts
        if counts is not None:
            if held >= counts["train"]:
                raise ParamsError(f"validation: found {held}; allowed: below {counts['train']}, the training images")
            counts = {**counts, "train": counts["train"] - held, "valid": held}
        words = f", the last {held:,} training images for validation" if held else ""
        load, source = partial(_hold_out, self.load, held), self.source.format(held_out=words)
        return replace(self, load=load, source=source, counts=counts, validation=None)

    def check(self, splits: Splits) -> None:
        """Check the counts and the labels, which are known before any image is read.

        ``valid`` may be empty, because some datasets, such as CIFAR-10, have no official validation split.

        Raises:
            DataError: if ``train`` or ``test`` is empty, or the counts or labels differ from the declared ones.
        """
        for name in SPLITS:
            count, labels = splits[name].count, splits[name].labels
            if count == 0 and name != "valid":
                raise DataError(
                    f"{name}: found no images, expected at least one, because only valid may be empty; add images, or hold out "
                    "fewer for validation, by the dataset's key validation in the suite"
                )
            if self.counts is not None and count != self.counts[name]:
                raise DataError(f"{name}: found {count} images, expected {self.counts[name]}")
            if len(labels) != (count if self.classes else 0):
                expected = f"{count}, one per image" if self.classes else "none"
                raise DataError(f"{name}: found {len(labels)} labels, expected {expected}")
            if len(labels) and labels.max() >= self.classes:
                raise DataError(f"{name}: found label {labels.max()}, expected below {self.classes}")

    def read(self, name: str, split: Split) -> Iterator[NDArray[np.uint8]]:
        """Read the images of split ``name``, each piece checked against the declared shape and levels.

        Yields:
            Pieces: levels 0 … L - 1, uint8, shape (n, C, H, W).

        Raises:
            DataError: if a piece has another shape, type or level, or the pieces do not add up to the split's count.
        """
        count = 0
        for piece in split.pieces():
            expected = (len(piece), *self.shape)
            if piece.shape != expected or piece.dtype != np.uint8:
                raise DataError(f"{name} images: found {piece.dtype} {piece.shape}, expected uint8 {expected}")
            if piece.size and piece.max() >= self.levels:
                raise DataError(f"{name}: found level {piece.max()}, expected below {self.levels}")
            count += len(piece)
            yield piece
        if count != split.count:
            raise DataError(f"{name}: found {count} images, expected {split.count}")
