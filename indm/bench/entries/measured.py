"""A trained model where its bound is measured: what its map and its forward process returned there, and whether it is right."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pandas as pd
import torch

from indm.bench.entries.tasks import Task
from indm.diffusion.checks.measured import Notes, check_noted
from indm.diffusion.contract import check_trained
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.path import ForwardPath, LinearPath
from indm.errors import ArtifactError
from indm.flows.contract import Call, check_calls


class AsMeasured(ImplicitNonlinearDiffusion):
    """A trained model as it is measured: its map and forward process, and the track's score network with the trained weights.

    A network of the entry could be told the image.

    Arguments:
        spec: the specification of DDPM++ on the track.
        trained: the trained model.
    """

    def __init__(self, spec: Mapping[str, Any], trained: ImplicitNonlinearDiffusion) -> None:
        super().__init__(spec)
        self.noise.load_state_dict(trained.noise.state_dict())
        self.flow = trained.flow
        path = trained.path
        self._path = None if type(path) is LinearPath else path
        self.eval().requires_grad_(False)

    @property
    def path(self) -> ForwardPath:
        """The forward process of the latent."""
        return super().path if self._path is None else self._path


def measure(trained: ImplicitNonlinearDiffusion, spec: Mapping[str, Any], task: Task, seed: int) -> pd.DataFrame:
    """Measure a trained model, and check its map and its forward process where it was measured.

    Arguments:
        trained: the model.
        spec: the specification of DDPM++ on the track.
        task: on what it is measured.
        seed: the seed of its training.

    Returns:
        A table with the columns :data:`indm.bench.entries.tasks.MEASURED`.

    Raises:
        ArtifactError: if they break the contract.
    """
    with torch.random.fork_rng():
        model = AsMeasured(spec, trained)
    exact = deepcopy(trained).double().eval()
    broken = check_trained(trained)
    calls = list[Call]()

    def keep(flow: Any, given: tuple[Any, ...], named: dict[str, Any], returned: tuple[Any, Any]) -> None:
        method = named["log_det"] if "log_det" in named else given[1]
        if method != "none":
            z, log_det = returned
            calls.append(Call(given[0].clone(), z.clone(), log_det.clone(), method))

    notes = None if type(model.path) is LinearPath else Notes(model.path, model.eps)
    with model.flow.register_forward_hook(keep, with_kwargs=True):
        table = task.measure(model, seed)
    if not calls:
        raise ArtifactError("found no call of its map while its bound was measured, expected one for each batch")
    broken += check_calls(exact.flow, calls)
    if notes is not None:
        broken += check_noted(exact.path, model.eps, notes)
    if broken:
        raise ArtifactError(f"after its training, it breaks the contract: {broken[0]}")
    return table
