"""What a stage says to the command line when it has ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finished:
    """What a stage says when it has ended.

    Arguments:
        folder: where it wrote, and where its provenance goes.
        earlier: seconds that earlier executions spent on the work that this one continued; provenance counts them too.
        computed_on: what provenance says of those that did the work, where this execution only gathered it, or waited for them:
            machine and device; of a training, peak memory too.
    """

    folder: Path
    earlier: float = 0.0
    computed_on: Mapping[str, Any] = field(default_factory=dict)
