"""Saving and loading weights, and the ones that ship with the package."""

from uva_agents.checkpoints.info import info
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.checkpoints.store import Bundle, load_bundle, resolve, save_bundle, shipped_names

__all__ = ["Bundle", "InterfaceSpec", "info", "load_bundle", "resolve", "save_bundle", "shipped_names"]
