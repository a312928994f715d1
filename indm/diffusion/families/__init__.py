"""Model families: the parts of a run's model, and its name and style in tables and figures."""
