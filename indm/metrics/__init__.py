"""Sample quality: FID, KID, IS, precision and recall by torch-fidelity, clean-FID by clean-fid; the extractor is named."""
