"""The paper's runs: values as in their sources, parameter counts, and one training step on small real images."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from indm.bench.models.spec import build_trainer, model_spec
from indm.bench.suite.expand import suite_files
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.registry import DATASETS
from indm.training.batches import draw
from tests.conftest import REPOSITORY

COUNTS = {"vp": 61_804_419, "ve": 62_758_915}
# The released flows count two numbers more for each of their 32 blocks: geom_p and lamb.
FLOW_COUNTS = {"cifar10": 13_164_376 - 64, "celeba64": 19_804_936 - 64}
SHAPES = {"cifar10": [3, 32, 32], "celeba64": [3, 64, 64]}

# What the sources give: runs (a regular expression of their names), key, value, file and key there. default_* are
# configs/default_cifar10_configs.py and configs/default_celeba_configs.py; vp/*, ve/* the configurations of both datasets.
SOURCED: list[tuple[str, str, Any, str]] = [
    (".*-vp-.*", "train.centered", True, "vp/* data.centered"),
    (".*-ve-.*", "train.centered", False, "default_* data.centered"),
    (".*", "train.sde.vp.learned_range", False, "sde_lib.py"),
    (".*", "train.sde.vp.beta_min", 0.1, "default_* model.beta_min"),
    (".*", "train.sde.vp.beta_max", 20.0, "default_* model.beta_max"),
    (".*", "train.sde.ve.sigma_min", 0.01, "default_* model.sigma_min"),
    ("cifar10-.*|celeba64-vp-.*", "train.sde.ve.sigma_max", 50.0, "default_cifar10_configs.py model.sigma_max"),
    ("celeba64-ve-.*", "train.sde.ve.sigma_max", 90.0, "default_celeba_configs.py model.sigma_max"),
    (".*", "train.sde.eps", 1e-5, "default_* training.truncation_time, sampling.truncation_time"),
    (".*", "train.score.name", "unet", "vp/*, ve/* model.name = 'ncsnpp'"),
    (".*", "train.score.channels", 128, "vp/*, ve/* model.nf"),
    (".*", "train.score.multipliers", [1, 2, 2, 2], "vp/*, ve/* model.ch_mult"),
    (".*", "train.score.blocks", 4, "vp/*, ve/* model.num_res_blocks"),
    (".*", "train.score.attention_resolutions", [16], "vp/*, ve/* model.attn_resolutions"),
    (".*", "train.score.dropout", 0.1, "default_* model.dropout"),
    (".*-vp-.*", "train.score.embedding", "positional", "vp/* model.embedding_type"),
    (".*-ve-.*", "train.score.embedding", "fourier", "default_* model.embedding_type"),
    (".*", "train.score.fourier_scale", 16.0, "vp/*, ve/* model.fourier_scale"),
    (".*-vp-.*", "train.score.fir", False, "vp/* model.fir"),
    (".*-ve-.*", "train.score.fir", True, "ve/* model.fir"),
    (".*-vp-.*", "train.score.progressive_input", "none", "vp/* model.progressive_input"),
    (".*-ve-.*", "train.score.progressive_input", "residual", "ve/* model.progressive_input"),
    (".*-vp-.*", "train.score.scale_by_sigma", False, "vp/* model.scale_by_sigma"),
    (".*-ve-.*", "train.score.scale_by_sigma", True, "ve/* model.scale_by_sigma"),
    (".*", "train.score.normalise_input", "none", "models/ncsnpp.py"),
    (".*", "train.latent.standardise", False, "run_lib.py train"),
    (".*", "train.latent.scale", 1.0, "run_lib.py train"),
    (".*", "train.latent.learned", None, "run_lib.py train"),
    (".*", "train.flow.name", "wolf", "vp/*, ve/* flow.model"),
    ("cifar10-.*", "train.flow.blocks", [16, 16], "vp/*, ve/* flow.nblocks, default_cifar10_configs.py flow.squeeze"),
    (
        "celeba64-.*",
        "train.flow.blocks",
        [0, 16, 16],
        "vp/*, ve/* flow.nblocks, default_celeba_configs.py flow.squeeze",
    ),
    (".*", "train.flow.width", 512, "vp/*, ve/* flow.intermediate_dim"),
    (".*", "train.flow.activation", "sin", "default_* flow.act_fn"),
    (".*", "train.flow.bound", "linf", "flow_models/wolf/modules/generators/generator.py vnorms = 'ffff'"),
    (".*", "train.flow.coefficient", 0.98, "flow_models/wolf/flows/resflow/resflow_.py coeff"),
    (".*", "train.flow.init_at_bound", False, "flow_models/wolf/flows/resflow/layers/base/lipschitz.py"),
    (".*", "train.flow.probe", "gaussian", "flow_models/wolf/flows/resflow/layers/iresblock.py _logdetgrad"),
    (".*", "train.flow.exact_terms_train", 2, "flow_models/wolf/flows/resflow/resflow_.py n_exact_terms"),
    (".*", "train.flow.roulette_mean", 2.0, "flow_models/wolf/flows/resflow/layers/iresblock.py lamb"),
    (".*", "train.flow.wolf.latent_dim", 64, "resflow-gaussian-uni.json discriminator.dim"),
    (".*", "train.flow.wolf.encoder_widths", [48, 96, 96], "resflow-gaussian-uni.json encoder.hidden_planes"),
    (".*", "train.flow.wolf.encoder_channels_out", 8, "resflow-gaussian-uni.json encoder.out_planes"),
    (".*", "train.flow.wolf.prior_steps", 2, "resflow-gaussian-uni.json prior.num_steps"),
    (".*", "train.flow.wolf.prior_width", 256, "resflow-gaussian-uni.json prior.hidden_features"),
    (".*", "train.flow.wolf.frozen_prior_inverse", True, "flow_models/wolf/flows/permutation.py weight_inv"),
    (".*-vp-.*", "train.alternate", True, "losses.py flow_step_fn_fid"),
    (".*-ve-.*", "train.alternate", False, "ve/* training.likelihood_weighting: losses.py flow_step_fn_nll"),
    (".*", "train.steps", 260000, "default_* eval.end_ckpt, training.snapshot_freq"),
    (".*", "train.flow_warmup_steps", 0, "run_lib.py train"),
    (".*", "train.fresh_score_after", None, "run_lib.py train"),
    (".*", "train.batch_size", 128, "default_* training.batch_size"),
    (".*", "train.micro_batches", 1, "default_* optim.num_micro_batch"),
    (".*", "train.precision", "float32", "losses.py"),
    (".*", "train.random_flip", True, "default_* data.random_flip"),
    (".*", "train.soft_truncation", None, "default_* training.st"),
    (".*", "train.reconstruction", False, "default_* training.reconstruction_loss"),
    (".*", "train.lr", 2e-4, "default_* optim.lr"),
    (".*", "train.flow_lr", 1e-3, "default_*, vp/*, ve/* flow.lr"),
    (".*", "train.warmup_steps", 0, "default_* optim.warmup"),
    (".*", "train.schedule", "constant", "losses.py optimization_manager"),
    (".*", "train.weight_decay", 0.01, "default_* optim.weight_decay"),
    (".*", "train.grad_clip", 1.0, "default_* optim.grad_clip"),
    (".*-vp-.*", "train.reduction", "mean", "vp/* training.reduce_mean = True"),
    (".*-ve-.*", "train.reduction", "sum", "default_* training.reduce_mean = False"),
    (".*-vp-.*", "train.ema_decay", 0.9999, "vp/* model.ema_rate"),
    (".*-ve-.*", "train.ema_decay", 0.999, "ve/* model.ema_rate"),
    (".*", "train.flow_ema_decay", 0.999, "default_*, vp/*, ve/* flow.ema_rate"),
    (".*", "train.log_every", 100, "default_* training.log_freq"),
    (".*", "weights.score", "ema", "run_lib.py evaluate: ema.copy_to(score_model.parameters())"),
    (".*", "weights.flow", "raw", "run_lib.py evaluate: nothing of flow_ema"),
    (".*-vp-.*", "sample.sampler", "ode", "vp/* sampling.method"),
    (".*-ve-.*", "sample.sampler", "reverse_diffusion", "ve/* sampling.method = 'pc', sampling.predictor"),
    (".*", "sample.steps", 1000, "default_* model.num_scales, sampling.num_scales"),
    (".*", "sample.grid", "uniform", "sampling.py pc_sampler"),
    (".*-vp-.*", "sample.corrector_snr", None, "vp/* sampling.corrector"),
    ("cifar10-ve-.*", "sample.corrector_snr", [0.14, 0.14], "README.md sampling.begin_snr, sampling.end_snr"),
    ("celeba64-ve-.*", "sample.corrector_snr", [0.15, 0.15], "default_celeba_configs.py sampling.snr"),
    (".*", "sample.corrector_steps", 1, "default_* sampling.n_steps_each"),
    (".*", "sample.tolerance", 1e-5, "default_* eval.rtol, eval.atol"),
    (".*-vp-.*|celeba64-ve-.*", "sample.denoise", "tweedie", "default_* sampling.noise_removal"),
    ("cifar10-ve-.*", "sample.denoise", "released_ve", "README.md sampling.pc_denoise, sampling.pc_denoise_time"),
    (".*-vp-.*|celeba64-ve-.*", "sample.centre_prior", False, "default_* eval.data_mean"),
    ("cifar10-ve-.*", "sample.centre_prior", True, "README.md eval.data_mean"),
    ("(?!cifar10-vp-indm-fid).*", "sample.temperature", 1.0, "default_* sampling.temperature"),
    ("cifar10-vp-indm-fid-.*", "sample.temperature", 1.05, "README.md sampling.temperature"),
    (".*", "sample.rounding", "floor", "sampling_lib.py get_samples"),
    (".*", "sample.num_samples", 50000, "default_* eval.num_samples"),
    (".*", "nll.images", None, "default_* eval.num_test_data: 10,000 and 19,962, all of them"),
    (".*", "nll.batch_size", 200, "default_* eval.batch_size"),
    (".*", "nll.tolerance", 1e-5, "default_* eval.rtol, eval.atol"),
    (".*", "nll.ode_steps", None, "likelihood.py: adaptive steps"),
    (".*", "nll.uncorrected", True, "evaluation.py get_bpd: both"),
    (".*", "nll.log_det", "series", "flow_models/wolf/flows/resflow/layers/iresblock.py _logdetgrad"),
    (".*", "curve.batch_size", 200, "default_* eval.batch_size"),
    (".*", "curve.ode_steps", None, "likelihood.py: adaptive steps"),
    (".*", "curve.log_det", "series", "flow_models/wolf/flows/resflow/layers/iresblock.py _logdetgrad"),
]
OURS = {"train.snapshots", "sample.batch_size", "nll.time_draws", "curve.images", "curve.time_draws", "curve.tolerance"}
OURS |= {"nll.log_det_tolerance", "curve.log_det_tolerance"}


@pytest.fixture(scope="module")
def paper() -> Suite:
    return load_suite(Path(REPOSITORY, "params", "paper.yaml"))


def test_runs_are_the_twelve_of_the_paper(paper: Suite) -> None:
    cells = {(run.dataset, run.sde, run.model, run.objective) for run in paper.runs.values()}
    settings = [("ve", "fid"), ("vp", "fid"), ("vp", "nll")]
    datasets, models = ("cifar10", "celeba64"), ("ddpmpp", "indm")
    assert cells == {(d, sde, m, objective) for d in datasets for sde, objective in settings for m in models}


def leaves(place: str, section: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """List the values of a section with their dotted keys."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield from leaves(f"{place}.{key}", value)
        else:
            yield f"{place}.{key}", value


def resolved(paper: Suite, run: str) -> dict[str, Any]:
    """Collect the values of a run that the table of sources is about, by their dotted keys."""
    sections = {"train": paper.train_params(run), "weights": paper.weights, "sample": paper.sample_params(run)}
    sections |= {"nll": paper.nll, "curve": paper.curve}
    return dict(
        leaf for name, section in sections.items() for leaf in leaves(name, section.model_dump(exclude_unset=True))
    )


def test_values_are_those_of_their_sources(paper: Suite) -> None:
    """Every value of these sections has a source in the table, for every run, or is a choice of the suite."""
    for run in paper.runs:
        found = resolved(paper, run)
        rows = [row for row in SOURCED if re.fullmatch(row[0], run)]
        for _, key, value, source in rows:
            assert found[key] == value, f"{run}: {key}, {source}"
        keys = [key for _, key, _, _ in rows]
        assert len(set(keys)) == len(keys), run
        assert set(keys) | OURS == set(found), run


FAIR = [path for path in suite_files(REPOSITORY / "params") if path.stem != "paper"]


@pytest.mark.parametrize("path", FAIR, ids=lambda path: path.stem)
def test_models_that_are_compared_are_evaluated_in_the_same_way(path: Path) -> None:
    """Suite paper follows the released commands, which change some settings for INDM alone."""
    suite, ways = load_suite(path), defaultdict(set)
    for name, run in suite.runs.items():
        wolf = suite.train_params(name).flow.wolf
        assert wolf is None or not wolf.frozen_prior_inverse, name
        ways[run.dataset, run.sde, run.objective].add(suite.sample_params(name).model_dump_json())
    assert {cell: len(found) for cell, found in ways.items() if len(found) > 1} == {}
    assert suite.weights.flow == suite.weights.score


def reasoned(node: yaml.Node, lines: list[str], place: str = "") -> Iterator[str]:
    """List the dotted keys whose line gives a reason for their value."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from reasoned(value, lines, f"{place}.{key.value}")
    elif "  # [ours] " in lines[node.start_mark.line]:
        yield place


@pytest.mark.parametrize("name", ["cifar10", "paper-seeds"])
def test_what_differs_from_suite_paper_has_a_reason(paper: Suite, name: str) -> None:
    path = Path(REPOSITORY, "params", f"{name}.yaml")
    text = path.read_text()
    found, base = (
        dict(leaves("", s.model_dump(exclude={"suite", "runs", "grading"}))) for s in (load_suite(path), paper)
    )
    different = {key for key, value in found.items() if value != base.get(key)}
    sections = yaml.compose(text.partition("\nruns:")[0])
    assert sections is not None
    assert different == set(reasoned(sections, text.splitlines()))


def test_parameter_counts_are_the_papers(paper: Suite) -> None:
    for name, run in paper.runs.items():
        with torch.device("meta"):
            model = ImplicitNonlinearDiffusion(model_spec(paper, name, SHAPES[run.dataset]))
        # The Fourier frequencies of VE are a fixed buffer here, a parameter without gradient in the released network.
        fixed = model.noise.network.features.frequencies.numel() if run.sde == "ve" else 0
        assert sum(p.numel() for p in model.noise.parameters()) + fixed == COUNTS[run.sde], name
        expected = FLOW_COUNTS[run.dataset] if run.model == "indm" else 0
        assert sum(p.numel() for p in model.flow.parameters()) == expected, name


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


@pytest.mark.long
@pytest.mark.parametrize("run", ["cifar10-vp-indm-nll-s0", "cifar10-ve-indm-fid-s0"])
def test_one_training_step_of_the_papers_size(paper: Suite, run: str) -> None:
    torch.manual_seed(0)
    trainer = build_trainer(paper, run, [3, 32, 32], torch.device("cpu"))
    dataset = DATASETS["patches"]
    patches = torch.from_numpy(next(iter(dataset.read("train", dataset.load(0)["train"]))))
    draws = draw(patches, 256, 2, ("patches", 0), 0, centered=trainer.model.centered)
    losses = trainer.step(draws, 1.0)
    assert all(math.isfinite(value) for value in losses.values())
