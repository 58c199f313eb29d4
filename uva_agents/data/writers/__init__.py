"""Datasets on disk, in the formats of this package and of others."""
