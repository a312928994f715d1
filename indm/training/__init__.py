"""Training: batches, steps, the loop, and the saved state from which a killed training continues."""
