"""The paper's released code: its files in, this package's modules out."""
