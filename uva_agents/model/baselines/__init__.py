"""Networks that UVA is compared to: Diffusion Policy, and two-frame inverse dynamics."""
