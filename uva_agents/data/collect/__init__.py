"""Demonstrations from simulators."""
