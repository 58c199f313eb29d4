"""Small recordings in the formats of the released tasks, made up: pictures that move, numbers that a robot might give."""

import json
from pathlib import Path

import numpy as np
import torch

from tests.datasets import zarr_buffer
from uva_agents.utils.rotations import matrix_from_vector

LENGTHS = (40, 36, 44, 38)
ENDS = np.cumsum(LENGTHS)
STEPS = int(ENDS[-1])


def pictures(side: int, seed: int) -> np.ndarray:
    """uint8 (STEPS, side, side, 3): waves that wander."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    t = np.arange(STEPS)[:, None, None] / 7
    waves = [
        127 + 100 * np.sin(rng.uniform(2, 6) * x + rng.uniform(2, 6) * y + t + rng.uniform(0, 6)) for _ in range(3)
    ]
    return np.stack(waves, -1).round().astype(np.uint8)


def smooth(numbers: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """float64 (STEPS, numbers), slow curves within ±scale."""
    rng = np.random.default_rng(seed)
    t = np.arange(STEPS)[:, None] / 9
    return scale * np.sin(t * rng.uniform(0.5, 1.5, numbers) + rng.uniform(0, 6, numbers))


def episodes(arrays: dict[str, np.ndarray], which: range) -> list[dict[str, np.ndarray]]:
    starts = np.concatenate([[0], ENDS[:-1]])
    return [{name: value[starts[i] : ENDS[i]] for name, value in arrays.items()} for i in which]


def pusht(folder: Path) -> list[Path]:
    """As pusht_cchi_v7_replay.zarr: img, state (agent 2, block 3), action (target), all of them float."""
    state = np.concatenate([256 + smooth(4, 1, 150), smooth(1, 2, 3.0)], 1)
    action = 256 + smooth(2, 3, 180)
    arrays = {"img": pictures(96, 0), "state": state.astype(np.float32), "action": action.astype(np.float32)}
    return [zarr_buffer(folder / "pusht.zarr", arrays, ends=ENDS)]


def tool_hang(folder: Path) -> list[Path]:
    """As robomimic's tool_hang/ph/image_abs.hdf5: poses as position, rotation vector and gripper; 20 Hz."""
    import h5py

    hand = smooth(7, 4)
    arrays = {
        "actions": np.concatenate([smooth(3, 1, 0.3), smooth(3, 2, 0.8), np.sign(smooth(1, 3))], 1),
        "obs/sideview_image": pictures(48, 0),
        "obs/robot0_eye_in_hand_image": pictures(48, 1),
        "obs/robot0_eef_pos": smooth(3, 1, 0.3),
        "obs/robot0_eef_quat": hand[:, :4] / np.linalg.norm(hand[:, :4], axis=1, keepdims=True),
        "obs/robot0_gripper_qpos": smooth(2, 5, 0.04),
    }
    path = folder / "image_abs.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "ToolHang", "env_kwargs": {"control_freq": 20}})
        _write_demonstrations(data, episodes(arrays, range(len(LENGTHS))))
    return [path]


def libero(folder: Path) -> list[Path]:
    """As LIBERO-10: a file per task, named after it, pictures upside down, changes of the pose as actions; 20 Hz."""
    import h5py

    pose = np.concatenate([smooth(3, 1, 0.3), smooth(3, 2, 0.8)], 1)
    arrays = {
        "actions": np.concatenate([smooth(6, 3, 0.5), np.sign(smooth(1, 4))], 1),
        "obs/agentview_rgb": pictures(48, 0)[:, ::-1],
        "obs/eye_in_hand_rgb": pictures(48, 1)[:, ::-1],
        "obs/ee_states": pose,
        "obs/ee_pos": pose[:, :3],
        "obs/ee_ori": pose[:, 3:],
        "obs/gripper_states": smooth(2, 5, 0.04),
        "obs/joint_states": smooth(7, 6),
    }
    root = folder / "libero_10"
    root.mkdir()
    tasks = ("KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it", "STUDY_SCENE1_pick_up_the_book")
    for number, task in enumerate(tasks):
        with h5py.File(root / f"{task}_demo.hdf5", "w") as file:
            data = file.create_group("data")
            data.attrs["bddl_file_name"] = f"libero_10/{task}.bddl"
            data.attrs["env_args"] = json.dumps({"env_name": "Libero", "env_kwargs": {"control_freq": 20}})
            data.attrs["problem_info"] = json.dumps({"language_instruction": task})
            _write_demonstrations(data, episodes(arrays, range(2 * number, 2 * number + 2)))
    return [root]


def umi(folder: Path) -> list[Path]:
    """As UMI's recordings: three zarr folders of 224 x 224 pictures (smaller here) at 59.94 Hz."""
    paths = []
    for number, name in enumerate(("cup_arrangement_0", "towel_folding_0", "mouse_arrangement_0")):
        position, rotation = smooth(3, 10 * number, 0.3), smooth(3, 10 * number + 1, 0.6)
        pose = np.concatenate([position, rotation], 1)
        first = np.repeat([0, *ENDS[:-1]], LENGTHS)
        last = np.repeat(ENDS - 1, LENGTHS)
        arrays = {
            "camera0_rgb": pictures(48, number),
            "robot0_eef_pos": position.astype(np.float32),
            "robot0_eef_rot_axis_angle": rotation.astype(np.float32),
            "robot0_gripper_width": (0.04 + smooth(1, 10 * number + 2, 0.04)).astype(np.float32),
            "robot0_demo_start_pose": pose[first],
            "robot0_demo_end_pose": pose[last],
        }
        paths.append(zarr_buffer(folder / f"{name}.zarr", arrays, ends=ENDS))
    return paths


WRITERS = {
    "uva-pusht": pusht,
    "uva-pusht-m": pusht,
    "uva-toolhang": tool_hang,
    "uva-libero10": libero,
    "uva-umi-multitask": umi,
}
"""Recipe -> what writes data for it into a folder, and gives what ``--data`` names."""


def rotations(vectors: np.ndarray) -> np.ndarray:
    """(..., 3) -> (..., 6): the first two rows of the rotation."""
    return matrix_from_vector(vectors)[..., :2, :].reshape(*vectors.shape[:-1], 6)


def _write_demonstrations(data: object, pieces: list[dict[str, np.ndarray]]) -> None:
    for number, piece in enumerate(pieces):
        demo = data.create_group(f"demo_{number}")  # type: ignore[attr-defined]
        demo.attrs["num_samples"] = len(piece["actions"])
        for key, value in piece.items():
            demo[key] = value
        demo["dones"] = (np.arange(len(piece["actions"])) == len(piece["actions"]) - 1).astype(np.int64)


def tiny_clip(folder: Path) -> Path:
    """A CLIP text tower as transformers saves one, with its tokenizer: small inside, vectors of 512 numbers."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    letters = [chr(c) for c in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    tower = CLIPTextModelWithProjection(
        CLIPTextConfig(**sizes, **ends, vocab_size=len(words), projection_dim=512, max_position_embeddings=77)
    )
    tower.save_pretrained(folder)
    return folder
