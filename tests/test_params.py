"""The schema: what it refuses, and in which words."""

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dvc.utils.serialize import parse_yaml as parse_yaml_for_dvc

from indm.bench.pipeline.jobs import Job, job_parameters
from indm.bench.suite.expand import suite_files
from indm.bench.suite.load import expanded_text, json_schema, load_suite, suite_content, suite_sha256
from indm.bench.suite.schema.suite import Suite
from indm.errors import ParamsError
from indm.fields import ABSENT
from indm.strict_yaml import parse_yaml, yaml_text
from tests.conftest import FROZEN, REPOSITORY

SUITES = suite_files(REPOSITORY / "params")
TEXT = FROZEN.read_text()
RUN = "digits-vp-indm-nll"
LINE = 'model: indm, variant: "", objective: nll, seeds: [0, 1, 2], train: {}, sample: {}}'


def load(tmp_path: Path, text: str) -> Suite:
    path = tmp_path / "frozen.yaml"
    path.write_text(text)
    return load_suite(path, with_data=True)


def test_suites_in_the_repository_are_valid() -> None:
    """And the likelihoods of digits are of all test images."""
    for path in SUITES:
        suite = load_suite(path, with_data=True)
        assert suite.suite == path.stem
        assert suite.nll.images is None or not path.stem.startswith("digits"), path


def test_schema_file_is_in_sync() -> None:
    found = (REPOSITORY / "params" / "schema.json").read_text()
    assert found == json_schema(), "run: python -m indm schema > params/schema.json"


# What stands in the suite, what takes its place, and what the message names.
MISTAKES = {
    "mistyped key": (
        "  steps: 200", "  stepz: 250", "key train.stepz: unknown key", "did you mean steps?",
        "key train.steps: missing"
    ),
    "wrong type": ("  steps: 200", "  steps: many", "key train.steps: found 'many'"),
    "text that YAML 1.1 takes for a boolean": (
        "  centered: true", "  centered: yes", "key train.centered: found 'yes'"
    ),
    "dataset the suite does not list": (
        "dataset: digits, sde: vp, " + LINE, "dataset: patches, sde: vp, " + LINE,
        f"run {RUN}, key dataset: found 'patches'"
    ),
    "missing key": (
        f"{RUN}: {{dataset: digits, sde: vp, ", f"{RUN}: {{dataset: digits, ", f"run {RUN}, key sde: missing"
    ),
    "name that the keys do not spell": (
        f"{RUN}: {{dataset: digits, sde: vp", f"{RUN}: {{dataset: digits, sde: ve", f"run {RUN}, key (the run's name)",
        "allowed: 'digits-ve-indm-nll'"
    ),
    "variant that the name lacks": (
        "vp, " + LINE, "vp, " + LINE.replace('variant: ""', "variant: deep"), f"run {RUN}, key (the run's name)",
        "allowed: 'digits-vp-indm-deep-nll'"
    ),
    "variant that tables lose": (
        f"{RUN}: {{dataset: digits, sde: vp, " + LINE,
        "digits-vp-indm-null-nll: {dataset: digits, sde: vp, " + LINE.replace('variant: ""', 'variant: "null"'),
        "run digits-vp-indm-null-nll, key variant: found 'null'"
    ),
    "seeds of a cell that are other models": (
        f"  {RUN}: {{dataset: digits, sde: vp, " + LINE,
        f"  {RUN}: {{dataset: digits, sde: vp, " + LINE + f"\n  {RUN}-s9: {{dataset: digits, sde: vp, "
        + LINE.replace("seeds: [0, 1, 2], train: {}", "seed: 9, train: {lr: 0.5}"),
        f"run {RUN}-s9, key train: found other values than in run {RUN}"
    ),
    "snapshots that do not increase": (
        "vp, " + LINE, "vp, " + LINE.replace("train: {}", "train: {snapshots: [200, 100]}"),
        f"run {RUN}, key train.snapshots: found [200, 100]"
    ),
    "snapshot after the end": (
        "vp, " + LINE, "vp, " + LINE.replace("train: {}", "train: {steps: 100}"),
        f"run {RUN}, key train.snapshots: found [50, 100, 200]"
    ),
    "snapshots without the weights to evaluate": (
        "weights: {score: ema", "weights: {score: raw",
        f"runs digits-vp-ddpmpp-nll, digits-vp-ddpmpp-standardised-nll, {RUN}, key train.snapshots: found"
    ),
    "kept weights of a variant that is not there": (
        "weights: {score: ema", 'kept_weights: {variants: ["", same-compute], seeds: 4}\nweights: {score: ema',
        "key kept_weights.variants: found 'same-compute'"
    ),
    "kept weights that are not evaluated": (
        "weights: {score: ema, flow: ema}",
        'kept_weights: {variants: [""], seeds: 4}\nweights: {score: ema, flow: raw}',
        "key kept_weights: ", "weights.flow is raw"
    ),
    "warm-up of a flow that is not there": (
        "  flow_warmup_steps: 0", "  flow_warmup_steps: 10",
        "runs digits-ve-ddpmpp-fid, digits-vp-ddpmpp-fid, digits-vp-ddpmpp-nll and 1 more, key train.flow_warmup_steps: found 10"
    ),
    "a coefficient that float32 cannot bound by": (
        "  coefficient: 0.97", "  coefficient: 1.0e-300", "key train.flow.coefficient: found 1e-300"
    ),
    "a tolerance below the rounding": (
        "  tolerance: 1.0e-4\n  denoise", "  tolerance: 1.0e-30\n  denoise", "key sample.tolerance: found 1e-30"
    ),
    "a control on known densities that hardly learns": (
        "        learned-linear: {lr: 3.0e-2,", "        learned-linear: {lr: 1.0e-9,",
        "key toy2d.lengths.short.rates.learned-linear.lr: found 1e-09; allowed: within a factor of 10 of 0.03, the rate of ddpmpp"
    ),
    "a frozen flow on known densities that hardly learns": (
        "        frozen-flow: {lr: 3.0e-2,", "        frozen-flow: {lr: 2.0e-3,",
        "key toy2d.lengths.short.rates.frozen-flow.lr: found 0.002; allowed: within a factor of 10 of 0.03, the rate of indm"
    ),
    "a rival whose forward process hardly moves": (
        "        learned-linear: {lr: 3.0e-2, map_lr: 3.0e-2}", "        mulan: {lr: 3.0e-2, map_lr: 1.0e-9}",
        "key toy2d.lengths.short.rates.mulan.map_lr: found 1e-09; allowed: within a factor of 100 of 0.03, the rate of INDM's flow"
    ),
    "a coupling that takes all memory": (
        "    coupling_width: 16", "    coupling_width: 1000000", "key toy2d.training.coupling_width: found 1000000"
    ),
    "fewer samples than neighbours": (
        "  prc_neighbours: 3", "  prc_neighbours: 398", "key sweep.num_samples: found 200"
    ),
    "learned map as a flow of indm": ("    name: resflow", "    name: linear", "key train.flow.name: found 'linear'"),
    "learned range without the term that makes it a bound": (
        "learned_range: false", "learned_range: true", "key train.reconstruction: found False"
    ),
    "learned range of another objective": (
        "learned_range: false", "learned_range: true", "digits-vp-indm-fid, key train.sde.vp.learned_range: found True"
    ),
    "a preconditioned network behind a flow": (
        "vp, " + LINE, "vp, " + LINE.replace("train: {}", "train: {score: {precondition: spectrum, normalise_input: none}}"),
        f"run {RUN}, key train.score.precondition: found 'spectrum'; allowed: 'none', because the latents of a trained map change"
    ),
    "a preconditioned network behind a learned map": (
        "train: {latent: {standardise: true}}",
        "train: {latent: {standardise: true, learned: filter}, score: {precondition: skip, normalise_input: none}}",
        "key train.score.precondition: found 'skip'; allowed: 'none', because the latents of a trained map change"
    ),
    "a network whose input is scaled twice": (
        "train: {latent: {standardise: true}}", "train: {score: {precondition: spectrum}}",
        "key train.score.precondition: found 'spectrum'; allowed: 'none' where train.score.normalise_input is 'unit'"
    ),
    "fresh score where no flow is": (
        "  fresh_score_after: null", "  fresh_score_after: 100",
        "digits-vp-ddpmpp-nll and 1 more, key train.fresh_score_after: found 100"
    ),
    "warm-up of the flow without an end": (
        "vp, " + LINE, "vp, " + LINE.replace("train: {}", "train: {flow_warmup_steps: 200}"),
        f"run {RUN}, key train.flow_warmup_steps: found 200"
    ),
    "released denoising under VP": (
        "vp, " + LINE, "vp, " + LINE.replace("sample: {}", "sample: {denoise: released_ve}"),
        f"run {RUN}, key sample.denoise: found 'released_ve'"
    ),
    "released denoising of the ODE": (
        "train: {snapshots: [], flow_lr: 3.0e-4}, sample: {}}",
        "train: {snapshots: []}, sample: {denoise: released_ve, sampler: ode}}",
        "run digits-ve-indm-fid, key sample.denoise: found 'released_ve'"
    ),
    "key given twice": ("threads: 1", "threads: 1\nthreads: 2", 'duplicate key "threads"', "line 6"),
    # Its bound, which is only from below, lets it pass.
    "a number that is infinite": (
        "grad_clip: 1.0", "grad_clip: .inf", "key train.grad_clip: found inf; allowed: "
    ),
    "range that is empty": (
        "beta_min: 0.1", "beta_min: 30.0", "key train.sde.vp.beta_min: found 30.0; allowed: below beta_max 20.0"
    ),
    "a density that nobody draws": (
        "    moons-short: {density: moons,", "    moons-short: {density: moonz,",
        "key toy2d.datasets.moons-short.density: found 'moonz'", "checkerboard"
    ),
    "a seed in two jobs": (
        "    moons-long: {density: moons, length: long,", "    moons-long: {density: moons, length: short,",
        "key toy2d.datasets: found seed 0 of moons-short in two jobs"
    ),
    "fewer samples than the metrics need": (
        "  num_samples: 400", "  num_samples: 20", "digits-vp-ddpmpp-fid and 4 more, key sample.num_samples: found 20"
    ),
    "a subset larger than the test split": (
        "  kid_subset_size: 200", "  kid_subset_size: 361", "key fid.kid_subset_size: found 361"
    ),
    "a batch larger than the training split": (
        "  batch_size: 64\n  micro", "  batch_size: 1258\n  micro", "key train.batch_size: found 1258"
    ),
    "more parts than images of a batch": (
        "  micro_batches: 1", "  micro_batches: 65", "key train.micro_batches: found 65"
    ),
    "more images than the test split has": ("nll:\n  images: null", "nll:\n  images: 361", "key nll.images: found 361"),
    "a grid of times that no memory holds": (
        "  steps: 50\n  grid", "  steps: 1000000000000\n  grid", "key sample.steps: found 1000000000000"
    ),
    "more levels of the network than the image can be halved for": (
        "    multipliers: [1, 1]", "    multipliers: [1, 1, 1, 1, 1]", "key train.score.multipliers: found 5 levels"
    ),
    "attention where no such size occurs": (
        "    attention_resolutions: [4]", "    attention_resolutions: [3]",
        "key train.score.attention_resolutions: found [3]"
    ),
    "an output divided by what is not embedded": (
        "    scale_by_sigma: false", "    scale_by_sigma: true", "key train.score.scale_by_sigma: found True"
    ),
    "a validation split for a dataset that has one": (
        "    split_seed: 0", "    split_seed: 0\n    validation: 5", "key datasets.digits.validation: found 5"
    ),
    "a dataset of another folder": (
        "reference:\n  digits:", "reference:\n  ../../x:", "key reference: found the name '../../x'"
    ),
    "a tolerance that says nothing": (
        "nll:\n  images: null\n  batch_size: 360\n  time_draws: 10\n  tolerance: null",
        "nll:\n  images: null\n  batch_size: 360\n  time_draws: 10\n  tolerance: 1.0e+300",
        "key nll.tolerance: found 1e+300"
    ),
    "a name too long for a file": (
        f"  {RUN}:", f"  {'a' * 151}:", "key runs: found the name 'aaaa"
    ),
    "not YAML": (
        "suite: frozen", "suite: [frozen",
        "in the file, line 3, column 8"
    ),
    "published statistics of a classifier": (
        "published_statistics: null", f"published_statistics: {{path: a.npz, sha256: {'a' * 64}}}",
        "key reference.digits.published_statistics: "
    ),
    "neighbourhood of more images than there are": (
        "prc_images: 400", "prc_images: 3", "key fid.prc_neighbours: found 3"
    ),
    "series without a tolerance": ("  log_det: exact", "  log_det: series", "key nll: found log_det_tolerance None"),
    "tolerance of what is exact": (
        "  log_det_tolerance: null", "  log_det_tolerance: 1.0e-3", "key nll: found log_det_tolerance 0.001"
    ),
    "seeds that are no list": ("seeds: [0, 1, 2], train: {}", "seeds: 3, train: {}", "key seeds: found 3"),
    "a bound of what is no metric": (
        "device: cpu", "device: cpu\nfailed_beyond: {NLL: 8.0}", "key failed_beyond: found 'NLL'"
    ),
    "a seed that failed and is none": (
        "seeds: [0, 1, 2], train: {}", "seeds: [0, 1, 2], failed: [3], train: {}", "key failed: found [3]"
    ),
    "a seed twice": ("seeds: [0, 1, 2], train: {}", "seeds: [0, 0], train: {}", "key seeds: found 0 twice in [0, 0]"),
    "a snapshot of a run twice": (
        "vp, " + LINE, "vp, " + LINE.replace("train: {}", "train: {snapshots: [100, 200, 200]}"),
        f"run {RUN}, key train.snapshots: found 200 twice in [100, 200, 200]"
    ),
    "seed and seeds": ("seeds: [0, 1, 2], train: {}", "seed: 0, seeds: [1], train: {}", "key seeds: found seed 0 too"),
    "a base that is not there": (
        "suite: frozen", "suite: frozen\nbased_on: thawed", "key based_on: ", "thawed.yaml: ", "/: frozen"
    ),
    "a base that builds on the suite": (
        "suite: frozen", "suite: frozen\nbased_on: frozen", "key based_on: found the circle frozen, frozen"
    ),
    "a run of a cell and by itself": (
        "  digits-vp-indm-nll: ", "  digits-vp-indm-nll-s0: {}\n  digits-vp-indm-nll: ",
        f"run {RUN}: found the run digits-vp-indm-nll-s0 in digits-vp-indm-nll-s0 too"
    ),
    "a seed twice, and too long a warm-up": (
        "objective: nll, seeds: [0, 1, 2], train: {}",
        "objective: nll, seeds: [0, 1, 0], train: {flow_warmup_steps: 200}", ": found 0 twice in [0, 1, 0]",
        "key train.flow_warmup_steps: found 200"
    ),
    "a share of the log-determinant that is no whole number of images": (
        "\n  batch_size: 64", "\n  batch_size: 64\n  log_det_share: 0.1",
        "key train.log_det_share: found 0.1, 6.4 images of train.batch_size 64; allowed: a whole number of images"
    ),
    "a share of the log-determinant below one image": (
        "\n  batch_size: 64", "\n  batch_size: 64\n  log_det_share: 1.0e-8", "key train.log_det_share: found 1e-08, 6.4e-07 images"
    ),
    "a share of the log-determinant of more than the batch": (
        "\n  batch_size: 64", "\n  batch_size: 64\n  log_det_share: 1.5", "key train.log_det_share: found 1.5"
    ),
    "a share of a log-determinant that is not estimated": (
        "train: {latent: {standardise: true}}", "train: {latent: {standardise: true}, log_det_share: 0.5}",
        "key train.log_det_share: found 0.5; allowed: no value of its own, since model ddpmpp"
    ),
    "a base that is no name": ("suite: frozen", "suite: frozen\nbased_on: ../x", "key based_on: found '../x'"),
    "another suite's name": ("suite: frozen", "suite: other", "key suite: found 'other'", "'frozen'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_named(tmp_path: Path, mistake: str) -> None:
    before, after, *words = MISTAKES[mistake]
    assert before in TEXT
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, TEXT.replace(before, after, 1))
    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"
    for line in message.splitlines():
        assert "frozen.yaml: " in line


# Lists whose values have their places: levels, scales, the first and the last of a range.
PLACES = {"multipliers", "blocks", "encoder_widths", "corrector_snr"}
# Of a cell, whose seeds have a rule of their own, and of kept weights, which are no numbers.
OTHERS = {"seeds", "failed", "variants"}


def lists(schema: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every list of a JSON schema with its name."""
    if isinstance(schema, dict):
        if schema.get("type") == "array":
            yield name, schema
        for key, below in schema.items():
            yield from lists(below, name if key in ("anyOf", "items") else key)
    elif isinstance(schema, list):
        for option in schema:
            yield from lists(option, name)


def test_a_value_may_not_stand_twice_but_where_places_count() -> None:
    """It would be measured twice, and averaged as if by two seeds."""
    found = [(name, schema.get("uniqueItems", False)) for name, schema in lists(json.loads(json_schema()))]
    assert {name for name, is_unique in found if not is_unique} == PLACES | OTHERS
    assert ("sample_steps", True) in found


@pytest.mark.parametrize(("model", "variant", "train", "words"), [
    ("ddpmpp", "learned-scale", "{}", "train.latent.learned: found None"),
    ("ddpmpp", "learned-affine", "{latent: {learned: scale}}", "train.latent.learned: found 'scale'"),
    ("ddpmpp", "learned-linear", "{}", "train.latent.learned: found None"),
    ("indm", "learned-filter", "{latent: {learned: curve}}", "train.latent.learned: found 'curve'"),
    ("ddpmpp", "learned-range", "{reconstruction: true}", "train.sde.vp.learned_range: found False"),
    ("ddpmpp", "normalised-input", "{lr: 0.5}", "train.score.normalise_input: found 'unit'"),
    ("indm", "standardised", "{}", "train.latent.standardise: found False"),
    ("ddpmpp", "preconditioned", "{score: {precondition: skip, normalise_input: none}}", "train.score.precondition: found 'skip'"),
    ("ddpmpp", "fixed-filter", "{latent: {fixed: {curve: false, exponent: 0.1, spectrum: circles}}}",
     "train.latent.fixed.spectrum: found 'circles'"),
    ("ddpmpp", "fixed-filter-circles", "{latent: {fixed: {curve: false, exponent: 0.1}}}",
     "train.latent.fixed.spectrum: found 'exact'"),
    ("ddpmpp", "scale-5", "{latent: {scale: 2.0}}", "train.latent.scale: found 2.0"),
    ("ddpmpp", "same-compute", "{}", "train.steps: found 200"),
    ("ddpmpp", "same-parameters", "{}", "train.score.channels: found 16"),
    ("indm", "frozen-flow", "{}", "train.fresh_score_after: found None"),
    ("ddpmpp", "same-compute", "{steps: 300, lr: 1e-9}", "train.lr: found 1e-09"),
    ("ddpmpp", "same-parameters", "{steps: 1, snapshots: [], score: {channels: 20}}", "train.steps: found 1"),
    ("ddpmpp", "learned-scale", "{steps: 2, snapshots: [], latent: {learned: scale}}", "train.steps: found 2"),
    ("ddpmpp", "learned-scale", "{lr: 1e-9, latent: {learned: scale}}", "train.lr: found 1e-09"),
    ("indm", "frozen-flow", "{steps: 300, fresh_score_after: 150}", "train.fresh_score_after: found 150"),
    ("ddpmpp", "scale-5", "{latent: {scale: 5.0}}, sample: {temperature: 0.5}", "sample: found other values"),
    ("indm", "mine", "{snapshots: []}", "variant: found 'mine' for the model of run digits-vp-indm-nll-s0"),
])  # fmt: skip
def test_a_variant_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, model: str, variant: str, train: str, words: str
) -> None:
    name = f"digits-vp-{model}-{variant}-nll"
    line = f"  {name}: {{dataset: digits, sde: vp, model: {model}, variant: {variant}, objective: nll, seeds: [7, 8], "
    kept = "".join(line for line in TEXT.splitlines(keepends=True) if "standardised-nll" not in line)
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, kept + line + f"train: {train}{'' if 'sample' in train else ', sample: {}'}}}\n")
    assert f"suite frozen, run {name}, key {words}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_variant_may_be_another_sampling(tmp_path: Path) -> None:
    line = LINE.replace('variant: ""', "variant: cold").replace("sample: {}", "sample: {temperature: 0.5}")
    assert load(tmp_path, f"{TEXT}  digits-vp-indm-cold-nll: {{dataset: digits, sde: vp, {line}\n")


def test_texts_that_tables_lose_are_those_of_pandas() -> None:
    lost = ["", "NA", "N/A", "#NA", "#N/A", "#N/A N/A", "<NA>", "n/a", "NULL", "null", "None"]
    lost += ["NaN", "nan", "-NaN", "-nan"]
    lost += ["1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"]
    texts = [*lost, "A", "nan-1", "Null", "NAN", "-null", "-None", "- nan", "na", "<na>"]
    read = pd.read_csv(StringIO("text,x\n" + "".join(f"{text},1\n" for text in texts)), index_col="x")["text"]
    assert [bool(ABSENT.fullmatch(text)) for text in texts] == read.isna().tolist() == [text in lost for text in texts]


def test_suite_cifar10_has_the_line_for_machines_without_inception(tmp_path: Path) -> None:
    """A comment, with which a user replaces the line that needs the weights: it is the extractor of suite cifar10-small."""
    text = (REPOSITORY / "params/cifar10.yaml").read_text()
    (line,) = re.findall(r"^# ( +cifar10: \{extractor: .*)$", text, flags=re.MULTILINE)
    changed = re.sub(r"^  cifar10: \{extractor: .*$", line[1:], text, flags=re.MULTILINE)
    for name, content in (("cifar10", changed), ("paper", (REPOSITORY / "params/paper.yaml").read_text())):
        (tmp_path / f"{name}.yaml").write_text(content)
    suite = load_suite(tmp_path / "cifar10.yaml", with_data=True)
    assert suite.reference == load_suite(REPOSITORY / "params/cifar10-small.yaml").reference


VALIDATIONS = {
    "all training images": ({"validation": 50_000}, {}, "key datasets.cifar10.validation: found 50000"),
    "more images than the default": ({}, {"images": 5_001}, "key curve.images: found 5001"),
    "fewer images": ({"validation": 100}, {"images": 101}, "key curve.images: found 101"),
    "no validation, thus test": ({"validation": 0}, {"images": 5_001}, None),
    "too few left": ({"validation": 49_900}, {}, "key train.batch_size: found 128"),
}  # fmt: skip


@pytest.mark.parametrize("case", VALIDATIONS)
def test_the_images_of_a_split_are_those_that_the_suite_leaves_it(tmp_path: Path, case: str) -> None:
    """Of CIFAR-10, whose last training images are for validation."""
    split, curve, words = VALIDATIONS[case]
    changed = suite_content(load_suite(REPOSITORY / "params/cifar10.yaml"))
    changed["datasets"]["cifar10"] = {"split_seed": 0} | split
    changed["curve"] |= {"batch_size": 10} | curve
    (tmp_path / "cifar10.yaml").write_text(yaml_text(changed))
    with nullcontext() if words is None else pytest.raises(ParamsError, match=words):
        load_suite(tmp_path / "cifar10.yaml", with_data=True)


def test_missing_suite_lists_the_others(tmp_path: Path) -> None:
    (tmp_path / "there.yaml").touch()
    with pytest.raises(ParamsError, match="there"):
        load_suite(tmp_path / "absent.yaml")
    with pytest.raises(ParamsError, match=r"/params/.* indm init"):
        load_suite(tmp_path / "params/absent.yaml")


def test_overrides_are_merged_deeply(tmp_path: Path) -> None:
    override = "train: {lr: 1.0e-2, score: {dropout: 0.5}}, sample: {corrector_snr: [0.1, 0.1]}"
    suite = load(tmp_path, TEXT.replace("vp, " + LINE, "vp, " + LINE.replace("train: {}, sample: {}", override)))
    train, sample = suite.train_params(f"{RUN}-s0"), suite.sample_params(f"{RUN}-s0")
    assert (train.lr, train.score.dropout, train.score.channels) == (0.01, 0.5, suite.train.score.channels)
    assert sample.corrector_snr == [0.1, 0.1]
    assert suite.train_params("digits-vp-ddpmpp-nll-s0") == suite.train


# Scalars that YAML 1.1 and 1.2 take for different things.
SCALARS = {"1e-3": 0.001, "-2E4": -20000.0, "1.0e-3": 0.001, "010": 10, "0o10": 8, "-_1": -1, "0b_1": 1, "'010'": "010"}
SCALARS |= {"1:30": "1:30", "yes": "yes", "no": "no", "on": "on", "off": "off", "true": True, "null": None, "~": None}


def test_scalars_are_those_of_yaml_1_2() -> None:
    for text, value in SCALARS.items():
        found = parse_yaml(f"key: {text}")["key"]
        assert (found, type(found)) == (value, type(value)), text
        assert parse_yaml_for_dvc(f"key: {text}", path="made-up.yaml")["key"] == found


UNREADABLE = {
    "a key twice": ("a: 1\n'a': 2\n", "duplicate key"),
    "an object of Python": ("a: !!python/name:os.system\n", "python/name"),
    "a date that is none": ("a: 2020-99-99\n", "month must be in 1..12"),
    "a truth that is none": ("a: !!bool perhaps\n", "perhaps"),
    "a list that claims to be a number": ("a: !!int [1]\n", "expected a scalar node, but found sequence"),
    "lists in lists": (f"a: {'[' * 900}{']' * 900}\n", "recursion"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, case: str) -> None:
    text, words = UNREADABLE[case]
    with pytest.raises(ParamsError, match=rf"frozen\.yaml.*{words}") as caught:
        load(tmp_path, text + TEXT)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder", "Is a directory"),
        ("text/a", "Not a directory"),
        ("a" * 300, "File name too long"),
    ],
    ids=["a folder", "below a file", "a long name"],
)
def test_a_suite_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "text").touch()
    path = tmp_path / f"{name}.yaml"
    with pytest.raises(ParamsError) as caught:
        load_suite(path)
    assert str(caught.value) == f"{path}: cannot be read: {words}; expected a file that you may read"


def test_a_mistake_of_all_runs_is_told_once(tmp_path: Path) -> None:
    """Once for each run it would be dozens of lines, in a suite of many seeds."""
    with pytest.raises(ParamsError) as caught:
        load(
            tmp_path,
            TEXT.replace("num_samples: 400", "num_samples: 100", 1).replace("micro_batches: 1", "micro_batches: 65"),
        )
    lines = [line.partition(", key ")[2].partition(":")[0] for line in str(caught.value).splitlines()]
    assert lines == ["sample.num_samples", "train.micro_batches"]
    assert " runs digits-ve-ddpmpp-fid, digits-ve-indm-fid, digits-vp-ddpmpp-fid and 4 more, key " in str(caught.value)


def test_merged_keys_may_be_given_anew() -> None:
    assert parse_yaml("x: &x {a: 1, b: 1}\ny: {<<: *x, b: 2}")["y"] == {"a": 1, "b": 2}


def test_who_changes_what_was_read_changes_no_later_reading() -> None:
    text = "a: {b: [1, 2]}"
    parse_yaml(text)["a"]["b"].append(3)
    assert parse_yaml(text) == {"a": {"b": [1, 2]}}


def test_what_is_written_is_read_again() -> None:
    for value in (*SCALARS.values(), *SCALARS, "", "1e-3", "010", "true", 1e-5, [0.5, {"a": "b: c"}], "é"):
        content = {"key": value, "another": 1}
        text = yaml_text(content)
        assert parse_yaml(text) == content
        assert parse_yaml_for_dvc(text, path="made-up.yaml") == content


def test_a_suite_that_builds_on_another_says_what_differs(tmp_path: Path) -> None:
    (tmp_path / "frozen.yaml").write_text(TEXT)
    (tmp_path / "more.yaml").write_text(
        "suite: more\nbased_on: frozen\ntrain: {steps: 300}\nprotocol: {}\ntoy2d: {datasets: {}, time_draws: 4}\n"
    )
    base, more = (load_suite(tmp_path / f"{name}.yaml") for name in ("frozen", "more"))
    # Sections key by key; what is listed by name as a whole.
    assert more.train == base.train.model_copy(update={"steps": 300})
    assert (more.protocol, more.toy2d.datasets, more.toy2d.time_draws) == ({}, {}, 4)
    assert more.toy2d.training == base.toy2d.training
    assert more.runs == base.runs


def test_a_seed_that_failed_is_no_run_and_stays_known(tmp_path: Path) -> None:
    """For the claims to count: a suite without it would compare the seeds that happen to be sound."""
    whole, found = (
        load(tmp_path, TEXT),
        load(tmp_path, TEXT.replace("seeds: [0, 1, 2]", "seeds: [0, 1, 2], failed: [1]", 1)),
    )
    (name,) = found.failed
    assert found.runs.keys() | {name} == whole.runs.keys()
    assert name not in found.runs
    assert found.failed[name] == whole.runs[name]
    assert suite_sha256(found) != suite_sha256(whole)


BASED = {
    "mistake in the base": ("  steps: 200\n", "  steps: many\n", "", "frozen", "key train.steps: found 'many'"),
    "missing key": ("  steps: 200\n", "", "train: {lr: 1.0e-3}\n", "frozen", "key train.steps: missing"),
    "over a mistake in the base": (
        "  steps: 200\n", "  steps: many\n", "train: {steps: few}\n", "more", "key train.steps: found 'few'"
    ),
    "seeds of the base": ("vp, " + LINE, "vp, " + LINE.replace("[0, 1, 2]", "[0, 0]"), "", "frozen", f"run {RUN}, key seeds"),
    "run of its own": (
        "", "", "protocol: {}\nruns:\n  digits-vp-indm-nll: {dataset: digits, sde: vp, model: indm, variant: '', objective: nll, "
        "seeds: [0], sample: {}}\n", "more", f"run {RUN}, key train: missing",
    ),
    "base of the base": ("suite: frozen\n", "suite: frozen\nbased_on: nothing\n", "", "frozen", "key based_on: "),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BASED)
def test_a_mistake_is_named_with_the_file_that_has_it(tmp_path: Path, mistake: str) -> None:
    old, new, more, file, words = BASED[mistake]
    assert old in TEXT
    (tmp_path / "frozen.yaml").write_text(TEXT.replace(old, new, 1) if old else TEXT)
    (tmp_path / "more.yaml").write_text(f"suite: more\nbased_on: frozen\n{more}")
    with pytest.raises(ParamsError) as caught:
        load_suite(tmp_path / "more.yaml")
    for line in str(caught.value).splitlines():
        assert line.startswith(f"{tmp_path}/{file}.yaml: ")
    assert words in str(caught.value)


def test_a_mistake_across_keys_is_named_with_all_files_that_may_have_it(tmp_path: Path) -> None:
    (tmp_path / "frozen.yaml").write_text(TEXT)
    (tmp_path / "more.yaml").write_text("suite: more\nbased_on: frozen\nfid: {prc_neighbours: 1000}\n")
    with pytest.raises(ParamsError) as caught:
        load_suite(tmp_path / "more.yaml")
    files = f"{tmp_path}/more.yaml, based on {tmp_path}/frozen.yaml"
    assert str(caught.value).startswith(
        f"{files}: suite more, key fid.prc_neighbours: found 1000; allowed: below prc_images"
    )


def test_no_result_depends_on_whose_weights_are_kept(tmp_path: Path) -> None:
    suite, other = load(tmp_path, TEXT), load(tmp_path, TEXT + 'kept_weights: {variants: [""], seeds: 4}\n')
    assert other.kept_weights != suite.kept_weights
    assert suite_content(other) == suite_content(suite)
    assert expanded_text(other) == expanded_text(suite)


def test_a_share_that_is_not_set_is_no_setting_of_earlier_results(tmp_path: Path) -> None:
    """The hash of a suite and the settings of its jobs are those from before the key."""
    suite = load(tmp_path, TEXT)
    assert "log_det_share" not in expanded_text(suite)
    assert "log_det_share" not in job_parameters(suite, Job("train", f"{RUN}-s0"))["train"]
    other = load(tmp_path, TEXT.replace("\n  batch_size: 64", "\n  batch_size: 64\n  log_det_share: 0.125", 1))
    assert suite_sha256(other) != suite_sha256(suite)
    assert job_parameters(other, Job("train", f"{RUN}-s0"))["train"]["log_det_share"] == 0.125
    assert (suite.train_params(f"{RUN}-s0").log_det_share, other.train_params(f"{RUN}-s0").log_det_share) == (1, 0.125)


def test_a_cell_with_seeds_is_a_run_for_each(tmp_path: Path) -> None:
    suite = load(tmp_path, TEXT)
    assert len(suite.runs) == 3 * TEXT.count("seeds: [0, 1, 2]")
    assert [suite.runs[f"digits-vp-indm-nll-s{seed}"].seed for seed in range(3)] == [0, 1, 2]
    expanded = tmp_path / "expanded" / "frozen.json"
    expanded.parent.mkdir()
    expanded.write_text(expanded_text(suite))
    assert load_suite(expanded) == suite
