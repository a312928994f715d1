"""The averaged weights of a run, without the rest of its checkpoint, which is there to train on from."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indm.errors import ArtifactError, ParamsError
from indm.identity import Identity
from indm.jobs import Job, job_names
from indm.pipeline import CHECKPOINT
from indm.store.files import CHECKPOINT_FORMAT, read_spec, read_weights
from indm.store.manifest import content_sha256

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

WEIGHTS_FORMAT = "indm-weights-1"
AVERAGED = "ema."


def averaged_weights(suite: "Suite", identity: Identity, suite_folder: Path, runs: Iterable[str]) -> dict[str, bytes]:
    """Return the averaged weights of score and flow of runs as safetensors, float32, by the files' names.

    Raises:
        ParamsError: if the suite has no such run.
        ArtifactError: if a checkpoint is not here, or not that of the run's results.
    """
    found = {}
    for run in runs:
        if run not in suite.runs:
            raise ParamsError(f"--weights: found no run {run!r}; runs of {suite.suite}: {', '.join(suite.runs)}")
        path = suite_folder / f"runs/{run}/checkpoint.safetensors"
        expected = trained(suite, identity, run)
        if (sha256 := content_sha256(path)) != expected:
            raise ArtifactError(
                f"{path}: found SHA-256 {sha256[:12]}, expected {expected[:12]}, by which the results were made"
            )
        found[f"weights/{run}.safetensors"] = _averaged(path, sha256)
    return found


def trained(suite: "Suite", identity: Identity, run: str) -> str:
    """Return the SHA-256 of the checkpoint by which a run's results were made; it need not be here."""
    job = Job("train", run)
    return identity.trust(job).outputs[CHECKPOINT.format(**job_names(suite, job))]


def weights_of(path: Path) -> str:
    """Return the SHA-256 of the checkpoint that published weights were taken from."""
    return str(read_spec(path, WEIGHTS_FORMAT)["checkpoint_sha256"])


def _averaged(path: Path, sha256: str) -> bytes:
    # Imported here: whoever publishes no weights does not pay for torch.
    from safetensors.torch import save

    tensors, spec = read_weights(path, CHECKPOINT_FORMAT)
    averaged = {
        name.removeprefix(AVERAGED): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if name.startswith(AVERAGED)
    }
    kept: dict[str, Any] = {key: spec[key] for key in ("run", "step", "model")}
    content = {"format": WEIGHTS_FORMAT, "checkpoint_sha256": sha256, **kept}
    return save(averaged, metadata={"indm": json.dumps(content)})
