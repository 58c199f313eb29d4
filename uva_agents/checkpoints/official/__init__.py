"""Released checkpoints: read without running anything that is in them, and renamed."""
