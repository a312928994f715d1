"""The averaged weights of a run, without the rest of its checkpoint, which is there to train on from."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indm.errors import ArtifactError, ParamsError
from indm.pipeline.identity import Identity
from indm.pipeline.jobs import Job, job_names
from indm.pipeline.stages import CHECKPOINT
from indm.store.files import CHECKPOINT_FORMAT, FROM_GIT, from_git, read_weights
from indm.store.manifest import damage

if TYPE_CHECKING:
    from torch import Tensor

    from indm.suite.schema.suite import Suite

WEIGHTS_FORMAT = "indm-weights-2"
SIGNATURE = "sha256"
AVERAGED = "ema."


def averaged_weights(suite: "Suite", identity: Identity, suite_folder: Path, run: str) -> bytes:
    """Return the averaged weights of score and flow of a run as safetensors, float32.

    Raises:
        ParamsError: if the suite has no such run.
        ArtifactError: if the checkpoint is not here, or not that of the run's results.
    """
    if run not in suite.runs:
        raise ParamsError(f"--weights: found no run {run!r}; runs of {suite.suite}: {', '.join(suite.runs)}")
    path = suite_folder / f"runs/{run}/checkpoint.safetensors"
    expected = trained(suite, identity, run)
    if words := damage(path, expected, identity.manifest(Job("train", run))):
        raise ArtifactError(words)
    return _averaged(path, expected)


def trained(suite: "Suite", identity: Identity, run: str) -> str:
    """Return the SHA-256 of the checkpoint by which a run's results were made; it need not be here."""
    job = Job("train", run)
    return identity.trust(job).outputs[CHECKPOINT.format(**job_names(suite, job))]


def is_of(path: Path, checkpoint: str) -> bool:
    """Tell whether weights, unchanged since they were published or kept, are of the checkpoint of a SHA-256."""
    return bool(read_published(path)[1]["checkpoint_sha256"] == checkpoint)


def read_published(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Read published weights, and the description that rebuilds their model.

    Raises:
        ArtifactError: if the file is missing, damaged, of another format, or not what was published.
    """
    with from_git():
        tensors, spec = read_weights(path, WEIGHTS_FORMAT)
    # Safetensors alone would read changed numbers without a word.
    if (found := signature(tensors, spec)) != spec.get(SIGNATURE):
        raise ArtifactError(
            f"{path}: found SHA-256 {found[:12]} of weights and description, expected {str(spec.get(SIGNATURE))[:12]}: "
            f"changed since it was published; {FROM_GIT}"
        )
    return tensors, spec


def signature(tensors: Mapping[str, "Tensor"], spec: Mapping[str, Any]) -> str:
    """Return the SHA-256 of tensors on the CPU and of their description without its signature: however they are stored."""
    import torch

    digest = hashlib.sha256(json.dumps({**spec, SIGNATURE: ""}, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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
    content[SIGNATURE] = signature(averaged, content)
    return save(averaged, metadata={"indm": json.dumps(content)})
