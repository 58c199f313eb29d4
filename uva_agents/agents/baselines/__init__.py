"""What agents are compared to: Diffusion Policy and the two-frame inverse model."""
