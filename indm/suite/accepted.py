"""The schema of ``docs/results/<suite>/accepted.yaml``: accepted changes of the code since kept results were made."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from indm.errors import ArtifactError
from indm.suite.strict_yaml import Strict, read_valid

# The hash of a definition that did not exist yet, or does not exist any more.
NONE = "none"
# The key in a provenance record for changes that were accepted when the results were restored.
ACCEPTED = "accepted"
SHOWN = 3
Hash = Annotated[str, Field(pattern=rf"^([0-9a-f]{{10}}|{NONE})$")]
Definitions = dict[str, dict[Hash, Hash]]


class Acceptance(Strict):
    """Changes that were accepted together."""

    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="when")
    why: str = Field(min_length=1, description="effect of the changes on the results")
    definitions: Definitions = Field(description="by name, the hash now by the hash then")


class Accepted(Strict):
    """The file, or a part of it in the provenance of a job."""

    accepted: list[Acceptance] = Field(description="in the order of time")


def load_accepted(path: Path) -> Accepted:
    """Read and validate the accepted changes of a suite; empty if there is no such file.

    Raises:
        ParamsError: one line for each mistake: file, key, the value found and the values allowed.
    """
    try:
        return read_valid(path, Accepted)
    except FileNotFoundError:
        return Accepted(accepted=[])


def acceptances(record: Mapping[str, Any]) -> list[Acceptance]:
    """Read the changes that were accepted when a job's results were restored, from its provenance.

    Raises:
        ArtifactError: if the provenance is damaged.
    """
    found = record.get(ACCEPTED, [])
    try:
        return Accepted.model_validate({"accepted": found}).accepted
    except ValidationError:
        raise ArtifactError(
            f"provenance of stage {record.get('stage')}: key accepted: found {found!r:.100}, expected the entries that "
            "restore writes; restore the results again (--replace)"
        ) from None


def merge(found: Iterable[Acceptance]) -> list[Acceptance]:
    """Merge acceptances of the same day with the same reason."""
    merged: dict[tuple[str, str], Definitions] = {}
    for each in found:
        known = merged.setdefault((each.date, each.why), {})
        for name, hashes in each.definitions.items():
            known[name] = known.get(name, {}) | hashes
    return [Acceptance(date=date, why=why, definitions=known) for (date, why), known in merged.items()]


def changed_since(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each commit that computed results, with the changes since that were accepted at the restore."""
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
