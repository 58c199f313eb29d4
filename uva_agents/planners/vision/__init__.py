"""From pixels to where things are."""
