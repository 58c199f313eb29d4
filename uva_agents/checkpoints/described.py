"""What a weights folder's ``config.json`` says, checked as a whole before any tensor is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from uva_agents.checkpoints.filling import filled
from uva_agents.checkpoints.folder import entry, kind_of, read_config, verifier
from uva_agents.checkpoints.kinds import NetworkConfig, WeightsKind
from uva_agents.checkpoints.limits import read_interface, read_normalizer
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.checkpoints.tensor_files import stored_tensors
from uva_agents.data.normalizer import LinearNormalizer

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Description:
    """A weights folder without its tensors.

    Attributes:
        sizes: of the network.
        config: all of ``config.json``, as it is there.
    """

    folder: Path
    kind: WeightsKind
    name: str
    sizes: NetworkConfig
    normalizer: LinearNormalizer
    spec: InterfaceSpec
    config: Mapping[str, Any]

    @property
    def where(self) -> str:
        """The configuration's file."""
        return str(self.folder / "config.json")

    @property
    def files(self) -> list[Path]:
        """Those that its tensors are in."""
        names = [*self.kind.modules, *(["text"] if "text" in self.config else [])]
        return [self.folder / f"{name}.safetensors" for name in names]

    def filled(self, name: str, make: Callable[[], M]) -> M:
        """A network with the tensors of ``NAME.safetensors``, for inference.

        Raises:
            FileNotFoundError, WeightsError, MachineError: see :func:`~uva_agents.checkpoints.filling.filled`.
        """
        path = self.folder / f"{name}.safetensors"
        module = filled(make, stored_tensors(path), where=str(path), verify=verifier(self.config, path))
        return module.eval().requires_grad_(False)


def describe(folder: Path, kind: WeightsKind | None = None) -> Description:
    """Read a folder's configuration.

    Args:
        kind: that is wanted, if it must be one.

    Raises:
        WeightsError: it is damaged, of another version or kind; a field is unknown, missing, of another type or out of its range;
            or fields contradict each other.
    """
    config = read_config(folder, kind)
    kind, where = kind_of(config, folder), str(folder / "config.json")
    sizes: NetworkConfig = kind.read_sizes(entry(config, "model", folder), f"{where}: model")
    normalizer = read_normalizer(entry(config, "normalizer", folder), f"{where}: normalizer")
    spec = read_interface(entry(config, "interface", folder), f"{where}: interface")
    kind.check(sizes, normalizer, spec, where)
    return Description(folder, kind, config.get("name", folder.name), sizes, normalizer, spec, config)
