"""The X5's links: where each joint is on the one before, and what each link weighs. Numbers of the SDK's models of the arm.

A table and nothing else: kinematics and the twin are computed from it.
"""

from __future__ import annotations

from dataclasses import dataclass

_HALF_TURN = -3.1416
"""rad; as the models round it, so that poses agree to the last digit."""

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Inertia:
    """Of one link, in its frame.

    Attributes:
        mass: kg.
        centre: of mass, metres.
        moments: ixx, iyy, izz about that centre, kg m^2.
        products: ixy, ixz, iyz, the same way.
    """

    mass: float
    centre: Vector
    moments: Vector
    products: Vector


@dataclass(frozen=True, slots=True)
class Link:
    """One moving link; its frame lies on its joint.

    Attributes:
        origin: of the joint in the frame of the link before, metres.
        roll: that frame is turned so much about x before the joint turns, rad.
        axis: of the joint, in its own frame: 0, 1, 2 for x, y, z.
        inertia: what it weighs.
    """

    origin: Vector
    roll: float
    axis: int
    inertia: Inertia


BASE = Inertia(
    0.428, (-3.764e-5, 6.519e-5, 0.03037877), (0.00060728, 0.00060832, 1.917e-4), (3.437e-7, 9.79e-7, -1.696e-6)
)

_FIRST_FIVE = (
    Link(
        (0.0, 0.0, 0.0603),
        0.0,
        2,
        Inertia(0.064, (0.00571213, 0.0002547, 0.01750661), (0.00008, 0.00003, 0.00007), (0.0, 0.00001, 0.0)),
    ),
    Link(
        (0.02, 0.0, 0.0402),
        0.0,
        1,
        Inertia(
            1.165,
            (-0.13225701, 0.00072373, 4.274e-5),
            (0.00057063, 0.03669927, 0.03683489),
            (0.00011251, 0.00001979, 1.203e-8),
        ),
    ),
    Link(
        (-0.264, 0.0, 0.0),
        _HALF_TURN,
        1,
        Inertia(
            0.546,
            (0.19096098, 0.00069065, -0.05342172),
            (0.00178249, 0.02486615, 0.02329476),
            (-0.00003986, 0.00571, 1.346e-5),
        ),
    ),
    Link(
        (0.245, 0.0, -0.056),
        0.0,
        1,
        Inertia(
            0.080971,
            (0.03092317, 0.0066107, -0.03138504),
            (0.00017832, 0.00021182, 0.00011328),
            (0.00001697, 0.0000776, -0.00001779),
        ),
    ),
    Link(
        (0.06575, -0.001, -0.0825),
        0.0,
        2,
        Inertia(
            0.655,
            (0.0040681, 0.00000885, 0.05120675),
            (0.00254972, 0.00255018, 0.00026961),
            (2.6e-7, -0.00021534, -5.98e-7),
        ),
    ),
)
_SIXTH_ORIGIN = (0.02845, 0.0, 0.0825)

LINKS: dict[str, tuple[Link, ...]] = {
    "X5": (
        *_FIRST_FIVE,
        Link(
            _SIXTH_ORIGIN,
            _HALF_TURN,
            0,
            Inertia(0.581, (0.05435277, 0.0, 0.0), (0.00029, 0.00028, 0.00045), (0.0, 0.0, -0.00001)),
        ),
    ),
    "X5_umi": (
        *_FIRST_FIVE,
        Link(
            _SIXTH_ORIGIN,
            _HALF_TURN,
            0,
            Inertia(
                0.902,
                (0.05435277, -0.00734005, 0.01881196),
                (0.00229822, 0.00596005, 0.00530799),
                (1.254e-4, -0.00037442, 0.00054471),
            ),
        ),
    ),
}
"""Six links per model, from the base to the gripper. The sixth includes the gripper; only there do the models differ."""
