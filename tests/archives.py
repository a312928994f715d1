"""Tiny archives in the true on-disk formats of CIFAR-10 and CelebA: of noise, for tests, and the package's stand-ins.

``python -m tests.archives`` writes the stand-ins and prints their sums, which indm/data/standins.py holds.
"""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from indm.data import celeba64, celeba64_6000, cifar10, mnist, standins
from indm.data.archives import Archive
from indm.data.registered import fashion_mnist
from indm.data.registered import mnist as mnist_dataset

if TYPE_CHECKING:
    from PIL.Image import Image

TRAIN_BATCHES = tuple(cifar10.RELEASE.train)
TEST_BATCH = "test_batch"


class Python2Pickler(pickle._Pickler):
    """A pickler that writes what Python 2 wrote: byte strings as its ``str``, and NumPy's module of that time."""

    dispatch: ClassVar[Any] = pickle._Pickler.dispatch.copy()

    def save_string(self: Any, content: bytes | str) -> None:
        content = content.encode() if isinstance(content, str) else content
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)

    def save_name(self: Any, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or value.__qualname__}\n".encode())
        self.memoize(value)

    dispatch |= {bytes: save_string, str: save_string, type: save_name}
    save_global = save_name


def python2_pickle(value: object) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def batch_entry(images: NDArray[np.uint8], labels: list[int], name: str = "training batch 1 of 5") -> dict[bytes, Any]:
    """What a batch of CIFAR-10 holds."""
    names = [f"image_s_{i:06d}.png".encode() for i in range(len(labels))]
    return {
        b"batch_label": name.encode(),
        b"labels": labels,
        b"data": images.reshape(len(images), -1),
        b"filenames": names,
    }


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the time of day: the same members give the same file.
    with gzip.GzipFile(path, "wb", mtime=0) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """Check that Python never holds as many bytes in the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


class Hostile:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def noise(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Random pixels (H, W, 3)."""
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def discs(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Three coloured discs on a gradient, in whole numbers throughout: (H, W, 3), the same on every machine."""
    rng = np.random.default_rng(seed)
    y, x, _ = np.ogrid[:height, :width, :1]
    left, right = rng.integers(256, size=(2, 3))
    image = np.broadcast_to((left * (width - 1 - x) + right * x) // (width - 1), (height, width, 3)).astype(np.uint8)
    for _ in range(3):
        row, column, radius = rng.integers((0, 0, width // 8), (height, width, width // 3))
        inside = (y - row) ** 2 + (x - column) ** 2 <= radius**2
        image = np.where(inside, rng.integers(256, size=3, dtype=np.uint8), image)
    return image


def cifar10_members(
    batch_images: int = 4, draw: Callable[[int, int, int], NDArray[np.uint8]] = noise, readme: bytes = b"<html>"
) -> dict[str, bytes]:
    """The members of the archive, in the order of the published one."""
    rng = np.random.default_rng(0)
    members = {}
    for i, name in enumerate(
        ("data_batch_4", TEST_BATCH, "data_batch_3", "data_batch_2", "data_batch_5", "data_batch_1")
    ):
        seeds = range(i * batch_images, (i + 1) * batch_images)
        images = np.stack([draw(cifar10.SIZE, cifar10.SIZE, seed).transpose(2, 0, 1) for seed in seeds])
        labels = [int(label) for label in rng.integers(10, size=batch_images)]
        members[f"{cifar10.FOLDER}/{name}"] = python2_pickle(batch_entry(images, labels, name))
    members[f"{cifar10.FOLDER}/readme.html"] = readme
    return members


def write_cifar10(
    root: Path, members: Mapping[str, bytes] | None = None, batch_images: int = 4
) -> cifar10.CIFAR10Release:
    """Write an archive below ``root`` and return the release whose sums are its own."""
    members = cifar10_members(batch_images) if members is None else members
    path = root / cifar10.RELEASE.archive.path
    write_tar(path, members)
    return cifar10_release(path, members, batch_images)


def unpack(root: Path, members: Mapping[str, bytes]) -> Path:
    """Write the members of an archive of CIFAR-10 below ``root``, as files, and return their folder."""
    for name, content in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root / cifar10.FOLDER


def cifar10_release(path: Path, members: Mapping[str, bytes], batch_images: int = 4) -> cifar10.CIFAR10Release:
    """Return the release that an archive at ``path`` with these members would be."""
    sums = {name.rpartition("/")[2]: md5(content) for name, content in members.items()}
    return cifar10.CIFAR10Release(
        archive=replace(cifar10.RELEASE.archive, md5=md5(path.read_bytes())),
        train={name: sums.get(name, "") for name in TRAIN_BATCHES},
        test={TEST_BATCH: sums.get(TEST_BATCH, "")},
        batch_images=batch_images,
    )


def jpeg(width: int = 178, height: int = 218, seed: int = 0, mode: str = "RGB") -> bytes:
    """A JPEG of smooth noise."""
    from PIL import Image

    image = Image.fromarray(noise(8, 8, seed))
    return encode(image.resize((width, height), Image.Resampling.BICUBIC).convert(mode), quality=95)


def jpeg_of_discs(seed: int) -> bytes:
    from PIL import Image

    return encode(Image.fromarray(discs(celeba64.HEIGHT, celeba64.WIDTH, seed)), quality=75)


def encode(image: "Image", quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return file.getvalue()


def celeba_members(count: int = 9, draw: Callable[[int], bytes] = lambda seed: jpeg(seed=seed)) -> dict[str, bytes]:
    """The members of the archive of images, its folder included."""
    return {f"{celeba64.FOLDER}/": b""} | {f"{celeba64.FOLDER}/{i:06d}.jpg": draw(i) for i in range(1, count + 1)}


def partition_lines(members: Mapping[str, bytes]) -> list[str]:
    """A partition of the images: of every four, two for training, one for validation, one for testing."""
    names = [name.rpartition("/")[2] for name in members if not name.endswith("/")]
    return [f"{name} {(0, 0, 1, 2)[i % 4]}" for i, name in enumerate(names)]


def write_celeba(
    root: Path,
    members: Mapping[str, bytes] | None = None,
    partition: list[str] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> celeba64.CelebARelease:
    """Write an archive and a partition below ``root`` and return the release whose sums are theirs."""
    members = celeba_members() if members is None else members
    partition = partition_lines(members) if partition is None else partition
    images, lines = (root / archive.path for archive in (celeba64.RELEASE.images, celeba64.RELEASE.partition))
    images.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(images, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    lines.write_text("".join(f"{line}\n" for line in partition))
    return celeba_release(root)


def celeba_release(root: Path) -> celeba64.CelebARelease:
    """Return the release that the files below ``root`` would be."""
    published = celeba64.RELEASE
    return celeba64.CelebARelease(
        images=replace(published.images, md5=md5((root / published.images.path).read_bytes())),
        partition=replace(published.partition, md5=md5((root / published.partition.path).read_bytes())),
    )


def write_celeba_6000(root: Path, members: Mapping[str, bytes] | None = None) -> Path:
    """Write the published archive with twelve listed images of three people and others, and the list of those; return the list."""
    members = celeba_members(15) if members is None else members
    write_celeba(root, members)
    lines = ["number,split,identity,sha256"]
    for i, split in enumerate(["train"] * 6 + ["valid"] * 2 + ["test"] * 4):
        name, identity = f"{i + 1:06d}", {"train": 0, "valid": 2, "test": 4}[split] + i % 2
        sha256 = hashlib.sha256(members[f"{celeba64.FOLDER}/{name}.jpg"]).hexdigest()
        lines.append(f"{name},{split},{identity},{sha256}")
    listed = root / "listed.csv"
    listed.write_text("\n".join(lines) + "\n")
    return listed


LOADS: dict[str, Callable[..., Any]] = {
    "celeba64-6000": celeba64_6000.load_celeba64_6000,
    "cifar10": cifar10.load_cifar10,
    "celeba64": celeba64.load_celeba64,
}
MNISTS = {"mnist": mnist_dataset.RELEASE, "fashion-mnist": fashion_mnist.RELEASE}


def tiny(name: str, root: Path) -> partial[Any]:
    """Write tiny archives of a dataset below ``root``, and return what loads them."""
    if name == "celeba64-6000":
        return partial(LOADS[name], root=root, listed=write_celeba_6000(root))
    if name in MNISTS:
        return partial(mnist.load_mnist, root=root, release=write_mnist(root, MNISTS[name]))
    return partial(LOADS[name], root=root, release=(write_cifar10 if name == "cifar10" else write_celeba)(root))


def idx(array: NDArray[np.uint8]) -> bytes:
    """What a file in the idx format holds of unsigned bytes."""
    return struct.pack(f">{array.ndim + 1}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def write_mnist(root: Path, published: mnist.IdxRelease, train: int = 12, test: int = 5) -> mnist.IdxRelease:
    """Write the four files of a release below ``root``, of noise, and return the release whose sums and counts are theirs."""
    rng = np.random.default_rng(0)

    def half(of: mnist.Half, count: int) -> mnist.Half:
        images = rng.integers(256, size=(count, mnist.SIZE, mnist.SIZE), dtype=np.uint8)
        labels = rng.integers(10, size=count, dtype=np.uint8)
        return mnist.Half(write_idx(root, of.images, idx(images)), write_idx(root, of.labels, idx(labels)), count)

    return mnist.IdxRelease(half(published.train, train), half(published.test, test))


def write_idx(root: Path, archive: Archive, content: bytes) -> Archive:
    """Write a file of a release, compressed, below ``root``, and return the archive that it is."""
    path = root / archive.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0))
    return replace(archive, md5=md5(path.read_bytes()), packaged=None)


STANDIN_README = (
    b"<html>Synthetic stand-in made by tests/archives.py of the INDM reproduction suite: no image of CIFAR-10.</html>"
)
STANDIN_COUNTS = (12, 3, 6)


def write_standins(root: Path) -> tuple[cifar10.CIFAR10Release, celeba64.CelebARelease]:
    """Write the archives of the stand-ins below ``root`` and return the releases whose sums are theirs."""
    size = standins.RELEASE32.batch_images
    members = cifar10_members(size, discs, STANDIN_README)
    images = celeba_members(sum(STANDIN_COUNTS), jpeg_of_discs)
    codes = np.repeat(range(3), STANDIN_COUNTS)
    partition = [f"{i:06d}.jpg {code}" for i, code in enumerate(codes, start=1)]
    return write_cifar10(root / "standin32", members, size), write_celeba(root / "standin64", images, partition)


if __name__ == "__main__":
    for release in write_standins(standins.ROOT):
        print(release)
