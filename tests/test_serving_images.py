"""What clients may call things and which images they may send: LeRobot's names, other sizes, and errors that are for clients."""

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

from tests.serving import ToyAgent, raw_client
from tests.tiny import observation, tiny_bundle
from uva_agents.agents.observations import check_pixels
from uva_agents.agents.uva import UVA
from uva_agents.bridges.openpi import KeyMap, PolicyServer, RemotePolicy
from uva_agents.errors import InputError

FRAME = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
FLOAT = np.moveaxis(FRAME, -1, 0).astype(np.float32) / 255


class Looker:
    """Answers with what it was shown."""

    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, shape: tuple[int, int], wrist: tuple[int, int] | None = None) -> None:
        self.spec = SimpleNamespace(image_shape=shape, wrist_shape=wrist, proprio_key=None, env_id=None, control_hz=10)
        self.seen: list[Any] = []

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        check_pixels(observation["pixels"], self.spec.image_shape)
        self.seen.append(observation)
        return np.zeros(1, np.float32), None


def shown(request: dict[str, Any], shape: tuple[int, int], **options: Any) -> Any:
    """What the agent sees of a request, or the error."""
    looker = Looker(shape, options.pop("wrist", None))
    with PolicyServer(looker, port=0, **options) as running, raw_client(running.url) as client:
        answer = client.ask(request)
        return answer if isinstance(answer, str) else looker.seen[-1]


# -- names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", ["observation.image", "observation.images.main", "observation.images.top"])
@pytest.mark.parametrize("batched", [False, True], ids=["single", "batch of one"])
def test_lerobots_observations_are_understood_bit_for_bit(camera, batched):
    one = (lambda a: a[None]) if batched else (lambda a: a)
    found = KeyMap().observation(
        {camera: one(FLOAT), "observation.state": one(np.arange(3.0, dtype=np.float32)), "task": ["push"]}
    )
    assert set(found) == {"pixels", "agent_pos", "task"} and found["task"] == "push"
    assert found["pixels"].dtype == np.uint8
    np.testing.assert_array_equal(found["pixels"], FRAME)
    np.testing.assert_array_equal(found["agent_pos"], np.arange(3.0))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_step_of_256_comes_back_from_floats(dtype):
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(3, 0)
    found = KeyMap().observation({"observation.image": (ramp / 255).astype(dtype)})["pixels"]
    np.testing.assert_array_equal(found, np.moveaxis(ramp, 0, -1))


def test_a_second_camera_goes_to_the_wrist_and_uint8_stays_as_it_is():
    found = KeyMap().observation({"observation.images.image": FRAME, "observation.images.image2": 1 - FLOAT})
    np.testing.assert_array_equal(found["pixels"], FRAME)
    np.testing.assert_array_equal(found["pixels_wrist"], 255 - FRAME)
    found = KeyMap().observation({"observation.images.front": FLOAT, "observation.images.left_wrist": FLOAT})
    assert set(found) == {"pixels", "observation.images.left_wrist"}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            {"observation.images.top": FLOAT, "observation.images.front": FLOAT},
            r"2 cameras \(observation.images.front, observation.images.top\).*--key pixels=observation.images.front",
        ),
        ({"observation.image": 255 * FLOAT}, r"floats in \[0, 1\] or uint8, got values from 4 to 248"),
        ({"observation.image": 2 * FLOAT - 1}, r"floats in \[0, 1\]"),
        ({"observation.image": FLOAT * np.nan}, r"floats in \[0, 1\]"),
        ({"agent_pos": [{"x": 1}]}, "must be an array of numbers"),
        ({"agent_pos": np.array(["1"])}, "must be an array of numbers"),
    ],
)
def test_what_could_mean_two_things_is_refused(message, reason):
    with pytest.raises(InputError, match=reason):
        KeyMap().observation(message)


def test_the_one_that_is_meant_can_be_said():
    keys = KeyMap().with_names({"pixels": "observation.images.top"})
    found = keys.observation({"observation.images.top": FLOAT, "observation.images.front": 1 - FLOAT})
    np.testing.assert_array_equal(found["pixels"], FRAME)


def test_floats_under_other_names_are_refused_with_what_to_do():
    answer = shown({"observation/image": FLOAT}, (4, 5))
    assert answer.startswith("ValueError: pixels must be uint8 in [0, 255], got float32 scaled to [0, 1]")
    assert answer.endswith("convert them with (255 * pixels).round().astype(np.uint8)")
    followed = eval(answer.rpartition("with ")[2], {"np": np, "pixels": np.moveaxis(FLOAT, 0, -1)})
    np.testing.assert_array_equal(followed, FRAME)


@pytest.mark.parametrize(
    ("pixels", "advice"),
    [
        (FRAME.astype(np.float32), "convert them with pixels.round().astype(np.uint8)"),
        (FRAME.astype(np.int64), "convert them with pixels.astype(np.uint8)"),
        (FRAME / 127.5 - 1, "convert them with (127.5 * (pixels + 1)).round().astype(np.uint8)"),
        (FRAME.astype(np.uint16) * 257, "scale them to [0, 255], round, and convert them with .astype(np.uint8)"),
        (np.full((4, 5, 3), np.nan), "with NaN or infinity"),
    ],
    ids=["floats", "integers", "centred", "sixteen bits", "nan"],
)
def test_images_of_other_ranges_get_advice_that_is_right_for_them(pixels, advice):
    with pytest.raises(ValueError, match="uint8") as caught:
        check_pixels(pixels, (4, 5))
    assert str(caught.value).endswith(advice)
    if "pixels" in advice:
        np.testing.assert_array_equal(eval(advice.rpartition("with ")[2]), FRAME)


@pytest.mark.parametrize("wrong", ["rgb", "observation.picture", "cam_0"])
def test_a_name_that_is_not_understood_is_answered_with_those_that_are(wrong):
    policy = UVA(tiny_bundle()).policy()
    with PolicyServer(policy, port=0) as running, raw_client(running.url) as client:
        answer = client.ask({wrong: observation(0)["pixels"], "observation.state": np.zeros(2, np.float32)})
        names = client.metadata["uva"]["names"]
        assert answer.startswith("KeyError: the observation has no 'pixels'; its keys are") and wrong in answer
        assert "observation/image" in answer and "observation.image" in answer and "--key pixels=NAME" in answer
        assert "gym" not in answer and "environment" not in answer
        assert set(names) == {"pixels", "agent_pos"} and "observation.state" in names["agent_pos"]
        right = {"observation.image": observation(0)["pixels"], "observation.state": observation(0)["agent_pos"]}
        assert client.ask(right)["actions"].shape == (16, 2)


def test_an_agent_that_does_not_say_what_it_takes_gets_the_same_advice():
    with PolicyServer(ToyAgent(), port=0) as running, raw_client(running.url) as client:
        answer = client.ask({"joints": np.zeros(1)})
    assert answer.startswith("KeyError: the observation has no 'agent_pos'") and "observation/state" in answer


# -- sizes --------------------------------------------------------------------------------------------------------------

BIG = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)
WIDE = np.random.default_rng(2).integers(0, 256, (120, 160, 3), dtype=np.uint8)


def smaller(image: np.ndarray, h: int, w: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))


def test_without_being_asked_to_nothing_is_resized_and_the_error_names_the_option():
    answer = shown({"image": BIG}, (96, 96))
    assert answer.startswith("ValueError: pixels must be 96x96 for these weights, got 224x224")
    assert answer.endswith("(uva serve --resize)")
    assert shown({"image": WIDE}, (96, 96)).endswith("(uva serve --letterbox)")


def test_images_of_the_same_aspect_ratio_are_resized_without_jagged_edges():
    seen = shown({"image": BIG, "wrist_image": WIDE}, (96, 96), wrist=(30, 40), resize=True)
    np.testing.assert_array_equal(seen["pixels"], smaller(BIG, 96, 96))
    np.testing.assert_array_equal(seen["pixels_wrist"], smaller(WIDE, 30, 40))
    # A checkerboard finer than the pixels is grey; picked pixels would be black or white.
    board = ((np.indices((192, 192)).sum(0) % 2) * 255).astype(np.uint8)[..., None].repeat(3, -1)
    seen = shown({"image": board}, (96, 96), resize="aspect")
    assert abs(seen["pixels"].astype(int) - 127).max() <= 4
    seen = shown({"observation.image": np.moveaxis(BIG, -1, 0)[None] / np.float32(255)}, (96, 96), resize=True)
    np.testing.assert_array_equal(seen["pixels"], smaller(BIG, 96, 96))


def test_images_of_another_aspect_ratio_are_refused_or_put_between_bars():
    answer = shown({"image": WIDE}, (96, 96), resize=True)
    assert answer.startswith("ValueError: pixels is 120x160 and these weights take 96x96, another aspect ratio")
    seen = shown({"image": WIDE}, (96, 96), resize="letterbox")["pixels"]
    np.testing.assert_array_equal(seen[12:84], smaller(WIDE, 72, 96))
    assert not seen[:12].any() and not seen[84:].any()


@pytest.mark.parametrize("how", [False, "aspect", "letterbox"])
def test_the_metadata_say_which_sizes_are_taken_and_images_that_fit_are_left_alone(how):
    looker = Looker((96, 96), (30, 40))
    with PolicyServer(looker, port=0, resize=how) as running, raw_client(running.url) as client:
        server_info = client.metadata["uva"]
        assert server_info["image_shape"] == [96, 96] and server_info["wrist_shape"] == [30, 40]
        assert server_info["resize"] == (how or None) and "[0, 1]" in server_info["images"]
        client.ask({"image": BIG[:96, :96], "wrist_image": WIDE[:30, :40]})
    np.testing.assert_array_equal(looker.seen[-1]["pixels"], BIG[:96, :96])


def test_what_comes_with_a_remote_policy_is_resized_too():
    policy = UVA(tiny_bundle()).policy()
    see = [observation(i) for i in range(10)]
    large = [{**o, "pixels": np.kron(o["pixels"], np.ones((2, 2, 1), np.uint8))} for o in see]
    with PolicyServer(policy, port=0, resize=True) as running:
        far = RemotePolicy(running.url, patience_s=5)
        far.reset(seed=1), policy.reset(seed=1)
        for o, big in zip(see, large, strict=True):  # among them those that are seen between decisions
            np.testing.assert_allclose(far.act(big), policy.act({**o, "pixels": smaller(big["pixels"], 96, 96)}))
        past = {k: np.stack([o[k] for o in large[:4]]) for k in large[0]}
        assert far.sample(large[4], 2, seed=0, history=past).shape == (2, 16, 2)
        far.close()


@pytest.mark.parametrize(
    ("agent", "how", "problem"),
    [(ToyAgent(), True, "does not say which images"), (Looker((4, 4)), "stretch", "'aspect' or 'letterbox'")],
)
def test_sizes_that_nobody_knows_are_refused(agent, how, problem):
    with pytest.raises(InputError, match=problem):
        PolicyServer(agent, resize=how)
