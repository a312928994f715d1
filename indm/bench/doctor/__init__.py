"""The requirements of a suite on this machine, and which are missing."""
