"""Tensors and fields of weights that were saved under earlier names."""

from __future__ import annotations

from uva_agents.model.renaming import Renaming

CONFIG_FIELDS = {"geometry": "relations", "guesses": "modes", "points": "positions"}
"""First name of a field -> its name now."""

_TENSORS = Renaming(
    {
        "geometry.guess.": "relations.modes.",
        "geometry.share.": "relations.log_weights.",
        "geometry.spread": "relations.raw_std",
        "geometry.": "relations.",
    }
)
renamed, renamed_tensors, first_name = _TENSORS.name, _TENSORS.state, _TENSORS.first
