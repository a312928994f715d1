"""The registered datasets, a module each, which defines ``DATASET``; a dataset's name is its module's."""
