"""Diffusion models of two-dimensional data, where likelihoods and transport are measured without estimator noise."""
