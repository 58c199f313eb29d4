"""Training throughput of the joint stage: cached latents against the autoencoder in the loop.

``python -m uva_agents.benchmarks.speed.throughput``. Both loops run the same network, batch and optimiser in turn in the same
process; the naive one encodes the eight frames of every window first, as a loop without a cache must. The same network without
keypoints, as any robot's recordings train it, is timed in turn with that. The cached loop is then also run as several processes
of one thread, as ``torchrun`` trains on the cores of one machine: each has its share of the batch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.benchmarks.skeleton import Benchmark, Outcome

if TYPE_CHECKING:
    from uva_agents.training.uva.recipes import UVARecipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="timed steps per loop and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--processes", type=int, default=2, help="of the last line; 0 leaves it out (default %(default)s)"
    )


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """Windows per second of both loops, and their ratio."""
    import torch

    cached, naive = [], []
    bench = Bench(args.batch_size)
    bench.step(encode=True)
    for _ in range(args.rounds):
        cached.append(bench.rate(args.steps, encode=False))
        naive.append(bench.rate(max(2, args.steps // 4), encode=True))
    ratios = [a / b for a, b in zip(cached, naive, strict=True)]
    others: dict[str, list[float]] = {title: [] for title in _LAYOUTS}
    benches = {title: Bench(args.batch_size, recipe=_recipe_of(title)) for title in others}
    for other in benches.values():
        other.step(encode=False)
    for _ in range(args.rounds):  # in turn with the first recipe, as the machine differs from minute to minute
        own = bench.rate(args.steps, encode=False)
        for title, other in benches.items():
            others[title].append(other.rate(args.steps, encode=False) / own)
    peak = _matmul_rate()
    together = _together(args) if args.processes else []
    yield f"joint stage, batch {args.batch_size}, {torch.get_num_threads()} threads, windows/s (median of {args.rounds}):"
    yield f"  cached latents        {np.median(cached):7.1f}   ({min(cached):.1f}..{max(cached):.1f})"
    yield f"  autoencoder in loop   {np.median(naive):7.1f}   ({min(naive):.1f}..{max(naive):.1f})"
    yield f"  ratio                 {np.median(ratios):7.2f}   ({min(ratios):.2f}..{max(ratios):.2f})"
    yield "nano without keypoints, windows/s as a ratio to pusht-nano's:"
    for title, found in others.items():
        yield f"  {title:45s} {np.median(found):7.2f}   ({min(found):.2f}..{max(found):.2f})"
    if together:
        yield (
            f"  {args.processes} processes, 1 thread  {np.median(together):7.1f}   ({min(together):.1f}..{max(together):.1f}), "
            f"batch {args.batch_size // args.processes} each"
        )
    yield f"  this machine, now     {peak:7.1f}   GFLOP/s of float32 matrix products"
    return Outcome({"cached": cached, "naive": naive, "layouts": others, "together": together, "matmul_gflops": peak})


_LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "one camera, 7 actions": {},
    "two cameras, 7 actions, instructions": {"wrist": True, "instructions": "table"},
}
"""What other robots have -> arguments of a layout."""


def _recipe_of(title: str) -> UVARecipe:
    """The recipe of the nano size for recordings laid out so."""
    from uva_agents.data import Field
    from uva_agents.training.recipe import DataConfig
    from uva_agents.training.uva.sizes import recipe_for

    about = _LAYOUTS[title]
    cameras = ("pixels", "pixels_wrist") if about.get("wrist") else ("pixels",)
    data = DataConfig(
        fields={name: Field(name) for name in (*cameras, "action", "agent_pos")},
        control_hz=20.0,
        proprio_key="agent_pos",
        instructions=about.get("instructions", "none"),
    )
    return recipe_for("nano", data, {"action": 7, "agent_pos": 7})


def _together(args: argparse.Namespace) -> list[float]:
    """Windows per second of several processes that train one network, one number per round."""
    from torch.multiprocessing.spawn import spawn

    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "rates.json"
        work = (args.processes, args.batch_size // args.processes, args.steps, args.rounds, str(results))
        spawn(_one_of_several, work, nprocs=args.processes)
        rates: list[float] = json.loads(results.read_text(encoding="utf-8"))
    return rates


def _one_of_several(rank: int, world: int, batch_size: int, steps: int, rounds: int, results: str) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{results}.store", rank=rank, world_size=world)
    bench = Bench(batch_size, rank=rank, world=world)
    rates = []
    for number in range(rounds + 1):
        dist.barrier()
        rates.append(world * bench.rate(2 if number == 0 else steps, encode=False))
    if rank == 0:
        Path(results).write_text(json.dumps(rates[1:]), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def _matmul_rate() -> float:
    """GFLOP/s of a large product: shared machines differ from hour to hour, and windows per second with them."""
    import torch

    a = torch.randn(1024, 1024)
    a @ a
    times = []
    for _ in range(20):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * 1024**3 / float(np.median(times)) / 1e9


class Bench:
    """A recipe's joint stage on synthetic windows (time does not depend on the numbers).

    Args:
        batch_size: of each process.
        rank, world: of processes.
        recipe: pusht-nano's by default.
    """

    def __init__(self, batch_size: int, *, rank: int = 0, world: int = 1, recipe: UVARecipe | None = None) -> None:
        import torch

        from uva_agents.data import Episodes, LatentWindows, WindowSpec, standard_variants
        from uva_agents.data.dataset import Extras
        from uva_agents.model import VAE, UVANet
        from uva_agents.training.ema import EMA
        from uva_agents.training.optimisation import parameter_groups
        from uva_agents.training.run import make_normalizer
        from uva_agents.training.uva.joint_stage import JointStage
        from uva_agents.training.uva.recipes import pusht_nano

        recipe = recipe or pusht_nano()
        rng = np.random.default_rng(0)
        n, c, data = 4096, recipe.model, recipe.data
        self.frames = rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)
        widths = {"action": c.action_dim, "agent_pos": c.proprio_dim, "keypoints": 2 * c.num_keypoints - 2}
        arrays: dict[str, np.ndarray] = {"pixels": self.frames}
        for name in {"action", "agent_pos", *data.frame_state_keys}:
            arrays[name] = rng.uniform(0, 512, (n, widths[name])).astype(np.float32)
        episodes = Episodes(arrays, np.arange(128, n + 1, 128))

        def tokens() -> list[np.ndarray]:
            return [rng.normal(size=(n, c.tokens_per_frame, c.token_dim)).astype(np.float16) for _ in range(2)]

        keypoints = [rng.uniform(-1, 1, (n, 2 * c.num_keypoints)).astype(np.float32) for _ in range(2)]
        windows = LatentWindows(
            episodes,
            tokens(),
            standard_variants(2, mirror=recipe.world is not None),
            make_normalizer(data, episodes),
            WindowSpec(),
            frame_state_keys=data.frame_state_keys,
            world_size=recipe.world_size,
            keypoints=keypoints if c.num_keypoints else None,
            extras=Extras(
                wrist=tokens() if c.wrist_image else None,
                text=rng.normal(size=(len(episodes), c.text_dim)) if c.text_dim else None,
            ),
        )
        from dataclasses import replace

        config = replace(recipe.network.joint, batch_size=batch_size)
        self.vae = VAE(recipe.model.vae).eval().requires_grad_(False)
        model = UVANet(c)
        if (guide := model.guide) is not None:
            for part in (guide.detector, guide.dynamics, guide.renderer):
                part.requires_grad_(False)  # as in the recipe: stages of their own
        self.stage = JointStage(recipe, config, "joint", model, windows, recipe.network.task_weights, None)
        module = self.stage.module.train()
        self.rank, self.world = rank, world
        # The trained forward, as accelerate wraps it.
        self.module = torch.nn.parallel.DistributedDataParallel(module) if world > 1 else module
        self.plain = module
        self.optimizer = torch.optim.AdamW(parameter_groups(module, config.weight_decay), lr=1e-4, fused=True)
        self.ema = EMA(module, power=0.75, maximum=0.999)
        self.count = 0

    def step(self, *, encode: bool) -> None:
        """One optimisation step."""
        import torch

        from uva_agents.data.latents import encode_frames

        inputs = self.stage.inputs(self.count, self.rank, self.world)
        if encode:
            rows = np.random.default_rng(self.count).integers(0, len(self.frames), 8 * self.stage.config.batch_size)
            encode_frames(self.vae, self.frames[rows], patch_size=2)
        loss, _ = self.module(**inputs)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.plain.parameters(), 1.0)
        self.optimizer.step()
        self.ema.update(self.plain, self.count)
        self.count += 1

    def rate(self, steps: int, *, encode: bool) -> float:
        """Windows per second."""
        began = time.perf_counter()
        for _ in range(steps):
            self.step(encode=encode)
        return steps * self.stage.config.batch_size / (time.perf_counter() - began)


BENCHMARK = Benchmark("throughput", __doc__, add_arguments, run)
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
