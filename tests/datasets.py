"""The same two episodes in every format, each written with that format's own library."""

import inspect
import json
import warnings
from contextlib import contextmanager

import numpy as np
import zarr
from zarr.storage import ZipStore

ENDS = np.array([20, 55])
STEPS = 55
HZ = 10
TASKS = ("push the block", "fold the towel")


def recording(side=32, seed=0):
    """Canonical arrays of two episodes: smooth pictures, as cameras give them, and numbers."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    t = np.arange(STEPS)[:, None, None]
    phase = rng.uniform(0, 1, 3)
    pixels = np.stack([127 + 100 * np.sin(3 * (x + y) + 0.1 * t + p) for p in phase], axis=-1)
    return {
        "pixels": pixels.round().astype(np.uint8),
        "action": rng.uniform(-1, 1, (STEPS, 7)).astype(np.float32),
        "agent_pos": rng.uniform(-1, 1, (STEPS, 9)).astype(np.float32),
    }


def pieces(arrays):
    return [
        {name: value[start:end] for name, value in arrays.items()}
        for start, end in zip([0, *ENDS[:-1]], ENDS, strict=True)
    ]


@contextmanager
def as_zarr_2():
    """Zarr 3 leaves chunks of zeros out."""
    with zarr.config.set({"array.write_empty_chunks": True}):
        yield


@as_zarr_2()
def zarr_buffer(path, arrays, *, zarr_format=2, ends=ENDS, chunk=16, attributes=None, **encoding):
    """A replay buffer; a path that ends in .zip is one file."""
    store = ZipStore(path, mode="w") if path.suffix == ".zip" else str(path)
    root = zarr.open_group(store, mode="w", zarr_format=zarr_format)
    root.attrs.update(attributes or {})
    data = root.create_group("data")
    for name, value in arrays.items():
        options = encoding if value.ndim == 4 else {}
        data.create_array(name, data=value, chunks=(chunk, *value.shape[1:]), **options)
    root.create_group("meta").create_array("episode_ends", data=np.asarray(ends))
    if path.suffix == ".zip":
        root.store.close()
    return path


def robomimic(path, arrays, *, libero=False):
    """hdf5 as robomimic (upright) or LIBERO (upside down) writes it; demonstrations 0, 2, ... 10 to have an order to get wrong."""
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "X", "env_kwargs": {"control_freq": HZ}})
        if libero:
            data.attrs["bddl_file_name"] = "libero_10/x.bddl"
            data.attrs["problem_info"] = json.dumps({"language_instruction": "x"})
        for number, piece in zip((2, 10), pieces(arrays), strict=True):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = len(piece["action"])
            demo["actions"] = piece["action"].astype(np.float64)
            demo["dones"] = np.zeros(len(piece["action"]), np.int64)
            obs, proprio = demo.create_group("obs"), piece["agent_pos"].astype(np.float64)
            if libero:
                obs["agentview_rgb"] = piece["pixels"][:, ::-1]
                obs["eye_in_hand_rgb"] = piece["pixels"][:, ::-1] // 2
                obs["ee_states"], obs["gripper_states"] = proprio[:, :6], proprio[:, 6:]
            else:
                obs["sideview_image"] = piece["pixels"]
                obs["robot0_eye_in_hand_image"] = piece["pixels"] // 2
                obs["robot0_eef_pos"], obs["robot0_eef_quat"] = proprio[:, :3], proprio[:, 3:7]
                obs["robot0_gripper_qpos"] = proprio[:, 7:]
                next_obs = demo.create_group("next_obs")
                next_obs["sideview_image"] = piece["pixels"]
    return path


def minari(root, arrays, *, jpeg=False):
    """Through Minari's own writer; returns the dataset's folder."""
    import gymnasium as gym
    from minari import create_dataset_from_buffers
    from minari.data_collector import EpisodeBuffer

    side = arrays["pixels"].shape[1]
    space = gym.spaces.Dict(
        {
            "agent_pos": gym.spaces.Box(-1, 1, (9,), np.float32),
            "pixels": gym.spaces.Box(0, 255, (side, side, 3), np.uint8),
        }
    )
    buffers = []
    for number, piece in enumerate(pieces(arrays)):
        n = len(piece["action"])
        more = {name: np.concatenate([piece[name], piece[name][-1:]]) for name in ("pixels", "agent_pos")}
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=more,
                actions=piece["action"],
                rewards=[0.0] * n,
                terminations=[False] * n,
                truncations=[False] * (n - 1) + [True],
            )
        )
    optional = "jpeg_encoding" in inspect.signature(create_dataset_from_buffers).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would like an author, code, an environment
        create_dataset_from_buffers(
            "uva/two-v0",
            buffers,
            observation_space=space,
            action_space=gym.spaces.Box(-1, 1, (7,), np.float32),
            data_format="hdf5",
            **({"jpeg_encoding": jpeg} if optional else {}),
        )
    if not optional and not jpeg:
        _as_since_0_5_4(root / "uva" / "two-v0" / "data", arrays)
    return root / "uva" / "two-v0"


def _as_since_0_5_4(folder, arrays):
    """What Minari 0.5.4, which needs numpy 2, writes when it is told to leave pictures as they are."""
    import h5py

    with h5py.File(folder / "main_data.hdf5", "r+") as file:
        for number, piece in enumerate(pieces(arrays)):
            observations = file[f"episode_{number}/observations"]
            del observations["pixels"]
            observations["pixels"] = np.concatenate([piece["pixels"], piece["pixels"][-1:]])
    described = folder / "metadata.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"jpeg_encoding": False}))


def lerobot(folder, arrays, *, codec="libx264"):
    """Version 3.0, file by file, with pyarrow and ffmpeg; both episodes in one parquet and one mp4 file."""
    import imageio_ffmpeg
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("meta/episodes/chunk-000", "data/chunk-000", "videos/observation.images.top/chunk-000"):
        (folder / name).mkdir(parents=True)
    lengths = np.diff(ENDS, prepend=0)
    rows = {
        "action": pa.array(arrays["action"].tolist(), pa.list_(pa.float32(), 7)),
        "observation.state": pa.array(arrays["agent_pos"].tolist(), pa.list_(pa.float32())),
        "timestamp": np.concatenate([np.arange(n) / HZ for n in lengths]).astype(np.float32),
        "frame_index": np.concatenate([np.arange(n) for n in lengths]),
        "episode_index": np.repeat([0, 1], lengths),
        "index": np.arange(STEPS),
        "task_index": np.repeat([0, 1], lengths),
    }
    pq.write_table(pa.table(rows), folder / "data/chunk-000/file-000.parquet")
    video = "videos/observation.images.top"
    episodes = {
        "episode_index": [0, 1],
        "tasks": [[task] for task in TASKS],
        "length": lengths,
        "data/chunk_index": [0, 0],
        "data/file_index": [0, 0],
        "dataset_from_index": [0, 20],
        "dataset_to_index": [20, 55],
        f"{video}/chunk_index": [0, 0],
        f"{video}/file_index": [0, 0],
        f"{video}/from_timestamp": [0.0, 2.0],
        f"{video}/to_timestamp": [2.0, 5.5],
    }
    pq.write_table(pa.table(episodes), folder / "meta/episodes/chunk-000/file-000.parquet")
    mp4(folder / f"{video}/chunk-000/file-000.mp4", arrays["pixels"], codec=codec)
    side = arrays["pixels"].shape[1]
    numbers = {name: {"dtype": "int64", "shape": [1], "names": None} for name in list(rows)[3:]}
    info = {
        "codebase_version": "v3.0",
        "fps": HZ,
        "total_episodes": 2,
        "total_frames": STEPS,
        "total_tasks": 2,
        "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            "action": {"dtype": "float32", "shape": [7], "names": None},
            "observation.state": {"dtype": "float32", "shape": [9], "names": None},
            "observation.images.top": {
                "dtype": "video",
                "shape": [side, side, 3],
                "names": ["height", "width", "channels"],
            },
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **numbers,
        },
    }
    (folder / "meta/info.json").write_text(json.dumps(info))
    assert imageio_ffmpeg.get_ffmpeg_exe()
    return folder


def mp4(path, frames, *, fps=HZ, codec="libx264"):
    import imageio_ffmpeg

    path.parent.mkdir(parents=True, exist_ok=True)
    quality = ["-crf", "12", "-g", "2"] if codec == "libx264" else ["-crf", "20", "-g", "2", "-cpu-used", "8"]
    writer = imageio_ffmpeg.write_frames(
        str(path), frames.shape[2:0:-1], fps=fps, codec=codec, macro_block_size=2, output_params=quality
    )
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
    return path
