"""Flows: invertible maps between data and the latent space of the linear diffusion, with one interface."""
