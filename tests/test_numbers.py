"""The numbers of a suite: published ones are rebuilt from their archives, others are refused, and all folders are read alike."""

import gzip
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from indm.bench.kept.folders import unpack
from indm.bench.stages import table
from indm.bench.suite.load import load_suite
from indm.errors import ArtifactError
from indm.registry import DIFFUSIONS
from indm.report.numbers import RUN_KEY, Tidy, alpha_of
from indm.store.layout import Layout
from tests.conftest import REPOSITORY

PUBLISHED = REPOSITORY / "docs/results"
KEPT = sorted(path.parent.name for path in PUBLISHED.glob("*/kept"))
# A suite with learning curves and few runs, and two of these.
SMALL, RUN = "cifar10-1000", "cifar10-vp-ddpmpp-nll-s312"


def unpacked(suite: str, root: Path) -> Path:
    """Unpack the archives of a suite below its results folder, unchecked, which it returns."""
    for path in (PUBLISHED / suite / "kept").rglob("*.tar.gz"):
        for name, content in unpack(path).items():
            (root / suite / name).parent.mkdir(parents=True, exist_ok=True)
            (root / suite / name).write_bytes(content)
    return root / suite


def tabulate(folder: Path) -> None:
    table.run(load_suite(REPOSITORY / f"params/{folder.name}.yaml"), Layout(folder.parent, folder.name))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(SMALL, tmp_path_factory.mktemp("archives"))


@pytest.fixture
def folder(archives: Path, tmp_path: Path) -> Path:
    """The results folder of a small suite."""
    return Path(shutil.copytree(archives, tmp_path / SMALL))


# What is published.


# The largest suite has 136,000 likelihoods of images.
@pytest.mark.parametrize(
    "suite", [pytest.param(name, marks=[pytest.mark.long] if name == "digits-seeds" else []) for name in KEPT]
)
def test_all_published_numbers_are_rebuilt_from_their_archives(suite: str, tmp_path: Path) -> None:
    """To the byte, with all tables that the stage makes of them."""
    tabulate(folder := unpacked(suite, tmp_path))
    published = {path.name: path.read_bytes() for path in (PUBLISHED / suite / "tables").glob("*.csv")}
    published["images.csv"] = gzip.decompress((PUBLISHED / suite / "tables/images.csv.gz").read_bytes())
    rebuilt = {path.name: path.read_bytes() for path in (folder / "tables").glob("*.csv")}
    assert {"values.csv", "images.csv", "nll.csv", "fid.csv"} <= rebuilt.keys()
    assert [name for name, content in rebuilt.items() if content != published[name]] == []


# What is refused.


def one_digit(text: str) -> str:
    """Change the first digit behind a point."""
    place = text.index(".") + 1
    return f"{text[:place]}{9 - int(text[place])}{text[place + 1 :]}"


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def edited(run: Path) -> None:
        (run / name).write_text(change((run / name).read_text()))

    return edited


def swap(*names: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        other = next(path for path in sorted(run.parent.iterdir()) if path != run)
        for name in names:
            shutil.copy(other / name, run / name)

    return change


def drop(step: str) -> Callable[[str], str]:
    return lambda text: "".join(line for line in text.splitlines(keepends=True) if not line.startswith(step))


# What is done to a run's folder, and the refusal.
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a digit of an image": (
        edit("nll.csv", one_digit),
        r"nll\.json: found nll [\d.]+, expected [\d.]+ from the images",
    ),
    "a digit of a mean": (
        edit("nll.json", lambda text: one_digit_of(text, "nelbo")),
        r"nll\.json: found nelbo [\d.]+, expected [\d.]+ from the images in nll\.csv",
    ),
    "a digit of an error": (
        edit("nll.json", lambda text: one_digit_of(text, "gap_se")),
        r"nll\.json: found gap_se [\d.]+, expected [\d.]+ from the images in nll\.csv",
    ),
    "a digit of a snapshot": (
        edit("curve_images.csv", one_digit),
        r"curve\.csv: found nelbo [\d.]+, expected [\d.]+ from the images in curve_images\.csv",
    ),
    "the means of another run": (swap("nll.json"), "nll.json: found the result of run .*, expected run "),
    "the images of another run": (swap("nll.csv"), r"nll\.json: found nll [\d.]+, expected [\d.]+ from the images"),
    "the samples of another run": (swap("samples.json"), "samples.json: found the result of run .*, expected run "),
    "no image 7": (edit("nll.csv", drop("7,")), r"nll\.json: found images \d+, expected \d+ from the images in nll"),
    "no file": (lambda run: (run / "nll.json").unlink(), r"nll\.json: missing; "),
    "no seed": (shutil.rmtree, r"train\.json: missing; "),
}


def one_digit_of(text: str, key: str) -> str:
    found = json.loads(text)
    return json.dumps(found | {key: float(one_digit(repr(found[key])))})


@pytest.mark.parametrize("fault", FAULTS)
def test_numbers_that_are_not_those_of_the_suite_are_refused_in_one_line(fault: str, folder: Path) -> None:
    change, message = FAULTS[fault]
    change(folder / "runs" / RUN)
    with pytest.raises(ArtifactError, match=rf"^{folder}/runs/{RUN}/{message}[^\n]*$"):
        tabulate(folder)
    assert not (folder / "tables").exists()


def test_a_seed_of_which_all_files_lack_an_image_is_refused(folder: Path) -> None:
    """Its means agree with its images, but claims pair images."""
    path = folder / "runs" / RUN / "nll.csv"
    images = pd.read_csv(path)[1:]
    images.to_csv(path, index=False)
    said = json.loads(path.with_suffix(".json").read_text()) | {"images": len(images)}
    for name in images.columns.intersection(list(said)):
        said |= {name: images[name].mean(), f"{name}_se": images[name].sem()}
    path.with_suffix(".json").write_text(json.dumps(said))
    with pytest.raises(
        ArtifactError, match=rf"^nll\.csv of cifar10.*: found {len(images)} images, expected the \d+ that"
    ):
        tabulate(folder)


# Results and published results.


def test_results_and_published_results_are_read_alike(folder: Path) -> None:
    tabulate(folder)
    ours, published = Tidy(folder), Tidy(PUBLISHED / SMALL)
    pd.testing.assert_frame_equal(ours.values, published.values)
    pd.testing.assert_frame_equal(ours.images, published.images)
    pd.testing.assert_frame_equal(ours.runs, published.runs)
    assert {*ours.runs.index} == {path.name for path in (folder / "runs").iterdir()}
    assert [*ours.runs] == RUN_KEY
    assert {each["machine"] for each in ours.record} == {each["machine"] for each in published.record}


def test_numbers_of_another_suite_are_refused(folder: Path) -> None:
    tabulate(folder)
    folder = folder.rename(folder.with_name("mine"))
    with pytest.raises(ArtifactError, match=rf"mine/tables/values\.csv: found rows of suite {SMALL}, expected mine; "):
        len(Tidy(folder).values)


@pytest.mark.parametrize("suite", ["digits-seeds", "digits-ve"])
def test_alpha_of_results_that_do_not_state_it_is_that_of_their_diffusion(suite: str) -> None:
    content = json.loads((REPOSITORY / f"params/expanded/{suite}.json").read_text())
    sde = content["train"]["sde"]
    for name, run in content["runs"].items():
        diffusion = DIFFUSIONS[run["sde"]]
        keys = {key: value for key, value in sde[diffusion.section].items() if key != "learned_range"}
        alpha = float(diffusion(**keys).alpha(torch.tensor(sde["eps"], dtype=torch.float64)))
        # Learned ends of the log-SNR are not in the suite.
        expected = math.nan if run["variant"] == "learned-range" else alpha
        assert alpha_of(content, name) == pytest.approx(expected, rel=1e-12, nan_ok=True)
