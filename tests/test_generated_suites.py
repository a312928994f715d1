"""Suites drawn from the schema: what validation accepts runs to its tables, or stops with one line that names a key.

Each example changes some keys of a minute suite, to any values that their schema allows, to its ends, and to what lies beyond.
"""

import json
import math
import re
import signal
from collections.abc import Iterator
from copy import deepcopy
from functools import partial, reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from indm.bench.cli import main
from indm.bench.pipeline.stages import STAGES
from indm.bench.suite.load import load_suite, suite_content
from indm.bench.suite.schema.suite import RunParams, Suite
from indm.errors import ParamsError
from indm.strict_yaml import yaml_text
from tests.conftest import REPOSITORY

# Of processor time: on a busy machine, an example takes longer.
MOST_SECONDS = 60
NAME = "minute"
RUN_STAGES = ("prepare", "reference", "train", "sample", "fid", "nll", "curve", "sweep", "table", "compute")
SCHEMA = Suite.model_json_schema()
WOLF = {"latent_dim": 2, "encoder_widths": [4], "encoder_channels_out": 2, "prior_steps": 1, "prior_width": 4}
WOLF |= {"frozen_prior_inverse": False}
# What makes a suite minute; the rest is that of the suite smoke.
MINUTE: dict[str, Any] = {
    "suite": NAME,
    "reference.digits.classifier": {"steps": 3, "batch_size": 16, "lr": 2e-3},
    "train.score.multipliers": [1],
    "train.score.attention_resolutions": [],
    "train.flow.blocks": [1],
    "train.flow.width": 4,
    "train.steps": 2,
    "train.snapshots": [],
    "train.batch_size": 4,
    "sample.steps": 2,
    "sample.num_samples": 6,
    "sample.batch_size": 6,
    "fid.kid_subsets": 2,
    "fid.kid_subset_size": 4,
    "fid.is_splits": 2,
    "fid.prc_neighbours": 2,
    "fid.prc_images": 6,
    "fid.bootstrap": 2,
    "nll.images": 2,
    "nll.batch_size": 2,
    "nll.time_draws": 2,
    "nll.tolerance": 0.1,
    "curve.images": 2,
    "curve.batch_size": 2,
    "curve.tolerance": 0.1,
    "sweep.objectives": [],
    "sweep.samplers": ["euler_maruyama"],
    "sweep.steps": [2],
    "sweep.num_samples": 6,
    "protocol": {},
    "toy2d.datasets": {},
    "tune": {},
    "grading.samplers": None,
    "grading.images.simple": None,
}
# The largest numbers of keys that cost time, memory or processors; beyond them an example would be no minute one.
LARGEST: dict[str, float] = {
    **dict.fromkeys(("threads", "processes"), 1),
    **dict.fromkeys(("multipliers", "corrector_steps", "prior_steps", "time_draws"), 2),
    **dict.fromkeys(("steps", "snapshots", "blocks", "bootstrap", "kid_subsets"), 3),
    **dict.fromkeys(("images", "is_splits", "prc_neighbours", "ode_steps", "latent_dim", "roulette_mean"), 4),
    **dict.fromkeys(("kid_subset_size", "num_samples", "width", "prior_width", "exact_terms_train"), 8),
    **dict.fromkeys(("encoder_widths", "encoder_channels_out"), 8),
    **dict.fromkeys(("channels", "batch_size"), 16),
}
# Likewise the smallest.
SMALLEST = {"tolerance": 1e-3, "log_det_tolerance": 1e-3}
# Each has a meaning for the whole, or is tested with engines of its own.
FIXED = {"suite", "device", "runs", "protocol", "tune", "toy2d", "grading", "datasets.digits"}
Key = tuple[str, ...]


# ---- Drawing suites -------------------------------------------------------------------------------------------


def minute() -> dict[str, Any]:
    """Return what the suite says that examples change, but for its runs."""
    content = deepcopy(suite_content(load_suite(REPOSITORY / "params" / "smoke.yaml")))
    for key, value in MINUTE.items():
        change(content, tuple(key.split(".")), value)
    return content


def change(content: dict[str, Any], key: Key, value: Any) -> None:
    reduce(dict.__getitem__, key[:-1], content)[key[-1]] = deepcopy(value)


def keys(content: dict[str, Any], place: Key = ()) -> Iterator[Key]:
    """Yield every key that examples change: those whose values are no sections."""
    for name, value in content.items():
        here = (*place, name)
        if ".".join(here) in FIXED:
            continue
        if isinstance(value, dict):
            yield from keys(value, here)
        else:
            yield here


def schema_of(key: Key) -> dict[str, Any]:
    """Find the JSON schema of a key."""
    found = SCHEMA
    for name in key:
        found = next(below for option in _options(found) for below in _below(option, name))
    return found


def _below(option: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return what a section takes under a name; nothing where it has no such key. Of names that a suite chooses, all are alike."""
    if "properties" in option:
        return [option["properties"][name]] if name in option["properties"] else []
    chosen = [option.get("additionalProperties"), *option.get("patternProperties", {}).values()]
    return [schema for schema in chosen if isinstance(schema, dict)]


def _options(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """List what a schema takes, references resolved."""
    options = schema.get("anyOf", [schema])
    return [SCHEMA["$defs"][option["$ref"].rpartition("/")[2]] if "$ref" in option else option for option in options]


def values(schema: dict[str, Any], name: str, *, beyond: bool = False) -> st.SearchStrategy[Any]:
    """Draw values of a key by its schema: those that it takes, its ends above all, and, if asked, some ``beyond`` them."""
    found: list[st.SearchStrategy[Any]] = []
    for option in _options(schema):
        if "enum" in option or "const" in option:
            found.append(st.sampled_from(option.get("enum", [option.get("const")])))
        elif option.get("type") in DRAWN:
            found.append(DRAWN[option["type"]](option, name, beyond))
    return st.one_of(found)


def _numbers(option: dict[str, Any], name: str, beyond: bool) -> st.SearchStrategy[float]:
    lowest = option.get("minimum", math.nextafter(option.get("exclusiveMinimum", -1e300), math.inf))
    highest = option.get("maximum", math.nextafter(option.get("exclusiveMaximum", 1e300), -math.inf))
    low, high = max(lowest, SMALLEST.get(name, lowest)), min(highest, LARGEST.get(name, highest))
    outside = [0.0, -0.0, -1.0, lowest * 0.999, math.nextafter(highest, math.inf), 1e300] if beyond else []
    inside = [value for value in (1e-300, 1e-6, 0.5, 1.0, 1e6, 1e300) if low <= value <= high]
    return st.sampled_from([float(value) for value in (low, high, *inside, *outside)]) | st.floats(low, high)


def _integers(option: dict[str, Any], name: str, beyond: bool) -> st.SearchStrategy[int]:
    low, step, high = option.get("minimum", 0), option.get("multipleOf", 1), option.get("maximum", 10**9)
    outside = [low - 1, low + 1, -1, high + 1, 10**12] if beyond else []
    multiples = st.integers(0, int((LARGEST.get(name, low + 8 * step) - low) // step)).map(lambda i: low + i * step)
    return multiples | st.sampled_from([low, *outside, *([] if name in LARGEST else [high // step * step])])


def _lists(option: dict[str, Any], name: str, beyond: bool) -> st.SearchStrategy[list[Any]]:
    shortest = 0 if beyond else option.get("minItems", 0)
    unique = option.get("uniqueItems", False) and not beyond
    return st.lists(
        values(option["items"], name, beyond=beyond),
        min_size=shortest,
        max_size=option.get("maxItems", 3),
        unique=unique,
    )


DRAWN: dict[str, Any] = {
    "null": lambda option, name, beyond: st.none(),
    "boolean": lambda option, name, beyond: st.booleans(),
    "string": lambda option, name, beyond: st.sampled_from(["", "a", "../x", "é" * 200]),
    "number": _numbers,
    "integer": _integers,
    "array": _lists,
}


@st.composite
def suites(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what a suite of one run says."""
    content = minute()
    if draw(st.booleans()):
        content["train"]["flow"] |= {"name": "wolf", "wolf": deepcopy(WOLF)}
    run = {key: draw(values(schema_of(("runs", "", key)), key)) for key in ("sde", "model", "objective")}
    run |= {
        "dataset": "digits",
        "seed": draw(st.sampled_from([0, 2**32 - 1])),
        "variant": "",
        "train": {},
        "sample": {},
    }
    # Most are accepted, and run: what is refused is soon found.
    beyond = draw(st.integers(0, 4)) == 4
    for key in draw(st.lists(st.sampled_from(sorted(keys(content))), min_size=1, max_size=3, unique=True)):
        value = draw(values(schema_of(key), key[-1], beyond=beyond))
        note(f"{'.'.join(key)}: {value!r}")
        change(content, key, value)
    content["runs"] = {RunParams.model_construct(**run).identity: run}
    note(str(run))
    return content


# ---- Running them ---------------------------------------------------------------------------------------------

# But for those that are words of any message.
KNOWN = {name for definition in (SCHEMA, *SCHEMA["$defs"].values()) for name in definition.get("properties", {})}
KNOWN -= {"log", "low", "high", "name", "path", "run", "model", "suite", "reference", "score", "flow", "images"}
KNOWN -= {"train", "sample"}


def overrun(_: int, frame: FrameType | None) -> None:
    raise AssertionError(f"an example took more than {MOST_SECONDS} s of processor time, in {frame}")


def check(content: dict[str, Any]) -> None:
    """Run a suite to its tables, or to the line that says why not; fail on anything else."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{NAME}.yaml"
        path.write_text(yaml_text(content), encoding="utf-8")
        if (suite := accepted(path)) is None:
            return
        before = signal.signal(signal.SIGPROF, overrun)
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        try:
            if run_all(suite, path, Path(folder)):
                check_tables(Path(folder) / NAME, len(suite.runs))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)


def accepted(path: Path) -> Suite | None:
    """Return a suite, or nothing where it has mistakes, each of which must name its key."""
    refused: list[str] = []
    try:
        return load_suite(path, with_data=True)
    except ParamsError as error:
        refused += str(error).splitlines()
    assert all(" key " in line for line in refused), refused
    return None


def run_all(suite: Suite, path: Path, out: Path) -> bool:
    """Run every job of a suite; return whether none of them refused."""
    return all(
        run_stage(stage, subject, path, out) for stage in RUN_STAGES for subject in STAGES[stage].subjects(suite)
    )


def run_stage(stage: str, subject: str, path: Path, out: Path) -> bool:
    """Run a job; return whether it ended well, and fail unless it did or said in one line which key is to be changed."""
    kind = STAGES[stage].subject
    options = [f"--{kind}", subject] if kind else []
    done = CliRunner().invoke(main, [stage, "--suite", str(path), "--out", str(out), *options])
    if done.exit_code == 0:
        return True
    assert isinstance(done.exception, SystemExit), f"{stage}: {done.exception!r}"
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"indm {stage}: ")]
    note("\n".join(lines))
    assert len(lines) == 1, done.stderr
    assert KNOWN & set(re.findall(r"[a-z_0-9]+", lines[0].partition(": ")[2])), f"no key is named: {lines[0]}"
    return False


def check_tables(folder: Path, runs: int) -> None:
    """Fail on numbers that are not finite, negative errors and more seeds than runs."""
    for path in [*folder.glob("tables/*.csv"), *folder.glob("runs/*/*.csv")]:
        table = pd.read_csv(path)
        for name in table.select_dtypes("number"):
            numbers = table[name].dropna()
            assert numbers.abs().max() < float("inf") or numbers.empty, f"{path.name}: {name}: {list(numbers)}"
            assert not str(name).endswith("_se") or (numbers >= 0).all(), f"{path.name}: {name}: {list(numbers)}"
        assert "seeds" not in table or (table["seeds"].dropna() <= runs).all(), path.name
    for path in folder.glob("runs/*/*.json"):
        assert not re.search(r"NaN|Infinity", path.read_text()), path.name
        found = json.loads(path.read_text())
        assert all(value >= 0 for key, value in found.items() if key.endswith("_se") and value is not None), path.name


@pytest.fixture
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stages find params/published.csv."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("indm.process.set_environment", lambda _: None)
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)


ONCE = partial(
    settings,
    deadline=None,
    database=None,
    # To look for a smaller example costs more than to read this one.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_in_the_checkout")
@ONCE(max_examples=20, derandomize=True)
@given(content=suites())
def test_a_generated_suite_runs_to_its_tables_or_names_a_key(content: dict[str, Any]) -> None:
    check(content)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_in_the_checkout")
@ONCE(max_examples=300)
@given(content=suites())
def test_many_generated_suites_run_to_their_tables_or_name_a_key(content: dict[str, Any]) -> None:
    check(content)
