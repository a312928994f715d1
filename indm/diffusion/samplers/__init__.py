"""Samplers, which map a start z_T to a latent at the truncation time, and their shared parts."""
