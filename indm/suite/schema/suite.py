"""The whole of a suite."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from indm.suite.schema.dataset import DatasetParams
from indm.suite.schema.fid import FidParams
from indm.suite.schema.names import IDENTITY, DatasetName
from indm.suite.schema.nll import LikelihoodParams, NllParams
from indm.suite.schema.protocol import ProtocolParams
from indm.suite.schema.reference import ReferenceParams
from indm.suite.schema.run import RunParams
from indm.suite.schema.sample import SampleParams
from indm.suite.schema.shards import ShardsParams
from indm.suite.schema.sweep import SweepParams
from indm.suite.schema.toy2d import Toy2dParams
from indm.suite.schema.train import TrainParams
from indm.suite.schema.tune import TuneParams
from indm.suite.schema.types import RunName
from indm.suite.schema.weights import KeptWeightsParams, WeightsParams
from indm.suite.strict_yaml import Strict


class Suite(Strict):
    """Everything one reproduction needs."""

    suite: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9][a-z0-9-]*$",
            description="name, of lower-case letters, digits and hyphens; the file's name without .yaml",
        ),
    ]
    device: Annotated[Literal["cpu", "cuda", "auto"], Field(description="auto: a GPU where there is one")]
    threads: Annotated[int, Field(ge=1, le=1024, description="CPU threads of one job; part of what makes bytes repeat")]
    processes: Annotated[
        int, Field(ge=1, le=1024, description="processes of one training, which share each batch; on GPUs, one each")
    ]
    save_seconds: Annotated[
        float,
        Field(
            ge=0, description="seconds between two saves of a training; a killed training continues from the last one"
        ),
    ]
    datasets: Annotated[dict[DatasetName, DatasetParams], Field(min_length=1, description="datasets of this suite")]
    reference: Annotated[dict[DatasetName, ReferenceParams], Field(description="extractor of each dataset")]
    train: TrainParams
    weights: WeightsParams
    sample: SampleParams
    fid: FidParams
    nll: Annotated[NllParams, Field(description="on the test split")]
    curve: Annotated[
        LikelihoodParams, Field(description="of every snapshot, on the validation split (test, where it is empty)")
    ]
    sweep: SweepParams
    protocol: Annotated[
        dict[DatasetName, ProtocolParams], Field(description="study of the protocol, by dataset, or {}")
    ]
    toy2d: Toy2dParams
    tune: Annotated[
        dict[RunName, TuneParams], Field(description="search of hyper-parameters, by the run that is its arm, or {}")
    ]
    runs: Annotated[dict[RunName, RunParams], Field(min_length=1, description="the trained models, by name")]
    shards: Annotated[
        ShardsParams,
        Field(description="by how many jobs a stage computes what it does of a run; 1 where it is not said"),
    ] = ShardsParams()
    compile: Annotated[
        bool,
        Field(
            description="compile the score network for training (torch.compile): fewer calls of a GPU, another rounding, and time "
            "to compile first; false where it is not said"
        ),
    ] = False
    kept_weights: Annotated[
        KeptWeightsParams | None,
        Field(description="whose averaged weights are kept with the results; none where it is not said"),
    ] = None

    def train_params(self, run: str) -> TrainParams:
        """Resolve the training parameters of ``run``."""
        return _merge(self.train, self.runs[run].train)

    def sample_params(self, run: str) -> SampleParams:
        """Resolve the sampling parameters of ``run``."""
        return _merge(self.sample, self.runs[run].sample)

    def first_runs(self, seeds: int) -> list[str]:
        """List the runs of the first seeds of each cell."""
        cells: dict[tuple[str, ...], list[str]] = {}
        for name, run in self.runs.items():
            cells.setdefault((run.dataset, run.sde, run.model, run.variant, run.objective), []).append(name)
        return [name for cell in cells.values() for name in cell[:seeds]]

    def with_trial(self, run: str, seed: int, train: Mapping[str, Any]) -> "Suite":
        """Return the suite with ``run`` alone, of another seed, and with other values of keys of its train section."""
        changed = self.runs[run]
        override = changed.train.model_dump(exclude_unset=True) | train
        trial = changed.model_copy(update={"seed": seed, "train": type(changed.train).model_validate(override)})
        return self.model_copy(update={"runs": {run: trial}})

    def flow_of(self, run: str) -> str:
        """Name the registered flow of ``run``: of a DDPM++, the identity or the map that it learns."""
        parameters = self.train_params(run)
        if self.runs[run].model == "indm":
            return parameters.flow.name
        return parameters.latent.learned or IDENTITY

    def weights_of(self, run: str) -> dict[str, str | None]:
        """Name the weights that ``run`` is evaluated with, by network; none of a flow that it does not have."""
        weights = self.weights.model_dump()
        return weights | {"flow": None} if self.flow_of(run) == IDENTITY else weights


Section = TypeVar("Section", bound=Strict)


def _merge(section: Section, override: Strict) -> Section:
    merged = _deep_update(section.model_dump(), override.model_dump(exclude_unset=True))
    return type(section).model_validate(merged)


def _deep_update(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(base[key], dict)
        base[key] = _deep_update(base[key], value) if nested else value
    return base
