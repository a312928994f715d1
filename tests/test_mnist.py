"""MNIST and Fashion-MNIST: what is read of tiny files in the true format, and what is refused."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import MNIST, FashionMNIST  # type: ignore[import-untyped]

from indm.bench.doctor import READY
from indm.bench.doctor import archives as look
from indm.bench.stages import prepare
from indm.data import archives
from indm.data.archives import Archive, Packaged
from indm.data.dataset import SPLITS, Dataset
from indm.data.mnist import IdxRelease, load_mnist, read_idx
from indm.data.registered import mnist
from indm.errors import DataError
from indm.registry import DATASETS
from tests import archives as build

THEIRS = {"mnist": MNIST, "fashion-mnist": FashionMNIST}
EACH = pytest.mark.parametrize("name", sorted(build.MNISTS))


@EACH
def test_sums_and_sources_are_those_of_torchvision(name: str) -> None:
    theirs = [(f"{THEIRS[name].mirrors[0]}{file}", md5) for file, md5 in THEIRS[name].resources]
    assert [(archive.url, archive.md5) for archive in build.MNISTS[name].archives] == theirs


@EACH
def test_what_is_read_is_what_torchvision_reads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = build.write_mnist(tmp_path, build.MNISTS[name])
    splits = load_mnist(0, tmp_path, release=release)
    assert [splits[split].count for split in SPLITS] == [12, 0, 5]
    raw = tmp_path / THEIRS[name].__name__ / "raw"
    raw.mkdir(parents=True)
    for archive in release.archives:
        path = tmp_path / archive.path
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    for split in ("train", "test"):
        theirs = THEIRS[name](str(tmp_path), train=split == "train")
        assert np.array_equal(np.concatenate(list(splits[split].pieces()))[:, 0], theirs.data.numpy())
        assert splits[split].labels.tolist() == theirs.targets.tolist()


def test_the_partition_is_official_but_for_the_validation_split() -> None:
    for name in build.MNISTS:
        assert DATASETS[name].counts == {"train": 60_000, "valid": 0, "test": 10_000}
        assert DATASETS[name].holding_out(None).counts == {"train": 55_000, "valid": 5_000, "test": 10_000}
    assert {DATASETS[name].dims for name in build.MNISTS} == {784}


# A package's copy.


def test_a_copy_of_a_package_is_used_where_there_is_no_other(tmp_path: Path) -> None:
    own = build.write_idx(tmp_path / "own", mnist.RELEASE.train.labels, b"own")
    packaged = build.write_idx(tmp_path / "package", mnist.RELEASE.train.labels, b"packaged")
    copy = tmp_path / "package" / packaged.path
    archive = replace(own, packaged=Packaged("dataset-x", str(copy), packaged.md5), url="http://localhost:1/x")
    assert archives.obtain(archive, tmp_path / "own") == tmp_path / "own" / own.path
    assert archives.obtain(archive, tmp_path / "none") == copy
    # Laid below the data root by hand, it is as good.
    (tmp_path / "own" / own.path).write_bytes(copy.read_bytes())
    assert archives.obtain(archive, tmp_path / "own") == tmp_path / "own" / own.path
    copy.write_bytes(b"altered")
    with pytest.raises(DataError, match=f"{copy}.*{own.md5}.*{packaged.md5}"):
        archives.obtain(archive, tmp_path / "none")
    assert archive.remedy.startswith("install Debian's package dataset-x, or get it from http://localhost:1/x")


def test_the_doctor_finds_a_copy_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = build.write_idx(tmp_path / "package", mnist.RELEASE.train.labels, b"packaged")
    copy = tmp_path / "package" / packaged.path
    archive = replace(packaged, packaged=Packaged("dataset-x", str(copy), packaged.md5))
    dataset = replace(DATASETS["mnist"], archives=(archive,))
    monkeypatch.setattr("indm.registry.DATASETS", {"mnist": dataset})
    (item,) = look("mnist", tmp_path / "none")
    assert item.state == READY
    assert str(copy) in item.detail


# What is refused: one line each.


def spoil(release: IdxRelease, root: Path, mistake: Callable[[bytes], bytes]) -> tuple[IdxRelease, Path]:
    """Alter what the file of training images holds; the release's sum is that of the altered file."""
    archive = release.train.images
    path = root / archive.path
    altered = build.write_idx(root, archive, mistake(gzip.decompress(path.read_bytes())))
    return replace(release, train=replace(release.train, images=altered)), path


MISTAKES = {
    "truncated": (
        lambda content: content[:-1],
        "found the magic number 2051 (images) and the sizes 12, 28, 28, 9,407 bytes",
    ),
    "too long": (lambda content: content + b"x", "sizes 12, 28, 28, more than 9,408 bytes after it; expected"),
    "labels": (
        lambda _: build.idx(np.zeros(12, np.uint8)),
        "found the magic number 2049 (labels) and the sizes 12, 0, 0",
    ),
    "too few": (
        lambda _: build.idx(np.zeros((2, 28, 28), np.uint8)),
        "found the magic number 2051 (images) and the sizes 2, 28, 28",
    ),
    "empty": (lambda _: b"", "found the magic number 0 (neither"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_damaged_file_whose_sum_is_right_is_named(tmp_path: Path, mistake: str) -> None:
    alter, words = MISTAKES[mistake]
    release, path = spoil(build.write_mnist(tmp_path, mnist.RELEASE), tmp_path, alter)
    with pytest.raises(DataError) as caught:
        load_mnist(0, tmp_path, release=release)
    text = str(caught.value)
    assert text.startswith(f"{path}: found ")
    assert words in text
    assert "expected the magic number 2051 (images) and the sizes 12, 28, 28, 9,408 bytes" in text
    assert text.endswith(f"delete it, then {release.train.images.remedy}")
    assert "\n" not in text


def test_swapped_labels_are_named(tmp_path: Path) -> None:
    """The test half's labels in the place of the training half's, both whole."""
    release = build.write_mnist(tmp_path, mnist.RELEASE)
    train, test = (tmp_path / part.labels.path for part in (release.train, release.test))
    train.write_bytes(test.read_bytes())
    with pytest.raises(DataError, match=f"^{train}.*{release.test.labels.md5}.*{release.train.labels.md5}"):
        load_mnist(0, tmp_path, release=release)
    same = replace(
        release, train=replace(release.train, labels=replace(release.train.labels, md5=release.test.labels.md5))
    )
    with pytest.raises(DataError, match=r"2049 .* 5, .* 12, "):
        load_mnist(0, tmp_path, release=same)


def test_a_file_that_expands_a_thousandfold_is_not_read_whole(tmp_path: Path) -> None:
    archive = build.write_idx(tmp_path, mnist.RELEASE.train.labels, build.idx(np.zeros(20 << 20, np.uint8)))
    with build.memory_below(1 << 20), pytest.raises(DataError, match="200 bytes"):
        read_idx(tmp_path / archive.path, (200,), archive)


@pytest.mark.parametrize("keep", [7, 30])
def test_a_truncated_gz_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(build.idx(np.arange(200, dtype=np.uint8)), mtime=0)[:keep])
    archive = Archive("labels.gz", "", "http://localhost:1/x")
    with pytest.raises(DataError, match=f"^{path}: "):
        read_idx(path, (200,), archive)


def test_labels_beyond_ten_are_refused(tmp_path: Path) -> None:
    release = build.write_mnist(tmp_path, mnist.RELEASE)
    labels = build.write_idx(tmp_path, release.test.labels, build.idx(np.full(5, 10, np.uint8)))
    changed = replace(release, test=replace(release.test, labels=labels))
    dataset: Dataset = replace(DATASETS["mnist"], load=partial(load_mnist, root=tmp_path, release=changed), counts=None)
    with pytest.raises(DataError, match=r"test.*label 10"):
        prepare.write_dataset(tmp_path / "out", "mnist", dataset, 0)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
