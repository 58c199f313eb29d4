"""Keypoints: detected in frames, moved by actions, rendered back into frames."""
