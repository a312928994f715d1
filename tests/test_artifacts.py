"""Files: atomic, strict, and refused when they are not what they should be."""

import errno
import json
import math
import platform
import resource
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch

from indm.arrays import read_array, write_array
from indm.bench.stages.reference import _labels
from indm.errors import ArtifactError
from indm.metrics.extractors import SmallClassifier
from indm.metrics.references import load_extractors, load_references
from indm.store import files as artifacts
from indm.store import provenance as records
from indm.store.files import (
    EXTRACTOR_FORMAT,
    STATISTICS_FORMAT,
    atomic_write,
    file_sha256,
    read_json,
    read_weights,
    write_json,
    write_table,
    write_weights,
)
from indm.store.manifest import Manifest, content_sha256, read_manifest, write_manifest
from indm.store.provenance import provenance

KIND = "test-1"


def test_round_trips(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2.5, None]}
    write_array(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    assert read_array(tmp_path / "a.npy").tolist() == [[0, 1, 2], [3, 4, 5]]
    write_weights(tmp_path / "a.safetensors", {"w": torch.ones(2)}, {"model": {"width": 3}}, KIND)
    tensors, spec = read_weights(tmp_path / "a.safetensors", KIND)
    assert torch.equal(tensors["w"], torch.ones(2))
    assert spec["model"] == {"width": 3}


def test_table_has_six_digits_and_empty_cells(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", pd.DataFrame({"a": [1 / 3, None], "b": ["x", None]}))
    assert (tmp_path / "t.csv").read_bytes() == b"a,b\n0.333333,x\n,\n"


def test_same_content_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 2)}
        write_weights(tmp_path / name, tensors, {"model": {"x": 1, "y": 2}}, KIND)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": True})

    def fail_half_way() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert read_json(path) == {"old": True}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(artifacts.os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"a\.json.*No space"):
        write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_disk_is_one_line_where_nothing_can_be_cleaned_up_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = Mock(side_effect=OSError(errno.EROFS, "Read-only file system"))
    with monkeypatch.context() as disk:
        disk.setattr(Path, "open", refuse)
        disk.setattr(Path, "unlink", refuse)
        with pytest.raises(ArtifactError, match=r"a\.json.*Read-only"):
            write_json(tmp_path / "a.json", {})


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("mine")
    with pytest.raises(ArtifactError, match=r"a\.json.*(File exists|Not a directory).*results"):
        write_json(tmp_path / "results/a.json", {})
    assert (tmp_path / "results").read_text() == "mine"


def test_a_file_that_nobody_may_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
    write_json(tmp_path / "a.json", {})
    # The rights of a file mean nothing to the superuser.
    for name in ("open", "read_bytes"):
        monkeypatch.setattr(Path, name, refuse)
    for reader in (read_json, file_sha256):
        with pytest.raises(ArtifactError, match=r"a\.json.*Permission denied"):
            reader(tmp_path / "a.json")


def test_a_manifest_without_checksums_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_manifest(path, Manifest("train", "smoke", "a", {}, {}, {"results/a": "0" * 64}))
    content = read_json(path)
    assert read_manifest(path).outputs == content["outputs"]
    write_json(path, content | {"outputs": {"results/a": 5}})
    with pytest.raises(ArtifactError, match=r"manifest\.json.*results/a"):
        read_manifest(path)


def test_results_must_be_finite(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not finite"):
        write_json(tmp_path / "a.json", {"fid": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "header",
    [
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30},)}}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 4)}",
        "((((",
    ],
)
@pytest.mark.filterwarnings("error")
def test_an_array_whose_header_lies_is_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(64))
    with pytest.raises(ArtifactError, match=r"a\.npy") as error:
        read_array(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("reader", [read_json, read_array, lambda path: read_weights(path, KIND)])
def test_missing_and_damaged_files_are_named(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    with pytest.raises(ArtifactError, match="absent"):
        reader(tmp_path / "absent")
    for content in (b"\x00\x01 not what it claims", b'{"nll": ' + b"[" * 100_000):
        (tmp_path / "damaged").write_bytes(content)
        with pytest.raises(ArtifactError, match="damaged"):
            reader(tmp_path / "damaged")


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "w", {"w": torch.ones(1)}, {}, "another-1")
    with pytest.raises(ArtifactError, match=r"another-1.*test-1"):
        read_weights(tmp_path / "w", KIND)


def test_pickled_array_is_not_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "exploded"),))

    np.save(tmp_path / "bomb.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(ArtifactError, match=r"not a \.npy array"):
        read_array(tmp_path / "bomb.npy")
    assert not (tmp_path / "exploded").exists()


def test_provenance_is_json_and_complete() -> None:
    found = json.loads(json.dumps(provenance(1.5, threads=1)))
    about = {"commit", "uncommitted_changes", "versions", "machine", "threads", "allocator", "device", "seconds"}
    assert about | {"peak_memory_mib", "processor_seconds"} == set(found)
    assert found["versions"]["torch"] == torch.__version__
    assert found["device"] == "cpu"
    assert found["threads"] == 1


def test_processor_time_grows_by_computing_and_not_by_waiting() -> None:
    """Also the time of child processes."""
    before = provenance(0.0, threads=1)["processor_seconds"]
    time.sleep(0.5)
    waited = provenance(0.0, threads=1)["processor_seconds"] - before
    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
    computed = provenance(0.0, threads=1)["processor_seconds"] - before - waited
    assert waited < 0.3
    assert computed > 0.1


def test_provenance_names_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(records, "CPUINFO", cpuinfo)
    one = "processor : {}\ncpu family : 25\nmodel : 1\nmodel name : AMD EPYC 7B13\nflags : fpu {} sse2\n\n"
    for flags, widest in (("avx2", "AVX2"), ("avx2 avx512f", "AVX-512"), ("avx2 avx512f amx_tile", "AMX")):
        cpuinfo.write_text(one.format(0, flags) + one.format(1, flags))
        assert f"AMD EPYC 7B13 (family 25, model 1), {widest}, " in provenance(0.0, threads=1)["machine"]
    cpuinfo.unlink()
    assert platform.machine() in provenance(0.0, threads=1)["machine"]


def test_provenance_names_what_restricts_the_processor_s_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in records.RESTRICTIONS:
        monkeypatch.delenv(name, raising=False)
    unrestricted = provenance(0.0, threads=1)["machine"]
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    assert provenance(0.0, threads=1)["allocator"] == "glibc.malloc.hugetlb=1"
    assert provenance(0.0, threads=1)["machine"] == f"{unrestricted}, ATEN_CPU_CAPABILITY=avx2, MKL_CBWR=AVX2"


def test_a_copy_inside_another_project_does_not_give_that_projects_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        author = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *author, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("theirs")
    git("add", ".")
    git("commit", "-m", "theirs")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    monkeypatch.setattr(records, "CHECKOUT", unpacked)
    found = provenance(0.0, threads=1)
    assert found["commit"] is None
    assert found["uncommitted_changes"] is None
    monkeypatch.setattr(records, "CHECKOUT", tmp_path)
    assert len(provenance(0.0, threads=1)["commit"]) == 40


GIBIBYTE = 1 << 30


def test_a_batch_of_a_split_is_read_and_not_the_split(tmp_path: Path) -> None:
    """Of a sparse file of 4 GiB: neither NumPy's memory, nor the process's, grows by what is not looked at."""
    count = 4 * GIBIBYTE // 3072
    with (tmp_path / "train.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, 32, 32)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        file.truncate(start + count * 3072)
        file.seek(start + 1000 * 3072)
        file.write(bytes([7]) * 3072)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = torch.from_numpy(read_array(tmp_path / "train.npy"))
    batch = images[torch.tensor([0, 1000, count - 1])]
    assert tracemalloc.get_traced_memory()[1] < GIBIBYTE / 64
    tracemalloc.stop()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < GIBIBYTE / 1024 / 8
    assert (images.shape, images.dtype) == ((count, 3, 32, 32), torch.uint8)
    assert batch.flatten(1).float().mean(1).tolist() == [0, 7, 0]


def test_what_is_written_to_an_array_that_was_read_stays_in_memory(tmp_path: Path) -> None:
    write_array(tmp_path / "train.npy", np.zeros((2, 3), dtype=np.uint8))
    torch.from_numpy(read_array(tmp_path / "train.npy")).fill_(1)
    assert read_array(tmp_path / "train.npy").sum() == 0


@pytest.mark.parametrize("labels", [{}, {"train": [0, 1]}, {"train": [0, 1, 10]}, {"train": [0, 1, "2"]}])
def test_labels_that_are_not_those_of_the_images_are_refused(tmp_path: Path, labels: dict[str, Any]) -> None:
    write_json(tmp_path / "labels.json", {"train": [0, 1, 2]})
    assert _labels(tmp_path, "train", 3, 10).tolist() == [0, 1, 2]
    write_json(tmp_path / "labels.json", labels)
    with pytest.raises(ArtifactError, match=r"labels\.json.*key train"):
        _labels(tmp_path, "train", 3, 10)


def test_numbers_that_are_not_finite_in_a_reference_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "statistics.safetensors", {}, {}, STATISTICS_FORMAT)
    write_array(tmp_path / "features.npy", np.full((4, 64), np.nan))
    with pytest.raises(ArtifactError, match=r"features\.npy.*256"):
        load_references(tmp_path)
    weights = SmallClassifier(10).state_dict() | {"scale": torch.tensor(math.inf)}
    write_weights(
        tmp_path / "extractor.safetensors", weights, {"extractor": "digits-cnn", "classes": 10}, EXTRACTOR_FORMAT
    )
    with pytest.raises(ArtifactError, match=r"extractor\.safetensors.*scale"):
        load_extractors(tmp_path / "extractor.safetensors")


def test_the_hash_of_a_folder_is_of_names_and_contents_in_order_without_hidden_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, names in ((first, "abc"), (second, "cba")):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
    (second / ".snakemake_timestamp").write_text("")
    assert content_sha256(first) == content_sha256(second)
    (second / "c").write_text("d")
    assert content_sha256(first) != content_sha256(second)
