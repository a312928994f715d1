"""Progress of stages while they work, from the lines that they write: a table of runs, and events for TensorBoard."""
