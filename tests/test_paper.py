"""The paper's runs at their own size: parameter counts, and one training step on small real images."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.registry import DATASETS
from indm.suite.load import load_suite
from indm.suite.schema.suite import Suite
from indm.training.batches import draw
from indm.training.spec import build_trainer, model_spec
from tests.conftest import REPOSITORY

COUNTS = {"vp": 61_804_419, "ve": 62_758_915}
# The released flows count two numbers more for each of their 32 blocks: geom_p and lamb.
FLOW_COUNTS = {"cifar10": 13_164_376 - 64, "celeba64": 19_804_936 - 64}
SHAPES = {"cifar10": [3, 32, 32], "celeba64": [3, 64, 64]}


@pytest.fixture(scope="module")
def paper() -> Suite:
    return load_suite(Path(REPOSITORY, "params", "paper.yaml"))


def test_runs_are_the_twelve_of_the_paper(paper: Suite) -> None:
    cells = {(run.dataset, run.sde, run.model, run.objective) for run in paper.runs.values()}
    settings = [("ve", "fid"), ("vp", "fid"), ("vp", "nll")]
    datasets, models = ("cifar10", "celeba64"), ("ddpmpp", "indm")
    assert cells == {(d, sde, m, objective) for d in datasets for sde, objective in settings for m in models}


def test_parameter_counts_are_the_papers(paper: Suite) -> None:
    for name, run in paper.runs.items():
        with torch.device("meta"):
            model = ImplicitNonlinearDiffusion(model_spec(paper, name, SHAPES[run.dataset]))
        # The Fourier frequencies of VE are a fixed buffer here, a parameter without gradient in the released network.
        fixed = model.noise.network.features.frequencies.numel() if run.sde == "ve" else 0
        assert sum(p.numel() for p in model.noise.parameters()) + fixed == COUNTS[run.sde], name
        expected = FLOW_COUNTS[run.dataset] if run.model == "indm" else 0
        assert sum(p.numel() for p in model.flow.parameters()) == expected, name


def test_losses_are_summed_under_ve_alone(paper: Suite) -> None:
    """configs/default_*_configs.py: training.reduce_mean = False, which configs/vp/*/indm_*.py set to True."""
    found = {name: paper.train_params(name).reduction for name in paper.runs}
    assert found == {name: "sum" if run.sde == "ve" else "mean" for name, run in paper.runs.items()}


def test_released_evaluation_averages_the_score_alone(paper: Suite) -> None:
    """run_lib.py, evaluate: ema.copy_to(score_model.parameters()), and nothing of flow_ema."""
    assert paper.weights.model_dump() == {"score": "ema", "flow": "raw"}


def test_options_in_the_table_of_released_behaviour_are_keys(paper: Suite) -> None:
    lines = (REPOSITORY / "docs" / "released.md").read_text().splitlines()
    options = [line.split("|")[-2] for line in lines if line.startswith("| ")]
    keys = [key for text in options for key in re.findall(r"`((?:train|weights|sample|fid|nll)\.[\w.]+)", text)]
    assert {"train.reduction", "weights.flow"} <= set(keys)
    for key in keys:
        section: Any = paper.model_dump()
        for name in key.split("."):
            assert name in section, key
            section = section[name]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["cifar10-vp-indm-nll-s0", "cifar10-ve-indm-fid-s0"])
def test_one_training_step_of_the_papers_size(paper: Suite, run: str) -> None:
    torch.manual_seed(0)
    trainer = build_trainer(paper, run, [3, 32, 32], torch.device("cpu"))
    dataset = DATASETS["patches"]
    patches = torch.from_numpy(next(iter(dataset.read("train", dataset.load(0)["train"]))))
    draws = draw(patches, 256, 2, ("patches", 0), 0, torch.device("cpu"), centered=trainer.model.centered)
    losses = trainer.step(draws, 1.0)
    assert all(math.isfinite(value) for value in losses.values())
