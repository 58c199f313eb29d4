"""From pixels to positions on a plane."""
