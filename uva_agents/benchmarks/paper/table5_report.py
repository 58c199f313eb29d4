"""The table of Table V: success with intervals, ratios, latencies, as text and as a page with pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.benchmarks.evaluation.intervals import wilson_interval

if TYPE_CHECKING:
    from uva_agents.model import DiffusionPolicyConfig

METHODS = ("dp-c", "uva", "simulator")
TITLES = {"uva": "DP-C + UVA", "simulator": "DP-C + simulator"}
"""Of the guided rows; the title of the first says which Diffusion Policy it is."""


@dataclass(frozen=True)
class Table5Episode:
    """One finished episode; ``latencies_s`` of its decisions."""

    method: str
    assignment: str
    seed: int
    success: bool
    length: int
    wall_s: float
    latencies_s: tuple[float, ...]


def summarise(episodes: Sequence[Table5Episode]) -> dict[str, Any]:
    """Success per method and assignment and over all of them, lengths, latencies."""
    table: dict[str, Any] = {}
    for method in METHODS:
        own = [e for e in episodes if e.method == method]
        if not own:
            continue
        latencies = np.concatenate([e.latencies_s for e in own])
        cells = {a: _rate([e for e in own if e.assignment == a]) for a in dict.fromkeys(e.assignment for e in own)}
        table[method] = {
            "assignments": cells,
            "all": _rate(own),
            "length": float(np.mean([e.length for e in own])),
            "wall_s": float(np.sum([e.wall_s for e in own])),
            "latency_p50_s": float(np.percentile(latencies, 50)) if len(latencies) else None,
            "latency_p95_s": float(np.percentile(latencies, 95)) if len(latencies) else None,
        }
    for other, name in (("dp-c", "over_dp_c"), ("simulator", "over_simulator")):
        ratio = _ratio(episodes, other)
        if ratio is not None:
            table["uva"][name] = ratio
    return table


def share(episodes: Sequence[Table5Episode], method: str) -> float:
    """Success rate of a method over its episodes, in [0, 1]; 0 without any."""
    won = [float(e.success) for e in episodes if e.method == method]
    return sum(won) / max(len(won), 1)


def _ratio(episodes: Sequence[Table5Episode], other: str) -> float | None:
    """Success of UVA-guided planning over that of ``other``, on the starts that both have."""
    found = {m: {(e.assignment, e.seed): e.success for e in episodes if e.method == m} for m in ("uva", other)}
    both = found["uva"].keys() & found[other].keys()
    wins = {m: sum(found[m][start] for start in both) for m in found}
    return wins["uva"] / wins[other] if wins[other] else None


def _rate(episodes: Sequence[Table5Episode]) -> dict[str, Any]:
    wins = sum(e.success for e in episodes)
    return {"rate": wins / len(episodes), "n": len(episodes), "interval": wilson_interval(wins, len(episodes))}


def policy_title(config: DiffusionPolicyConfig) -> str:
    """What kind of Diffusion Policy proposes: what it sees, and what its denoiser starts from.

    The paper's, like the published ones, sees images and has no prior.
    """
    from uva_agents.model import UNetConfig

    title = "DP-C" if isinstance(config.denoiser, UNetConfig) else "DP-T"
    title += " on keypoints" if config.encoder.positions else " on images"
    return title + (" with a mixture prior" if config.relations and config.modes else "")


def lines(table: dict[str, Any], policy: str) -> list[str]:
    """The table as text.

    Args:
        policy: title of the policy that proposes, see :func:`policy_title`.
    """
    titles = {"dp-c": policy, **TITLES}
    width = max(len(title) for title in titles.values()) + 2
    found = [
        f"{'success [95%]':{width}s}"
        + "".join(f"{a:^26s}" for a in (*next(iter(table.values()))["assignments"], "all"))
    ]
    for method, row in table.items():
        cells = [*row["assignments"].values(), row["all"]]
        text = [f"{c['rate']:.2f} [{c['interval'][0]:.2f}, {c['interval'][1]:.2f}] n={c['n']}" for c in cells]
        found.append(f"{titles[method]:{width}s}" + "".join(f"{t:^26s}" for t in text))
    for method, row in table.items():
        if row["latency_p50_s"] is not None:
            found.append(
                f"{titles[method]:{width}s}decision p50 {row['latency_p50_s']:.3f} s, p95 {row['latency_p95_s']:.3f} s; "
                f"{row['length']:.0f} steps an episode; {row['wall_s'] / 60:.1f} min in all"
            )
    for name, what in (("over_dp_c", policy), ("over_simulator", "simulator-guided")):
        if name in table.get("uva", {}):
            found.append(f"UVA-guided is {table['uva'][name]:.2f} x {what}, on the starts that both have")
    return found


def page(text: str, facts: dict[str, Any], pictures: Sequence[Path]) -> str:
    """HTML with the table and the pictures beside it in the same folder."""
    shown = "\n".join(f'<h3>{p.stem}</h3>\n<img src="pictures/{p.name}" alt="{p.stem}">' for p in pictures)
    style = "body{font-family:sans-serif;margin:2em;max-width:1200px} pre{background:#f4f4f4;padding:1em;overflow:auto}"
    about = (
        "The first row is the policy without a planner; the planners choose among its proposals. "
        "Each picture: the present with the paths of all candidates, from green (cheap) to red (dear), the chosen one in white; "
        "above, what the world model imagines for it 4, 8, 12 and 16 steps ahead; below, what the simulator does with it."
    )
    return (
        f'<!doctype html>\n<meta charset="utf-8">\n<title>Table V</title>\n<style>{style} img{{max-width:100%}}</style>\n'
        f"<h1>Block pushing, one named block to one named square</h1>\n<pre>{text}</pre>\n"
        f"<pre>{json.dumps(facts, indent=1)}</pre>\n<p>{about}</p>\n{shown}\n"
    )
