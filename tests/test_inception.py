"""Extractors in the stages, Inception-v3 as its random stand-in, and weights that are missing, damaged, foreign or hostile."""

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from cleanfid import inception_pytorch
from cleanfid.features import feature_extractor
from cleanfid.resize import build_resizer
from PIL import Image
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from indm.arrays import read_array, write_array
from indm.bench.stages import fid, protocol, reference
from indm.bench.suite.schema.suite import Suite
from indm.data.registered.digits import load_digits
from indm.errors import DataError
from indm.metrics import clean, extractors, weights
from indm.metrics.clean import build_clean
from indm.metrics.extractors import build_inception
from indm.metrics.features import features
from indm.metrics.frechet import Reference, frechet_clean
from indm.metrics.references import load_extractors
from indm.store.files import EXTRACTOR_FORMAT, STATISTICS_FORMAT, read_json, read_weights, write_json
from indm.store.layout import Layout
from indm.strict_yaml import parse_yaml
from tests.archives import Hostile
from tests.conftest import REPOSITORY

RUN = "digits-vp-indm-fid-s0"
COUNTS = {"train": 6, "test": 4}


def suite(extractor: str, published: dict[str, str] | None = None, classifier: dict[str, float] | None = None) -> Suite:
    """Return the smoke suite with an extractor, and counts that suit so few images."""
    content = parse_yaml((REPOSITORY / "params/smoke.yaml").read_text())
    told = {"extractor": extractor, "classifier": classifier, "published_statistics": published}
    content["reference"]["digits"] = told
    content["fid"] |= {"kid_subsets": 2, "kid_subset_size": 3, "prc_neighbours": 2, "bootstrap": 2}
    return Suite.model_validate(content)


def prepare(layout: Layout) -> None:
    """Write ten digits as a prepared dataset, and four more as a run's samples."""
    splits = load_digits(0)
    images = {name: np.concatenate(list(split.pieces())) for name, split in splits.items()}
    for name, count in COUNTS.items():
        write_array(layout.data("digits") / f"{name}.npy", images[name][:count])
    write_json(layout.data("digits") / "dataset.json", {"levels": 17, "classes": 10})
    write_array(layout.run(RUN) / "samples.npy", images["valid"][:4])


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Run both stages once, with the random stand-in: the only forward passes of this module but three images."""
    layout = Layout(tmp_path_factory.mktemp("results"), "smoke")
    prepare(layout)
    with threadpool_limits(1):
        reference.run(suite("inception-v3-random"), layout, "digits")
        fid.run(suite("inception-v3-random"), layout, RUN)
    return layout


@pytest.fixture(scope="module")
def state() -> weights.StateDict:
    return weights.random_weights()[0]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty torch.hub, no option, and no internet; return where the weights would lie."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    for file in (weights.TORCH_FIDELITY, weights.CLEAN_FID):
        monkeypatch.delenv(file.option, raising=False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_internet)
    return weights.TORCH_FIDELITY.cached


@pytest.fixture
def script(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a small TorchScript where clean-fid's would lie, and expect its sha256; return where it lies."""
    path = tmp_path / "clean" / weights.CLEAN_FID.name
    path.parent.mkdir()
    tiny = nn.Module()
    tiny.layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 2048, 1))
    torch.jit.save(torch.jit.script(tiny), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "CLEAN_FID", replace(weights.CLEAN_FID, sha256=sha256, folder=lambda: path.parent))
    return path


def no_internet(*_: object, **__: object) -> None:
    raise URLError("no route")


def expect(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Make the file at ``path`` the one whose sha256 is expected."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(weights, "TORCH_FIDELITY", replace(weights.TORCH_FIDELITY, sha256=sha256))


@pytest.mark.parametrize("name", extractors.EXTRACTORS)
def test_a_trained_classifier_comes_back_from_its_file(tmp_path: Path, name: str) -> None:
    layout = Layout(tmp_path, "smoke")
    prepare(layout)
    write_json(layout.data("digits") / "labels.json", {split: list(range(count)) for split, count in COUNTS.items()})
    reference.run(suite(name, classifier={"steps": 3, "batch_size": 4, "lr": 1e-3}), layout, "digits")
    extractor, _, identity = load_extractors(layout.data("digits") / "extractor.safetensors")
    assert identity == {"extractor": name}
    (found, _) = features(extractor, read_array(layout.data("digits") / "train.npy"), 17)
    assert np.array_equal(found, read_array(layout.data("digits") / "features.npy"))
    assert read_json(layout.data("digits") / "reference.json")["test_accuracy"] in (0, 0.25, 0.5, 0.75, 1)


def test_stage_reference_identifies_the_extractor_and_keeps_no_weights(layout: Layout) -> None:
    path = layout.data("digits") / "extractor.safetensors"
    tensors, spec = read_weights(path, EXTRACTOR_FORMAT)
    assert tensors == {}
    assert path.stat().st_size < 1000
    _, sha256 = build_inception("inception-v3-random")
    assert spec == {
        "format": EXTRACTOR_FORMAT,
        "extractor": "inception-v3-random",
        "weights_sha256": sha256,
        "clean_weights_sha256": sha256,
    }
    result = read_json(layout.data("digits") / "reference.json")
    assert result["extractor"] == "inception-v3-random"
    assert result["test_accuracy"] is None
    assert set(result["floors"]) == {"test", "train-halves"}
    found = read_array(layout.data("digits") / "features.npy")
    assert (found.shape, found.dtype) == ((COUNTS["train"], 2048), np.float32)
    assert found.std(0).mean() > 1e-3, "the random network tells images apart"


def test_stages_give_every_metric_with_its_error(layout: Layout) -> None:
    floors, found = (
        read_json(layout.data("digits") / "reference.json")["floors"],
        read_json(layout.run(RUN) / "fid.json"),
    )
    assert found["extractor"] == "inception-v3-random"
    assert (found["num_reference"], found["num_samples"]) == (COUNTS["train"], 4)
    assert (found["reference"], found["reference_sha256"]) == ("train", None)
    for result in (found, *floors.values()):
        for metric in ("fid", "clean_fid", "legacy_fid"):
            assert result[metric] > 0
            assert result[f"{metric}_se"] > 0
            assert result[f"{metric}_formula"].startswith("symmetric eigenvalues of A Sigma A'")
        assert result["kid_se"] > 0
        assert result["is"] >= 1
        assert result["is_se"] > 0
        assert 0 <= result["precision"] <= 1
        assert 0 <= result["recall"] <= 1


def test_stage_reference_keeps_the_clean_statistics(layout: Layout) -> None:
    tensors, spec = read_weights(layout.data("digits") / "statistics.safetensors", STATISTICS_FORMAT)
    assert set(tensors) == {f"{mode}.{key}" for mode in clean.MODES for key in ("mu", "sigma")}
    assert all(tensor.dtype == torch.float64 for tensor in tensors.values())
    assert tensors["clean.sigma"].shape == (2048, 2048)
    assert spec["reference"] == "train"
    assert not torch.allclose(tensors["clean.mu"], tensors["legacy.mu"], rtol=1e-3)


def test_stage_fid_repeats_to_the_byte(layout: Layout) -> None:
    path = layout.run(RUN) / "fid.json"
    before = path.read_bytes()
    with threadpool_limits(1):
        fid.run(suite("inception-v3-random"), layout, RUN)
    assert path.read_bytes() == before


@pytest.mark.long
def test_stage_protocol_has_the_other_implementations(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same images as the stage fid; what it measures of a model is tested on small extractors."""
    samples = torch.from_numpy(read_array(layout.run(RUN) / "samples.npy").copy())
    monkeypatch.setattr(protocol, "load_model", lambda *_: SimpleNamespace(centered=False, flow=torch.nn.Identity()))
    monkeypatch.setattr(protocol, "draw_images", lambda **_: [(samples / 17, 1)])
    with threadpool_limits(1):
        rows = list(protocol.Deviations(suite("inception-v3-random"), layout, "digits").implementations())
    assert [(row["factor"], row["setting"]) for row in rows] == [
        ("implementation", "clean"),
        ("implementation", "legacy_pytorch"),
    ]
    found = read_json(layout.run(RUN) / "fid.json")
    for row, key in zip(rows, ("clean_fid", "legacy_fid"), strict=True):
        assert row["fid"] == pytest.approx(found[key], rel=1e-3)
        assert row["difference"] == pytest.approx(found[key] - found["fid"], rel=1e-2, abs=1e-3 * found["fid"])


@pytest.mark.long
def test_batch_size_does_not_matter(layout: Layout) -> None:
    """Neither to features nor, within rounding, to the metrics made of them."""
    extractor, sha256 = build_inception("inception-v3-random")
    resized, _ = build_clean(extractor, sha256)
    images = read_array(layout.data("digits") / "train.npy")[:3]
    whole = read_array(layout.data("digits") / "features.npy")[:3]
    again = torch.cat([features(extractor, part, 17)[0] for part in (images[:2], images[2:])])
    np.testing.assert_allclose(again, whole, rtol=1e-4, atol=1e-4 * float(np.abs(whole).mean()))
    for mode in clean.MODES:
        several = features(resized[mode], images, 17)[0]
        single = torch.cat([features(resized[mode], images[n : n + 1], 17)[0] for n in range(3)])
        torch.testing.assert_close(single, several, rtol=1e-4, atol=1e-4 * float(several.abs().mean()))
        real = Reference.of(several + 0.1)
        assert frechet_clean(single, real)[0] == pytest.approx(frechet_clean(several, real)[0], rel=1e-3)


def test_images_are_resized_as_clean_fid_does(layout: Layout) -> None:
    """Against its own functions; ``clean`` against Pillow too."""
    extractor, sha256 = build_inception("inception-v3-random")
    resized, _ = build_clean(extractor, sha256)
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    for mode, name in clean.MODES.items():
        found = resized[mode].resize(image)
        assert (found.shape, found.dtype) == ((3, 299, 299), np.float32)
        assert np.array_equal(found, build_resizer(name)(image.transpose(1, 2, 0)).transpose(2, 0, 1))
    channel = Image.fromarray(image[1].astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
    assert np.array_equal(resized["clean"].resize(image)[1], np.asarray(channel).clip(0, 255))


def test_legacy_network_is_clean_fids(state: weights.StateDict, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch-fidelity's layers in a chain against the network of clean-fid's legacy_pytorch, with the same weights."""
    monkeypatch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: state)
    expected = feature_extractor("pytorch_inception", torch.device("cpu"), use_dataparallel=False)
    extractor, sha256 = build_inception("inception-v3-random")
    legacy = build_clean(extractor, sha256)[0]["legacy"]
    images = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (2, 3, 299, 299)).astype(np.float32))
    with torch.no_grad():
        torch.testing.assert_close(legacy(images)[0], expected(images), rtol=1e-4, atol=1e-4)


def test_clean_network_is_the_script_once_its_sha256_is_right(
    script: Path, state: weights.StateDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], weights.as_file(state))
    resized, sha256 = build_clean(extractor, "0" * 64)
    assert sha256 == hashlib.sha256(script.read_bytes()).hexdigest()
    images = torch.rand(2, 3, 299, 299) * 255
    expected = torch.jit.load(script).layers((images - 128) / 128).flatten(1)
    torch.testing.assert_close(resized["clean"](images)[0], expected)
    with pytest.raises(DataError, match="INDM_INCEPTION_CLEAN"):
        build_clean(extractor, "0" * 64, "0" * 64)
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("loaded before its sha256 was checked"))
    script.write_bytes(script.read_bytes() + b"x")
    with pytest.raises(DataError, match=rf"sha256 \w+.*{sha256}"):
        build_clean(extractor, "0" * 64)


def test_stage_fid_refuses_other_weights(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    other = weights.random_weights(seed=1)
    monkeypatch.setitem(extractors.INCEPTION, "inception-v3-random", lambda: other)
    with pytest.raises(DataError, match=other[1]):
        fid.run(suite("inception-v3-random"), layout, RUN)


def test_random_weights_are_torch_fidelitys_format_and_repeat(state: weights.StateDict) -> None:
    network = FeatureExtractorInceptionV3("x", ["2048"], weights.as_file(state))
    assert list(network.state_dict()) == list(state)
    assert weights.digest(network.state_dict()) == weights.random_weights()[1] == weights.digest(state)
    assert weights.random_weights(seed=1)[1] != weights.digest(state)


def test_option_precedes_the_cache_and_the_cache_the_download(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda _, path, **__: Path(path).write_bytes(b"new"))
    assert weights.find_weights(weights.TORCH_FIDELITY) == hub
    assert hub.read_bytes() == b"new"
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_internet)
    assert weights.find_weights(weights.TORCH_FIDELITY) == hub
    chosen = tmp_path / "mine.pth"
    chosen.write_bytes(b"")
    monkeypatch.setenv("INDM_INCEPTION", str(chosen))
    assert weights.find_weights(weights.TORCH_FIDELITY) == chosen


def test_weights_at_the_option_are_used(
    hub: Path, state: weights.StateDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    monkeypatch.setenv("INDM_INCEPTION", str(path))
    with pytest.raises(DataError, match=r"mine\.pth.*sha256 \w+.*6726825d"):
        build_inception("inception-v3-compat")
    expect(monkeypatch, path)
    extractor, sha256 = build_inception("inception-v3-compat")
    assert extractor.get_name() == "inception-v3-compat"
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights.digest(extractor.state_dict()) == weights.digest(state)
    with pytest.raises(DataError, match="reference"):
        build_inception("inception-v3-compat", "0" * 64)


@pytest.mark.parametrize("file", ["TORCH_FIDELITY", "CLEAN_FID"])
def test_missing_weights_name_file_places_source_and_option(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    wanted = replace(getattr(weights, file), folder=lambda: tmp_path)
    with pytest.raises(DataError) as error:
        weights.find_weights(wanted)
    message = str(error.value)
    assert "\n" not in message
    for part in (wanted.name, f"{wanted.option} (not set)", str(wanted.cached), "no route", wanted.url):
        assert part in message
    monkeypatch.setenv(wanted.option, "/nowhere/file")
    with pytest.raises(DataError, match=f"{wanted.option}=/nowhere/file"):
        weights.find_weights(wanted)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_pickle_executes_nothing(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    hub.parent.mkdir(parents=True)
    torch.save({"weight": Hostile(tmp_path / "made")}, hub, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match="sha256"):
        build_inception("inception-v3-compat")
    expect(monkeypatch, hub)
    with pytest.raises(DataError, match="weights only"):
        build_inception("inception-v3-compat")
    assert not (tmp_path / "made").exists()
    torch.load(hub, weights_only=False)
    assert (tmp_path / "made").exists(), "the pickle was harmless, so the test showed nothing"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(1)}, "found the weights of another network"),
        ({"a": 1}, "expected a dict of tensors"),
        ([], "found list"),
        (b"", "weights only"),
        (b"not a pickle", "weights only"),
    ],
)
def test_foreign_content_is_refused(hub: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str) -> None:
    hub.parent.mkdir(parents=True)
    hub.write_bytes(content) if isinstance(content, bytes) else torch.save(content, hub)
    expect(monkeypatch, hub)
    with pytest.raises(DataError, match=message):
        build_inception("inception-v3-compat")
