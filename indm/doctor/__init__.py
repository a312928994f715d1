"""What a suite needs of this machine, and what of it is missing."""
