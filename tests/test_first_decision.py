"""What a fresh process imports before its first decision, and what it decides whatever torch's defaults are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import uva_agents as uva
from tests.tiny import observation, tiny_bundle, tiny_dp_bundle, tiny_two_frame_bundle
from uva_agents.agents.uva import UVA
from uva_agents.checkpoints import save_bundle, save_net
from uva_agents.checkpoints.folder import pick_device
from uva_agents.errors import InputError, MachineError

HEAVY = (
    *("diffusers", "sympy", "scipy", "torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes"),
    *("transformers", "accelerate", "huggingface_hub", "zarr", "h5py", "imageio", "pandas", "pyarrow", "matplotlib"),
    *("gym_pusht", "pymunk", "pygame", "shapely", "mujoco", "pybullet", "cv2", "PIL", "stable_baselines3", "rich"),
)
"""Each costs from a tenth of a second to several."""


EVERYTHING = """
policy = uva.Policy.from_pretrained("pusht-nano", device="cpu")
policy.act(obs)
policy = uva.Policy.from_pretrained("block-push-nano", device="cpu")
policy.act(obs)
proposals = uva.DiffusionPolicy.from_pretrained("dp-c-block-push", device="cpu")
proposals.act(obs)
world = uva.WorldModel(policy.weights)
world.rollout(obs, proposals.sample(obs, 2))
world.imagine(obs)
uva.InverseModel(policy.weights).infer(np.zeros((4, 96, 96, 3), np.uint8))
uva.TwoFrameInverse.from_pretrained("two-frame-pusht").infer(np.zeros((4, 96, 96, 3), np.uint8))
"""


def test_loading_and_deciding_import_nothing_heavy() -> None:
    script = (
        "import numpy as np, uva_agents as uva, sys\n"
        "obs = {'pixels': np.zeros((96, 96, 3), np.uint8), 'agent_pos': np.full(2, 0.3, np.float32)}\n"
        f"{EVERYTHING}\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("weights")
    return {
        "uva": save_bundle(tiny_bundle(), root / "uva"),
        "dp": save_net(tiny_dp_bundle(), root / "dp"),
        "transformer": save_net(tiny_dp_bundle("transformer"), root / "dp-t"),
        "two": save_net(tiny_two_frame_bundle(), root / "two"),
    }


def load(folders: dict[str, Path]) -> dict[str, object]:
    return {
        "uva": UVA.from_pretrained(folders["uva"], device="cpu"),
        **{k: uva.DiffusionPolicy.from_pretrained(folders[k], device="cpu", steps=3) for k in ("dp", "transformer")},
        "two": uva.TwoFrameInverse.from_pretrained(folders["two"], device="cpu"),
    }


def answers(agents: dict[str, object]) -> list[np.ndarray]:
    model, two = agents["uva"], agents["two"]
    assert isinstance(model, UVA) and isinstance(two, uva.TwoFrameInverse)
    obs, frames = observation(0), np.stack([observation(i)["pixels"] for i in range(4)])
    world = uva.WorldModel(model, seed=1)
    dream = world.as_env(lambda rollout: rollout.frames.mean(), starts=[obs])
    dream.reset(seed=0)
    rollout = world.rollout(obs, np.full((2, 32, 2), 300.0))
    imagined = world.imagine(obs, n=2)
    found = [rollout.frames, rollout.latents.numpy(), imagined.frames, imagined.actions]
    found += [
        uva.Policy(model, smooth=3).sample(obs, n=2, seed=0),
        model.inverse_model().infer(frames),
        two.infer(frames),
    ]
    found += [dream.step(np.full(2, 99.0))[0]["pixels"]]
    for name in ("dp", "transformer"):
        policy = agents[name]
        assert isinstance(policy, uva.DiffusionPolicy)
        found.append(policy.sample(obs, n=2, seed=0))
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torchs_default_dtype_changes_nothing(folders: dict[str, Path], dtype: torch.dtype) -> None:
    before = load(folders)
    expected = answers(before)
    torch.set_default_dtype(dtype)
    try:
        after = load(folders)
        assert torch.get_default_dtype() == dtype
        for agents in (before, after):
            for found, wanted in zip(answers(agents), expected, strict=True):
                assert found.dtype == wanted.dtype
                np.testing.assert_array_equal(found, wanted)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("device", "error", "match"),
    [
        ("gpu", InputError, "no device is called 'gpu'"),
        ("", InputError, "no device is called ''"),
        ("cuda:x", InputError, "no device is called"),
        ("cuda:-1", InputError, "no device is called"),
        ("cpu:1", InputError, "one CPU device"),
        (0, InputError, "got int"),
        (None, InputError, "got NoneType"),
        (["cpu"], InputError, "got list"),
        ("meta", MachineError, "does not work"),
        ("cuda:99", MachineError, "cuda:99"),
        ("mps", MachineError, "does not work"),
        ("xpu", MachineError, "does not work"),
    ],
)
def test_devices_that_are_not_there_are_named(device: object, error: type[Exception], match: str) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(error, match=match) as caught:
        uva.Policy.from_pretrained("pusht-nano", device=device)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_cuda_without_cuda_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(MachineError, match=r'built without CUDA.*device="cpu"'):
        pick_device("cuda")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    with pytest.raises(MachineError, match=r"no CUDA device.*CUDA_VISIBLE_DEVICES"):
        pick_device("cuda:0")
    assert pick_device("auto").type == pick_device(" Auto ").type == pick_device(torch.device("cpu")).type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda") == torch.device("cuda")
    with pytest.raises(MachineError, match="torch sees 1 CUDA device here"):
        pick_device("cuda:9")
