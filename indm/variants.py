"""The names of variants by which tables and claims find the models that they compare."""

SAME_COMPUTE, SAME_PARAMETERS, FROZEN_FLOW = "same-compute", "same-parameters", "frozen-flow"
