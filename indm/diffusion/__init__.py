"""Linear diffusions of a latent, with their objectives, samplers and likelihoods."""
