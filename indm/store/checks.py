"""Whether arrays that were read hold numbers to compute with."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from indm.errors import ArtifactError
from indm.store.files import AGAIN

if TYPE_CHECKING:
    from torch import Tensor


def check_finite(path: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Check that all numbers of tensors are finite.

    Arguments:
        path: where they come from, for the message.
        tensors: by name; those of whole numbers always pass.

    Raises:
        ArtifactError: if one is not; the message names the tensor.
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise ArtifactError(f"{path}: {name}: found {count} numbers that are not finite, expected none; {AGAIN}")
