"""Training of the networks that UVA is compared to."""
