"""Training throughput of the joint stage: cached latents against the autoencoder in the loop.

``python -m uva_agents.benchmarks.speed.throughput``. Both loops run the same network, batch and optimiser in turn in the
same process;
the naive one encodes the eight frames of every window first, as a loop without a cache must. The cached loop is then also run as
several processes of one thread, as ``torchrun`` trains on the cores of one machine: each has its share of the batch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np

from uva_agents.benchmarks.skeleton import Benchmark, Outcome


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
    peak = _matmul_rate()
    together = _together(args) if args.processes else []
    yield f"joint stage, batch {args.batch_size}, {torch.get_num_threads()} threads, windows/s (median of {args.rounds}):"
    yield f"  cached latents        {np.median(cached):7.1f}   ({min(cached):.1f}..{max(cached):.1f})"
    yield f"  autoencoder in loop   {np.median(naive):7.1f}   ({min(naive):.1f}..{max(naive):.1f})"
    yield f"  ratio                 {np.median(ratios):7.2f}   ({min(ratios):.2f}..{max(ratios):.2f})"
    if together:
        yield (
            f"  {args.processes} processes, 1 thread  {np.median(together):7.1f}   ({min(together):.1f}..{max(together):.1f}), "
            f"batch {args.batch_size // args.processes} each"
        )
    yield f"  this machine, now     {peak:7.1f}   GFLOP/s of float32 matrix products"
    return Outcome({"cached": cached, "naive": naive, "together": together, "matmul_gflops": peak})


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
    """The pusht-nano recipe's joint stage on synthetic windows (time does not depend on the numbers)."""

    def __init__(self, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        import torch

        from uva_agents.data import Episodes, LatentWindows, standard_variants
        from uva_agents.model import VAE, UVANet
        from uva_agents.training.ema import EMA
        from uva_agents.training.optimisation import parameter_groups
        from uva_agents.training.run import make_normalizer
        from uva_agents.training.uva.joint_stage import JointStage
        from uva_agents.training.uva.recipes import pusht_nano

        recipe = pusht_nano()
        rng = np.random.default_rng(0)
        n, c = 4096, recipe.model
        self.frames = rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)
        arrays: dict[str, np.ndarray] = {
            "pixels": self.frames,
            "action": rng.uniform(0, 512, (n, 2)).astype(np.float32),
            "agent_pos": rng.uniform(0, 512, (n, 2)).astype(np.float32),
            "keypoints": rng.uniform(0, 512, (n, 18)).astype(np.float32),
        }
        episodes = Episodes(arrays, np.arange(128, n + 1, 128))
        tokens = [rng.normal(size=(n, c.tokens_per_frame, c.token_dim)).astype(np.float16) for _ in range(2)]
        from uva_agents.data import WindowSpec

        windows = LatentWindows(
            episodes,
            tokens,
            standard_variants(2),
            make_normalizer(recipe.data, episodes),
            WindowSpec(),
            frame_state_keys=recipe.data.frame_state_keys,
            keypoints=[rng.uniform(-1, 1, (n, 2 * c.num_keypoints)).astype(np.float32) for _ in range(2)],
        )
        from dataclasses import replace

        config = replace(recipe.network.joint, batch_size=batch_size)
        self.vae = VAE(recipe.model.vae).eval().requires_grad_(False)
        model = UVANet(c)
        assert model.guide is not None
        for part in (model.guide.detector, model.guide.dynamics, model.guide.renderer):
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
