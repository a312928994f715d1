"""Models of others: likelihoods of their networks, and distances of their samples from a dataset."""
