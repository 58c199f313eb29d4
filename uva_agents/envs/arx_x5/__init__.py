"""``uva/ArxX5-v0``: the ARX X5 arm, or its simulated twin."""
