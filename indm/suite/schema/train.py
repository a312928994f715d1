"""Section ``train``: one training."""

from typing import Annotated, Literal

from pydantic import Field

from indm.suite.schema.flow import FlowParams, LatentParams
from indm.suite.schema.score import ScoreParams
from indm.suite.schema.sde import SDEParams
from indm.suite.schema.types import Count, EachOnce, Fraction, Positive, Rate
from indm.suite.strict_yaml import Strict


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
    fresh_score_after: Annotated[
        Count | None,
        Field(
            description="of these steps, the first that train as always, a whole training of that length; then the flow is "
            "frozen at its averaged weights, and the others train a new score on its latents, with warm-up and schedule of "
            "their own; null: all train as always"
        ),
    ]
    snapshots: Annotated[
        list[Count],
        EachOnce(),
        Field(
            description="steps after which weights are kept for the learning curve: the averaged ones, and the raw flow"
        ),
    ]
    batch_size: Annotated[Count, Field(description="images in a batch")]
    micro_batches: Annotated[Count, Field(description="parts of a batch whose gradients are averaged, to save memory")]
    precision: Annotated[
        Literal["float32", "tf32", "bfloat16"],
        Field(
            description="of products in training: tf32 as the released code on GPUs, float32 on devices without it; bfloat16 of "
            "the score network, the flow's are then tf32; evaluation is float32"
        ),
    ]
    random_flip: Annotated[bool, Field(description="flip half of the training images left to right")]
    soft_truncation: Annotated[
        Positive | None,
        Field(
            description="exponent k of the batch's random truncation time (arXiv:2106.05527), or null; under objective fid of the "
            "score's step alone, which then differs from the released one: docs/released.md"
        ),
    ]
    reconstruction: Annotated[bool, Field(description="add the reconstruction term at eps to objective nll")]
    lr: Annotated[Rate, Field(description="peak learning rate of the score network")]
    flow_lr: Annotated[Rate, Field(description="peak learning rate of the flow")]
    warmup_steps: Annotated[int, Field(ge=0, description="steps of linear warm-up")]
    schedule: Annotated[Literal["constant", "cosine"], Field(description="learning rate after the warm-up")]
    weight_decay: Annotated[float, Field(ge=0, le=1000, description="AdamW's weight decay")]
    grad_clip: Annotated[Positive, Field(description="largest gradient norm, of each network")]
    reduction: Annotated[
        Literal["mean", "sum"],
        Field(
            description="of the losses over the D dimensions of an image, in front of the clipping: gradients of the sum are D "
            "times as long; train.csv is per dimension in either case"
        ),
    ]
    ema_decay: Annotated[Fraction, Field(description="decay of the score network's averaged weights")]
    flow_ema_decay: Annotated[Fraction, Field(description="decay of the flow's averaged weights")]
    log_every: Annotated[Count, Field(description="steps averaged in a row of the learning curve")]
