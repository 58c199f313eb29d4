"""Readers: one file format each, from a path to what is stored in it. :func:`uva_agents.data.open_dataset` is the front door."""
