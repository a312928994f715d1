"""Sections ``train.flow`` and ``train.latent``: what stands between the data and the linear diffusion."""

from typing import Annotated, Literal

from pydantic import Field

from indm.suite.schema.names import FlowName
from indm.suite.schema.types import Positive, Width
from indm.suite.strict_yaml import Strict


class WolfParams(Strict):
    """What the wolf flow has besides its residual blocks: an encoder q(h|x) and a prior p(h)."""

    latent_dim: Annotated[int, Field(ge=2, le=4096, multiple_of=2, description="dimension of h")]
    encoder_widths: Annotated[list[Width], Field(min_length=1, description="channels of the encoder's levels")]
    encoder_channels_out: Annotated[Width, Field(description="channels at the encoder's top")]
    prior_steps: Annotated[int, Field(ge=1, le=1000, description="steps of the prior's flow")]
    prior_width: Annotated[Width, Field(description="hidden units of the prior's couplings")]
    frozen_prior_inverse: Annotated[
        bool, Field(description="draw h with the prior's inverse of before the training, as the released code does")
    ]


class FlowParams(Strict):
    """The flow of INDM; DDPM++ has the identity instead, or the map of train.latent.learned."""

    name: Annotated[FlowName, Field(description="registered flow")]
    blocks: Annotated[
        list[Annotated[int, Field(ge=0, le=1000)]],
        Field(min_length=1, max_length=3, description="residual blocks at each scale; a scale halves the image"),
    ]
    width: Annotated[Width, Field(description="hidden channels of a residual block")]
    activation: Annotated[Literal["sin", "elu"], Field(description="activation of a residual block")]
    bound: Annotated[Literal["linf", "spectral"], Field(description="norm by which each convolution is bounded")]
    coefficient: Annotated[float, Field(ge=1e-3, le=0.999, description="bound of each convolution's norm")]
    init_at_bound: Annotated[bool, Field(description="start with the weights scaled to the bound")]
    probe: Annotated[Literal["gaussian", "rademacher"], Field(description="probe of the trace estimates")]
    exact_terms_train: Annotated[int, Field(ge=1, le=1000, description="series terms always summed, in training")]
    roulette_mean: Annotated[
        float, Field(ge=1e-6, le=1000, description="mean of the Poisson number of further terms, in training")
    ]
    wolf: Annotated[WolfParams | None, Field(description="encoder and prior of the wolf flow; null for resflow")]


class LatentParams(Strict):
    """A fixed affine map of the data in front of the flow, z = scale (x - mean) / std or z = scale x, and DDPM++'s learned one."""

    standardise: Annotated[
        bool, Field(description="subtract the mean of the training split's pixels and divide by their deviation")
    ]
    scale: Annotated[Positive, Field(description="factor of the data after that")]
    learned: Annotated[
        Literal["scale", "affine", "linear"] | None,
        Field(
            description="of ddpmpp, a map after that which is trained as the flow of indm is: one factor; a factor and a shift of "
            "each pixel and channel; an invertible matrix and a shift; null: none (docs/ladder.md)"
        ),
    ]
