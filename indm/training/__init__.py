"""Training: batches, steps, the loop over steps, and the saved state from which a killed training continues."""
