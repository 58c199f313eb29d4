"""Training of the UVA network: autoencoder, then video, then all five tasks."""
