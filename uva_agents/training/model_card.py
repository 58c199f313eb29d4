"""The model card that training writes beside the weights: what they were trained on and how, what came out, how to use them."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uva_agents.checkpoints.kinds import weights_kind
from uva_agents.training.card_facts import CardFacts
from uva_agents.training.card_pictures import StageMetrics, draw_curves, last_name, read_metrics
from uva_agents.training.recipe import StageConfig
from uva_agents.utils.files import replacing, write_bytes, write_text
from uva_agents.utils.memory import in_words
from uva_agents.version import __version__


def write_card(
    folder: Path, facts: CardFacts, run: Path, stages: Mapping[str, StageConfig], extra: Mapping[str, Any]
) -> None:
    """``README.md`` and its pictures, in a weights folder that is written already.

    Args:
        folder: of the weights.
        facts: of the run.
        run: its folder, where the stages' numbers are.
        stages: name -> optimisation, in their order.
        extra: what the weights' ``config.json`` says beside the recipe: ``selected``, where they are the best and not the last.
    """
    metrics = {name: read_metrics(run / name / "metrics.jsonl") for name in stages}
    pictures = []
    if any(measured.lines for measured in metrics.values()):
        import imageio.v3 as iio

        with replacing(folder / "curves.png") as partial:
            iio.imwrite(partial, draw_curves(metrics))
        pictures.append("curves.png")
    last = last_name(stages)
    if (futures := run / last / "futures.png").exists():
        write_bytes(folder / "futures.png", futures.read_bytes())
        pictures.append("futures.png")
    write_text(folder / "README.md", card_text(folder, facts, run, stages, metrics, pictures, extra))


def card_text(
    folder: Path,
    facts: CardFacts,
    run: Path,
    stages: Mapping[str, StageConfig],
    metrics: Mapping[str, StageMetrics],
    pictures: Sequence[str],
    extra: Mapping[str, Any],
) -> str:
    """The card; arguments as of :func:`write_card`."""
    last = metrics.get(last_name(stages), StageMetrics(()))
    selected = extra.get("selected")
    parts = [
        f"# {facts.recipe.name}",
        _summary(facts, selected),
        _table(("", ""), _facts_table(folder, facts)),
        "## Data",
        _data(facts),
        "## Recipe",
        _recipe(facts, stages, metrics, run),
        "## Results",
        _results(last, selected, held_out=_held_out(facts)),
    ]
    if "curves.png" in pictures:
        parts.append("![losses and held-out metrics of every stage](curves.png)")
    if "futures.png" in pictures:
        parts.append(
            ("Held-out windows" if _held_out(facts) else "Windows")
            + " at the last validation: the frame of now on the left, then what came and what was predicted.\n\n"
            "![real and predicted frames](futures.png)"
        )
    parts += ["## Use", _use(facts, selected), "## Limits", _limits(facts, last, selected)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(facts: CardFacts, selected: Mapping[str, Any] | None) -> str:
    what = {
        "uva": "Unified Video Action model (arXiv 2503.00200): policy, world model and inverse model from one set of weights",
    }.get(facts.recipe.kind, f"Weights of kind `{facts.recipe.kind}`")
    rows = sum(dataset.rows for dataset in facts.datasets)
    text = f"{what}, trained on {rows:,} rows of {_names(facts)}."
    if selected is not None:
        text += (
            f" These are the best of their training, by the {selected['by']}: those after step {selected['step']:,}."
        )
    return text + " This card was written by the training."


def _facts_table(folder: Path, facts: CardFacts) -> list[tuple[str, str]]:
    spec, data = facts.spec, facts.recipe.data
    parameters = ", ".join(f"{name} {count / 1e6:.2f} M parameters" for name, count in facts.parameters.items())
    files = list(folder.glob("*.safetensors"))
    cameras = [f"`pixels` uint8 ({spec.image_shape[0]}, {spec.image_shape[1]}, 3)"]
    if spec.wrist_shape is not None:
        cameras.append(f"`pixels_wrist` uint8 ({spec.wrist_shape[0]}, {spec.wrist_shape[1]}, 3)")
    rows = [
        ("network", parameters),
        ("files", f"safetensors, {in_words(sum(path.stat().st_size for path in files))} together"),
        ("cameras", ", ".join(cameras)),
    ]
    if spec.proprio_key is not None:
        rows.append(("proprioception", _numbers(facts, spec.proprio_key, None, spec.proprio_transforms)))
    low, high = (np.array(values) for values in (spec.action_low, spec.action_high))
    rows.append(("action", _numbers(facts, "action", (low, high), spec.action_transforms)))
    instructions = getattr(data, "instructions", "none")
    if instructions != "none":
        how = {"table": "those of the data, each with a vector of its own", "clip": "any, read by CLIP"}
        rows.append(("instructions", f"`task`: {how.get(instructions, 'vectors given with the observation')}"))
    steps = getattr(facts.recipe.model, "action_steps", None)
    chunk = "" if steps is None else f"; chunks of {steps} actions, {spec.execute} executed"
    rows.append(("rate", f"{spec.control_hz:g} actions a second{chunk}"))
    if spec.env_id is not None:
        rows.append(("environment", f"`{spec.env_id}`"))
    rows.append(("versions", ", ".join(f"{name} {number}" for name, number in _versions().items())))
    return [(name, text) for name, text in rows if text]


def _numbers(
    facts: CardFacts, key: str, limits: tuple[np.ndarray, np.ndarray] | None, transforms: Sequence[Any]
) -> str:
    """Name, unit and range of each number, and the conventions that it goes through."""
    data = facts.recipe.data
    names = tuple(getattr(data, "names", {}).get(key, ()))
    units = tuple(getattr(data, "units", {}).get(key, ()))
    numbers = []
    for i in range(max(len(names), 0 if limits is None else len(limits[0]))):
        name = _plain(names[i]) if i < len(names) else f"number {i}"
        unit = f" {_plain(units[i])}" if i < len(units) and units[i] else ""
        where = "" if limits is None else f" [{limits[0][i]:.4g}, {limits[1][i]:.4g}]"
        numbers.append(f"{name}{where}{unit}")
    text = f"`{_plain(key)}`" + (f": {', '.join(numbers)}" if numbers else "")
    learned = ", ".join(_plain(getattr(t, "kind", type(t).__name__)) for t in transforms)
    return text + (f"; learned as {learned}" if learned else "")


def _data(facts: CardFacts) -> str:
    total = sum(dataset.weight for dataset in facts.datasets)
    rows = [
        (
            _plain(d.name) + ("" if d.has_actions else " (video without actions)"),
            f"{d.episodes:,}",
            f"{d.rows:,}",
            _episode_list(d.held_out),
            f"{d.weight / total:.0%}",
            f"`{d.fingerprint}`" if d.fingerprint else "",
        )
        for d in facts.datasets
    ]
    text = _table(("dataset", "episodes", "rows", "held out", "share", "fingerprint"), rows)
    texts = [t for d in facts.datasets for t in d.instructions]
    if texts and getattr(facts.recipe.data, "instructions", "none") != "none":
        shown = "; ".join(_plain(t) for t in list(dict.fromkeys(texts))[:20])
        text += f"\n\nInstructions: {shown}{'; ...' if len(set(texts)) > 20 else ''}."
    return text


def _recipe(facts: CardFacts, stages: Mapping[str, StageConfig], metrics: Mapping[str, StageMetrics], run: Path) -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    lines = [f"On {device}. All of it is in `config.json` (`recipe`), and `uva train` takes it from there again.", ""]
    if facts.origin is not None:
        lines += [f"Training went on from `{_plain(facts.origin)}`.", ""]
    for number, (name, c) in enumerate(stages.items(), 1):
        reached = metrics[name].last_step
        ended = f", ended early after {reached:,}" if 0 < reached < c.steps else ""
        lines.append(
            f"{number}. `{name}`: {c.steps:,} steps of {c.batch_size}{ended}; AdamW {c.lr:g} cosine, warm-up {c.warmup}, "
            f"weight decay {c.weight_decay:g}, gradient clip {c.clip:g}, EMA {c.ema_max:g}"
        )
    return "\n".join([*lines, "", f"Finished {_date(run, stages)}."])


def _held_out(facts: CardFacts) -> bool:
    return any(data.held_out for data in facts.datasets)


def _results(last: StageMetrics, selected: Mapping[str, Any] | None, *, held_out: bool) -> str:
    parts = []
    if selected is not None:
        chosen = _compared(selected["metrics"])
        parts.append(f"After step {selected['step']:,}, by which these weights were chosen:\n\n{chosen}")
    values = last.final("val")
    if values and (selected is None or not selected["metrics"].keys() & values.keys()):
        step = last.step_of("val")
        whose = "Held-out episodes" if held_out else "Episodes of the training (none was held out)"
        parts.append(f"{whose}, averaged weights after step {step:,}:\n\n{_compared(values)}")
    if selected is None and (rollouts := last.final("rollouts")):
        parts.append(f"Rollouts after step {last.step_of('rollouts'):,}:\n\n{_compared(rollouts)}")
    return "\n\n".join(parts) or "Nothing was measured."


def _compared(values: Mapping[str, float]) -> str:
    """A row per metric; a column for those without a group in their name, and one for every group (``GROUP/metric``)."""
    groups = list(dict.fromkeys(name.rpartition("/")[0] for name in values))
    names = list(dict.fromkeys(name.rpartition("/")[2] for name in values))
    titles = [_plain(group) or ("all, or of the first dataset" if len(groups) > 1 else "value") for group in groups]
    rows = [
        (f"`{name}`", *(_value(values.get(f"{group}/{name}" if group else name)) for group in groups)) for name in names
    ]
    return _table(("", *titles), rows)


def _use(facts: CardFacts, selected: Mapping[str, Any] | None) -> str:
    kind, where = weights_kind(facts.recipe.kind), "weights" if selected is None else "weights-best"
    env = facts.spec.env_id or "ENV"
    if facts.recipe.kind == "uva":
        code = (
            "import uva_agents as uva\n\n"
            f'agents = uva.UVA.from_pretrained("{where}")  # the path of this folder\n'
            "policy, world, inverse = agents.policy(), agents.world_model(), agents.inverse_model()\n"
            "policy.reset(seed=0)\n"
            "action = policy.act(obs)  # obs: the keys of the table above"
        )
        commands = [
            f"uva eval {where} {env}",
            f"uva imagine --weights {where}" + ("" if facts.spec.env_id else f" --env {env}"),
            f"uva serve {where}",
        ]
    else:
        code = (
            "from uva_agents.agents import load_policy\n\n"
            f"# {kind.loaded_with}; the path of this folder\n"
            f'policy = load_policy("{where}")\n'
            "action, state = policy.predict(obs, deterministic=True)  # obs: the keys of the table above"
        )
        commands = [f"uva eval {where} {env}", f"uva info {where}", f"uva serve {where}"]
    return f"```python\n{code}\n```\n\n```sh\n" + "\n".join(commands) + "\n```"


def _limits(facts: CardFacts, last: StageMetrics, selected: Mapping[str, Any] | None) -> str:
    main = facts.datasets[0]
    lines = [
        f"* Trained on {main.episodes - len(main.held_out):,} episodes of `{_plain(main.name)}`"
        + (f" and {len(facts.datasets) - 1} more datasets" if len(facts.datasets) > 1 else "")
        + ": other scenes, cameras, robots and lighting are not covered.",
        "* Actions are clipped to the ranges above; frames of another size are resized.",
    ]
    if not last.final("rollouts") and selected is None:
        lines.append(
            "* Nothing was run in closed loop: errors on recorded episodes do not say how often a task succeeds (`uva eval` does)."
        )
    if not _held_out(facts):
        lines.append("* No episode was held out: no number here says how well it generalises.")
    lines.append("* No safety was tested. On a real arm, stay within reach of its emergency stop.")
    return "\n".join(lines)


def _names(facts: CardFacts) -> str:
    names = [f"`{_plain(dataset.name)}`" for dataset in facts.datasets]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _episode_list(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:12]))
    return f"{shown}, ... ({len(numbers)})" if len(numbers) > 12 else shown or "none"


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _plain(text: object) -> str:
    """Text of the data's in a table's cell, without what Markdown would take for its own."""
    return re.sub(r"[`|<>\[\]\r\n*]", " ", str(text)).strip()[:120]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def _date(run: Path, stages: Mapping[str, StageConfig]) -> str:
    """Of the last stage's end: a card that is written again says the same."""
    path = run / last_name(stages) / "checkpoint.pt"
    when = datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else datetime.now(UTC)
    return f"{when:%Y-%m-%d}"


def _versions() -> dict[str, str]:
    found = {"uva-agents": __version__, "Python": platform.python_version()}
    for name in ("torch", "accelerate", "diffusers", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
