"""Published reference statistics: what is read of them, what is refused, and what the stages make of them."""

import hashlib
import io
import zipfile
from collections.abc import Sized
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from indm.arrays import read_array, write_array
from indm.bench.stages import fid, reference
from indm.bench.suite.schema.suite import Suite
from indm.errors import DataError
from indm.metrics.clean import CleanExtractor
from indm.metrics.frechet import fid_low_rank, statistics
from indm.metrics.precision_recall import PRC
from indm.metrics.published import read_published_statistics
from indm.store.files import STATISTICS_FORMAT, read_json, read_weights, write_json
from indm.store.layout import Layout
from tests.archives import memory_below
from tests.test_inception import RUN, suite

ROWS = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty data root."""
    monkeypatch.setenv("INDM_DATA", str(tmp_path))
    return tmp_path


def write(path: Path, **arrays: NDArray[Any]) -> str:
    """Write an .npz and return its sha256."""
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_features_and_statistics_give_the_same_reference(folder: Path) -> None:
    """As score_sde's file has them, logits beside, and as those of EDM and pytorch-fid do."""
    whole = read_published_statistics("a.npz", write(folder / "a.npz", pool_3=ROWS, logits=ROWS), 6)
    assert whole.features is not None
    assert np.array_equal(whole.features, ROWS)
    known = statistics(torch.from_numpy(ROWS))
    alone = read_published_statistics("b.npz", write(folder / "b.npz", **known), 6)
    assert alone.features is None
    for key in ("mu", "sigma"):
        assert np.array_equal(alone.statistics[key], whole.statistics[key])


FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "other names": ({"features": ROWS}, r"found none of these arrays; expected .*pool_3 \(M, 6\)"),
    "features of another network": ({"pool_3": ROWS[:, :5]}, r"found pool_3 float32 \(20, 5\)"),
    "half of the statistics": ({"mu": ROWS[0]}, r"found mu float32 \(6,\); expected"),
    "integers": ({"pool_3": ROWS.astype(int)}, r"found pool_3 int64 \(20, 6\)"),
    "a number that is none": ({"pool_3": np.full_like(ROWS, np.nan)}, "all finite"),
    "objects": ({"pool_3": np.array([ROWS, None], dtype=object)}, r"no \.npz of plain arrays \(Object arrays"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_arrays_are_refused(folder: Path, name: str) -> None:
    arrays, message = FOREIGN[name]
    with pytest.raises(DataError, match=message) as error:
        read_published_statistics("a.npz", write(folder / "a.npz", **arrays), 6)
    assert "\n" not in str(error.value)


def test_arrays_that_would_fill_the_memory_are_refused(folder: Path) -> None:
    path = folder / "a.npz"
    np.savez_compressed(path, pool_3=np.zeros((4 << 20, 6), np.float32))
    with memory_below(1 << 20), pytest.raises(DataError, match="100,663,4"):
        read_published_statistics("a.npz", hashlib.sha256(path.read_bytes()).hexdigest(), 6)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 50, 6)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pool_3.npy", header.getvalue())
    with pytest.raises(DataError, match="Unable to allocate"):
        read_published_statistics("a.npz", hashlib.sha256(path.read_bytes()).hexdigest(), 6)


def test_files_that_are_no_npz_are_refused(folder: Path) -> None:
    np.save(folder / "a.npy", ROWS)
    for content in (b"", b"no archive", b"PK\x03\x04 half of one", (folder / "a.npy").read_bytes()):
        (folder / "a.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npz"):
            read_published_statistics("a.npz", hashlib.sha256(content).hexdigest(), 6)


def test_missing_or_other_file_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"a\.npz.*No such file.*published_statistics"):
        read_published_statistics("a.npz", "0" * 64, 6)
    sha256 = write(folder / "a.npz", pool_3=ROWS)
    with pytest.raises(DataError, match=f"{sha256}.*0000"):
        read_published_statistics("a.npz", "0" * 64, 6)


def fake_features(extractor: object, images: Sized, *_: object, **__: object) -> tuple[torch.Tensor, ...]:
    """Stand in for the forward passes, which tests/test_inception.py has."""
    rows = torch.from_numpy(np.random.default_rng(len(images)).normal(size=(len(images), 2048)).astype(np.float32))
    return (rows,) if isinstance(extractor, CleanExtractor) else (rows, rows[:, :10])


def stages(folder: Path, chosen: Suite, monkeypatch: pytest.MonkeyPatch) -> tuple[Layout, dict[str, Any]]:
    """Run both stages, and return the layout and what the second of them found."""
    layout = Layout(folder / "results", "smoke")
    for module in (reference, fid):
        monkeypatch.setattr(module, "features", fake_features)
    for name, count in (("train", 8), ("test", 4)):
        write_array(layout.data("digits") / f"{name}.npy", np.zeros((count, 1, 8, 8), dtype=np.uint8))
    write_array(layout.run(RUN) / "samples.npy", np.zeros((5, 1, 8, 8), dtype=np.uint8))
    write_json(layout.data("digits") / "dataset.json", {"levels": 17, "classes": 10})
    reference.run(chosen, layout, "digits")
    fid.run(chosen, layout, RUN)
    return layout, read_json(layout.run(RUN) / "fid.json")


@pytest.mark.parametrize("kind", ["features", "statistics"])
def test_stages_compare_with_them(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    rows = torch.randn(12, 2048)
    arrays = {"pool_3": rows.numpy()} if kind == "features" else statistics(rows)
    published = {"path": "cifar10_stats.npz", "sha256": write(folder / "cifar10_stats.npz", **arrays)}
    layout, found = stages(folder, suite("inception-v3-random", published), monkeypatch)
    floors = read_json(layout.data("digits") / "reference.json")
    tensors, _ = read_weights(layout.data("digits") / "statistics.safetensors", STATISTICS_FORMAT)
    known = read_array(layout.data("digits") / "features.npy")
    for result in (found, floors):
        assert result["reference"] == "published: cifar10_stats.npz"
        assert result["reference_sha256"] == published["sha256"]
        assert result["num_reference"] == (12 if kind == "features" else None)
    assert ("sigma" in tensors) == (kind == "statistics")
    assert known.shape == (12 if kind == "features" else 0, 2048)
    generated, _ = fake_features(None, range(5))
    assert found["fid"] == pytest.approx(fid_low_rank(generated, statistics(rows)), rel=1e-9)
    for result in (found, floors["floors"]["test"]):
        absent = {key for key, value in result.items() if value is None} - {"num_reference"}
        absent -= {"fid_infinity", "fid_infinity_se"}  # of five images
        assert absent == (set() if kind == "features" else {"kid", "kid_se", *PRC})
    assert floors["floors"]["train-halves"]["kid"] is not None
