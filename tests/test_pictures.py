"""Datasets that forbid pictures of their images: what a suite on them publishes and keeps, from archives of the true format."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from indm.bench.cli import main
from indm.bench.kept.folders import unpack
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job
from indm.bench.pipeline.stages import STAGES
from indm.bench.stages import prepare, sample, train
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.registry import DATASETS
from indm.store.layout import Layout
from tests.archives import tiny
from tests.conftest import REPOSITORY
from tests.finished import do, run

TARGET = Path("docs/results/images")
SUITE = """\
suite: images
based_on: smoke-images
datasets: {{ {name}: {{split_seed: 0}} }}
reference: {{ {name}: {{extractor: inception-v3-random, classifier: null, published_statistics: null}} }}
runs:
  {name}-vp-indm-nll: {{dataset: {name}, sde: vp, model: indm, variant: "", objective: nll, seeds: [0], train: {{}}, sample: {{}}}}
"""


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("cifar10", False), pytest.param("celeba64", False, marks=pytest.mark.long), ("standin32", True)],
)
def test_only_a_dataset_that_allows_it_has_its_images_in_published_pictures(
    name: str, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "params", "params")
    Path("params/images.yaml").write_text(SUITE.format(name=name))
    suite, layout = load_suite(Path("params/images.yaml")), Layout(Path("results"), "images")
    for stage in STAGES:
        for subject in STAGES[stage].subjects(suite):
            do(suite, tmp_path, Job(stage, subject))
            really_do(suite, layout, Job(stage, subject))
    for command in ("keep", "publish"):
        done = CliRunner().invoke(main, [command, "--suite", "params/images.yaml"])
        assert done.exit_code == 0, done.output
    (name_of_run,) = suite.runs
    assert (TARGET / f"samples/{name_of_run}.png").is_file()
    real = np.concatenate([np.load(layout.data(name) / f"{split}.npy") for split in ("train", "test")])
    shown = np.concatenate([cells(picture, DATASETS[name].image_size) for picture in pictures()])
    assert (correlations(shown, real).max() > 0.5) == allowed


def really_do(suite: Suite, layout: Layout, job: Job) -> None:
    """Do a job on the images instead of writing the names of its files into them."""
    if job.stage == "prepare":
        known = DATASETS[job.subject]
        dataset = replace(known, load=tiny(job.subject, Path("data")), counts=None) if known.archives else known
        prepare.write_dataset(layout.data(job.subject), job.subject, dataset, 0)
    elif job.stage == "train":
        run(train, suite, layout, job.subject)
    elif job.stage == "sample":
        run(sample, suite, layout, job.subject)
    else:
        return
    checks = InputCheck(suite, layout.root, Path("reports"))
    checks.record(job, checks.check(job))


def pictures() -> Iterator[bytes]:
    """Yield all that is published or kept as PNG."""
    files = {str(path): path.read_bytes() for path in TARGET.rglob("*.png")}
    for path in TARGET.rglob("*.tar.gz"):
        files |= unpack(path)
    return (content for name, content in files.items() if name.endswith(".png") and content)


def cells(picture: bytes, size: int) -> NDArray[np.uint8]:
    """Cut a picture into its images, (N, C, H, W)."""
    grid = np.asarray(Image.open(io.BytesIO(picture)))
    places = [(top, left) for top in range(1, len(grid), size + 1) for left in range(1, grid.shape[1], size + 1)]
    return np.stack([grid[top : top + size, left : left + size].transpose(2, 0, 1) for top, left in places])


def correlations(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Correlate images with images over their pixels, (N, M); 0 for an image of one colour."""
    sides = [images.reshape(len(images), -1).astype(float) for images in (first, second)]
    x, y = (side - side.mean(1, keepdims=True) for side in sides)
    return x @ y.T / np.maximum(np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1), 1e-9)
