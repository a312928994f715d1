"""Training: batches, schedules, what each objective updates, and repeatability."""

import copy
import math
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from indm.bench.models import controls
from indm.bench.models.begin import begin_training, step_flops
from indm.bench.models.controls import check_controls
from indm.bench.models.spec import build_trainer
from indm.bench.suite.expand import suite_files
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.bench.trials import with_trial
from indm.diffusion.model import ImplicitNonlinearDiffusion, load_model
from indm.diffusion.objectives import gaussian_nll
from indm.diffusion.path import nelbo
from indm.diffusion.sde import importance_time, soft_truncation_time
from indm.errors import ArtifactError, DataError, DivergenceError, ParamsError
from indm.flows.base import Subset
from indm.flows.registered.affine import PixelAffine
from indm.flows.registered.resflow import ResidualFlow
from indm.flows.sources import draw_probe, draw_roulette
from indm.progress import bar, watched
from indm.seeding import derive_seed
from indm.store.files import CHECKPOINT_FORMAT, write_weights
from indm.strict_yaml import parse_yaml
from indm.training.batches import DeviceBatch, draw
from indm.training.loop import History, Plan, learning_rate, train
from indm.training.losses import Optimisation
from indm.training.saving import write_training
from indm.training.trainer import Trainer
from tests.conftest import FROZEN, REPOSITORY

CPU = torch.device("cpu")
SEED = ("digits", 0, "train")
RESFLOW = {"name": "resflow", "blocks": [1], "width": 8, "activation": "elu", "bound": "spectral", "coefficient": 0.9}
WOLF = RESFLOW | {"name": "wolf", "latent_dim": 4, "encoder_widths": [4, 4], "encoder_channels_out": 4}
WOLF |= {"prior_steps": 1, "prior_width": 8}
FLOWS: dict[str, dict[str, Any]] = {"resflow": RESFLOW, "wolf": WOLF, "identity": {"name": "identity"}}
FLOWS["affine"] = {"name": "affine"}
OPTIONS: dict[str, Any] = {"lr": 1e-3, "flow_lr": 1e-3, "weight_decay": 0.0, "grad_clip": 1e9, "ema_decay": 0.9}
OPTIONS |= {"flow_ema_decay": 0.8}
PLAN: dict[str, Any] = {"batch_size": 8, "warmup_steps": 2, "schedule": "cosine", "log_every": 2}
LOOP: dict[str, Any] = {"seed": SEED, "device": CPU, "progress": iter}


def images(count: int = 20) -> Tensor:
    return torch.randint(0, 17, (count, 1, 8, 8), generator=Generator().manual_seed(0), dtype=torch.uint8)


def model(
    flow: str = "resflow", sde: str = "vp", normalise_input: str = "unit", learned_range: bool = False, **affine: float
) -> ImplicitNonlinearDiffusion:
    torch.manual_seed(0)
    score = {"name": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention_resolutions": []}
    score |= {"dropout": 0.0, "embedding": "log_snr", "normalise_input": normalise_input}
    kind = {"name": sde, "learned_range": learned_range}
    spec = {"shape": [1, 8, 8], "sde": kind, "eps": 1e-5, "centered": True, "score": score}
    return ImplicitNonlinearDiffusion(spec | {"flow": FLOWS[flow] | ({"affine": affine} if affine else {})})


def weights(part: torch.nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in part.parameters()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_epoch_sees_every_image_once_and_the_next_in_another_order() -> None:
    # 20 images that are told apart by their first pixel's level.
    data = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(20, 1, 8, 8)
    steps = [draw(data, 32, 5, SEED, step).x[:, 0, 0, 0] for step in range(8)]
    levels = [((step + 1) * 16).floor().int().tolist() for step in steps]
    first, second = list(chain(*levels[:4])), list(chain(*levels[4:]))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


def test_batches_are_dequantised_uniformly_wherever_they_are_drawn() -> None:
    """Kolmogorov's statistic, the largest distance of two distribution functions; above 2 / sqrt(N) once in 1,500 seeds."""
    data = torch.full((500, 1, 8, 8), 3, dtype=torch.uint8)
    (elsewhere,) = DeviceBatch(data, 17, 0, CPU, False, True).shares(1, 0, 1)
    for draws in (draw(data, 17, 500, SEED, 0), elsewhere):
        noise = ((draws.x + 1) * 17 / 2 - 3).flatten().sort().values
        assert (noise - torch.linspace(0, 1, len(noise))).abs().max() < 2 / math.sqrt(len(noise))


def test_draws_repeat_and_differ_from_step_to_step() -> None:
    first, again, other = (draw(images(), 17, 8, SEED, step) for step in (3, 3, 4))
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.noise, again.noise)
    assert torch.equal(first.u, again.u)
    assert not torch.equal(first.noise, other.noise)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(DataError, match="batch_size 8"):
        draw(images(4), 17, 8, SEED, 0)


def test_learning_rate_warms_up_and_falls() -> None:
    factors = [learning_rate(step, 100, 9, "cosine") for step in range(100)]
    assert factors[0] == pytest.approx(0.1, rel=1e-3)
    assert max(factors) == pytest.approx(1, abs=0.03)
    assert factors[-1] < 1e-3
    assert learning_rate(50, 100, 0, "constant") == 1
    # And again with a fresh score.
    assert learning_rate(30, 100, 9, "constant", begin=30) == learning_rate(0, 100, 9, "constant") == 0.1
    assert learning_rate(60, 100, 9, "cosine", begin=30) == learning_rate(60, 100, 9, "cosine")


@pytest.mark.parametrize("objective", ["nll", "fid"])
@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_a_step_moves_both_networks_and_the_average(objective: str, sde: str) -> None:
    trainer = Trainer(model(sde=sde), Optimisation(objective=objective, **OPTIONS))
    before = weights(trainer.model.noise), weights(trainer.model.flow)
    losses = trainer.step(draw(images(), 17, 8, SEED, 0), 1.0)
    assert not same(before[0], weights(trainer.model.noise))
    assert not same(before[1], weights(trainer.model.flow))
    assert not same(before[0], weights(trainer.averaged().noise))
    assert set(losses) == {"score_loss", "flow_loss"}
    assert all(math.isfinite(value) for value in losses.values())


def followed(trainer: Trainer, name: str) -> list[Tensor]:
    """Return the gradients of the last step that the optimiser of a network followed, clipped, by parameter."""
    gradient = trainer.flats[name].values.grad
    assert gradient is not None
    return trainer.flats[name].split(gradient)


def test_under_ve_the_joint_step_scales_the_score_gradient_of_the_alternating_one() -> None:
    """Importance-sampled times are uniform under VE, and both weights constant: 1/2 against Z/2."""
    gradients = []
    for alternate in (True, False):
        trainer = Trainer(model("identity", sde="ve"), Optimisation(objective="fid", alternate=alternate, **OPTIONS))
        trainer.step(draw(images(), 17, 8, SEED, 0), 1.0)
        gradients.append(torch.cat([gradient.flatten() for gradient in followed(trainer, "score")]))
    z = importance_time(trainer.model.sde, torch.zeros(1, dtype=torch.float64), 1e-5)[1]
    torch.testing.assert_close(gradients[1], z * gradients[0], rtol=1e-3, atol=1e-5)


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path) -> None:
    trainer, identity = Trainer(model(), Optimisation(objective="nll", **OPTIONS)), {"run": "a", "step": 5}
    nn.init.constant_(next(trainer.model.noise.parameters()), math.nan)
    with pytest.raises(DivergenceError, match=r"step 5.*raw\.noise\."):
        write_training(tmp_path, trainer, [], identity, {})
    assert not any(tmp_path.iterdir())
    tensors = {f"ema.{key}": value for key, value in trainer.model.state_dict().items()}
    path = tmp_path / "checkpoint.safetensors"
    write_weights(path, tensors, {"model": trainer.model.spec}, CHECKPOINT_FORMAT)
    with pytest.raises(ArtifactError, match=r"checkpoint\.safetensors: noise\."):
        load_model(path, CPU, {"score": "ema", "flow": "ema"})


@pytest.mark.parametrize("objective", ["nll", "fid"])
def test_a_watched_training_is_the_same_and_notes_what_its_steps_know(objective: str, tmp_path: Path) -> None:
    """The numbers are those of the last step, and of an INDM all: nothing is drawn or computed in another order for them."""

    def run(progress: Any) -> tuple[Trainer, list[dict[str, float]]]:
        trainer = Trainer(model(), Optimisation(objective=objective, **OPTIONS))
        plan = Plan(steps=4, **PLAN)
        return trainer, train(trainer, images(), 17, plan, **LOOP | {"progress": progress})

    plain = run(iter)
    with watched(tmp_path / "a.jsonl", goes_on=False):
        watching = run(bar("a", lambda: plain[0].noted))
    assert watching[1] == plain[1]
    assert same(weights(watching[0].model), weights(plain[0].model))
    names = {f"{key}_{part}" for key in ("lr", "gradient_norm") for part in ("score", "flow")}
    assert set(plain[0].noted) == names | {"score_loss", "flow_loss", "log_det_term"}
    assert all(math.isfinite(value) for value in plain[0].noted.values())
    bounds = plain[0].flow_bounds()
    assert 0 < bounds["lipschitz_smallest"] <= bounds["lipschitz_largest"] < 1


def test_fid_objective_trains_the_flow_on_the_nelbo_alone() -> None:
    """The flow's gradient is the NELBO's with the score of before the step: variance weighting would be no bound."""
    trainer = Trainer(model(), Optimisation(objective="fid", **OPTIONS))
    draws = draw(images(), 17, 8, SEED, 0)
    twin, own = model(), draw(images(), 17, 8, SEED, 0).fresh()
    z0, log_det = twin.flow(own.x, "train", own.generator)
    t, z = importance_time(twin.sde, own.u, twin.eps)
    error = twin.path.error(twin.noise, z0, t, own.noise)
    (nelbo(twin.path, z0, log_det, error, z, twin.eps).mean() / 64).backward()
    trainer.step(draws, 1.0)
    for found, expected in zip(followed(trainer, "flow"), twin.flow.parameters(), strict=True):
        torch.testing.assert_close(found, expected.grad)


def test_fid_objective_trains_the_score_on_latents_of_the_updated_flow() -> None:
    trainer = Trainer(model(), Optimisation(objective="fid", **OPTIONS))
    draws = draw(images(), 17, 8, SEED, 0)
    score_before = {key: value.clone() for key, value in trainer.model.noise.state_dict().items()}
    loss = trainer.step(draws, 1.0)["score_loss"]
    twin = model()
    twin.flow.load_state_dict(trainer.model.flow.state_dict())
    twin.noise.load_state_dict(score_before)
    t = 1e-5 + draws.u * (1 - 1e-5)
    expected = twin.path.error(twin.noise, twin.flow(draws.x, "none")[0], t, draws.noise).mean() / 128
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_fresh_draws_have_the_same_images_and_independent_times_and_noise() -> None:
    draws = draw(images(4000), 17, 4000, SEED, 0)
    fresh = draws.fresh()
    assert torch.equal(fresh.x, draws.x)
    assert fresh.u.mean().item() == pytest.approx(0.5, abs=0.02)
    assert fresh.u.std().item() == pytest.approx(12**-0.5, abs=0.01)
    assert torch.corrcoef(torch.stack([fresh.u, draws.u]))[0, 1].abs() < 0.07
    assert torch.corrcoef(torch.stack([fresh.noise.flatten(), draws.noise.flatten()]))[0, 1].abs() < 0.01
    assert fresh.noise.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("objective", ["nll", "fid"])
@pytest.mark.parametrize("flow", ["identity", "resflow"])
def test_micro_batches_average_to_the_gradient_of_the_whole(objective: str, flow: str) -> None:
    """Three unequal parts of a batch of eight give the score the gradient of the batch at once."""
    gradients = []
    for parts in (1, 3):
        # Without the flow's step, which has draws of its own for each part.
        trainer = Trainer(
            model(flow), Optimisation(objective=objective, micro_batches=parts, **OPTIONS | {"flow_lr": 0.0})
        )
        trainer.step(draw(images(), 17, 8, SEED, 0), 1.0)
        gradients.append(followed(trainer, "score"))
    for whole, averaged in zip(*gradients, strict=True):
        torch.testing.assert_close(averaged, whole, rtol=1e-3, atol=1e-5)


SHARE: dict[str, Any] = {"log_det_share": 0.25}


def test_a_share_is_chosen_with_a_seed_of_its_own() -> None:
    """Images, times, noise and probes are those of the whole, and every image has the same chance."""
    whole, *parts = [
        draw(images(), 17, 8, SEED, 0),
        *(draw(images(), 17, 8, SEED, step, **SHARE) for step in range(400)),
    ]
    part, again = parts[0], draw(images(), 17, 8, SEED, 0, **SHARE)
    assert whole.log_det == "train"
    for name in ("x", "u", "noise"):
        assert torch.equal(getattr(part, name), getattr(whole, name))
    assert torch.equal(draw_probe(part.x, "gaussian", part.generator), draw_probe(whole.x, "gaussian", whole.generator))
    chosen = torch.stack([found.chosen for found in parts if found.chosen is not None])
    assert again.chosen is not None
    assert torch.equal(again.chosen, chosen[0])
    assert chosen.sum(1).tolist() == [2] * 400
    assert {found.factor for found in parts} == {4.0}
    # 100 +- 8.7 expected of each image.
    assert (chosen.sum(0) - 100).abs().max() < 4 * 8.7


def test_a_share_below_one_image_is_one_image() -> None:
    """A suite with such a share is refused; a trial with a smaller batch has the gradient of one image."""
    draws = draw(images(), 17, 8, SEED, 0, log_det_share=0.01)
    assert draws.chosen is not None
    assert (int(draws.chosen.sum()), draws.factor) == (1, 8.0)


@pytest.mark.parametrize("device", [False, True])
def test_the_parts_of_a_batch_share_its_chosen_images(device: bool) -> None:
    """Two of eight images, in three micro-batches of two processes each: some parts have none of them."""
    whole = draw(images(), 17, 8, SEED, 0, **SHARE)
    batch = DeviceBatch(images(8), 17, 0, CPU, False, True, whole.chosen, 4.0) if device else whole
    parts = [part for place in range(2) for part in batch.shares(3, place, 2)]
    order = [part for number in range(3) for part in (parts[number], parts[3 + number])]
    masks = [part.chosen for part in order if part.chosen is not None]
    assert whole.chosen is not None
    assert torch.equal(torch.cat(masks), whole.chosen)
    assert not all(mask.any() for mask in masks)
    for part, mask in zip(order, masks, strict=True):
        subset = part.log_det
        assert isinstance(subset, Subset)
        assert (subset.count, subset.factor) == (int(mask.sum()), 4)
        assert mask[subset.order[: subset.count]].all()
        assert sorted(subset.order.tolist()) == list(range(len(part.x)))


@pytest.mark.parametrize("objective", ["nll", "fid"])
def test_a_step_follows_the_log_determinant_of_its_share(objective: str) -> None:
    """Scaled; and a flow that is exact at no cost takes the whole batch."""
    gradients: dict[tuple[str, float], list[Tensor]] = {}
    for flow in ("resflow", "affine"):
        for share in (1.0, 0.25):
            trainer = Trainer(model(flow), Optimisation(objective=objective, **OPTIONS))
            trainer.step(draw(images(), 17, 8, SEED, 0, log_det_share=share), 1.0)
            gradients[flow, share] = followed(trainer, "flow")
            assert (trainer.noted["log_det_term"] == 0) == (flow == "affine")
    assert not same(gradients["resflow", 1.0], gradients["resflow", 0.25])
    assert same(gradients["affine", 1.0], gradients["affine", 0.25])


@pytest.mark.parametrize("flow", ["resflow", "wolf"])
def test_operations_are_counted_of_the_share(flow: str) -> None:
    """They are affine in the number of chosen images, of which DDPM++ has none."""
    trainer = Trainer(model(flow), Optimisation(objective="nll", **OPTIONS))
    counts = [step_flops(trainer, draw(images(), 17, 8, SEED, 0, log_det_share=k / 8)) for k in (1, 2, 4, 8)]
    one = counts[1] - counts[0]
    assert one > 0
    assert [count - counts[0] for count in counts] == [0, one, 3 * one, 7 * one]
    ddpmpp = Trainer(model("identity"), Optimisation(objective="nll", **OPTIONS))
    assert step_flops(ddpmpp, draw(images(), 17, 8, SEED, 0, **SHARE)) == step_flops(
        ddpmpp, draw(images(), 17, 8, SEED, 0)
    )


def test_a_control_of_equal_compute_is_checked_against_the_share() -> None:
    """A small batch counts as the whole batch does."""
    suite = load_suite(REPOSITORY / "params/digits.yaml")
    name = next(name for name, run in suite.runs.items() if run.has_flow)
    for share in (1.0, 0.125, 3 / 64):
        changed = with_trial(suite, name, 0, {"log_det_share": share, "steps": 1})
        trainer = build_trainer(changed, name, [1, 8, 8], CPU)
        draws = draw(images(64), 17, 64, SEED, 0, log_det_share=share)
        assert controls._flops(changed, name) == step_flops(trainer, draws)


def _gradients(objective: str, **options: Any) -> tuple[list[Tensor], dict[str, float]]:
    """Take a step; return the gradients that the optimisers saw, and the losses."""
    trainer = Trainer(model(), Optimisation(objective=objective, **OPTIONS | options))
    losses = trainer.step(draw(images(), 17, 8, SEED, 0), 1.0)
    return [gradient for name in trainer.networks for gradient in followed(trainer, name)], losses


@pytest.mark.parametrize("objective", ["nll", "fid"])
def test_losses_summed_over_dimensions_have_longer_gradients_and_are_reported_per_dimension(objective: str) -> None:
    # Without the flow's step, which objective fid takes between its two losses.
    mean, losses = _gradients(objective, flow_lr=0.0)
    total, again = _gradients(objective, flow_lr=0.0, reduction="sum")
    for found, expected in zip(total, mean, strict=True):
        torch.testing.assert_close(found, 64 * expected)
    assert again == pytest.approx(losses)


def test_clipping_of_summed_losses_is_that_of_the_mean_at_a_limit_divided_by_the_dimensions() -> None:
    limit = 0.1
    total, _ = _gradients("nll", reduction="sum", grad_clip=limit)
    divided, _ = _gradients("nll", grad_clip=limit / 64)
    for found, expected in zip(total, divided, strict=True):
        torch.testing.assert_close(found, 64 * expected, rtol=1e-4, atol=1e-9)
    # Both networks' gradients have the limit's length: that of the mean of the losses would be too loose.
    assert torch.cat([g.flatten() for g in total]).norm().item() == pytest.approx(limit * 2**0.5, rel=1e-3)


@pytest.mark.parametrize("objective", ["nll", "fid"])
def test_soft_truncation_draws_one_time_for_a_batch(objective: str) -> None:
    trainer = Trainer(model("identity"), Optimisation(objective=objective, soft_truncation=1.2, **OPTIONS))
    seen: list[Tensor] = []
    trainer.model.noise.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    draws = replace(draw(images(), 17, 8, SEED, 0), truncation=0.9)
    trainer.step(draws, 1.0)
    eps = soft_truncation_time(draws.truncation, 1e-5, 1.2)
    times = {"nll": importance_time(trainer.model.sde, draws.u, eps)[0], "fid": eps + draws.u * (1 - eps)}
    torch.testing.assert_close(seen[0], times[objective])
    assert eps > 0.01


def integrals(sde: dict[str, float], eps: float) -> tuple[float, float]:
    """Integrate VP's beta from 0 to ``eps`` and to 1: t b + t^2 (c - b) / 2."""
    low, high = sde["beta_min"], sde["beta_max"]
    return eps * low + eps**2 * (high - low) / 2, (low + high) / 2


def test_soft_truncation_bounds_the_likelihood_at_the_time_that_is_drawn() -> None:
    """A fresh network predicts no noise at all, so that every term of the bound is known."""
    net = model("identity")
    trainer = Trainer(net, Optimisation(objective="nll", soft_truncation=1.2, **OPTIONS))
    draws = draw(images(), 17, 8, SEED, 0)
    losses = trainer.step(draws, 1.0)
    start, end = integrals({"beta_min": 0.1, "beta_max": 20.0}, soft_truncation_time(draws.truncation, 1e-5, 1.2))
    z = math.log(math.expm1(end) / math.expm1(start))
    score = z / 2 * draws.noise.square().mean().item()
    prior = math.log(2 * math.pi) / 2 + (math.exp(-end) * draws.x.square().mean().item() - math.expm1(-end)) / 2
    assert losses["score_loss"] == pytest.approx(score, rel=1e-5)
    assert losses["flow_loss"] == pytest.approx(prior + score - z / 2 + (end - start) / 2, rel=1e-5)


@pytest.mark.parametrize("objective", ["nll", "fid"])
def test_the_flow_follows_the_prior_of_its_latents(objective: str) -> None:
    r"""Under a network that predicts no noise, the bound has a gradient in the scales and the shifts from the prior alone.

    .. math:: \frac{\partial}{\partial a_i} = \alpha_T^2\, \overline{x_i^2} - 1, \qquad
        \frac{\partial}{\partial b_i} = \alpha_T^2\, \overline{x_i}
    """
    beta = {"beta_min": 0.1, "beta_max": 1.0}
    spec = model("identity").spec | {"sde": {"name": "vp", **beta}, "flow": {"name": "affine"}}
    net = ImplicitNonlinearDiffusion(spec)
    nn.init.zeros_(net.noise.network.conv_out.weight)  # A fresh network has nearly zeros there.
    trainer = Trainer(net, Optimisation(objective=objective, **OPTIONS))
    draws = draw(images(), 17, 8, SEED, 0)
    trainer.step(draws, 1.0)
    assert isinstance(net.flow, PixelAffine)
    signal = math.exp(-integrals(beta, 0.0)[1])
    expected = (signal * draws.x.square().mean(0) - 1) / 64, signal * draws.x.mean(0) / 64
    assert [name for name, _ in net.flow.named_parameters()] == ["log_scale", "shift"]
    for found, gradient in zip(followed(trainer, "flow"), expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6)


def test_reconstruction_adds_the_residual() -> None:
    losses = []
    for reconstruction in (False, True):
        net = model("identity")
        with torch.no_grad():
            # A fresh network predicts no noise at all, whose residual vanishes.
            for parameter in net.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=Generator().manual_seed(0)))
        trainer = Trainer(net, Optimisation(objective="nll", reconstruction=reconstruction, **OPTIONS))
        losses.append(trainer.step(draw(images(), 17, 8, SEED, 0), 1.0))
    assert losses[0]["score_loss"] == losses[1]["score_loss"]
    assert losses[0]["flow_loss"] != losses[1]["flow_loss"]


@pytest.mark.parametrize("objective", ["nll", "fid"])
@pytest.mark.parametrize("parts", [1, 3])
def test_running_deviation_is_that_of_the_latents_that_the_score_is_trained_on(objective: str, parts: int) -> None:
    options = OPTIONS | {"micro_batches": parts}
    trainer = Trainer(
        model(normalise_input="running", scale=3.0, mean=0.5, std=1.0), Optimisation(objective=objective, **options)
    )
    draws = [draw(images(), 17, 8, SEED, step) for step in range(3)]
    trainer.step(draws[0], 1.0, flow_alone=True)
    assert trainer.model.noise.variance.item() == 1
    variances = []
    for one in draws[1:]:
        # Of the flow before the step, or under objective fid after it: the score's.
        before = trainer.model.flow(one.x, "none")[0]
        trainer.step(one, 1.0)
        z = before if objective == "nll" else trainer.model.flow(one.x, "none")[0]
        variances.append(z.var(correction=0).item())
    assert trainer.model.noise.variance.item() == pytest.approx(sum(variances) / 2, rel=1e-5)
    assert trainer.averaged().noise.variance == trainer.model.noise.variance


def test_flips_turn_half_of_the_images() -> None:
    data = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
    data[..., :4] = 16
    left = draw(data, 17, 200, SEED, 0, random_flip=True).x[..., :4].mean((1, 2, 3)) > 0
    assert 70 < left.sum() < 130
    assert (draw(data, 17, 200, SEED, 0).x[..., :4].mean((1, 2, 3)) > 0).all()


def test_a_step_with_flat_parameters_is_that_of_each_by_itself() -> None:
    """To the rounding of the norm by which gradients are clipped."""
    trainer = Trainer(model(), Optimisation(objective="nll", **OPTIONS | {"grad_clip": 0.1}))
    twin = model()
    trainer.step(draw(images(), 17, 8, SEED, 0), 1.0)
    for name, module in (("score", twin.noise), ("flow", twin.flow)):
        for parameter, gradient in zip(module.parameters(), followed(trainer, name), strict=True):
            parameter.grad = gradient.clone()
        options = trainer.optimisers[name].param_groups[0]
        torch.optim.AdamW(module.parameters(), options["lr"], options["betas"], weight_decay=0.0).step()
        for found, expected in zip(trainer.networks[name].parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_a_step_of_the_flow_alone_follows_the_normalizing_flow_and_leaves_the_score() -> None:
    trainer = Trainer(model(), Optimisation(objective="fid", **OPTIONS))
    before = weights(trainer.model.noise)
    losses = trainer.step(draw(images(), 17, 8, SEED, 0), 1.0, flow_alone=True)
    assert set(losses) == {"flow_loss"}
    assert same(before, weights(trainer.model.noise))
    assert (trainer.averages["score"].updates, trainer.averages["flow"].updates) == (0, 1)
    twin = model()
    draws = draw(images(), 17, 8, SEED, 0)
    z, log_det = twin.flow(draws.x, "train", draws.generator)
    ((gaussian_nll(z, 1.0) - log_det).mean() / 64).backward()
    for found, expected in zip(followed(trainer, "flow"), twin.flow.parameters(), strict=True):
        torch.testing.assert_close(found, expected.grad)


def test_phases_last_their_steps_and_a_row_of_the_curve_averages_steps_of_one() -> None:
    trainer = Trainer(model(), Optimisation(objective="nll", **OPTIONS))
    states: dict[int, tuple[list[Tensor], list[Tensor]]] = {0: (weights(trainer.model.noise), [])}

    def keep(history: History) -> None:
        states[history.done] = weights(trainer.model.noise), weights(trainer.model.flow)

    plan = Plan(steps=8, flow_warmup_steps=3, fresh_score_after=5, **PLAN)
    curve = train(trainer, images(), 17, plan, after_step=keep, **LOOP)
    assert list(states) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert same(states[0][0], states[3][0])
    assert not same(states[3][0], states[4][0])
    assert not same(states[1][1], states[2][1])
    assert not same(states[4][1], states[5][1])
    assert same(states[6][1], states[8][1])
    assert [row["step"] for row in curve] == [2, 3, 4, 5, 6, 8]
    losses = [{"flow_loss"}, {"flow_loss", "score_loss"}, {"score_loss"}]
    assert [row.keys() - {"step"} for row in curve] == [each for each in losses for _ in range(2)]


def trained_afresh(objective: str, steps: int, after: int | None) -> tuple[Trainer, dict[int, dict[str, Tensor]]]:
    """Train, and return the weights to evaluate after each step too."""
    trainer, states = Trainer(model(), Optimisation(objective=objective, **OPTIONS)), {}

    def keep(history: History) -> None:
        states[history.done] = {key: value.clone() for key, value in trainer.evaluated().items()}

    plan = Plan(steps=steps, flow_warmup_steps=1, fresh_score_after=after, **PLAN)
    train(trainer, images(), 17, plan, after_step=keep, **LOOP)
    return trainer, states


@pytest.mark.parametrize("objective", ["nll", "fid"])
def test_fresh_score_follows_a_whole_training_and_is_a_ddpmpp_of_its_latents(objective: str) -> None:
    """Until it starts, the bytes are those of a training that ends there; then those of the identity on the flow's latents."""
    trainer, states = trained_afresh(objective, 8, 4)
    _, shorter = trained_afresh(objective, 4, None)
    for step in (1, 4):
        assert all(torch.equal(value, states[step][key]) for key, value in shorter[step].items())
    flow = trainer.model.flow
    assert all(torch.equal(value, shorter[4][f"ema.flow.{key}"]) for key, value in flow.state_dict().items())
    torch.manual_seed(derive_seed(*SEED, "fresh score"))
    spec = trainer.model.spec | {"flow": FLOWS["identity"]}
    twin = Trainer(ImplicitNonlinearDiffusion(spec), Optimisation(objective=objective, **OPTIONS))
    for step in range(4, 8):
        draws = draw(images(), 17, 8, SEED, step)
        twin.step(replace(draws, x=flow(draws.x, "none")[0]), learning_rate(step - 4, 4, 2, "cosine"))
    assert same(weights(trainer.model.noise), weights(twin.model.noise))
    assert same(weights(trainer.averages["score"].module), weights(twin.averages["score"].module))


@pytest.mark.parametrize("flow", ["identity", "resflow"])
def test_scale_of_the_latent_is_that_of_the_data(flow: str) -> None:
    """To the bit for a power of two: the same weights from images x at scale 4 as from images 4x."""
    draws = [draw(images(), 17, 8, SEED, step) for step in range(3)]
    scaled = [replace(d, x=4 * d.x, generator=Generator().manual_seed(0)) for d in draws]
    draws = [replace(d, generator=Generator().manual_seed(0)) for d in draws]
    inside = Trainer(model(flow, scale=4.0, mean=0.0, std=1.0), Optimisation(objective="nll", **OPTIONS))
    outside = Trainer(model(flow), Optimisation(objective="nll", **OPTIONS))
    for first, second in zip(draws, scaled, strict=True):
        losses, others = inside.step(first, 1.0), outside.step(second, 1.0)
        assert losses["score_loss"] == others["score_loss"]
        assert losses["flow_loss"] == pytest.approx(others["flow_loss"] - math.log(4), abs=1e-5)
    assert same(weights(inside.averaged()), weights(outside.averaged()))


def suite_with_a_fixed_filter(model: str) -> tuple[Suite, str]:
    run: dict[str, Any] = {
        "dataset": "digits",
        "sde": "vp",
        "model": model,
        "variant": "fixed-filter",
        "objective": "nll",
    }
    run |= {"seed": 0, "train": {"latent": {"fixed": {"curve": False, "exponent": 0.2}}}, "sample": {}}
    name = f"digits-vp-{model}-fixed-filter-nll-s0"
    content = parse_yaml(FROZEN.read_text()) | {"runs": {name: run}, "protocol": {}, "tune": {}}
    content["train"] |= {"steps": 2, "snapshots": [2], "warmup_steps": 0, "batch_size": 8}
    return Suite.model_validate(content), name


def gains(found: ImplicitNonlinearDiffusion) -> Tensor:
    return found.flow.state_dict()["first.log_gain"]


@pytest.mark.parametrize("family", ["ddpmpp", "indm"])
def test_a_fixed_map_is_fitted_before_the_training_and_does_not_move(family: str) -> None:
    """It is also in the averaged weights, the snapshots and the state of a killed training."""
    suite, run = suite_with_a_fixed_filter(family)
    training = begin_training(suite, run, images(200), {"levels": 17, "shape": [1, 8, 8]}, CPU)
    trainer = training.trainer
    fitted = gains(trainer.model).clone()
    assert not torch.equal(fitted, torch.zeros_like(fitted))
    training.train(history=History(), after_step=lambda _: None, progress=iter)
    for found in (trainer.model, trainer.averaged(), trainer.averaged(raw_flow=True)):
        assert torch.equal(gains(found), fitted)
    for key in ("ema.flow.first.log_gain", "raw.flow.first.log_gain"):
        assert torch.equal(trainer.evaluated()[key], fitted)
    again = begin_training(suite, run, images(200), {"levels": 17, "shape": [1, 8, 8]}, CPU).trainer
    assert torch.equal(gains(again.model), fitted)
    gains(again.model).zero_()
    again.load_state(trainer.state())
    assert torch.equal(gains(again.model), fitted)


def test_operations_agree_with_torchs_counter_and_change_nothing() -> None:
    trainer = Trainer(model("identity"), Optimisation(objective="nll", **OPTIONS))
    before = weights(trainer.model)
    draws = draw(images(), 17, 8, SEED, 0)
    # The fast kernel of attention on a CPU is one that it does not know.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        copy.deepcopy(trainer).step(draws, 0.0)
    assert step_flops(trainer, draws) == counter.get_total_flops() > 0
    assert same(before, weights(trainer.model))
    assert trainer.averages["score"].updates == 0
    assert trainer.optimiser_state() == {}


def test_operations_of_each_kind_of_step() -> None:
    """Flow and score in turn cost more than at once, and the flow alone least."""
    joint, alternating = (
        Trainer(model(), Optimisation(objective=objective, **OPTIONS)) for objective in ("nll", "fid")
    )
    counts = [step_flops(trainer, draw(images(), 17, 8, SEED, 0)) for trainer in (joint, alternating)]
    alone = step_flops(joint, draw(images(), 17, 8, SEED, 0), flow_alone=True)
    assert 0 < alone < counts[0] < counts[1]


def with_terms(terms: int, mean: float, flow: str = "resflow") -> Trainer:
    """A trainer whose flow has so many terms, and a Poisson number of further ones."""
    trainer = Trainer(model(flow, scale=2.0, mean=0.0, std=1.0), Optimisation(objective="nll", **OPTIONS))
    for module in trainer.model.flow.modules():
        if isinstance(module, ResidualFlow):
            module.exact_terms_train, module.roulette_mean = terms, mean
    return trainer


@pytest.mark.parametrize("flow", ["resflow", pytest.param("wolf", marks=pytest.mark.long)])
@pytest.mark.parametrize("mean", [2.0, 1.6])
def test_operations_are_those_expected_of_the_flows_random_number_of_terms(
    flow: str, mean: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the mean over draws; each number that is drawn is counted once."""
    draws = draw(images(), 17, 8, SEED, 0)
    generator = Generator().manual_seed(0)
    numbers = [draw_roulette(mean, generator) for _ in range(4000)]
    counts = {number: step_flops(with_terms(2 + number, 0.0, flow), draws) for number in set(numbers)}
    drawn = torch.tensor([counts[number] for number in numbers], dtype=torch.float64)
    found = step_flops(with_terms(2, mean, flow), draws)
    assert abs(drawn.mean() - found) < 4 * drawn.std() / math.sqrt(len(drawn))
    assert len({counts[number + 1] - counts[number] for number in counts if number + 1 in counts}) == 1
    # What is counted is what a step does when it draws.
    monkeypatch.setattr("indm.flows.sources.draw_roulette", lambda *_: 3)
    trainer = with_terms(2, mean, flow)
    trainer.model.flow.fix_terms = lambda _: None  # type: ignore[method-assign, assignment]
    assert step_flops(trainer, draws) == counts[3]


def test_operations_do_not_depend_on_the_seed() -> None:
    counts = {step_flops(with_terms(2, 2.0), draw(images(), 17, 8, ("digits", seed), seed)) for seed in range(6)}
    assert len(counts) == 1


# A step of the larger networks takes seconds.
FAST = ("digits", "digits-seeds", "digits-ve", "cifar10-maps", "smoke")
SLOW = {"paper-seeds": pytest.mark.nightly}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=[] if path.stem in FAST else SLOW.get(path.stem, pytest.mark.long))
        for path in suite_files(REPOSITORY / "params")
    ],
)
def test_control_of_equal_compute_trains_for_the_flops_of_indm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To within half of a step; and the control of equal parameters has its width."""
    monkeypatch.setattr(controls, "FLOPS", 0.0)
    path = REPOSITORY / f"params/{name}.yaml"
    check_controls(load_suite(path), path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        # One step more than the plain model; 3 % more than INDM's FLOPs; 62 % more than its parameters.
        ("8070, snapshots: [504, 1009, 2018, 4035, 8070]", "3201", "steps: found 3201; allowed: 8070 to "),
        ("{steps: 8003, snapshots", "{steps: 8244, snapshots", "steps: found 8244; allowed: 8003 to "),
        ("{score: {channels: 20}}", "{score: {channels: 24}}", "score: found 169897 parameters; allowed: 104571 "),
    ],
)
def test_control_of_another_size_than_indm_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    for name in ("digits", "digits-seeds"):
        text = (REPOSITORY / f"params/{name}.yaml").read_text()
        (tmp_path / f"{name}.yaml").write_text(text.replace(old, new))
    path = tmp_path / "digits-seeds.yaml"
    with pytest.raises(ParamsError) as caught:
        check_controls(load_suite(path), path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: suite digits-seeds, run digits-vp-ddpmpp-same-")
    assert f", key train.{words}" in line


def test_control_of_equal_compute_trains_longer_where_indm_has_more_images_in_each_step() -> None:
    path = REPOSITORY / "params/digits-seeds.yaml"
    suite = load_suite(path)
    indm = with_trial(suite, "digits-vp-indm-fid-s201", 201, {"batch_size": 2 * suite.train.batch_size})
    doubled = suite.model_copy(update={"runs": suite.runs | indm.runs})
    with pytest.raises(ParamsError, match=r"-same-compute-fid-s201, key train\.steps: found 8003; allowed: 1600\d to "):
        check_controls(doubled, path)


def test_training_repeats_to_the_bit_and_learns() -> None:
    def run() -> tuple[list[dict[str, float]], list[Tensor]]:
        trainer = Trainer(model(), Optimisation(objective="nll", **OPTIONS | {"lr": 4e-3}))
        curve = train(trainer, images(), 17, Plan(steps=30, **PLAN), **LOOP)
        return curve, weights(trainer.averaged())

    (curve, first), (again, second) = run(), run()
    assert same(first, second)
    assert curve == again
    assert [row["step"] for row in curve] == list(range(2, 31, 2))
    assert sum(row["score_loss"] for row in curve[-3:]) < sum(row["score_loss"] for row in curve[:3])


@pytest.mark.parametrize(("factor", "loss"), [(math.nan, "nan"), (1e4, r"\d+")])
def test_a_loss_that_explodes_stops_with_the_step_and_changes_nothing(factor: float, loss: str) -> None:
    """Neither weights nor averages nor moments."""
    trainer = Trainer(model("identity"), Optimisation(objective="nll", **OPTIONS))
    trainer.step(draw(images(), 17, 8, SEED, 0), 1.0)
    with torch.no_grad():
        trainer.model.noise.get_parameter("network.conv_out.bias").fill_(factor)
    before = {key: value.clone() for key, value in trainer.state().items()}
    with pytest.raises(DivergenceError, match=rf"step 0.*{loss}.*flow_lr"):
        train(trainer, images(), 17, Plan(steps=3, **PLAN), **LOOP)
    torch.testing.assert_close(trainer.state(), before, rtol=0, atol=0, equal_nan=True)
