"""The schema: what it refuses, and in which words."""

from pathlib import Path

import pytest
import yaml

from indm.errors import ParamsError
from indm.suite.expand import suite_files
from indm.suite.load import json_schema, load_suite
from indm.suite.schema.suite import Suite
from tests.conftest import REPOSITORY

SUITES = suite_files(REPOSITORY / "params")
DIGITS = (REPOSITORY / "params" / "digits.yaml").read_text()
RUN = "digits-vp-indm-nll-s0"
LINE = 'model: indm, variant: "", objective: nll, seed: 0, train: {}, sample: {}}'


def load(tmp_path: Path, text: str) -> Suite:
    path = tmp_path / "digits.yaml"
    path.write_text(text)
    return load_suite(path)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_suites_in_the_repository_are_valid(path: Path) -> None:
    assert load_suite(path).suite == path.stem


def test_schema_file_is_in_sync() -> None:
    found = (REPOSITORY / "params" / "schema.json").read_text()
    assert found == json_schema(), "run: python -m indm schema > params/schema.json"


MISTAKES = {
    "mistyped key": (
        "  steps: 200",
        "  stepz: 250",
        [
            "key train.stepz: unknown key; allowed: centered, latent, sde, score, flow, alternate, steps",
            "did you mean steps?",
            "key train.steps: missing",
        ],
    ),
    "mistyped key of a run": (
        "vp, " + LINE,
        "vp, " + LINE.replace("train: {}", "train: {lrr: 1.0}"),
        [
            f"run {RUN}, key train.lrr: unknown key; allowed: centered, latent, sde, score, flow, alternate, steps",
            "did you mean lr?",
        ],
    ),
    "wrong type": ("  steps: 200", "  steps: many", ["key train.steps: found 'many'; allowed: integer, >= 1"]),
    "exponent that YAML reads as text": (
        "  lr: 4.0e-3",
        "  lr: 4e-3",
        ["key train.lr: found '4e-3'; allowed: number, > 0", "write 4.0e-3"],
    ),
    "out of range": (
        "vp, " + LINE,
        "vp, " + LINE.replace("train: {}", "train: {score: {dropout: 1.5}}"),
        [f"run {RUN}, key train.score.dropout: found 1.5; allowed: number, >= 0, < 1"],
    ),
    "unknown dataset": (
        "dataset: digits, sde: vp, " + LINE,
        "dataset: digitz, sde: vp, " + LINE,
        [f"run {RUN}, key dataset: found 'digitz'; allowed: digits, patches"],
    ),
    "dataset the suite does not list": (
        "dataset: digits, sde: vp, " + LINE,
        "dataset: patches, sde: vp, " + LINE,
        [f"run {RUN}, key dataset: found 'patches'; allowed: digits"],
    ),
    "missing key": (
        f"{RUN}: {{dataset: digits, sde: vp, ",
        f"{RUN}: {{dataset: digits, ",
        [f"run {RUN}, key sde: missing"],
    ),
    "null where a number belongs": ("  lr: 4.0e-3", "  lr: null", ["key train.lr: found None; allowed: number, > 0"]),
    "name that the keys do not spell": (
        f"{RUN}: {{dataset: digits, sde: vp",
        f"{RUN}: {{dataset: digits, sde: ve",
        [f"run {RUN}, key (the run's name)", "allowed: 'digits-ve-indm-nll-s0'"],
    ),
    "name that is no word": (
        f"  {RUN}:",
        f"  {RUN}-x.y:",
        [f"key runs: found the name '{RUN}-x.y'; allowed: lower-case"],
    ),
    "variant that the name lacks": (
        "vp, " + LINE,
        "vp, " + LINE.replace('variant: ""', "variant: deep"),
        [f"run {RUN}, key (the run's name)", "allowed: 'digits-vp-indm-deep-nll-s0'"],
    ),
    "variant that is no word": (
        "vp, " + LINE,
        "vp, " + LINE.replace('variant: ""', "variant: a_b"),
        [f"run {RUN}, key variant: found 'a_b'; allowed: string (label", "lower-case letters"],
    ),
    "snapshots that do not increase": (
        "vp, " + LINE,
        "vp, " + LINE.replace("train: {}", "train: {snapshots: [200, 100]}"),
        [f"run {RUN}, key train.snapshots: found [200, 100]; allowed: increasing, up to train.steps 200"],
    ),
    "snapshot after the end": (
        "vp, " + LINE,
        "vp, " + LINE.replace("train: {}", "train: {steps: 100}"),
        [f"run {RUN}, key train.snapshots: found [50, 100, 200]; allowed: increasing, up to train.steps 100"],
    ),
    "warm-up of a flow that is not there": (
        "  flow_warmup_steps: 0",
        "  flow_warmup_steps: 10",
        [
            "run digits-vp-ddpmpp-nll-s0, key train.flow_warmup_steps: found 10; allowed: 0, since model ddpmpp has no flow"
        ],
    ),
    "warm-up of the flow without an end": (
        "vp, " + LINE,
        "vp, " + LINE.replace("train: {}", "train: {flow_warmup_steps: 200}"),
        [f"run {RUN}, key train.flow_warmup_steps: found 200; allowed: below train.steps 200"],
    ),
    "key given twice": ("threads: 1", "threads: 1\nthreads: 2", ["key 'threads' is given twice", "line 7"]),
    "range that is empty": (
        "beta_min: 0.1",
        "beta_min: 30.0",
        ["key train.sde.vp.beta_min: found 30.0; allowed: below beta_max 20.0"],
    ),
    "two-dimensional dataset that nobody draws": (
        "    moons: {noise",
        "    moonz: {noise",
        ["key toy2d.datasets.moonz", "moons|checkerboard|eight-gaussians"],
    ),
    "warm-up as long as the training": (
        "flow_warmup_steps: 300",
        "flow_warmup_steps: 1200",
        ["key toy2d.training.flow_warmup_steps: found 1200; allowed: below steps 1200"],
    ),
    "not YAML": ("suite: digits", "suite: [digits", ["not a YAML file"]),
    "published statistics of a classifier": (
        "published_statistics: null",
        f"published_statistics: {{path: a.npz, sha256: {'a' * 64}}}",
        ["key reference.digits.published_statistics: allowed: null, since the extractor is digits-cnn"],
    ),
    "sha256 that is none": (
        "published_statistics: null",
        "published_statistics: {path: a.npz, sha256: abc}",
        ["key reference.digits.published_statistics.sha256: found 'abc'", "64 hexadecimal digits"],
    ),
    "neighbourhood of more images than there are": (
        "prc_images: 400",
        "prc_images: 3",
        ["key fid.prc_neighbours: found 3; allowed: below prc_images 3"],
    ),
    "another suite's name": ("suite: digits", "suite: other", ["key suite: found 'other'", "'digits'"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_named(tmp_path: Path, mistake: str) -> None:
    before, after, words = MISTAKES[mistake]
    assert before in DIGITS
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, DIGITS.replace(before, after, 1))
    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"
    for line in message.splitlines():
        assert "digits.yaml: " in line


def test_missing_suite_lists_the_others(tmp_path: Path) -> None:
    (tmp_path / "there.yaml").touch()
    with pytest.raises(ParamsError, match=r"no such suite; suites in .*: there"):
        load_suite(tmp_path / "absent.yaml")


def test_overrides_are_merged_deeply(tmp_path: Path) -> None:
    override = "train: {lr: 1.0e-2, score: {dropout: 0.5}}, sample: {corrector_snr: [0.1, 0.1]}"
    suite = load(tmp_path, DIGITS.replace("vp, " + LINE, "vp, " + LINE.replace("train: {}, sample: {}", override)))
    train, sample = suite.train_params(RUN), suite.sample_params(RUN)
    assert (train.lr, train.score.dropout, train.score.channels) == (0.01, 0.5, suite.train.score.channels)
    assert sample.corrector_snr == [0.1, 0.1]
    assert suite.train_params("digits-vp-ddpmpp-nll-s0") == suite.train


def test_yaml_and_dvc_read_the_same_numbers() -> None:
    """DVC reads YAML 1.2 by ruamel.yaml; a number that only one of the two takes for a text would split the engines."""
    from ruamel.yaml import YAML

    for path in SUITES:
        assert yaml.safe_load(path.read_text()) == YAML(typ="safe").load(path.read_text()), path
