"""Training: batches, steps, the loop, and what a killed training goes on from."""
