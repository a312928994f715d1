"""The averaged weights of a run, without the rest of its checkpoint, which only further training needs."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indm.errors import ArtifactError, ParamsError
from indm.pipeline.input_check import InputCheck
from indm.pipeline.jobs import Job, job_names
from indm.pipeline.stages import CHECKPOINT
from indm.store.files import CHECKPOINT_FORMAT, FROM_GIT, from_git, read_weights
from indm.store.manifest import damage

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FORMAT = "indm-weights-2"
SIGNATURE = "sha256"
AVERAGED = "ema."
# What is kept of the description of a checkpoint.
KEPT = ("run", "step", "model")


def averaged_weights(checks: InputCheck, run: str) -> bytes:
    """Return the averaged weights of score and flow of a run as safetensors, float32.

    Raises:
        ParamsError: if the suite has no such run.
        ArtifactError: if the checkpoint is missing, or does not belong to the run's results.
    """
    if run not in checks.suite.runs:
        known = checks.suite.runs
        raise ParamsError(f"--weights: found no run {run!r}; runs of {checks.suite.suite}: {', '.join(known)}")
    path, expected = checks.layout.run(run) / "checkpoint.safetensors", trained(checks, run)
    if words := damage(path, expected, checks.manifest(Job("train", run))):
        raise ArtifactError(words)
    # Imported here, because torch is only needed to publish weights.
    from safetensors.torch import save

    tensors, spec = read_weights(path, CHECKPOINT_FORMAT)
    averaged = {
        name.removeprefix(AVERAGED): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if name.startswith(AVERAGED)
    }
    content = {"format": WEIGHTS_FORMAT, "checkpoint_sha256": expected, **{key: spec[key] for key in KEPT}}
    content[SIGNATURE] = signature(averaged, content)
    return save(averaged, metadata={"indm": json.dumps(content)})


def trained(checks: InputCheck, run: str) -> str:
    """Return the SHA-256 of the checkpoint from which a run's results were made; the checkpoint may be missing."""
    job = Job("train", run)
    return checks.trust(job).outputs[CHECKPOINT.format(**job_names(checks.suite, job))]


def is_of(path: Path, checkpoint: str) -> bool:
    """Return whether weights, unchanged since they were published or kept, come from the checkpoint with a SHA-256."""
    return bool(read_published(path)[1]["checkpoint_sha256"] == checkpoint)


def read_published(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Read published weights, and the description that rebuilds their model.

    Raises:
        ArtifactError: if the file is missing, damaged, in another format, or changed since it was published.
    """
    with from_git():
        tensors, spec = read_weights(path, WEIGHTS_FORMAT)
    # Safetensors would read changed numbers silently.
    if (found := signature(tensors, spec)) != spec.get(SIGNATURE):
        raise ArtifactError(
            f"{path}: found SHA-256 {found[:12]} of weights and description, expected {str(spec.get(SIGNATURE))[:12]}: "
            f"changed since it was published; {FROM_GIT}"
        )
    return tensors, spec


def signature(tensors: Mapping[str, "Tensor"], spec: Mapping[str, Any]) -> str:
    """Return the SHA-256 of CPU tensors and of their description without its signature, independent of the file format."""
    import torch

    digest = hashlib.sha256(json.dumps({**spec, SIGNATURE: ""}, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
