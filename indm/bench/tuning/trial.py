"""A trial: a training with its own hyper-parameters, measured on the validation split."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from indm.bench.models.begin import begin_training
from indm.bench.trials import with_trial
from indm.diffusion.evaluation import Evaluation, bounds
from indm.diffusion.generate import draw_levels, prior_mean
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.errors import ConvergenceError, DivergenceError
from indm.metrics.features import features
from indm.metrics.frechet import Reference, bootstrap_fid, frechet
from indm.metrics.references import load_extractors
from indm.seeding import derive_seed
from indm.store.scratch import Scratch
from indm.training.loop import History
from indm.training.saving import Saver
from indm.training.trainer import Trainer

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

Progress = Callable[[range], Iterable[int]]
# The measurements of a trial, each with its standard error over images: bounds in bits/dim, and FID, which has no unit.
NUMBERS = ("target", "train_nelbo", "valid_nelbo", "valid_nelbo_raw_flow")
MEASURED = tuple(f"{number}{suffix}" for number in NUMBERS for suffix in ("", "_se"))


@dataclass(frozen=True)
class Arm:
    """A model whose hyper-parameters are searched, with everything that its trials share.

    Arguments:
        name: the run whose hyper-parameters are searched.
        seed: dataset and seed of all trials; their random numbers do not depend on the model.
        description: content of ``dataset.json``.
        train: training images as levels 0 … L - 1, uint8, shape (N, C, H, W), on the CPU.
        valid: validation images for the bounds, and for the ``fid`` objective the reference of FID, uint8, shape (M, C, H, W).
    """

    suite: "Suite"
    name: str
    seed: tuple[str, int]
    data: Path
    description: Mapping[str, Any]
    train: Tensor
    valid: Tensor
    device: torch.device

    def run(
        self, parameters: Mapping[str, float], steps: int, scratch: Scratch, stop: Event, progress: Progress
    ) -> dict[str, Any]:
        """Train with some hyper-parameters, continuing unfinished work, and measure.

        Arguments:
            scratch: the saved state from which a killed training continues.
            stop: set when the process is asked to stop.

        Returns:
            ``MEASURED``, absent if it failed or does not apply; ``reason``, empty unless it failed; ``flops`` of its
            training, up to a failure; ``seconds``, including those before a kill.

        Raises:
            StoppedError: if the process was asked to stop, after the state has been saved.
        """
        started, history = time.monotonic(), History()
        suite = with_trial(self.suite, self.name, self.seed[1], {**parameters, "steps": steps, "snapshots": []})
        training = begin_training(suite, self.name, self.train, self.description, self.device)
        saver = Saver(scratch, training.trainer, [], suite.save_seconds, stop.is_set)
        found, reason = dict.fromkeys(MEASURED), ""
        try:
            history = saver.restore()
            training.train(history=history, after_step=saver, progress=progress)
            found |= self.measure(training.trainer)
        except (ConvergenceError, DivergenceError, torch.linalg.LinAlgError) as error:
            # LinAlgError: the norm of weights that are not finite.
            reason = str(error).partition("\n")[0]
        seconds = scratch.earlier + time.monotonic() - started
        return found | {"reason": reason, "flops": training.cumulative_flops(history.done), "seconds": seconds}

    def measure(self, trainer: Trainer) -> dict[str, float | None]:
        """Measure a trained model: bounds on training and validation images, and, for the ``fid`` objective, FID.

        All trials with the same seed meet the same dequantisation and noise, whatever their model.

        Returns:
            The names in ``MEASURED`` that apply: bounds in bits/dim, means over images; ``target``, to be minimised, is FID,
            which has no unit, for the ``fid`` objective, and otherwise the bound on the validation images for the weights that
            the suite evaluates.

        Raises:
            DivergenceError: if FID is not finite.
            ConvergenceError: if the flow cannot be inverted at a sampled latent, or its log-determinant does not converge.
        """
        averaged = trainer.averaged().to(self.device)
        evaluated, found = averaged, {"valid_nelbo": self._bound(averaged, self.valid)}
        if "flow" in trainer.networks:
            raw = trainer.averaged(raw_flow=True).to(self.device)
            found["valid_nelbo_raw_flow"] = self._bound(raw, self.valid)
            evaluated = raw if self.suite.weights.flow == "raw" else averaged
        # Equally many images from both splits, so that their errors are comparable.
        found["train_nelbo"] = self._bound(evaluated, self.train[: len(self.valid)])
        if self.suite.runs[self.name].objective == "fid":
            found["target"] = self._fid(evaluated)
        else:
            found["target"] = found["valid_nelbo" if evaluated is averaged else "valid_nelbo_raw_flow"]
        return {
            name: value for key, pair in found.items() for name, value in zip((key, f"{key}_se"), pair, strict=True)
        }

    def _bound(self, model: ImplicitNonlinearDiffusion, images: Tensor) -> tuple[float, float]:
        """Return the mean NELBO of images, in bits/dim, and its standard error."""
        evaluation = Evaluation(**self.suite.curve.model_dump(exclude={"images", "log_det"}), uncorrected=False)
        settings: dict[str, Any] = {"seed": self.seed, "device": self.device, "training": lambda: self.train}
        values = bounds(model, images, self.description["levels"], evaluation, **settings)
        return values.mean().item(), (values.std() / math.sqrt(len(values))).item()

    def _fid(self, model: ImplicitNonlinearDiffusion) -> tuple[float, float]:
        """Return the FID of images, sampled as in the run, against the validation images, and its bootstrap error."""
        settings, seed = self.suite.sample_params(self.name).model_dump(), (*self.seed, "tune")
        centre = {"centre_prior": settings.pop("centre_prior"), "batch_size": settings["batch_size"]}
        mean = prior_mean(model, self.data, self.device, **centre)
        levels = self.description["levels"]
        images, _ = draw_levels(model, levels, seed=seed, device=self.device, mean=mean, progress=iter, **settings)
        extractor, _, _ = load_extractors(self.data / "extractor.safetensors")
        generated, real = (
            features(extractor, found, levels, device=self.device)[0] for found in (images, self.valid.numpy())
        )
        reference = Reference.of(real)
        value, _ = frechet(generated, reference)
        if not math.isfinite(value):
            raise DivergenceError("FID is not finite: lower lr or flow_lr")
        rng = np.random.default_rng(derive_seed(*seed, "bootstrap"))
        return value, bootstrap_fid(generated, reference, self.suite.fid.bootstrap, rng)


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combine the trainings of a trial with several seeds, each as of :meth:`Arm.run`: it fails if one of them failed.

    Returns:
        Means over seeds, and standard errors over images as their root mean square; the first reason; sums of costs.
    """
    found: dict[str, Any] = {"reason": next((row["reason"] for row in rows if row["reason"]), "")}
    for key in MEASURED if not found["reason"] else ():
        values = [row[key] for row in rows if row[key] is not None]
        power = 2 if key.endswith("_se") else 1
        found[key] = (sum(value**power for value in values) / len(values)) ** (1 / power) if values else None
    return dict.fromkeys(MEASURED) | found | {key: sum(row[key] for row in rows) for key in ("flops", "seconds")}
