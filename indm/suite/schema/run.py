"""Section ``runs``: the trained models, and what each changes of the other sections."""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from indm.suite.schema.names import DatasetName, DiffusionName
from indm.suite.schema.sample import SampleParams
from indm.suite.schema.train import TrainParams
from indm.suite.schema.types import Seed
from indm.suite.strict_yaml import Strict


def override(model: type[Strict]) -> type[Strict]:
    """Derive the model of a run's overrides: the same keys, types and ranges, none of them required."""
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
    """One trained model: dataset x SDE x model x variant x objective x seed, and what it changes of the suite's sections."""

    dataset: Annotated[
        DatasetName,
        Field(description="registered dataset; standin...: synthetic, whose numbers mean nothing"),
    ]
    sde: Annotated[DiffusionName, Field(description="linear diffusion of the latent")]
    model: Annotated[
        Literal["ddpmpp", "indm"],
        Field(description="ddpmpp: no flow (NCSN++ under VE), or train.latent.learned; indm: a flow"),
    ]
    variant: Annotated[
        str,
        Field(
            pattern=r"^([a-z0-9][a-z0-9-]*)?$",
            description="label of what its overrides make of the model, in lower-case letters, digits and, not first, "
            "hyphens; empty: the plain model",
        ),
    ]
    objective: Annotated[
        Literal["nll", "fid"], Field(description="nll: joint likelihood; fid: variance-weighted score")
    ]
    seed: Annotated[Seed, Field(description="seed of the training, the samples and the evaluation")]
    train: Annotated[override(TrainParams), Field(description="overrides of the suite's train section, or {}")]  # type: ignore[valid-type]
    sample: Annotated[override(SampleParams), Field(description="overrides of the suite's sample section, or {}")]  # type: ignore[valid-type]

    @property
    def identity(self) -> str:
        """The name that the keys spell."""
        model = f"{self.model}-{self.variant}" if self.variant else self.model
        return f"{self.dataset}-{self.sde}-{model}-{self.objective}-s{self.seed}"
