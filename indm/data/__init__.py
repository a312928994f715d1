"""Datasets: images as levels, where they come from, and how they map to model space and to bits."""
