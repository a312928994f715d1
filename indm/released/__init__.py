"""Conversion of files from the paper's released code into modules of this package."""
