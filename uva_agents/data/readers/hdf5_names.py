"""How robomimic and LIBERO name what they record, and which of it must be whole for a recording to be of use."""

from __future__ import annotations

from collections.abc import Container, Iterable

from uva_agents.data.readers.metadata import usual_camera

ROBOMIMIC_CAMERAS = ("sideview_image", "agentview_image", "frontview_image", "robot0_eye_in_hand_image")
ROBOMIMIC_PROPRIO = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
LIBERO_CAMERAS = ("agentview_rgb",)
LIBERO_WRIST = "eye_in_hand_rgb"
LIBERO_PROPRIO = ("ee_states", "gripper_states")
CAMERA_KEYS = tuple(f"obs/{name}" for name in (*LIBERO_CAMERAS, *ROBOMIMIC_CAMERAS, LIBERO_WRIST))
CONVENTION = "macros_image_convention"
"""Attribute by which LIBERO's files say which row of a picture comes first."""
CONVENTIONS = ("opengl", "opencv")
ORIENTATION = (
    "has LIBERO's arrays and does not say whether its pictures are upside down, as LIBERO's are: they are shown as stored; look at "
    f"the sheet, and set the attribute {CONVENTION} of data to 'opengl' (upside down) or 'opencv' (upright)"
)


def essential_keys(cameras: Iterable[str], left_out: Container[str]) -> set[str]:
    """Keys that are never left out because they do not fit the others: actions, positions and the main camera."""
    main = usual_camera(CAMERA_KEYS, cameras, left_out)
    found = {"actions", *(f"obs/{name}" for name in (*ROBOMIMIC_PROPRIO, *LIBERO_PROPRIO))}
    return found if main is None else {*found, main}
