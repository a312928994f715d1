"""Reading of the released code's files, without executing any content, and copying by name into this package's modules."""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from indm.errors import ArtifactError

CHECKPOINT_KEYS = ("model", "ema", "step")
# Released entries without an averaged weight, because they are not trained, by the last part of their names.
NOT_AVERAGED = {
    "sigmas",
    "last_n_samples",
    "last_firmom",
    "last_secmom",
    "scale",
    "running_mean",
    "running_var",
    "num_batches_tracked",
    "weight_inv",
    "initialized",
}
# The fixed Fourier frequencies, a parameter without gradient.
FOURIER = "all_modules.0.W"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a released ``checkpoint_k.pth`` or ``flow_checkpoint_k.pth`` without executing any content.

    Arguments:
        path: a file from score_sde_pytorch or from the released INDM code.

    Returns:
        Its content: ``model`` (a state dict), ``ema`` (with ``shadow_params``), ``step`` (a number), and further keys.

    Raises:
        ArtifactError: if the file is missing, truncated, holds more than tensors and plain values, or lacks a key.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; expected a released checkpoint, so name an existing file")
    try:
        _check_sizes(path)
        with warnings.catch_warnings(action="ignore"):  # torch warns about a damaged file before it refuses it.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A hostile or damaged pickle can make the unpickler raise anything.
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ArtifactError(
            f"{path}: found a file that was refused without executing it ({reason}), expected a released checkpoint; "
            "take the released file"
        ) from None
    if not isinstance(content, dict) or any(key not in content for key in CHECKPOINT_KEYS):
        found = sorted(map(str, content))[:9] if isinstance(content, dict) else type(content).__name__
        raise ArtifactError(
            f"{path}: found {found}, expected the keys {', '.join(CHECKPOINT_KEYS)}; take the released file"
        )
    step, model = _number(content["step"]), content["model"]
    named = isinstance(model, Mapping) and all(isinstance(name, str) and name.isprintable() for name in model)
    if not _is_count(step) or not (named and _holds_tensors([*model.values()])):
        raise ArtifactError(
            f"{path}: found step {step!r:.80} and a model of {type(model).__name__}, "
            "expected a number of at least 0 and tensors of real numbers by their names; take the released file"
        )
    return content | {"step": step}


def _check_sizes(path: Path) -> None:
    """Refuse a file that would expand in memory, because torch does not compress its files."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > path.stat().st_size:
            raise ValueError(f"it expands to {size:,} bytes, expected an uncompressed file")


def _number(value: object) -> object:
    """Return the number in a tensor with one entry, a plain value as it is, and a description of any other value."""
    if not _is_plain(value):
        return value if isinstance(value, int | float | str | None) else type(value).__name__
    return value.item() if value.numel() == 1 else f"{value.numel()} numbers"


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_plain(value: object) -> TypeGuard[Tensor]:
    """Return whether a value is a dense tensor of real numbers in memory."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex())
    )


def _holds_tensors(values: object) -> TypeGuard[list[Tensor]]:
    return isinstance(values, list) and all(map(_is_plain, values))


def check_moment(score: Mapping[str, Any], flow: Mapping[str, Any], files: tuple[Path, Path]) -> None:
    """Check that a score network and a flow were saved together, which means that their averages have equal update counts.

    The score's step may be larger, because the released code can add a flow to a network that is already trained: it then
    continues to count the network's steps, but restarts its average.

    Arguments:
        score: content of the score's file from :func:`read_checkpoint`, checked by :func:`averaged_state`.
        flow: content of the flow's file from :func:`read_checkpoint`.
        files: the two files, named in error messages.

    Raises:
        ArtifactError: if the files were saved at different moments of a training.
    """
    found = [(content["step"], _number(content["ema"].get("num_updates"))) for content in (score, flow)]
    if found[0][1] != found[1][1] or found[0][0] < found[1][0]:
        words = "; ".join(
            f"{file}: found step {step}, {updates} updates of its averages"
            for file, (step, updates) in zip(files, found, strict=True)
        )
        raise ArtifactError(
            f"{words}; expected two files that were saved together; take two with the same number k in _k.pth"
        )


def averaged_state(checkpoint: Mapping[str, Any], what: str) -> dict[str, Tensor]:
    """Replace a checkpoint's trained parameters by its averaged weights, which are a list without names.

    Arguments:
        checkpoint: content from :func:`read_checkpoint`.
        what: the file, named in error messages.

    Returns:
        A state dict in the released layout; each averaged weight has the shape of its parameter.

    Raises:
        ArtifactError: if the list does not match the parameters in number and shapes.
    """
    state = dict(checkpoint["model"])
    shadow = checkpoint["ema"].get("shadow_params") if isinstance(checkpoint["ema"], Mapping) else None
    if not _holds_tensors(shadow):
        raise ArtifactError(f"{what}: ema holds no shadow_params, expected the list of averaged weights")
    fixed = {FOURIER, f"module.{FOURIER}"}
    names = [name for name in state if name.rpartition(".")[2] not in NOT_AVERAGED and name not in fixed]
    if len(names) != len(shadow):
        raise ArtifactError(
            f"{what}: found {len(shadow)} averaged weights, expected {len(names)}, one for each parameter"
        )
    for name, value in zip(names, shadow, strict=True):
        if value.shape != state[name].shape:
            found, expected = tuple(value.shape), tuple(state[name].shape)
            raise ArtifactError(f"{what}: the averaged weight of {name} is {found}, expected {expected}")
        state[name] = value
    return state


def copy_entries(entries: dict[str, Tensor], found: Mapping[str, Tensor], ignored: set[str], what: str) -> None:
    """Copy every found value into the entry with its name.

    Arguments:
        entries: views of a module's weights by their released names, changed in place, in the shapes of the released tensors.
        found: tensors by their released names; each must have the shape of its entry, and its kind of dtype.
        ignored: names that may be found without an entry.
        what: the file, named in error messages.

    Raises:
        ArtifactError: if a name, a shape or a dtype differs; the message lists all differences, and no value is copied.
    """
    differences = [f"missing {name}, expected {tuple(entries[name].shape)}" for name in entries if name not in found]
    for name, value in found.items():
        if name in entries and value.shape != entries[name].shape:
            differences.append(f"{name} is {tuple(value.shape)}, expected {tuple(entries[name].shape)}")
        elif name in entries and not _same_kind(value, entries[name]):
            differences.append(f"{name} is {value.dtype}, expected {entries[name].dtype}")
        elif name not in entries and name not in ignored:
            differences.append(f"unknown {name}, found {tuple(value.shape)}")
    if differences:
        raise ArtifactError(f"{what} does not fit its configuration: " + "; ".join(differences))
    for name, entry in entries.items():
        entry.copy_(found[name])


def _same_kind(value: Tensor, entry: Tensor) -> bool:
    """Return whether a value has the kind of an entry: floating point in any precision, or the same integer type."""
    return value.dtype == entry.dtype or (value.is_floating_point() and entry.is_floating_point())
