"""Linear diffusions of a latent, and all that is computed with them: objectives, samplers, likelihoods."""
