"""The simulated table: an xArm6 with a round post, two cubes and two marks, in PyBullet without any window.

Parameters follow the published block-pushing environment closely enough that recorded action sequences, replayed open
loop, end where they ended there (``docs/block_push.md`` has the numbers).
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.envs.block_push.client import PyBulletClient, StateFolder, load_pybullet, silent
from uva_agents.envs.block_push.layout import PUSHER_START, Layout, Pose
from uva_agents.errors import MachineError

SUBSTEPS = 24
"""Simulation steps of 1/240 s per control step: 10 Hz."""
_SETTLE = 100
_HEIGHT = 0.06
_BLOCK_Z, _SQUARE_Z = 0.0, 0.020
_EFFECTOR = 6
_HOME = (
    -0.9254632489674508,
    0.6990770671568564,
    -1.106629064060494,
    0.0006653351931553931,
    0.3987969742311386,
    -4.063402065624296,
)
_DOWN = (0.0, 1.0, 0.0, math.cos(math.pi / 2))
"""Quaternion (x, y, z, w) of half a turn about y: the tool points down."""
_ASSETS = Path(__file__).resolve().parent / "assets"


class BlockPushScene:
    """Owns one PyBullet client. All positions in metres, world coordinates, base of the arm at the origin.

    Args:
        draw_arm: load the arm's meshes for pictures, too. They take most of the drawing time and hide what is pushed;
            the pusher at its tip is always drawn.

    Raises:
        ImportError: PyBullet is not installed.
    """

    def __init__(self, *, draw_arm: bool = False) -> None:
        # PyBullet prints when it is imported and when it connects.
        with silent():
            self._pb = load_pybullet()
            self.client = PyBulletClient(self._pb)
        p = self.client
        p.setPhysicsEngineParameter(enableFileCaching=0)
        # Contacts in a fixed order: otherwise the order, and with it the last bits of a result, depends on everything
        # that this client simulated before, and a restored state would not continue as it did.
        p.setPhysicsEngineParameter(deterministicOverlappingPairs=1)
        p.setGravity(0, 0, -9.8)
        self._load(draw_arm)
        self.target: tuple[float, float] = PUSHER_START
        self._folder: StateFolder | None = None
        self._cached: tuple[bytes, int] | None = None
        self._backgrounds: dict[tuple[Any, ...], np.ndarray] = {}
        self._simulate(_SETTLE)
        self._loaded = p.saveState()

    def _load(self, draw_arm: bool) -> None:
        import pybullet_data

        p = self.client
        # Contacts are solved in the order in which bodies were loaded. With the blocks and then the tool first, recorded
        # pushes come out as recorded, most of them bit for bit: the published environment, in which the order comes about
        # by chance, mostly has this one.
        self._blocks = [
            p.loadURDF(str(_ASSETS / f"{colour}_block.urdf"), [0.5 - 0.2 * i, 0.1 * i, 0.0])
            for i, colour in enumerate(("red", "green"))
        ]
        arm = str(Path(pybullet_data.getDataPath()) / "xarm" / "xarm6_robot.urdf")
        # Loaded where it will be held, not moved there: moved, it would be off by a rounding error that the chatter between
        # it and the flange makes a micrometre within four steps.
        self._tool: int = p.loadURDF(str(_ASSETS / "tool.urdf"), *self._effector_at_home(arm))
        floor = p.loadURDF(str(_ASSETS / "floor.urdf"), [0, 0, -0.001])
        # The root link is called "world", which fixes it.
        self._arm: int = p.loadURDF(arm, flags=0 if draw_arm else self._pb.URDF_IGNORE_VISUAL_SHAPES)
        # PyBullet draws the shapes that collide where it has no others.
        for body in (floor,) if draw_arm else (floor, self._arm):
            for link in range(-1, p.getNumJoints(body)):
                p.changeVisualShape(body, link, rgbaColor=[0, 0, 0, 0])
        self._joints = self._at_home(p, self._arm)
        for joint in self._joints:
            p.changeDynamics(self._arm, joint, linearDamping=0, angularDamping=0)
        held = p.createConstraint(
            self._arm, _EFFECTOR, self._tool, -1, self._pb.JOINT_FIXED, [0, 0, 0], [0, 0, 0], [0, 0, 0]
        )
        p.changeConstraint(held, maxForce=50)
        self._squares = [
            p.loadURDF(str(_ASSETS / f"{colour}_square.urdf"), [0.5 - 0.2 * i, 0.3, _SQUARE_Z])
            for i, colour in enumerate(("green", "red"))
        ]

    def _at_home(self, p: PyBulletClient, arm: int) -> list[int]:
        """Put the joints of ``arm`` where they start; which they are."""
        joints = [j for j in range(p.getNumJoints(arm)) if p.getJointInfo(arm, j)[2] == self._pb.JOINT_REVOLUTE]
        for joint, angle in zip(joints, _HOME, strict=True):
            p.resetJointState(arm, joint, angle)
        return joints

    def _effector_at_home(self, arm: str) -> tuple[list[float], list[float]]:
        """Position and quaternion of the arm's last link (its centre of mass) with the joints where they start."""
        with silent():
            other = PyBulletClient(self._pb)
        body = other.loadURDF(arm, flags=self._pb.URDF_IGNORE_VISUAL_SHAPES | self._pb.URDF_IGNORE_COLLISION_SHAPES)
        self._at_home(other, body)
        position, orientation = other.getLinkState(body, _EFFECTOR)[:2]
        other.close()
        return position, orientation

    def reset(self, layout: Layout) -> None:
        """Arm at its start, blocks and squares at ``layout``, everything at rest."""
        self.client.restoreState(self._loaded)
        self.place_squares(layout)
        for body, pose in zip(self._blocks, layout.blocks, strict=True):
            self._place(body, pose, _BLOCK_Z)
        self._aim(PUSHER_START)
        # In the published environment both blocks start in one place, and what is left of that has their contacts with the
        # floor solved together for one step: until both have converged, not each by itself. They rest 1e-8 m elsewhere for it.
        self.client.setPhysicsEngineParameter(minimumSolverIslandSize=1)
        self._simulate(1)
        self.client.setPhysicsEngineParameter(minimumSolverIslandSize=0)
        self._simulate(_SETTLE - 1)

    def place_squares(self, layout: Layout) -> None:
        """Squares are only looked at: moving them changes no physics."""
        for body, pose in zip(self._squares, layout.squares, strict=True):
            self._place(body, pose, _SQUARE_Z)

    def step(self, target: tuple[float, float]) -> None:
        """Move the pusher towards ``target`` for 0.1 s."""
        self._aim(target)
        self._simulate(SUBSTEPS)

    @property
    def effector(self) -> tuple[float, float]:
        """x, y of the arm's last link (its centre of mass)."""
        position = self.client.getLinkState(self._arm, _EFFECTOR)[0]
        return position[0], position[1]

    def block_poses(self) -> tuple[Pose, Pose]:
        """Poses of both blocks, yaw in [0, pi)."""
        first, second = (self._block_pose(body) for body in self._blocks)
        return first, second

    def save(self) -> bytes:
        """The simulation as bytes, contact impulses included; changes nothing."""
        file = self._file()
        self.client.saveBullet(str(file))
        data = file.read_bytes()
        if not data:
            raise MachineError(f"PyBullet could not write {file}: is the disk full? TMPDIR chooses another place")
        return data

    def restore(self, data: bytes, target: tuple[float, float], layout: Layout) -> None:
        """Go to what :meth:`save` returned, here or in another scene. Repeating the same one is fast."""
        p = self.client
        if self._cached is not None and self._cached[0] == data:
            p.restoreState(self._cached[1])
        else:
            file = self._file()
            try:
                file.write_bytes(data)
            except OSError as error:
                raise MachineError(
                    f"{file} cannot be written ({error.strerror}): TMPDIR chooses another place"
                ) from error
            p.restoreState(fileName=str(file))
            if self._cached is not None:
                p.removeState(self._cached[1])
            self._cached = data, p.saveState()
        self.target = target
        self.place_squares(layout)
        # What getLinkState() returns is computed by a simulation step or on demand, not by restoring.
        p.getLinkState(self._arm, _EFFECTOR, computeForwardKinematics=1)

    def draw(self, size: tuple[int, int], view: list[float], projection: list[float]) -> np.ndarray:
        """Picture uint8 (height, width, 3) for ``size`` = (height, width); each pixel is the mean of four."""
        height, width = size
        size = (2 * height, 2 * width)
        key = (size, tuple(view), tuple(projection))
        if key not in self._backgrounds:
            self._backgrounds[key] = self._draw_background(size, view, projection)
        rgb, depth = self._shoot(self.client, size, view, projection)
        # Where nothing is, the depth is that of the far plane. Nine tenths of the time would go into the table.
        fine = np.where(depth[..., None] < 1.0, rgb, self._backgrounds[key])
        total = fine.reshape(height, 2, width, 2, 3).sum(axis=(1, 3), dtype=np.uint16)
        picture: np.ndarray = ((total + 2) // 4).astype(np.uint8)
        return picture

    def _draw_background(self, size: tuple[int, int], view: list[float], projection: list[float]) -> np.ndarray:
        with silent():
            other = PyBulletClient(self._pb)
        other.loadURDF(str(_ASSETS / "table.urdf"))
        picture = self._shoot(other, size, view, projection)[0]
        other.close()
        return picture

    def _shoot(
        self, client: PyBulletClient, size: tuple[int, int], view: list[float], projection: list[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Colours uint8 (height, width, 3) and depths in [0, 1] (height, width) of what ``client`` holds."""
        height, width = size
        _, _, rgba, depth, _ = client.getCameraImage(
            width,
            height,
            view,
            projection,
            shadow=0,
            renderer=self._pb.ER_TINY_RENDERER,
            flags=self._pb.ER_NO_SEGMENTATION_MASK,
        )
        colours = np.asarray(rgba, np.uint8).reshape(height, width, 4)[..., :3]
        return colours.copy(), np.asarray(depth, np.float32).reshape(height, width)

    def close(self) -> None:
        """Disconnect; twice does no harm."""
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.remove()
        self.client.close()

    def _file(self) -> Path:
        """What PyBullet writes to and reads from: made when it is needed, and by every process for itself."""
        if self._folder is None or self._folder.owner != os.getpid():
            self._folder = StateFolder()
        return self._folder.path / "state.bullet"

    def _block_pose(self, body: int) -> Pose:
        (x, y, _), orientation = self.client.getBasePositionAndOrientation(body)
        yaw = self._pb.getEulerFromQuaternion(orientation)[2] % math.pi
        return x, y, yaw

    def _place(self, body: int, pose: Pose, z: float) -> None:
        x, y, yaw = pose
        # sin(yaw / 2), rounded as the published environment rounds it (SciPy's from_rotvec): a push makes a last bit metres.
        sine = math.sin(yaw / 2) / yaw * yaw if yaw else 0.0
        self.client.resetBasePositionAndOrientation(body, [x, y, z], [0, 0, sine, math.cos(yaw / 2)])

    def _aim(self, target: tuple[float, float]) -> None:
        """Joint targets from damped inverse kinematics; where the arm could reach the point in several ways, near now."""
        self.target = target
        p = self.client
        now = [state[0] for state in p.getJointStates(self._arm, self._joints)]
        n = len(self._joints)
        angles = p.calculateInverseKinematics(
            self._arm,
            _EFFECTOR,
            [*target, _HEIGHT],
            _DOWN,
            lowerLimits=[-17.0] * n,
            upperLimits=[17.0] * n,
            jointRanges=[17.0] * n,
            restPoses=[0.0, 0.0, *now[2:]],
            maxNumIterations=100,
            residualThreshold=1e-10,
        )
        p.setJointMotorControlArray(
            self._arm, self._joints, self._pb.POSITION_CONTROL, targetPositions=angles, forces=[1200.0] * n
        )

    def _simulate(self, steps: int) -> None:
        step = self.client.stepSimulation
        for _ in range(steps):
            step()
