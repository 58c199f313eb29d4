"""PPO on PushT, from what UVA sees: ``python examples/ppo_from_uva_features.py --steps 20000``

The policy that learns is a small network on UVA's joint latent; the frames themselves it never sees. Prints how random actions
do, how training goes, and how the saved and loaded policy does. Needs the extra ``sb3``; two CPU cores do.

``--through extractor`` gives PPO a features extractor (``UVAFeatures``) in place of wrapped environments
(``UVAFeatureVecEnv``): the latent of single frames, computed again for every gradient step. Slower; it can be trained along
with ``--thaw``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

import uva_agents  # noqa: F401  (registers the environments)
from uva_agents.bridges.sb3 import UVAFeatures, UVAFeatureVecEnv

SEED = 1_000_000
"""Training starts from here; evaluation starts are others."""


def make_env(max_steps: int) -> gym.Env[Any, Any]:
    """PushT with actions in [-1, 1]: PPO begins with actions around 0 and of spread 1, which would be a corner of [0, 512]."""
    env = gym.make("uva/PushT-v0", max_episode_steps=max_steps)
    return gym.wrappers.RescaleAction(env, np.float32(-1.0), np.float32(1.0))


def make_envs(args: argparse.Namespace, n: int) -> VecEnv:
    """``n`` environments, wrapped where features come from a wrapper."""
    env: VecEnv = DummyVecEnv([partial(make_env, args.max_steps)] * n)
    return UVAFeatureVecEnv(env, args.weights, pool=args.pool) if args.through == "wrapper" else env


@dataclass
class Episodes:
    """Coverage at the end, and the best, of every finished episode."""

    final: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)

    def add(self, info: dict[str, Any]) -> None:
        self.final.append(float(info["coverage"]))
        self.best.append(float(info["max_coverage"]))

    def text(self, last: int | None = None) -> str:
        """Means over the newest ``last``, with the standard error of the best."""
        final, best = self.final[-last:] if last else self.final, self.best[-last:] if last else self.best
        if not best:
            return "no episode yet"
        error = np.std(best, ddof=1) / len(best) ** 0.5 if len(best) > 1 else float("nan")
        return f"final coverage {np.mean(final):.3f}, best {np.mean(best):.3f} +- {error:.3f} (n = {len(best)})"


class Watch(BaseCallback):
    """A progress bar with the coverage of the newest episodes, and a line ten times on the way."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self.episodes, self._total, self._told = Episodes(), total, 0
        self._bar = Progress(
            TextColumn("PPO"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._task = self._bar.add_task("PPO", total=total, note="")

    def _on_training_start(self) -> None:
        self._bar.start()

    def _on_step(self) -> bool:
        for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            if done:
                self.episodes.add(info)
        self._bar.update(
            self._task,
            completed=self.num_timesteps,
            note=f"best coverage {np.mean(self.episodes.best[-20:] or [0]):.3f}",
        )
        while self._told < 10 and self.num_timesteps >= self._total * (self._told + 1) / 10:
            self._told += 1
            self._bar.console.print(f"  {self.num_timesteps:7d} steps: {self.episodes.text(last=20)}", highlight=False)
        return True

    def _on_training_end(self) -> None:
        self._bar.stop()


def evaluate(args: argparse.Namespace, policy: PPO | None) -> Episodes:
    """The first episodes of the evaluation's seeds, one environment at a time; ``None`` acts at random."""
    env, found = make_envs(args, 1), Episodes()
    env.action_space.seed(0)
    for seed in range(100_000, 100_000 + args.episodes):
        env.seed(seed)
        obs, done, info = env.reset(), False, {}
        while not done:
            if policy is None:
                action = np.stack([env.action_space.sample()])
            else:
                action, _ = policy.predict(obs, deterministic=True)  # type: ignore[arg-type]
            obs, _, dones, infos = env.step(action)
            done, info = bool(dones[0]), infos[0]
        found.add(info)
    env.close()
    return found


def main(argv: list[str] | None = None) -> int:
    """Train, save, load, evaluate."""
    args = _arguments(argv)
    print(f"random actions:           {evaluate(args, None).text()}", flush=True)
    env = make_envs(args, args.envs)
    kwargs: dict[str, Any] = {"net_arch": [256, 256]}
    if args.through == "extractor":
        kwargs |= {
            "features_extractor_class": UVAFeatures,
            "features_extractor_kwargs": {"weights": args.weights, "pool": args.pool, "frozen": not args.thaw},
        }
    model = PPO(
        "MlpPolicy" if args.through == "wrapper" else "MultiInputPolicy",
        env,
        n_steps=args.rollout,
        batch_size=min(128, args.rollout * args.envs),
        n_epochs=args.epochs,
        gamma=0.98,
        ent_coef=0.0,
        policy_kwargs=kwargs,
        seed=SEED,
        device="cpu",
    )
    watch, began = Watch(args.steps), time.perf_counter()
    model.learn(args.steps, callback=watch)
    wall = time.perf_counter() - began
    env.close()
    print(
        f"{model.num_timesteps} steps in {wall:.0f} s: {model.num_timesteps / wall:.0f} steps/s with {args.envs} environments"
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    model.save(args.out)
    print(f"PPO on UVA, saved and loaded: {evaluate(args, PPO.load(args.out, device='cpu')).text()}")
    print(f"policy: {args.out.with_suffix('.zip')}")
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="environment steps (default %(default)s)")
    parser.add_argument("--envs", type=int, default=8, help="environments side by side (default %(default)s)")
    parser.add_argument("--rollout", type=int, default=128, help="steps of each between updates (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="passes over a rollout (default %(default)s)")
    parser.add_argument("--max-steps", type=int, default=100, help="of an episode (default %(default)s)")
    parser.add_argument("--episodes", type=int, default=20, help="of each evaluation (default %(default)s)")
    parser.add_argument("--weights", default="pusht-nano", help="a shipped name or a folder (default %(default)s)")
    parser.add_argument("--pool", default="action", choices=["action", "frames", "mean", "tokens"])
    parser.add_argument("--through", default="wrapper", choices=["wrapper", "extractor"])
    parser.add_argument("--thaw", action="store_true", help="train UVA's transformer along (with --through extractor)")
    parser.add_argument("--out", type=Path, default=Path("runs/ppo-pusht"), help="where to save (default %(default)s)")
    args = parser.parse_args(argv)
    if args.thaw and args.through != "extractor":
        parser.error("--thaw needs --through extractor: wrapped environments give features, not gradients")
    return args


if __name__ == "__main__":
    raise SystemExit(main())
