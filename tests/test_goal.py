"""Goal reaching: the environment with a goal picture, its protocol, and what plans for it."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import uva_agents
from tests.pusht_checks import checkers_pass, digest, digest_in_another_process
from uva_agents.agents.rollout import Rollout
from uva_agents.benchmarks import PROTOCOLS, get_protocol, protocol_for
from uva_agents.cli import main
from uva_agents.envs.pusht import PushTEnv
from uva_agents.envs.pusht_goal import NEAR_PX, NEAR_RAD, PushTGoalEnv, scripted_pair
from uva_agents.planners import ActionPenalty, GoalImage, MixedProposals, ObservedGoal, RandomWalk
from uva_agents.planners.goal import RandomWalker, random_walker

GOAL = "uva/PushTGoal-v0"
HERE, THERE = (100.0, 120.0, 250.0, 260.0, 0.5), (105.0, 120.0, 250.0, 250.0, 0.7)


def write_recording(path: Path, lengths: tuple[int, ...] = (30, 10, 40)) -> np.ndarray:
    from uva_agents.data import write_replay_buffer

    n = sum(lengths)
    states = np.stack([100 + np.arange(n), np.full(n, 200), np.full(n, 300), 150 + np.arange(n), np.arange(n) / 50], 1)
    write_replay_buffer(path, {"state": states.astype(np.float32)}, np.cumsum(lengths))
    return np.asarray(states)


# -- the environment -----------------------------------------------------------------------------------------------------


def test_the_goal_picture_is_what_the_goal_looks_like():
    env = PushTGoalEnv()
    obs, info = env.reset(seed=5)
    assert env.observation_space.contains(obs)
    assert not info["is_success"]
    there, at_goal = env.reset(options={"start_state": info["goal_state"], "goal_state": info["goal_state"]})
    np.testing.assert_array_equal(there["pixels"], obs["goal"])
    np.testing.assert_array_equal(there["goal"], obs["goal"])
    assert at_goal["is_success"]


def test_states_given_are_where_finger_and_block_are():
    env = PushTGoalEnv()
    _, info = env.reset(seed=0, options={"start_state": HERE, "goal_state": THERE})
    np.testing.assert_allclose([*info["pos_agent"], *info["block_pose"]], HERE)
    np.testing.assert_allclose(info["goal_state"], THERE)
    assert info["goal_distance"] == pytest.approx(math.hypot(5, 10))
    assert info["goal_angle"] == pytest.approx(0.2)
    half = env.reset(seed=7, options={"start_state": HERE})[1]
    np.testing.assert_allclose(half["goal_state"], scripted_pair(7)[1])


@pytest.mark.parametrize(
    ("off", "reached"),
    [
        ((0, 0, 0, 0, 0), True),
        ((NEAR_PX - 0.1, 0, 0, 0, 0), True),
        ((NEAR_PX + 0.1, 0, 0, 0, 0), False),
        ((12, 0, 0, 17, 0), False),  # each is near enough, both together are not
        ((0, 0, 0, 0, NEAR_RAD - 0.01), True),
        ((0, 0, 0, 0, NEAR_RAD + 0.01), False),
        ((0, 0, 0, 0, 2 * math.pi + 0.1), True),
        ((0, 0, 0, 0, 0.1 - 4 * math.pi), True),
    ],
    ids=str,
)
def test_a_goal_is_reached_when_positions_together_and_angle_are_near(off, reached):
    wanted = tuple(np.add(HERE, off))
    info = PushTGoalEnv().reset(seed=0, options={"start_state": HERE, "goal_state": wanted})[1]
    assert info["is_success"] is reached


def test_an_episode_ends_when_the_goal_is_reached_and_pays_for_the_distance():
    env = gym.make(GOAL)
    env.reset(seed=0, options={"start_state": (100, 120, 350, 360, 0.5), "goal_state": (160, 120, 350, 360, 0.5)})
    terminated = False
    rewards: list[float] = []
    while not terminated:
        _, reward, terminated, truncated, info = env.step(np.array([160, 120], np.float32))
        rewards.append(float(reward))
        assert not truncated and info["is_success"] is terminated
    assert rewards == sorted(rewards) and rewards[0] < 0 and rewards[-1] == 0.0


def test_fifty_steps_are_the_budget():
    env = gym.make(GOAL)
    _, info = env.reset(seed=0)
    for step in range(50):
        *_, terminated, truncated, info = env.step(np.asarray(info["pos_agent"], np.float32))
        assert truncated is (step == 49) and not terminated


def test_a_scripted_pair_is_a_function_of_its_seed_and_replays():
    pairs = [scripted_pair(seed) for seed in range(30)]
    assert pairs[3] == scripted_pair(3) != pairs[4]
    off = np.array([np.subtract(goal, start) for start, goal in pairs])
    assert np.median(np.linalg.norm(off[:, 2:4], axis=1)) > 15  # the block is pushed about
    near = (np.linalg.norm(off[:, :4], axis=1) < NEAR_PX) & (np.abs(off[:, 4]) < NEAR_RAD)
    assert near.mean() < 0.1
    state = np.array(pairs).reshape(-1, 5)
    assert (state[:, :4] > 0).all() and (state[:, :4] < 512).all()


@pytest.mark.parametrize("seed", [211, 293, 412, 460])  # the block is squeezed through a wall in their first episodes
def test_start_and_goal_are_inside_the_picture_for_seeds_whose_script_pushes_the_block_out(seed):
    for moment in scripted_pair(seed):
        assert min(moment[:4]) >= 0
        assert max(moment[:4]) <= 512
    env = PushTGoalEnv()
    obs, info = env.reset(seed=seed)
    assert env.observation_space.contains(obs)
    env.set_state(env.get_state())
    assert not info["is_success"]


def test_a_recording_with_the_block_outside_the_picture_is_used_without_those_steps(tmp_path):
    from uva_agents.data import write_replay_buffer

    states = np.tile([100.0, 200.0, 300.0, 150.0, 0.0], (40, 1))
    states[:, 2] += np.arange(40)
    states[:10, 3] = -3.0
    write_replay_buffer(tmp_path / "r.zarr", {"state": states.astype(np.float32)}, np.array([40]))
    env = PushTGoalEnv(ahead=5, recordings=tmp_path / "r.zarr")
    assert min(env.reset(seed=seed)[1]["block_pose"][0] for seed in range(60)) == 310.0
    write_replay_buffer(tmp_path / "out.zarr", {"state": states[:10].astype(np.float32)}, np.array([10]))
    with pytest.raises(ValueError, match="within"):
        PushTGoalEnv(ahead=5, recordings=tmp_path / "out.zarr")


def test_pairs_come_from_recordings_where_given(tmp_path):
    states = write_recording(tmp_path / "r.zarr")
    env = gym.make(GOAL, recordings=tmp_path / "r.zarr")
    firsts = set()
    for seed in range(20):
        info = env.reset(seed=seed)[1]
        first = int(np.argmin(np.abs(states[:, 0] - info["pos_agent"][0])))
        firsts.add(first)
        np.testing.assert_allclose(info["goal_state"], states[first + 25], rtol=1e-6)
    assert firsts <= {*range(5), *range(40, 55)} and len(firsts) > 5  # never across the end of an episode
    last = PushTGoalEnv(recordings=tmp_path / "r.zarr", episodes=[2], ahead=39)
    np.testing.assert_allclose(last.reset(seed=0)[1]["pos_agent"][0], states[40, 0])


def test_pairs_of_human_recordings_look_as_recorded(shared):
    import zarr

    path = shared / "data" / "pusht" / "pusht_cchi_v7_replay.zarr"
    data: Any = zarr.open_group(str(path), mode="r")["data"]
    env = PushTGoalEnv(recordings=path, episodes=[0])
    states = np.asarray(data["state"][:120])
    obs, info = env.reset(seed=1)
    at = [
        int(np.argmin(np.abs(states - s).sum(1)))
        for s in ([*info["pos_agent"], *info["block_pose"]], info["goal_state"])
    ]
    assert at[1] - at[0] == 25
    for key, row in zip(("pixels", "goal"), at, strict=True):
        assert np.abs(obs[key] - np.asarray(data["img"][row])).mean() < 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ({"ahead": 0}, "ahead=0"),
        ({"episodes": [1]}, "give recordings="),
        ({"recordings": "nowhere.zarr"}, "no recordings at"),
        ({"recordings": "r.zarr", "ahead": 40}, "no episode has more than 40 steps"),
        ({"recordings": "r.zarr", "episodes": [3]}, "has episodes 0 to 2"),
        ({"recordings": "."}, "no PushT replay buffer"),
    ],
    ids=str,
)
def test_recordings_that_are_none_are_named(tmp_path, monkeypatch, make, message):
    write_recording(tmp_path / "r.zarr")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        PushTGoalEnv(**make)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal_stat": HERE}, "did you mean 'goal_state'"),
        ({"goal_state": (1, 2, 3)}, "goal_state takes five finite numbers"),
        ({"start_state": (-1, 2, 3, 4, 5)}, r"start_state: positions are in \[0, 512\]"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        PushTGoalEnv().reset(seed=0, options=options)


def test_a_saved_state_continues_bit_for_bit_with_its_goal():
    env, other = PushTGoalEnv(), PushTGoalEnv()
    env.reset(seed=2)
    rng = np.random.default_rng(0)
    for _ in range(5):
        env.step(rng.uniform(100, 400, 2))
    saved = env.get_state()
    other.reset(seed=9)
    other.set_state(saved)
    for _ in range(5):
        action = rng.uniform(100, 400, 2)
        (a, *ra, ia), (b, *rb, ib) = env.step(action), other.step(action)
        assert ra == rb and ia["goal_distance"] == ib["goal_distance"]
        assert all(np.array_equal(a[k], b[k]) for k in a)
    plain = PushTEnv()
    plain.reset(seed=0)
    with pytest.raises(ValueError, match="is of uva/PushT-v0, and this environment is uva/PushTGoal-v0"):
        env.set_state(plain.get_state())


def test_gymnasium_and_stable_baselines3_checkers_pass():
    checkers_pass(GOAL)


def test_episodes_are_the_same_in_another_process():
    assert digest(GOAL) == digest_in_another_process(GOAL)


# -- the protocol --------------------------------------------------------------------------------------------------------


def test_the_protocol_is_named_and_versioned():
    rules = get_protocol("pusht-goal")
    assert (rules.title, rules.env_id, rules.max_steps) == ("pusht-goal v1", GOAL, 50)
    assert protocol_for(GOAL) is rules


def test_episodes_that_begin_solved_are_counted_and_the_score_is_the_rate(tmp_path):
    write_recording(tmp_path / "r.zarr", (30,))
    standing = {"recordings": str(tmp_path / "r.zarr"), "ahead": 5}  # 5 steps on, positions are 7 pixels away
    rules = dataclasses.replace(get_protocol("pusht-goal"), max_steps=3)
    report = uva_agents.evaluate(random_walker(), None, 3, protocol=rules, env_kwargs=standing, progress=False)
    assert report.already_solved == 3
    assert report.score == report.success_rate
    assert "3 episodes began solved" in report.summary()


def test_uva_eval_runs_it_with_and_without_recordings(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "pusht-goal", dataclasses.replace(PROTOCOLS["pusht-goal"], max_steps=3))
    write_recording(tmp_path / "r.zarr")
    argv = ["eval", "uva_agents.planners.goal:random_walker", "--protocol", "pusht-goal", "--episodes", "2", "--quiet"]
    assert main([*argv, "--json", str(tmp_path / "a.json")]) == 0
    path = str(tmp_path / "r.zarr")
    assert main([*argv, "--json", str(tmp_path / "b.json"), "--env-arg", f"recordings={path}"]) == 0
    for name, given in (("a", {}), ("b", {"recordings": path})):
        saved = json.loads((tmp_path / f"{name}.json").read_text())
        assert (saved["protocol"], saved["n"], saved["env_kwargs"]) == ("pusht-goal", 2, given)
    assert "pusht-goal v1" in capsys.readouterr().out


# -- planning for it -----------------------------------------------------------------------------------------------------


def frames(values: np.ndarray) -> Rollout:
    """(S, F) grey levels -> futures with a frame of each."""
    shape = (*values.shape, 4, 4, 3)
    pixels = np.broadcast_to(values[..., None, None, None].astype(np.uint8), shape).copy()
    return Rollout(pixels, None, 4 * np.arange(1, values.shape[1] + 1))


def test_the_objective_takes_its_goal_from_the_observation():
    rollout = frames(np.array([[10, 20, 30, 200], [10, 120, 30, 90], [0, 0, 0, 0]]))
    goals = {level: {"goal": np.full((4, 4, 3), level, np.uint8)} for level in (0, 90, 120)}
    last = ObservedGoal(frames=(-1,))
    for level, best in ((90, 1), (0, 2)):
        costs = last.bind(goals[level])(rollout)
        assert costs.argmin() == best
        np.testing.assert_array_equal(costs, GoalImage(goals[level]["goal"])(rollout))
    nearest = ObservedGoal(frames=(1, 3), nearest=True).bind(goals[120])(rollout)
    assert nearest.argmin() == 1 and nearest[1] == 0
    both = (ObservedGoal(frames=(-1,)) + 0.0 * ActionPenalty()).bind(goals[90])
    assert both.required_frames().frames == (-1,)
    with pytest.raises(KeyError, match=r"no 'goal' to plan for; its keys are \['pixels'\]"):
        last.bind({"pixels": 0})
    with pytest.raises(ValueError, match="call bind"):
        last(rollout)


def test_walks_start_where_the_finger_is_and_stay_inside():
    space = gym.spaces.Box(0.0, 512.0, (2,), np.float32)
    walk = RandomWalk(space, horizon=8, hold=4, stride=10)
    drawn = walk.sample({"agent_pos": np.array([5.0, 300.0])}, 50, seed=1)
    assert drawn.shape == (50, 8, 2) and drawn.dtype == np.float32 and drawn.min() == 0
    steps = np.diff(np.concatenate([np.full((50, 1), 300.0), drawn[..., 1]], 1), axis=1)
    assert np.abs(steps).max() <= 10.001
    np.testing.assert_allclose(steps[:, 0], steps[:, 3], atol=1e-3)
    np.testing.assert_array_equal(drawn, walk.sample({"agent_pos": np.array([5.0, 300.0])}, 50, seed=1))
    two = MixedProposals(walk, RandomWalk(space, horizon=8, stride=1)).sample(
        {"agent_pos": np.full(2, 256.0)}, 5, seed=0
    )
    far = np.abs(two[:, -1] - 256).max(1)
    assert len(two) == 5 and (far[:3] > 9).any() and (far[3:] <= 8).all()


def test_a_wandering_agent_has_its_own_stream_in_every_row():
    agent = RandomWalker(gym.spaces.Box(0.0, 512.0, (2,), np.float32))
    obs = {"agent_pos": np.array([[256.0, 256.0]] * 2)}
    state, alone, seen = agent.initial_state(2, seed=[3, 4]), agent.initial_state(1, seed=[4]), []
    for _ in range(20):
        both, state = agent.predict(obs, state)
        one, alone = agent.predict({"agent_pos": obs["agent_pos"][1:]}, alone)
        np.testing.assert_array_equal(both[1:], one)
        seen.append(both)
    assert not np.allclose(np.stack(seen)[:, 0], np.stack(seen)[:, 1])


@pytest.mark.slow
def test_the_shipped_planner_plans_for_every_environment_s_own_goal():
    from uva_agents.planners.goal import pusht_goal_planner

    planner = pusht_goal_planner(n_samples=4)
    observations = [PushTGoalEnv().reset(seed=s)[0] for s in (0, 1)]
    batch = {k: np.stack([o[k] for o in observations]) for k in observations[0]}
    _, state = planner.predict(batch, planner.initial_state(2, seed=[0, 1]))
    for i in range(2):
        plan = state[i].plan
        again = (
            GoalImage(observations[i]["goal"], frames=(1,))(plan.rollout),
            GoalImage(observations[i]["goal"], frames=(3,))(plan.rollout),
        )
        np.testing.assert_allclose(plan.costs, np.minimum(*again))
