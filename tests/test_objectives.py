"""Eyes of the planners: blocks and squares in pictures, sharp, soft or hidden; goal images; cameras."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.scenes import scene
from tests.tiny import observation, tiny_bundle
from uva_agents.agents import Rollout
from uva_agents.agents.uva import UVA
from uva_agents.planners import (
    BlockToSquare,
    GoalImage,
    Homography,
    SamplingPlanner,
    UniformProposals,
    block_push_camera,
)
from uva_agents.planners.blocks import AREA
from uva_agents.planners.vision.detector import find_blocks, find_square

BLOCKS = {"red": (0.36, -0.22), "green": (0.47, -0.1)}
SQUARES = {"green": (0.52, 0.2), "red": (0.28, 0.2)}
WAYS = {
    "sharp": {},
    "noisy": {"noise": 8.0},
    "soft": {"blur": 1.0, "noise": 4.0},
    "softer": {"blur": 1.5, "noise": 3.0},
    "dim": {"shade": 0.65, "blur": 0.8},
}


def futures(*pictures: np.ndarray, now: np.ndarray | None = None) -> Rollout:
    """Candidates of one frame each."""
    return Rollout(np.stack(pictures)[:, None], None, np.array([16]), now=now, all_steps=np.array([4, 8, 12, 16]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("block", "square"), [("red", "green"), ("green", "green"), ("red", "red")])
def test_the_distance_is_read_from_the_frames(way: str, block: Any, square: Any) -> None:
    now = scene(BLOCKS, SQUARES)
    places = [(0.4, 0.0), (0.5, 0.1), tuple(np.add(SQUARES[square], (-0.02, 0.03)))]
    pictures = [scene(BLOCKS | {block: place}, SQUARES, seed=i, **WAYS[way]) for i, place in enumerate(places)]
    objective = BlockToSquare(block, square)
    reading = objective.read(futures(*pictures, now=now))
    np.testing.assert_allclose(reading.square, SQUARES[square], atol=0.006)
    np.testing.assert_allclose(reading.block[:, 0], places, atol=0.010)
    result = objective.evaluate(futures(*pictures, now=now))
    true = np.linalg.norm(np.array(places) - SQUARES[square], axis=1)
    assert result.valid.all() and np.abs(result.costs - true).max() < 0.012
    assert result.costs.argmin() == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("colour", ["red", "green"])
def test_an_outline_is_not_a_block_and_a_block_is_not_an_outline(way: str, colour: Any) -> None:
    other = "green" if colour == "red" else "red"
    camera = block_push_camera()
    no_block = scene({other: BLOCKS[other]}, SQUARES, **WAYS[way])
    assert not find_blocks(no_block[None], colour, camera).seen[0]
    no_square = scene(BLOCKS, {other: SQUARES[other]}, **WAYS[way])
    assert not find_square(no_square, colour, camera, area=AREA)[2]


def test_a_block_that_is_nowhere_costs_the_documented_price_and_is_said_to_be_unseen() -> None:
    now = scene(BLOCKS, SQUARES)
    gone = scene({"green": BLOCKS["green"]}, SQUARES)
    result = BlockToSquare(blind=3.0).evaluate(futures(now, gone, now=now))
    assert result.valid.tolist() == [True, False] and result.costs[1] == 3.0 and result.costs[0] < 1


def test_where_colours_have_faded_the_weights_say_where_the_block_is() -> None:
    now, gone = scene(BLOCKS, SQUARES), scene({"green": BLOCKS["green"]}, SQUARES)
    known = np.array([[0.3, -0.4], [0.5, 0.15], BLOCKS["green"], SQUARES["green"], SQUARES["red"]])
    known_keypoints = replace(futures(now, gone, now=now), keypoints=np.stack([known, known])[:, None])
    colours = BlockToSquare("red", "green", keypoints=None).evaluate(known_keypoints)
    assert colours.valid.tolist() == [True, False] and colours.costs[1] == 2.0
    both = BlockToSquare("red", "green").evaluate(known_keypoints)
    assert both.valid.all()
    assert both.costs[0] == colours.costs[0], "what is seen goes first"
    assert both.costs[1] == pytest.approx(np.hypot(0.02, 0.05), abs=0.01)


def test_a_block_behind_the_arm_is_found_by_its_visible_half_or_not_at_all() -> None:
    camera = block_push_camera(height=0.03)
    errors = []
    for dy in (0.0, 0.02, 0.04, 0.05, 0.06, 0.08):
        picture = scene({"red": (0.36, -0.1)}, SQUARES, arm=(0.42, -0.1 + dy), blur=0.7)
        found = find_blocks(picture[None], "red", camera)
        errors.append(np.linalg.norm(camera.to_metres(found.pixels[0]) - (0.36, -0.1)) if found.seen[0] else np.nan)
    assert np.isnan(errors[0]) and np.nanmax(errors) < 0.02 and errors[-1] < 0.01, errors
    earlier = scene(BLOCKS | {"red": (0.45, 0.1)}, SQUARES)
    hidden = scene({"green": BLOCKS["green"]}, SQUARES)
    two = Rollout(
        np.stack([earlier, hidden])[None], None, np.array([12, 16]), now=earlier, all_steps=np.array([4, 8, 12, 16])
    )
    result = BlockToSquare(frames=(-2, -1)).evaluate(two)
    assert result.valid[0] and result.costs[0] == pytest.approx(np.hypot(0.07, 0.1), abs=0.012)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_of_an_objective_and_of_a_camera_measure_the_same(duplicate: Any) -> None:
    now = scene(BLOCKS, SQUARES)
    objective = BlockToSquare("red", "green", camera=block_push_camera())
    future = futures(scene(BLOCKS, SQUARES, blur=0.7), now=now)
    expected = objective(future).tolist()
    assert (
        duplicate(objective)(future).tolist() == expected
        and (duplicate(2 * objective)(future) == 2 * expected[0]).all()
    )
    elsewhere = scene(BLOCKS, {"green": (0.4, 0.25)})
    assert objective(futures(elsewhere, now=elsewhere))[0] != expected[0], "another frame is looked at anew"


def test_a_square_that_is_hidden_now_is_read_from_the_imagined_frames() -> None:
    now = scene(BLOCKS, {"red": SQUARES["red"]})
    pictures = [scene(BLOCKS, SQUARES, seed=i, blur=0.7) for i in range(3)]
    reading = BlockToSquare().read(futures(*pictures, now=now))
    assert reading.square_seen
    np.testing.assert_allclose(reading.square, SQUARES["green"], atol=0.008)
    nowhere = BlockToSquare().evaluate(futures(now, now=now))
    assert not nowhere.valid.any() and nowhere.costs[0] == 2.0


def test_a_planner_that_sees_no_block_says_so() -> None:
    empty = scene({}, SQUARES)

    class Still:
        def rollout(self, obs: Any, actions: np.ndarray) -> Rollout:
            return futures(*[empty] * len(actions), now=empty)

    space = observation_space()
    planner = SamplingPlanner(
        dynamics=Still(), objective=BlockToSquare(), proposals=UniformProposals(space), n_samples=3
    )
    with pytest.warns(UserWarning, match="BlockToSquare cannot see what it judges in any of 3"):
        plan = planner.plan({"pixels": empty, "agent_pos": np.zeros(2)})
    assert (plan.costs == 2.0).all() and not plan.valid.any()


def observation_space() -> Any:
    import gymnasium as gym

    return gym.spaces.Box(-0.1, 0.1, (2,), np.float32)


def test_cameras_go_back_and_forth_and_follow_resizing_and_cropping() -> None:
    camera = block_push_camera((240, 320), view="published")
    points = np.random.default_rng(0).uniform((0.15, -0.4), (0.6, 0.4), (20, 2))
    pixels = camera.to_pixels(points)
    np.testing.assert_allclose(camera.to_metres(pixels), points, atol=1e-9)
    # The optical axis meets the floor at x = 0.25; the height of the plane shifts that by as much.
    np.testing.assert_allclose(camera.to_metres([159.5, 119.5]), (0.27, 0), atol=1e-6)
    # Sixty degrees downwards, at (0.42, -0.07) on the floor.
    at = block_push_camera((96, 96)).to_metres([47.5, 47.5])
    np.testing.assert_allclose(at, (0.42 + 0.02 / np.tan(np.pi / 3), -0.07), atol=1e-6)
    with pytest.raises(ValueError, match="'workspace', 'published'"):
        block_push_camera(view="side")
    smaller = camera.resized((240, 320), (96, 96)).to_pixels(points)
    np.testing.assert_allclose(smaller, (pixels + 0.5) * (0.3, 0.4) - 0.5)
    np.testing.assert_allclose(camera.cropped(10, 20).to_pixels(points), pixels - (20, 10))
    with pytest.raises(ValueError, match="invertible 3x3"):
        Homography(np.zeros((3, 3)))


def test_another_camera_is_an_argument() -> None:
    big = (240, 240)
    camera, above = block_push_camera(big), block_push_camera(big, 0.03)
    picture = scene(BLOCKS, SQUARES, size=big)
    reading = BlockToSquare(camera=camera, block_camera=above).read(futures(picture, now=picture))
    np.testing.assert_allclose(reading.block[0, 0], BLOCKS["red"], atol=0.006)
    np.testing.assert_allclose(reading.square, SQUARES["green"], atol=0.004)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"block": "blue"}, ValueError, 'choose "red" or "green"'),
        ({"square": "Red"}, ValueError, 'choose "red" or "green"'),
        ({"frames": ()}, ValueError, "looks at nothing"),
        ({"reduce": "min"}, ValueError, "last"),
        ({"camera": np.eye(3)}, TypeError, "to_metres"),
        ({"block_camera": block_push_camera()}, ValueError, "give both"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        BlockToSquare(**options)


def test_frames_that_were_not_decoded_are_not_judged() -> None:
    roll = Rollout(np.empty((2, 0, 96, 96, 3), np.uint8), None, np.array([16]))
    with pytest.raises(ValueError, match="not decoded"):
        BlockToSquare()(roll)


def test_goal_images_are_nearest_to_themselves_in_pixels_and_in_latents() -> None:
    world = UVA(tiny_bundle()).world_model()
    actions = np.random.default_rng(0).uniform(0, 512, (5, 16, 2))
    roll = world.rollout(observation(0), actions)
    goal = roll.frames[3, -1]
    assert GoalImage(goal)(roll).argmin() == 3 and GoalImage(goal)(roll)[3] == 0
    latent = GoalImage(goal, metric="latents", world=world)
    assert not latent.required_frames().pixels
    hidden = world.rollout(observation(0), actions, frames=latent.required_frames().frames, decode=False)
    code = world.weights.encode(goal[None]).tokens[0]
    expected = [float((row[-1] - code).square().mean()) for row in hidden.latents]
    np.testing.assert_allclose(latent(hidden), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="uint8"):
        GoalImage(goal / 255)
    with pytest.raises(ValueError, match="give world="):
        GoalImage(goal, metric="latents")
    with pytest.raises(ValueError, match="no latents"):
        latent(futures(goal))
