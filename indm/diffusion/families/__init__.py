"""Model families: what a run's model is built of, and how readers see it."""
