"""Sections ``sample``, ``sweep``, ``reference``, ``fid``, ``protocol``, ``nll`` and ``curve``: the evaluation of a trained run."""

from typing import Annotated, Literal

from pydantic import Field

from indm import facts
from indm.fields import (
    Count,
    EachOnce,
    GridPoints,
    Positive,
    Rate,
    RunName,
    SamplerName,
    SweptName,
    Tolerance,
)
from indm.strict_yaml import Strict


class SampleParams(Strict):
    """How images are sampled."""

    sampler: SamplerName = Field(
        description="predictor of the reverse SDE, or the probability-flow ODE: adaptive, or one step per interval"
    )
    steps: GridPoints = Field(description="grid points; the adaptive ODE chooses its own")
    grid: Literal["uniform", "log_snr"] = Field(description="grid points are equidistant in time or in log-SNR")
    corrector_snr: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = Field(
        description="first and last signal-to-noise ratio of a Langevin corrector, or null"
    )
    corrector_steps: Count = Field(description="Langevin corrections at each grid point")
    tolerance: Tolerance = Field(description="tolerance of the adaptive ODE")
    denoise: Literal["tweedie", "none", "released_ve"] = Field(
        description="last step; released_ve: 8.5 times Tweedie's step, from the uncorrected mean of the last predictor "
        "step, as in the released VE runs on CIFAR-10"
    )
    centre_prior: bool = Field(description="centre the prior on alpha_T times the mean latent of the training images")
    temperature: Positive = Field(description="factor of the latent before the flow's inverse")
    rounding: Literal["nearest", "floor"] = Field(
        description="rounding of images to L levels; nearest: undoes dequantisation; floor: rounds L - 1 times the image down, "
        "as released"
    )
    num_samples: Count = Field(description="images drawn")
    batch_size: Count = Field(description="images sampled at once")

    @property
    def is_adaptive(self) -> bool:
        """Whether the sampler chooses its steps."""
        return facts.sampler(self.sampler).calls is None

    @property
    def is_corrected(self) -> bool:
        """Whether Langevin corrections come before the steps; if not, pc in the run's sweep may still use them."""
        return self.corrector_snr is not None and facts.sampler(self.sampler).corrector


class SweepParams(Strict):
    """Images of a run by several samplers and numbers of steps, at temperature 1; other keys are as in its sample section."""

    objectives: Annotated[list[Literal["nll", "fid"]], EachOnce()] = Field(
        description="objectives whose runs are swept"
    )
    samplers: Annotated[list[SweptName], EachOnce()] = Field(
        min_length=1, description="pc: reverse_diffusion, with the Langevin corrector of the run's sample section"
    )
    steps: Annotated[list[GridPoints], EachOnce()] = Field(
        min_length=1, description="grid points; a sampler steps from one to the next"
    )
    grid: Literal["uniform", "log_snr"] = Field(description="grid points are equidistant in time or in log-SNR")
    denoise: Literal["tweedie", "none"] = Field(description="last step, the same for all samplers")
    num_samples: int = Field(ge=2, le=10**9, description="images sampled for each sampler and number of steps")
    batch_size: Count = Field(description="images sampled at once")


class ClassifierParams(Strict):
    """Training of a small classifier as feature extractor."""

    steps: Count = Field(description="training steps of the classifier")
    batch_size: int = Field(ge=1, le=65536, description="images in a batch")
    lr: Rate = Field(description="Adam's first learning rate")


class PublishedParams(Strict):
    """Published reference statistics."""

    path: str = Field(min_length=1, description="an .npz below the data root: pool_3 (features), or mu and sigma")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="its sha256, 64 hexadecimal digits")


class ReferenceParams(Strict):
    """The feature extractor of all image metrics, and their reference."""

    extractor: Literal[
        "digits-cnn", "patches-cnn", "fashion-cnn", "cifar10-cnn", "inception-v3-compat", "inception-v3-random"
    ] = Field(description="extractor; its name goes with every FID; ...-random: a stand-in whose numbers mean nothing")
    classifier: ClassifierParams | None = Field(
        description="training of a ...-cnn on the training split; null for Inception"
    )
    published_statistics: PublishedParams | None = Field(
        description="reference of FID; null: the features of the training split"
    )


class FidParams(Strict):
    """The image metrics, and their standard errors."""

    kid_subsets: int = Field(ge=2, le=10**6, description="subsets of KID")
    kid_subset_size: int = Field(ge=3, le=10**9, description="images in a subset of KID")
    is_splits: int = Field(ge=2, le=10**9, description="splits of the inception score")
    prc_neighbours: Count = Field(description="neighbourhood of precision and recall")
    prc_images: int = Field(ge=2, le=10**9, description="images of each side, at most, for precision and recall")
    bootstrap: int = Field(ge=2, le=10**6, description="bootstrap draws of the standard errors of the FIDs")


class ProtocolParams(Strict):
    """The effect on FID of changes of the suite's protocol, measured on one run."""

    run: RunName = Field(description="run whose images are measured")
    sizes: Annotated[list[Annotated[int, Field(ge=2, le=10**9)]], EachOnce()] = Field(
        min_length=2, description="numbers of images, from which FID is extrapolated to infinitely many"
    )
    repeats: int = Field(ge=2, le=10**6, description="disjoint sets of max(sizes) images for this extrapolation")


class LikelihoodParams(Strict):
    """How likelihoods are evaluated."""

    images: Annotated[int, Field(ge=2)] | None = Field(description="images, the first of the split; null: all of them")
    batch_size: Count = Field(description="images in a batch")
    time_draws: Count = Field(description="stratified times of the bound, for each image")
    tolerance: Tolerance | None = Field(description="tolerance of the adaptive ODE; null: fixed steps")
    ode_steps: Count | None = Field(
        description="fixed steps of fifth order (Adams-Bashforth), equidistant in log-SNR; null: adaptive ones"
    )
    log_det: Literal["exact", "series"] = Field(
        description="how the flow's log-determinant is computed; exact: from its whole Jacobian; series: from a power series with "
        "random probes"
    )
    log_det_tolerance: Positive | None = Field(
        description="bound on the rest of the series that is left out, in bits/dim for each image; null for exact"
    )
    draws: Literal["batch", "image"] = Field(
        default="batch",
        description="image: noise, times, probes and dequantisation of an image come from its number and the seed, so that its "
        "likelihoods do not depend on batch_size; batch, the default: they also depend on batch_size, as in older suites",
    )
    control: Literal["pixels", "cosine"] = Field(
        default="pixels",
        description="basis of the bound's Gaussian control variate; cosine: of each channel's cosine transform, for draws image; "
        "default pixels",
    )
    ode_images: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="images, the first ones, whose nll the ODE evaluates, which takes most of the time; the others have bounds "
        "alone; default null: all of them",
    )


class BandParams(Strict):
    """The bound by frequency band, of all runs whose map from data to latent acts on each spatial frequency alone."""

    time_draws: Count = Field(description="stratified times of the bound, for each image")


class FlowStudyParams(Strict):
    """The effect of each trained flow on test images; log-determinants are computed as for nll."""

    images: int = Field(ge=2, le=10**9, description="images, the first of the test split")
    bands: BandParams | None = Field(
        default=None, description="share of each frequency band in the bound, of runs without a map too; default null"
    )


class NllParams(LikelihoodParams):
    """How the likelihoods of a trained run are evaluated."""

    uncorrected: bool = Field(
        description="evaluate nll_uncorrected too, by a second ODE that takes as long as the first"
    )
