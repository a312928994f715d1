"""Tracks: what entries are trained and measured on, and the hash that tells one track from another."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite, override
from indm.bench.suite.schema.train import TrainParams
from indm.bench.trials import with_trial
from indm.errors import ParamsError
from indm.fields import Count, EachOnce
from indm.strict_yaml import Strict, read_valid

FOLDER = Path("params/tracks")
# The known densities of indm.densities with eight dimensions, named without their dimension, because all have the shape below.
DensityName = Literal["white", "steep", "mixture", "coupled", "swirled"]
# Points of eight dimensions, as images.
SHAPE = (2, 2, 2)


class DensitiesParams(Strict):
    """Known densities in the place of a dataset."""

    names: Annotated[list[DensityName], EachOnce()] = Field(
        min_length=1, description="densities, each turned by a rotation that its seed draws"
    )
    points: Count = Field(
        description="points at which a bound is compared with the truth, and as many to choose its decoder"
    )
    time_draws: Count = Field(description="times of the bound at each point")


class Track(Strict):
    """What an entry is trained and measured on. Another value of any key is another track, so raise the version with it."""

    track: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="its name; the file's name without .yaml")
    version: Count = Field(description="raised with every change")
    suite: str = Field(description="suite from which everything comes that is not stated here")
    run: str = Field(
        description="DDPM++ of this suite: dataset, network, optimiser, and the length that sets the compute"
    )
    train: override(TrainParams) = Field(description="keys of train in which the track differs, or {}")  # type: ignore[valid-type]
    seeds: Annotated[int, Field(ge=3, le=100)] = Field(description="seeds of each model")
    smallest: float = Field(gt=0, description="smallest effect that counts, in bits/dim")
    ranked: bool = Field(description="whether its entries are listed in docs/records; false: its numbers mean nothing")
    densities: DensitiesParams | None = Field(
        description="known densities in the place of the run's dataset; null: the dataset"
    )


class LoadedTrack:
    """A track with its suite, of which only the track's run is left.

    Arguments:
        file: the track's file.
        content: its keys.
        suite: the suite with only the track's run.
    """

    def __init__(self, file: Path, content: Track, suite: Suite) -> None:
        self.file, self.content, self.suite = file, content, suite

    @property
    def name(self) -> str:
        """The track's name."""
        return self.content.track

    @property
    def params(self) -> TrainParams:
        """The training of DDPM++."""
        return self.suite.train_params(self.content.run)

    @cached_property
    def sha256(self) -> str:
        """The hash of everything on which numbers of the track depend, except code."""
        run, dataset = self.suite.runs[self.content.run], self.suite.datasets
        counted = {
            "track": self.content.model_dump(exclude={"train"}),
            "train": self.params.model_dump(exclude_defaults=True),
            "dataset": dataset[run.dataset].model_dump(exclude_defaults=True),
            "likelihoods": self.suite.nll.model_dump(exclude_defaults=True),
        }
        return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def load_track(track: str, folder: Path = FOLDER) -> LoadedTrack:
    """Load a track by its name, or by its file, with the suite beside the tracks' folder.

    Raises:
        ParamsError: if there is no such track or suite, or one of them has a mistake.
    """
    file = Path(track) if track.endswith(".yaml") else folder / f"{track}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml"))) or "none"
        raise ParamsError(
            f"{track}: found no such track in {folder}/, expected one of: {known}; or the path of a .yaml file"
        )
    content = read_content(file)
    suite = load_suite(file.parent.parent / f"{content.suite}.yaml")
    if (run := suite.runs.get(content.run)) is None or (run.model, run.variant, run.objective) != ("ddpmpp", "", "nll"):
        raise ParamsError(
            f"{file}: key run: found {content.run!r}; allowed: a run of suite {content.suite} of plain ddpmpp with objective nll"
        )
    return LoadedTrack(
        file, content, with_trial(suite, content.run, run.seed, content.train.model_dump(exclude_unset=True))
    )


def read_content(file: Path) -> Track:
    """Read the keys of a track.

    Raises:
        ParamsError: if there is a mistake in it.
    """
    content = read_valid(file, Track)
    if content.track != file.stem:
        raise ParamsError(f"{file}: key track: found {content.track!r}; allowed: {file.stem}, the file's name")
    return content


def density_name(name: str) -> str:
    """Return the name of a track's density in :data:`indm.densities.known.DENSITIES`."""
    assert name in get_args(DensityName)
    return f"{name}-8d"
