"""Keys that suites no longer have: every suite gave them one value, by which the code now computes.

A key that has this value equals an absent one. Therefore results and registrations of suites that stated it stay valid, and
the hash of a suite counts it as before.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Removed(NamedTuple):
    """A key that is gone.

    Arguments:
        value: the value in all suites.
        was_stated: whether suites had to state it, so that their hashes count it.
        instead: what takes its place, for a suite that sets it.
    """

    value: Any
    was_stated: bool
    instead: str


ANY = "*"
REMOVED: dict[tuple[str, ...], Removed] = {
    ("protocol", ANY, "jpeg_quality"): Removed(75, True, "JPEG images have Pillow's quality 75"),
    ("toy2d", "grid"): Removed("uniform", True, "the steps of the sampler are equidistant in time"),
    ("toy2d", "tolerance"): Removed(1e-4, True, "the tolerance of the ODE is 1e-4"),
    ("tune", ANY, "choose"): Removed("best", False, "the best trial is chosen, and tables/tuning.csv has all trials"),
}


def removed(location: tuple[str, ...]) -> Removed | None:
    """Find the removed key at a location in a suite; ``None`` if there was none."""
    for pattern, found in REMOVED.items():
        if len(pattern) == len(location) and all(a in (ANY, b) for a, b in zip(pattern, location, strict=True)):
            return found
    return None


def without_removed(content: Mapping[str, Any], place: tuple[str, ...] = ()) -> dict[str, Any]:
    """Leave out removed keys that have their one value: from a suite, or from parameters, whose names may be dotted keys."""
    kept = {}
    for name, value in content.items():
        here = (*place, *str(name).split("."))
        found = removed(here)
        if found is None or value != found.value:
            kept[name] = without_removed(value, here) if isinstance(value, dict) else value
    return kept


def with_stated(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add the removed keys that suites had to state, as the hash of a suite counts them."""
    found = dict(content)
    for pattern, key in REMOVED.items():
        if key.was_stated:
            found = _with(found, pattern, key.value)
    return found


def _with(content: dict[str, Any], pattern: tuple[str, ...], value: Any) -> dict[str, Any]:
    name, *rest = pattern
    if not rest:
        return content | {name: value}
    names = [*content] if name == ANY else [name]
    return content | {each: _with(content[each], tuple(rest), value) for each in names}
