"""CIFAR-10 and CelebA from tiny archives: what is read, what is refused, and that a failure leaves nothing behind."""

import errno
import hashlib
import json
import os
import pickle
import shutil
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import ModuleSpec
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pooch
import pytest
import requests
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import CIFAR10, CelebA  # type: ignore[import-untyped]

from indm.bench import doctor
from indm.bench.cli import main
from indm.bench.doctor import MISSING
from indm.bench.stages import prepare
from indm.data import archives, celeba64, celeba64_6000, cifar10, standins
from indm.data.celeba64 import load_celeba64
from indm.data.celeba64_6000 import load_celeba64_6000
from indm.data.cifar10 import load_cifar10, parse_batch
from indm.data.dataset import SPLITS, Dataset, Split
from indm.errors import DataError
from indm.registry import DATASETS
from tests import archives as build
from tests.conftest import REPOSITORY

PAPER = REPOSITORY / "params/paper.yaml"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise requests.ConnectionError("Name or service not known")

    serve(monkeypatch, refuse)
    install_gdown(monkeypatch, refuse)
    monkeypatch.delenv("INDM_DATA", raising=False)


def serve(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str, str], None]) -> None:
    """Let a function of the address and of the file's name stand for every download by HTTP."""
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", lambda _, url, file, __: answer(url, file))


def install_gdown(monkeypatch: pytest.MonkeyPatch, download: Callable[..., None]) -> None:
    """Let a function stand for the package that downloads from Google Drive; no test needs it."""
    module = SimpleNamespace(download=download, __spec__=ModuleSpec("gdown", None))
    monkeypatch.setitem(sys.modules, "gdown", module)


def images(split: Split) -> NDArray[np.uint8]:
    return np.concatenate(list(split.pieces()))


def refused(load: partial[Any], out: Path) -> str:
    """Prepare a dataset that must be refused; return the error's text, having checked that nothing is left."""
    (name,) = (name for name, function in build.LOADS.items() if function is load.func)
    with pytest.raises(DataError) as caught:
        prepare.write_dataset(out, name, replace(DATASETS[name], load=load, counts=None), 0)
    assert not out.exists() or not list(out.iterdir())
    text = str(caught.value)
    assert "\n" not in text
    return text


# What is read.


def test_sums_and_sources_are_those_of_torchvision() -> None:
    release = cifar10.RELEASE
    assert (release.archive.url, release.archive.md5) == (CIFAR10.url, CIFAR10.tgz_md5)
    assert release.archive.path == CIFAR10.filename
    assert [list(item) for item in release.train.items()] == CIFAR10.train_list
    assert [list(item) for item in release.test.items()] == CIFAR10.test_list
    known = {f"celeba/{name}": (drive_id, md5) for drive_id, md5, name in CelebA.file_list}
    for archive in (celeba64.RELEASE.images, celeba64.RELEASE.partition):
        assert known[archive.path] == (archive.drive_id, archive.md5)


@pytest.mark.parametrize("unpacked", [False, True])
def test_cifar10_is_what_torchvision_reads(unpacked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = build.cifar10_members()
    release = build.write_cifar10(tmp_path, members)
    theirs_root = tmp_path if unpacked else tmp_path / "theirs"
    build.unpack(theirs_root, members)
    if unpacked:
        (tmp_path / release.archive.path).unlink()
    splits = load_cifar10(0, tmp_path, release)
    assert [splits[split].count for split in SPLITS] == [20, 0, 4]

    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda _: None)
    for split in ("train", "test"):
        theirs = CIFAR10(str(theirs_root), train=split == "train")
        assert np.array_equal(images(splits[split]), theirs.data.transpose(0, 3, 1, 2))
        assert splits[split].labels.tolist() == theirs.targets


def test_a_folder_that_is_not_whole_is_refused_whatever_lies_beside_it(tmp_path: Path) -> None:
    """The archive is whole, but images of the two are never mixed, and no choice between them is silent."""
    members = build.cifar10_members()
    release = build.write_cifar10(tmp_path, members)
    folder = build.unpack(tmp_path, members)
    load = partial(load_cifar10, root=tmp_path, release=release)
    (folder / "readme.html").unlink()
    assert load(0)["train"].count == 20, "a file that is not read may be missing"
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").write_bytes(b"altered")
    text = refused(load, tmp_path / "out")
    found = f"test_batch: found MD5 {build.md5(b'altered')} (7 bytes), expected {release.test['test_batch']}"
    assert text.startswith(f"{folder}: data_batch_2: missing, {found}")
    assert f"or delete the folder to have {release.archive.path} read" in text
    shutil.rmtree(folder)
    assert load(0)["train"].count == 20


def test_celeba64_is_partitioned_cropped_and_resized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celeba64, "PIECE", 2)
    release = build.write_celeba(tmp_path)
    splits = load_celeba64(0, tmp_path, release)
    assert [splits[split].count for split in SPLITS] == [5, 2, 2]
    assert all(len(splits[split].labels) == 0 for split in SPLITS)
    assert [len(piece) for piece in splits["train"].pieces()] == [2, 2, 1]
    with zipfile.ZipFile(tmp_path / release.images.path) as archive:
        expected = celeba64.read_image(archive, f"{celeba64.FOLDER}/000003.jpg")
    assert np.array_equal(images(splits["valid"])[0], expected)


def test_resizing_is_the_antialiased_triangle_filter() -> None:
    """Against torch's, which rounds once: no pixel is off by more than a level, and the crop is the central one."""
    pixels = np.random.default_rng(0).integers(256, size=(218, 178, 3), dtype=np.uint8)
    found = celeba64.crop_and_resize(Image.fromarray(pixels)).astype(float)
    centre = torch.from_numpy(pixels[39:179, 19:159]).permute(2, 0, 1)[None].double()
    exact = torch.nn.functional.interpolate(centre, size=(64, 64), mode="bilinear", antialias=True)[0].numpy()
    assert np.abs(found - exact).max() <= 1
    assert abs((found - exact).mean()) < 0.02
    assert exact.std() > 10


def test_the_data_root_of_prepare_is_the_option_then_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = build.write_cifar10(tmp_path / "option")
    load = partial(load_cifar10, release=release)
    monkeypatch.setattr(prepare, "DATASETS", {"cifar10": replace(DATASETS["cifar10"], load=load, counts=None)})
    monkeypatch.setenv("INDM_DATA", str(tmp_path / "variable"))
    assert f"{tmp_path}/variable/{release.archive.path}: missing" in call_prepare(tmp_path / "out")
    assert call_prepare(tmp_path / "out", "--data-root", str(tmp_path / "option"), exit_code=0) == ""
    monkeypatch.setenv("INDM_DATA", str(tmp_path / "option"))
    assert call_prepare(tmp_path / "out", exit_code=0) == ""
    assert f"{tmp_path}/other/{release.archive.path}: missing" in call_prepare(
        tmp_path / "other-out", "--data-root", str(tmp_path / "other")
    )


def call_prepare(out: Path, *options: str, exit_code: int = 1) -> str:
    """Prepare CIFAR-10 by the command line; return the error's only line, having checked that nothing is left."""
    arguments = ["prepare", "--suite", str(PAPER), "--dataset", "cifar10", "--out", str(out), *options]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == exit_code
    assert exit_code == 0 or not [path for path in out.rglob("*.*") if path.suffix != ".jsonl"]
    assert isinstance(done.exception, SystemExit | None)
    assert "Traceback" not in done.output
    assert done.stdout == ""
    # The other lines are progress bars.
    lines = [line for line in done.stderr.splitlines() if line.startswith("indm ")]
    assert len(lines) == exit_code, done.output
    return "".join(lines)


def test_the_data_root_may_begin_with_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell has looked at it where it stands in quotes, or in a file of settings."""
    monkeypatch.setenv("HOME", "/home/reader")
    monkeypatch.setenv(archives.VARIABLE, "~/archives")
    assert archives.data_root() == Path("/home/reader/archives")
    monkeypatch.delenv(archives.VARIABLE)
    assert archives.data_root() == Path("data")


def test_an_archive_in_the_place_of_its_folder_is_refused(tmp_path: Path) -> None:
    (archive,) = DATASETS["cifar10"].archives
    path = tmp_path / archive.path
    path.touch()
    words = f"{path}: found a file, expected the folder of the archives (--data-root, else INDM_DATA); name the folder"
    (item,) = doctor.archives("cifar10", path)
    assert item.gap.startswith(words)
    with pytest.raises(DataError) as caught:
        archives.obtain(archive, path)
    assert str(caught.value).startswith(words)


def test_a_download_from_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a socket: the file, its rights, another file than expected, and an answer that is none."""
    monkeypatch.undo()
    release = build.write_cifar10(tmp_path / "server")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "server"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        archive = replace(release.archive, url=f"{address}/{release.archive.path}")
        found = archives.obtain(archive, tmp_path / "new")
        with pytest.raises(DataError, match=r"md5:0{32}"):
            archives.obtain(replace(archive, md5="0" * 32), tmp_path / "other")
        with pytest.raises(DataError, match="404"):
            archives.obtain(replace(release.archive, url=f"{address}/nothing"), tmp_path / "other")
        server.shutdown()
    assert found.read_bytes() == (tmp_path / "server" / release.archive.path).read_bytes()
    assert found.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "server"]


def test_a_download_from_google_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = replace(celeba64.RELEASE.partition, md5=hashlib.md5(b"content").hexdigest())

    def download(*, id: str, output: str) -> None:  # noqa: A002
        assert id == archive.drive_id
        Path(output).write_bytes(b"content")

    install_gdown(monkeypatch, download)
    found = archives.obtain(archive, tmp_path / "data")
    assert found.read_bytes() == b"content"
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "celeba", found.name]


# What prepare writes.


@pytest.mark.parametrize("name", ["cifar10", "celeba64"])
def test_prepare_writes_arrays_and_their_description(name: str, tmp_path: Path) -> None:
    load = build.tiny(name, tmp_path / "data")
    dataset, out = replace(DATASETS[name], load=load, counts=None), tmp_path / "out"
    prepare.write_dataset(out, name, dataset, 0)
    description = json.loads((out / "dataset.json").read_text())
    labels = json.loads((out / "labels.json").read_text())
    for split, content in load(0).items():
        array = np.load(out / f"{split}.npy", mmap_mode="r", allow_pickle=False)
        assert array.dtype == np.uint8
        assert array.shape == (description["counts"][split], *description["shape"])
        assert np.array_equal(array, images(content))
        assert labels[split] == content.labels.tolist()
        assert len(description["sha256"][split]) == 64
    assert description["split_seed"] is None
    assert {"source", "licence"} <= set(description)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    prepare.write_dataset(out, name, dataset, 0)
    assert first == {path.name: path.read_bytes() for path in out.iterdir()}


MEBIBYTE = 1 << 20


def streamed(pieces: int, fail_at: int | None = None) -> Dataset:
    """A dataset of pieces of 3 MiB, made as they are asked for."""

    def read() -> Iterator[NDArray[np.uint8]]:
        for i in range(pieces):
            if i == fail_at:
                raise DataError("the archive ends here")
            yield np.full((1024, 3, 32, 32), i, dtype=np.uint8)

    split = Split(1024 * pieces, np.zeros(0, np.uint8), read)
    small = Split.whole(np.zeros((1, 3, 32, 32), np.uint8), np.zeros(0, np.uint8))
    return Dataset(256, 3, 32, 0, lambda _: {"train": small, "valid": small, "test": split}, "noise", "none")


def test_prepare_holds_a_few_pieces_at_a_time(tmp_path: Path) -> None:
    with build.memory_below(16 * MEBIBYTE):
        prepare.write_dataset(tmp_path, "streamed", streamed(20), 0)
    assert (tmp_path / "test.npy").stat().st_size > 60 * MEBIBYTE


def test_a_failure_in_the_last_split_leaves_nothing_and_harms_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ends here"):
        prepare.write_dataset(tmp_path, "streamed", streamed(2, fail_at=1), 0)
    assert not list(tmp_path.iterdir())
    prepare.write_dataset(tmp_path, "streamed", streamed(1), 0)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match="ends here"):
        prepare.write_dataset(tmp_path, "streamed", streamed(2, fail_at=1), 0)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_split_with_fewer_images_than_announced_is_refused(tmp_path: Path) -> None:
    dataset = streamed(2)
    splits = dataset.load(0)
    short = {**splits, "test": replace(splits["test"], count=2049)}
    with pytest.raises(DataError, match=r"test.*2048.*2049"):
        prepare.write_dataset(tmp_path, "streamed", replace(dataset, load=lambda _: short), 0)
    assert not list(tmp_path.iterdir())


# What is refused.


@pytest.mark.parametrize("name", ["cifar10", "celeba64"])
def test_missing_or_altered_archive_without_internet(name: str, tmp_path: Path) -> None:
    data, archive = tmp_path / "data", DATASETS[name].archives[0]
    text = refused(partial(build.LOADS[name], root=data), tmp_path / "out")
    path = data / archive.path
    assert text == f"{path}: missing, and its download failed (Name or service not known); {archive.remedy}"
    assert not data.exists()
    build.tiny(name, data)
    text = refused(partial(build.LOADS[name], root=data), tmp_path / "out")
    assert text.startswith(f"{path}: found MD5 ")
    assert f"expected {archive.md5}: truncated or altered; delete it, then {archive.remedy}" in text


@pytest.mark.parametrize("installed", [True, False])
def test_the_package_that_downloads_from_google_drive_is_named(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives.importlib.util, "find_spec", lambda _: installed or None)
    for archive in DATASETS["celeba64"].archives:
        assert archive.remedy.startswith("install the package gdown, which downloads it, or get it") is not installed
        assert archive.address == "https://drive.google.com"
    (archive,) = DATASETS["cifar10"].archives
    assert archive.remedy.startswith(f"get it from {archive.url}")
    assert archive.address == archive.url


def test_without_pooch_the_extra_that_has_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataError) as refusal:
        load_cifar10(0, root=tmp_path / "data")
    assert "; pip install 'indm[bench]', or get it from " in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_full_disk_while_downloading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(_: str, file: str) -> None:
        Path(file).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    serve(monkeypatch, fill)
    assert "No space left on device" in refused(partial(load_cifar10, root=tmp_path / "data"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_truncated_archive(tmp_path: Path) -> None:
    members = build.cifar10_members()
    release = build.write_cifar10(tmp_path, members)
    path = tmp_path / release.archive.path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    own = build.cifar10_release(path, members)
    text = refused(partial(load_cifar10, root=tmp_path, release=own), tmp_path / "out")
    assert text.startswith(f"{path}: found a truncated or damaged archive (")


@pytest.mark.parametrize("name", ["data_batch_1", "readme.html"])
def test_an_archive_that_expands_a_thousandfold_is_not_read_whole(name: str, tmp_path: Path) -> None:
    members = build.cifar10_members() | {f"{cifar10.FOLDER}/{name}": bytes(40 * MEBIBYTE)}
    release = build.write_cifar10(tmp_path, members)
    with build.memory_below(4 * MEBIBYTE):
        text = refused(partial(load_cifar10, root=tmp_path, release=release), tmp_path / "out")
    assert f"{release.archive.path}: found a truncated or damaged archive (it expands to more than 1,146,880" in text


def test_a_header_that_expands_a_thousandfold_is_not_read_whole(tmp_path: Path) -> None:
    """What tar writes before a member with a long name."""
    path = tmp_path / cifar10.RELEASE.archive.path
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x" * 40 * MEBIBYTE))
    release = build.cifar10_release(path, {})
    with build.memory_below(4 * MEBIBYTE):
        text = refused(partial(load_cifar10, root=tmp_path, release=release), tmp_path / "out")
    assert "it expands to more than 1,146,880" in text


def test_batch_with_another_sum_or_missing(tmp_path: Path) -> None:
    release = build.write_cifar10(tmp_path)
    other = replace(release, test={build.TEST_BATCH: "0" * 32})
    text = refused(partial(load_cifar10, root=tmp_path, release=other), tmp_path / "out")
    assert f"member {cifar10.FOLDER}/test_batch: found MD5" in text
    members = {name: content for name, content in build.cifar10_members().items() if "test_batch" not in name}
    release = build.write_cifar10(tmp_path, members)
    text = refused(partial(load_cifar10, root=tmp_path, release=release), tmp_path / "out")
    assert f"found no member {cifar10.FOLDER}/test_batch" in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_that_would_execute_code(protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    hostile = pickle.dumps([1, build.Hostile(mark)], protocol=protocol)
    members = build.cifar10_members() | {f"{cifar10.FOLDER}/data_batch_1": hostile}
    release = build.write_cifar10(tmp_path, members)
    text = refused(partial(load_cifar10, root=tmp_path, release=release), tmp_path / "out")
    words = "found a pickle that was refused without executing it (it names posix.mkdir)"
    assert f"member {cifar10.FOLDER}/data_batch_1: {words}" in text
    assert not mark.exists()
    pickle.loads(hostile)
    assert mark.exists(), "the test's own pickle is harmless"


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ([1], "found data NoneType"),
        ({b"data": np.zeros((1, 3071), np.uint8), b"labels": [0]}, r"found data uint8 \(1, 3071\), expected uint8 \(1, 3072\)"),
        ({b"data": np.zeros((1, 3072), np.float32), b"labels": [0]}, "found data float32"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 0]}, r"found data uint8 \(2, 3072\)"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "found labels list of 1, expected 1 integers below 10"),
        ({b"data": np.zeros((1, 3072), np.uint8)}, "found labels NoneType"),
    ],
)  # fmt: skip
def test_batch_that_is_not_one(entry: object, found: str) -> None:
    with pytest.raises(DataError, match=f"batch: {found}"):
        parse_batch(build.python2_pickle(entry), "batch", 1)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q", b"not a pickle", b"\x80\x02cnumpy\ndtype\n(Vnonsense\ntR."])
def test_damaged_batch(content: bytes) -> None:
    with pytest.raises(DataError, match=r"batch.*pickle"):
        parse_batch(content, "batch", 1)


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/../../escaped", "..\\escaped", "C:\\escaped"])
def test_member_that_climbs_out(name: str, tmp_path: Path) -> None:
    release = build.write_cifar10(tmp_path / "data", {**build.cifar10_members(), name: b"x"})
    text = refused(partial(load_cifar10, root=tmp_path / "data", release=release), tmp_path / "out")
    assert f"found the member {name!r}, which climbs out" in text
    other = build.write_celeba(tmp_path / "data", {**build.celeba_members(), name: b"x"}, ["000001.jpg 0"])
    text = refused(partial(load_celeba64, root=tmp_path / "data", release=other), tmp_path / "out")
    assert f"found the member {name!r}, which climbs out" in text
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (build.jpeg(178, 217), "found 178x217 RGB, expected 178x218 RGB"),
        (build.jpeg(mode="L"), "found 178x218 L, expected 178x218 RGB"),
        (build.jpeg()[:2000], "found no whole JPEG (image file is truncated"),
        (b"GIF89a", "found no whole JPEG (cannot be identified)"),
        (bytes(40 * MEBIBYTE), "found no whole JPEG (it has more than 116,412 bytes)"),
        (build.jpeg().replace(b"\x00\xda\x00\xb2", b"\x27\x10\x27\x10"), "found an image that is too large ("),
        (build.jpeg().replace(b"\x00\xda\x00\xb2", b"\xff\xff\xff\xff"), "found an image that is too large ("),
    ],
)
def test_image_that_is_not_one_of_celeba(content: bytes, found: str, tmp_path: Path) -> None:
    members = build.celeba_members() | {f"{celeba64.FOLDER}/000004.jpg": content}
    release = build.write_celeba(tmp_path, members, compression=zipfile.ZIP_DEFLATED)
    with build.memory_below(4 * MEBIBYTE):
        text = refused(partial(load_celeba64, root=tmp_path, release=release), tmp_path / "out")
    assert f"img_align_celeba.zip, member img_align_celeba/000004.jpg: {found}" in text


def test_a_member_that_is_longer_than_it_says_is_not_read_whole(tmp_path: Path) -> None:
    name = f"{celeba64.FOLDER}/000004.jpg"
    build.write_celeba(tmp_path, {name: bytes(40 * MEBIBYTE)}, ["000004.jpg 0"], zipfile.ZIP_DEFLATED)
    path = tmp_path / celeba64.RELEASE.images.path
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 40 * MEBIBYTE), struct.pack("<I", 1000)))
    with build.memory_below(4 * MEBIBYTE), pytest.raises(DataError, match="JPEG"):
        list(celeba64.read_images(path, ["000004.jpg"]))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_compressed_by_another_method_is_refused(tmp_path: Path, compression: int) -> None:
    """Python decompresses it in one piece, however little of it is asked for."""
    release = build.write_celeba(tmp_path, compression=compression)
    text = refused(partial(load_celeba64, root=tmp_path, release=release), tmp_path / "out")
    assert "000001.jpg: found no whole JPEG (it is compressed by a method other than deflate)" in text


def test_damaged_zip(tmp_path: Path) -> None:
    release = build.write_celeba(tmp_path)
    path = tmp_path / release.images.path
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    text = refused(partial(load_celeba64, root=tmp_path, release=build.celeba_release(tmp_path)), tmp_path / "out")
    assert text.startswith(f"{path}: found no zip archive (")
    path.write_bytes(whole.replace(build.jpeg(seed=4)[-200:-150], bytes(50)))
    text = refused(partial(load_celeba64, root=tmp_path, release=build.celeba_release(tmp_path)), tmp_path / "out")
    assert "000004.jpg: found no whole JPEG (Bad CRC-32" in text


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("000099.jpg 0", "000099.jpg is not in img_align_celeba.zip"),
        ("../000001.jpg 0", "../000001.jpg is not in img_align_celeba.zip"),
        ("000001.jpg 0", "000001.jpg is named twice"),
        ("000009.jpg 3", "found '000009.jpg 3', expected an image's name and 0, 1 or 2"),
        ("", "found '', expected an image's name"),
    ],
)
def test_partition_that_does_not_fit(line: str, found: str, tmp_path: Path) -> None:
    members = build.celeba_members()
    release = build.write_celeba(tmp_path, members, [*build.partition_lines(members)[:8], line])
    text = refused(partial(load_celeba64, root=tmp_path, release=release), tmp_path / "out")
    assert f"list_eval_partition.txt, line 9: {found}" in text


# The stand-ins that come with the package.


def test_standins_are_what_their_builders_make(tmp_path: Path) -> None:
    """By content: compressed bytes differ between versions of zlib and libjpeg. On failure: python -m tests.archives."""
    build.write_standins(tmp_path)
    tars, zips, partitions = (
        [root / path for root in (standins.ROOT, tmp_path)]
        for path in (
            f"standin32/{standins.RELEASE32.archive.path}",
            f"standin64/{standins.RELEASE64.images.path}",
            f"standin64/{standins.RELEASE64.partition.path}",
        )
    )
    assert tar_members(tars[0]) == tar_members(tars[1])
    assert partitions[0].read_bytes() == partitions[1].read_bytes()
    with zipfile.ZipFile(zips[0]) as committed, zipfile.ZipFile(zips[1]) as made:
        assert committed.namelist() == made.namelist()
        for name in made.namelist()[1:]:
            first, second = (np.asarray(Image.open(archive.open(name))).astype(int) for archive in (committed, made))
            # Libraries round their cosine transforms differently.
            assert np.abs(first - second).mean() < 1


def tar_members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


STANDINS = {"standin32": standins.RELEASE32.archive, "standin64": standins.RELEASE64.partition}


@pytest.mark.parametrize("name", STANDINS)
def test_standin_that_is_missing_or_altered(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standins, "ROOT", tmp_path)
    archive = STANDINS[name]
    path = tmp_path / name / archive.path
    remedy = "it comes with this package: install the package again"
    with pytest.raises(DataError) as caught:
        DATASETS[name].load(0)
    assert str(caught.value) == f"{path}: missing; {remedy}"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"altered")
    with pytest.raises(DataError, match=f"{archive.md5}.*{remedy}"):
        DATASETS[name].load(0)


# ---- A part of CelebA ---------------------------------------------------------------------------------------------


def part_of_celeba(root: Path) -> tuple[Path, dict[str, bytes]]:
    """Write the published archive below ``root``; return the list of the part, and the files by their names."""
    listed = build.write_celeba_6000(root)
    with zipfile.ZipFile(root / celeba64.RELEASE.images.path) as archive:
        files = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    return listed, files


@pytest.mark.parametrize("place", celeba64_6000.PLACES)
def test_a_part_of_celeba_is_the_same_from_a_folder_and_from_any_archive(place: str, tmp_path: Path) -> None:
    listed, files = part_of_celeba(tmp_path / "published")
    whole = load_celeba64_6000(0, tmp_path / "published", listed)
    path = tmp_path / "other" / place
    path.parent.mkdir(parents=True)
    if path.suffix:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in reversed(files.items()):
                archive.writestr(f"faces/{name}", content)
    else:
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
    found = load_celeba64_6000(0, tmp_path / "other", listed)
    for split, count in {"train": 6, "valid": 2, "test": 4}.items():
        assert found[split].count == count
        assert np.array_equal(np.concatenate(list(found[split].pieces())), np.concatenate(list(whole[split].pieces())))
    assert found["test"].clusters is not None
    assert found["test"].clusters.tolist() == [4, 5, 4, 5]


def test_a_part_of_celeba_that_is_missing_altered_or_incomplete_is_refused_in_one_line(tmp_path: Path) -> None:
    listed, files = part_of_celeba(tmp_path / "published")
    text = refused(partial(load_celeba64_6000, root=tmp_path / "nothing", listed=listed), tmp_path / "out")
    assert all(place in text for place in celeba64_6000.PLACES)
    folder = tmp_path / "data" / celeba64_6000.PLACES[0]
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "000007.jpg").write_bytes(files["000008.jpg"])
    text = refused(partial(load_celeba64_6000, root=tmp_path / "data", listed=listed), tmp_path / "out")
    assert f"{folder}, 000007.jpg: found SHA-256" in text
    (folder / "000007.jpg").unlink()
    text = refused(partial(load_celeba64_6000, root=tmp_path / "data", listed=listed), tmp_path / "out")
    assert f"{folder}: found 11 of the 12 images of celeba64-6000, without 000007.jpg" in text
    assert "\n" not in text.strip()


def test_the_people_of_the_part_of_celeba_take_turns_and_keep_to_one_split() -> None:
    images = celeba64_6000.read_list()
    people: dict[str, list[int]] = {}
    for image in images:
        people.setdefault(image.split, []).append(image.identity)
    assert {split: (len(found), len(set(found))) for split, found in people.items()} == {
        "train": (4560, 152),
        "valid": (780, 26),
        "test": (660, 22),
    }
    assert not set(people["train"]) & set(people["test"])
    rounds = [people["test"][start : start + 22] for start in range(0, 660, 22)]
    assert all(sorted(turn) == sorted(set(people["test"])) for turn in rounds)
    # CelebA has one picture of a person in the test split twice, as 186574 and 197961.
    assert len({image.sha256 for image in images}) == len({image.name for image in images}) - 1 == 5999


def test_the_doctor_names_the_part_of_celeba_that_is_missing(tmp_path: Path) -> None:
    (item,) = doctor.archives("celeba64-6000", tmp_path)
    assert item.state == MISSING
    assert "img_align_celeba" in item.gap
