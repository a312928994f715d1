"""Inception-v3: the stages with the random stand-in, and weights that are missing, damaged, foreign or hostile."""

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import yaml
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import KEY_METRIC_FID

from indm.artifacts import EXTRACTOR_FORMAT, Layout, read_array, read_json, read_weights, write_array, write_json
from indm.data.digits import load_digits
from indm.errors import DataError
from indm.metrics import build_inception, features, fidelity, weights
from indm.metrics.fidelity import Statistics, fid_symmetric, symmetric_root
from indm.params import Suite
from indm.stages import fid, reference
from tests.conftest import REPOSITORY

RUN = "digits-vp-indm-fid-s0"
COUNTS = {"train": 8, "test": 4}


def suite(extractor: str) -> Suite:
    """Return the smoke suite with an Inception extractor and counts that suit a dozen images."""
    content = yaml.safe_load((REPOSITORY / "params/smoke.yaml").read_text())
    content["reference"]["digits"] = {"extractor": extractor, "classifier": None}
    content["fid"] = {"kid_subsets": 2, "kid_subset_size": 3, "bootstrap": 2}
    return Suite.model_validate(content)


def prepare(layout: Layout) -> None:
    """Write a dozen digits as a prepared dataset, and five more as a run's samples."""
    splits = load_digits(0)
    images = {name: np.concatenate(list(split.pieces())) for name, split in splits.items()}
    for name, count in COUNTS.items():
        write_array(layout.data("digits") / f"{name}.npy", images[name][:count])
    write_json(layout.data("digits") / "dataset.json", {"levels": 17, "classes": 10})
    write_array(layout.run(RUN) / "samples.npy", images["valid"][:5])


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Run both stages once, with the random stand-in: the only forward passes of this module but three images."""
    layout = Layout(tmp_path_factory.mktemp("results"), "smoke")
    prepare(layout)
    with threadpool_limits(1), pytest.MonkeyPatch.context() as monkeypatch:
        # Of a dozen images' covariances the general eigenvalues take up to ten seconds each.
        monkeypatch.setattr(fidelity, "fid_statistics_to_metric", symmetric_metric)
        reference.run(suite("inception-v3-random"), layout, "digits")
        fid.run(suite("inception-v3-random"), layout, RUN)
    return layout


def symmetric_metric(first: Statistics, second: Statistics, verbose: bool) -> dict[str, float]:
    return {KEY_METRIC_FID: fid_symmetric(first, second, symmetric_root(second["sigma"]))}


@pytest.fixture(scope="module")
def state() -> weights.StateDict:
    return weights.random_weights()[0]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty torch.hub, no option, and no internet; return where the weights would lie."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.delenv(weights.OPTION, raising=False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_internet)
    return weights.hub_path()


def no_internet(*_: object, **__: object) -> None:
    raise URLError("no route")


def expect(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Make the file at ``path`` the one whose sha256 is expected."""
    monkeypatch.setattr(weights, "PREFIX", hashlib.sha256(path.read_bytes()).hexdigest()[:8])


def test_stage_reference_identifies_the_extractor_and_keeps_no_weights(layout: Layout) -> None:
    path = layout.data("digits") / "extractor.safetensors"
    tensors, spec = read_weights(path, EXTRACTOR_FORMAT)
    assert tensors == {}
    assert path.stat().st_size < 1000
    _, sha256 = build_inception("inception-v3-random")
    assert spec == {"format": EXTRACTOR_FORMAT, "extractor": "inception-v3-random", "weights_sha256": sha256}
    result = read_json(layout.data("digits") / "reference.json")
    assert result["extractor"] == "inception-v3-random"
    assert result["test_accuracy"] is None
    assert set(result["floors"]) == {"test", "train-halves"}
    found = read_array(layout.data("digits") / "features.npy")
    assert (found.shape, found.dtype) == ((COUNTS["train"], 2048), np.float32)
    assert found.std(0).mean() > 1e-3, "the random network tells images apart"


def test_stage_fid_names_the_extractor(layout: Layout) -> None:
    result = read_json(layout.run(RUN) / "fid.json")
    assert result["extractor"] == "inception-v3-random"
    assert (result["num_reference"], result["num_samples"]) == (COUNTS["train"], 5)
    assert result["fid"] > 0
    assert result["fid_se"] > 0


def test_batch_size_does_not_matter(layout: Layout) -> None:
    whole = read_array(layout.data("digits") / "features.npy")[:3]
    extractor, _ = build_inception("inception-v3-random")
    images = read_array(layout.data("digits") / "train.npy")[:3]
    again = features(extractor, images, 17, batch_size=2).numpy()
    np.testing.assert_allclose(again, whole, rtol=1e-4, atol=1e-4 * float(np.abs(whole).mean()))


def test_stage_fid_refuses_other_weights(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    other = weights.random_weights(seed=1)
    monkeypatch.setitem(fid.INCEPTION, "inception-v3-random", lambda: other)
    with pytest.raises(DataError, match=f"found weights of sha256 {other[1]}, expected .* reference was made"):
        fid.run(suite("inception-v3-random"), layout, RUN)


def test_random_weights_are_torch_fidelitys_format_and_repeat(state: weights.StateDict) -> None:
    network = FeatureExtractorInceptionV3("x", ["2048"], weights.as_file(state))
    assert list(network.state_dict()) == list(state)
    assert weights.digest(network.state_dict()) == weights.random_weights()[1] == weights.digest(state)
    assert weights.random_weights(seed=1)[1] != weights.digest(state)


def test_prefix_is_that_of_the_files_name() -> None:
    assert weights.FILE == "weights-inception-2015-12-05-6726825d.pth"
    assert weights.PREFIX == "6726825d"


def test_missing_weights_name_file_places_source_and_option(hub: Path) -> None:
    with pytest.raises(DataError) as error:
        build_inception("inception-v3-compat")
    message = str(error.value)
    assert "\n" not in message
    for part in (
        weights.FILE,
        "INDM_INCEPTION (not set)",
        str(hub),
        "no route",
        URL_INCEPTION_V3,
        "set the environment",
    ):
        assert part in message
    assert not hub.exists()


def test_missing_weights_leave_no_output(hub: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path, "smoke")
    prepare(layout)
    before = sorted(tmp_path.rglob("*.*"))
    with pytest.raises(DataError, match="Inception weights missing"):
        reference.run(suite("inception-v3-compat"), layout, "digits")
    assert sorted(tmp_path.rglob("*.*")) == before


def test_option_that_names_no_file_is_an_error(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.parent.mkdir(parents=True)
    hub.write_bytes(b"")
    monkeypatch.setenv("INDM_INCEPTION", "/nowhere/weights.pth")
    with pytest.raises(DataError, match=r"found no file at INDM_INCEPTION=/nowhere/weights\.pth; download"):
        weights.find_weights()


def test_option_precedes_the_cache_and_the_cache_the_download(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda _, path, **__: Path(path).write_bytes(b"new"))
    assert weights.find_weights() == hub
    assert hub.read_bytes() == b"new"
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_internet)
    assert weights.find_weights() == hub
    chosen = tmp_path / "mine.pth"
    chosen.write_bytes(b"")
    monkeypatch.setenv("INDM_INCEPTION", str(chosen))
    assert weights.find_weights() == chosen


def test_weights_at_the_option_are_used(
    hub: Path, state: weights.StateDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    monkeypatch.setenv("INDM_INCEPTION", str(path))
    with pytest.raises(DataError, match=r"mine.pth: found sha256 \w+, expected 6726825d.*damaged or another file"):
        build_inception("inception-v3-compat")
    expect(monkeypatch, path)
    extractor, sha256 = build_inception("inception-v3-compat")
    assert extractor.get_name() == "inception-v3-compat"
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights.digest(extractor.state_dict()) == weights.digest(state)
    with pytest.raises(DataError, match="with which the reference was made"):
        build_inception("inception-v3-compat", "0" * 64)


class Hostile:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_pickle_executes_nothing(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    hub.parent.mkdir(parents=True)
    torch.save({"weight": Hostile(tmp_path / "made")}, hub, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match="found sha256"):
        build_inception("inception-v3-compat")
    expect(monkeypatch, hub)
    with pytest.raises(DataError, match="not a file of weights alone"):
        build_inception("inception-v3-compat")
    assert not (tmp_path / "made").exists()
    torch.load(hub, weights_only=False)
    assert (tmp_path / "made").exists(), "the pickle was harmless, so the test showed nothing"


@pytest.mark.parametrize(
    ("content", "message"),
    [({"a": torch.zeros(1)}, "those of another network"), ({"a": 1}, "expected a dict of tensors"), ([], "found list")],
)
def test_foreign_content_is_refused(hub: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str) -> None:
    hub.parent.mkdir(parents=True)
    torch.save(content, hub)
    expect(monkeypatch, hub)
    with pytest.raises(DataError, match=message):
        build_inception("inception-v3-compat")


@pytest.mark.parametrize("content", [b"", b"not a pickle"])
def test_file_that_is_no_pickle_is_refused(hub: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    hub.parent.mkdir(parents=True)
    hub.write_bytes(content)
    expect(monkeypatch, hub)
    with pytest.raises(DataError, match="not a file of weights alone"):
        build_inception("inception-v3-compat")
