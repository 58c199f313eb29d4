"""LIBERO episodes for tests: recorded in the simulator, written in the layout of LIBERO's own demonstration files."""

import json

import numpy as np

from uva_agents.utils.rotations import matrix_from_quaternion, vector_from_matrix


def smooth_actions(steps, seed=0):
    """float32 (steps, 7): LIBERO's changes as sums of slow waves, the gripper closing half-way."""
    rng = np.random.default_rng(seed)
    time = np.arange(steps)[:, None] / 20
    waves = [rng.uniform(-1, 1, 6) * np.sin(2 * np.pi * (f * time + rng.uniform(size=6))) for f in (0.3, 0.7, 1.1)]
    gripper = np.where(time < time[-1] / 2, -1.0, 1.0)
    return np.concatenate([np.clip(0.45 * sum(waves), -1, 1), gripper], axis=1).astype(np.float32)


def record(env, actions):
    """What LIBERO's script keeps of an episode: states before each action, observations after it; and the pose before each."""
    rows: dict[str, list[np.ndarray]] = {
        key: [] for key in ("states", "position", "hand", "agent_pos", "agentview_rgb", "eye_in_hand_rgb", "joints")
    }
    base = env.unwrapped
    observation = base.get_obs()
    for action in actions:
        rows["states"].append(base.flat_state())
        rows["position"].append(observation["agent_pos"][:3])
        rows["hand"].append(observation["agent_pos"][3:7])
        observation = env.step(action)[0]
        rows["agent_pos"].append(observation["agent_pos"])
        rows["joints"].append(base.joint_positions())
        if "pixels" in observation:
            # It keeps them as OpenGL gives them: the lowest row first.
            rows["agentview_rgb"].append(observation["pixels"][::-1])
            rows["eye_in_hand_rgb"].append(observation["pixels_wrist"][::-1])
    return {key: np.array(value) for key, value in rows.items()}


def write(path, env, actions, rows):
    """A file with this one demonstration."""
    import h5py

    pos, quat, fingers = np.split(rows["agent_pos"].astype(np.float64), [3, 7], axis=1)
    orientation = vector_from_matrix(matrix_from_quaternion(quat))
    arguments = {"type": 1, "env_name": "Libero", "env_kwargs": {"control_freq": 20, "robots": ["Panda"]}}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["bddl_file_name"] = f"libero_10/{env.unwrapped.task}.bddl"
        data.attrs["env_args"] = json.dumps(arguments)
        data.attrs["problem_info"] = json.dumps({"language_instruction": env.unwrapped.task_description})
        data.attrs["macros_image_convention"] = "opengl"
        data.attrs["num_demos"], data.attrs["total"] = 1, len(actions)
        demo = data.create_group("demo_0")
        demo.attrs["num_samples"], demo.attrs["init_state"] = len(actions), rows["states"][0]
        over = np.arange(len(actions)) == len(actions) - 1
        plain = {
            "actions": actions.astype(np.float64),
            "states": rows["states"],
            "robot_states": np.concatenate([fingers, pos, quat], axis=1),
            "rewards": over.astype(np.uint8),
            "dones": over.astype(np.uint8),
        }
        seen = {
            "ee_pos": pos,
            "ee_ori": orientation,
            "ee_states": np.concatenate([pos, orientation], axis=1),
            "gripper_states": fingers,
            "joint_states": rows["joints"],
            "agentview_rgb": rows["agentview_rgb"],
            "eye_in_hand_rgb": rows["eye_in_hand_rgb"],
        }
        for key, value in plain.items():
            demo.create_dataset(key, data=value)
        for key, value in seen.items():
            demo.create_dataset(f"obs/{key}", data=value)
