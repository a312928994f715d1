"""The schema of ``params/``: the only reader and validator of suites.

No field has a default: what a suite file says is everything a result depends on, so both engines can track it there.
"""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, ValidationError, create_model

from indm.checks import mistakes
from indm.errors import ParamsError
from indm.strict import Strict, read_mapping

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
# Also a folder, a word of a command and, for DVC, a part of a dotted key.
RunName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]


class DatasetParams(Strict):
    """How a dataset is split."""

    split_seed: Annotated[int, Field(ge=0, description="seed of the train / validation / test split")]


class ClassifierParams(Strict):
    """Training of a small classifier as feature extractor."""

    steps: Annotated[Count, Field(description="training steps of the classifier")]
    batch_size: Annotated[Count, Field(description="images in a batch")]
    lr: Annotated[Positive, Field(description="Adam's first learning rate")]


class PublishedParams(Strict):
    """Published reference statistics."""

    path: Annotated[
        str, Field(min_length=1, description="an .npz below the data root: pool_3 (features), or mu and sigma")
    ]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="its sha256, 64 hexadecimal digits")]


class ReferenceParams(Strict):
    """The feature extractor of all image metrics, and what they compare with."""

    extractor: Annotated[
        Literal["digits-cnn", "patches-cnn", "inception-v3-compat", "inception-v3-random"],
        Field(description="extractor; its name goes with every FID; ...-random: a stand-in whose numbers mean nothing"),
    ]
    classifier: Annotated[
        ClassifierParams | None, Field(description="training of a ...-cnn on the training split; null for Inception")
    ]
    published_statistics: Annotated[
        PublishedParams | None, Field(description="reference of FID; null: the features of the training split")
    ]


class VPParams(Strict):
    """The variance preserving SDE."""

    beta_min: Annotated[Positive, Field(description="beta(0)")]
    beta_max: Annotated[Positive, Field(description="beta(1)")]


class VEParams(Strict):
    """The variance exploding SDE."""

    sigma_min: Annotated[Positive, Field(description="sigma(0)")]
    sigma_max: Annotated[Positive, Field(description="sigma(1)")]


class SDEParams(Strict):
    """Both diffusions, and the time at which training, sampling and likelihoods are truncated."""

    vp: VPParams
    ve: VEParams
    eps: Annotated[float, Field(gt=0, lt=0.1, description="truncation time")]


class ScoreParams(Strict):
    """The score network."""

    channels: Annotated[int, Field(ge=8, multiple_of=4, description="channels at full resolution")]
    multipliers: Annotated[list[Count], Field(min_length=1, description="channel multiplier of each resolution")]
    blocks: Annotated[Count, Field(description="residual blocks at each resolution")]
    attention_resolutions: Annotated[list[Count], Field(description="image sizes at which attention is applied")]
    dropout: Annotated[Fraction, Field(description="dropout rate in the residual blocks")]
    embedding: Annotated[
        Literal["positional", "fourier", "log_snr"], Field(description="how the network is told the time")
    ]
    fourier_scale: Annotated[Positive, Field(description="standard deviation of the Fourier frequencies")]
    fir: Annotated[bool, Field(description="resample with the filter (1, 3, 3, 1)")]
    progressive_input: Annotated[
        Literal["none", "residual"], Field(description="feed the downsampled input to every resolution")
    ]
    scale_by_sigma: Annotated[bool, Field(description="the network divides its output by sigma: it predicts the score")]
    normalise_input: Annotated[bool, Field(description="divide z_t by sqrt(alpha^2 + sigma^2) first")]


class WolfParams(Strict):
    """What the wolf flow has besides its residual blocks: an encoder q(h|x) and a prior p(h)."""

    latent_dim: Annotated[int, Field(ge=2, multiple_of=2, description="dimension of h")]
    encoder_widths: Annotated[list[Count], Field(min_length=1, description="channels of the encoder's levels")]
    encoder_channels_out: Annotated[Count, Field(description="channels at the encoder's top")]
    prior_steps: Annotated[Count, Field(description="steps of the prior's flow")]
    prior_width: Annotated[Count, Field(description="hidden units of the prior's couplings")]
    frozen_prior_inverse: Annotated[
        bool, Field(description="draw h with the prior's inverse of before the training, as the released code does")
    ]


class FlowParams(Strict):
    """The flow of INDM; DDPM++ has the identity instead."""

    name: Annotated[Literal["resflow", "wolf"], Field(description="registered flow")]
    blocks: Annotated[
        list[Annotated[int, Field(ge=0)]],
        Field(min_length=1, max_length=3, description="residual blocks at each scale; a scale halves the image"),
    ]
    width: Annotated[Count, Field(description="hidden channels of a residual block")]
    activation: Annotated[Literal["sin", "elu"], Field(description="activation of a residual block")]
    bound: Annotated[Literal["linf", "spectral"], Field(description="norm by which each convolution is bounded")]
    coefficient: Annotated[float, Field(gt=0, lt=1, description="bound of each convolution's norm")]
    init_at_bound: Annotated[bool, Field(description="start with the weights scaled to the bound")]
    probe: Annotated[Literal["gaussian", "rademacher"], Field(description="probe of the trace estimates")]
    exact_terms_train: Annotated[Count, Field(description="series terms always summed, in training")]
    exact_terms_eval: Annotated[int, Field(ge=20, description="series terms always summed, in evaluation")]
    roulette_mean: Annotated[Positive, Field(description="mean of the Poisson number of further terms")]
    wolf: Annotated[WolfParams | None, Field(description="encoder and prior of the wolf flow; null for resflow")]


class LatentParams(Strict):
    """A fixed affine map of the data in front of the flow: z = scale (x - mean) / std, or z = scale x."""

    standardise: Annotated[
        bool, Field(description="subtract the mean of the training split's pixels and divide by their deviation")
    ]
    scale: Annotated[Positive, Field(description="factor of the data after that")]


class TrainParams(Strict):
    """One training: network, flow and optimisation (AdamW with betas 0.9 and 0.99)."""

    centered: Annotated[
        bool,
        Field(description="scale the data to [-1, 1]; false: to [0, 1], and the network maps its input z to 2z - 1"),
    ]
    latent: LatentParams
    sde: SDEParams
    score: ScoreParams
    flow: FlowParams
    alternate: Annotated[
        bool, Field(description="objective fid: flow and score in turn; false, under VE alone: jointly, as released")
    ]
    steps: Annotated[Count, Field(description="optimiser steps")]
    flow_warmup_steps: Annotated[
        int, Field(ge=0, description="of these steps, the first that train the flow alone, as a normalizing flow")
    ]
    snapshots: Annotated[
        list[Count], Field(description="steps after which the averaged weights are kept, for the learning curve")
    ]
    batch_size: Annotated[Count, Field(description="images in a batch")]
    micro_batches: Annotated[Count, Field(description="parts of a batch whose gradients are averaged, to save memory")]
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="products of the score network in training; everything else is at least float32"),
    ]
    random_flip: Annotated[bool, Field(description="flip half of the training images left to right")]
    soft_truncation: Annotated[
        Positive | None,
        Field(description="exponent k of the batch's random truncation time (arXiv:2106.05527), or null"),
    ]
    reconstruction: Annotated[bool, Field(description="add the residual at eps to objective nll")]
    lr: Annotated[Positive, Field(description="peak learning rate of the score network")]
    flow_lr: Annotated[Positive, Field(description="peak learning rate of the flow")]
    warmup_steps: Annotated[int, Field(ge=0, description="steps of linear warm-up")]
    schedule: Annotated[Literal["constant", "cosine"], Field(description="learning rate after the warm-up")]
    weight_decay: Annotated[float, Field(ge=0, description="AdamW's weight decay")]
    grad_clip: Annotated[Positive, Field(description="largest gradient norm, of each network")]
    ema_decay: Annotated[Fraction, Field(description="decay of the score network's averaged weights")]
    flow_ema_decay: Annotated[Fraction, Field(description="decay of the flow's averaged weights")]
    log_every: Annotated[Count, Field(description="steps averaged in a row of the learning curve")]


class SampleParams(Strict):
    """How images are drawn."""

    sampler: Annotated[
        Literal["euler_maruyama", "reverse_diffusion", "ancestral", "ode", "ode_euler", "ode_heun"],
        Field(
            description="predictor of the reverse SDE, or the probability-flow ODE: adaptive, or one step an interval"
        ),
    ]
    steps: Annotated[int, Field(ge=2, description="grid points; the adaptive ODE chooses its own")]
    grid: Annotated[Literal["uniform", "log_snr"], Field(description="what the grid points are equidistant in")]
    corrector_snr: Annotated[
        Annotated[list[Positive], Field(min_length=2, max_length=2)] | None,
        Field(description="first and last signal-to-noise ratio of a Langevin corrector, or null"),
    ]
    corrector_steps: Annotated[Count, Field(description="Langevin corrections at each grid point")]
    tolerance: Annotated[Positive, Field(description="tolerance of the adaptive ODE")]
    denoise: Annotated[
        Literal["tweedie", "none", "released_ve"],
        Field(description="last step; released_ve: 8.5 times Tweedie's step, as in the released code's VE runs"),
    ]
    centre_prior: Annotated[bool, Field(description="centre the prior on the mean latent of the training images")]
    temperature: Annotated[Positive, Field(description="factor of the latent before the flow's inverse")]
    num_samples: Annotated[Count, Field(description="images drawn")]
    batch_size: Annotated[Count, Field(description="images drawn at once")]


class FidParams(Strict):
    """The image metrics, and their standard errors."""

    kid_subsets: Annotated[Count, Field(description="subsets of KID")]
    kid_subset_size: Annotated[int, Field(ge=2, description="images in a subset of KID")]
    is_splits: Annotated[int, Field(ge=2, description="splits of the inception score")]
    prc_neighbours: Annotated[Count, Field(description="neighbourhood of precision and recall")]
    prc_images: Annotated[int, Field(ge=2, description="images of each side, at most, for precision and recall")]
    bootstrap: Annotated[int, Field(ge=2, description="bootstrap draws of the standard errors of the FIDs")]


class NllParams(Strict):
    """How the four likelihood numbers are evaluated."""

    images: Annotated[
        Annotated[int, Field(ge=2)] | None, Field(description="images, the first of the split; null: all of them")
    ]
    batch_size: Annotated[Count, Field(description="images in a batch")]
    time_draws: Annotated[Count, Field(description="stratified times of the bound, for each image")]
    tolerance: Annotated[Positive | None, Field(description="tolerance of the adaptive ODE; null: fixed steps")]
    ode_steps: Annotated[
        Count | None,
        Field(description="fixed steps of fourth order, equidistant in log-SNR; null: adaptive ones"),
    ]
    log_det: Annotated[Literal["exact", "series"], Field(description="how the flow's log-determinant is computed")]


class SweepParams(Strict):
    """Images of a run by several samplers and numbers of steps; what is not here is as in its sample section."""

    objectives: Annotated[
        list[Literal["nll", "fid"]], Field(description="of the runs that are swept; others have a table without rows")
    ]
    samplers: Annotated[
        list[Literal["euler_maruyama", "ancestral", "pc", "ode_euler", "ode_heun"]],
        Field(
            min_length=1, description="pc: reverse_diffusion, with the Langevin corrector of the run's sample section"
        ),
    ]
    steps: Annotated[
        list[Annotated[int, Field(ge=2)]],
        Field(min_length=1, description="grid points, of which a sampler steps between"),
    ]
    grid: Annotated[Literal["uniform", "log_snr"], Field(description="what the grid points are equidistant in")]
    num_samples: Annotated[int, Field(ge=2, description="images drawn for each sampler and number of steps")]
    batch_size: Annotated[Count, Field(description="images drawn at once")]


class ProtocolParams(Strict):
    """How much FID moves when the suite's protocol is changed, shown on one run."""

    run: Annotated[RunName, Field(description="the run whose images are measured")]
    sizes: Annotated[
        list[Annotated[int, Field(ge=2)]],
        Field(min_length=2, description="numbers of images, from which FID is extrapolated to infinitely many"),
    ]
    repeats: Annotated[int, Field(ge=2, description="disjoint sets of max(sizes) images for that")]
    jpeg_quality: Annotated[int, Field(ge=1, le=95, description="Pillow's quality of the images stored as JPEG")]


# A pattern, not Literal: the stage looks names up as plain text.
Toy2dName = Annotated[str, Field(pattern=r"^(moons|checkerboard|eight-gaussians)$")]


class Toy2dDataParams(Strict):
    """A two-dimensional dataset."""

    noise: Annotated[float, Field(ge=0, description="standard deviation of the noise that blurs it")]


class Toy2dTrainingParams(Strict):
    """Networks and training of the study of two-dimensional data (Adam with betas 0.9 and 0.99, cosine schedules)."""

    width: Annotated[Count, Field(description="hidden units of a layer of the score network")]
    layers: Annotated[Count, Field(description="hidden layers of the score network")]
    couplings: Annotated[Count, Field(description="affine couplings of INDM's flow")]
    coupling_width: Annotated[Count, Field(description="hidden units of a coupling's two hidden layers")]
    scales: Annotated[list[Positive], Field(description="constants by which DDPM++'s controls multiply the data")]
    steps: Annotated[Count, Field(description="optimiser steps, but for the control of equal compute")]
    flow_warmup_steps: Annotated[int, Field(ge=0, description="first steps, in which the flow is trained alone")]
    batch_size: Annotated[Count, Field(description="points in a batch")]
    lr: Annotated[Positive, Field(description="peak learning rate of the score network")]
    flow_lr: Annotated[Positive, Field(description="peak learning rate of the flow")]
    ema_decay: Annotated[Fraction, Field(description="decay of the averaged weights")]


class Toy2dParams(Strict):
    """The study of two-dimensional data: INDM, DDPM++ and its controls on each dataset, objective nll."""

    datasets: Annotated[
        dict[Toy2dName, Toy2dDataParams],
        Field(description="two-dimensional datasets; {} for no study"),
    ]
    seeds: Annotated[Count, Field(description="seeds of every model, trained in one batch")]
    train_points: Annotated[Count, Field(description="training points of a seed")]
    valid_points: Annotated[Count, Field(description="validation points of a seed, by which a scale is chosen")]
    test_points: Annotated[Count, Field(description="test points of a seed")]
    vp: VPParams
    eps: Annotated[float, Field(gt=0, lt=0.1, description="truncation time")]
    training: Toy2dTrainingParams
    time_draws: Annotated[Count, Field(description="draws of time and noise of the bound, for each point")]
    tolerance: Annotated[Positive, Field(description="tolerance of the ODE")]
    sample_steps: Annotated[list[Annotated[int, Field(ge=2)]], Field(description="network calls of the DDIM sampler")]
    grid: Annotated[Literal["uniform", "log_snr"], Field(description="what the sampler's times are equidistant in")]
    samples: Annotated[Count, Field(description="samples of a seed, compared with as many of the data")]


def _override(model: type[Strict]) -> type[Strict]:
    """Derive the model of a run's overrides: the same keys, types and ranges, none of them required."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Strict):
            fields[name] = (_override(annotation), Field(default=None, description=field.description))
        else:
            constraint = Annotated[annotation, *field.metadata] if field.metadata else annotation
            fields[name] = (constraint, Field(default=None, description=field.description))
    return create_model(f"{model.__name__}Override", __base__=Strict, __doc__=f"{model.__doc__} Overrides.", **fields)


class RunParams(Strict):
    """One trained model: dataset x SDE x model x variant x objective x seed, and what it changes of the suite's sections."""

    dataset: Annotated[
        Literal["digits", "patches", "cifar10", "celeba64", "standin32", "standin64"],
        Field(description="registered dataset; standin...: synthetic, whose numbers mean nothing"),
    ]
    sde: Annotated[Literal["vp", "ve"], Field(description="linear diffusion of the latent")]
    model: Annotated[Literal["ddpmpp", "indm"], Field(description="ddpmpp: no flow (NCSN++ under VE); indm: a flow")]
    variant: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9-]*$",
            description="label of what its overrides make of the model, in lower-case letters, digits and hyphens; "
            "empty: the plain model",
        ),
    ]
    objective: Annotated[
        Literal["nll", "fid"], Field(description="nll: joint likelihood; fid: variance-weighted score")
    ]
    seed: Annotated[int, Field(ge=0, description="seed of the training, the samples and the evaluation")]
    train: Annotated[_override(TrainParams), Field(description="overrides of the suite's train section, or {}")]  # type: ignore[valid-type]
    sample: Annotated[_override(SampleParams), Field(description="overrides of the suite's sample section, or {}")]  # type: ignore[valid-type]

    @property
    def identity(self) -> str:
        """The name that the keys spell."""
        model = f"{self.model}-{self.variant}" if self.variant else self.model
        return f"{self.dataset}-{self.sde}-{model}-{self.objective}-s{self.seed}"


class Suite(Strict):
    """Everything one reproduction needs."""

    suite: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="name; the file's name without .yaml")]
    device: Annotated[Literal["cpu", "cuda", "auto"], Field(description="auto: a GPU where there is one")]
    threads: Annotated[Count, Field(description="CPU threads of one job; part of what makes bytes repeat")]
    processes: Annotated[
        Count, Field(description="processes of one training, which share each batch; on GPUs, one each")
    ]
    save_seconds: Annotated[
        float, Field(ge=0, description="seconds between two savings of a training, from which a killed one goes on")
    ]
    datasets: Annotated[dict[str, DatasetParams], Field(min_length=1, description="datasets of this suite")]
    reference: Annotated[dict[str, ReferenceParams], Field(description="extractor of each dataset")]
    train: TrainParams
    sample: SampleParams
    fid: FidParams
    nll: Annotated[NllParams, Field(description="on the test split")]
    curve: Annotated[
        NllParams, Field(description="of every snapshot, on the validation split (test, where it is empty)")
    ]
    sweep: SweepParams
    protocol: Annotated[dict[str, ProtocolParams], Field(description="study of the protocol, by dataset, or {}")]
    toy2d: Toy2dParams
    runs: Annotated[dict[RunName, RunParams], Field(min_length=1, description="the trained models, by name")]

    def train_params(self, run: str) -> TrainParams:
        """Resolve the training parameters of ``run``."""
        return _merge(self.train, self.runs[run].train)

    def sample_params(self, run: str) -> SampleParams:
        """Resolve the sampling parameters of ``run``."""
        return _merge(self.sample, self.runs[run].sample)


Section = TypeVar("Section", bound=Strict)


def _merge(section: Section, override: Strict) -> Section:
    merged = _deep_update(section.model_dump(), override.model_dump(exclude_unset=True))
    return type(section).model_validate(merged)


def _deep_update(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(base[key], dict)
        base[key] = _deep_update(base[key], value) if nested else value
    return base


def suite_files(folder: Path) -> list[Path]:
    """List the suites of a folder: its YAML files, but for the claims."""
    return sorted(path for path in folder.glob("*.yaml") if path.stem != "claims")


def load_suite(path: Path) -> Suite:
    """Read and validate a suite file.

    Arguments:
        path: ``params/<suite>.yaml``.

    Returns:
        The suite.

    Raises:
        ParamsError: one line for each mistake: file, suite, run, key, what was found and what is allowed.
    """
    raw = _read_yaml(path)
    try:
        suite = Suite.model_validate(raw)
    except ValidationError as error:
        name = raw.get("suite", path.stem)
        raise ParamsError("\n".join(_describe(path, name, dict(item)) for item in error.errors())) from None
    if found := mistakes(suite, path):
        raise ParamsError("\n".join(f"{path}: suite {suite.suite}, {mistake}" for mistake in found))
    return suite


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path, Suite)
    except FileNotFoundError:
        found = ", ".join(file.stem for file in suite_files(path.parent)) or "none"
        raise ParamsError(f"{path}: no such suite; suites in {path.parent}/: {found}") from None


def _describe(path: Path, suite: object, error: dict[str, Any]) -> str:
    location = [str(part) for part in error["loc"]]
    run, key = (location[1], location[2:]) if location[0] == "runs" and len(location) > 1 else (None, location)
    place = f"{path}: suite {suite}, " + (f"run {run}, " if run else "") + f"key {'.'.join(key) or '(the run)'}"
    if key == ["[key]"]:
        return (
            f"{path}: suite {suite}, key runs: found the name {run!r}; allowed: lower-case letters, digits and hyphens"
        )
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key; allowed: {_keys(_model_at(location[:-1]), near=location[-1])}"
    if error["type"] == "missing":
        return f"{place}: missing; expected {_expected(location)}"
    # YAML 1.1 takes 4e-3 for a text.
    exponent = _TEXT_EXPONENT.fullmatch(str(error["input"]))
    remedy = f"; write {exponent[1]}.0{exponent[2]}" if exponent else ""
    return f"{place}: found {error['input']!r}; allowed: {_expected(location) or error['msg']}{remedy}"


def _model_at(location: list[str]) -> type[Strict]:
    """Find the model that a location in a suite file belongs to."""
    model: Any = Suite
    for part in location:
        model = model.model_fields[part].annotation if hasattr(model, "model_fields") else get_args(model)[1]
        # An optional section, Section | None.
        model = next(
            (kind for kind in get_args(model) if hasattr(kind, "model_fields") and type(None) in get_args(model)), model
        )
    return model


def _keys(model: type[Strict], near: str = "") -> str:
    names = list(model.model_fields)
    close = difflib.get_close_matches(near, names, n=1)
    return ", ".join(names) + (f" (did you mean {close[0]}?)" if close else "")


_SIGNS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "multipleOf": "multiple of",
}
_TEXT_EXPONENT = re.compile(r"([+-]?\d+)(e[+-]?\d+)", re.IGNORECASE)


def _expected(location: list[str]) -> str:
    """Say what a key takes: type, range or choices, and meaning, from its JSON schema."""
    model = _model_at(location[:-1])
    if not hasattr(model, "model_fields") or location[-1] not in model.model_fields:
        return ""
    schema = model.model_json_schema()["properties"][location[-1]]
    if "enum" in schema:
        words = [str(choice) for choice in schema["enum"]]
    else:
        words = [schema["type"]] if "type" in schema else []
        words += [f"{sign} {schema[key]}" for key, sign in _SIGNS.items() if key in schema]
    meaning = f" ({schema['description']})" if "description" in schema else ""
    return ", ".join(words) + meaning


def json_schema() -> str:
    """Return the JSON schema of a suite, for editors; ``params/schema.json`` is this text."""
    return json.dumps(Suite.model_json_schema(), indent=2) + "\n"
