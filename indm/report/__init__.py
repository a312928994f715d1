"""Tables from result files; never imports torch."""

from indm.report.tables import fid_table, nll_table, present, read_published

__all__ = ["fid_table", "nll_table", "present", "read_published"]
