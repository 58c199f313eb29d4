"""Decision latency at batch 1: newest frames in, 16 actions out. ``python -m uva_agents.benchmarks.speed.latency``.

The shipped size and the official size (random weights: time does not depend on them) run in the same process on the same
machine; every timed call is a decision. Beside them, the official size on a straight path: every decision encodes all
four history frames again, attends in plain operations and runs every denoising step in order, as the released code does where its
numbers repeat (its fused attention drops out a tenth of the weights, at inference too). A row shows what of that is fused
attention. ``--compile`` adds compiled runs.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Generator, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from uva_agents.agents import UVA, Policy
from uva_agents.agents.chunks import noise_seed
from uva_agents.agents.weights import Weights
from uva_agents.benchmarks.skeleton import Benchmark, Outcome, add_device
from uva_agents.model import Context, Task, optimize_for_inference
from uva_agents.model.diffusion import ancestral_process
from uva_agents.model.layers import Attention


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--weights", default="pusht-nano")
    parser.add_argument("--steps", type=int, default=16, help="denoising steps (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--base-repeats", type=int, default=3, help="of the official size; 0 leaves it out")
    add_device(parser)
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")


def run(args: argparse.Namespace) -> Generator[str, None, Outcome]:
    """Seconds of decisions, a row per network and way of computing it."""
    nano = UVA.from_pretrained(args.weights, device=args.device)
    rows = take_turns({f"{args.weights}, {args.steps} steps": decisions(Policy(nano, steps=args.steps))}, args.repeats)
    baseline = ""
    if args.base_repeats:
        base = official_size(nano)
        exact, quick = Policy(base, steps=100, temperature=0.95, ancestral=True), Policy(base, steps=args.steps)
        baseline = "uva_base, straight path, 100 steps"
        ours = {"uva_base, 100 steps": exact, f"uva_base, {args.steps} steps": quick}
        straight_paths = {
            baseline: straight_decisions(base, 100),
            "  the same, fused attention": straight_decisions(base, 100, fused=True),
        }
        paths = straight_paths | {name: decisions(agent) for name, agent in ours.items()}
        rows |= take_turns(paths, args.base_repeats)
        if args.compile:
            base.compile()
            compiled = {name.replace(",", " compiled,"): decisions(agent) for name, agent in ours.items()}
            rows |= take_turns(compiled, args.base_repeats)
        yield f"largest difference of the two paths at 100 steps: {difference(exact):.1e} (normalised actions)"
    yield f"one decision, batch 1, float32, {torch.get_num_threads()} threads, {nano.device}"
    for name, times in rows.items():
        p50, p95 = np.percentile(times, [50, 95]) * 1e3
        ratio = f"   {np.median(rows[baseline]) / p50 * 1e3:6.2f}x" if baseline else ""
        yield f"  {name:36s} median {p50:9.1f} ms   p95 {p95:9.1f} ms   n={len(times)}{ratio}"
    return Outcome({"rows": {k: list(v) for k, v in rows.items()}})


def take_turns(paths: Mapping[str, Iterator[float]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each path, which alternate so that all meet the same machine; the first round warms up."""
    rounds = [{name: next(path) for name, path in paths.items()} for _ in range(repeats + 1)]
    return {name: [times[name] for times in rounds[1:]] for name in paths}


def decisions(policy: Policy) -> Iterator[float]:
    """Seconds of every call that makes a new chunk."""
    rng = np.random.default_rng(0)
    spec, config = policy.weights.spec, policy.weights.config
    height, width = spec.image_shape
    state = policy.initial_state(1, seed=0)
    while True:
        decides = state[0].queue is None or len(state[0].queue) == 0
        obs: dict[str, np.ndarray] = {"pixels": rng.integers(0, 256, (height, width, 3), dtype=np.uint8)}
        if spec.proprio_key is not None:
            obs[spec.proprio_key] = rng.uniform(0, 1, spec.proprio_size(config.proprio_dim)).astype(np.float32)
        began = time.perf_counter()
        _, state = policy.predict(obs, state)
        if policy.device.type == "cuda":
            torch.cuda.synchronize()
        if decides:
            yield time.perf_counter() - began


def straight(base: Weights, frames: np.ndarray, steps: int, seed: int) -> Tensor:
    """One decision as the released code goes about it: four frames encoded, every step computed from scratch.

    Args:
        frames: uint8 (4, H, W, 3).

    Returns: normalised actions (1, 16, A).
    """
    model, head = base.net, base.net.action_head
    generator = torch.Generator(base.device).manual_seed(seed)
    tokens = model.to_tokens(base.vae.encode(base.images(frames)))[None]
    z = model.joint_latent(Context(history=tokens), model.visibility(Task.POLICY, 1))
    condition = model.action_condition(z)
    chunk = ancestral_process(steps).sample(
        lambda x, t: head.head.net(x, t, condition),
        (len(condition), head.channels),
        temperature=0.95,
        clip=head.head.config.clip,
        generator=generator,
        device=base.device,
    )
    return chunk.view(1, head.steps, head.channels)


def straight_decisions(base: Weights, steps: int, *, fused: bool = False) -> Iterator[float]:
    """Seconds of :func:`straight` decisions, with autoencoder and transformer as the released code runs them.

    Args:
        fused: attention in one kernel all the same.
    """
    rng = np.random.default_rng(0)
    height, width = base.spec.image_shape
    for seed in itertools.count():
        frames = rng.integers(0, 256, (4, height, width, 3), dtype=np.uint8)
        optimize_for_inference(base.vae, False)
        optimize_for_inference(base.net, False)
        for module in base.net.modules():
            if isinstance(module, Attention):
                module.fused = fused
        with torch.no_grad():
            began = time.perf_counter()
            straight(base, frames, steps, seed)
            if base.device.type == "cuda":
                torch.cuda.synchronize()
            taken = time.perf_counter() - began
        optimize_for_inference(base.vae)
        optimize_for_inference(base.net)
        yield taken


@torch.no_grad()
def difference(exact: Policy) -> float:
    """Largest difference between the two paths' actions on the same frames and noise, normalised."""
    base = exact.weights
    height, width = base.spec.image_shape
    frame = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    normalized = base.normalize_actions(exact.sample({"pixels": frame}, n=1, seed=5))
    expected = straight(base, np.stack([frame] * 4), exact.sampler.action_steps, noise_seed((5, 0)))
    return float((normalized - expected).abs().max())


def official_size(like: UVA) -> UVA:
    """The released network and autoencoder with random weights, on the interface of other weights."""
    from dataclasses import replace

    from uva_agents.checkpoints import Bundle
    from uva_agents.model import VAE, UVANet, uva_base_config

    config = uva_base_config()
    spec = replace(like.spec, proprio_key=None)
    network = UVANet(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        if not parameter.any():  # heads begin as the zero function, which would make any two paths agree
            torch.nn.init.normal_(parameter, std=0.02)
    vae = VAE(config.vae).eval().requires_grad_(False)
    return UVA(Bundle(network, vae, like.normalizer, spec, "uva_base").to(like.device))


BENCHMARK = Benchmark("latency", __doc__, add_arguments, run)
main = BENCHMARK.main


if __name__ == "__main__":
    raise SystemExit(main())
