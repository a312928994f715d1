"""What the stages that draw images share."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from indm.artifacts import read_json
from indm.diffusion import ImplicitNonlinearDiffusion
from indm.sampling import mean_latent
from indm.stages.common import read_split

if TYPE_CHECKING:
    from indm.params import SampleParams


def prior_mean(
    model: ImplicitNonlinearDiffusion, parameters: "SampleParams", data: Path, device: torch.device
) -> Tensor | None:
    """Compute the centre (C, H, W) of the prior from the prepared dataset in ``data``, where the parameters ask for one."""
    if not parameters.centre_prior:
        return None
    levels = read_json(data / "dataset.json")["levels"]
    return mean_latent(model, read_split(data, "train"), levels, parameters.batch_size, device)
