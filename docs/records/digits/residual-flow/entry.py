"""An entry: INDM's residual flow, as large as in the suite digits-seeds."""

from indm.flows.registered.resflow import ResidualFlow

LABEL = "residual-flow"
RATES = {
    "smoke": {"lr": 1.0e-2, "flow_lr": 1.0e-3},
    "densities": {"lr": 1.0e-2, "flow_lr": 1.0e-3},
    "digits": {"lr": 1.739e-2, "flow_lr": 1.425e-3},
}


class Residual(ResidualFlow):
    """INDM's flow with its sizes."""

    def __init__(self, channels_in: int, image_size: int) -> None:
        blocks = (2, 2) if image_size > 2 else (4,)
        super().__init__(channels_in, image_size, blocks=blocks, width=64, activation="sin", bound="linf", probe="gaussian")


FLOW = Residual
