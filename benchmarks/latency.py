"""Decision latency at batch 1: newest frames in, 16 actions out. ``python -m uva_agents.benchmarks.latency``

The shipped size and the official size (random weights: time does not depend on them) run in the same process on the same
machine; every timed call is a decision, with the two frames that came since the last one to encode.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uva_agents.benchmarks.machine import hardware, parse_arguments, versions

if TYPE_CHECKING:
    from uva_agents.agents import UVA, Policy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--weights", default="pusht-nano")
    parser.add_argument("--steps", type=int, default=16, help="denoising steps (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--base-repeats", type=int, default=3, help="of the official size; 0 leaves it out")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, default=None)


def main(argv: list[str] | None = None) -> int:
    """Print a table, and write JSON when asked."""
    import torch

    from uva_agents.agents import UVA, Policy

    args = parse_arguments(__doc__, add_arguments, argv)
    rows = {}
    nano = UVA.from_pretrained(args.weights, device=args.device)
    rows[args.weights] = measure(Policy(nano, steps=args.steps), args.repeats)
    if args.base_repeats:
        rows["uva_base (random weights)"] = measure(Policy(official_size(nano), steps=args.steps), args.base_repeats)
    print(f"one decision, batch 1, {args.steps} denoising steps, {torch.get_num_threads()} threads, {nano.device}")
    for name, times in rows.items():
        p50, p95 = np.percentile(times, [50, 95]) * 1e3
        print(f"  {name:28s} median {p50:9.1f} ms   p95 {p95:9.1f} ms   n={len(times)}")
    if len(rows) == 2:
        small, large = (float(np.median(t)) for t in rows.values())
        print(f"  ratio {large / small:.0f}x")
    if args.json:
        result = {"rows": {k: list(v) for k, v in rows.items()}, "hardware": hardware(), "versions": versions()}
        args.json.write_text(json.dumps(result, indent=1))
    return 0


def measure(policy: Policy, repeats: int) -> list[float]:
    """Seconds per decision, after one that warms up."""
    rng = np.random.default_rng(0)
    height, width = policy.uva.bundle.spec.image_shape
    observe: Callable[[], dict[str, np.ndarray]] = lambda: {  # noqa: E731
        "pixels": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "agent_pos": rng.uniform(0, 512, 2).astype(np.float32),
    }
    state = policy.initial_state(1, seed=0)
    times: list[float] = []
    while len(times) <= repeats:
        decides = state[0].queue is None or len(state[0].queue) == 0
        obs = observe()
        began = time.perf_counter()
        _, state = policy.predict(obs, state)
        if decides:
            times.append(time.perf_counter() - began)
    return times[1:]


def official_size(like: UVA) -> UVA:
    """The released network and autoencoder with random weights, on the interface of other weights."""
    from dataclasses import replace

    from uva_agents.agents import UVA
    from uva_agents.checkpoints import Bundle
    from uva_agents.model import UVA as Network
    from uva_agents.model import VAE, uva_base_config

    config = uva_base_config()
    spec = replace(like.bundle.spec, proprio_key=None)
    network = Network(config).eval().requires_grad_(False)
    vae = VAE(config.vae).eval().requires_grad_(False)
    return UVA(Bundle(network, vae, like.bundle.normalizer, spec, "uva_base").to(like.device))


if __name__ == "__main__":
    raise SystemExit(main())
