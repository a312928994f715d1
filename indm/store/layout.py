"""Where the files of a suite lie."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Where the files of a suite lie.

    Arguments:
        root: the results folder.
        suite: name of the suite.
    """

    root: Path
    suite: str

    @property
    def suite_folder(self) -> Path:
        """Folder of everything the suite makes."""
        return self.root / self.suite

    def data(self, dataset: str) -> Path:
        """Folder of a prepared dataset and its reference."""
        return self.suite_folder / "data" / dataset

    def run(self, run: str) -> Path:
        """Folder of a trained model and its evaluation."""
        return self.suite_folder / "runs" / run

    def scratch(self, run: str, stage: str) -> Path:
        """Folder of what a stage of a run has done when it is killed."""
        return self.suite_folder / "scratch" / run / stage

    @property
    def code(self) -> Path:
        """Folder of the stamps of code that DVC tracks."""
        return self.suite_folder / "code"

    @property
    def toy2d(self) -> Path:
        """Folder of the study of two-dimensional data."""
        return self.suite_folder / "toy2d"

    @property
    def tables(self) -> Path:
        """Folder of the suite's tables."""
        return self.suite_folder / "tables"
