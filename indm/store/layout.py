"""The layout of a suite's files."""

from dataclasses import dataclass
from pathlib import Path

# Pictures for the report that the sample stage writes to a run's folder; an empty file stands for a picture that is not drawn.
TRAINING_PICTURES = ("neighbours", "diffusion")
PICTURES = ("samples", *TRAINING_PICTURES)


@dataclass(frozen=True)
class Layout:
    """The paths of a suite's files below the results folder."""

    root: Path
    suite: str

    @property
    def suite_folder(self) -> Path:
        """Folder of all files of the suite."""
        return self.root / self.suite

    def data(self, dataset: str) -> Path:
        """Folder of a prepared dataset and its reference."""
        return self.suite_folder / "data" / dataset

    def run(self, run: str) -> Path:
        """Folder of a trained model and its evaluation."""
        return self.suite_folder / "runs" / run

    def shard(self, run: str, number: int) -> Path:
        """Folder of a shard of a run's evaluation."""
        return self.run(run) / "shards" / str(number)

    def scratch(self, run: str, stage: str) -> Path:
        """Folder of the unfinished work of a stage on a run or a shard."""
        return self.suite_folder / "scratch" / run / stage

    def watch(self, stage: str, subject: str) -> Path:
        """File of a job's progress as JSON lines; see :mod:`indm.progress`."""
        return self.suite_folder / "watch" / f"{_job(stage, subject)}.jsonl"

    def log(self, stage: str, subject: str) -> Path:
        """File to which Snakemake sends the messages of a job."""
        return self.suite_folder / "logs" / f"{_job(stage, subject)}.log"

    @property
    def code(self) -> Path:
        """Folder of the stamps of code that DVC tracks."""
        return self.suite_folder / "code"

    @property
    def toy2d(self) -> Path:
        """Folder of the study of known densities."""
        return self.suite_folder / "toy2d"

    @property
    def tables(self) -> Path:
        """Folder of the suite's tables."""
        return self.suite_folder / "tables"


def _job(stage: str, subject: str) -> str:
    return f"{stage}/{subject}" if subject else stage
