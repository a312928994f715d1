"""The stages sweep and protocol, and the nearest training images, on the smoke suite with a network as it is drawn."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from indm.arrays import read_array
from indm.bench.models.spec import model_spec
from indm.bench.stages import fid as fid_stage
from indm.bench.stages import prepare, protocol, reference, sample, sweep
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.data.levels import dequantise, quantise, to_pixels, to_uint8
from indm.diffusion.generate import draw_levels
from indm.diffusion.model import ImplicitNonlinearDiffusion, strip_prefix
from indm.errors import ConvergenceError, IndmError
from indm.metrics.deviations import extrapolate, fid_by_size, fid_draws, jpeg, pixel_features
from indm.metrics.extractors import SmallClassifier, build_extractor, build_inception
from indm.metrics.features import features
from indm.metrics.frechet import Reference, bootstrap_fid, frechet
from indm.registry import DATASETS
from indm.store.files import CHECKPOINT_FORMAT, read_json, read_weights, write_weights
from indm.store.layout import Layout
from indm.strict_yaml import parse_yaml
from tests.conftest import FROZEN, REPOSITORY
from tests.finished import run

RUN = "digits-vp-indm-fid-s0"
VE = "digits-ve-ddpmpp-fid-s0"
CPU = torch.device("cpu")


def changed(**sections: dict[str, Any]) -> Suite:
    """Return the smoke suite with other values in some sections."""
    content = parse_yaml((REPOSITORY / "params/smoke.yaml").read_text())
    for name, values in sections.items():
        content[name] |= values
    return Suite.model_validate(content)


SMOKE = changed()


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Prepared digits, their reference, and two runs whose raw weights are not their averaged ones."""
    layout = Layout(tmp_path_factory.mktemp("results"), "smoke")
    prepare.run(SMOKE, layout, "digits", data_root=None)
    reference.run(SMOKE, layout, "digits")
    for name in (RUN, VE):
        torch.manual_seed(0)
        spec = model_spec(SMOKE, name, [1, 8, 8])
        state = ImplicitNonlinearDiffusion(spec).state_dict()
        raw = {f"raw.{key}": 1.1 * value if value.is_floating_point() else value for key, value in state.items()}
        weights = raw | {f"ema.{key}": value for key, value in state.items()}
        write_weights(layout.run(name) / "checkpoint.safetensors", weights, {"model": spec}, CHECKPOINT_FORMAT)
    return layout


def read_sweep(layout: Layout, name: str) -> pd.DataFrame:
    return pd.read_csv(layout.run(name) / "sweep.csv")


def test_sweep_has_a_row_for_each_cell_and_counts_the_calls(layout: Layout) -> None:
    run(sweep, SMOKE, layout, RUN)
    table = read_sweep(layout, RUN)
    numbers = ["nfe", "num_samples", "fid", "fid_se", "kid", "kid_se"]
    assert list(table.columns) == ["sampler", "grid", "steps", *numbers, "skip"]
    assert set(table["grid"]) == {SMOKE.sweep.grid}
    cells = list(zip(table["sampler"], table["steps"], strict=True))
    assert cells == [(sampler, steps) for sampler in SMOKE.sweep.samplers for steps in SMOKE.sweep.steps]
    # N grid points: N - 1 steps and the denoising; Heun calls twice a step.
    for _, row in table[table["sampler"] != "pc"].iterrows():
        calls = 2 * row["steps"] - 1 if row["sampler"] == "ode_heun" else row["steps"]
        assert row["nfe"] == calls, row["sampler"]
        assert row["num_samples"] == SMOKE.sweep.num_samples
        assert np.isfinite(row[numbers].astype(float)).all()
        assert pd.isna(row["skip"])
    skipped = table[table["sampler"] == "pc"]
    assert (skipped["skip"] == "the run's sample section has no corrector_snr").all()
    assert skipped[numbers].isna().all(axis=None)


def test_sweep_has_the_runs_corrector_under_pc_alone(layout: Layout) -> None:
    suite = changed(
        sample={"corrector_snr": [0.16, 0.16], "corrector_steps": 2},
        sweep={"samplers": ["ancestral", "pc"], "steps": [4]},
    )
    run(sweep, suite, layout, VE)
    table = read_sweep(layout, VE).set_index("sampler")
    assert table["nfe"].to_dict() == {"ancestral": 4, "pc": 4 + 2 * 4}
    assert table["fid"].notna().all()


def test_sweep_compares_at_temperature_1(layout: Layout) -> None:
    """Whatever the run's images are drawn at."""
    cells = {"samplers": ["ancestral"], "steps": [4]}
    found = []
    for temperature in (1.0, 1.5):
        run(sweep, changed(sample={"temperature": temperature}, sweep=cells), layout, RUN)
        found.append(read_sweep(layout, RUN)["fid"].item())
    assert found[0] == found[1]


def test_a_corrector_beside_the_ode_is_not_in_the_name_of_its_sampler(layout: Layout) -> None:
    """It is there for pc, in the run's sweep."""
    for sampler, name in (("ode_euler", "ode_euler"), ("ancestral", "ancestral+langevin")):
        run(sample, changed(sample={"sampler": sampler, "corrector_snr": [0.1, 0.1], "steps": 3}), layout, VE)
        told = read_json(layout.run(VE) / "samples.json")
        assert (told["sampler"], told["corrector_snr"] is None) == (name, sampler == "ode_euler")


def test_sweep_denoises_all_its_cells_alike(layout: Layout) -> None:
    """By its own key, whatever the run's images are denoised by: a cell of four points has four calls with denoising."""
    for denoise, calls in (("tweedie", 4), ("none", 3)):
        cells = {"samplers": ["ancestral", "ode_euler"], "steps": [4], "denoise": denoise}
        run(sweep, changed(sample={"denoise": "none"}, sweep=cells), layout, VE)
        assert (read_sweep(layout, VE)["nfe"] == calls).all()


def test_sweep_says_why_a_cell_has_no_numbers(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def inverse(*_: object, **__: object) -> Tensor:
        raise ConvergenceError("fixed point: 3 of 40 images did not converge")

    suite = changed(sweep={"samplers": ["ancestral"], "steps": [2, 4]})
    with monkeypatch.context() as patch:
        patch.setattr("indm.flows.registered.resflow.ResidualFlow.inverse", inverse)
        run(sweep, suite, layout, RUN)
    table = read_sweep(layout, RUN)
    assert (table["skip"] == "fixed point: 3 of 40 images did not converge").all()
    with monkeypatch.context() as patch:
        patch.setattr("indm.flows.registered.resflow.ResidualFlow.inverse", lambda _, z, **__: z / 0)
        run(sweep, suite, layout, RUN)
    assert (
        read_sweep(layout, RUN)["skip"]
        .str.endswith("pixels are not finite: more steps, or a lower corrector_snr")
        .all()
    )


@pytest.fixture(scope="module")
def study(layout: Layout) -> pd.DataFrame:
    """The table of protocol, and beside it the samples and the FID of the same run."""
    run(sample, SMOKE, layout, RUN)
    fid_stage.run(SMOKE, layout, RUN)
    protocol.run(SMOKE, layout, "digits")
    return pd.read_csv(layout.suite_folder / "protocol" / "digits.csv")


def test_protocol_has_a_row_for_each_deviation(study: pd.DataFrame) -> None:
    assert list(study.columns) == ["factor", "setting", "fid", "fid_se", "difference", "difference_se", "note"]
    assert list(zip(study["factor"], study["setting"], strict=True)) == [
        ("base", "suite"),
        ("num_samples", "20"),
        ("num_samples", "40"),
        ("num_samples", "infinite"),
        ("reference", "test"),
        ("reference", "valid"),
        ("rounding", "floor"),
        ("rounding", "uint8"),
        ("rounding", "float"),
        ("rounding", "jpeg-75"),
        ("denoise", "none"),
        ("weights", "score ema, flow raw"),
        ("weights", "score raw, flow ema"),
        ("weights", "score raw, flow raw"),
    ]
    assert study[["fid", "fid_se", "difference", "difference_se"]].notna().all(axis=None)
    # Each of the three numbers is rounded to six digits.
    rounding = 5e-6 * (study["difference"].abs() + study["fid"] + study["fid"][0])
    assert ((study["difference"] - (study["fid"] - study["fid"][0])).abs() <= 1.01 * rounding).all()


def test_base_of_protocol_is_the_runs_own_fid(layout: Layout, study: pd.DataFrame) -> None:
    base, found = study.iloc[0], read_json(layout.run(RUN) / "fid.json")
    assert (base["difference"], base["difference_se"]) == (0, 0)
    assert base["fid"] == pytest.approx(found["fid"], rel=1e-5)
    assert base["fid_se"] == pytest.approx(found["fid_se"], rel=1e-5)
    assert base["note"].startswith(
        f"{RUN}: 80 images; reference train; torch-fidelity, digits-cnn; rounded to 17 levels, nearest; "
    )
    assert base["note"].endswith("; weights score ema, flow ema")
    assert found["weights"] == {"score": "ema", "flow": "ema"}


@pytest.mark.parametrize(("score", "flow"), [("ema", "ema"), ("ema", "raw"), ("raw", "ema")])
def test_images_are_of_the_weights_that_the_suite_names(layout: Layout, score: str, flow: str) -> None:
    """The raw weights of each network are 1.1 times the averaged ones."""
    # Of raw scores there are no snapshots.
    suite = changed(weights={"score": score, "flow": flow}, train={"snapshots": []})
    found = run(sample, suite, layout, RUN).folder
    tensors, spec = read_weights(found / "checkpoint.safetensors", CHECKPOINT_FORMAT)
    model = ImplicitNonlinearDiffusion(spec["model"]).eval()
    model.noise.load_state_dict(strip_prefix(tensors, f"{score}.noise"))
    model.flow.load_state_dict(strip_prefix(tensors, f"{flow}.flow"))
    settings = suite.sample_params(RUN).model_dump(exclude={"centre_prior"})
    expected, _ = draw_levels(model, 17, seed=("digits", 0, "sample"), device=CPU, mean=None, progress=iter, **settings)
    assert (read_array(found / "samples.npy") == expected).all()
    assert read_json(found / "samples.json")["weights"] == {"score": score, "flow": flow}


def test_a_model_without_a_flow_has_the_weights_of_its_score_alone(layout: Layout) -> None:
    folder = run(sample, SMOKE, layout, VE).folder
    assert read_json(folder / "samples.json")["weights"] == {"score": "ema", "flow": None}
    content = SMOKE.model_dump(exclude_unset=True)
    content["protocol"]["digits"]["run"] = VE
    study = protocol.Deviations(Suite.model_validate(content), layout, "digits")
    assert [study.said(weights) for weights in study.other_weights()] == ["score raw"]


def test_rows_of_rounding_are_what_a_suite_of_that_rounding_measures(
    layout: Layout, study: pd.DataFrame, tmp_path: Path
) -> None:
    other = Layout(tmp_path, "smoke")
    shutil.copytree(layout.suite_folder, other.suite_folder)
    suite = changed(sample={"rounding": "floor"})
    run(sample, suite, other, RUN)
    fid_stage.run(suite, other, RUN)
    found = read_json(other.run(RUN) / "fid.json")["fid"]
    assert read_json(other.run(RUN) / "samples.json")["rounding"] == "floor"
    rows = study.set_index(["factor", "setting"])["fid"]
    assert rows["rounding", "floor"] == pytest.approx(found, rel=1e-5)
    assert rows["rounding", "floor"] != pytest.approx(rows["base", "suite"], rel=1e-4)
    protocol.run(suite, other, "digits")
    turned = pd.read_csv(other.suite_folder / "protocol" / "digits.csv").set_index(["factor", "setting"])["fid"]
    assert turned["base", "suite"] == pytest.approx(found, rel=1e-5)
    assert turned["rounding", "nearest"] == pytest.approx(rows["base", "suite"], rel=1e-5)


def test_pairs_are_compared_with_far_smaller_errors(study: pd.DataFrame) -> None:
    """Finer rounding and JPEG change the same images: the difference is known much better than either FID."""
    rounding = study[study["factor"] == "rounding"].set_index("setting")
    assert (rounding["difference_se"] < 0.2 * rounding["fid_se"]).all()
    assert abs(rounding["difference"]["uint8"] - rounding["difference"]["float"]) < 0.05


def test_protocol_repeats_to_the_byte(layout: Layout, study: pd.DataFrame) -> None:
    path = layout.suite_folder / "protocol" / "digits.csv"
    first = path.read_bytes()
    protocol.run(SMOKE, layout, "digits")
    assert path.read_bytes() == first


def test_protocol_of_a_dataset_without_validation_images(
    layout: Layout, study: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = protocol.read_array
    monkeypatch.setattr(protocol, "read_array", lambda path: read(path)[:0] if path.stem == "valid" else read(path))
    (row,) = [row for row in protocol.Deviations(SMOKE, layout, "digits").references() if row["setting"] == "valid"]
    assert row == {"factor": "reference", "setting": "valid", "note": "the split has 0 images"}


MISTAKES = {
    "fewer images than a subset of KID": (
        "num_samples: 200",
        "num_samples: 100",
        "key sweep.num_samples: found 100; allowed: at least 200, fid.kid_subset_size",
    ),
    "a run of no name": (
        "{run: digits-vp-indm-fid-s0",
        "{run: digits-vp-indm-fid-s9",
        "key protocol.digits.run: found 'digits-vp-indm-fid-s9'; allowed: a run of digits: digits-ve-ddpmpp-fid-s0, ",
    ),
    "the same size twice": (
        "sizes: [100, 200, 400]",
        "sizes: [200, 200]",
        "key protocol.digits.sizes: found 200 twice in [200, 200]; allowed: each value once",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_named(tmp_path: Path, mistake: str) -> None:
    before, after, words = MISTAKES[mistake]
    text = FROZEN.read_text()
    assert before in text
    path = tmp_path / FROZEN.name
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(IndmError) as caught:
        load_suite(path, with_data=True)
    assert words in str(caught.value)


def test_nearest_training_image_is_the_nearest(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    train = read_array(layout.data("digits") / "train.npy")
    test = read_array(layout.data("digits") / "test.npy")[:8]
    expected = [((train.astype(float) - image) ** 2).sum((1, 2, 3)).argmin() for image in test]
    for chunk in (64, 5000):
        monkeypatch.setattr(sample, "CHUNK", chunk)
        assert np.array_equal(sample._nearest(test, train), train[expected])
        assert np.array_equal(sample._nearest(train[5:13], train), train[5:13])


def test_fid_of_infinitely_many_images_of_known_gaussians() -> None:
    """N(m, s^2 I) against N(0, I): |m|^2 + D (1 - s)^2, which no number of images reaches and the extrapolation does."""
    dims, shift, scale, repeats, sizes = 16, 0.2, 1.3, 20, (200, 400, 800)
    known = dims * (shift**2 + (1 - scale) ** 2)
    generated = shift + scale * torch.randn(repeats * max(sizes), dims, dtype=torch.float64)
    fids = fid_by_size(generated, Reference({"mu": np.zeros(dims), "sigma": np.eye(dims)}, None), sizes, repeats)
    assert fids.shape == (repeats, len(sizes))
    infinite = extrapolate(sizes, fids)
    errors = fids.std(0, ddof=1) / repeats**0.5
    assert abs(infinite.mean() - known) < 3 * infinite.std(ddof=1) / repeats**0.5
    assert ((fids.mean(0) - known)[:2] > 3 * errors[:2]).all()
    assert fids.mean(0)[0] > fids.mean(0)[1] > fids.mean(0)[2]


def test_extrapolation_of_a_line_is_its_intercept() -> None:
    sizes = np.array([10, 20, 50])
    fids = np.array([[3.0], [5.0]]) + np.array([[7.0], [2.0]]) / sizes
    np.testing.assert_allclose(extrapolate(sizes.tolist(), fids), [3.0, 5.0])


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"30.*25"):
        fid_by_size(torch.randn(100, 3), Reference({"mu": np.zeros(3), "sigma": np.eye(3)}, None), [10, 30], 4)


def test_draws_are_those_of_the_bootstrap() -> None:
    generated, real = torch.randn(200, 5, dtype=torch.float64), Reference.of(torch.randn(300, 5, dtype=torch.float64))
    draws = fid_draws(generated, real, 20, seed=3)
    assert draws[0] == pytest.approx(frechet(generated, real)[0], rel=1e-8)
    spread = bootstrap_fid(generated, real, 20, np.random.default_rng(3))
    assert np.std(draws[1:], ddof=1) == pytest.approx(spread, rel=1e-6)


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("levels", [17, 256])
def test_pixels_without_rounding_surround_the_rounded_ones(levels: int, centered: bool) -> None:
    images = torch.arange(levels, dtype=torch.uint8).repeat(3, 1)[None, :, :, None]
    x = dequantise(images, levels, torch.Generator().manual_seed(0), centered)
    assert torch.equal(quantise(x, levels, centered), images)
    pixels, rounded = to_pixels(x, levels, centered), torch.from_numpy(to_uint8(images.numpy(), levels))
    assert pixels.shape == (1, 3, levels, 1)
    assert (pixels - rounded).abs().max() <= 0.5 * 255 / (levels - 1) + 0.5
    assert 0 <= pixels.min() <= pixels.max() <= 255
    grey = to_pixels(x[:, :1], levels, centered)
    assert torch.equal(grey, pixels[:, :1].repeat(1, 3, 1, 1))


def test_features_of_pixels_are_those_of_uint8_where_nothing_was_rounded() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8), dtype=np.uint8)
    for extractor in (build_extractor("digits-cnn", SmallClassifier(10)), build_inception("inception-v3-random")[0]):
        expected = features(extractor, images)[0]
        found = pixel_features(extractor, torch.from_numpy(images).float(), CPU)
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        moved = pixel_features(extractor, torch.from_numpy(images).float() + 0.3, CPU)
        assert not torch.allclose(moved, expected)
        # What replaced the input is gone again.
        torch.testing.assert_close(features(extractor, images)[0], expected, rtol=1e-5, atol=1e-6)


def test_jpeg_loses_the_more_the_lower_its_quality() -> None:
    images = to_uint8(next(iter(DATASETS["digits"].load(0)["test"].pieces()))[:20], 17)
    losses = [np.abs(jpeg(images, quality).astype(float) - images).mean() for quality in (95, 75, 10)]
    assert 0 < losses[0] < losses[1] < losses[2]
    assert jpeg(images, 75).dtype == np.uint8
