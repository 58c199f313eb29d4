"""Small recordings of four robots and of PushT, in the formats they come in, in which pictures tell what to do."""

import json
from pathlib import Path

import numpy as np

from tests import datasets
from uva_agents.data.writers.lerobot import write_lerobot

LENGTHS = (26, 22, 24)
"""Steps of the episodes; one of them is held out."""
ENDS = np.cumsum(LENGTHS)


def _ramp(width, *, seed, low=-1.0, high=1.0):
    """(N, width) smooth numbers between the limits, different in every episode."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in LENGTHS:
        t = np.linspace(0, 1, length)[:, None]
        rows.append(np.sin(2.5 * t * rng.uniform(0.5, 1.5, width) + rng.uniform(-2, 2, width)))
    wave = np.concatenate(rows)
    return (low + (wave + 1) / 2 * (high - low)).astype(np.float32)


def pictures(side=(48, 48), *, seed=0):
    """uint8 (N, H, W, 3): a bright disc that moves steadily, on a ground of the episode's own colour."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: side[0], : side[1]] / np.array(side)[:, None, None]
    frames = []
    for length in LENGTHS:
        ground, start, goal = rng.uniform(30, 120, 3), rng.uniform(0.15, 0.85, 2), rng.uniform(0.15, 0.85, 2)
        for s in np.linspace(0, 1, length):
            cy, cx = start + s * (goal - start)
            near = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.01)[..., None]
            frames.append(ground + near * np.array([130.0, 100.0, 60.0]))
    return np.stack(frames).round().clip(0, 255).astype(np.uint8)


def _poses(seed):
    """(N, 7): position, rotation vector, gripper of a tool that moves and turns a little."""
    position = _ramp(3, seed=seed, low=-0.2, high=0.2) + np.float32([0.3, 0.0, 0.2])
    rotation = _ramp(3, seed=seed + 1, low=-0.4, high=0.4)
    return np.concatenate([position, rotation, _ramp(1, seed=seed + 2, low=0.0, high=0.08)], axis=1)


def _next(rows):
    """What each row's action leads to: the next row of the episode."""
    ahead = np.minimum(np.arange(len(rows)) + 1, np.repeat(ENDS - 1, LENGTHS))
    return rows[ahead]


_POSE = [f"eef.{name}" for name in ("x", "y", "z", "rx", "ry", "rz", "gripper")]


def arx(folder: Path) -> Path:
    """As ``uva run --record`` writes it: tool poses at 20 Hz, wrist and outside cameras, two instructions."""
    from uva_agents.data import Episodes

    poses = _poses(10)
    arrays = {
        "pixels": pictures(seed=1),
        "pixels_wrist": pictures(seed=2),
        "action": _next(poses),
        "agent_pos": poses,
    }
    write_lerobot(
        folder,
        Episodes(arrays, ENDS),
        control_hz=20,
        tasks=("reach the ball", "pick up the cup", "reach the ball"),
        names={"action": _POSE, "agent_pos": _POSE},
    )
    return folder


def arm_of_joints(folder: Path) -> Path:
    """Another robot's: joint positions, two cameras of 48x64, 30 Hz, one instruction."""
    from uva_agents.data import Episodes

    joints = _ramp(6, seed=20, low=-80, high=80)
    names = [
        f"{name}.pos" for name in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
    ]
    arrays = {
        "pixels": pictures((48, 64), seed=3),
        "pixels_wrist": pictures((48, 64), seed=4),
        "action": _next(joints),
        "agent_pos": joints,
    }
    write_lerobot(
        folder,
        Episodes(arrays, ENDS),
        control_hz=30,
        tasks=("sort the bricks",) * 3,
        names={"action": names, "agent_pos": names},
    )
    return folder


def umi(path: Path) -> Path:
    """A hand-held gripper's: poses at 60 Hz, one camera."""
    poses = _poses(30)
    start = np.repeat(poses[np.concatenate([[0], ENDS[:-1]]), :6], LENGTHS, axis=0)
    stored = {
        "camera0_rgb": pictures(seed=5),
        "robot0_eef_pos": poses[:, :3],
        "robot0_eef_rot_axis_angle": poses[:, 3:6],
        "robot0_gripper_width": poses[:, 6:],
        "robot0_demo_start_pose": start,
        "robot0_demo_end_pose": start,
    }
    return datasets.zarr_buffer(path, stored, ends=ENDS)


def libero(folder: Path) -> Path:
    """Two tasks of LIBERO, a file each: changes in [-1, 1], pictures upside down, two cameras."""
    import h5py

    folder.mkdir()
    actions, proprio = _ramp(7, seed=40, low=-0.9, high=0.9), _ramp(8, seed=41, low=-1, high=1)
    cameras = {"agentview_rgb": pictures(seed=6), "eye_in_hand_rgb": pictures(seed=7)}
    starts = [0, *ENDS[:-1]]
    for task, episodes in (("turn_on_the_stove", (0, 1)), ("put_the_mug_on_the_plate", (2,))):
        with h5py.File(folder / f"{task}_demo.hdf5", "w") as file:
            data = file.create_group("data")
            data.attrs["env_args"] = json.dumps({"env_name": "X", "env_kwargs": {"control_freq": 20}})
            data.attrs["bddl_file_name"] = f"libero_10/{task}.bddl"
            data.attrs["problem_info"] = json.dumps({"language_instruction": task.replace("_", " ")})
            for number, episode in enumerate(episodes):
                rows = slice(starts[episode], ENDS[episode])
                demo = data.create_group(f"demo_{number}")
                demo.attrs["num_samples"] = LENGTHS[episode]
                demo["actions"] = actions[rows].astype(np.float64)
                obs = demo.create_group("obs")
                for name, frames in cameras.items():
                    obs[name] = frames[rows, ::-1]
                obs["ee_states"], obs["gripper_states"] = proprio[rows, :6], proprio[rows, 6:]
    return folder


def pusht(path: Path) -> Path:
    """PushT's own form, without keypoints."""
    state = np.concatenate([_ramp(4, seed=50, low=60, high=450), _ramp(1, seed=51, low=0, high=3)], axis=1)
    stored = {"img": pictures((96, 96), seed=8), "action": _next(state[:, :2]), "state": state}
    return datasets.zarr_buffer(path, stored, ends=ENDS)


MAKERS = {
    "arx": lambda root: arx(root / "arx_recorded"),
    "joints": lambda root: arm_of_joints(root / "arm"),
    "umi": lambda root: umi(root / "gripper.zarr"),
    "libero": lambda root: libero(root / "libero"),
    "pusht": lambda root: pusht(root / "pusht.zarr"),
}
