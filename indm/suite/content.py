"""What a suite says, in full, and its checksum."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


def suite_content(suite: "Suite") -> dict[str, Any]:
    """Return what the file of a suite says, in full."""
    return suite.model_dump(exclude_unset=True)


def suite_sha256(suite: "Suite") -> str:
    """Hash what a suite says, however its file says it."""
    return hashlib.sha256(json.dumps(suite_content(suite), sort_keys=True).encode()).hexdigest()
