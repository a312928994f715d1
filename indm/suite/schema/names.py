"""Names of registered members: whatever the registries hold."""

from typing import TYPE_CHECKING, Literal

from indm.registry import DATASETS, DIFFUSIONS, FLOWS, NETWORKS

# The flow of a DDPM++, which no suite names, and the maps that it can have in its place: those of train.latent.learned.
IDENTITY = "identity"
LEARNED = ("scale", "affine", "linear")

if TYPE_CHECKING:
    DatasetName = str
    DiffusionName = str
    FlowName = str
    NetworkName = str
else:
    DatasetName = Literal[tuple(DATASETS)]
    DiffusionName = Literal[tuple(DIFFUSIONS)]
    FlowName = Literal[tuple(name for name in FLOWS if name not in (IDENTITY, *LEARNED))]
    NetworkName = Literal[tuple(NETWORKS)]
