"""The whole of a suite, and its sections ``datasets``, ``weights``, ``kept_weights``, ``shards`` and ``runs``."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, create_model

from indm import facts
from indm.bench.suite.schema.evaluation import (
    FidParams,
    FlowStudyParams,
    LikelihoodParams,
    NllParams,
    ProtocolParams,
    ReferenceParams,
    SampleParams,
    SweepParams,
)
from indm.bench.suite.schema.studies import Toy2dParams, TuneParams
from indm.bench.suite.schema.train import TrainParams
from indm.fields import IDENTITY, Count, DatasetName, DiffusionName, FamilyName, RunName, Seed, cell_name
from indm.report.claims import GradingParams
from indm.strict_yaml import Strict


class DatasetParams(Strict):
    """How a dataset is split."""

    split_seed: Seed = Field(description="seed of the train / validation / test split")
    validation: Annotated[int, Field(ge=0, le=10**9)] | None = Field(
        default=None,
        description="last training images that are for validation instead, in datasets without a validation split; default "
        "null: 5000 of cifar10, fashion-mnist and mnist",
    )


Kind = Literal["ema", "raw"]


class WeightsParams(Strict):
    """The weights of each network for images and likelihoods: averaged over the training, or the last ones."""

    score: Kind = Field(description="score network; raw needs train.snapshots [], since snapshots hold averages only")
    flow: Kind = Field(description="flow; raw: as in the released evaluation")


class KeptWeightsParams(Strict):
    """The runs whose averaged weights ``indm keep`` also keeps, so that an evaluation can be corrected without a training."""

    variants: list[str] = Field(min_length=1, description="variants of the models; empty: the plain ones")
    seeds: Count = Field(description="number of seeds of each cell, the first ones")


Shards = Annotated[int, Field(ge=1, le=10_000)]


class ShardsParams(Strict):
    """How many jobs share the work of a stage on a run; the results are bit-identical."""

    sample: Shards = Field(default=1, description="jobs that sample a run's images")
    sweep: Shards = Field(default=1, description="jobs that sample the images of a run's sweep")
    nll: Shards = Field(default=1, description="jobs that evaluate a run's likelihoods")

    def numbers(self, stage: str) -> range:
        """Return the numbers of a run's shards in a stage, from 1 on; empty if the stage does the work itself."""
        count = getattr(self, stage)
        return range(1, count + 1) if count > 1 else range(0)


def override(model: type[Strict]) -> type[Strict]:
    """Derive the model of a run's overrides: the same keys, types and ranges, all optional."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Strict):
            fields[name] = (override(annotation), Field(default=None, description=field.description))
        else:
            constraint = Annotated[annotation, *field.metadata] if field.metadata else annotation
            fields[name] = (constraint, Field(default=None, description=field.description))
    return create_model(f"{model.__name__}Override", __base__=Strict, __doc__=f"{model.__doc__} Overrides.", **fields)


class RunParams(Strict):
    """One trained model: dataset x SDE x model x variant x objective x seed, and its overrides of the suite's sections."""

    dataset: DatasetName = Field(description="registered dataset; standin...: synthetic, whose numbers mean nothing")
    sde: DiffusionName = Field(description="linear diffusion of the latent")
    model: FamilyName = Field(
        description="model family; ddpmpp: no flow (NCSN++ under VE), or train.latent.learned; indm: a flow"
    )
    variant: str = Field(
        pattern=r"^([a-z0-9][a-z0-9-]*)?$",
        description="label of the model with its overrides, in lower-case letters, digits and, not first, hyphens; "
        "empty: the plain model",
    )
    objective: Literal["nll", "fid"] = Field(description="nll: joint likelihood; fid: variance-weighted score")
    seed: Seed = Field(description="seed of the training, the samples and the evaluation")
    train: override(TrainParams) = Field(description="overrides of the suite's train section, or {}")  # type: ignore[valid-type]
    sample: override(SampleParams) = Field(description="overrides of the suite's sample section, or {}")  # type: ignore[valid-type]

    @property
    def has_flow(self) -> bool:
        """Whether its model has the flow of ``train.flow``."""
        return facts.family(self.model).flow

    @property
    def has_forward(self) -> bool:
        """Whether its family has a forward process to train: a flow, or a path in a flow's place."""
        return self.has_flow or self.model != facts.REFERENCE

    @property
    def no_ode(self) -> str:
        """Why its NLL is empty; an empty text if it is not."""
        return facts.family(self.model).no_ode

    @property
    def cell(self) -> str:
        """The name of the run without its seed."""
        return cell_name(self.dataset, self.sde, self.model, self.variant, self.objective)

    @property
    def identity(self) -> str:
        """The name of the run, which is composed of its keys."""
        return f"{self.cell}-s{self.seed}"


class Suite(Strict):
    """Everything one reproduction needs."""

    suite: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        description="name in lower-case letters, digits and hyphens; the file's name without .yaml",
    )
    device: Literal["cpu", "cuda", "auto"] = Field(description="auto: a GPU if there is one")
    threads: int = Field(ge=1, le=1024, description="CPU threads of one job; another number changes rounding")
    processes: int = Field(
        ge=1, le=1024, description="processes of one training, which share each batch; on GPUs, one each"
    )
    save_seconds: float = Field(
        ge=0, description="seconds between two saves of a training; a killed training continues from the last one"
    )
    datasets: dict[DatasetName, DatasetParams] = Field(min_length=1, description="datasets of this suite")
    reference: dict[DatasetName, ReferenceParams] = Field(
        description="extractor of each dataset; images of a dataset without one are drawn, but have no FID"
    )
    train: TrainParams
    weights: WeightsParams
    sample: SampleParams
    fid: FidParams
    nll: NllParams = Field(description="likelihoods, on the test split")
    curve: LikelihoodParams = Field(
        description="likelihoods of every snapshot, on the validation split (the test split if it is empty)"
    )
    sweep: SweepParams
    protocol: dict[DatasetName, ProtocolParams] = Field(description="study of the protocol, by dataset, or {}")
    toy2d: Toy2dParams
    tune: dict[RunName, TuneParams] = Field(
        description="search of hyper-parameters, by the run whose training it searches, or {}"
    )
    grading: GradingParams
    runs: dict[RunName, RunParams] = Field(min_length=1, description="the trained models, by name")
    shards: ShardsParams = Field(
        default=ShardsParams(), description="how many jobs share the work of a stage on a run; default 1"
    )
    compile: bool = Field(
        default=False,
        description="compile the score network for training (torch.compile): fewer GPU kernel launches, different rounding, "
        "and time to compile first",
    )
    flow: FlowStudyParams | None = Field(
        default=None, description="effect of each trained flow on images; default null: not measured"
    )
    kept_weights: KeptWeightsParams | None = Field(
        default=None, description="runs whose averaged weights are kept with the results; default null"
    )
    failed: dict[RunName, RunParams] = Field(
        default_factory=dict,
        description="runs that cannot be trained or evaluated, by the lists failed of cells: claims count their seeds as failed",
    )
    failed_beyond: dict[str, float] = Field(
        default_factory=dict,
        description="for each metric, the value above which claims count a run as failed; metrics of known densities as "
        "toy2d.nll_excess; default {}",
    )

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

    def flows_of(self, run: str) -> list[str]:
        """Name the registered flows of ``run``, the one of the data first: learned maps, then a family's flow; or the identity."""
        parameters = self.train_params(run)
        maps = parameters.latent.learned.split("-") if parameters.latent.learned else []
        return [*maps, *([parameters.flow.name] if self.runs[run].has_flow else [])] or [IDENTITY]

    def has_map(self, run: str) -> bool:
        """Return whether the model of ``run`` has a map in front of its diffusion that is fixed, learned, or a flow."""
        latent = self.train_params(run).latent
        return self.runs[run].has_flow or latent.learned is not None or latent.fixed is not None

    def weights_of(self, run: str) -> dict[str, str | None]:
        """Name the weights with which ``run`` is evaluated, by network; ``None`` if it does not have a flow."""
        weights = self.weights.model_dump()
        fixed = self.flows_of(run) == [IDENTITY] and not self.runs[run].has_forward
        return weights | {"flow": None} if fixed else weights


Section = TypeVar("Section", bound=Strict)


def _merge(section: Section, override: Strict) -> Section:
    # Without defaults that are not set, so that a new key with a default does not change the settings of earlier results.
    merged = _deep_update(section.model_dump(exclude_unset=True), override.model_dump(exclude_unset=True))
    return type(section).model_validate(merged)


def _deep_update(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = _deep_update(base[key], value) if nested else value
    return base
