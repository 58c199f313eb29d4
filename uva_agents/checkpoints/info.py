"""A page of text about some weights."""

from __future__ import annotations

from pathlib import Path

from uva_agents.checkpoints.folder import kind_of, load_tensors, read_config, resolve


def info(name_or_path: str | Path) -> str:
    """Sizes, configuration and model card of a shipped name or a folder, without building the network."""
    folder = resolve(name_or_path)
    config = read_config(folder)
    kind = kind_of(config, folder)
    lines = [f"{config.get('name', folder.name)}  ({folder})", f"  {kind.value}: load with {kind.loaded_with}"]
    for path in sorted(folder.glob("*.safetensors")):
        count = sum(t.numel() for t in load_tensors(path).values())
        lines.append(f"  {path.stem}: {count / 1e6:.2f} M parameters, {path.stat().st_size / 2**20:.1f} MiB")
    interface = config["interface"]
    lines.append(f"  images {interface['image_shape']}, actions {interface['action_low']}..{interface['action_high']}")
    lines.append("  network: " + ", ".join(f"{k}={v}" for k, v in config["model"].items() if not isinstance(v, dict)))
    card = folder / "README.md"
    if card.exists():
        lines += ["", card.read_text()]
    return "\n".join(lines)
