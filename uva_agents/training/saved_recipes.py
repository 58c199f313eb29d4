"""Recipes in files: those of this version, those of earlier ones, and the names that run folders know settings by.

Recipes were flat at first. A run folder is recognised by a hash of its recipe as it was written then, so the tables below serve
twice: to read old files, and to name settings as they were named first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from uva_agents.checkpoints.kinds import WeightsKind, resolved, weights_kind
from uva_agents.data import BLOCK_PUSH_FIELDS, PUSHT_FIELDS, Field
from uva_agents.data.transforms import Transform, load_named, transform_from_dict
from uva_agents.errors import DataError, InputError, WeightsError
from uva_agents.training.recipe import DataConfig, Recipe, StageConfig, plain
from uva_agents.utils.files import read_regular_text

_DATA = {
    name: f"data.{name}" for name in ("fields", "limits", "env_id", "proprio_key", "held_out", "control_hz", "execute")
}
_FIRST_ELSEWHERE = ("data.frame_state_keys",)
"""Settings of the data that the first recipes had under another name."""
_FIRST_NAMES: Mapping[str, Mapping[str, str]] = {
    "uva": {
        **{name: name for name in ("name", "model", "seed")},
        **_DATA,
        "readout_keys": "data.frame_state_keys",
        "unit": "world.unit",
        "unit_scale": "world.unit_scale",
        "world_size": "world.size",
        **{name: f"augmentation.{name}" for name in ("variants", "max_shift", "mirror")},
        "vae": "autoencoder.stage",
        "kl_weight": "autoencoder.kl_weight",
        "points": "keypoints.detector",
        "dynamics": "keypoints.dynamics",
        "writer": "keypoints.renderer",
        "point_noise": "keypoints.noise",
        "agent_point_weight": "keypoints.agent_weight",
        **{
            name: f"network.{name}"
            for name in (
                "video",
                "joint",
                "task_weights",
                "mask_minimum",
                "mask_std",
                "history_dropout",
                "proprio_dropout",
                "history_action_dropout",
                "varied_history",
                "latent_noise",
                "action_weight",
                "gradient_checkpointing",
            )
        },
        "readout_weight": "network.frame_state_weight",
    },
    "diffusion-policy": {
        **{name: name for name in ("name", "model", "stage", "seed", "draws", "crop_together", "whole_chunks")},
        **_DATA,
        **{name: name for name in ("positions_key", "encoder_weight_decay")},
        "points_limits": "position_limits",
        "guesses": "mixture_prior",
        "point_augmentation": "augmentation",
    },
    "two-frame-inverse": {**{name: name for name in ("name", "model", "stage", "seed")}, **_DATA},
}
"""Kind -> first name of a setting -> where it is now."""

_WITHOUT: Mapping[str, Mapping[str, Any]] = {
    "uva": {"kl_weight": 0.01, "point_noise": 0.0, "agent_point_weight": 1.0},
    "diffusion-policy": {},
    "two-frame-inverse": {
        "guesses": None,
        "draws": 1,
        "crop_together": True,
        "positions_key": None,
        "points_limits": None,
        "whole_chunks": False,
        "point_augmentation": None,
        "encoder_weight_decay": None,
    },
}
"""What the flat form says of settings that a recipe does not have."""

_STAGES = {"vae", "points", "dynamics", "writer", "video", "joint", "stage", "guesses"}


def identity(recipe: Recipe) -> dict[str, Any]:
    """What decides a run beside the optimisation of its stages: checkpoints continue only where it is the same.

    Run folders keep a hash of it, so it does not change from version to version: what was renamed is here under its first name.
    """
    if recipe.kind not in _FIRST_NAMES:
        return {k: v for k, v in recipe.to_dict().items() if not isinstance(getattr(recipe, k, None), StageConfig)}
    values = dict(_WITHOUT[recipe.kind])
    for name, place in _FIRST_NAMES[recipe.kind].items():
        with contextlib.suppress(LookupError):
            values[name] = _at(recipe, place)
    values = {name: value for name, value in values.items() if name not in _STAGES}
    fields = recipe.data.fields.items()
    values["fields"] = {k: f.key if recipe.kind == "uva" else _text(f) for k, f in fields}
    values["model"] = weights_kind(recipe.kind).first_names(recipe.model.to_dict())
    for part in ("data", "network", "augmentation"):
        values |= _since(recipe, part)
    found: dict[str, Any] = plain(values)
    return found


def _since(recipe: Recipe, part: str) -> dict[str, Any]:
    """Settings that the first recipes did not have, where they differ from what held then."""
    settings, found = getattr(recipe, part, None), {}
    known = {*_FIRST_NAMES[recipe.kind].values(), *_FIRST_ELSEWHERE}
    if part in known:
        return {}
    for entry in dataclasses.fields(settings) if dataclasses.is_dataclass(settings) else ():
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        place, value = f"{part}.{entry.name}", getattr(settings, entry.name)
        if place not in known and value != default:
            found[place] = value
    return found


def _later(recipe: Recipe) -> dict[str, Any]:
    """The same of the settings of a network's training, beside its stages."""
    training, known = getattr(recipe, "network", None), _FIRST_NAMES[recipe.kind].values()
    if not dataclasses.is_dataclass(training):
        return {}
    return {
        entry.name: getattr(training, entry.name)
        for entry in dataclasses.fields(training)
        if f"network.{entry.name}" not in known and getattr(training, entry.name) != entry.default
    }


def read_recipe(path: str | Path) -> Recipe:
    """The recipe of a run folder, from its ``recipe.json``.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is not one that this version understands.
    """
    path = Path(path)
    path = path / "recipe.json" if path.is_dir() else path
    try:
        values = json.loads(read_regular_text(path, limit=4 << 20))
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}") from error
    return recipe_from_dict(values, str(path))


def recipe_from_dict(values: Any, where: str = "recipe") -> Recipe:
    """Inverse of :meth:`~uva_agents.training.recipe.Recipe.to_dict`; takes the flat form of earlier versions, too.

    Raises:
        DataError: a setting is unknown, missing or of another type.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get("model"), Mapping):
        raise DataError(f"{where} is no recipe: it has no network")
    try:
        kind = weights_kind(str(values.get("kind") or _first_kind(values)))
        if "kind" not in values:
            values = _nested(values, kind.name)
        makers = resolved(kind.recipes)
        if not makers:
            raise InputError(f"weights of kind {kind.name!r} have no recipes")
        cls = type(next(iter(makers.values()))())
        recipe: Recipe = _dataclass(cls, {k: v for k, v in values.items() if k != "kind"}, where, kind)
        return recipe
    except (WeightsError, InputError) as error:
        raise DataError(str(error)) from error


def data_from_dict(values: Any, where: str = "layout") -> DataConfig:
    """A recipe's data from plain values, checked.

    Raises:
        DataError: a setting is unknown, missing or of another type.
    """
    found: DataConfig = _dataclass(DataConfig, values, where, weights_kind("uva"))
    return found


def _first_kind(values: Mapping[str, Any]) -> str:
    if "joint" in values:
        return "uva"
    return "two-frame-inverse" if "stride" in values["model"] else "diffusion-policy"


def _nested(values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The flat form as nested settings."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        place = _FIRST_NAMES[kind].get(name)
        if place is None:
            if name in _WITHOUT[kind]:
                continue
            raise DataError(f"the recipe has an unknown setting {name!r}")
        *parents, last = place.split(".")
        target = nested
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    nested["data"]["fields"] = {k: _first_field(k, v) for k, v in values["fields"].items()}
    # Flat recipes had every stage: one of no steps was one that is not there.
    for part in ("autoencoder", "keypoints"):
        stages = [entry for entry in nested.get(part, {}).values() if isinstance(entry, Mapping)]
        if part in nested and not any(stage["steps"] for stage in stages):
            nested[part] = None
    return nested


def _first_field(name: str, text: Any) -> Any:
    """Columns were not written, or as a text: a key of one of the named layouts is that layout's."""
    for layout in (PUSHT_FIELDS, BLOCK_PUSH_FIELDS):
        known = layout.get(name)
        if known is not None and (plain(known.key) == text or _text(known) == text):
            return plain(known)
    return {"key": text}


def _text(found: Field) -> str:
    return f"{found.key}{'' if found.columns is None else found.columns}"


def _at(value: Any, place: str) -> Any:
    for name in place.split("."):
        if value is None:
            raise LookupError(place)
        value = getattr(value, name)
    return value


def _dataclass(cls: Any, values: Any, where: str, kind: WeightsKind) -> Any:
    if cls is kind.config:
        return kind.read_sizes(values, where)
    if not isinstance(values, Mapping):
        raise DataError(f"{where} is {values!r}, not an object with settings")
    hints = get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - known):
        raise DataError(f"{where} has an unknown setting {unknown[0]!r}: known are {', '.join(sorted(known))}")
    read = {name: _value(hints[name], value, f"{where}: {name}", kind) for name, value in values.items()}
    try:
        return cls(**read)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str, kind: WeightsKind) -> Any:
    """A value of JSON as its annotation says."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if hint is slice:
        if isinstance(value, Mapping) and set(value) <= {"start", "stop"}:
            return slice(value.get("start"), value.get("stop"))
    elif origin in (Union, types.UnionType):
        return _first_that_reads(args, value, where, kind)
    elif origin is Literal:
        if value in args:
            return value
    elif hint is Transform:
        return _transform(value, where)
    elif dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, where, kind)
    elif origin is tuple and isinstance(value, list):
        several = args[:1] * len(value) if args[-1] is Ellipsis else args
        if len(several) == len(value):
            return tuple(_value(one, v, where, kind) for one, v in zip(several, value, strict=True))
    elif isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {_value(args[0], k, where, kind): _value(args[1], v, f"{where}: {k}", kind) for k, v in value.items()}
    elif isinstance(hint, type) and issubclass(hint, Enum) and value in [entry.value for entry in hint]:
        return hint(value)
    elif isinstance(hint, type) and (type(value) is hint or (hint is float and type(value) is int)):
        return value
    raise DataError(f"{where} is {value!r}, which this version does not understand")


def _transform(value: Any, where: str) -> Transform:
    if not isinstance(value, Mapping):
        raise DataError(f"{where} is {value!r}, no convention of poses")
    load_named([value])
    try:
        return transform_from_dict(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}") from error


def _first_that_reads(hints: tuple[Any, ...], value: Any, where: str, kind: WeightsKind) -> Any:
    error = DataError(f"{where} is {value!r}, which this version does not understand")
    for hint in hints:
        try:
            return _value(hint, value, where, kind)
        except (DataError, WeightsError) as found:
            if isinstance(value, Mapping) and dataclasses.is_dataclass(hint):
                error = DataError(str(found))  # which says what is wrong inside
    raise error
