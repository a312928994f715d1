"""Published weights: averaged weights of a run, with the description that rebuilds their model, and a signature of both."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indm.errors import ArtifactError
from indm.store.files import FROM_GIT, from_git, read_weights

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FORMAT = "indm-weights-2"
SIGNATURE = "sha256"


def read_published(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Read published weights, of the shapes of their modules, and the description that rebuilds their model.

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
    """Return the SHA-256 of CPU tensors of any shape and of their description without its signature, in any file format."""
    import torch

    digest = hashlib.sha256(json.dumps({**spec, SIGNATURE: ""}, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
