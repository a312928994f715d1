"""What a suite has: whatever else lies in its folders, of earlier versions of the suite, is not on its page."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from indm.suite.registrations import Registration


@dataclass(frozen=True)
class Contents:
    """What a suite has.

    Arguments:
        suite: its name.
        sha256: of what it says in full, as every ``provenance/`` has it.
        stages: names of the stages that it has, by their subject; "" where they have none.
        runs: of every run the keys of ``IDENTITY``, and ``steps`` and ``batch_size`` of its training.
        datasets: names of the datasets.
        protocol: names of the datasets whose protocol is examined.
        toy2d: names of the 2-D datasets.
        claims_sha256: of what the claims say.
        registration: of suite and claims, where there is one.
    """

    suite: str
    sha256: str
    stages: Mapping[str, Collection[str]]
    runs: Mapping[str, Mapping[str, Any]]
    datasets: Collection[str] = ()
    protocol: Collection[str] = ()
    toy2d: Collection[str] = ()
    claims_sha256: str = ""
    registration: Registration | None = None

    @property
    def folders(self) -> dict[str, str]:
        """Folders of all that it makes, below its results folder, each with the subject of its jobs."""
        subjects = {"data": self.datasets, "protocol": self.protocol, "runs": self.runs, "toy2d": self.toy2d}
        return {f"{kind}/{name}": name for kind, found in subjects.items() for name in found} | {"tables": ""}
