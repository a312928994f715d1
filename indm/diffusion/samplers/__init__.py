"""Samplers: from a start z_T to a latent at the truncation time, and what they share."""
