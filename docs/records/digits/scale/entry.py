"""An entry: one scale for all pixels, learned with the score network."""

from indm.flows.registered.scale import FLOW

LABEL = "scale"
RATES = {
    "smoke": {"lr": 1.0e-2, "flow_lr": 1.0e-2},
    "densities": {"lr": 1.0e-2, "flow_lr": 1.0e-2},
    "digits": {"lr": 1.67e-2, "flow_lr": 1.0e-3},
}
__all__ = ["FLOW"]
