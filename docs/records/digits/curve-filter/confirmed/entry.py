"""An entry: a curve of the pixel value, and then a filter, both learned with the score network."""

from indm.flows.build import Composed
from indm.flows.registered.curve import FLOW as Curve
from indm.flows.registered.filter import FLOW as Filter

LABEL = "curve-filter"
RATES = {
    "smoke": {"lr": 1.0e-2, "flow_lr": 1.0e-2},
    "densities": {"lr": 1.0e-2, "flow_lr": 1.0e-2},
    "digits": {"lr": 1.67e-2, "flow_lr": 1.0e-3},
}


class CurveFilter(Composed):
    """The filter behind the curve."""

    def __init__(self, channels_in: int, image_size: int) -> None:
        super().__init__(Curve(channels_in, image_size), Filter(channels_in, image_size))


FLOW = CurveFilter
