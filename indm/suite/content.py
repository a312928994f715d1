"""What a suite says, in full, and checksums of what suites and claims say."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indm.suite.claims import Claims
    from indm.suite.schema.suite import Suite

# On these keys no result depends, so a suite may change them after it was registered or run.
LEFT_OUT = {"kept_weights"}


def suite_content(suite: "Suite") -> dict[str, Any]:
    """Return what the file of a suite says, in full, but for the keys that are left out."""
    return suite.model_dump(exclude_unset=True, exclude=LEFT_OUT)


def suite_sha256(suite: "Suite") -> str:
    """Hash what a suite says, however its file says it."""
    return _sha256(suite_content(suite))


def claims_sha256(claims: "Claims") -> str:
    """Hash what the claims say, however their file says it."""
    return _sha256(claims.model_dump(exclude_unset=True))


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
