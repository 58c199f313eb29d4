"""The twin as a MuJoCo model: the arm from its numbers, drawn with capsules and boxes; a table, a cup, a saucer and a block on it.

The world's frame is the arm's base frame. The table's top is at z = 0: the arm stands on it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from uva_agents.envs.arx_x5.arm.geometry import BASE, LINKS, Inertia
from uva_agents.envs.arx_x5.arm.limits import ArmLimits
from uva_agents.envs.arx_x5.twin.appearance import appearance_assets_xml, distractors_xml
from uva_agents.envs.arx_x5.twin.optics import WRIST_FOVY, WRIST_POSITION, WRIST_TILT
from uva_agents.envs.arx_x5.twin.sdk import GRAVITY

PHYSICS_DT = 0.002
TABLE = (-0.42, 0.78, -0.6, 0.6)
"""x from and to, y from and to, metres."""
CAMERAS = ("wrist", "outside")
OBJECTS = ("cup", "saucer", "block")
CUP_RADIUS, CUP_HEIGHT = 0.029, 0.065
SAUCER_RADIUS, SAUCER_HEIGHT = 0.062, 0.012
BLOCK_SIDE = 0.04
TARGET_AWAY = (0.0, 0.0, -5.0)
"""Where the target's marker is when no target is shown."""

_OUTSIDE = (0.95, -0.62, 0.62)
"""Where the outside camera is, metres: it sees the arm, the table before it and what is on it."""
_FINGER_MASS = 0.015
_MOTOR_INERTIA = (0.02, 0.02, 0.02, 0.008, 0.008, 0.008)
"""kg m^2 behind the gears, estimated; the SDK's models have none."""
_GRIPPER_MOTOR_INERTIA = 3e-4
_JOINT_FRICTION = 0.02
"""N m, estimated."""
_TORQUE_PEAK = 1.1
"""Motors give a little more than the SDK tolerates: its limit is one on what is measured."""

# Links collide with the world, not with each other; a bit each.
_WORLD, _ARM = 'contype="1" conaffinity="3"', 'contype="2" conaffinity="1"'
_SEEN_ONLY = 'contype="0" conaffinity="0"'


def _text(values: Sequence[float] | np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)


def arm_xml(limits: ArmLimits) -> str:
    """Only the six links, the gripper a part of the last: for what gravity asks of the motors."""
    return f"""<mujoco model="{limits.model}">
  {_options()}
  <worldbody>{_arm(limits, fingers=False)}</worldbody>
</mujoco>"""


def scene_xml(limits: ArmLimits) -> str:
    """Everything. Joints ``joint1`` to ``joint6``, ``left_finger``, ``right_finger``, free joints named as the objects.

    Actuators 0 to 6 are the six joints and the gripper. The force of each is its control, less its stiffness times position
    and damping times velocity: both are set while it runs, and integrated implicitly.
    """
    peak = limits.joint_torque_max * _TORQUE_PEAK
    ratio = gear(limits)
    motors = "".join(
        f'<general name="motor{i + 1}" joint="joint{i + 1}" biastype="affine" forcelimited="true" '
        f'forcerange="{-peak[i]:.6g} {peak[i]:.6g}"/>'
        for i in range(6)
    )
    grip = limits.gripper_torque_max * _TORQUE_PEAK * ratio
    return f"""<mujoco model="{limits.model} twin">
  {_options()}
  <visual>
    <global offwidth="1024" offheight="1024"/>
    <headlight ambient="0.35 0.35 0.35" diffuse="0.35 0.35 0.35" specular="0.1 0.1 0.1"/>
    <quality shadowsize="1024" offsamples="4"/>
    <map znear="0.005" zfar="20"/>
  </visual>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1="0.75 0.8 0.85" rgb2="0.45 0.5 0.55" width="64" height="64"/>
    <texture name="planks" type="2d" builtin="checker" rgb1="0.62 0.47 0.34" rgb2="0.58 0.43 0.31" width="64" height="64"/>
    <material name="table" texture="planks" texrepeat="8 8" texuniform="true" specular="0.1"/>
    <material name="floor" rgba="0.4 0.42 0.45 1" specular="0"/>
    <material name="shell" rgba="0.82 0.83 0.85 1" specular="0.3"/>
    <material name="motor" rgba="0.2 0.21 0.23 1" specular="0.3"/>
    <material name="finger" rgba="0.93 0.5 0.13 1" specular="0.2"/>
    <material name="china" rgba="0.93 0.93 0.9 1" specular="0.5"/>
    <material name="cup" rgba="0.16 0.42 0.72 1" specular="0.5"/>
    <material name="coffee" rgba="0.2 0.11 0.06 1"/>
    <material name="block" rgba="0.8 0.16 0.16 1"/>
    <material name="target" rgba="0.1 0.85 0.25 0.6"/>{appearance_assets_xml()}
  </asset>
  <worldbody>
    <light pos="0.6 -0.8 1.6" dir="-0.25 0.45 -0.9" diffuse="0.55 0.55 0.55" castshadow="true"/>
    <light pos="-0.4 1.0 1.4" dir="0.4 -0.6 -0.8" diffuse="0.25 0.25 0.25" castshadow="false"/>
    <geom name="floor" type="plane" pos="0 0 -0.75" size="4 4 0.1" material="floor" {_WORLD}/>
    {_table()}
    <camera name="outside" pos="{_text(_OUTSIDE)}" {_looking(_OUTSIDE, (0.25, 0.02, 0.16))} fovy="36"/>
    {_arm(limits, fingers=True)}
    {_cup()}
    {_saucer()}
    <body name="block" pos="0.1 0.45 {BLOCK_SIDE / 2}">
      <freejoint name="block"/>
      <geom type="box" size="{BLOCK_SIDE / 2} {BLOCK_SIDE / 2} {BLOCK_SIDE / 2}" mass="0.06" material="block" {_WORLD}/>
    </body>
    <body name="target" mocap="true" pos="{_text(TARGET_AWAY)}">
      <geom type="sphere" size="0.016" material="target" {_SEEN_ONLY}/>
    </body>
    {distractors_xml()}
  </worldbody>
  <equality><joint joint1="left_finger" joint2="right_finger" solref="0.004 1" solimp="0.98 0.999 0.0005"/></equality>
  <tendon><fixed name="opening"><joint joint="left_finger" coef="1"/><joint joint="right_finger" coef="1"/></fixed></tendon>
  <actuator>
    {motors}
    <general name="gripper" tendon="opening" biastype="affine" forcelimited="true" forcerange="{-grip:.6g} {grip:.6g}"/>
  </actuator>
</mujoco>"""


def gear(limits: ArmLimits) -> float:
    """rad of the gripper's motor per metre of opening."""
    return limits.gripper_open_readout / limits.gripper_width


def _options() -> str:
    return (
        f'<compiler angle="radian" autolimits="true"/><option timestep="{PHYSICS_DT}" gravity="{_text(GRAVITY)}" '
        'integrator="implicitfast" cone="elliptic" impratio="10"><flag multiccd="enable"/></option>'
        '<default><geom friction="0.9 0.01 0.0005" condim="4" solref="0.006 1"/></default>'
    )


def _arm(limits: ArmLimits, *, fingers: bool) -> str:
    links = LINKS[limits.model]
    text = f'<body name="base_link">{_inertial(BASE)}{_BASE_SHAPE if fingers else ""}'
    for i, link in enumerate(links):
        axis = [0, 0, 0]
        axis[link.axis] = 1
        low, high = limits.joint_pos_min[i], limits.joint_pos_max[i]
        inertia, shape = link.inertia, ""
        if fingers:
            shape = _SHAPES[i] if i < len(_SHAPES) else _palm(limits)
            if i == len(links) - 1:
                inertia = _without(inertia, *_finger_inertias(limits))
        text += (
            f'<body name="link{i + 1}" pos="{_text(link.origin)}" euler="{link.roll} 0 0">'
            f'<joint name="joint{i + 1}" axis="{_text(axis)}" range="{low} {high}" solreflimit="0.004 1" damping="0.05" '
            f'armature="{_MOTOR_INERTIA[i]}" frictionloss="{_JOINT_FRICTION}"/>{_inertial(inertia)}{shape}'
        )
    text += f'<site name="tool" pos="{limits.tool_offset} 0 0" size="0.004" rgba="0 0 0 0"/>'
    if fingers:
        text += _camera() + _finger(limits, 1) + _finger(limits, -1)
    return text + "</body>" * 7


def _capsule(start: Sequence[float], end: Sequence[float], radius: float, material: str = "shell") -> str:
    return f'<geom type="capsule" fromto="{_text(start)} {_text(end)}" size="{radius}" material="{material}" {_ARM}/>'


def _drum(start: Sequence[float], end: Sequence[float], radius: float) -> str:
    return f'<geom type="cylinder" fromto="{_text(start)} {_text(end)}" size="{radius}" material="motor" {_ARM}/>'


# What stands on the table does not collide with it.
_BASE_SHAPE = (
    f'<geom type="cylinder" fromto="0 0 0 0 0 0.012" size="0.07" material="motor" {_SEEN_ONLY}/>'
    f'<geom type="cylinder" fromto="0 0 0.012 0 0 0.062" size="0.044" material="shell" {_SEEN_ONLY}/>'
)
_SHAPES = (
    f'<geom type="cylinder" fromto="0 0 0 0 0 0.012" size="0.04" material="motor" {_SEEN_ONLY}/>'
    f'<geom type="box" pos="0.015 0 0.03" size="0.03 0.026 0.022" material="shell" {_SEEN_ONLY}/>',
    _drum((0, -0.036, 0), (0, 0.036, 0), 0.036) + _capsule((-0.04, 0, 0), (-0.225, 0, 0), 0.026),
    _drum((0, -0.034, 0), (0, 0.034, 0), 0.034)
    + _capsule((0.03, 0, -0.012), (0.1, 0, -0.052), 0.024)
    + _capsule((0.1, 0, -0.052), (0.215, 0, -0.056), 0.024),
    _drum((0, -0.028, 0), (0, 0.028, 0), 0.029) + _capsule((0.01, 0, -0.01), (0.06, 0, -0.05), 0.022),
    _drum((0, 0, -0.018), (0, 0, 0.05), 0.027) + _capsule((0, 0, 0.05), (0.012, 0, 0.0825), 0.026),
)
"""Of links 1 to 5, in their frames."""


def _palm(limits: ArmLimits) -> str:
    back = limits.tool_offset - 0.062
    return (
        _drum((0, 0, 0), (0.03, 0, 0), 0.028)
        + f'<geom type="box" pos="{(0.03 + back) / 2} 0 0" size="{(back - 0.03) / 2} 0.03 0.022" material="shell" {_ARM}/>'
        + f'<geom type="box" pos="{back - 0.006} 0 0" size="0.006 0.055 0.016" material="motor" {_ARM}/>'
    )


def _camera() -> str:
    sine, cosine = math.sin(WRIST_TILT), math.cos(WRIST_TILT)
    return (
        f'<geom type="box" pos="0.037 0 0.072" size="0.014 0.02 0.016" material="motor" {_SEEN_ONLY}/>'
        f'<geom type="box" pos="0.033 0 0.04" size="0.006 0.01 0.02" material="shell" {_SEEN_ONLY}/>'
        f'<camera name="wrist" pos="{_text(WRIST_POSITION)}" xyaxes="0 -1 0 {sine:.6f} 0 {cosine:.6f}" fovy="{WRIST_FOVY}"/>'
    )


def _finger(limits: ArmLimits, side: int) -> str:
    """Its origin is on the tool's axis when closed; the pad reaches 12 mm beyond the tool's frame."""
    name = "left_finger" if side > 0 else "right_finger"
    root, tip = limits.tool_offset - 0.062, limits.tool_offset + 0.012
    pad = limits.tool_offset - 0.026
    # Two fingers share what the motor's inertia is worth.
    armature = _GRIPPER_MOTOR_INERTIA * gear(limits) ** 2 / 2
    return (
        f'<body name="{name}"><joint name="{name}" type="slide" axis="0 {side} 0" range="0 {limits.gripper_width / 2}" '
        f'armature="{armature:.6g}" damping="2" solreflimit="0.004 1"/>{_inertial(_finger_inertia(limits, side, 0.0))}'
        f'<geom type="box" pos="{(root + pad) / 2} {side * 0.01} 0" size="{(pad - root) / 2} 0.005 0.009" '
        f'material="motor" {_ARM}/>'
        f'<geom name="{name}_pad" type="box" pos="{(pad + tip) / 2} {side * 0.005} 0" size="{(tip - pad) / 2} 0.005 0.011" '
        f'material="finger" friction="1.2 0.02 0.001" {_ARM}/></body>'
    )


def _finger_inertia(limits: ArmLimits, side: int, opening: float) -> Inertia:
    """Of a finger in the frame of link 6, the gripper ``opening`` metres wide."""
    length, height, width = 0.074, 0.018, 0.01
    moments = tuple(
        _FINGER_MASS / 12 * value for value in (width**2 + height**2, length**2 + height**2, length**2 + width**2)
    )
    centre = (limits.tool_offset - 0.025, side * (opening / 2 + 0.006), 0.0)
    return Inertia(_FINGER_MASS, centre, (moments[0], moments[1], moments[2]), (0.0, 0.0, 0.0))


def _finger_inertias(limits: ArmLimits) -> tuple[Inertia, Inertia]:
    # The SDK's last link weighs what it weighs with the gripper somewhere in between.
    half = limits.gripper_width / 2
    return _finger_inertia(limits, 1, half), _finger_inertia(limits, -1, half)


def _without(whole: Inertia, *parts: Inertia) -> Inertia:
    """What is left of a link when parts of it become bodies of their own."""
    mass = whole.mass - sum(part.mass for part in parts)
    moment = whole.mass * np.array(whole.centre) - sum(part.mass * np.array(part.centre) for part in parts)
    centre = moment / mass
    about_origin = _about(whole) - sum(_about(part) for part in parts)
    tensor = about_origin - mass * (centre @ centre * np.eye(3) - np.outer(centre, centre))
    moments, products = np.diagonal(tensor), (tensor[0, 1], tensor[0, 2], tensor[1, 2])
    return Inertia(
        mass,
        (float(centre[0]), float(centre[1]), float(centre[2])),
        (float(moments[0]), float(moments[1]), float(moments[2])),
        (float(products[0]), float(products[1]), float(products[2])),
    )


def _about(inertia: Inertia) -> np.ndarray:
    """(3, 3) about the origin of the link's frame."""
    (xx, yy, zz), (xy, xz, yz), centre = inertia.moments, inertia.products, np.array(inertia.centre)
    tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    about: np.ndarray = tensor + inertia.mass * (centre @ centre * np.eye(3) - np.outer(centre, centre))
    return about


def _inertial(inertia: Inertia) -> str:
    return (
        f'<inertial pos="{_text(inertia.centre)}" mass="{inertia.mass!r}" '
        f'fullinertia="{_text(inertia.moments)} {_text(inertia.products)}"/>'
    )


def _table() -> str:
    left, right, near, far = TABLE
    centre_x, centre_y = (left + right) / 2, (near + far) / 2
    legs = "".join(
        f'<geom type="cylinder" fromto="{x} {y} -0.75 {x} {y} -0.04" size="0.03" material="motor" {_SEEN_ONLY}/>'
        for x in (left + 0.06, right - 0.06)
        for y in (near + 0.06, far - 0.06)
    )
    return (
        f'<geom name="table" type="box" pos="{centre_x} {centre_y} -0.02" size="{(right - left) / 2} {(far - near) / 2} 0.02" '
        f'material="table" {_WORLD}/>{legs}'
    )


def _cup() -> str:
    """A solid cylinder to the touch; drawn with a wall, a handle and coffee."""
    wall, pieces = 0.003, 16
    middle = CUP_RADIUS - wall / 2
    half_width = middle * math.tan(math.pi / pieces) + 0.0008
    ring = "".join(
        f'<geom type="box" pos="{middle * math.cos(a):.6f} {middle * math.sin(a):.6f} 0" euler="0 0 {a:.6f}" '
        f'size="{wall / 2} {half_width:.6f} {CUP_HEIGHT / 2}" material="cup" mass="0" {_SEEN_ONLY}/>'
        for a in (2 * math.pi * i / pieces for i in range(pieces))
    )
    out, up = CUP_RADIUS + 0.017, 0.016
    corners = [(CUP_RADIUS, 0, up), (out, 0, up), (out, 0, -up), (CUP_RADIUS, 0, -up)]
    handle = "".join(
        f'<geom type="capsule" fromto="{_text(start)} {_text(end)}" size="0.0035" material="cup" mass="0" {_SEEN_ONLY}/>'
        for start, end in itertools.pairwise(corners)
    )
    return (
        f'<body name="cup" pos="0.35 0.12 {CUP_HEIGHT / 2}"><freejoint name="cup"/>'
        f'<geom name="cup" type="cylinder" size="{CUP_RADIUS} {CUP_HEIGHT / 2}" mass="0.12" rgba="0 0 0 0" '
        f'friction="0.9 0.02 0.001" {_WORLD}/>'
        f'<geom type="cylinder" pos="0 0 -0.006" size="{CUP_RADIUS - wall} {CUP_HEIGHT / 2 - 0.007}" material="coffee" '
        f'mass="0" {_SEEN_ONLY}/>{ring}{handle}</body>'
    )


def _saucer() -> str:
    rim, pieces = SAUCER_RADIUS - 0.003, 24
    ring = "".join(
        f'<geom type="capsule" fromto="{rim * math.cos(a):.6f} {rim * math.sin(a):.6f} 0.004 '
        f'{rim * math.cos(b):.6f} {rim * math.sin(b):.6f} 0.004" size="0.003" material="china" mass="0" {_SEEN_ONLY}/>'
        for a, b in ((2 * math.pi * i / pieces, 2 * math.pi * (i + 1) / pieces) for i in range(pieces))
    )
    return (
        f'<body name="saucer" pos="0.35 -0.15 {SAUCER_HEIGHT / 2}"><freejoint name="saucer"/>'
        f'<geom name="saucer" type="cylinder" size="{SAUCER_RADIUS} {SAUCER_HEIGHT / 2}" mass="0.25" material="china" '
        f"{_WORLD}/>{ring}</body>"
    )


def _looking(position: Sequence[float], at: Sequence[float]) -> str:
    forward = np.array(at) - np.array(position)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    return f'xyaxes="{_text(right)} {_text(np.cross(right, forward))}"'
