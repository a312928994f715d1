"""The registered datasets: each module defines ``DATASET``, and a dataset has the name of its module."""
