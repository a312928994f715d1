"""Tables from result files; never imports torch."""

from indm.report.claims import claims_table
from indm.report.claims_file import load_claims
from indm.report.compute import compute_table
from indm.report.export import TITLES, present
from indm.report.published import comparison_table, read_published
from indm.report.results import Results, read_results, read_rows
from indm.report.tables import (
    ablation_table,
    discretization_table,
    fid_table,
    learning_curve_table,
    nll_table,
    protocol_table,
    toy2d_table,
)
from indm.report.values import values_table

__all__ = [
    "TITLES",
    "Results",
    "ablation_table",
    "claims_table",
    "comparison_table",
    "compute_table",
    "discretization_table",
    "fid_table",
    "learning_curve_table",
    "load_claims",
    "nll_table",
    "present",
    "protocol_table",
    "read_published",
    "read_results",
    "read_rows",
    "toy2d_table",
    "values_table",
]
