"""Saving and loading weights, and the ones that ship with the package."""

from uva_agents.checkpoints.bundle import Bundle
from uva_agents.checkpoints.folder import kind_of, read_config, resolve, shipped_names
from uva_agents.checkpoints.info import info
from uva_agents.checkpoints.kinds import NetworkConfig, WeightsKind, weights_kind
from uva_agents.checkpoints.networks import NetBundle, load_diffusion_policy, load_net, load_two_frame, save_net
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.checkpoints.store import load_bundle, save_bundle

__all__ = [
    "Bundle",
    "InterfaceSpec",
    "NetBundle",
    "NetworkConfig",
    "WeightsKind",
    "info",
    "kind_of",
    "load_bundle",
    "load_diffusion_policy",
    "load_net",
    "load_two_frame",
    "read_config",
    "resolve",
    "save_bundle",
    "save_net",
    "shipped_names",
    "weights_kind",
]
