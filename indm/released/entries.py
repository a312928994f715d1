"""Entries of a released checkpoint, copied by name into this package's modules."""

from collections.abc import Mapping

from torch import Tensor

from indm.errors import ArtifactError


def copy_entries(entries: dict[str, Tensor], found: Mapping[str, Tensor], ignored: set[str], what: str) -> None:
    """Copy every found value into the entry of its name, or raise one ArtifactError that lists every difference."""
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
    """Tell whether a value is what an entry holds: floating-point numbers of any precision, or the same integers."""
    return value.dtype == entry.dtype or (value.is_floating_point() and entry.is_floating_point())
