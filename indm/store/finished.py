"""What a stage says to the command line when it has ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    """What a stage says when it has ended.

    Arguments:
        folder: where it wrote, and where its provenance goes.
        earlier: seconds that earlier executions spent on the work that this one continued; provenance counts them too.
        computed_on: machine and device of those that did the work, where this execution only gathered it.
    """

    folder: Path
    earlier: float = 0.0
    computed_on: Mapping[str, str] = field(default_factory=dict)
