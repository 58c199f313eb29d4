"""Training of keypoint detector, dynamics and renderer."""
