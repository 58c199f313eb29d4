"""Damaged and odd observations, for every agent: the right answer, or an error that names what is wrong with them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import uva_agents as uva
from tests.tiny import observation, tiny_bundle, tiny_dp_bundle, tiny_two_frame_bundle
from uva_agents.agents.observations import split
from uva_agents.agents.uva import UVA
from uva_agents.errors import InputError, UVAError
from uva_agents.planners import SamplingPlanner

SPACE = gym.spaces.Box(0, 512, (2,), np.float32)


@pytest.fixture(scope="module")
def agents() -> dict[str, Callable[[Any], np.ndarray]]:
    """By name, a function of an observation; what is random in it is seeded."""
    model = UVA(tiny_bundle())
    policy = uva.Policy(model, steps=1)
    diffusion = uva.DiffusionPolicy(tiny_dp_bundle(), steps=1)
    world = uva.WorldModel(model, seed=0)
    inverse = uva.InverseModel(model, steps=1, draws=1)
    two = uva.TwoFrameInverse(tiny_two_frame_bundle())
    planner = SamplingPlanner(
        dynamics=world, objective=lambda rollout: rollout.frames.mean((1, 2, 3, 4)), proposals=policy, n_samples=2
    )
    actions = np.full((16, 2), 200, np.float32)

    def act(agent: Any) -> Callable[[Any], np.ndarray]:
        def run(obs: Any) -> np.ndarray:
            agent.reset(seed=0)
            return np.asarray(agent.act(obs))

        return run

    def of_video(function: Callable[[Any], np.ndarray]) -> Callable[[Any], np.ndarray]:
        """A video in which every frame is the observation's: its pixels are as odd as they were."""

        def run(obs: Any) -> np.ndarray:
            pixels = obs["pixels"]
            if isinstance(pixels, np.ndarray) and pixels.ndim and pixels.nbytes < 1e7:
                pixels = np.repeat(pixels[None], 4, 0)
            elif isinstance(pixels, torch.Tensor) and not pixels.is_sparse and pixels.ndim and pixels.numel() < 1e6:
                pixels = torch.stack([pixels] * 4)
            return np.asarray(function(pixels))

        return run

    return {
        "act": act(policy),
        "predict": lambda obs: policy.predict(obs, policy.initial_state(_count(obs), seed=0))[0],
        "sample": lambda obs: policy.sample(obs, n=2, seed=0),
        "history": lambda obs: policy.sample(observation(1), n=1, seed=0, history=obs),
        "diffusion act": act(diffusion),
        "diffusion sample": lambda obs: diffusion.sample(obs, n=2, seed=0),
        "rollout": lambda obs: world.rollout(obs, actions, seed=0, steps=1).frames,
        "infer": of_video(inverse.infer),
        "two-frame": of_video(two.infer),
        "planner": act(planner),
    }


def _count(obs: Any) -> int:
    pixels = obs.get("pixels") if isinstance(obs, dict) else None
    return len(pixels) if hasattr(pixels, "ndim") and pixels.ndim == 4 and len(pixels) < 100 else 1


class _Hostile:
    """Says it is an array and is none."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("not today")


class _Detached:
    """Says it is a tensor and is none."""

    def detach(self) -> Any:
        raise RuntimeError("no")


def _swapped(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder(">"))


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def _strided(array: np.ndarray) -> np.ndarray:
    """The same values in every other place of a larger memory, the other way round."""
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array[..., ::-1]
    return wide[..., ::2][..., ::-1]


SAME: list[Callable[[np.ndarray], Any]] = [
    np.asfortranarray,
    _strided,
    _read_only,
    _swapped,
    torch.from_numpy,
    lambda a: torch.from_numpy(a).to(a.dtype and torch.float64) if a.dtype.kind == "f" else torch.from_numpy(a),
    lambda a: np.flip(np.flip(a, 0).copy(), 0),
    lambda a: a.astype(np.float64) if a.dtype.kind == "f" else a.view(np.ndarray),
    lambda a: a.tolist() if a.dtype.kind == "f" else a,
    lambda a: np.ma.masked_array(a),
]
"""Other ways to hold the same numbers: the answer is the same."""

DAMAGED: list[Callable[[np.ndarray, np.random.Generator], Any]] = [
    lambda a, r: None,
    lambda a, r: "pixels",
    lambda a, r: b"\x00" * 27,
    lambda a, r: 3,
    lambda a, r: float("nan"),
    lambda a, r: [],
    lambda a, r: {},
    lambda a, r: {"nested": a},
    lambda a, r: [a, a[:1]],
    lambda a, r: [[1, 2], [3]],
    lambda a, r: [a.tolist(), "x"] if a.size < 100 else [a, "x"],
    lambda a, r: np.array(7),
    lambda a, r: np.array(None, dtype=object),
    lambda a, r: np.array(["a", "b"]),
    lambda a, r: np.empty((0, *a.shape), a.dtype),
    lambda a, r: a[..., :0],
    lambda a, r: a[None, None, None],
    lambda a, r: a[..., None],
    lambda a, r: a[..., 0],
    lambda a, r: np.moveaxis(a, -1, 0)[..., :1],
    lambda a, r: np.concatenate([a, a[..., :1]], -1),
    lambda a, r: a.repeat(2, 0),
    lambda a, r: a[:-1],
    lambda a, r: a.astype(np.float64) * np.nan,
    lambda a, r: np.where(r.random(a.shape) < 0.01, np.inf, a.astype(np.float32)),
    lambda a, r: a.astype(np.complex64),
    lambda a, r: a.astype("U3"),
    lambda a, r: a.astype(object),
    lambda a, r: a.astype("datetime64[s]"),
    lambda a, r: np.zeros(a.shape, [("x", "u1"), ("y", "f4")]),
    lambda a, r: np.broadcast_to(a, (10**9, *a.shape)),
    lambda a, r: np.broadcast_to(np.uint8(0), (10**6,) * 3),
    lambda a, r: np.broadcast_to(np.float32(0), (10**5, 10**5, 10**4)),
    lambda a, r: torch.zeros(2, 2).to_sparse(),
    lambda a, r: torch.empty(a.shape, device="meta"),
    lambda a, r: iter([1, 2]),
    lambda a, r: (x for x in range(3)),
    lambda a, r: lambda: 1,
    lambda a, r: type,
    lambda a, r: _Hostile(),
    lambda a, r: _Detached(),
    lambda a, r: [[[[[[[[[[1]]]]]]]]]],
]
"""Most of these are no such array at all; where one is, it may be used."""

ODD: list[Callable[[np.ndarray], Any]] = [
    lambda a: a.astype(np.float32) / 255,
    lambda a: a.astype(np.float32) / 127.5 - 1,
    lambda a: a.astype(np.float16),
    lambda a: a.astype(np.int64) - 300,
    lambda a: a.astype(np.int64),
    lambda a: a > 100,
    lambda a: np.moveaxis(a, -1, 0),
]
"""Pictures that are some, but not uint8 with channels last: always refused."""

WHOLE: list[Callable[[dict[str, Any]], Any]] = [
    lambda o: None,
    lambda o: (o, {}),
    lambda o: [o],
    lambda o: "observation",
    lambda o: {},
    lambda o: {1: o["pixels"], "pixels": o["pixels"]},
    lambda o: {k: v for k, v in o.items() if k != "pixels"},
    lambda o: {"obs": o},
    lambda o: {**o, "task": 3},
    lambda o: {**o, "task": ["a", "b", "c"]},
    lambda o: {**o, "task": None},
    lambda o: {**o, "task_embedding": np.full(4, np.nan)},
    lambda o: {**o, "task_embedding": "words"},
    lambda o: {**o, "task_embedding": np.zeros((3, 3, 3))},
    lambda o: {**o, "pixels": np.stack([o["pixels"]] * 2)},
    lambda o: {**o, "agent_pos": np.stack([o["agent_pos"]] * 3)},
    lambda o: {"pixels": np.stack([o["pixels"]] * 2), "agent_pos": np.stack([o["agent_pos"]] * 3)},
    lambda o: {"pixels": np.stack([o["pixels"]] * 2), "agent_pos": np.array([[1, 2], [np.nan, 3]])},
    lambda o: {"pixels": [o["pixels"]] * 2, "agent_pos": [o["agent_pos"].tolist(), [1.0]]},
    lambda o: {**o, "agent_pos": o["agent_pos"] * 1e38},
    lambda o: {**o, "agent_pos": o["agent_pos"].astype(np.float64) * 1e300},
    lambda o: type("Sub", (dict,), {})(o),
]
"""Of the observation itself."""


def cases(count: int, seed: int) -> list[tuple[str, Any, str]]:
    """(kind, observation, where) for ``count`` odd observations, the same for a seed."""
    rng = np.random.default_rng(seed)
    made: list[tuple[str, Any, str]] = []
    while len(made) < count:
        obs: dict[str, Any] = observation(int(rng.integers(3)))
        kind = rng.choice(["same", "damaged", "odd", "whole"], p=[0.2, 0.5, 0.1, 0.2])
        key = str(rng.choice(["pixels", "agent_pos"]))
        if kind == "same":
            change = SAME[rng.integers(len(SAME))]
            made.append(("same", {**obs, key: change(obs[key])}, key))
        elif kind == "odd":
            made.append(("refused", {**obs, "pixels": ODD[rng.integers(len(ODD))](obs["pixels"])}, "pixels"))
        elif kind == "damaged":
            try:
                value = DAMAGED[rng.integers(len(DAMAGED))](obs[key], rng)
            except (ValueError, TypeError, IndexError):  # this array cannot be damaged so
                continue
            made.append(("any", {**obs, key: value}, key))
        else:
            made.append(("any", WHOLE[rng.integers(len(WHOLE))](obs), "observation"))
    return made


def named(error: BaseException, where: str) -> bool:
    """Whether an error is one of those that are promised, and says where."""
    if isinstance(error, UVAError):
        return True
    words = ("observation", "pixels", "agent_pos", "tuple", "task")
    return type(error) in (TypeError, KeyError) and any(word in str(error) for word in words)


def check(agents: dict[str, Callable[[Any], np.ndarray]], count: int, seed: int) -> None:
    clean = {
        name: [run(observation(i)) if name != "history" else None for i in range(3)] for name, run in agents.items()
    }
    wrong = []
    for kind, obs, where in cases(count, seed):
        for name, run in agents.items():
            if name == "history" and kind != "any":
                continue  # these have no time axis
            frames_only = name in ("infer", "two-frame")
            if frames_only and (where != "pixels" or not isinstance(obs, dict)):
                continue
            label = f"{name}, {kind} {where}: {_describe(obs)}"
            try:
                out = run(obs)
            except Exception as error:
                if not named(error, where) or kind == "same":
                    wrong.append(f"{label} -> {type(error).__name__}: {str(error)[:200]}")
                continue
            if kind == "refused":
                wrong.append(f"{label} was accepted")
            elif kind == "same" and not any(np.array_equal(out, answer) for answer in clean[name]):
                wrong.append(f"{label} gave another answer")
            elif not np.isfinite(out).all():
                wrong.append(f"{label} gave numbers that are not finite")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:30])


def _describe(obs: Any) -> str:
    if not isinstance(obs, dict):
        return type(obs).__name__
    return str({k: (type(v).__name__, getattr(v, "shape", ""), str(getattr(v, "dtype", ""))) for k, v in obs.items()})


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_odd_observations_get_the_right_answer_or_an_error_that_names_them(agents: Any) -> None:
    check(agents, 90, seed=1)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_five_hundred_odd_observations(agents: Any) -> None:
    check(agents, 500, seed=2)


def test_an_absurd_shape_asks_for_no_memory(agents: Any) -> None:
    obs = {
        "pixels": np.broadcast_to(np.uint8(0), (10**9, 96, 96, 3)),
        "agent_pos": np.broadcast_to(np.float32(0), (10**9, 2)),
    }
    tracemalloc.start()
    try:
        for name in ("act", "sample", "history", "diffusion act", "rollout", "planner"):
            with pytest.raises(ValueError, match="1000000000"):
                agents[name](obs)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda p: p.astype(np.float32) / 255, lambda pixels: (255 * pixels).round().astype(np.uint8)),
        (lambda p: p.astype(np.float64) / 127.5 - 1, lambda pixels: (127.5 * (pixels + 1)).round().astype(np.uint8)),
        (lambda p: p.astype(np.float32), lambda pixels: pixels.round().astype(np.uint8)),
        (lambda p: p.astype(np.int32), lambda pixels: pixels.astype(np.uint8)),
    ],
)
def test_the_advice_for_other_pictures_gives_back_the_picture(agents: Any, change: Any, advice: Any) -> None:
    obs = observation(0)
    other = change(obs["pixels"])
    with pytest.raises(ValueError, match=r"pixels must be uint8 in \[0, 255\].*astype\(np.uint8\)") as caught:
        agents["act"]({**obs, "pixels": other})
    told = str(caught.value).split("convert them with ")[1]
    followed = eval(told, {"np": np, "pixels": other})
    np.testing.assert_array_equal(followed, advice(other))
    np.testing.assert_array_equal(followed, obs["pixels"])


def test_pictures_out_of_range_are_not_called_bytes(agents: Any) -> None:
    pixels = np.zeros((96, 96, 3), np.int64)
    pixels[0, 0, 0], pixels[1, 1, 1] = -5, 300
    with pytest.raises(ValueError, match="from -5 to 300: scale them"):
        agents["act"]({**observation(0), "pixels": pixels})


@pytest.mark.parametrize("kind", ["policy", "diffusion", "planner", "world"])
def test_what_an_environment_writes_into_the_same_memory_later_changes_no_history(kind: str) -> None:
    model = UVA(tiny_bundle())
    world = model.world_model()
    policy = uva.DiffusionPolicy(tiny_dp_bundle(), execute=1) if kind == "diffusion" else uva.Policy(model, execute=1)
    agent: Any = policy
    if kind == "planner":
        agent = SamplingPlanner(
            dynamics=world, objective=lambda r: r.frames.mean((1, 2, 3, 4)), proposals=policy, n_samples=2, execute=1
        )
    if kind == "world":
        buffer = observation(0)
        start = world.prepare(buffer)
        actions = np.full((16, 2), 100, np.float32)
        rollout = world.rollout(start, actions)
        buffer["pixels"][:] = 0
        actions[:] = 0
        assert rollout.now is not None and rollout.now.any() and rollout.actions is not None and rollout.actions.all()
        return
    answers = []
    for reuse in (False, True):
        buffer = observation(0)
        agent.reset(seed=0)
        taken = []
        for i in range(6):
            fresh = observation(i)
            if reuse:
                for key, value in fresh.items():
                    buffer[key][...] = value
            action = agent.act(buffer if reuse else fresh)
            taken.append(action.copy())
            action[...] = -1  # what is handed out is the caller's
        answers.append(np.stack(taken))
    np.testing.assert_array_equal(answers[0], answers[1])


@pytest.mark.parametrize("value", [None, "x", 1.5, -1, 0, [1], {}, np.array([1, 2]), True, float("nan"), b"x"])
def test_counts_that_are_none_are_named(value: Any) -> None:
    model = UVA(tiny_bundle())
    policy, world, obs = model.policy(), model.world_model(), observation(0)
    calls: dict[str, Callable[[], Any]] = {
        "n": lambda: policy.sample(obs, n=value),
        "batch_size": lambda: uva.Policy(model, batch_size=value),
        "smooth": lambda: uva.Policy(model, smooth=value),
        "steps": lambda: uva.Policy(model, steps=value),
        "draws": lambda: uva.InverseModel(model, draws=value),
        "horizon": lambda: world.as_env(lambda rollout: 0, horizon=value),
    }
    for name, call in calls.items():
        with pytest.raises(InputError, match=f"{name} must be"):
            call()
    with pytest.raises(InputError, match="n must be"):
        world.generate(obs, n=value)


def test_seeds_are_integers_of_any_kind() -> None:
    model = UVA(tiny_bundle())
    policy, world, obs = model.policy(), model.world_model(), observation(0)
    actions = np.full((16, 2), 100, np.float32)
    for same in (np.int64(3), np.uint8(3)):
        np.testing.assert_array_equal(policy.sample(obs, seed=same), policy.sample(obs, seed=3))
        np.testing.assert_array_equal(
            world.rollout(obs, actions, seed=same).frames, world.rollout(obs, actions, seed=3).frames
        )
    assert policy.initial_state(2, seed=np.array([5, 7])).rows[1].seed == 7
    for wrong in ("x", 1.5, [1], True, 1 << 70):
        with pytest.raises(InputError, match="seed must"):
            policy.sample(obs, seed=wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="seed must"):
            world.rollout(obs, actions, seed=wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="seed must"):
            policy.reset(seed=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [[0, 1, 2], [np.nan, 0, 0], ["no", "", ""], [None] * 3, [True], np.ma.masked_all(3)])
def test_beginnings_of_episodes_that_are_no_flags_are_named(value: Any) -> None:
    policy, batch = UVA(tiny_bundle()).policy(), observation(0, batch=3)
    with pytest.raises(InputError, match="episode_start"):
        policy.predict(
            batch, episode_start=np.ma.asarray(value) if isinstance(value, np.ma.MaskedArray) else np.array(value)
        )
    with pytest.raises(InputError, match="mask"):
        policy.initial_state(3).restarted(value)
    for same in ([True, False, False], np.array([1, 0, 0]), np.array([1.0, 0, 0])):
        assert policy.initial_state(3, seed=0).restarted(same, [7, 7, 7]).rows[0].seed == 7  # type: ignore[arg-type]


def test_switches_and_frames_are_not_guessed() -> None:
    model = UVA(tiny_bundle())
    obs, plans = observation(0), np.full((1, 16, 2), 300.0)
    for value in ("no", None, 1, np.nan):
        with pytest.raises(InputError, match="deterministic must be True or False"):
            model.policy().predict(obs, deterministic=value)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="frames="):
        model.world_model().rollout(obs, plans, frames=[True, False])
    with pytest.raises(InputError, match="'agent_pos' must be numbers"):
        model.policy().act({**obs, "agent_pos": np.array([True, False])})


def test_what_is_masked_is_not_known() -> None:
    """Under the mask are numbers that nobody has measured."""
    model = UVA(tiny_bundle())
    obs, plans = observation(0), np.full((1, 16, 2), 300.0)
    frames = np.zeros((1, 4, 96, 96, 3), np.uint8)

    def masked(value: Any) -> Any:
        hidden = np.zeros(np.shape(value), bool)
        hidden.reshape(-1)[0] = True
        return np.ma.masked_array(value, hidden)

    calls: dict[str, Callable[[], Any]] = {
        "pixels": lambda: model.policy().act({**obs, "pixels": masked(obs["pixels"])}),
        "agent_pos": lambda: model.policy().act({**obs, "agent_pos": masked(obs["agent_pos"])}),
        "actions": lambda: model.world_model().rollout(obs, masked(plans)),
        "frames": lambda: model.inverse_model().infer(masked(frames)),
        "'x'": lambda: split({"x": masked(np.zeros(3))}),
    }
    for name, call in calls.items():
        with pytest.raises(InputError, match=f"{name}.* masked values"):
            call()
    with pytest.raises(InputError, match="masked"):
        model.inverse_model().infer([masked(frames[0, 0])] * 4)
    shown = np.ma.masked_array(plans, np.zeros(plans.shape, bool))  # nothing is masked
    np.testing.assert_array_equal(
        model.world_model().rollout(obs, shown).frames, model.world_model().rollout(obs, plans).frames
    )
