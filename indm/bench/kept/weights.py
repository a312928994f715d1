"""The averaged weights of a run, without the rest of its checkpoint, which only further training needs."""

import json
from pathlib import Path

from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job, job_names
from indm.bench.pipeline.stages import CHECKPOINT
from indm.errors import ArtifactError, ParamsError
from indm.store.files import CHECKPOINT_FORMAT, read_weights
from indm.store.manifest import damage
from indm.store.weights import SIGNATURE, WEIGHTS_FORMAT, read_published, signature

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
