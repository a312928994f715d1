"""Names of registered members: whatever the registries hold."""

from typing import TYPE_CHECKING, Literal

from indm.registry import DATASETS, DIFFUSIONS, FLOWS, NETWORKS, SAMPLERS

# The flow of a DDPM++, which no suite names, and the maps that it can have in its place: those of train.latent.learned.
IDENTITY = "identity"
LEARNED = ("scale", "affine", "linear")
# Draws the points of stage toy2d, and is in no suite.
DDIM = "ddim"
# Of a sweep, and the sampler that it is, with the Langevin corrector.
PC, PREDICTOR = "pc", "reverse_diffusion"

if TYPE_CHECKING:
    DatasetName = str
    DiffusionName = str
    FlowName = str
    NetworkName = str
    SamplerName = str
    SweptName = str
else:
    DatasetName = Literal[tuple(DATASETS)]
    DiffusionName = Literal[tuple(DIFFUSIONS)]
    FlowName = Literal[tuple(name for name in FLOWS if name not in (IDENTITY, *LEARNED))]
    NetworkName = Literal[tuple(NETWORKS)]
    SamplerName = Literal[tuple(name for name in SAMPLERS if name != DDIM)]
    # Those that take as many steps as they are told.
    SweptName = Literal[
        tuple(
            PC if name == PREDICTOR else name for name in SAMPLERS if name != DDIM and SAMPLERS.literal(name, "CALLS")
        )
    ]
