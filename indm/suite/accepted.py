"""The schema of ``docs/results/<suite>/accepted.yaml``: what may have changed in the code since kept results were made."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from indm.errors import ArtifactError
from indm.suite.strict_yaml import Strict, read_valid

# Of a definition that was not there, or is not there any more.
NONE = "none"
# Of a record of provenance: what was accepted when the results were restored.
ACCEPTED = "accepted"
SHOWN = 3
Hash = Annotated[str, Field(pattern=rf"^([0-9a-f]{{10}}|{NONE})$")]
Definitions = dict[str, dict[Hash, Hash]]


class Acceptance(Strict):
    """What was accepted at once."""

    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="when")
    why: str = Field(min_length=1, description="what the changes do to the results")
    definitions: Definitions = Field(description="by name: the hash now, by the hash then")


class Accepted(Strict):
    """The file, or what the provenance of a job says of it."""

    accepted: list[Acceptance] = Field(description="in the order of time")


def load_accepted(path: Path) -> Accepted:
    """Read and validate what was accepted of a suite; nothing, where there is no such file.

    Raises:
        ParamsError: one line for each mistake: file, key, what was found and what is allowed.
    """
    try:
        return read_valid(path, Accepted)
    except FileNotFoundError:
        return Accepted(accepted=[])


def acceptances(record: Mapping[str, Any]) -> list[Acceptance]:
    """Read what a job's provenance says was accepted when its results were restored.

    Raises:
        ArtifactError: if it is damaged.
    """
    found = record.get(ACCEPTED, [])
    try:
        return Accepted.model_validate({"accepted": found}).accepted
    except ValidationError:
        raise ArtifactError(
            f"provenance of stage {record.get('stage')}: key accepted: found {found!r:.100}, expected what restore writes; "
            "restore the results again (--replace)"
        ) from None


def merge(found: Iterable[Acceptance]) -> list[Acceptance]:
    """Put together what was accepted on one day for one reason."""
    merged: dict[tuple[str, str], Definitions] = {}
    for each in found:
        known = merged.setdefault((each.date, each.why), {})
        for name, hashes in each.definitions.items():
            known[name] = known.get(name, {}) | hashes
    return [Acceptance(date=date, why=why, definitions=known) for (date, why), known in merged.items()]


def changed_since(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Say in a sentence of each commit what has changed since it computed results, as was accepted when these were restored."""
    found: dict[str, list[Acceptance]] = {}
    for record in records:
        commit = f"commit {record['commit'][:12]}" if record["commit"] else "an unknown commit"
        found.setdefault(commit, []).extend(acceptances(record))
    return [
        f"computed by {commit}; since then {_names(acceptance)} changed (accepted on {acceptance.date}: {acceptance.why})"
        for commit, accepted in found.items()
        for acceptance in merge(accepted)
    ]


def _names(acceptance: Acceptance) -> str:
    names = sorted(acceptance.definitions)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
