"""Who moves the arm: the SDK, or the twin."""
