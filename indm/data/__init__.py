"""Datasets: images as levels, their sources, and their maps to model space and to bits."""
