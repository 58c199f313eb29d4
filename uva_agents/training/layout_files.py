"""Layouts as TOML files that people copy and edit."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from uva_agents.errors import DataError
from uva_agents.training.recipe import DataConfig, plain
from uva_agents.training.saved_recipes import data_from_dict
from uva_agents.utils.files import read_regular_text

_LONGEST = 1 << 20
_HEAD = """\
# How {source} is laid out, for `uva train SIZE --data PATH --layout FILE`.
#
# fields       canonical name -> the stored key that it is taken from (several are joined), and which of its columns.
#              pixels: main camera; what wrist_key names: a second one; action: what is learned. Leave a table out to do
#              without.
# names, units of the numbers in a row, for people and for messages.
# limits       [low, high] of an array where those of the data are not the right ones: one number, or one for each.
# action_transforms, proprio_transforms
#              conventions between what is recorded and what is learned: absolute-poses, relative-poses, relative-proprio,
#              delta-actions, gripper-range.
# instructions none, table (the recorded ones, each with its own vector), clip (needs --text-encoder) or given.
# rows_per_step  recorded rows in a control step; control_hz is the rate of control steps.
# held_out     episodes kept from training; below 1 a share of them.
# trim         rows at an episode's beginning and end that are no window's 'now'.
# unscaled     canonical name -> columns that are learned as they are, for example those of a rotation.
# instructions_of, blacked_out
#              name of a dataset -> the instruction of its episodes, and what is blacked out in its pictures (umi-mirrors).

"""


def layout_to_toml(layout: DataConfig, source: str = "a dataset") -> str:
    """Text of a layout; :func:`layout_from_toml` is the inverse."""
    return _HEAD.format(source=source) + tomli_w.dumps(without_none(plain(layout)))


def layout_from_toml(path: str | Path) -> DataConfig:
    """A layout from a file.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is no TOML; a key is unknown, missing or of another type; its name is in the message.
    """
    path = Path(path)
    try:
        values = tomllib.loads(read_regular_text(path, limit=_LONGEST))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is no TOML: {error}") from error
    return data_from_dict(values, str(path))


def without_none(value: Any) -> Any:
    """Plain values for TOML, which has no word for nothing: what is left out has its default."""
    if isinstance(value, Mapping):
        return {str(key): without_none(entry) for key, entry in value.items() if entry is not None}
    return [without_none(entry) for entry in value] if isinstance(value, list) else value
