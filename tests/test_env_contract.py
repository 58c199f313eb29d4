"""What every registered environment keeps to: seeds, success flags, memory, a clean end, mistakes, states, copies.

A new one joins by being registered.
"""

import copy
import dataclasses
import gc
import hashlib
import importlib.util
import inspect
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import uva_agents.envs  # noqa: F401  (registers)
from tests.conftest import REPOSITORY
from uva_agents.errors import InputError

EXTRAS = {
    "BlockPush": ("pybullet", "block-push"),
    "ToolHang": ("robosuite", "toolhang"),
    "Libero": ("libero", "libero"),
    "ArxX5": ("mujoco", "arx"),
}
"""What an id holds -> the module that it cannot do without, and the extra that installs it."""
HEAVY = ("ToolHang", "Libero")
"""Seconds per reset: their tests are long ones; what they say is tested in small with each environment."""
WARM_UP, RESETS = 20, 20
ROOM, HEAVY_ROOM = 4.0, 20.0
"""MiB that a process may grow by over RESETS, after as many to warm up. Measured: 0 to 1. One PushT window surface
(512 x 512 x 4 bytes) kept per reset would be 20, and a robosuite model that is not freed is tens of MiB per reset. What is smaller
than a fifth of a MiB per reset is not found: allocators give pages back late."""

IDS = sorted(name for name in gym.registry if name.startswith("uva/"))


def cases(ids: list[str] = IDS) -> list[Any]:
    return [pytest.param(n, marks=pytest.mark.long) if any(h in n for h in HEAVY) else n for n in ids]


def make(env_id: str) -> gym.Env[Any, Any]:
    for part, (module, extra) in EXTRAS.items():
        if part in env_id and importlib.util.find_spec(module) is None:
            pytest.skip(f"{env_id} needs {module}: pip install 'uva-agents[{extra}]'")
    return gym.make(env_id)


def digest(env_id: str, steps: int = 6) -> str:
    """Of everything that two seeded episodes show."""
    env, found = gym.make(env_id), hashlib.sha256()
    env.action_space.seed(0)
    for seed in (0, 12):
        obs, info = env.reset(seed=seed)
        for _ in range(steps):
            for key in sorted(obs):
                value = obs[key]
                found.update(value.encode() if isinstance(value, str) else np.ascontiguousarray(value).tobytes())
            obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
            found.update(repr((float(reward), bool(terminated), bool(truncated), bool(info["is_success"]))).encode())
    env.close()
    return found.hexdigest()


def test_there_are_environments_to_test():
    assert {"uva/PushT-v0", "uva/PushTMulti-v0", "uva/PushTDisturbed-v0", "uva/PushTGoal-v0", "uva/BlockPush-v0"} <= {
        *IDS
    }


@pytest.mark.parametrize("env_id", cases())
def test_success_is_told_on_reset_and_step_and_twenty_resets_do_not_grow_memory(env_id):
    env = make(env_id)
    env.action_space.seed(0)

    def episode(seed: int) -> None:
        obs, info = env.reset(seed=seed)
        assert isinstance(info["is_success"], bool)
        assert env.observation_space.contains(obs)
        for _ in range(3):
            obs, reward, _, _, info = env.step(env.action_space.sample())
            assert isinstance(info["is_success"], bool) and np.isfinite(float(reward))
        assert env.observation_space.contains(obs)

    for seed in range(WARM_UP):  # caches and pools fill
        episode(seed)
    before = resident()
    for seed in range(RESETS):
        episode(seed)
    grown = (resident() - before) / 2**20
    env.close()
    env.close()  # twice does no harm
    room = HEAVY_ROOM if any(part in env_id for part in HEAVY) else ROOM
    assert grown < room, f"{grown:.1f} MiB in {RESETS} resets"


@pytest.mark.parametrize("env_id", cases())
def test_the_same_seed_gives_the_same_episode_in_another_process(env_id):
    make(env_id).close()
    code = f"import sys; from tests.test_env_contract import digest; print('digest', digest({json.dumps(env_id)}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}  # another order of sets and dicts
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert other.returncode == 0, other.stderr[-2000:]
    assert f"digest {digest(env_id)}" in other.stdout


@pytest.mark.parametrize("env_id", cases())
def test_a_process_that_closes_its_environment_ends_well_and_quietly(env_id):
    make(env_id).close()
    code = (
        f"import gymnasium as gym, uva_agents.envs\nenv = gym.make({json.dumps(env_id)})\nenv.reset(seed=0)\n"
        "env.step(env.action_space.sample())\nenv.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr[-2000:]


# -- mistakes: one environment of each kind for all of them ---------------------------------------------------------------


@pytest.fixture(scope="module", params=cases())
def env(request: pytest.FixtureRequest) -> Iterator[gym.Env[Any, Any]]:
    made = make(request.param)
    made.action_space.seed(0)
    made.reset(seed=0)
    yield made
    made.close()


def test_options_of_other_libraries_are_ignored_and_misspelt_ones_are_named(env):
    _, info = env.reset(seed=1, options={"lerobot_new_rollout": True, "lerobot_": None})
    assert info["is_success"] is False
    known = known_options(env)
    for name in ("lerobo_new_rollout", "no_such_option", 7, *(f"{known[:-1]}" for known in known)):
        with pytest.raises(InputError, match=f"unknown reset option {name!r}: {env.spec.id}") as caught:
            env.reset(options={name: 1})
        assert not (known and name == known[0][:-1]) or f"did you mean {known[0]!r}?" in str(caught.value)
    for options in (7, "home", [("home", True)], True):
        with pytest.raises(InputError, match=r"reset\(options="):
            env.reset(options=options)


def test_reset_options_of_wrong_types_are_named(env):
    for name in known_options(env):
        for value in (None, "x", 7.5, object(), {}, float("nan")):
            if (name, value) in (("assignment", None), ("variation", {})):  # which mean something
                continue
            with pytest.raises(InputError, match=name):
                env.reset(options={name: value})


def test_seeds_that_are_none_are_named(env):
    for seed in (-1, 2**32, 1.0, 1.5, "1", True, [1], np.nan):
        with pytest.raises(InputError, match="seed"):
            env.unwrapped.reset(seed=seed)
    one, other = env.unwrapped.reset(seed=np.int64(3))[0], env.unwrapped.reset(seed=3)[0]
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_actions_that_are_none_are_named_and_nothing_moves(env):
    env.reset(seed=0)
    good, base = env.action_space.sample(), env.unwrapped
    before = base.get_state()
    wrong = [
        None,
        "left",
        b"x",
        {},
        {"action": good},
        object(),
        True,
        [],
        np.zeros((2, *good.shape)),
        good[:-1],
        good.astype(str),
    ]
    wrong += [good.astype(complex), good.astype(object), good > 0, [[1, 2], [3]]]
    if "ArxX5" not in env.spec.id:  # whose safety layer makes a hold of them, and says so
        wrong += [np.full_like(good, np.nan), np.where(np.arange(len(good)), good, np.inf)]
    for action in wrong:
        for call in (base.step, base.advance) if hasattr(base, "advance") else (base.step,):
            with pytest.raises(InputError, match=r"action"):
                call(action)
    assert moment(base.get_state()) == moment(before)


def test_arguments_that_are_none_are_named(env):
    def refused(match: str, **wrong: Any) -> None:
        with pytest.raises((InputError, TypeError), match=match):
            gym.make(env.spec.id, **wrong)

    refused("render_siz", render_siz=96)
    with pytest.raises(InputError, match="render_mode='human' is not offered"):
        type(env.unwrapped)(render_mode="human")
    names = argument_names(env)
    sizes = [name for name in ("image_size", "render_size") if name in names]
    assert "render_size" in sizes
    for name in sizes:
        for size in (10**6, 0, -1, 96.5, True, "96", None, (96, 96, 96), np.nan):
            refused(f"{name}=.*at least 8 pixels and at most", **{name: size})
    for name in set(names) & {"render_observations", "outside", "draw_arm", "timestamp"}:
        refused(f"{name}='no'", **{name: "no"})
    for name in set(names) & {
        "assignment",
        "action_mode",
        "camera",
        "quality",
        "suite",
        "instruction",
        "initial_states",
    }:
        for value in ("X-Y", 7, ["R-R"]):
            if name != "camera" or "ArxX5" not in env.spec.id:
                refused(f"{name}=", **{name: value})
    for value in (99, -1, "0", 1.0, True) if "task_id" in names else ():
        refused("task_id=", task_id=value)


# -- life cycle -----------------------------------------------------------------------------------------------------------

CALLS = (
    "step",
    "advance",
    "render",
    "get_obs",
    "observe",
    "get_state",
    "hold_action",
    "tick",
    "draw_state",
    "set_state",
    "reset",
)


@pytest.mark.parametrize("env_id", cases())
def test_before_reset_and_after_close_every_call_says_so_and_a_copy_is_alike(env_id):
    env = make(env_id)
    base, action = env.unwrapped, env.action_space.sample()

    def calls(names: tuple[str, ...]) -> Iterator[Any]:
        for name in names:
            if hasattr(base, name):
                arguments = (
                    (action,) if name in ("step", "advance") else (None,) if name in ("set_state", "draw_state") else ()
                )
                yield lambda base=base, name=name, arguments=arguments: getattr(base, name)(*arguments)

    for call in calls(CALLS[:8]):
        with pytest.raises(gym.error.ResetNeeded, match=r"before reset\(\): call env\.reset\(\) first") as caught:
            call()
        assert isinstance(caught.value, InputError) and isinstance(caught.value, RuntimeError)
    fresh = copy.deepcopy(env)
    assert all(np.array_equal(a, b) for a, b in zip(*(values(e.reset(seed=2)[0]) for e in (env, fresh)), strict=True))
    fresh.close()
    env.close()
    env.close()
    for call in calls(CALLS):
        with pytest.raises(gym.error.ClosedEnvironmentError, match=r"after close\(\)") as caught:
            call()
        assert isinstance(caught.value, InputError) and isinstance(caught.value, RuntimeError)
    gone = pickle.loads(pickle.dumps(env))
    with pytest.raises(gym.error.ClosedEnvironmentError):
        gone.reset()


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
def test_a_copy_goes_on_as_the_original_does(env, duplicate):
    env.action_space.seed(5)
    env.reset(seed=4)
    for _ in range(2):
        env.step(env.action_space.sample())
    other = duplicate(env)
    assert other.unwrapped is not env.unwrapped and other.spec == env.spec
    for turn in range(6):
        actions = [e.action_space.sample() for e in (env, other)]
        assert np.array_equal(*actions)
        one, two = (e.reset() if turn == 3 else e.step(a) for e, a in zip((env, other), actions, strict=True))
        assert flat(one) == flat(two)
    assert np.array_equal(env.render(), other.render())
    other.close()
    env.step(env.action_space.sample())  # and the original does not mind


# -- states ---------------------------------------------------------------------------------------------------------------


def test_a_state_that_was_changed_is_refused_and_nothing_has_happened(env):
    env.reset(seed=6)
    env.step(env.action_space.sample())
    base = env.unwrapped
    state = base.get_state()
    base.set_state(pickle.loads(pickle.dumps(state)))
    env.step(env.action_space.sample())
    here = moment(base.get_state())
    wrong = [None, 7, b"", {}, np.zeros(5), dataclasses.astuple(state) if "PushT" in env.spec.id else (), state.stamp]
    wrong += [dataclasses.replace(state, stamp=None)]
    for name, value in (
        ("environment", "uva/Elsewhere-v0"),
        ("task", "another"),
        ("version", 99),
        ("simulator", "mujoco 2.0"),
    ):
        wrong.append(dataclasses.replace(state, stamp=dataclasses.replace(state.stamp, **{name: value})))
    for field in dataclasses.fields(state):
        if field.name != "stamp":
            for value in changed(getattr(state, field.name)):
                wrong.append(dataclasses.replace(state, **{field.name: value}))
    for other in wrong:
        with pytest.raises(InputError, match="state"):
            base.set_state(other)
        assert moment(base.get_state()) == here
    with pytest.raises(InputError, match="is of uva/Elsewhere-v0"):
        base.set_state(wrong[8])
    base.set_state(state)
    assert moment(base.get_state()) == moment(state)


def test_a_state_of_another_environment_is_refused_by_its_name():
    made = [make(env_id) for env_id in IDS if not any(h in env_id for h in HEAVY)]
    states = []
    for env in made:
        env.reset(seed=0)
        states.append(env.unwrapped.get_state())
    for env in made:
        for other, state in zip(made, states, strict=True):
            if other is not env:
                with pytest.raises(
                    InputError, match=rf"this state is of {other.spec.id}.*gym\.make\('{other.spec.id}'\)"
                ):
                    env.unwrapped.set_state(state)
    for env in made:
        env.close()


@pytest.mark.parametrize("count", [12, pytest.param(500, marks=pytest.mark.long)], ids=["a few", "five hundred"])
def test_pickled_states_with_a_flipped_byte_are_refused_or_the_same(env, count):
    """Of the pickle, wherever: it no longer unpickles, or is refused, or nothing that matters was hit. The process lives."""
    env.reset(seed=6)
    base = env.unwrapped
    state = base.get_state()
    whole, rng = pickle.dumps(state), np.random.default_rng(0)
    for _ in range(count):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        try:
            loaded = pickle.loads(bytes(damaged))
        except Exception:  # pickle's own, of many kinds
            continue
        try:
            base.set_state(loaded)
        except InputError:
            continue
        assert moment(base.get_state()) == moment(state)


# -- what is left behind --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "cycles"),
    [("uva/PushT-v0", 200), ("uva/PushTDisturbed-v0", 20), ("uva/BlockPush-v0", 12), ("uva/ArxX5-v0", 15)]
    + [
        pytest.param(env_id, n, marks=pytest.mark.long)
        for env_id, n in [(i, 200) for i in IDS if not any(h in i for h in HEAVY)]
        + [("uva/ToolHang-v0", 60), ("uva/Libero10-v0", 20)]
    ],
)
def test_nothing_outlives_an_environment(env_id, cycles):
    """Threads, files, processes, OpenGL contexts, simulations, temporary folders and memory, over many lives.

    Memory: the drawing library's comes and goes by 25 MiB; a quarter of a MiB for each life is less than any simulation has.
    """

    def life(seed: int) -> None:
        env = make(env_id)
        env.reset(seed=seed)
        env.step(env.action_space.sample())
        env.render()
        if seed % 3:
            env.close()
        else:  # only forgotten
            del env
            gc.collect()

    for seed in range(6):  # caches and pools fill
        life(seed)
    before, memory = left_behind(), resident()
    for seed in range(cycles):
        life(seed)
    assert left_behind() == before
    grown = (resident() - memory) / 2**20
    draws = any(part in env_id for part in ("ArxX5", *HEAVY))
    assert grown < (40.0 if draws else 12.0) + 0.25 * cycles, f"{grown:.1f} MiB in {cycles} lives"


def left_behind() -> dict[str, int]:
    """What this process has, in numbers."""
    found = {
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "processes": len(multiprocessing.active_children()),
        "folders": len(list(Path(tempfile.gettempdir()).glob("uva-block-push-*"))),
    }
    if "pybullet" in sys.modules:
        bullet = sys.modules["pybullet"]
        found["simulations"] = sum(bool(bullet.getConnectionInfo(n)["isConnected"]) for n in range(64))
    if "mujoco.egl" in sys.modules:
        found["contexts"] = sum(type(thing).__name__ in ("GLContext", "EGLGLContext") for thing in gc.get_objects())
    return found


PROCESSES = """
import multiprocessing, sys
import gymnasium as gym, numpy as np
import uva_agents.envs

def shown(envs):
    envs.reset(seed=3)
    return np.stack(envs.render()).sum(), envs.step(envs.action_space.sample())[0]["pixels"].sum()

def main(env_id):
    options = {"instruction": "info"} if "Libero" in env_id else {}
    for context in ("fork", "spawn", "forkserver"):  # nothing is drawn here before the fork
        make = lambda: gym.make("uva_agents.envs:" + env_id, render_mode="rgb_array", **options)
        envs = gym.vector.AsyncVectorEnv([make] * 2, context=context)
        envs.action_space.seed(0)
        print(env_id, context, *shown(envs))
        envs.close()

if __name__ == "__main__":
    main(sys.argv[1])
"""


@pytest.mark.parametrize("env_id", [pytest.param(n, marks=pytest.mark.long) for n in IDS])
def test_vector_environments_in_processes_of_every_kind_show_the_same(env_id, tmp_path):
    make(env_id).close()
    program = tmp_path / "program.py"
    program.write_text(PROCESSES, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program), env_id],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split()[2:] for line in done.stdout.splitlines() if line.startswith(env_id)]
    assert len(lines) == 3 and lines[0] == lines[1] == lines[2]


# -- helpers --------------------------------------------------------------------------------------------------------------


def known_options(env: gym.Env[Any, Any]) -> tuple[str, ...]:
    names = {
        "uva/BlockPush-v0": ("assignment",),
        "uva/Libero10-v0": ("task_id", "initial_states", "initial_state", "wait_steps"),
        "uva/ToolHang-v0": (),
        "uva/ArxX5-v0": ("home", "release_stop"),
    }
    return names.get(env.spec.id) or getattr(env.unwrapped, "_options", ())


def argument_names(env: gym.Env[Any, Any]) -> list[str]:
    return list(inspect.signature(type(env.unwrapped).__init__).parameters)


def values(observation: dict[str, Any]) -> list[Any]:
    return [observation[key] for key in sorted(observation)]


def flat(thing: Any) -> Any:
    """Comparable: what is nested, with arrays as bytes."""
    if isinstance(thing, np.ndarray):
        return thing.shape, thing.tobytes()
    if isinstance(thing, dict):
        return {key: flat(value) for key, value in thing.items()}
    if isinstance(thing, tuple | list):
        return [flat(value) for value in thing]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return [flat(getattr(thing, field.name)) for field in dataclasses.fields(thing)]
    return thing


def moment(state: Any) -> Any:
    """Comparable. PyBullet does not write what it has read as it had written it before, though it goes on alike."""
    kept = [
        name
        for name in state.__dataclass_fields__
        if "BlockPush" not in type(state).__name__ or name not in ("physics", "stamp")
    ]
    return [flat(getattr(state, name)) for name in kept]


def changed(value: Any) -> Iterator[Any]:
    """Values that are like ``value`` and not it."""
    yield "x"
    if value is not None:
        yield None
    if isinstance(value, bytes):
        middle = len(value) // 2
        yield value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :]
        yield value[:-1]
        yield value + b"\0" * 8
        yield b""
        yield b"\0" * len(value)
        yield np.full(len(value) // 8, np.nan).tobytes()
        yield np.full(len(value) // 8, 1e30).tobytes()
    elif isinstance(value, float):
        yield from (float("nan"), 1e30, value + 1e-9, float("-inf"), [value])
    elif isinstance(value, tuple) and value and isinstance(value[0], float):
        yield from (
            value[:3] if len(value) > 3 else value[:1],
            (float("nan"), *value[1:]),
            (1e30, *value[1:]),
            (*value, 0.0),
            (),
        )
    elif isinstance(value, tuple) and value:
        yield from (value[1:], (*value, value[-1]), ((float("nan"), 1.0), *value[1:]), (*value[:-1], None))
    elif isinstance(value, int):
        yield from (value + 1, -1, 10**6)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            for other in list(changed(getattr(value, field.name)))[:4]:
                yield dataclasses.replace(value, **{field.name: other})


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
