"""The measurements of the stages, by their names in ``values.csv``, to which columns, claims and published numbers refer."""

IMAGE_METRICS = ["fid", "fid_infinity", "kid", "is", "confidence", "precision", "recall"]
IMAGE_METRICS += ["clean_fid", "legacy_fid"]
LIKELIHOODS = ["nelbo", "nelbo_fixed", "nll", "nll_fixed", "nll_uncorrected", "gap"]
SWEEP_METRICS = ["fid", "kid"]
CURVE_METRICS = ["nelbo", "nelbo_fixed", "nll", "nll_fixed", "gap"]
# The effect of a flow on images; each gain has a band of spatial frequencies, the lowest first.
BANDS = 6
FLOW_METRICS = ["log_det", "log_det_spread", "midpoint", *(f"gain_{band}" for band in range(1, BANDS + 1))]
# The share of each band in the bound, of flows that act on each frequency alone.
BAND_METRICS = [f"nelbo_band_{band}" for band in range(1, BANDS + 1)]
TOY2D_METRICS = [
    "nelbo_excess",
    "nll_excess",
    "gap",
    "true_gap",
    "true_gap_fewer",
    "ess",
    "energy",
    "path_ratio",
    "midpoint",
]
TOY2D_METRICS += ["latent_std", "parameters", "train_flops", "moved", "step_flops"]
# The metrics of each stage to which claims refer.
METRICS = {
    "fid": IMAGE_METRICS,
    "nll": LIKELIHOODS,
    "curve": CURVE_METRICS,
    "sweep": SWEEP_METRICS,
    "toy2d": TOY2D_METRICS,
}
# The published numbers that are shown next to ours.
PUBLISHED_METRICS = ("nll", "fid", "is")
