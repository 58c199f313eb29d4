"""Steps and resets per second of every environment of this package that can be made here.

    uva bench env-speed [--env uva/ToolHang-v0 ...] [--seconds 5] [--json FILE]

One process. Processor time is printed beside the clock: on a machine that others use, too, only the former repeats.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from uva_agents.benchmarks.skeleton import Benchmark, Outcome

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "fast": {"quality": "fast"},
    "no pictures": {"render_observations": False},
}
"""What environments are made with; those that an environment's class does not take are left out for it."""


@dataclass(frozen=True, slots=True)
class Speed:
    """One environment with one setting.

    Attributes:
        env_id, setting: what was measured.
        pictures: shapes of the pictures in an observation.
        make_s: making it and the first reset, seconds by the clock; what a library compiles or reads once is in here.
        reset_s, reset_cpu_s: of a later reset, by the clock and in processor time.
        steps_per_s, steps_per_cpu_s: with random actions; a reset that the end of an episode asks for is left out.
        steps, resets: how many were measured.
        error: why it could not be measured; then all numbers are 0.
    """

    env_id: str
    setting: str
    pictures: tuple[tuple[int, ...], ...] = ()
    make_s: float = 0.0
    reset_s: float = 0.0
    reset_cpu_s: float = 0.0
    steps_per_s: float = 0.0
    steps_per_cpu_s: float = 0.0
    steps: int = 0
    resets: int = 0
    error: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--env", action="append", metavar="ID", help="only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=5.0, help="of steps per row (default %(default)s)")
    parser.add_argument("--resets", type=int, default=3, help="per row (default %(default)s)")


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """Measure. Status 0 when at least one environment was measured, 1 otherwise."""
    if args.seconds <= 0 or args.resets < 1:
        raise ValueError("--seconds must be positive and --resets at least 1")
    ids = registered() if args.env is None else args.env
    for env_id in ids:
        gym.spec(env_id)  # names the close matches of a wrong one
    names = " ".join(f"{name:>8s}" for name in ("make s", "reset s", "(cpu)", "steps/s", "(cpu)"))
    yield f"{'environment':24s} {'setting':12s} {'pictures':22s} {names}"
    rows = []
    for env_id in ids:
        for speed in speeds(env_id, seconds=args.seconds, resets=args.resets):
            yield _line(speed)
            rows.append(speed)
    measured = any(row.error is None for row in rows)
    return Outcome({"rows": [dataclasses.asdict(row) for row in rows]}, status=0 if measured else 1)


def registered() -> list[str]:
    """Every environment that this package has registered, but for that of recorded episodes, which needs some."""
    from uva_agents.envs import RECORDED

    return sorted(name for name, spec in gym.registry.items() if spec.namespace == "uva" and name != RECORDED)


def speeds(env_id: str, *, seconds: float, resets: int) -> Iterator[Speed]:
    """A row for each setting that ``env_id`` takes; one with an error if it cannot be made, or takes no actions at random."""
    for setting, kwargs in SETTINGS.items():
        try:
            if not _takes(env_id, kwargs):
                continue
            yield measure(env_id, setting, kwargs, seconds=seconds, resets=resets)
        except ImportError as error:
            yield Speed(env_id, setting, error=str(error))
            return
        except Exception as error:  # one that does not work here must not keep the others from being measured
            yield Speed(env_id, setting, error=f"{type(error).__name__}: {error}")


def measure(env_id: str, setting: str, kwargs: Mapping[str, Any], *, seconds: float, resets: int) -> Speed:
    """Random actions from seed 0 for ``seconds``, at least one step, then ``resets`` resets."""
    began = time.perf_counter()
    env = gym.make(env_id, disable_env_checker=True, **kwargs)
    with contextlib.closing(env):
        observation, _ = env.reset(seed=0)
        made = time.perf_counter() - began
        env.action_space.seed(0)
        env.step(env.action_space.sample())
        steps, clock, processor = 0, 0.0, 0.0
        while clock < seconds:
            action = env.action_space.sample()
            wall, cpu = time.perf_counter(), time.process_time()
            _, _, terminated, truncated, _ = env.step(action)
            clock, processor, steps = (
                clock + time.perf_counter() - wall,
                processor + time.process_time() - cpu,
                steps + 1,
            )
            if terminated or truncated:
                env.reset()
        wall, cpu = time.perf_counter(), time.process_time()
        for seed in range(1, 1 + resets):
            env.reset(seed=seed)
        reset_s, reset_cpu_s = (time.perf_counter() - wall) / resets, (time.process_time() - cpu) / resets
    # The clock of processor time is coarse on some machines: a few steps may seem to take none.
    per_cpu = steps / max(processor, 1e-6)
    return Speed(
        env_id, setting, _pictures(observation), made, reset_s, reset_cpu_s, steps / clock, per_cpu, steps, resets
    )


def _takes(env_id: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether the class behind ``env_id`` has arguments of these names. Raises what importing it raises."""
    entry = gym.spec(env_id).entry_point
    creator = gym.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    return creator is not None and set(kwargs) <= set(inspect.signature(creator).parameters)


def _pictures(observation: Any) -> tuple[tuple[int, ...], ...]:
    values = observation.values() if isinstance(observation, Mapping) else [observation]
    return tuple(tuple(value.shape) for value in values if getattr(value, "ndim", 0) == 3)


def _line(speed: Speed) -> str:
    head = f"{speed.env_id:24s} {speed.setting:12s} "
    if speed.error is not None:
        return f"{head}not measured: {speed.error}"
    shapes = {shape: speed.pictures.count(shape) for shape in speed.pictures}
    pictures = ", ".join(f"{n} x {shape[0]} x {shape[1]}" for shape, n in shapes.items()) or "none"
    return (
        f"{head}{pictures:22s} {speed.make_s:8.2f} {speed.reset_s:8.3f} {speed.reset_cpu_s:8.3f} "
        f"{speed.steps_per_s:8.1f} {speed.steps_per_cpu_s:8.1f}"
    )


BENCHMARK = Benchmark("env-speed", __doc__, add_arguments, run, threads=False)
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
