"""What a suite has: whatever else lies in its folders, of earlier versions of the suite, is not on its page."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from indm.report.grades import NO_DATA
from indm.report.names import names
from indm.report.results import CELL


@dataclass(frozen=True)
class Contents:
    """What a suite has.

    Arguments:
        suite: its name.
        sha256: of what it says in full, as every ``provenance/`` has it.
        runs: of every run the keys of ``IDENTITY``, and ``steps`` and ``batch_size`` of its training.
        datasets: names of the datasets.
        protocol: names of the datasets whose protocol is examined.
        toy2d: names of the 2-D datasets.
    """

    suite: str
    sha256: str
    runs: Mapping[str, Mapping[str, Any]]
    datasets: Collection[str] = ()
    protocol: Collection[str] = ()
    toy2d: Collection[str] = ()

    @property
    def folders(self) -> list[str]:
        """Folders of all that it makes, below its results folder."""
        subjects = {"data": self.datasets, "protocol": self.protocol, "runs": self.runs, "toy2d": self.toy2d}
        return [f"{kind}/{name}" for kind, found in subjects.items() for name in found] + ["tables"]

    def strangers(self, table: pd.DataFrame) -> list[str]:
        """Name the cells in the rows of a table, all texts, that the suite no longer has.

        Its own rows are meant: not floors, published numbers without one of ours, claims without data.
        """
        keys = [key for key in CELL if key in table]
        rows = table[keys]
        if "model" in table:
            rows = rows[~table["model"].str.startswith("real (")]
        for column, absent in (("ours", ""), ("grade", NO_DATA)):
            rows = rows[table.loc[rows.index, column] != absent] if column in table else rows
        known = {tuple(str(run[key]) for key in keys) for run in self.runs.values()}
        found = dict.fromkeys(rows.itertuples(index=False, name=None))
        return [names(*cell) for cell in found if cell[0] not in self.toy2d and cell not in known]
