"""Keys that one value fills in all suites: each has a reason to stay, and those that went still fit what was made with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job, job_parameters
from indm.bench.suite.expand import suite_files
from indm.bench.suite.load import load_suite, suite_content, suite_sha256
from indm.bench.suite.removed import ANY, REMOVED, without_removed
from indm.errors import ParamsError
from indm.store.manifest import Manifest
from indm.strict_yaml import yaml_text
from tests.conftest import FROZEN, REPOSITORY
from tests.constant_keys import KEPT, constant_keys

SUITE = load_suite(FROZEN)
# A removed key of the suite, its one value, another value, and the job that read it.
KEYS = {
    "protocol.digits.jpeg_quality": (75, 50, Job("protocol", "digits")),
    "toy2d.grid": ("uniform", "log_snr", Job("toy2d", "moons-short")),
    "toy2d.tolerance": (1e-4, 1e-3, Job("toy2d", "moons-short")),
}


def test_every_key_with_one_value_in_all_suites_has_a_reason_to_stay() -> None:
    found = constant_keys(map(load_suite, suite_files(REPOSITORY / "params")))
    assert found.keys() <= KEPT.keys(), "remove the key, or give the reason in tests/constant_keys.py"
    # The counting sees defaults, and keys that vary.
    assert found["compile"] is False
    assert "train.lr" not in found


def stating(tmp_path: Path, key: str, value: Any, file: Path = FROZEN) -> Path:
    """Write a suite, the frozen one by default, with a further key."""
    content = json.loads(json.dumps(suite_content(load_suite(file))))
    section = content
    *way, last = key.split(".")
    for name in way:
        section = section[name]
    section[last] = value
    path = tmp_path / file.name
    path.write_text(yaml_text(content))
    return path


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("other", [False, True], ids=["its one value", "another value"])
def test_a_suite_that_sets_a_removed_key_gets_one_line_with_what_replaces_it(
    tmp_path: Path, key: str, other: bool
) -> None:
    path = stating(tmp_path, key, KEYS[key][other])
    with pytest.raises(ParamsError) as caught:
        load_suite(path)
    (line,) = str(caught.value).splitlines()
    pattern = tuple(ANY if name == "digits" else name for name in key.split("."))
    assert f"key {key}: found {KEYS[key][other]!r}; allowed: no value, because this key is gone" in line
    assert line.endswith(f": {REMOVED[pattern].instead}; remove it")


@pytest.mark.parametrize("key", KEYS)
def test_a_suite_of_an_earlier_commit_is_read_and_its_hash_counts_a_removed_key(tmp_path: Path, key: str) -> None:
    value, other, _ = KEYS[key]
    earlier = load_suite(stating(tmp_path, key, value), earlier=True)
    assert suite_content(earlier) == suite_content(SUITE)
    assert suite_sha256(earlier) == suite_sha256(SUITE)
    with pytest.raises(ParamsError, match="this key is gone"):
        load_suite(stating(tmp_path, key, other), earlier=True)


def test_the_hash_of_a_suite_is_the_one_that_it_had_with_its_removed_keys() -> None:
    """The SHA-256 of the frozen suite before any key went."""
    assert suite_sha256(SUITE) == "2cdebd7e6b20325fd618bdfb83c7024fb960ed7d4251994d14b4519a134ff4cf"


@pytest.mark.parametrize("key", KEYS)
def test_a_manifest_with_a_removed_key_fits_if_it_has_the_one_value(tmp_path: Path, key: str) -> None:
    value, other, job = KEYS[key]
    checks, parameters = InputCheck(SUITE, tmp_path, tmp_path), json.loads(json.dumps(job_parameters(SUITE, job)))
    section, _, name = key.rpartition(".")
    for found in (value, other):
        # A job's parameters are sections by their keys, or single keys.
        stated = {key: found} if section not in parameters else {section: parameters[section] | {name: found}}
        made = Manifest(job.stage, SUITE.suite, job.subject, parameters | stated, {}, {})
        differences = list(checks.other_parameters(job, made))
        assert differences == ([] if found == value else [(key, json.dumps(other), "nothing")])


def test_a_search_that_chooses_by_a_cubic_gets_one_line(tmp_path: Path) -> None:
    key = "tune.digits-vp-indm-nll-s0.choose"
    with pytest.raises(ParamsError) as caught:
        load_suite(stating(tmp_path, key, "cubic", REPOSITORY / "params/smoke.yaml"))
    (line,) = str(caught.value).splitlines()
    assert f"key {key}: found 'cubic'; allowed: no value, because this key is gone: the best trial is chosen" in line


def test_searches_may_have_stated_that_they_take_the_best_trial() -> None:
    assert without_removed({"tune.digits-vp-indm-nll-s0": {"choose": "best", "trials": 3}}) == {
        "tune.digits-vp-indm-nll-s0": {"trials": 3}
    }
    assert without_removed({"tune": {"a": {"choose": "cubic"}}}) == {"tune": {"a": {"choose": "cubic"}}}
