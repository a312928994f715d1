"""Section ``train``: one training, its flow, score network and linear diffusion."""

from typing import Annotated, Literal

from pydantic import Field

from indm.fields import Count, EachOnce, FlowName, Fraction, NetworkName, Positive, Rate, Width
from indm.strict_yaml import Strict


class WolfParams(Strict):
    """Parts of the wolf flow in addition to its residual blocks: an encoder q(h|x) and a prior p(h)."""

    latent_dim: int = Field(ge=2, le=4096, multiple_of=2, description="dimension of h")
    encoder_widths: list[Width] = Field(min_length=1, description="channels of the encoder's levels")
    encoder_channels_out: Width = Field(description="channels at the encoder's top")
    prior_steps: int = Field(ge=1, le=1000, description="steps of the prior's flow")
    prior_width: Width = Field(description="hidden units of the prior's couplings")
    frozen_prior_inverse: bool = Field(
        description="sample h with the prior's inverse from before the training, as the released code does"
    )


class FlowParams(Strict):
    """The flow of INDM; DDPM++ has the identity instead, or the map of train.latent.learned."""

    name: FlowName = Field(description="registered flow")
    blocks: list[Annotated[int, Field(ge=0, le=1000)]] = Field(
        min_length=1, max_length=3, description="residual blocks at each scale; a scale halves the image"
    )
    width: Width = Field(description="hidden channels of a residual block")
    activation: Literal["sin", "elu"] = Field(description="activation of a residual block")
    bound: Literal["linf", "spectral"] = Field(description="norm by which each convolution is bounded")
    coefficient: float = Field(ge=1e-3, le=0.999, description="bound of each convolution's norm")
    init_at_bound: bool = Field(description="start with the weights scaled to the bound")
    probe: Literal["gaussian", "rademacher"] = Field(description="probe of the trace estimates")
    exact_terms_train: int = Field(ge=1, le=1000, description="series terms always summed, in training")
    roulette_mean: float = Field(
        ge=1e-6, le=1000, description="mean of the Poisson number of further terms, in training"
    )
    wolf: WolfParams | None = Field(description="encoder and prior of the wolf flow; null for resflow")


class FixedMapParams(Strict):
    """A map from the training images alone: a curve of a pixel's value if asked, then a filter, whose scale gives variance 1."""

    curve: bool = Field(
        description="an increasing curve of a pixel's value with the slope (1 - v^2)^(-1/4), v in [-1, 1]; needs train.centered, "
        "and neither standardise nor scale"
    )
    exponent: float = Field(
        ge=0,
        le=0.5,
        description="a: each coefficient of the cosine transform of a channel is multiplied by S^-a, where S is its variance over "
        "the training split, and all by one factor, so that the latent's variance is 1; 0: only the factor",
    )
    spectrum: Literal["exact", "circles"] = Field(
        default="exact",
        description="the S of S^-a: the variance of each coefficient (exact, the default), or its mean over circles of equal "
        "frequency (circles), which is smooth in frequency",
    )


class LatentParams(Strict):
    """Maps in front of the flow, in this order: an affine one, z = scale (x - mean) / std or scale x, a fixed and a learned one."""

    standardise: bool = Field(
        description="subtract the mean of the training split's pixels and divide by their deviation"
    )
    scale: Positive = Field(description="factor of the data after that")
    fixed: FixedMapParams | None = Field(default=None, description="a map from the training images; default null: none")
    learned: Literal["scale", "affine", "linear", "filter", "curve", "curve-filter"] | None = Field(
        description="a map that is trained like INDM's flow, in front of it or instead of it: each is defined in docs/controls.md; "
        "null: none"
    )


class ScoreParams(Strict):
    """The score network."""

    name: NetworkName = Field(description="registered network")
    channels: int = Field(ge=8, le=4096, multiple_of=4, description="channels at full resolution")
    multipliers: list[Annotated[int, Field(ge=1, le=64)]] = Field(
        min_length=1, description="channel multiplier of each resolution"
    )
    blocks: int = Field(ge=1, le=1000, description="residual blocks at each resolution")
    attention_resolutions: Annotated[list[Count], EachOnce()] = Field(
        description="image sizes at which attention is applied"
    )
    dropout: Fraction = Field(description="dropout rate in the residual blocks")
    embedding: Literal["positional", "fourier", "log_snr"] = Field(description="input of the time to the network")
    fourier_scale: Positive = Field(description="standard deviation of the Fourier frequencies")
    predict: Literal["noise", "v"] = Field(
        default="noise",
        description="what the network's output predicts: the noise (default), or v = alpha noise - sigma x over "
        "sqrt(alpha^2 + sigma^2) (arXiv:2202.00512), with the same weighting. Clean images are not offered: this weighting "
        "divides their error by sigma, and the loss explodes",
    )
    precondition: Literal["none", "spectrum", "skip"] = Field(
        default="none",
        description="none (default), or what a network gets from the mean and the variance of each coefficient of the training "
        "latents' cosine transform: spectrum: c_skip, c_in and c_out of EDM (arXiv:2206.00364) for each frequency; skip: only "
        "c_skip, the best linear prediction. Not behind a map that is trained, whose latents change",
    )
    fir: bool = Field(description="resample with the filter (1, 3, 3, 1)")
    progressive_input: Literal["none", "residual"] = Field(description="feed the downsampled input to every resolution")
    scale_by_sigma: bool = Field(description="the network divides its output by sigma: it predicts the score")
    normalise_input: Literal["none", "unit", "running"] = Field(
        description="divide z_t by sqrt(alpha^2 s^2 + sigma^2) first, with s = 1 (unit) or the running deviation of the latent "
        "(running), as c_in of EDM (arXiv:2206.00364); none: do not divide"
    )


class VPParams(Strict):
    """The variance preserving SDE."""

    beta_min: Positive = Field(description="beta(0)")
    # The latent's factor at T is exp(-(beta_min + beta_max) / 4), by which samplers divide in float32.
    beta_max: float = Field(ge=1e-6, le=100, description="beta(1)")


class TrainedVPParams(VPParams):
    """The variance preserving SDE of a training, which may learn its range."""

    learned_range: bool = Field(
        description="train the log-SNR at eps and at 1, starting from this schedule (arXiv:2107.00630); "
        "needs the nll objective and train.reconstruction"
    )


class VEParams(Strict):
    """The variance exploding SDE."""

    sigma_min: Positive = Field(description="sigma(0)")
    sigma_max: Positive = Field(description="sigma(1)")


class SDEParams(Strict):
    """Both diffusions, and the time at which training, sampling and likelihoods are truncated."""

    vp: TrainedVPParams
    ve: VEParams
    eps: float = Field(ge=1e-9, lt=0.1, description="truncation time")


class TrainParams(Strict):
    """One training: network, flow and optimisation (AdamW with betas 0.9 and 0.99)."""

    centered: bool = Field(
        description="scale the data to [-1, 1]; false: to [0, 1], and the network maps its input z to 2z - 1"
    )
    latent: LatentParams
    sde: SDEParams
    score: ScoreParams
    flow: FlowParams
    alternate: bool = Field(
        description="with the fid objective, train flow and score in turn; false (VE only): jointly, as released"
    )
    steps: Count = Field(description="optimiser steps")
    flow_warmup_steps: int = Field(ge=0, description="first steps, which train only the flow, as a normalizing flow")
    fresh_score_after: Count | None = Field(
        description="steps of an ordinary training, after which the flow is frozen and the remaining steps train a new score "
        "network, with a separate warm-up and schedule; null: the ordinary training takes all steps"
    )
    snapshots: Annotated[list[Count], EachOnce()] = Field(
        description="steps after which weights are kept for the learning curve: averaged weights, and the raw flow"
    )
    batch_size: Count = Field(description="images in a batch")
    micro_batches: Count = Field(description="parts of a batch whose gradients are averaged, to save memory")
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        description="precision of matmuls in training; tf32: as in the released code on GPUs, and float32 on devices "
        "without it; bfloat16: for the score network, with tf32 for the flow; evaluation is always in float32"
    )
    random_flip: bool = Field(description="flip half of the training images left to right")
    soft_truncation: Positive | None = Field(
        description="exponent k of the batch's random truncation time (arXiv:2106.05527), or null; with the fid objective, only "
        "in the score's step, which then differs from the released one: docs/released.md"
    )
    reconstruction: bool = Field(description="add the reconstruction term at eps to the nll objective")
    lr: Rate = Field(description="peak learning rate of the score network")
    flow_lr: Rate = Field(description="peak learning rate of the flow")
    warmup_steps: int = Field(ge=0, description="steps of linear warm-up")
    schedule: Literal["constant", "cosine"] = Field(description="learning rate after the warm-up")
    weight_decay: float = Field(ge=0, le=1000, description="AdamW's weight decay")
    grad_clip: Positive = Field(description="largest gradient norm, of each network")
    reduction: Literal["mean", "sum"] = Field(
        description="how losses are reduced over the D dimensions of an image before clipping; gradients of the sum are D times "
        "as long; train.csv is per dimension in either case"
    )
    ema_decay: Fraction = Field(description="decay of the score network's averaged weights")
    flow_ema_decay: Fraction = Field(description="decay of the flow's averaged weights")
    log_every: Count = Field(description="steps averaged in a row of the learning curve")
    log_det_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of a batch whose log-determinant enters the gradient, without bias; a whole number of images, "
        "chosen at random at each step. For residual flows only, whose log-determinant is estimated; default 1, as in the paper",
    )
