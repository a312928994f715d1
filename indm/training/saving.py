"""The files of a training: the state from which it continues if it is killed, and its results at the end."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from indm.errors import DivergenceError, StoppedError
from indm.process import precision_used
from indm.progress import say
from indm.store.files import CHECKPOINT_FORMAT, SNAPSHOTS_FORMAT, write_json, write_table, write_weights
from indm.store.scratch import Scratch, Work, open_scratch
from indm.training.distributed import first, wait_for_all
from indm.training.loop import History
from indm.training.trainer import Trainer


class Saver:
    """Saves the state of a running training, from which it continues if it is killed.

    Arguments:
        scratch: the folder in which the state is saved.
        trainer: the trainer whose state is saved.
        steps: the steps after which the weights to evaluate are saved.
        seconds: time between two savings of the state.
        stopping: returns whether any process has been asked to stop.
    """

    def __init__(
        self, scratch: Scratch, trainer: Trainer, steps: list[int], seconds: float, stopping: Callable[[], bool]
    ) -> None:
        self.scratch, self.trainer, self.steps = scratch, trainer, steps
        self.seconds, self.stopping = seconds, stopping
        self.saved, self.saved_at = 0, time.monotonic()
        # Read by the commands that watch a training.
        self._noted: dict[str, float] = {}

    def restore(self) -> History:
        """Load the last saved state into the trainer, if there is one, and return its history."""
        found = self.scratch.load("state")
        if found is None or not self._due(found[1]["history"]["done"]) <= self.snapshots().keys():
            # Without a state, the work that led to the snapshots is done again.
            self.scratch.earlier = 0.0
            return History()
        tensors, spec = found
        self.trainer.load_state(tensors)
        self.saved, self.scratch.earlier = spec["history"]["done"], spec["seconds"]
        self._noted = {"saved": self.saved, "saved_at": int(self.scratch.path("state").stat().st_mtime)}
        if first():
            say(f"continues after step {self.saved}, from {self.scratch.path('state')}")
        return History(**spec["history"])

    def _due(self, done: int) -> set[int]:
        """Return the steps up to ``done`` whose snapshots must exist."""
        return {step for step in self.steps if step <= done}

    def __call__(self, history: History) -> None:
        """Save the snapshot and the state if they are due after a step.

        Raises:
            StoppedError: if the process has been asked to stop; the state has been saved then.
        """
        if history.done in self.steps and first():
            self.scratch.save(f"snapshot-{history.done}", self.trainer.evaluated())
        stopping = self.stopping()
        if first() and (stopping or time.monotonic() - self.saved_at >= self.seconds):
            self.scratch.save("state", self.trainer.state(), {"history": asdict(history)})
            self.saved, self.saved_at = history.done, time.monotonic()
            # Saving has just waited for the device.
            self._noted = self.trainer.flow_bounds() | {"saved": self.saved, "saved_at": int(time.time())}
        if stopping:
            raise StoppedError(f"stopped by SIGTERM; {self.what_is_saved()}; run it again to continue")

    def noted(self) -> dict[str, float]:
        """Return the numbers of the last step and of the last saved state, for commands that watch a training."""
        return self.trainer.noted | self._noted

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Add the saved state to the error message if a training diverges in the block."""
        try:
            yield
        except DivergenceError as error:
            raise DivergenceError(f"{error}; {self.what_is_saved()}") from None

    def what_is_saved(self) -> str:
        """Describe the saved state for an error message."""
        if not self.saved:
            return "no state had been saved"
        return f"the state after step {self.saved} is saved in {self.scratch.path('state')}"

    def snapshots(self) -> dict[int, dict[str, Tensor]]:
        """Read the snapshots that have been saved, by step.

        Returns:
            The tensors of :meth:`~indm.training.trainer.Trainer.evaluated` by their names, each in the shape of the model's
            parameter or buffer.
        """
        return {step: found[0] for step in self.steps if (found := self.scratch.load(f"snapshot-{step}"))}


@contextmanager
def shared_scratch(work: Work, device: torch.device) -> Iterator[Scratch]:
    """Open the scratch of a training; the first process locks, cleans, writes and removes it, and the others only read."""
    if first():
        with open_scratch(work) as scratch:
            wait_for_all(device)
            yield scratch
    else:
        wait_for_all(device)
        yield Scratch(work.folder, work.key)


def write_snapshots(folder: Path, snapshots: Mapping[int, Mapping[str, Tensor]], spec: Mapping[str, Any]) -> None:
    """Write ``snapshots.safetensors``, the weights to evaluate by step, with the model's specification.

    Arguments:
        snapshots: by step, the tensors of :meth:`~indm.training.trainer.Trainer.evaluated`, each in the shape of the model's
            parameter or buffer.
        spec: the specification.
    """
    weights = {f"{step}.{key}": value for step, state in snapshots.items() for key, value in state.items()}
    write_weights(folder / "snapshots.safetensors", weights, {**spec, "steps": list(snapshots)}, SNAPSHOTS_FORMAT)


def write_training(
    folder: Path,
    trainer: Trainer,
    curve: list[dict[str, float]],
    origin: dict[str, Any],
    counts: dict[str, int | None],
) -> None:
    """Write the trained weights with the model's specification, the losses and a summary.

    Raises:
        DivergenceError: if a weight is not finite after the last step; in this case no file is written.
    """
    model = trainer.averaged()
    weights = {f"raw.{key}": value for key, value in trainer.model.state_dict().items()}
    weights |= {f"ema.{key}": value for key, value in model.state_dict().items()}
    weights |= {f"optimiser.{key}": value for key, value in trainer.optimiser_state().items()}
    if wrong := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise DivergenceError(
            f"after step {origin['step']}: {len(wrong)} weights are not finite, among them {wrong[0]}, expected finite ones; "
            "lower lr, flow_lr or weight_decay"
        )
    spec = origin | {"model": trainer.model.spec}
    write_weights(folder / "checkpoint.safetensors", weights, spec, CHECKPOINT_FORMAT)
    # Steps that train only one of the networks lack the other network's loss.
    columns = dict.fromkeys(key for row in reversed(curve) for key in row)
    write_table(folder / "train.csv", pd.DataFrame(curve, columns=list(columns)))
    result = {
        "run": origin["run"],
        "steps": origin["step"],
        "precision": precision_used(trainer.optimisation.precision, next(trainer.model.parameters()).device),
        "score_parameters": sum(p.numel() for p in model.noise.parameters()),
        "flow_parameters": sum(p.numel() for p in model.flow.parameters()),
        **counts,
        "final": {key: value for key, value in curve[-1].items() if key != "step"},
    }
    write_json(folder / "train.json", result)
