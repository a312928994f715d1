"""An entry: a gain for each spatial frequency and a mix of the colours, learned with the score network."""

from indm.flows.registered.filter import FLOW

LABEL = "filter"
RATES = {
    "smoke": {"lr": 1.0e-2, "flow_lr": 1.0e-2},
    "densities": {"lr": 1.0e-2, "flow_lr": 1.0e-2},
    "digits": {"lr": 1.67e-2, "flow_lr": 1.0e-3},
}
__all__ = ["FLOW"]
