"""Files of results: layout, formats, manifests, provenance, and unfinished work."""
