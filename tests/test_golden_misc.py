"""Parts against numbers recorded from the released code: action aggregators, autoencoder."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from uva_agents.agents.smoothing import smooth_actions
from uva_agents.benchmarks.paper import fvd
from uva_agents.checkpoints.official.keys import rename, rename_vae
from uva_agents.model import VAE, HeadConfig, optimize_for_inference
from uva_agents.model.uva.config import VAEConfig
from uva_agents.model.uva.heads import ActionHead
from uva_agents.utils import rotations as poses


def crc(text: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(text.encode()))


def made_up_weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The recordings' rule for weights: a function of name and shape."""
    n = crc(key).standard_normal(int(np.prod(shape))).reshape(shape)
    if key.endswith(".weight"):
        n = 1 + 0.1 * n if len(shape) == 1 else n / np.sqrt(n.size / shape[0])
    else:
        n = (0.05 if key.endswith(".bias") else 0.1) * n
    return torch.from_numpy(n.astype(np.float32))


@pytest.fixture(scope="module")
def misc(shared: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "golden" / "misc.npz"))


@pytest.mark.parametrize("kind", ["conv_fc", "conv_ori", "conv2", "fc2"])
def test_action_aggregators_match_the_recording(misc: dict[str, np.ndarray], kind: str) -> None:
    head = ActionHead(
        dim=64, grid=16, frames=4, steps=16, channels=10, aggregator=kind, config=HeadConfig(width=64, depth=2)
    ).eval()
    recorded = {str(line).split(" ")[0] for line in misc[f"aggr/{kind}/keys"]}
    own = {k.removeprefix("aggregate."): v for k, v in head.state_dict().items()}
    state = {}
    for key in recorded:
        mine = rename(f"diffactloss.{key}").removeprefix("action_head.aggregate.")
        state[f"aggregate.{mine}"] = made_up_weight(key, tuple(own[mine].shape))
    for key in (k for k in own if k.startswith("head.")):
        state[key] = made_up_weight(key.removeprefix("head."), tuple(own[key].shape))
    head.load_state_dict(state)
    z = torch.from_numpy(crc("input:aggr/z").standard_normal(2 * 1024 * 64).astype(np.float32)).view(2, 1024, 64)
    np.testing.assert_array_equal(z[:, ::16].numpy(), misc["aggr/z"])
    noise = torch.from_numpy(crc("input:aggr/noise").standard_normal(320).astype(np.float32)).view(32, 10)
    with torch.no_grad():
        condition = head.condition(z)
        target = torch.from_numpy(misc["aggr/target"])
        losses = head.row_losses(target, condition, t=31 * torch.arange(32), noise=noise)
    np.testing.assert_allclose(condition.numpy(), misc[f"aggr/{kind}/c"], atol=2e-5)
    np.testing.assert_allclose(losses.numpy(), misc[f"aggr/{kind}/mse"] + misc[f"aggr/{kind}/vb"], rtol=1e-4)
    assert float(losses.mean()) == pytest.approx(float(misc[f"aggr/{kind}/loss"]), rel=1e-5)


@pytest.mark.parametrize("optimized", [False, True])
def test_the_autoencoder_matches_the_recording(shared: Path, optimized: bool) -> None:
    recorded = np.load(shared / "golden" / "vae_small_io.npz")
    vae = VAE(VAEConfig(channels=32, res_blocks=1)).eval()
    vae.load_state_dict(rename_vae(load_file(shared / "golden" / "vae_small_state.safetensors")))
    optimize_for_inference(vae, optimized)
    with torch.no_grad():
        for name in ("image", "image_smooth"):
            image = torch.from_numpy(recorded[name])
            posterior = vae.posterior(image)
            np.testing.assert_allclose(posterior.mean.numpy(), recorded[f"{name}.mean"], atol=2e-5)
            np.testing.assert_allclose(posterior.logvar.numpy(), recorded[f"{name}.logvar_clamped"], atol=2e-5)
            torch.manual_seed(4321)
            drawn = vae.encode(image, sample=True)
            np.testing.assert_allclose(drawn.numpy(), recorded[f"{name}.sample_seed4321_x0.2325"], atol=2e-5)
            decoded = vae.decode(posterior.mean * vae.config.scale)
            np.testing.assert_allclose(decoded.numpy(), recorded[f"{name}.decode_of_mean"], atol=5e-5)
        latent = torch.from_numpy(recorded["latent"])
        decoded = vae.decode(latent * vae.config.scale).numpy()
        np.testing.assert_allclose(decoded, recorded["decode_of_latent"], atol=5e-5)


def test_relative_poses_and_rotations_match_the_recording(misc: dict[str, np.ndarray]) -> None:
    absolute = poses.pose_matrix(misc["pose/pose_axis_angle"])
    relative = poses.relative_to(absolute[15], absolute)
    np.testing.assert_allclose(poses.pose9_from_matrix(relative), misc["pose/relative_to_15_pose9"], atol=1e-6)
    from_start = poses.relative_to(poses.pose_matrix(misc["pose/start"]), absolute)
    np.testing.assert_allclose(poses.rot6d_from_matrix(from_start[:, :3, :3]), misc["pose/rot6d_wrt_start"], atol=1e-6)
    back = poses.pose_from_matrix(absolute[15] @ poses.matrix_from_pose9(misc["pose/relative_to_15_pose9"]))
    np.testing.assert_allclose(back, misc["pose/back_to_abs"], atol=1e-6)
    np.testing.assert_allclose(poses.matrix_from_pose9(misc["pose/noisy9"]), misc["pose/noisy9_to_mat"], atol=1e-6)


def test_rotation_vectors_survive_every_angle() -> None:
    rng = np.random.default_rng(0)
    axis = rng.normal(size=(200, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.concatenate([[0.0, 1e-12, 1e-6, np.pi - 1e-9, np.pi - 1e-4], rng.uniform(0, np.pi, 195)])
    vector = axis * angle[:, None]
    matrix = poses.matrix_from_vector(vector)
    np.testing.assert_allclose(matrix @ matrix.transpose(0, 2, 1), np.broadcast_to(np.eye(3), matrix.shape), atol=1e-12)
    np.testing.assert_allclose(poses.matrix_from_vector(poses.vector_from_matrix(matrix)), matrix, atol=1e-9)
    np.testing.assert_allclose(poses.vector_from_matrix(matrix)[5:], vector[5:], atol=1e-9)
    np.testing.assert_allclose(poses.matrix_from_rot6d(poses.rot6d_from_matrix(matrix)), matrix, atol=1e-12)
    half = np.concatenate([axis * np.sin(angle / 2)[:, None], np.cos(angle / 2)[:, None]], axis=1)
    np.testing.assert_allclose(poses.matrix_from_quaternion(half), matrix, atol=1e-9)
    np.testing.assert_allclose(poses.matrix_from_quaternion(-half), matrix, atol=1e-9)


def test_action_smoothing_matches_the_recording(misc: dict[str, np.ndarray]) -> None:
    smoothed = smooth_actions(torch.from_numpy(misc["smooth/in"]), taps=3)
    np.testing.assert_allclose(smoothed.numpy(), misc["smooth/out"], atol=1e-6)


def test_frechet_video_distance_matches_the_recording(misc: dict[str, np.ndarray]) -> None:
    assert fvd.frechet_distance(misc["fvd/a"], misc["fvd/b"]) == pytest.approx(float(misc["fvd/distance"]), rel=1e-4)
    assert fvd.frechet_distance(misc["fvd/a"], misc["fvd/a"]) == pytest.approx(0, abs=1e-6)
    small = fvd.preprocess(misc["fvd/video"], resolution=16)
    np.testing.assert_allclose(small.numpy(), misc["fvd/preprocessed_res16"], atol=1e-6)


def test_frechet_video_distance_of_two_sets_grows_with_their_difference() -> None:
    rng = np.random.default_rng(0)
    videos = rng.integers(0, 200, (12, 4, 24, 20, 3), dtype=np.uint8)
    features = lambda x: x.mean((2, 3)).flatten(1)[:, :16]  # noqa: E731
    near, far = (
        fvd.frechet_video_distance([videos[:6], videos[6:]], [videos + shift], features, resolution=16)
        for shift in (np.uint8(5), np.uint8(50))
    )
    assert 0 < near < far
    with pytest.raises(ValueError, match="uint8"):
        fvd.preprocess(videos / 255)
    with pytest.raises(ValueError, match="NaN"):
        fvd.frechet_distance(np.full((4, 3), np.nan), np.zeros((4, 3)))
