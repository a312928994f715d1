"""Whether models of registered parts that do not come with this package can be built, checked before the first job.

The parts that come with it are built by its tests from every suite, so that a validation need not import torch for them.
"""

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from indm.bench.suite.variants import cells
from indm.errors import ParamsError
from indm.fields import IDENTITY
from indm.process import set_environment
from indm.registry import DATASETS

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

# The parts that come with this package, by the key that names them.
TESTED = {
    "model": {"ddpmpp", "diffenc", "indm", "mulan"},
    "sde": {"ve", "vp"},
    "train.score.name": {"unet"},
    "train.flow.name": {"affine", "curve", "filter", IDENTITY, "linear", "resflow", "scale", "wolf"},
}


def check_models(suite: "Suite", path: Path) -> None:
    """Build a model of each cell that has a part of someone's own, first on the meta device, where it takes no memory.

    Raises:
        ParamsError: one line for each cell whose model cannot be built.
    """
    mistakes = []
    for name in cells(suite).values():
        own = _own_parts(suite, name)
        if own and (error := _failure(suite, name)):
            key, part = next(iter(own.items()))
            mistakes.append(
                f"{path}: suite {suite.suite}, run {name}, key {key}: found {part!r}, whose model cannot be built ({error}); "
                "allowed: a part that can, see docs/extending"
            )
    if mistakes:
        raise ParamsError("\n".join(mistakes))


def _own_parts(suite: "Suite", name: str) -> dict[str, str]:
    """Return the parts of a run's model that do not come with this package, by the key that names them."""
    run, train = suite.runs[name], suite.train_params(name)
    parts = {"model": run.model, "sde": run.sde, "train.score.name": train.score.name}
    if run.has_flow:
        parts["train.flow.name"] = train.flow.name
    return {key: part for key, part in parts.items() if part not in TESTED[key]}


def _failure(suite: "Suite", name: str) -> str:
    """Build the model of a run; return the error and its place, or an empty text if there is none."""
    # Imported here, because only suites with parts of someone's own need torch, and threads are limited before it is imported.
    set_environment(suite.threads)
    import torch

    from indm.bench.models.spec import model_spec
    from indm.diffusion.model import build_model

    spec = model_spec(suite, name, list(DATASETS[suite.runs[name].dataset].shape))
    found = ""
    # A part may compute with its weights as it is built, which the meta device does not allow. It is someone's own code,
    # which may raise anything.
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                build_model(spec)
        except Exception as error:
            found = _described(error)
        else:
            return ""
    return found


def _described(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    words = " ".join(str(error).split())
    return f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}: {words}"
