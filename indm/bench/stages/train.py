r"""Stage ``train``: one model, with raw and averaged weights in one checkpoint, and snapshots of the weights to evaluate.

With the ``nll`` objective, a step lowers the mean NELBO per dimension over a batch (:mod:`indm.training.losses`,
:mod:`indm.diffusion.objectives`),

.. math::
    \frac1D\Big(-\log p_T(z_T) + \tfrac Z2\,\|\epsilon_\theta(z_t, t) - \epsilon\|^2
    - \log\Big|\det\frac{\partial h_\phi}{\partial x}\Big|\Big) + \text{const},
    \qquad z_0 = h_\phi(x),\quad z_t = \alpha_t z_0 + \sigma_t\epsilon,

over the score network's weights :math:`\theta` and the flow's :math:`\phi`. With several processes (the suite's key), each
computes its part of every batch, and only the first one writes.
"""

import os
from dataclasses import replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import torch

from indm.arrays import read_array
from indm.bench.models.begin import PHASES, Training, begin_training
from indm.errors import ParamsError
from indm.process import precision_used, set_up, sigterm_noted, started_processes
from indm.progress import bar, say
from indm.store.files import read_json
from indm.store.layout import Layout
from indm.store.provenance import Finished, this_process
from indm.store.scratch import Work
from indm.training.distributed import any_process, first, group, launch
from indm.training.saving import Saver, shared_scratch, write_snapshots, write_training

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout, name: str, *, work: Work) -> Finished:
    """Write ``checkpoint.safetensors``, ``snapshots.safetensors``, ``train.csv`` (the losses) and ``train.json``.

    Raises:
        NoGpuError: if there are fewer GPUs than processes.
        ParamsError: if ``torchrun`` started a number of processes that differs from the suite's, or set only some of its
            environment variables.
    """
    if (started := started_processes()) > 1:
        if started != suite.processes:
            raise ParamsError(
                f"found {started} processes, expected {suite.processes} from the suite's key processes; make the two agree"
            )
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        with group(set_up(suite.device, suite.threads, here)) as device:
            return _train(suite, layout, name, device, work)
    device = set_up(suite.device, suite.threads, suite.processes)
    if suite.processes == 1:
        return _train(suite, layout, name, device, work)
    # The classes of a run's overrides are made at import, so that the suite cannot be pickled.
    content = suite.model_dump(exclude_unset=True)
    finished: Finished = launch(suite.processes, _join, type(suite), content, layout, name, work)
    return finished


def _join(kind: type["Suite"], content: dict[str, Any], layout: Layout, name: str, work: Work) -> Finished:
    """Train as one of several processes."""
    suite = kind.model_validate(content)
    with group(set_up(suite.device, suite.threads, suite.processes)) as device:
        # Set by the processes that train, because the process that waits for them has neither a device nor a model.
        return replace(_train(suite, layout, name, device, work), computed_on=this_process())


def _train(suite: "Suite", layout: Layout, name: str, device: torch.device, work: Work) -> Finished:
    """Train in this process, as the only one or as one of several."""
    run, parameters = suite.runs[name], suite.train_params(name)
    description = read_json(layout.data(run.dataset) / "dataset.json")
    images = torch.from_numpy(read_array(layout.data(run.dataset) / "train.npy"))
    training = begin_training(suite, name, images, description, device)
    with shared_scratch(work, device) as scratch, sigterm_noted() as stop:
        # All processes stop after the same step.
        asked = partial(_asked_to_stop, stop, device)
        saver = Saver(scratch, training.trainer, parameters.snapshots, suite.save_seconds, stopping=asked)
        history, progress = saver.restore(), bar(name, saver.noted) if first() else iter
        if first():
            _say_precision(parameters.precision, device)
        with saver.explaining():
            curve = training.train(history=history, after_step=saver, progress=progress)
        if first():
            _write(suite, layout, name, training, curve, saver)
    return Finished(layout.run(name), scratch.earlier)


def _say_precision(asked: str, device: torch.device) -> None:
    """Report if the device computes in another precision than the suite asks for."""
    if (used := precision_used(asked, device)) != asked:
        say(f"precision {asked}: computed in {used}, as this device has no {asked}")


def _asked_to_stop(stop: Event, device: torch.device) -> bool:
    return any_process(stop.is_set(), device)


def _write(
    suite: "Suite", layout: Layout, name: str, training: Training, curve: list[dict[str, float]], saver: Saver
) -> None:
    """Write the results of a training."""
    run, parameters, folder = suite.runs[name], suite.train_params(name), layout.run(name)
    identity = {"run": name, "dataset": run.dataset, "seed": run.seed}
    phases = training.phases
    counts = {f"{phase}_flops_per_step": phases[phase][1] if phase in phases else None for phase in PHASES}
    write_training(folder, training.trainer, curve, identity | {"step": parameters.steps}, counts)
    flops = [training.cumulative_flops(step) for step in parameters.snapshots]
    write_snapshots(folder, saver.snapshots(), identity | {"flops": flops, "model": training.trainer.model.spec})
