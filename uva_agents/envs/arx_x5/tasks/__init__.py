"""What there is to do on the twin, and who demonstrates it."""
