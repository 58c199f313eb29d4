"""Kinds of weights, one row each: what describes, builds, loads and trains them. Whatever depends on the kind is looked up here.

Other packages add rows through the entry-point group ``uva_agents.weights``; the entry point has the name of the kind::

    [project.entry-points."uva_agents.weights"]
    my-policy = "my_package.my_policy:MY_POLICY"
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from uva_agents.checkpoints.limits import SCHEMA, check_sizes, check_uva
from uva_agents.checkpoints.schema import Range, Schema, shown
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.errors import InputError, MachineError
from uva_agents.model import DiffusionPolicyConfig, DiffusionPolicyNet, TwoFrameConfig, TwoFrameNet, UVAConfig, UVANet
from uva_agents.model.baselines.old_names import CONFIG_FIELDS as BASELINE_FIELDS
from uva_agents.model.uva.old_names import CONFIG_FIELDS as UVA_FIELDS
from uva_agents.utils.plugins import plugins

_LOG = logging.getLogger(__name__)
_OTHER = object()
GROUP = "uva_agents.weights"
"""Entry points of other packages."""

Reference = str | Callable[..., Any] | Mapping[str, Any]
"""An object, or ``"module:name"`` of one that is imported when it is needed: agents and training lie above this package."""


class NetworkConfig(Protocol):
    """Sizes of a network: a frozen dataclass whose fields are numbers, texts, tuples and dataclasses of such.

    ``action_steps`` (actions of a chunk) and ``proprio_dim`` (numbers of proprioception) are looked at where it has them.
    """

    @property
    def action_dim(self) -> int:
        """Numbers of an action."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, from which :class:`~uva_agents.checkpoints.schema.Schema` reads it again."""
        ...


Check = Callable[[Any, LinearNormalizer, InterfaceSpec, str], None]
"""(sizes, normaliser, interface, file for messages); raises WeightsError where they contradict each other."""


@dataclass(frozen=True)
class WeightsKind:
    """A kind of weights.

    Args:
        name: what ``config.json`` calls it.
        config: class of the network's sizes; see :class:`NetworkConfig`.
        network: sizes -> network; a module that has the sizes as its attribute ``config``.
        loaded_with: public classes that take such weights, for messages.
        policy: class of the agent that acts with them; its ``from_pretrained(folder, device=..., **options)`` is called. ``None``
            for weights that do not act.
        recipes: name -> function that makes a :class:`~uva_agents.training.recipe.Recipe`; what ``uva train`` knows by name.
        steps: ``(recipe, options) -> list`` of :class:`~uva_agents.training.steps.Step`, which train them.
        modules: stems of the files that every such folder has.
        ranges: what numbers in ``config`` may be; any by default. See :class:`~uva_agents.checkpoints.schema.Schema`.
        renamed: first name of a field of ``config`` or of what it consists of -> its name now. Saved weights and run folders keep
            the first names.
        added: field of ``config`` that the first version did not have -> the value that means what there was then.
        together: what sizes, normaliser and interface must say together beyond what holds for every network.
    """

    name: str
    config: type
    network: Callable[[Any], nn.Module]
    loaded_with: str
    policy: Reference | None = None
    recipes: Reference = field(default_factory=dict)
    steps: Reference | None = None
    modules: tuple[str, ...] = ("model",)
    ranges: Mapping[type, Mapping[str, Range]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    added: Mapping[str, Any] = field(default_factory=dict)
    together: Check | None = None

    @property
    def schema(self) -> Schema:
        """What reads and checks its sizes."""
        return Schema({**SCHEMA.ranges, **self.ranges}, SCHEMA.tags) if self.ranges else SCHEMA

    def read_sizes(self, values: Any, where: str) -> Any:
        """An instance of ``config`` from plain values, as ``to_dict`` of this or an earlier version gave them.

        Raises:
            WeightsError: see :meth:`~uva_agents.checkpoints.schema.Schema.read`.
        """
        return self.schema.read(self.config, _with_names(values, self.renamed), where)

    def first_names(self, values: Mapping[str, Any]) -> Any:
        """Plain values of the sizes as they were written first: fields under their first names, without those added since."""
        values = {name: value for name, value in values.items() if self.added.get(name, _OTHER) != value}
        return _with_names(values, {now: first for first, now in self.renamed.items()})

    def check(self, sizes: NetworkConfig, normalizer: LinearNormalizer, spec: InterfaceSpec, where: str) -> None:
        """That interface and normaliser are of the sizes of the network.

        Raises:
            WeightsError: otherwise, by field.
        """
        check_sizes(sizes, normalizer, spec, where)
        if self.together is not None:
            self.together(sizes, normalizer, spec, where)


UVA_WEIGHTS = WeightsKind(
    "uva",
    UVAConfig,
    UVANet,
    loaded_with="uva.Policy, uva.WorldModel, uva.InverseModel or uva.UVA",
    policy="uva_agents.agents.policy:Policy",
    recipes="uva_agents.training.uva.recipes:RECIPES",
    steps="uva_agents.training.uva.pipeline:uva_steps",
    modules=("model", "vae"),
    renamed=UVA_FIELDS,
    added={"keypoint_input": "detected", "wrist_maskable": False},
    together=check_uva,
)
DIFFUSION_POLICY = WeightsKind(
    "diffusion-policy",
    DiffusionPolicyConfig,
    DiffusionPolicyNet,
    loaded_with="uva.DiffusionPolicy",
    policy="uva_agents.agents.baselines.diffusion_policy:DiffusionPolicy",
    recipes="uva_agents.training.baselines.named_recipes:DIFFUSION_POLICY_RECIPES",
    steps="uva_agents.training.baselines.pipeline:diffusion_policy_steps",
    renamed=BASELINE_FIELDS,
)
TWO_FRAME = WeightsKind(
    "two-frame-inverse",
    TwoFrameConfig,
    TwoFrameNet,
    loaded_with="uva.TwoFrameInverse",
    recipes="uva_agents.training.baselines.named_recipes:TWO_FRAME_RECIPES",
    steps="uva_agents.training.baselines.pipeline:two_frame_steps",
    renamed=BASELINE_FIELDS,
)
OWN_KINDS = {kind.name: kind for kind in (UVA_WEIGHTS, DIFFUSION_POLICY, TWO_FRAME)}
"""This package's."""


def weights_kind(name: str) -> WeightsKind:
    """The kind of this name, of this package or another one that is installed.

    Raises:
        InputError: there is none; it names those that there are.
        MachineError: the package that adds it cannot be imported, or is wrong about it.
    """
    if name in OWN_KINDS:
        return OWN_KINDS[name]
    others = plugins(GROUP, own=OWN_KINDS, expected=WeightsKind)
    if name not in others:
        known = ", ".join([*OWN_KINDS, *others])
        raise InputError(
            f"no kind of weights is called {shown(name)}: known are {known}; a package that adds it may be missing"
        )
    return _loaded(name, others[name])


def all_kinds() -> Iterator[WeightsKind]:
    """This package's kinds, then those of other packages. What cannot be imported is left out with a warning."""
    yield from OWN_KINDS.values()
    for name, load in plugins(GROUP, own=OWN_KINDS, expected=WeightsKind).items():
        try:
            yield _loaded(name, load)
        except MachineError as error:
            _LOG.warning("%s", error)


def kind_of_network(config: Any) -> WeightsKind:
    """The kind whose networks have sizes of this class.

    Raises:
        InputError: there is none.
    """
    for kind in all_kinds():
        if type(config) is kind.config:
            return kind
    raise InputError(
        f"no kind of weights has a {type(config).__name__} for its sizes: a package adds one as an entry point of {GROUP!r}"
    )


def resolved(reference: Reference) -> Any:
    """The object that a row refers to.

    Raises:
        MachineError: there is no such module, or it has no such name.
    """
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise MachineError(f"{reference!r}, which a kind of weights refers to, cannot be imported: {error}") from error


def _with_names(values: Any, names: Mapping[str, str]) -> Any:
    if not names or not isinstance(values, Mapping):
        return values
    # A value under both names stays under both, and is refused as unknown.
    return {k if names.get(k, k) in values else names.get(k, k): _with_names(v, names) for k, v in values.items()}


def _loaded(name: str, load: Callable[[], Any]) -> WeightsKind:
    kind = load()
    if kind.name != name:
        raise MachineError(
            f"the entry point {name!r} ({GROUP}) is a kind of weights called {kind.name!r}: name them alike"
        )
    assert isinstance(kind, WeightsKind)
    return kind
