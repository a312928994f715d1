"""What a stage says to the command line when it has ended."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    """What a stage says when it has ended.

    Arguments:
        folder: where it wrote, and where its provenance goes.
        earlier: seconds that earlier executions spent on what this one went on with; provenance counts them too.
    """

    folder: Path
    earlier: float = 0.0
