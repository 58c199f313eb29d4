"""Training: one loop, three stages."""
