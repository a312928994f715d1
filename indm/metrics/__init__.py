"""Sample quality: FID, KID, IS, precision and recall by torch-fidelity, and clean-FID by clean-fid."""
