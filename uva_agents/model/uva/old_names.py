"""Tensors and fields of weights that were saved under earlier names."""

from __future__ import annotations

from uva_agents.model.renaming import Renaming

CONFIG_FIELDS = {
    "readout_dim": "frame_state_dim",
    "frame_points": "num_keypoints",
    "point_reader": "keypoint_detector",
    "point_axes": "keypoint_axes",
    "frame_sketch": "rendered_prior",
    "point_dynamics": "keypoint_dynamics",
    "proprio_points": "proprio_keypoints",
}
"""First name of a field -> its name now."""

_TENSORS = Renaming(
    {
        "point_reader.": "guide.detector.",
        "point_dynamics.": "guide.dynamics.",
        "point_writer.": "guide.renderer.",
        "history_point_proj.": "guide.history_proj.",
        "future_point_proj.": "guide.future_proj.",
        "sketch_proj.": "guide.prior_proj.",
        "readout_squeeze.": "state_head.squeeze.",
        "readout.": "state_head.net.",
    }
)
renamed, renamed_tensors, first_name = _TENSORS.name, _TENSORS.state, _TENSORS.first
